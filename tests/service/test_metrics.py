"""Names, kinds and texts of the metrics are a contract with dashboards: they stay as they are, in this order."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from pfsb.frontends.http.protocol import HTTPSite
from pfsb.service.metrics import Metrics, ReactorLag
from pfsb.storage.counters import StorageCounters
from pfsb.transports.links import TransportCounters
from tests.sessions.support import ClusterTestCase

FAMILIES = """\
# HELP pfsb_turns_total Turns: events run to their end.
# TYPE pfsb_turns_total counter
# HELP pfsb_discards_total Messages discarded, by line of figure 4.
# TYPE pfsb_discards_total counter
# HELP pfsb_contradictions_total Votes and proposals for another batch than is held: a fault.
# TYPE pfsb_contradictions_total counter
# HELP pfsb_differing_servers Servers whose digest is another.
# TYPE pfsb_differing_servers gauge
# HELP pfsb_diverged 1 while changes are refused: no majority agrees.
# TYPE pfsb_diverged gauge
# HELP pfsb_proposals_total Proposals made as leader, no-ops included.
# TYPE pfsb_proposals_total counter
# HELP pfsb_proposal_size_bytes Encoded size of a proposal's batch.
# TYPE pfsb_proposal_size_bytes histogram
# HELP pfsb_proposal_size_updates Client updates in a proposal that has any.
# TYPE pfsb_proposal_size_updates histogram
# HELP pfsb_view_changes_total Views installed, or led, since the start.
# TYPE pfsb_view_changes_total counter
# HELP pfsb_elections_total Views attempted since the start.
# TYPE pfsb_elections_total counter
# HELP pfsb_progress_timer_expiries_total Expiries of the Progress_Timer.
# TYPE pfsb_progress_timer_expiries_total counter
# HELP pfsb_installed_view The view that is installed, as a number.
# TYPE pfsb_installed_view gauge
# HELP pfsb_leads 1 on the server that leads, else 0.
# TYPE pfsb_leads gauge
# HELP pfsb_executed_slots Sequence numbers executed.
# TYPE pfsb_executed_slots gauge
# HELP pfsb_executed_updates_total Client updates executed; a start executes some again.
# TYPE pfsb_executed_updates_total counter
# HELP pfsb_pending_updates Own clients' updates not executed.
# TYPE pfsb_pending_updates gauge
# HELP pfsb_queued_updates Updates that wait for a number.
# TYPE pfsb_queued_updates gauge
# HELP pfsb_reconciliation_bytes_total Batches that servers catch up with.
# TYPE pfsb_reconciliation_bytes_total counter
# HELP pfsb_messages_in_total Messages received, by type.
# TYPE pfsb_messages_in_total counter
# HELP pfsb_messages_out_total Messages sent, by type, to each peer.
# TYPE pfsb_messages_out_total counter
# HELP pfsb_frames_total Frames between servers.
# TYPE pfsb_frames_total counter
# HELP pfsb_frame_bytes_total Size of the frames between servers.
# TYPE pfsb_frame_bytes_total counter
# HELP pfsb_frames_refused_total Frames dropped, by reason.
# TYPE pfsb_frames_refused_total counter
# HELP pfsb_disk_write_seconds One group of records, until it is on disk.
# TYPE pfsb_disk_write_seconds histogram
# HELP pfsb_disk_records_total Records written.
# TYPE pfsb_disk_records_total counter
# HELP pfsb_disk_batch_bytes_total Size of the batches among them.
# TYPE pfsb_disk_batch_bytes_total counter
# HELP pfsb_disk_trouble 1 while the disk hangs, or is full, else 0.
# TYPE pfsb_disk_trouble gauge
# HELP pfsb_disk_troubles_total How often trouble began.
# TYPE pfsb_disk_troubles_total counter
# HELP pfsb_reactor_lag_seconds How late the event loop calls what is due.
# TYPE pfsb_reactor_lag_seconds histogram
# HELP pfsb_client_commands_total Commands of this server's clients that ran.
# TYPE pfsb_client_commands_total counter
# HELP pfsb_sessions Sessions of the whole cluster.
# TYPE pfsb_sessions gauge
# HELP pfsb_quota_used_ratio Use of a quota of the replicated state, 1: used up.
# TYPE pfsb_quota_used_ratio gauge
# HELP pfsb_connections Clients of this server, at all doors.
# TYPE pfsb_connections gauge
# HELP pfsb_revision_commands Commands executed by the cluster, as far as known.
# TYPE pfsb_revision_commands gauge
# HELP pfsb_http_answers_total Answers given over HTTP.
# TYPE pfsb_http_answers_total counter
# HELP pfsb_http_connections Connections over HTTP.
# TYPE pfsb_http_connections gauge
# HELP pfsb_http_sessions Sessions with a name that this door keeps open.
# TYPE pfsb_http_sessions gauge
# HELP pfsb_http_streams Streams of events.
# TYPE pfsb_http_streams gauge
"""


class MetricsTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(1)
        self.metrics = Metrics(self.server().facts, ReactorLag(Clock()))

    def lines(self) -> list[str]:
        return self.metrics.render().decode().splitlines()

    def test_families_keep_their_names_and_order(self) -> None:
        """Each is announced with its text and its kind; those of HTTP follow once a client has used HTTP."""
        families = FAMILIES.splitlines()
        own = [line for line in families if "pfsb_http_" not in line]
        self.assertEqual([line for line in self.lines() if line.startswith("#")], own)
        clock: Any = self.cluster.clock
        self.metrics.site = HTTPSite(self.server(), clock, bytes)
        self.assertEqual([line for line in self.lines() if line.startswith("#")], families)

    def test_counters_of_storage_and_transport(self) -> None:
        """Figures come from the counters that the server was given, with labels in alphabetical order."""
        transport, storage = TransportCounters(frames_in=3, bytes_out=7), StorageCounters()
        transport.refused.update({"short": 2, "cluster": 1})
        storage.count(3, 100, 0.2)
        facts = self.server().facts
        facts.transport, facts.storage = transport, storage
        lines = self.lines()
        first = lines.index('pfsb_frames_total{way="in"} 3')
        self.assertEqual(lines[first + 1], 'pfsb_frames_total{way="out"} 0')
        self.assertIn('pfsb_frame_bytes_total{way="out"} 7', lines)
        first = lines.index('pfsb_frames_refused_total{reason="cluster"} 1')
        self.assertEqual(lines[first + 1], 'pfsb_frames_refused_total{reason="short"} 2')
        self.assertIn('pfsb_disk_write_seconds_bucket{le="0.25"} 1', lines)
        self.assertIn("pfsb_disk_write_seconds_sum 0.2", lines)
        self.assertIn("pfsb_disk_batch_bytes_total 100", lines)
