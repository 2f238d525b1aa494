"""Everything that STATUS, SERVERS and the metrics tell about one server, read from its insides in one place.

`ServerFacts` gives each figure a name and knows where the protocol, the sessions and the counters keep it. Its readers,
`status` and `server_rows` below and `pfsb.service.metrics`, only arrange figures. Nothing here changes a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime

from pfsb import __version__
from pfsb.applications.application import has_snapshot
from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import Fields, Word
from pfsb.config.client_places import client_place
from pfsb.config.config import Config
from pfsb.config.exposure import exposure
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.hand_over import HandOverHandler
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import State
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import SnapshotName
from pfsb.paxos.snapshot_fetching import SnapshotFetcher
from pfsb.paxos.snapshot_taking import SnapshotTaker
from pfsb.sessions.asking import ask
from pfsb.sessions.local_clients import LocalClients
from pfsb.sessions.settings_follower import SettingsFollower
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.snapshots_asked import GivenBackup, SnapshotsAsked
from pfsb.storage.counters import StorageCounters
from pfsb.support.histogram import Histogram
from pfsb.support.hosts import shown
from pfsb.support.views import shown as shown_view
from pfsb.transports.links import TransportCounters

VOTER, LEARNER, JOINING, REMOVED = "voter", "learner", "joining", "removed"
"""The roles of a server: it votes; it executes what the others order; it waits to be added; it was removed."""
PERMANENT_LEARNER = "permanent-learner"
"""The role of a server that executes what the others order, and never votes."""


@frozen
class PeerFacts:
    """Facts about one server of the cluster, as the server that was asked knows them."""

    state: State
    view: int
    local_aru: int
    is_alive: bool
    """True if a message of that server came to the server that was asked within the last `timers.progress` seconds;
    always true of itself."""
    agrees_up_to: int = 0
    """The highest slot at which that server and the server that was asked had equal digests of the history; 0: none."""
    differs_at: int | None = None
    """The lowest slot at which that server and the server that was asked had unequal digests; None: they do not
    differ."""
    silent_seconds: float | None = None
    """Seconds since the last message of that server came; None: there was none since the start of the server that was
    asked."""
    via: str = "udp"
    """The transport that carries frames to that server at present: udp, tcp or tls; none: there is no connection."""
    address: str | None = None
    """The IP address and port to which the server that was asked sends; None: it has found none, or its network has no
    addresses."""


@define(eq=False)
class ServerFacts:
    """The figures of one server, each read anew whenever it is asked for."""

    config: Config
    server_id: int
    _catalogue: Catalogue
    _clock: IReactorTime
    _replica: Replica
    _machine: SessionStateMachine
    _settings: SettingsFollower
    _asked: SnapshotsAsked
    _clients: Callable[[], LocalClients]
    """Function that returns the clients of the server; called only after the server's start, when the clients exist."""
    transport: TransportCounters | None
    """Counters of the transport; None: it has none, as in simulations."""
    storage: StorageCounters | None
    """Counters of the storage; None: they are not shown, as in simulations."""
    has_disk: bool
    """False with `storage: memory`: STATUS then shows no figures of storage."""
    _started_at: float

    # ------------------------------------------------------------------ the protocol

    @property
    def state(self) -> State:
        return self._replica.data.server.state

    @property
    def view(self) -> int:
        """The last view that this server has installed; 0: none yet."""
        return self._replica.data.views.last_installed

    @property
    def attempted_view(self) -> int:
        return self._replica.data.views.last_attempted

    @property
    def membership(self) -> Membership:
        """The servers of the cluster, as far as this server has executed."""
        return self._replica.membership

    @property
    def role(self) -> str:
        """The part of this server in the cluster: `VOTER`, `LEARNER`, `PERMANENT_LEARNER`, `JOINING` or
        `REMOVED`. A founder that learns by others alone that it is no member any more was removed as well."""
        return REMOVED if self.is_left_behind else self.role_of(self.server_id)

    @property
    def is_left_behind(self) -> bool:
        """Whether this server was removed and has lost its data, as others let it know that do not know it."""
        return self._replica.epochs.is_left_behind

    def role_of(self, server_id: int) -> str:
        """The role of a server in the present epoch."""
        members = self.membership.members
        if server_id in members.voters:
            return VOTER
        if server_id in members.retired:
            return REMOVED
        if server_id in members.permanent:
            return PERMANENT_LEARNER
        return LEARNER if server_id in members.learners and members.epoch else JOINING

    def address_of(self, server_id: int) -> str | None:
        """The address at which a server is to be reached, by the membership or else by the configuration of this
        server; None: neither has one."""
        found = self.membership.members.addresses.get(server_id)
        configured = self.config.servers.get(server_id)
        return found or (None if configured is None else shown(*configured.peer))

    def place_of(self, server_id: int) -> str:
        """Where clients reach a server, as it has announced or else by the configuration of this server; empty: neither
        tells."""
        configured = self.config.servers.get(server_id)
        announced = self._machine.settings.place_of(server_id)
        return announced or (client_place(configured) or "" if configured is not None else "")

    @property
    def alive(self) -> list[int]:
        """Ids of the voters that were heard lately, this server included."""
        return [server_id for server_id in self.membership.voters if self.server(server_id).is_alive]

    @property
    def leader(self) -> int | None:
        """The id of the leader, as far as this server knows; None during an election.

        A server that only learns votes for none: it knows the leader by its ALIVE."""
        if self.role in (LEARNER, PERMANENT_LEARNER):
            peers = self._replica.peers
            leading = [
                (peer.view, server_id)
                for server_id, peer in peers.by_id.items()
                if peer.state is State.REG_LEADER and peers.heard_lately(server_id)
            ]
            return max(leading)[1] if leading else None
        if self.view == 0 or self.state is State.LEADER_ELECTION:
            return None
        return self.membership.leader_of(self.view)

    @property
    def leads(self) -> bool:
        return self.state is State.REG_LEADER

    @property
    def local_aru(self) -> int:
        """The highest sequence number up to which this server has executed every slot."""
        return self._replica.data.ordering.local_aru

    @property
    def compacted(self) -> int:
        """The highest slot that this server's storage may have dropped, since a snapshot holds what came of it."""
        return self._replica.storage.compacted

    @property
    def snapshot(self) -> SnapshotName | None:
        """The snapshot from which this server would start; None: there is none."""
        return self._replica.storage.snapshot

    @property
    def last_backup(self) -> GivenBackup | None:
        """The last backup that this server has given since its start; None: it has given none."""
        return self._asked.last_backup

    @property
    def snapshot_taker(self) -> SnapshotTaker:
        return self._replica.snapshot_taker

    @property
    def snapshot_fetcher(self) -> SnapshotFetcher:
        return self._replica.snapshot_fetcher

    @property
    def without_snapshots(self) -> list[str]:
        """Names of the applications that run and give no snapshots, so that this cluster takes none."""
        return [app.name for app in self._catalogue.chosen if not has_snapshot(app)]

    @property
    def lost_snapshot(self) -> int | None:
        """The slot of the snapshot that was found missing or damaged on this server's disk, at its start (Departure 58)
        or since, as long as no other one has taken its place; None: there is none."""
        lost = self.snapshot_fetcher.lost or self.snapshot_taker.lost
        return None if lost is None else lost.seq

    @property
    def last_ordered(self) -> int:
        """The highest sequence number that is known to be ordered, executed or not."""
        ordering = self._replica.data.ordering
        ordered = (seq for seq, slot in ordering.global_history.above(ordering.local_aru) if slot.ordered is not None)
        return max(ordered, default=ordering.local_aru)

    @property
    def digest(self) -> str:
        """The digest of the history up to `local_aru`, in hexadecimal digits."""
        return self._replica.ordered_queue.digests.head.hex()

    @property
    def incarnation(self) -> int:
        return self._replica.data.server.incarnation

    @property
    def pending_updates(self) -> int:
        """Number of updates of this server's own clients that are not executed yet."""
        return len(self._replica.data.clients.pending_updates)

    @property
    def queued_updates(self) -> int:
        """Number of updates that wait at this server for a sequence number."""
        return len(self._replica.data.clients.update_queue)

    # ------------------------------------------------------------------ counted since the start

    @property
    def turns(self) -> int:
        return self._replica.turn.count

    @property
    def discarded(self) -> Mapping[str, int]:
        """Reason -> number of messages that this server has discarded for it since it started. A reason is a line of
        Figure 4, or another name."""
        return self._replica.discarded

    @property
    def contradictions(self) -> int:
        """Number of votes and PROPOSALs since this server started that named, for a slot, another batch than this
        server holds: signs of a fault."""
        return self._replica.ordering.contradictions

    @property
    def is_undecided(self) -> bool:
        """Whether this server refuses changes, since servers differ and no majority agrees with it (Departure 40)."""
        return self._replica.divergence.is_undecided

    @property
    def disk_trouble(self) -> DiskTrouble | None:
        """Why this server takes no part at present (Departures 44 and 45); None: its disk works."""
        return self._replica.turn.trouble

    @property
    def disk_trouble_seconds(self) -> float:
        """How long, in seconds, the present trouble of the disk lasts; 0.0: there is none."""
        return self._replica.disk_watch.seconds

    @property
    def disk_troubles(self) -> Mapping[str, int]:
        """Kind of trouble of the disk -> how often it has begun since this server started."""
        return {trouble.value: count for trouble, count in self._replica.disk_watch.begun.items()}

    @property
    def differing(self) -> list[int]:
        """Ids of the servers that have executed equal slots with other results than this server (Departure 40)."""
        return [server_id for server_id, each in self._replica.divergence.by_peer.items() if each.is_in_doubt]

    @property
    def proposal_bytes(self) -> Histogram:
        """Distribution of the encoded sizes, in bytes, of the batches that this server has proposed since it
        started."""
        return self._replica.proposals.batch_bytes

    @property
    def proposal_updates(self) -> Histogram:
        """Distribution of the number of client updates in each batch that this server has proposed from its queue since
        it started."""
        return self._replica.update_queue.batch_updates

    @property
    def views_installed(self) -> int:
        """How often this server has entered the state REG_LEADER or REG_NONLEADER since it started."""
        shifts = self._replica.shifts
        return shifts[State.REG_LEADER] + shifts[State.REG_NONLEADER]

    @property
    def elections(self) -> int:
        """Number of views that this server has attempted since it started."""
        return self._replica.shifts[State.LEADER_ELECTION]

    @property
    def progress_timer_expiries(self) -> int:
        return self._replica.progress_timer.expiries

    @property
    def hand_over(self) -> HandOverHandler:
        return self._replica.hand_over

    @property
    def catch_up_bytes(self) -> Mapping[str, int]:
        """Way, "sent" or "received" -> number of bytes of batches that this server has sent to other servers, or
        received from them, by reconciliation since it started."""
        reconciliation = self._replica.reconciliation
        return {"sent": reconciliation.bytes_sent, "received": reconciliation.bytes_received}

    @property
    def updates(self) -> int:
        """Number of client updates executed since the start, including those on disk, which a start executes again."""
        return self._machine.updates

    @property
    def commands(self) -> Mapping[tuple[str, str], int]:
        """(verb, result) -> number of commands of this server's clients that had this result since it started; see
        `CommandCounts`."""
        counts = self._machine.counts
        assert counts is not None, "a server counts commands from its start on"
        return counts.by_verb_and_result()

    @property
    def command_seconds(self) -> Mapping[tuple[str, str], Histogram]:
        """(verb, outcome) -> distribution of the times, in seconds, for which this server's clients have waited for
        their answers since it started; see `CommandTimes`."""
        return self._clients().times.histograms()

    # ------------------------------------------------------------------ what waits

    @property
    def queue_lengths(self) -> Mapping[str, int]:
        """Kind of things that wait at this server -> number of them at present.

        "commands": commands and questions without an answer. "reads": groups of questions that wait for the leader or
        for a slot. "disk_writes": writes that are under way. "messages", "answers": messages and groups of answers that
        wait for a write. "slots": slots that are ordered and not executed. "abandoned": bundles of clients that are
        gone.
        """
        clients, turn = self._clients(), self._replica.turn
        return {
            "commands": clients.unanswered,
            "reads": self._replica.reads.under_way,
            "disk_writes": turn.writes_under_way,
            "messages": turn.messages_in_wait,
            "answers": turn.answers_in_wait,
            "slots": self.last_ordered - self.local_aru,
            "abandoned": len(clients.submission.abandoned),
        }

    # ------------------------------------------------------------------ admission

    @property
    def is_admitted(self) -> bool:
        """Whether this server votes and leads; False until enough others know its storage (Departures 12 and 42)."""
        return not self._replica.storage_identity.is_newcomer

    @property
    def not_acquainted(self) -> list[int]:
        """Ids of the servers that have not told yet that they know this server's storage; empty once it is
        admitted."""
        return [] if self.is_admitted else self._replica.storage_identity.missing

    # ------------------------------------------------------------------ clients

    @property
    def revision(self) -> int:
        """Number of commands and of session operations that the cluster has executed, as far as this server knows."""
        return self._machine.revision

    @property
    def sessions(self) -> int:
        """Number of open sessions of the whole cluster, as far as this server has executed the log."""
        return len(self._machine.sessions)

    @property
    def connections(self) -> int:
        """Number of clients that are connected to this server, over all of its ports."""
        return self._clients().connections

    @property
    def cluster_settings(self) -> Mapping[str, int | str]:
        """The settings that all servers share, by name; empty before the first slot is executed here."""
        settings = self._machine.settings
        return settings.shown() if settings.is_born else {}

    @property
    def quotas(self) -> Mapping[str, tuple[int | None, int]]:
        """Name of each quota of the replicated state -> (how much of it is in use, how much there may be). The use is
        None for a quota that holds for each value or for each session by itself."""
        return ask(self._replica.turn, self._machine.quotas)

    @property
    def differing_settings(self) -> list[str]:
        """Names of the settings for which this server's configuration file has another value than the one in force."""
        settings = self._machine.settings
        return self._settings.differing(settings.values) if settings.is_born else []

    @property
    def applications(self) -> list[str]:
        return [application.name for application in self._catalogue.chosen]

    @property
    def warnings(self) -> list[str]:
        """Sentences for an operator about what is wrong in the configuration of this server, and works nevertheless."""
        found = exposure(self.config)
        return [] if found is None else [found]

    @property
    def uptime(self) -> float:
        """How many seconds ago this process made the server."""
        return self._clock.seconds() - self._started_at

    @property
    def time(self) -> float:
        """The clock of this server, in seconds since 1970."""
        return self._clock.seconds()

    # ------------------------------------------------------------------ the other servers

    def peers(self) -> Iterator[tuple[int, PeerFacts]]:
        """Pairs (id, facts) for every other server of the cluster."""
        for server_id in self._replica.peers.by_id:
            yield server_id, self._peer(server_id)

    def server(self, server_id: int) -> PeerFacts:
        """The facts about one server of the cluster, which may be this one."""
        if server_id == self.server_id:
            return PeerFacts(self.state, self.view, self.local_aru, is_alive=True, silent_seconds=0.0)
        return self._peer(server_id)

    def _peer(self, server_id: int) -> PeerFacts:
        peer = self._replica.peers.by_id[server_id]
        comparison = self._replica.divergence.by_peer[server_id]
        return PeerFacts(
            state=peer.state,
            view=peer.view,
            local_aru=peer.local_aru,
            is_alive=self._replica.peers.heard_lately(server_id),
            agrees_up_to=comparison.agrees_up_to,
            differs_at=comparison.differs_at if comparison.is_in_doubt else None,
            silent_seconds=self._clock.seconds() - peer.last_heard if peer.last_heard >= 0 else None,
            via="udp" if self.transport is None else self.transport.streams.via.get(server_id, "udp"),
            address=None if self.transport is None else self.transport.addresses.get(server_id),
        )


