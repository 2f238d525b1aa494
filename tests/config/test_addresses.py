"""Endpoint strings, and how many clients may knock at once."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from pfsb.config.addresses import BACKLOG, with_backlog

KNOCKING = 100
"""More than Twisted's own backlog, and fewer than any system's limit."""


class BacklogTests(TestCase):
    def test_it_is_given_where_it_can_be(self) -> None:
        """And left as it is where somebody has said it, or where Twisted has none."""
        for written, read in (
            ("tcp:9400", f"tcp:9400:backlog={BACKLOG}"),
            ("tcp:port=9400:interface=127.0.0.1", f"tcp:port=9400:interface=127.0.0.1:backlog={BACKLOG}"),
            (r"tcp6:9400:interface=\:\:1", rf"tcp6:9400:interface=\:\:1:backlog={BACKLOG}"),
            ("tcp:9400:backlog=9", "tcp:9400:backlog=9"),
            ("unix:/run/pfsb", "unix:/run/pfsb"),
            ("haproxy:tcp:9400", "haproxy:tcp:9400"),
        ):
            self.assertEqual(with_backlog(written), read)

    def test_clients_that_come_together_are_not_kept_waiting(self) -> None:
        """They are let in by the kernel while the reactor, here, does nothing at all."""
        endpoint = serverFromString(reactor, with_backlog("tcp:0:interface=127.0.0.1"))
        port: Any = self.successResultOf(endpoint.listen(Factory.forProtocol(Protocol)))
        self.addCleanup(port.stopListening)
        with ExitStack() as knocking:
            for _ in range(KNOCKING):
                knocking.enter_context(socket.create_connection(("127.0.0.1", port.getHost().port), timeout=30))
