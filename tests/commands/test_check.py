from __future__ import annotations

from pathlib import Path

import click
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.commands.check import LOOK_UP_SECONDS, Found, command, look_up_hosts, notes, plain, summary
from pfsb.config.config import Config, load
from pfsb.support.command_line import parse
from pfsb.support.hosts import SocketAddress, literal


def addresses(port: int, *hosts: str) -> tuple[SocketAddress, ...]:
    found = [literal(host, port) for host in hosts]
    return tuple(each for each in found if each is not None)


class CheckTests(SynchronousTestCase):
    def config(self, *servers: str) -> Config:
        """A configuration with these entries beside the client port."""
        path = Path(self.mktemp())
        lines = [f'  {i}: {{{entry}, client: "tcp:{9400 + i}"}}\n' for i, entry in enumerate(servers)]
        path.write_text("cluster: checked\nservers:\n" + "".join(lines), encoding="utf-8")
        return load(path)

    def found(self, config: Config, **hosts: str) -> Found:
        """The answers for the hosts of a configuration, by name; those that are not given never come."""

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
        """As `twistd pfsb` does, so that the mistake shows before any server is started."""
        path = Path(self.mktemp())
        server = '{peer: "127.0.0.1:7400", client: "tcp:9400"}'
        path.write_text(f"cluster: one\napps: [chat, chatt]\nservers:\n  0: {server}\n")
        error = self.assertRaises(click.UsageError, parse, command, [str(path)])
        self.assertIn(f"{path}: apps: ", str(error))
        self.assertIn("chatt", str(error))

    def test_names_are_shown_with_their_addresses(self) -> None:
        """The operator sees what this machine takes the names for, and which of them it does not know."""
        config = self.config('peer: "db0:7400"', 'peer: "db1:7400"', 'peer: "db2:7400"', 'peer: "[2001:db8::4]:7400"')
        said = notes(config, self.found(config, db0="192.0.2.1 2001:db8::1", db1=""))
        self.assertIn('  the name "db0" is: 192.0.2.1, 2001:db8::1\n', said)
        self.assertIn('  warning: the name "db1" has no address: Name or service not known\n', said)
        self.assertIn('  warning: the name "db2" has no address: no answer for 5 s\n', said)
        self.assertNotIn("2001:db8::4", said)

    def test_name_that_only_this_machine_reaches_is_warned_of(self) -> None:
        """Some systems give a loopback address to their own name."""
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
        """With `listen` the own name need not be right on the server's machine."""
        config = self.config('peer: "db0:7400"', 'peer: "db1:7400", listen: "0.0.0.0:7400"')
        self.assertNotIn("warning", notes(config, self.found(config, db0="192.0.2.1", db1="127.0.1.1")))

    def test_archive_is_named(self) -> None:
        """With the absolute path, since a relative one depends on where a server is started."""
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
        """All of its servers are reached by loopback addresses."""
        config = self.config('peer: "127.0.0.1:7400"', 'peer: "localhost:7401"')
        self.assertNotIn("warning", notes(config, self.found(config, localhost="127.0.0.1 ::1")))

    def test_summary_shows_where_a_server_listens_and_brackets_of_ipv6(self) -> None:
        """Addresses are shown as they are written in the file."""
        config = self.config('peer: "db0:7400", listen: "[::]:7401"', 'peer: "[2001:db8::1]:7400"')
        self.assertIn("server 0: peer db0:7400 (listens at [::]:7401), client tcp:9400\n", summary(config))
        self.assertIn("server 1: peer [2001:db8::1]:7400, client tcp:9401\n", summary(config))
