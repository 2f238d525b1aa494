from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.endpoints import clientFromString, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer

from pfsb.transports import outgoing_stream
from pfsb.transports.pieces_of_stream import in_stream
from pfsb.transports.stream_security import ServerSecurity
from tests.transports import every_transport
from tests.transports.stream_case import Stranger, StreamCase
from tests.transports.transport_case import (
    HAS_TLS,
    HOST,
    NO_TLS,
    NOW,
    certificates,
    reactor,
    security,
    until,
)

if HAS_TLS:
    from OpenSSL.SSL import TLS_METHOD, Connection, Context

    from pfsb.service.certificates import CertificateDirectory, CertificatesMissing
    from pfsb.transports.tls import Credentials, MutualTLS


class DeliveryTests(every_transport.DeliveryTests):
    kinds = ("tls",)


class RefusalTests(every_transport.RefusalTests):
    absent = frozenset({2})
    kinds = ("tls",)


class SourceTests(every_transport.SourceTests):
    kinds = ("tls",)


class NameTests(every_transport.NameTests):
    kinds = ("tls",)

    async def test_without_a_secret_the_new_address_counts_only_when_the_name_has_it(self) -> None:
        """With TLS a new address of a peer counts at once, without a secret: the certificate proves more than the
        address."""
        await self.assert_address_is_learned()


class MembershipTests(every_transport.MembershipTests):
    kinds = ("tls",)


class StartAndStopTests(every_transport.StartAndStopTests):
    kinds = ("tls",)


