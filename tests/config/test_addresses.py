"""Endpoint strings, and how many clients may connect at once."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from pfsb.config.addresses import BACKLOG, with_backlog

CLIENTS = 100
"""Number of clients that connect at once: more than Twisted's own backlog, and fewer than the limit of any system."""


class BacklogTests(TestCase):
    def test_endpoints_get_a_backlog_where_they_can(self) -> None:
        """Endpoints get a backlog, unless the configuration sets one or the kind of endpoint knows none."""
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
        """Many clients that connect at once do not wait: the kernel accepts their connections even while the reactor
        does not run."""
        endpoint = serverFromString(reactor, with_backlog("tcp:0:interface=127.0.0.1"))
        port: Any = self.successResultOf(endpoint.listen(Factory.forProtocol(Protocol)))
        self.addCleanup(port.stopListening)
        with ExitStack() as clients:
            for _ in range(CLIENTS):
                clients.enter_context(socket.create_connection(("127.0.0.1", port.getHost().port), timeout=30))
