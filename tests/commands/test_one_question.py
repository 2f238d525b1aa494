"""A line that is sent to one server, on a connection of its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.addresses import address_from_text
from pfsb.commands.survey import ask_status


class LateTests(SynchronousTestCase):
    def test_server_that_does_not_answer_in_time(self) -> None:
        """The text is for people: Twisted's own is that of a tuple."""
        reactor: Any = MemoryReactorClock()
        asked = ask_status(reactor, address_from_text(0, "127.0.0.1:9400"), 0.75)
        reactor.advance(0.75)
        self.assertEqual(self.successResultOf(asked), "unreachable: no answer for 0.75 s")