@skipUnless(HAS_TLS, NO_TLS)
class CertificateTests(StreamCase):
    """Certificates that are not those of a peer are refused, and the logs of both servers say so in one line."""

    kinds = ("tls",)

    def setUp(self) -> None:
        super().setUp()
        self.given: dict[int, Any] = {}
        """Server -> the directory of its certificates, if it has others than the rest."""

    def security(self, server_id: int, cluster: str) -> ServerSecurity:
        return security(server_id, "three", self.given.get(server_id))

    def made(self, cluster: str = "three") -> Any:
        """Make a directory with another authority and no certificate of a server."""
        directory = CertificateDirectory(Path(self.mktemp()), cluster)
        directory.make_authority(NOW)
        return directory

    def same_authority(self) -> Any:
        """Make a directory with the authority of the other tests and no certificate of a server."""
        directory = CertificateDirectory(Path(self.mktemp()), "three")
        shutil.copytree(certificates("three").path, directory.path, ignore=shutil.ignore_patterns("server-*"))
        return directory

    async def assertRefused(self, server_id: int, says: str, hears: str) -> None:
        """Require that servers 0 and 1 do not reach each other, since the certificate of server 1 is wrong.

        `says` is a part of the line in the log of server 0, and `hears` a part of the line in that of server 1.
        """
        with capturedLogs() as events:
            a, b = self.start(0), self.start(1)

            def lines() -> list[str]:
                return [formatEvent(event) for event in events if event["log_level"].name != "info"]

            def all_said() -> bool:
                return any(says in line for line in lines()) and any(hears in line for line in lines())

            try:
                await until(all_said)
            except AssertionError:
                self.fail("\n".join(lines()))
            await until(lambda: a[0].counters.streams.turned_away["certificate"])
            self.assertLess(len(lines()), 12)
        self.assertEqual((a[1].frames, b[1].frames), ([], []))
        self.assertEqual([each.counters.streams.opened for each, _ in (a, b)], [0, 0])

    async def test_certificate_of_another_authority(self) -> None:
        foreign = self.made()
        foreign.make_server(1, [], NOW, 1)
        self.given[1] = foreign
        says = "shows a certificate that was not signed by the authority of this cluster"
        await self.assertRefused(
            1, f"server 1 at {HOST}:{self.addresses[1][1]} is not reached over tls: it {says}", says
        )

    async def test_certificate_that_has_expired(self) -> None:
        """An expired certificate is refused, and its own server is told that its certificate is meant."""
        directory = self.same_authority()
        directory.make_server(1, [], NOW - timedelta(days=3), 1)
        self.given[1] = directory
        says = "shows a certificate that has expired"
        await self.assertRefused(1, says, "it says that the certificate of this server has expired")

    async def test_certificate_of_another_server(self) -> None:
        """The certificate of another server is refused: server 2 can neither take the address of server 1 nor speak in
        its name."""
        directory = self.same_authority()
        directory.make_server(2, [], NOW, 1)
        shutil.copy(directory.server_file(2), directory.server_file(1))
        self.given[1] = directory
        with capturedLogs() as events:
            a, b = self.start(0), self.start(1)
            await until(lambda: any("shows the certificate of server 2" in formatEvent(event) for event in events))
            await until(lambda: a[0].counters.refused["certificate"])
        self.assertEqual((a[1].frames, b[1].frames), ([], []))

    async def test_certificate_of_another_cluster_of_the_same_authority(self) -> None:
        """A certificate of another cluster is refused although the same authority has made it."""
        directory = self.same_authority()
        directory.cluster = "four"
        directory.make_server(1, [], NOW, 1)
        self.given[1] = directory
        says = "names no server of cluster three, but pfsb://four/1"
        await self.assertRefused(1, says, "has closed the connection without an answer")

    async def test_no_certificate(self) -> None:
        """A program that speaks TLS without a certificate is refused."""
        a, receiver = self.start(0)
        endpoint = wrapClientTLS(_AnyServer(), clientFromString(reactor, f"tcp:{HOST}:{self.addresses[0][1]}"))
        stranger = Stranger()
        with capturedLogs() as events:
            await endpoint.connect(Factory.forProtocol(lambda: stranger))
            await until(lambda: stranger.is_gone)
        self.assertEqual(a.counters.streams.turned_away, {"certificate": 1})
        self.assertIn("the other end shows no certificate", "\n".join(map(formatEvent, events)))
        self.assertEqual(receiver.frames, [])

    async def test_plain_frames_where_tls_is_demanded(self) -> None:
        """A right frame without TLS is not looked at where TLS is demanded."""
        a, receiver = self.start(0)
        stranger = await self.knock(0)
        assert stranger.transport is not None
        stranger.transport.write(in_stream(self.frame(1)))
        await until(lambda: stranger.is_gone)
        self.assertEqual((a.counters.streams.turned_away, receiver.frames), ({"plain": 1}, []))

    async def test_renewed_certificates_are_taken_without_a_restart(self) -> None:
        """Renewed certificates are used for new connections without a restart, also after another authority has taken
        over."""
        mine = self.same_authority()
        for server_id in (0, 1):
            mine.make_server(server_id, [], NOW, 1)
            self.given[server_id] = mine
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        mine.make_authority(NOW)
        for server_id in (0, 1):
            mine.make_server(server_id, [], NOW, 1)
        mine.authority_file.write_bytes(mine.authority_file.read_bytes().partition(b"-----END CERTIFICATE-----\n")[0])
        with mine.authority_file.open("ab") as file:
            file.write(b"-----END CERTIFICATE-----\n")  # the former authority is believed no more
        await b[0].stop()
        with capturedLogs() as events:
            b = self.start(1)
            await self.exchange(a, b)
        self.assertIn("new certificates were read", "\n".join(map(formatEvent, events)))

    async def test_files_that_cannot_be_used_leave_the_former_ones_in_use(self) -> None:
        """Files that cannot be used, such as half-finished copies, leave the former certificates in use, and the log
        says so once."""
        mine = self.same_authority()
        mine.make_server(0, [], NOW, 1)
        credentials = Credentials(mine.authority_file, mine.server_file(0))
        former = credentials.context()
        mine.server_file(0).write_bytes(b"-----BEGIN")
        with capturedLogs() as events:
            self.assertIs(credentials.context(), former)
            self.assertIs(credentials.context(), former)
        self.assertEqual(len(events), 1)
        mine.make_server(0, [], NOW, 1)
        self.assertIsNot(credentials.context(), former)

    async def test_change_from_tcp_to_tls_keeps_every_pair_in_reach(self) -> None:
        """While a cluster changes from TCP to TLS, servers before, amid and after the change all reach each other."""
        for one, other in ((("tcp",), ("tls", "tcp")), (("tls", "tcp"),) * 2, (("tls", "tcp"), ("tls",))):
            a, b = self.start(0, kinds=one), self.start(1, kinds=other)
            await self.exchange(a, b)
            both = one == other
            if both:
                await until(lambda a=a: a[0].counters.streams.via[1] == "tls")  # type: ignore[misc]
            for each, _ in (a, b):
                await each.stop()

    async def test_preferred_way_is_tried_again_after_a_while(self) -> None:
        """A connection with TLS is tried again after a while: one handshake that took too long does not leave a peer
        without TLS for the rest of the change."""
        self.patch(outgoing_stream, "OTHERWISE_SECONDS", 0.5)
        a, b = self.start(0, kinds=("tls", "tcp")), self.start(1, kinds=("tcp", "tls"))
        self.patch(b[0].streams.door, "kinds", frozenset({"tcp"}))  # type: ignore[attr-defined]
        await until(lambda: a[0].counters.streams.via[1] == "tcp")
        self.patch(b[0].streams.door, "kinds", frozenset({"tcp", "tls"}))  # type: ignore[attr-defined]
        await until(lambda: a[0].counters.streams.via[1] == "tls")

    def test_own_certificate_is_checked_at_the_start(self) -> None:
        """A server's own certificate is checked at the start; the error is one line with the file and the command that
        makes another."""
        directory = self.same_authority()
        for make, says in (
            (lambda: None, "server-0.pem: No such file or directory; `pfsb certificates CONFIG` makes"),
            (lambda: directory.make_server(0, [], NOW - timedelta(days=9), 1), "server-0.pem: has expired; `pfsb"),
            (lambda: shutil.copy(certificates("three").server_file(2), directory.server_file(0)), "of server 2"),
            (
                lambda: directory.server_file(0).chmod(0o640),
                "server-0.pem: others than its owner may use it (mode 640)",
            ),
            (lambda: directory.server_file(0).chmod(0o600), "of server 2"),
            (lambda: directory.server_file(0).write_bytes(b""), "server-0.pem: holds no certificate"),
            (lambda: _pipe_at(directory.server_file(0)), "server-0.pem: it is no regular file"),
        ):
            make()
            tls = MutualTLS("three", Credentials(directory.authority_file, directory.server_file(0)))
            error = self.assertRaises(CertificatesMissing, tls.check, 0, NOW.timestamp())
            self.assertIn(says, str(error))
            self.assertNotIn("\n", str(error))


def _pipe_at(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@implementer(IOpenSSLClientConnectionCreator)
class _AnyServer:
    """A client that speaks TLS to any server, without a certificate."""

    def clientConnectionForTLS(self, protocol: object) -> Any:
        connection = Connection(Context(TLS_METHOD), None)
        connection.set_connect_state()
        return connection
