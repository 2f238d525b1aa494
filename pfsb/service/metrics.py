"""The figures of one server in the text format of Prometheus (its "exposition format", version 0.0.4).

Other modules count what happens in them, in plain numbers; this module gives these numbers names when /metrics is read.
A name ends in its unit, and in `_total` if the figure only grows. Dashboards rely on the names and texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pfsb.frontends.stream.unread import CROWDED, SILENT
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.server_facts import ServerFacts
from pfsb.storage.counters import StorageCounters
from pfsb.support.histogram import SECONDS, Histogram
from pfsb.transports.links import TransportCounters

if TYPE_CHECKING:
    from pfsb.frontends.http.protocol import HTTPSite
    from pfsb.frontends.stream.shared_limits import SharedLimits

LAG_SECONDS: Final = 0.1
"""Time, in seconds, between two measurements of how late the reactor makes its calls."""

Labels = Mapping[str, str]
Samples = Iterable[tuple[Labels, float]]


@define(eq=False)
class ReactorLag:
    """Measures how late the reactor makes its delayed calls.

    Everything else that a server does is late by as much, since the reactor's thread does one thing at a time.
    """

    _clock: IReactorTime
    late: Histogram = field(init=False, factory=lambda: Histogram(SECONDS))
    _due: float = field(init=False, default=0.0)

    def start(self) -> None:
        self._due = self._clock.seconds() + LAG_SECONDS
        self._clock.callLater(LAG_SECONDS, self._look)

    def _look(self) -> None:
        self.late.observe(max(0.0, self._clock.seconds() - self._due))
        self.start()


@define(eq=False)
class Metrics:
    """Renders the text that /metrics answers with."""

    _facts: ServerFacts
    _lag: ReactorLag
    _shared: SharedLimits | None = None
    """The limits of the doors; None: their figures are left out."""
    site: HTTPSite | None = None
    """The HTTP port's site. None until the first HTTP client connects; until then the figures of the HTTP port are left
    out."""

    def render(self) -> bytes:
        groups = (self._protocol, self._messages, self._disk, self._clients, self._doors, self._http)
        return "".join(line for group in groups for family in group() for line in family).encode()

    # ------------------------------------------------------------------ families of figures

    def _protocol(self) -> Iterator[Iterator[str]]:
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

    def _messages(self) -> Iterator[Iterator[str]]:
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

    def _disk(self) -> Iterator[Iterator[str]]:
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

    def _clients(self) -> Iterator[Iterator[str]]:
        facts = self._facts
        commands: Samples = [
            ({"verb": verb, "result": result}, count) for (verb, result), count in sorted(facts.commands.items())
        ]
        yield _family("pfsb_client_commands_total", "Commands of this server's clients that ran.", "counter", commands)
        yield _gauge("pfsb_sessions", "Sessions of the whole cluster.", facts.sessions)
        quotas = [(name, used, limit) for name, (used, limit) in sorted(facts.quotas.items()) if used is not None]
        text = "Use of a quota of the replicated state, 1: used up."
        yield _family(
            "pfsb_quota_used_ratio", text, "gauge", [({"quota": name}, used / limit) for name, used, limit in quotas]
        )
        yield _gauge("pfsb_connections", "Clients of this server, at all doors.", facts.connections)
        yield _gauge("pfsb_revision_commands", "Commands executed by the cluster, as far as known.", facts.revision)

    def _doors(self) -> Iterator[Iterator[str]]:
        if self._shared is None:
            return
        unread, addresses = self._shared.unread, self._shared.addresses
        yield _gauge("pfsb_unread_bytes", "Replies that wait in memory until clients read.", unread.held_bytes)
        dropped = {CROWDED: 0, SILENT: 0, **unread.dropped}
        yield _counters("pfsb_dropped_clients_total", "Clients dropped that did not read.", "reason", dropped)
        refused = {"connection": 0, "session": 0, **addresses.refused}
        yield _counters("pfsb_address_refusals_total", "Refused: too many of one address.", "what", refused)

    def _http(self) -> Iterator[Iterator[str]]:
        site = self.site
        if site is None:
            return
        answers: Samples = [
            ({"method": method, "status": str(status)}, count)
            for (method, status), count in sorted(site.answered.items())
        ]
        yield _family("pfsb_http_answers_total", "Answers given over HTTP.", "counter", answers)
        yield _gauge("pfsb_http_connections", "Connections over HTTP.", len(site.channels))
        yield _gauge("pfsb_http_sessions", "Sessions with a name that this door keeps open.", len(site.sessions))
        yield _gauge("pfsb_http_streams", "Streams of events.", len(site.streams))


def _counter(name: str, text: str, value: float) -> Iterator[str]:
    return _family(name, text, "counter", [({}, value)])


def _gauge(name: str, text: str, value: float) -> Iterator[str]:
    return _family(name, text, "gauge", [({}, value)])


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Iterator[str]:
    return _family(name, text, "counter", [({label: each}, value) for each, value in sorted(values.items())])


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Iterator[str]:
    return _family(name, text, "gauge", [({label: each}, value) for each, value in sorted(values.items())])


def _family(name: str, text: str, kind: str, samples: Samples) -> Iterator[str]:
    yield from _head(name, text, kind)
    for labels, value in samples:
        yield f"{name}{_braced(labels)} {_number(value)}\n"


def _histogram(name: str, text: str, histogram: Histogram) -> Iterator[str]:
    yield from _head(name, text, "histogram")
    for bound, count in histogram.cumulated():
        yield f'{name}_bucket{{le="{_number(bound)}"}} {count}\n'
    yield f'{name}_bucket{{le="+Inf"}} {histogram.count}\n'
    yield f"{name}_sum {_number(histogram.sum)}\n{name}_count {histogram.count}\n"


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _braced(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
