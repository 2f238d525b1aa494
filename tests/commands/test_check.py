from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import SkipTest

import click
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.commands.check import LOOK_UP_SECONDS, Found, certificate_notes, command, look_up_hosts, notes, plain, summary
from pfsb.config.config import Config, ConfigError, load
from pfsb.service.assembly import mutual_tls
from pfsb.support.command_line import parse
from pfsb.support.hosts import SocketAddress, literal
from tests.transports.transport_case import HAS_TLS, NO_TLS, NOW

if HAS_TLS:
    from pfsb.service.certificates import CertificateDirectory


def addresses(port: int, *hosts: str) -> tuple[SocketAddress, ...]:
    found = [literal(host, port) for host in hosts]
    return tuple(each for each in found if each is not None)


def _put_back(name: str, module: Any) -> None:
    """Register a module again after the test, as it was imported before."""
    if module is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


class CheckTests(SynchronousTestCase):
    def config(self, *servers: str, more: str = "") -> Config:
        """A configuration with these entries beside the client port, and `more` keys."""
        path = Path(self.mktemp())
        lines = [f'  {i}: {{{entry}, client: "tcp:{9400 + i}"}}\n' for i, entry in enumerate(servers)]
        path.write_text(f"cluster: checked\n{more}\nservers:\n" + "".join(lines), encoding="utf-8")
        return load(path)

    def found(self, config: Config, **hosts: str) -> Found:
        """The answers of look-ups for the hosts of a configuration, by name; for names without an answer none comes."""

        def look_up(host: str, port: int) -> Deferred[tuple[SocketAddress, ...]]:
            known = literal(host, port)
            if known is not None:
                return succeed((known,))
            if host not in hosts:
                return Deferred()
            answer = addresses(port, *hosts[host].split())
            return succeed(answer) if answer else fail(OSError("Name or service not known"))

        clock = Clock()
        asked = Deferred.fromCoroutine(look_up_hosts(clock, config, look_up))
        clock.advance(LOOK_UP_SECONDS)
        return self.successResultOf(asked)

    def test_unknown_application_is_refused(self) -> None:
        """`pfsb check` refuses an unknown application, as `twistd pfsb` does, so that the mistake shows before any
        server is started."""
        path = Path(self.mktemp())
        server = '{peer: "127.0.0.1:7400", client: "tcp:9400"}'
        path.write_text(f"cluster: one\napps: [chat, chatt]\nservers:\n  0: {server}\n")
        error = self.assertRaises(click.UsageError, parse, command, [str(path)])
        self.assertIn(f"{path}: apps: ", str(error))
        self.assertIn("chatt", str(error))

    def test_names_are_shown_with_their_addresses(self) -> None:
        """Names of hosts are shown with the addresses that this machine finds for them, and those that it does not find
        are named."""
        config = self.config('peer: "db0:7400"', 'peer: "db1:7400"', 'peer: "db2:7400"', 'peer: "[2001:db8::4]:7400"')
        said = notes(config, self.found(config, db0="192.0.2.1 2001:db8::1", db1=""))
        self.assertIn('  the name "db0" is: 192.0.2.1, 2001:db8::1\n', said)
        self.assertIn('  warning: the name "db1" has no address: Name or service not known\n', said)
        self.assertIn('  warning: the name "db2" has no address: no answer for 5 s\n', said)
        self.assertNotIn("2001:db8::4", said)

    def test_name_that_only_this_machine_reaches_is_warned_of(self) -> None:
        """A host name that has only a loopback address is warned of: some systems give one to their own name."""
        config = self.config('peer: "db0:7400"', 'peer: "db1:7400"')
        said = notes(config, self.found(config, db0="192.0.2.1", db1="127.0.1.1"))
        self.assertIn('warning: server 1: the host "db1" is a loopback address', said)
        self.assertIn("while db0 (192.0.2.1) is none", said)
        self.assertIn('or add listen: "0.0.0.0:7400" to servers.1', said)
        self.assertNotIn("server 0", said)
        written = self.config('peer: "db0:7400"', 'peer: "[::1]:7400"')
        said = notes(written, self.found(written, db0="192.0.2.1"))
        self.assertIn("servers.1.peer must be where the others reach it", said)

    def test_server_that_listens_elsewhere_is_not_warned_of(self) -> None:
        """A server with `listen` is not warned of the addresses of its own name, which need not be right on its
        machine."""
        servers = ('peer: "db0:7400"', 'peer: "db1:7400", listen: "0.0.0.0:7400"')
        config = self.config(*servers, more="insecure: true")
        self.assertNotIn("warning", notes(config, self.found(config, db0="192.0.2.1", db1="127.0.1.1")))

    def test_file_whose_servers_begin_no_cluster_is_warned_of(self) -> None:
        """A file without a majority of the founders is right for servers that join, and for a cluster whose founders
        were replaced; a new cluster would wait for ever."""
        config = self.config(*(f'peer: "127.0.0.1:740{n}"' for n in range(3)))
        found = self.found(config)
        for founders, said in (
            (None, None),
            ((0, 1, 2), None),
            ((0, 1, 9), None),
            ((0, 8, 9), "of the servers of this file (0, 1, 2) only server 0 is there; they join a cluster that runs"),
            ((0, 1, 7, 8), "of the servers of this file (0, 1, 2) only servers 0, 1 are there; they"),
            ((7, 8, 9), "warning: founders: the cluster has begun with 7, 8, 9, and of the servers of this file"),
        ):
            text = notes(evolve(config, founders=founders), found)
            if said is None:
                self.assertNotIn("founders", text)
            else:
                self.assertIn(said, text)

    def test_archive_is_named(self) -> None:
        """The archive is shown with its absolute path, since a relative one depends on where a server is started."""
        config = self.config('peer: "127.0.0.1:7400"')
        self.assertNotIn("superfluous", summary(config))
        archived = evolve(config, archive="old")
        self.assertIn(f"what snapshots make superfluous goes to {Path.cwd()}/old/ID\n", summary(archived))
        self.assertEqual(plain(archived, self.found(archived))["archive"], "old")
        self.assertIn(f"warning: archive: {Path.cwd()}/old is no directory", notes(archived, self.found(archived)))
        there = evolve(config, archive=self.mktemp())
        Path(str(there.archive)).mkdir()
        self.assertNotIn("warning", notes(there, self.found(there)))

    def test_cluster_on_one_machine_is_not_warned_of(self) -> None:
        """A cluster whose servers are all reached by loopback addresses, on one machine, is not warned of."""
        config = self.config('peer: "127.0.0.1:7400"', 'peer: "localhost:7401"')
        self.assertNotIn("warning", notes(config, self.found(config, localhost="127.0.0.1 ::1")))

    def test_summary_shows_where_a_server_listens_and_brackets_of_ipv6(self) -> None:
        """The summary shows the addresses where a server listens as they are written in the file, IPv6 in brackets."""
        config = self.config('peer: "db0:7400", listen: "[::]:7401"', 'peer: "[2001:db8::1]:7400"')
        self.assertIn("server 0: peer db0:7400 (listens at [::]:7401), client tcp:9400\n", summary(config))
        self.assertIn("server 1: peer [2001:db8::1]:7400, client tcp:9401\n", summary(config))

    def test_open_peer_port_is_warned_of_unless_that_is_wanted(self) -> None:
        """A peer port that any machine can reach, in a cluster without a secret, is warned of, unless the configuration
        says that this is wanted; the log and STATUS say the same."""
        servers = ('peer: "192.0.2.1:7400"', 'peer: "127.0.0.1:7400"')
        config = self.config(*servers)
        said = notes(config, self.found(config))
        self.assertIn("  warning: INSECURE: other machines can reach the peer port of server 0, and any of them", said)
        for more in ("insecure: true", "secret_file: x", "transport: tls"):
            config = self.config(*servers, more=more)
            self.assertNotIn("INSECURE", notes(config, self.found(config)), more)

    def test_certificates_are_told_with_their_ends(self) -> None:
        """Certificates are shown with the times until which they are valid, and one that ends soon is warned of. Those
        of other servers may be missing on a machine."""
        if not HAS_TLS:
            raise SkipTest(NO_TLS)
        made = CertificateDirectory(Path(self.mktemp()), "checked")
        servers = ('peer: "127.0.0.1:7400"', 'peer: "127.0.0.1:7401"', 'peer: "127.0.0.1:7402"')
        config = self.config(*servers, more=f"transport: tls\ncertificates: {made.path}")
        [missing] = certificate_notes(config, NOW)
        self.assertIn(f"warning: no certificate of a server is in {made.path}: pfsb certificates", missing)
        made.make_authority(NOW)
        for server_id, days in ((0, 300), (1, 10)):
            made.make_server(server_id, [], NOW, days)
        good, soon = certificate_notes(config, NOW)
        self.assertRegex(good, r"^the certificate of server 0 expires on [0-9-]{10}$")
        self.assertRegex(soon, r"^warning: the certificate of server 1 expires on .* --renew makes another$")
        late = list(certificate_notes(config, NOW + timedelta(days=11)))[1]
        self.assertRegex(late, r"^warning: the certificate of server 1 has expired on .* --renew makes another$")

    def test_missing_packages_are_named_with_the_command_that_installs_them(self) -> None:
        """Packages that are missing are named, with the command that installs them. `twistd pfsb` refuses to start
        without them."""
        config = self.config('peer: "127.0.0.1:7400"', more="transport: tls")
        modules: dict[str, object] = dict(sys.modules)
        for name in ("pfsb.service.certificates", "pfsb.transports.tls"):
            self.addCleanup(_put_back, name, modules.get(name))
            sys.modules[name] = None  # type: ignore[assignment]
        [line] = certificate_notes(config, NOW)
        self.assertIn("warning: TLS needs more packages (", line)
        self.assertIn("pip install 'pfsb[tls]'", line)
        error = self.assertRaises(ConfigError, mutual_tls, config, 0, 0.0)
        self.assertIn("transport: tls needs more packages (", str(error))
        self.assertIn("pip install 'pfsb[tls]'", str(error))
