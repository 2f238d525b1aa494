"""The figures of one server for Prometheus, as a custom collector of prometheus_client.

Other modules count what happens in them, in plain numbers; this module gives these numbers names when /metrics is read,
and not before: a command costs nothing here. A name ends in its unit, and in `_total` if the figure only grows.
Dashboards and alerts rely on the names, labels and texts: those in etc/monitoring are tested against them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import twisted
from pfsb import __version__
from pfsb.frontends.stream.unread import CROWDED, SILENT
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import State
from pfsb.server_facts import LEARNER, PERMANENT_LEARNER, VOTER, ServerFacts
from pfsb.service.reactor_lag import ReactorLag
from pfsb.storage.counters import ArchiveCounters, StorageCounters
from pfsb.support.histogram import Histogram
from pfsb.transports.links import TransportCounters

if TYPE_CHECKING:
    from pfsb.frontends.http.protocol import HTTPSite
    from pfsb.frontends.stream.shared_limits import SharedLimits

ROLES = {
    State.REG_LEADER: "leader",
    State.REG_NONLEADER: "follower",
    State.LEADER_ELECTION: "election",
}
"""State of a server -> its name in `pfsb_role`."""

Labels = Mapping[str, str]
Samples = Iterable[tuple[Labels, float]]


@define(eq=False)
class Metrics(Collector):
    """Renders the text that /metrics answers with: the figures of the server, and of its process."""

    _facts: ServerFacts
    _lag: ReactorLag
    _shared: SharedLimits | None = None
    """The limits that the doors share, whose figures are shown; None: these figures are left out."""
    site: HTTPSite | None = None
    """The HTTP port's site. None until the first HTTP client connects; until then the figures of the HTTP port are left
    out."""
    _registry: CollectorRegistry = field(init=False, factory=CollectorRegistry)
    """A registry of this server's own: several servers may live in one process, as in tests."""

    def __attrs_post_init__(self) -> None:
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def render(self) -> bytes:
        """The figures as they are now, in the text format of Prometheus (its "exposition format", version 0.0.4)."""
        return generate_latest(self._registry)

    def families(self) -> Iterable[Metric]:
        """All families of figures: those that `collect` yields for the server, and those of the process and its
        interpreter."""
        return self._registry.collect()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, though Prometheus's library asks here for the names of all figures: without this method the
        registry would read all figures once to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each family of figures of the server, always in the same order. A family that a later version adds
        comes at the end."""
        groups = (
            *(self._protocol, self._messages, self._disk, self._clients, self._http),
            *(self._build, self._role, self._peers, self._queues, self._times, self._doors, self._snapshots),
            self._hand_overs,
        )
        for group in groups:
            yield from group()

    # ------------------------------------------------------------------ families of figures

    def _protocol(self) -> Iterator[Metric]:
        facts = self._facts
        yield _counter("pfsb_turns_total", "Turns: events run to their end.", facts.turns)
        yield _counters("pfsb_discards_total", "Messages discarded, by line of figure 4.", "line", facts.discarded)
        contradictions = "Votes and proposals for another batch than is held: a fault."
        yield _counter("pfsb_contradictions_total", contradictions, facts.contradictions)
        yield _gauge("pfsb_differing_servers", "Servers whose digest is another.", len(facts.differing))
        yield _gauge("pfsb_diverged", "1 while changes are refused: no majority agrees.", int(facts.is_undecided))
        batches = facts.proposal_bytes
        yield _counter("pfsb_proposals_total", "Proposals made as leader, no-ops included.", batches.count)
        yield _histogram("pfsb_proposal_size_bytes", "Encoded size of a proposal's batch.", batches)
        updates = facts.proposal_updates
        yield _histogram("pfsb_proposal_size_updates", "Client updates in a proposal that has any.", updates)
        installed = facts.views_installed
        yield _counter("pfsb_view_changes_total", "Views installed, or led, since the start.", installed)
        yield _counter("pfsb_elections_total", "Views attempted since the start.", facts.elections)
        expiries = facts.progress_timer_expiries
        yield _counter("pfsb_progress_timer_expiries_total", "Expiries of the Progress_Timer.", expiries)
        yield _gauge("pfsb_installed_view", "The view that is installed, as a number.", facts.view)
        yield _gauge("pfsb_leads", "1 on the server that leads, else 0.", int(facts.leads))
        yield _gauge("pfsb_executed_slots", "Sequence numbers executed.", facts.local_aru)
        executed = facts.updates
        yield _counter("pfsb_executed_updates_total", "Client updates executed; a start executes some again.", executed)
        yield _gauge("pfsb_pending_updates", "Own clients' updates not executed.", facts.pending_updates)
        yield _gauge("pfsb_queued_updates", "Updates that wait for a number.", facts.queued_updates)
        by_way = facts.catch_up_bytes
        yield _counters("pfsb_reconciliation_bytes_total", "Batches that servers catch up with.", "way", by_way)

    def _messages(self) -> Iterator[Metric]:
        counters = self._facts.transport or TransportCounters()
        yield _counters("pfsb_messages_in_total", "Messages received, by type.", "type", counters.messages_in)
        yield _counters(
            "pfsb_messages_out_total", "Messages sent, by type, to each peer.", "type", counters.messages_out
        )
        frames = {"in": counters.frames_in, "out": counters.frames_out}
        yield _counters("pfsb_frames_total", "Frames between servers.", "way", frames)
        size = {"in": counters.bytes_in, "out": counters.bytes_out}
        yield _counters("pfsb_frame_bytes_total", "Size of the frames between servers.", "way", size)
        yield _counters("pfsb_frames_refused_total", "Frames dropped, by reason.", "reason", counters.refused)
        streams = counters.streams
        connections = {
            "opened": streams.opened,
            "lost": streams.lost,
            "dead": streams.dead,
            "failed": streams.failed,
            "turned_away": sum(streams.turned_away.values()),
        }
        text = "Connections between servers, over TCP and TLS."
        yield _counters("pfsb_peer_connections_total", text, "event", connections)

    def _disk(self) -> Iterator[Metric]:
        facts = self._facts
        counters = facts.storage or StorageCounters()
        yield _histogram(
            "pfsb_disk_write_seconds", "One group of records, until it is on disk.", counters.write_seconds
        )
        yield _counter("pfsb_disk_records_total", "Records written.", counters.records)
        yield _counter("pfsb_disk_batch_bytes_total", "Size of the batches among them.", counters.batch_bytes)
        present = facts.disk_trouble
        troubles = {each.value: float(each is present) for each in DiskTrouble}
        yield _gauges("pfsb_disk_trouble", "1 while the disk hangs, or is full, else 0.", "trouble", troubles)
        yield _counters("pfsb_disk_troubles_total", "How often trouble began.", "trouble", facts.disk_troubles)
        yield _histogram("pfsb_reactor_lag_seconds", "How late the event loop calls what is due.", self._lag.late)

    def _snapshots(self) -> Iterator[Metric]:
        facts = self._facts
        taker, fetcher, name = facts.snapshot_taker, facts.snapshot_fetcher, facts.snapshot
        slot, size = (0, 0) if name is None else (name.seq, name.size)
        yield _gauge("pfsb_snapshot_slot", "The slot of the snapshot from which a start begins; 0: none.", slot)
        yield _gauge("pfsb_snapshot_bytes", "Size of that snapshot.", size)
        yield _gauge("pfsb_compacted_slot", "Slots up to here may be gone from the log.", facts.compacted)
        ends = {"taken": taker.taken, "given_up": taker.failed, "installed": fetcher.installed}
        yield _counters("pfsb_snapshots_total", "Snapshots since the start, by what became of them.", "end", ends)
        yield _gauge("pfsb_snapshot_taking_seconds", "How long the last snapshot took.", taker.seconds)
        sizes = facts.storage or StorageCounters()
        yield _gauge("pfsb_log_bytes", "Size of the log.", sizes.log_bytes)
        backup = facts.last_backup
        text = "When this server last gave a backup; 0: not since its start."
        yield _gauge("pfsb_last_backup_timestamp_seconds", text, 0 if backup is None else backup.at)
        archive = sizes.archive or ArchiveCounters("")
        yield _gauge("pfsb_archive_bytes", "Size of this storage's archive; 0 without one.", archive.bytes)
        yield _gauge("pfsb_archive_slot", "Slots up to here are in the archive.", archive.slot)
        yield _gauge("pfsb_archive_waiting_files", "Files that are to be moved there.", archive.waiting)
        failing = "1 while the archive does not take files, else 0."
        yield _gauge("pfsb_archive_failing", failing, int(archive.error is not None))

    def _hand_overs(self) -> Iterator[Metric]:
        handler = self._facts.hand_over
        ends = {"done": handler.done, "failed": handler.failed, "followed": handler.followed}
        text = "Views handed over: by this server, and those of others that it has left."
        yield _counters("pfsb_hand_overs_total", text, "end", ends)
        seconds = handler.last_seconds or 0.0
        yield _gauge("pfsb_hand_over_seconds", "How long the last one let nothing be proposed; 0: none.", seconds)

    def _clients(self) -> Iterator[Metric]:
        facts = self._facts
        commands: Samples = [
            ({"verb": verb, "result": result}, count) for (verb, result), count in sorted(facts.commands.items())
        ]
        text = "Commands of this server's clients that ran."
        yield _with_samples(CounterMetricFamily("pfsb_client_commands_total", text), commands)
        yield _gauge("pfsb_sessions", "Sessions of the whole cluster.", facts.sessions)
        quotas = [(name, used, limit) for name, (used, limit) in sorted(facts.quotas.items()) if used is not None]
        ratios: Samples = [({"quota": name}, used / limit) for name, used, limit in quotas]
        text = "Use of a quota of the replicated state, 1: used up."
        yield _with_samples(GaugeMetricFamily("pfsb_quota_used_ratio", text), ratios)
        yield _gauge("pfsb_connections", "Clients of this server, at all doors.", facts.connections)
        yield _gauge("pfsb_revision_commands", "Commands executed by the cluster, as far as known.", facts.revision)

    def _doors(self) -> Iterator[Metric]:
        if self._shared is None:
            return
        unread, addresses = self._shared.unread, self._shared.addresses
        yield _gauge("pfsb_unread_bytes", "Replies that wait in memory until clients read.", unread.held_bytes)
        dropped = {CROWDED: 0, SILENT: 0, **unread.dropped}
        yield _counters("pfsb_dropped_clients_total", "Clients dropped that did not read.", "reason", dropped)
        refused = {"connection": 0, "session": 0, **addresses.refused}
        yield _counters("pfsb_address_refusals_total", "Refused: too many of one address.", "what", refused)
        yield _counter("pfsb_wrong_tokens_total", "Wrong tokens that clients have shown.", self._shared.rights.refused)

    def _http(self) -> Iterator[Metric]:
        site = self.site
        if site is None:
            return
        answers: Samples = [
            ({"method": method, "status": str(status)}, count)
            for (method, status), count in sorted(site.answered.items())
        ]
        yield _with_samples(CounterMetricFamily("pfsb_http_answers_total", "Answers given over HTTP."), answers)
        yield _gauge("pfsb_http_connections", "Connections over HTTP.", len(site.channels))
        yield _gauge("pfsb_http_sessions", "Sessions with a name that this door keeps open.", len(site.sessions))
        yield _gauge("pfsb_http_streams", "Streams of events.", len(site.streams))

    def _build(self) -> Iterator[Metric]:
        versions = {"version": __version__, "python": platform.python_version(), "twisted": twisted.__version__}
        yield _with_samples(GaugeMetricFamily("pfsb_build_info", "Versions that run here."), [(versions, 1)])
        config, membership = self._facts.config, self._facts.membership
        name = {"cluster": config.cluster, "server": str(self._facts.server_id)}
        yield _with_samples(GaugeMetricFamily("pfsb_server_info", "The name of this server."), [(name, 1)])
        yield _gauge("pfsb_servers", "Servers of the cluster, up or not.", membership.n)
        yield _gauge("pfsb_quorum_servers", "Servers that must be up for commands to be answered.", membership.quorum)

    def _role(self) -> Iterator[Metric]:
        facts = self._facts
        votes = facts.role == VOTER
        roles = {role: float(votes and state is facts.state) for state, role in ROLES.items()}
        roles["learner"] = float(facts.role in (LEARNER, PERMANENT_LEARNER))
        yield _gauges("pfsb_role", "1 for what this server is at present, else 0.", "role", roles)
        yield _gauge("pfsb_knows_leader", "1 while this server knows a leader, else 0.", int(facts.leader is not None))
        admitted = "1 once the others know this server's storage, so that it votes."
        yield _gauge("pfsb_admitted", admitted, int(facts.is_admitted))
        yield _gauge("pfsb_epoch", "The number of the epoch of the membership.", facts.membership.epoch)
        differing = "Settings for which this server's file has another value than the cluster."
        yield _gauge("pfsb_differing_settings", differing, len(facts.differing_settings))

    def _peers(self) -> Iterator[Metric]:
        peers = {str(server_id): peer for server_id, peer in self._facts.peers()}
        alive = {name: float(peer.is_alive) for name, peer in peers.items()}
        yield _gauges("pfsb_peer_alive", "1 if that server was heard of late, else 0.", "peer", alive)
        executed = {name: peer.local_aru for name, peer in peers.items()}
        yield _gauges("pfsb_peer_executed_slots", "Sequence numbers that it has executed.", "peer", executed)

    def _queues(self) -> Iterator[Metric]:
        yield _gauges("pfsb_queue_length", "What waits here, by what it is.", "queue", self._facts.queue_lengths)
        slow = (self._facts.storage or StorageCounters()).slow_groups
        yield _counter("pfsb_disk_slow_writes_total", "Writes that took more than 0.1 seconds.", slow)

    def _times(self) -> Iterator[Metric]:
        text = "From a command's arrival to its answer, by outcome: OK, or the code of a refusal."
        family = HistogramMetricFamily("pfsb_client_command_seconds", text)
        for (verb, outcome), histogram in sorted(self._facts.command_seconds.items()):
            _add_histogram(family, {"verb": verb, "outcome": outcome}, histogram)
        yield family


def _counter(name: str, text: str, value: float) -> Metric:
    return _with_samples(CounterMetricFamily(name, text), [({}, value)])


def _gauge(name: str, text: str, value: float) -> Metric:
    return _with_samples(GaugeMetricFamily(name, text), [({}, value)])


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _with_samples(CounterMetricFamily(name, text), [({label: each}, values[each]) for each in sorted(values)])


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _with_samples(GaugeMetricFamily(name, text), [({label: each}, values[each]) for each in sorted(values)])


def _with_samples(family: Metric, samples: Samples) -> Metric:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    for labels, value in samples:
        family.add_sample(name, dict(labels), value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text)
    _add_histogram(family, {}, histogram)
    return family


def _add_histogram(family: Any, labels: Labels, histogram: Histogram) -> None:
    for bound, count in histogram.cumulated():
        # The text of a bound is part of the name of its figure: 1, as ever, and not 1.0.
        text = str(int(bound)) if bound.is_integer() else repr(bound)
        family.add_sample(f"{family.name}_bucket", {**labels, "le": text}, count)
    family.add_sample(f"{family.name}_bucket", {**labels, "le": "+Inf"}, histogram.count)
    family.add_sample(f"{family.name}_sum", dict(labels), histogram.sum)
    family.add_sample(f"{family.name}_count", dict(labels), histogram.count)
