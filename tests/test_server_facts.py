"""Names and order of STATUS and SERVERS are a contract with scripts: they stay as they are."""

from __future__ import annotations

import json
from typing import Any

from pfsb.storage.counters import ArchiveCounters, StorageCounters
from pfsb.transports.links import TransportCounters
from tests.sessions.support import ClusterTestCase

STATUS_NAMES = (
    *("cluster", "server", "version", "state", "view", "attempted", "leader", "n", "quorum", "tolerates"),
    *("epoch", "role"),
    *("aru", "last_ordered", "revision", "sessions", "connections", "pending", "queued", "compacted", "snapshot"),
    *("digest", "uptime", "transport", "apps", "peers", "incarnation", "turns", "updates", "proposed", "discarded"),
    *("frames", "storage", "settings", "settings_differ", "contradicted", "diverged", "quotas", "disk"),
    *("admitted", "not_acquainted", "time", "snapshots", "archive", "warnings", "hand_over"),
    *("voters", "clients"),
)
"""The names of STATUS, in their order."""


class StatusFormTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(self.server(self.leader).status()))
        return found

    def test_names_keep_their_order(self) -> None:
        """The names of STATUS keep their order, since a script may cut the line at a name."""
        status = self.status()
        self.assertEqual(tuple(status), STATUS_NAMES)
        self.assertEqual(list(status["peers"]), [str(i) for i in self.cluster.ids if i != self.leader])
        for peer in status["peers"].values():
            names = ["aru", "alive", "last_heard", "state", "view", "agrees_up_to", "differs_at", "address", "via"]
            self.assertEqual(list(peer), names)
        self.assertEqual(list(status["proposed"]), ["count", "bytes"])
        self.assertEqual([type(value) for value in status["proposed"].values()], [int, int])

    def test_counters_are_shown_where_there_are_any(self) -> None:
        """Counters that a server does not have are left out of STATUS: a simulated server counts neither frames nor
        groups, and one with `storage: memory` no groups."""
        self.assertEqual((self.status()["frames"], self.status()["storage"]), ({}, {}))
        facts = self.server(self.leader).facts
        facts.transport, facts.storage = TransportCounters(frames_in=3), StorageCounters()
        facts.transport.refused["short"] = 2
        facts.transport.paths.datagram_bytes[1] = 1_472
        facts.storage.count(3, 100, 0.2)
        frames = {"in": 3, "out": 0, "refused": {"short": 2}, "lost_by_fault": 0, "send_errors": 0} | {
            "parts": {"out": 0, "in": 0, "repeated": 0, "frames_in": 0, "given_up": 0},
            "datagram_bytes": {"1": 1_472},
            "connections": {"opened": 0, "lost": 0, "dead": 0, "failed": 0, "dropped": 0, "turned_away": {}},
        }
        facts.storage.log_bytes, facts.storage.snapshot_bytes = 5_242_880, 1_000
        groups = {"groups": 1, "records": 3, "batch_bytes": 100, "slow_groups": 1, "max_write_seconds": 0.2} | {
            "log_bytes": 5_242_880,
            "snapshot_bytes": 1_000,
        }
        status = self.status()
        self.assertEqual(list(status["frames"].items()), list(frames.items()))
        self.assertEqual(list(status["storage"].items()), list(groups.items()))
        facts.has_disk = False
        self.assertEqual(self.status()["storage"], {})

    def test_archive_is_shown_where_there_is_one(self) -> None:
        """STATUS shows an archive only if the server has one; a server that deletes superfluous files has none."""
        self.assertIsNone(self.status()["archive"])
        facts = self.server(self.leader).facts
        archive = ArchiveCounters("arc/0/6f1c8e0b5a7d3f42", 5_000, 800, 2, "arc: No space left on device")
        facts.storage = StorageCounters(archive=archive)
        expected = {"directory": "arc/0/6f1c8e0b5a7d3f42", "bytes": 5_000, "slot": 800, "waiting": 2}
        self.assertEqual(self.status()["archive"], expected | {"error": "arc: No space left on device"})

    def test_rows_of_servers(self) -> None:
        """SERVERS has a row of seven fields for every server, the one that is asked included."""
        rows = self.server(self.leader).servers()
        expected = [
            (
                ("id", i),
                ("state", "REG_LEADER" if i == self.leader else "REG_NONLEADER"),
                ("aru", self.base),
                ("alive", "yes"),
                ("address", f"127.0.0.1:{7400 + i}"),
                ("role", "voter"),
                ("client", f"127.0.0.1:{9400 + i}"),
            )
            for i in self.cluster.ids
        ]
        self.assertEqual(rows, expected)
