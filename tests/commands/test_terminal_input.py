"""Completion and history of the interactive `pfsb client`."""

from __future__ import annotations

from pathlib import Path

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.client.core.replies import Reply
from pfsb.commands.terminal_input import HISTORY_LINES_MAX, CommandCompleter, LineHistory, commands_of
from pfsb.frontends.line import help as help_pages

HELP = Reply(
    "OK",
    (
        "GET key [read=LEVEL]                      Read a key.",
        "PUT key value                             Set a key.",
        "LOCK name [wait=SECONDS] [ttl=SECONDS]    Take a lock.",
        "SETTINGS                                  Show the settings.",
        "SETTINGS SET name=value ...  Change settings, all or none.",
        "FAULT LOSS p | DELAY ms  Disturb this server's own links.",
    ),
)


class CompleterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.completer = CommandCompleter()

    def complete(self, text: str) -> list[str]:
        """The lines that completion can make of this text."""
        found = self.completer.get_completions(Document(text), CompleteEvent(completion_requested=True))
        return [text[: len(text) + each.start_position] + each.text for each in found]

    def test_verbs_are_those_that_the_server_tells(self) -> None:
        """Verbs are completed, in either case, as the server has told them; before that there are no completions."""
        self.assertEqual(self.complete("G"), [])
        self.completer.learn(HELP)
        self.assertEqual(self.complete("g"), ["GET "])
        self.assertEqual(self.complete("SETT"), ["SETTINGS ", "SETTINGS SET "])
        self.assertEqual(self.complete("HELP lo"), ["HELP LOCK "])

    def test_options_follow_a_verb_once(self) -> None:
        """Each option is completed once behind its verb; so are the values of read=."""
        self.completer.learn(HELP)
        self.assertEqual(self.complete("LOCK printer "), ["LOCK printer wait=", "LOCK printer ttl="])
        self.assertEqual(self.complete("LOCK printer wait=3 "), ["LOCK printer wait=3 ttl="])
        self.assertEqual(self.complete("get a re"), ["get a read="])
        self.assertEqual(self.complete("GET a read=st"), ["GET a read=stale"])
        self.assertEqual(self.complete("PUT a b"), [])

    def test_only_the_line_with_the_cursor_counts(self) -> None:
        """Where several lines were pasted, only the line with the cursor is completed."""
        self.completer.learn(HELP)
        self.assertEqual(self.complete("PUT a 1\nGE"), ["PUT a 1\nGET "])

    def test_usage_and_help_are_told_apart(self) -> None:
        """The usage and the help in a row of HELP are told apart; a usage that is longer than its column ends at two
        spaces."""
        found = commands_of(HELP)
        self.assertEqual((found["SETTINGS SET"].help, found["FAULT LOSS"].verb), (
            "Change settings, all or none.", "FAULT LOSS"
        ))  # fmt: skip
        self.assertEqual(found["LOCK"].usage, "LOCK name [wait=SECONDS] [ttl=SECONDS]")

    def test_help_may_go_on_in_further_rows(self) -> None:
        """Where the help of a command goes on in further rows of a server's HELP, all of it is found."""
        described = (*help_pages.ALWAYS, *KeyValue().commands, *Lock().commands)
        answer = help_pages.all_commands(described)
        assert isinstance(answer, Done)
        rows = tuple(str(row[0][1]) for row in answer.rows)
        self.assertGreater(len(rows), len(described))
        found = commands_of(Reply("OK", rows))
        self.assertEqual([(each.usage, each.help) for each in found.values()], [(d.usage, d.help) for d in described])


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.history = LineHistory(str(self.path))

    def test_lines_come_back_the_last_one_first(self) -> None:
        """Lines of the history come back with the last one first, also those of a file of an earlier version; pasted
        lines count one by one."""
        self.path.write_text("GET a\n")
        self.history.store_string("PUT a 1 \n\nPUT b 2")
        self.assertEqual(list(self.history.load_history_strings()), ["PUT b 2", "PUT a 1", "GET a"])

    def test_file_is_for_its_owner_alone(self) -> None:
        """The file of the history can be read by its owner alone, since values in it may be secret."""
        self.history.store_string("PUT password x")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_token_that_was_typed_is_not_kept(self) -> None:
        """A line with AUTH that a person has typed is not kept in the file of the history."""
        self.history.store_string("GET a\n  auth alice.secret\nGET b")
        self.assertEqual(list(self.history.load_history_strings()), ["GET b", "GET a"])

    def test_file_is_cut_when_it_is_long(self) -> None:
        """A long file of the history is cut, and keeps the last lines."""
        self.path.write_text("".join(f"GET {i}\n" for i in range(2 * HISTORY_LINES_MAX + 1)))
        kept = list(self.history.load_history_strings())
        self.assertEqual((len(kept), kept[0]), (HISTORY_LINES_MAX, f"GET {2 * HISTORY_LINES_MAX}"))
        self.assertEqual(len(self.path.read_text().splitlines()), HISTORY_LINES_MAX)

    def test_line_that_cannot_be_saved_is_no_failure(self) -> None:
        """A line that cannot be saved raises no error; the reason is kept, to be shown at the end of the program."""
        self.path.mkdir()
        self.history.store_string("PUT a 1")
        self.assertIn("directory", self.history.trouble)
        self.assertEqual(list(self.history.load_history_strings()), [])