def status(facts: ServerFacts) -> dict[str, object]:
    """The JSON object of STATUS. Scripts rely on its names; see docs/operating.rst."""
    config, proposals = facts.config, facts.proposal_bytes
    return {
        "cluster": config.cluster,
        "server": facts.server_id,
        "version": __version__,
        "state": facts.state.value,
        "view": shown_view(facts.view),
        "attempted": shown_view(facts.attempted_view),
        "leader": facts.leader,
        "n": facts.membership.n,
        "quorum": facts.membership.quorum,
        "tolerates": facts.membership.n - facts.membership.quorum,
        "epoch": facts.membership.epoch,
        "role": facts.role,
        "aru": facts.local_aru,
        "last_ordered": facts.last_ordered,
        "revision": facts.revision,
        "sessions": facts.sessions,
        "connections": facts.connections,
        "pending": facts.pending_updates,
        "queued": facts.queued_updates,
        "compacted": facts.compacted,
        "snapshot": 0 if facts.snapshot is None else facts.snapshot.seq,
        "digest": facts.digest,
        "uptime": round(facts.uptime, 3),
        "transport": config.transport,
        "apps": facts.applications,
        "peers": {str(server_id): _peer_status(peer) for server_id, peer in facts.peers()},
        "incarnation": facts.incarnation,
        "turns": facts.turns,
        "updates": facts.updates,
        "proposed": {"count": proposals.count, "bytes": int(proposals.sum)},
        "discarded": facts.discarded,
        "frames": _frames(facts.transport),
        "storage": _groups(facts.storage) if facts.has_disk else {},
        "settings": facts.cluster_settings,
        "settings_differ": facts.differing_settings,
        "contradicted": facts.contradictions,
        "diverged": facts.is_undecided,
        "quotas": {name: {"used": used, "limit": limit} for name, (used, limit) in facts.quotas.items()},
        "disk": _disk(facts),
        "admitted": facts.is_admitted,
        "not_acquainted": facts.not_acquainted,
        "time": round(facts.time, 3),
        "snapshots": _snapshots(facts),
        "archive": _archive(facts),
        "warnings": facts.warnings,
        "hand_over": _hand_over(facts.hand_over),
        "voters": [*facts.membership.voters],
        "clients": {str(i): place for i in facts.membership.ids if (place := facts.place_of(i))},
    }


