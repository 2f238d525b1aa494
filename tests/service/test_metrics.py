"""The names, kinds and texts of metrics: they stay as they are, since dashboards rely on them, and new ones are
added."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest
from twisted.internet.task import Clock

from pfsb import __version__
from pfsb.frontends.http.protocol import HTTPSite
from pfsb.frontends.stream.shared_limits import SharedLimits
from pfsb.service.metrics import Metrics
from pfsb.service.reactor_lag import ReactorLag
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
# HELP pfsb_peer_connections_total Connections between servers, over TCP and TLS.
# TYPE pfsb_peer_connections_total counter
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
# HELP pfsb_build_info Versions that run here.
# TYPE pfsb_build_info gauge
# HELP pfsb_server_info The name of this server.
# TYPE pfsb_server_info gauge
# HELP pfsb_servers Servers of the cluster, up or not.
# TYPE pfsb_servers gauge
# HELP pfsb_quorum_servers Servers that must be up for commands to be answered.
# TYPE pfsb_quorum_servers gauge
# HELP pfsb_role 1 for what this server is at present, else 0.
# TYPE pfsb_role gauge
# HELP pfsb_knows_leader 1 while this server knows a leader, else 0.
# TYPE pfsb_knows_leader gauge
# HELP pfsb_admitted 1 once the others know this server's storage, so that it votes.
# TYPE pfsb_admitted gauge
# HELP pfsb_epoch The number of the epoch of the membership.
# TYPE pfsb_epoch gauge
# HELP pfsb_differing_settings Settings for which this server's file has another value than the cluster.
# TYPE pfsb_differing_settings gauge
# HELP pfsb_peer_alive 1 if that server was heard of late, else 0.
# TYPE pfsb_peer_alive gauge
# HELP pfsb_peer_executed_slots Sequence numbers that it has executed.
# TYPE pfsb_peer_executed_slots gauge
# HELP pfsb_queue_length What waits here, by what it is.
# TYPE pfsb_queue_length gauge
# HELP pfsb_disk_slow_writes_total Writes that took more than 0.1 seconds.
# TYPE pfsb_disk_slow_writes_total counter
# HELP pfsb_client_command_seconds From a command's arrival to its answer, by outcome: OK, or the code of a refusal.
# TYPE pfsb_client_command_seconds histogram
# HELP pfsb_snapshot_slot The slot of the snapshot from which a start begins; 0: none.
# TYPE pfsb_snapshot_slot gauge
# HELP pfsb_snapshot_bytes Size of that snapshot.
# TYPE pfsb_snapshot_bytes gauge
# HELP pfsb_compacted_slot Slots up to here may be gone from the log.
# TYPE pfsb_compacted_slot gauge
# HELP pfsb_snapshots_total Snapshots since the start, by what became of them.
# TYPE pfsb_snapshots_total counter
# HELP pfsb_snapshot_taking_seconds How long the last snapshot took.
# TYPE pfsb_snapshot_taking_seconds gauge
# HELP pfsb_log_bytes Size of the log.
# TYPE pfsb_log_bytes gauge
# HELP pfsb_last_backup_timestamp_seconds When this server last gave a backup; 0: not since its start.
# TYPE pfsb_last_backup_timestamp_seconds gauge
# HELP pfsb_archive_bytes Size of this storage's archive; 0 without one.
# TYPE pfsb_archive_bytes gauge
# HELP pfsb_archive_slot Slots up to here are in the archive.
# TYPE pfsb_archive_slot gauge
# HELP pfsb_archive_waiting_files Files that are to be moved there.
# TYPE pfsb_archive_waiting_files gauge
# HELP pfsb_archive_failing 1 while the archive does not take files, else 0.
# TYPE pfsb_archive_failing gauge
# HELP pfsb_hand_overs_total Views handed over: by this server, and those of others that it has left.
# TYPE pfsb_hand_overs_total counter
# HELP pfsb_hand_over_seconds How long the last one let nothing be proposed; 0: none.
# TYPE pfsb_hand_over_seconds gauge
"""

PROCESS = (
    *("process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes"),
    *("process_open_fds", "process_max_fds", "process_start_time_seconds", "python_info"),
)
"""Figures of the process that prometheus_client finds."""


class MetricsTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(1)
        self.metrics = Metrics(self.server().facts, ReactorLag(Clock()))

    def lines(self) -> list[str]:
        return self.metrics.render().decode().splitlines()

    def heads(self) -> list[str]:
        return [line for line in self.lines() if line.startswith("# ") and " pfsb_" in line]

    def test_families_keep_their_names_and_order(self) -> None:
        """Each family of metrics is announced with its text and its kind, in order; those of HTTP are there once a
        client has used HTTP."""
        families = FAMILIES.splitlines()
        self.assertEqual(self.heads(), [line for line in families if "pfsb_http_" not in line])
        clock: Any = self.cluster.clock
        self.metrics.site = HTTPSite(self.server(), clock, bytes)
        self.assertEqual(self.heads(), families)

    def test_wrong_tokens_are_counted(self) -> None:
        """Wrong tokens are counted in the metrics, so that an attack shows in a dashboard, and not only in a log."""
        clock: Any = self.cluster.clock
        shared = SharedLimits.of(self.server(), clock)
        shared.rights.refused = 7
        self.metrics = Metrics(self.server().facts, ReactorLag(Clock()), shared)
        self.assertIn("pfsb_wrong_tokens_total 7.0", self.lines())

    def test_counters_of_storage_and_transport(self) -> None:
        """Figures come from the counters that the server was given, with labels in alphabetical order."""
        transport, storage = TransportCounters(frames_in=3, bytes_out=7), StorageCounters()
        transport.refused.update({"short": 2, "cluster": 1})
        storage.count(3, 100, 0.2)
        facts = self.server().facts
        facts.transport, facts.storage = transport, storage
        lines = self.lines()
        first = lines.index('pfsb_frames_total{way="in"} 3.0')
        self.assertEqual(lines[first + 1], 'pfsb_frames_total{way="out"} 0.0')
        self.assertIn('pfsb_frame_bytes_total{way="out"} 7.0', lines)
        first = lines.index('pfsb_frames_refused_total{reason="cluster"} 1.0')
        self.assertEqual(lines[first + 1], 'pfsb_frames_refused_total{reason="short"} 2.0')
        self.assertIn('pfsb_disk_write_seconds_bucket{le="0.25"} 1.0', lines)
        self.assertIn("pfsb_disk_write_seconds_sum 0.2", lines)
        self.assertIn("pfsb_disk_batch_bytes_total 100.0", lines)
        self.assertIn("pfsb_disk_slow_writes_total 1.0", lines)

    def test_bounds_of_histograms_are_written_as_ever(self) -> None:
        """The text of a histogram's bound stays as it was, since it is a label: le="1.0" would be another series than
        the stored le="1"."""
        self.do(self.connect(), "PUT", "key", "value")
        lines = self.lines()
        for bound in ("0.0005", "1", "2.5", "5", "+Inf"):
            start = f'pfsb_client_command_seconds_bucket{{le="{bound}",outcome="OK",verb="PUT"}} '
            self.assertEqual(len([line for line in lines if line.startswith(start)]), 1, bound)
        self.assertIn('pfsb_client_command_seconds_count{outcome="OK",verb="PUT"} 1.0', lines)

    def test_figures_of_the_process_and_of_what_runs_there(self) -> None:
        """The metrics have figures of the process by the names that dashboards for any program know, and the versions
        of what runs there."""
        lines = self.lines()
        names = {line.partition("{")[0].partition(" ")[0] for line in lines}
        self.assertEqual(set(PROCESS) - names, set())
        self.assertTrue(
            any(line.startswith("pfsb_build_info{") and f'version="{__version__}"' in line for line in lines)
        )
        self.assertIn('pfsb_server_info{cluster="simulated",server="0"} 1.0', lines)

    def test_several_servers_of_one_process_have_their_own_figures(self) -> None:
        """Several servers of one process have figures of their own: none is in the registry that prometheus_client
        shares in a process."""
        other = Metrics(self.server().facts, ReactorLag(Clock()))
        self.assertEqual(other.render().count(b"# TYPE pfsb_turns_total"), 1)
        self.assertNotIn(b"pfsb_", generate_latest())


class RoleTests(ClusterTestCase):
    """The figures of a server show its role, the servers that it hears, and its queues."""

    def figures(self, server_id: int) -> dict[str, float]:
        metrics = Metrics(self.server(server_id).facts, ReactorLag(Clock()))
        lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def test_one_server_leads_and_the_others_follow(self) -> None:
        self.begin(3)
        roles = [self.figures(i) for i in self.cluster.ids]
        self.assertEqual(sum(each['pfsb_role{role="leader"}'] for each in roles), 1)
        self.assertEqual(sum(each['pfsb_role{role="follower"}'] for each in roles), 2)
        self.assertEqual({each["pfsb_knows_leader"] for each in roles}, {1.0})
        self.assertEqual({(each["pfsb_servers"], each["pfsb_quorum_servers"]) for each in roles}, {(3.0, 2.0)})

    def test_server_that_is_cut_off_hears_nobody_and_lets_its_clients_wait(self) -> None:
        """A server that is cut off hears no other, elects in vain, and lets its client's command wait, as its figures
        show."""
        self.begin(3)
        self.cluster.isolate(0)
        self.connect().ask("PUT", "key", "value")
        self.cluster.run(1.9)
        figures = self.figures(0)
        self.assertEqual(figures['pfsb_queue_length{queue="commands"}'], 1)
        self.cluster.run(3.0)
        figures = self.figures(0)
        self.assertEqual((figures['pfsb_peer_alive{peer="1"}'], figures['pfsb_peer_alive{peer="2"}']), (0.0, 0.0))
        self.assertEqual((figures['pfsb_role{role="election"}'], figures["pfsb_knows_leader"]), (1.0, 0.0))
        self.assertEqual(figures['pfsb_queue_length{queue="commands"}'], 0)

    def test_what_waits_for_a_disk_is_counted(self) -> None:
        """The figures show each message and answer that waits at the gate, and the write that they wait for."""
        self.begin(1)
        self.cluster.storage(0).hang()
        self.connect().ask("PUT", "key", "value")
        self.cluster.run(0.5)
        figures = self.figures(0)
        self.assertEqual(figures['pfsb_queue_length{queue="disk_writes"}'], 1)
        self.assertGreaterEqual(figures['pfsb_queue_length{queue="answers"}'], 1)
