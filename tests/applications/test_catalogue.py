"""Applications are found by name through plugins, and their verbs by the catalogue of a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.application import Application, Verb
from pfsb.applications.catalogue import Catalogue, catalogue_of_plugins
from pfsb.applications.interfaces import (
    ApplicationMaker,
    BadRequest,
    Command,
    CommandDescription,
    Done,
    IContext,
)


@define
class Parrot:
    """As much of an application as the catalogue looks at."""

    name: str
    verbs: Sequence[str]

    @property
    def commands(self) -> list[CommandDescription]:
        return [CommandDescription(verb, verb, "Says it again.") for verb in self.verbs]

    def check(self, command: tuple[str, ...]) -> Command:
        return ("checked by", self.name, *command)


PLUGIN = "from pfsb.applications.interfaces import ApplicationMaker\n"
EARLIER_PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import classImplements
from pfsb.applications.interfaces import ApplicationMaker, IApplicationMaker
classImplements(ApplicationMaker, IPlugin, IApplicationMaker)
"""
"""The beginning of a plugin file as it was necessary before the class declared its interfaces itself."""


class Counter(Application):
    """An application of a third party."""

    name = "counter"
    commands = (CommandDescription("COUNT", "COUNT", "Count."),)

    def __init__(self) -> None:
        self.count = 0
        super().__init__({"COUNT": Verb(lambda asked: (asked.verb,), (str,), self._count)})

    def _count(self, command: Command, context: IContext) -> Done:
        self.count += 1
        return Done((("count", self.count),))

    def snapshot(self) -> bytes:
        return str(self.count).encode()

    def restore(self, data: bytes) -> None:
        self.count = int(data)


class Finding(SynchronousTestCase):
    def plugins(self, *makers: str, begin: str = PLUGIN) -> None:
        """Add these makers, in a plugin folder of a third party, for the rest of the test."""
        root = Path(self.mktemp()).absolute()
        folder = root / "twisted" / "plugins"
        folder.mkdir(parents=True)
        lines = [f"maker{number} = ApplicationMaker({maker})" for number, maker in enumerate(makers)]
        (folder / "someone_elses_plugins.py").write_text(begin + "\n".join(lines))
        package = sys.modules["twisted.plugins"]
        self.patch(package, "__path__", [*package.__path__, str(folder)])
        self.addCleanup(sys.modules.pop, "twisted.plugins.someone_elses_plugins", None)

    def refusal(self, *names: str) -> str:
        return str(self.assertRaises(BadRequest, catalogue_of_plugins, names))

    def test_pfsbs_own_applications_are_found_in_the_order_asked_for(self) -> None:
        """The applications chat, lock and kv are found by their names in the configuration."""
        names = ["kv", "chat", "lock"]
        self.assertEqual([each.name for each in catalogue_of_plugins(names).applications], names)

    def test_every_call_builds_anew(self) -> None:
        """Each call makes new applications, so that two servers in one process, as in the simulator, share no state."""
        self.assertIsNot(catalogue_of_plugins(["chat"]).applications[0], catalogue_of_plugins(["chat"]).applications[0])

    def test_application_of_a_third_party_needs_one_line_in_a_plugin(self) -> None:
        """A plugin names any module with a factory that can be called without arguments. The class in the line declares
        its interfaces; a plugin file that declares them itself, as it once had to, does no harm."""
        for begin in (PLUGIN, EARLIER_PLUGIN):
            self.plugins(f'"counter", "Counts.", "{__name__}", "Counter"', begin=begin)
            self.assertEqual(
                [type(application).__name__ for application in catalogue_of_plugins(["counter", "kv"]).applications],
                ["Counter", "KeyValue"],
            )
            sys.modules.pop("twisted.plugins.someone_elses_plugins", None)

    def test_an_unknown_application_is_answered_with_the_known_ones(self) -> None:
        """The error for an unknown application names the known ones."""
        self.assertEqual(
            self.refusal("chat", "chess"), 'there is no application "chess"; known are chat, instances, kv, lock'
        )

    def test_a_name_with_two_plugins_is_refused(self) -> None:
        """Two plugins of one name are refused: which of them would run depended on the order of folders, and could
        differ between servers."""
        self.plugins('"kv", "Another.", "collections", "Counter"')
        self.assertEqual(self.refusal("kv"), '2 plugins are named "kv"; each application needs a name of its own')

    def test_a_plugin_has_the_name_of_its_application(self) -> None:
        """A plugin must have the name of its application: otherwise the next change of settings, which names the
        plugin, would begin another application with its first state."""
        self.plugins('"store", "Keys.", "pfsb.applications.key_value", "KeyValue"')
        self.assertEqual(
            self.refusal("store"), "the plugin \"store\" makes an application that is named 'kv': they must be equal"
        )

    def test_a_name_that_settings_do_not_take_is_refused_in_the_plugin(self) -> None:
        """A plugin whose name the setting `apps` could not hold is refused: that setting has names of letters, digits
        and _, with commas between them."""
        for wrong in ("two words", "a,b", "kv:2", "line\n", "", "2nd", "n" * 65):
            self.assertRaises(ValueError, ApplicationMaker, wrong, "Help.", "collections", "Counter")

    def test_a_plugin_that_names_nothing_is_told_by_its_name(self) -> None:
        """A wrong module and a wrong attribute are mistakes in the plugin, and are reported as such."""
        self.plugins('"chess", "Plays.", "no_such_module", "Chess"', '"go", "Plays.", "collections", "Go"')
        self.assertIn('the application "chess" cannot be loaded: ', self.refusal("chess"))
        self.assertIn('the application "go" cannot be loaded: ', self.refusal("go"))


