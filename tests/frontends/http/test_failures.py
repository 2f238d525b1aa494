"""Mistakes of the server with a request over HTTP: no client waits for an answer for ever."""

from __future__ import annotations

from typing import Any
from unittest import mock

from pfsb.frontends.http import key_value, protocol
from tests.frontends.http.http_client import Connection, HTTPCase


def fail(*_: object) -> Any:
    raise ZeroDivisionError


class FailureTests(HTTPCase):
    def logged(self) -> int:
        return len(self.flushLoggedErrors(ZeroDivisionError))

    def test_answer_that_cannot_be_made_is_internal(self) -> None:
        """If an answer cannot be made of a result that a turn of the server has brought, the client gets INTERNAL, and
        the connection goes on."""
        self.content("PUT", "/v1/kv/a", {"value": "1"})
        with mock.patch.object(key_value, "shown", fail):
            refused = self.ask("GET", "/v1/kv/a")
        self.assertRefused(refused, 500, "INTERNAL", "unknown")
        self.assertEqual(self.logged(), 1)
        self.assertEqual(self.content("GET", "/v1/kv/a")["value"], "1")

    def test_connection_whose_answer_cannot_be_written_is_aborted(self) -> None:
        """A connection whose answer cannot be written is aborted: a part of the answer may have been written."""
        with mock.patch.object(self.client.transport, "write", fail):
            self.client.request("GET", "/v1/status")
        self.assertEqual((self.client.transport.disconnected, self.logged()), (True, 1))

    def test_connection_that_cannot_begin_is_aborted(self) -> None:
        """A connection whose `connectionMade` raises is aborted; Twisted itself would leave it open."""
        with mock.patch.object(protocol, "address_of", fail):
            client = Connection(self.site, self.clock)
        self.assertEqual((client.transport.disconnected, self.logged()), (True, 1))