def _hand_over(handler: HandOverHandler) -> dict[str, object]:
    under_way, seconds = handler.under_way, handler.last_seconds
    return {
        "done": handler.done,
        "failed": handler.failed,
        "followed": handler.followed,
        "to": None if under_way is None else under_way.target,
        "last_seconds": None if seconds is None else round(seconds, 3),
    }


def _archive(facts: ServerFacts) -> dict[str, object] | None:
    archive = None if facts.storage is None else facts.storage.archive
    if archive is None:
        return None
    return {
        "directory": archive.directory,
        "bytes": archive.bytes,
        "slot": archive.slot,
        "waiting": archive.waiting,
        "error": archive.error,
    }


def _snapshots(facts: ServerFacts) -> dict[str, object]:
    taker, fetcher, name = facts.snapshot_taker, facts.snapshot_fetcher, facts.snapshot
    fetch = fetcher.fetch
    return {
        "bytes": 0 if name is None else name.size,
        "digest": None if name is None else name.digest.hex(),
        "taking": taker.seq,
        "taken": taker.taken,
        "given_up": taker.failed,
        "seconds": round(taker.seconds, 3),
        "fetching": None
        if fetch is None
        else {"seq": fetch.name.seq, "bytes": fetch.name.size, "received": fetch.file.size, "from": fetch.source},
        "installed": fetcher.installed,
        "lost": facts.lost_snapshot,
        "impossible_with": facts.without_snapshots,
        "last_backup": None
        if facts.last_backup is None
        else {"at": facts.last_backup.at, "seq": facts.last_backup.seq},
    }


