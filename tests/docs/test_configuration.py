"""The reference of the configuration is complete, and is what the code says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.config.config import Limits, Timers, keys_of_file
from pfsb.sessions.cluster_settings import RANGES
from tests.docs.docs_script import load

make_configuration = load("make_configuration")


class ConfigurationPageTests(SynchronousTestCase):
    def test_page_is_what_the_script_writes(self) -> None:
        """The page is what docs/make_configuration.py writes now. Run that script after a change of the
        configuration."""
        self.maxDiff = None
        self.assertEqual(make_configuration.PAGE.read_text(encoding="utf-8"), make_configuration.render())

    def test_every_key_and_setting_is_there_with_its_meaning(self) -> None:
        """Every key and every setting is on the page with its meaning; a field without a docstring raises KeyError."""
        text = make_configuration.render()
        for name in ("cluster", "servers", *keys_of_file(), *RANGES):
            head, _, meaning = text.partition(f"\n``{name}`` : ")[2].partition("\n")
            self.assertRegex(head, r".+ : (required|default: \S+)", name)
            self.assertGreater(len(meaning.partition("\n\n")[0].split()), 3, name)

    def test_values_and_defaults_are_those_of_the_code(self) -> None:
        text = make_configuration.render()
        self.assertIn(
            f"``limits.connections`` : a whole number, 1 to 1000000 : default: {Limits().connections}\n", text
        )
        self.assertIn(f"``timers.progress`` : seconds, 0.001 to 3600 : default: {Timers().progress}\n", text)
        self.assertIn("``faults`` : true or false : default: false\n", text)
        self.assertIn("``servers.ID.http`` : an endpoint string of Twisted : default: none\n", text)
