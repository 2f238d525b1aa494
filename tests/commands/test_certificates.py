"""`pfsb certificates`: what is made, renewed and left alone."""

from __future__ import annotations

import io
import sys
from datetime import timedelta
from pathlib import Path
from unittest import skipUnless

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.commands import certificates
from pfsb.commands.certificates import hosts_of
from pfsb.config.config import load
from pfsb.support.command_line import parse
from tests.transports.transport_case import HAS_TLS, NO_TLS, NOW

if HAS_TLS:
    from pfsb.service.certificates import CertificateDirectory


@skipUnless(HAS_TLS, NO_TLS)
class CertificatesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file, self.path = Path(self.mktemp()), Path(self.mktemp())
        servers = "".join(f'  {i}: {{peer: "db{i}:7400", client: "tls:940{i}:interface=127.0.0.1"}}\n' for i in (0, 1))
        self.file.write_text(f"cluster: x\ncertificates: {self.path}\nhttp_names: [x.test]\nservers:\n{servers}")
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.clock = Clock()
        self.clock.advance(NOW.timestamp())
        self.made = CertificateDirectory(self.path, "x")

    def run_command(self, *words: str) -> Deferred[None]:
        options = parse(certificates.command, [str(self.file), *words])
        return Deferred.fromCoroutine(certificates.run(self.clock, options))

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.path.iterdir()}

    def test_first_call_makes_everything_and_the_next_one_nothing(self) -> None:
        """The first call makes all keys and certificates, readable by their owner alone; the second one makes nothing,
        and says until when they are valid."""
        self.successResultOf(self.run_command())
        made = self.contents()
        self.assertEqual(set(made), {"authority.pem", "authority.key", "server-0.pem", "server-1.pem"})
        for name in made:
            mode = (self.path / name).stat().st_mode & 0o777
            self.assertEqual(mode, 0o644 if name == "authority.pem" else 0o600, name)
        self.assertNotIn(b"PRIVATE KEY", made["authority.pem"])
        self.successResultOf(self.run_command())
        self.assertEqual(self.contents(), made)
        self.assertEqual(self.out.getvalue().count(" is valid until "), 2)

    def test_renewal_keeps_the_authority_and_the_other_servers(self) -> None:
        """A renewal with --id makes the certificate of that server anew, and leaves the authority and those of the
        other servers as they are."""
        self.successResultOf(self.run_command("--days", "1"))
        before, expiry = self.contents(), self.made.expiry(1)
        assert expiry is not None
        self.clock.advance(86_400)
        self.successResultOf(self.run_command())
        self.assertIn("server-1.pem has expired", self.out.getvalue())
        self.successResultOf(self.run_command("--renew", "--id", "1", "--days", "2"))
        after = self.contents()
        self.assertEqual([name for name in before if before[name] != after[name]], ["server-1.pem"])
        self.assertEqual(self.made.expiry(1), expiry + timedelta(days=2))

    def test_new_authority_stands_before_the_former_one(self) -> None:
        """A new authority is written before the former one into the file of authorities: servers believe both, so that
        certificates can be changed one after the other."""
        self.successResultOf(self.run_command())
        [former] = self.made.authorities()
        self.successResultOf(self.run_command("--new-authority"))
        new, second = self.made.authorities()
        self.assertEqual(second, former)
        self.assertNotEqual(new, former)

    def test_certificates_are_made_where_the_key_is(self) -> None:
        """Where the key of the authority is missing, as on the machine of a server, no certificate is made, and one
        line says so."""
        self.successResultOf(self.run_command())
        (self.path / "authority.key").unlink()
        self.failureResultOf(self.run_command("--renew"), SystemExit)
        self.assertIn("authority.key: No such file or directory; certificates are made where", self.err.getvalue())
        error = self.assertRaises(click.UsageError, self.run_command, "--id", "7")
        self.assertIn("there is no server 7; known are 0, 1", str(error))

    def test_certificate_names_the_hosts_that_clients_know(self) -> None:
        """A certificate names the hosts by which clients know the server: the host of the peer port, those of endpoints
        and of HTTP, and this machine."""
        names = list(hosts_of(load(str(self.file)), 1))
        self.assertEqual(names, ["db1", "127.0.0.1", "x.test", "localhost", "127.0.0.1", "::1"])