def _disk(facts: ServerFacts) -> dict[str, object]:
    trouble = facts.disk_trouble
    return {
        "trouble": None if trouble is None else trouble.value,
        "seconds": round(facts.disk_trouble_seconds, 3),
        "begun": dict(facts.disk_troubles),
    }


def server_rows(facts: ServerFacts) -> list[Fields]:
    """The rows of SERVERS: one for each server of the cluster."""
    return [_server_row(facts, server_id) for server_id in facts.membership.ids]


def _server_row(facts: ServerFacts, server_id: int) -> Fields:
    server = facts.server(server_id)
    return (
        ("id", server_id),
        ("state", Word(server.state.value)),
        ("aru", server.local_aru),
        ("alive", Word("yes" if server.is_alive else "no")),
        ("address", facts.address_of(server_id) or "unknown"),
        ("role", Word(facts.role_of(server_id))),
        ("client", facts.place_of(server_id) or "unknown"),
    )


def _peer_status(peer: PeerFacts) -> dict[str, object]:
    return {
        "aru": peer.local_aru,
        "alive": peer.is_alive,
        "last_heard": None if peer.silent_seconds is None else round(peer.silent_seconds, 3),
        "state": peer.state.value,
        "view": shown_view(peer.view),
        "agrees_up_to": peer.agrees_up_to,
        "differs_at": peer.differs_at,
        "address": peer.address,
        "via": peer.via,
    }