class TheCatalogue(SynchronousTestCase):
    def setUp(self) -> None:
        self.parrot = Parrot("parrot", ["SAY", "REPEAT"])
        self.raven = Parrot("raven", ["NEVERMORE"])
        self.catalogue = Catalogue([self.parrot, self.raven])

    def test_a_command_is_checked_by_the_application_that_has_its_verb(self) -> None:
        """A command is checked by the application that has its verb, which gets the arguments as they were typed."""
        self.assertEqual(self.catalogue.check(("NEVERMORE", "a", "B")), ("checked by", "raven", "NEVERMORE", "a", "B"))

    def test_verbs_are_in_any_case(self) -> None:
        """Clients write verbs in any case; applications see upper case only."""
        self.assertEqual(self.catalogue.check(("say", "Hi")), ("checked by", "parrot", "SAY", "Hi"))

    def test_a_verb_leads_to_its_application_and_description(self) -> None:
        """The catalogue gives, for a verb, its application and its description: front ends route commands by the one,
        and HELP shows the other."""
        entry = self.catalogue.entry("repeat")
        self.assertIs(entry.application, self.parrot)
        self.assertEqual(entry.description, self.parrot.commands[1])
        self.assertEqual(list(self.catalogue.verbs), ["SAY", "REPEAT", "NEVERMORE"])

    def test_an_unknown_verb_is_answered_with_the_nearest_one(self) -> None:
        """The refusal of an unknown verb has the code UNKNOWN, and names the verb that is most like it."""
        error = self.assertRaises(BadRequest, self.catalogue.check, ("repaet",))
        self.assertEqual((error.code, str(error)), ("UNKNOWN", 'unknown verb REPAET; did you mean "REPEAT"?'))

    def test_a_verb_unlike_any_is_answered_with_all(self) -> None:
        """The refusal of a verb that is like no other names all verbs."""
        error = self.assertRaises(BadRequest, self.catalogue.check, ("XYZZY",))
        self.assertEqual(str(error), "unknown verb XYZZY; known are SAY, REPEAT, NEVERMORE")

    def test_empty_command_is_refused(self) -> None:
        """An empty command is refused with a sentence."""
        error = self.assertRaises(BadRequest, self.catalogue.check, ())
        self.assertEqual((error.code, str(error)), ("BADREQUEST", "a verb is missing (example: HELP)"))

    def test_two_applications_with_one_verb_cannot_run_together(self) -> None:
        """Two applications with the same verb are refused: it could not be told which of them a command means."""
        error = self.assertRaises(BadRequest, Catalogue, [self.parrot, self.raven, Parrot("crow", ["SAY"])])
        self.assertEqual(
            str(error), "the applications parrot and crow both have the verb SAY; they cannot run in one server"
        )

    def test_names_that_break_lines_are_refused(self) -> None:
        """A verb or a name that would break a line is refused with one line that has both, since the line protocol
        prints them as they are."""
        for wrong in ("TWO WORDS", "LINE\nOK", "say", "", "2ND", "SAY\x00", "É", "V" * 33):
            error = str(self.assertRaises(BadRequest, Catalogue, [Parrot("crow", ["FLY", wrong])]))
            self.assertIn("the application crow has the verb ", error)
            self.assertTrue(error.isprintable(), error)
        for wrong in ("two words", "line\nOK", "", "c" * 65):
            error = str(self.assertRaises(BadRequest, Catalogue, [Parrot(wrong, ["FLY"])]))
            self.assertTrue(error.startswith("an application is named '") and error.isprintable(), error)

    def test_help_is_one_line(self) -> None:
        """A usage or help with a line end is refused, since HELP prints both as they are."""
        for wrong in (
            CommandDescription("FLY", "FLY\nOK", "Flies."),
            CommandDescription("FLY", "FLY", "Flies.\nOK"),
        ):
            self.patch(Parrot, "commands", [wrong])
            error = str(self.assertRaises(BadRequest, Catalogue, [self.parrot]))
            self.assertIn("the application parrot has a ", error)
            self.assertTrue(error.isprintable(), error)

    def test_switch_to_a_wrong_name_is_refused(self) -> None:
        """A change of settings to an application that does not exist changes neither the settings nor the applications,
        on any server."""
        self.assertRaises(BadRequest, self.catalogue.switch, [Parrot("crow", ["a b"])])
        self.assertEqual(list(self.catalogue.verbs), ["SAY", "REPEAT", "NEVERMORE"])
