"""The assembly of a server from its parts, for processes as well as for simulations."""

from __future__ import annotations

import subprocess
import sys
from random import Random

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.catalogue import catalogue_of_plugins
from pfsb.config.config import Config, ServerConfig
from pfsb.service.assembly import GivenSurroundings, frame_identity, make_server, memory_storage, real_server
from pfsb.sessions.cluster_settings import RULES_KNOWN
from pfsb.transports.faults import LinkFaults
from pfsb.transports.links import Links

ONE = Config("one.yaml", "one", {0: ServerConfig(0, ("127.0.0.1", 7400), "tcp:9400")}, f=0)


def fail(failure: Failure) -> None:
    failure.raiseException()


class AssemblyTests(SynchronousTestCase):
    def test_server_of_given_parts_runs(self) -> None:
        """A server assembled from given parts, a cluster of one in memory, runs and leads itself."""
        clock, rng = Clock(), Random(1)
        faults = LinkFaults(clock, rng)
        links = Links(frame_identity(ONE, 0), clock, faults, lambda peer, frame: None)
        given = GivenSurroundings(0, clock, rng, memory_storage(clock, fail), links, fail)
        server = make_server(ONE, catalogue_of_plugins(ONE.apps), given, faults=faults)
        server.start()
        for _ in range(100):
            clock.advance(0.1)
        self.assertEqual(server.leader(), 0)
        self.assertEqual(server.machine.settings.values.rules, 1)
        server.stop()

    def test_cluster_is_born_with_the_rules_of_its_first_leader_and_knows_where_clients_reach_it(self) -> None:
        """Servers of real clusters give the latest rules, and their own address for clients, which is announced."""
        clock, rng = Clock(), Random(1)
        links = Links(frame_identity(ONE, 0), clock, LinkFaults(clock, rng), lambda peer, frame: None)
        given = GivenSurroundings(0, clock, rng, memory_storage(clock, fail), links, fail)
        server = make_server(ONE, catalogue_of_plugins(ONE.apps), given, rules_at_birth=RULES_KNOWN, place="db0:9400")
        server.start()
        self.assertEqual(server.places(), {0: "127.0.0.1:9400"}, "as the file says, until the server has announced it")
        for _ in range(100):
            clock.advance(0.1)
        self.assertEqual(server.machine.settings.values.rules, RULES_KNOWN)
        self.assertEqual(server.places(), {0: "db0:9400"})
        server.stop()

    def test_place_that_cannot_be_announced_is_not(self) -> None:
        """An address for clients that is too long to be announced, as the path of a unix socket may be, is not
        announced: otherwise the server would try again and again."""
        clock, rng = Clock(), Random(1)
        links = Links(frame_identity(ONE, 0), clock, LinkFaults(clock, rng), lambda peer, frame: None)
        given = GivenSurroundings(0, clock, rng, memory_storage(clock, fail), links, fail)
        server = make_server(ONE, catalogue_of_plugins(ONE.apps), given, rules_at_birth=RULES_KNOWN, place="/" * 301)
        server.start()
        for _ in range(100):
            clock.advance(0.1)
        self.assertTrue(server.settings.is_announced)
        self.assertEqual(server.machine.settings.place_of(0), "")
        server.stop()

    def test_storage_in_memory_counts_without_being_shown_as_a_disk(self) -> None:
        """With `storage: memory` STATUS shows no groups, and the metrics show them all the same."""
        server = real_server(ONE, 0, catalogue_of_plugins(ONE.apps), directory=None, clock=Clock(), on_failure=fail)
        self.assertFalse(server.facts.has_disk)
        self.assertIsNotNone(server.facts.storage)
        self.assertIsNotNone(server.facts.transport)

    def test_assembly_needs_no_reactor(self) -> None:
        """An import of the assembly installs no reactor, since simulations have clocks of their own."""
        look = "import sys, pfsb.service.assembly; print('twisted.internet.reactor' in sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual(loaded.stdout.strip(), "False")