def _frames(counters: TransportCounters | None) -> dict[str, object]:
    if counters is None:
        return {}
    return {
        "in": counters.frames_in,
        "out": counters.frames_out,
        "refused": dict(counters.refused),
        "lost_by_fault": counters.lost_by_fault,
        "send_errors": counters.send_errors,
        "parts": {
            "out": counters.paths.parts_out,
            "in": counters.paths.parts_in,
            "repeated": counters.paths.repeated,
            "frames_in": counters.paths.whole_in,
            "given_up": counters.paths.given_up,
        },
        "datagram_bytes": {str(peer): size for peer, size in sorted(counters.paths.datagram_bytes.items())},
        "connections": {
            "opened": counters.streams.opened,
            "lost": counters.streams.lost,
            "dead": counters.streams.dead,
            "failed": counters.streams.failed,
            "dropped": counters.streams.dropped,
            "turned_away": dict(counters.streams.turned_away),
        },
    }


def _groups(counters: StorageCounters | None) -> dict[str, object]:
    if counters is None:
        return {}
    return {
        "groups": counters.groups,
        "records": counters.records,
        "batch_bytes": counters.batch_bytes,
        "slow_groups": counters.slow_groups,
        "max_write_seconds": round(counters.max_write_seconds, 6),
        "log_bytes": counters.log_bytes,
        "snapshot_bytes": counters.snapshot_bytes,
    }
