"""One server below its sockets: storage, protocol, sessions and applications, from its start to its stop.

Everything that touches the machine is passed in: `pfsb.service.assembly` passes a reactor, UDP and a log, and the
simulator passes its own clock, network and disk. Front ends submit commands through `local_clients`, wait for revisions
with `revisions`, subscribe to events with `event_feed`, and look at the server with `status`, `servers` and `digest`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import Answer, Done, Fields, Refused, Result, Word
from pfsb.config.config import Config
from pfsb.hand_overs_asked import HandOversAsked
from pfsb.membership_changes import MembershipChanges
from pfsb.past_reads import IPastReader, PastReads
from pfsb.paxos.birth import Birth
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.interfaces import IStableStorage, ITracer, ITransport
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import SnapshotName
from pfsb.server_facts import JOINING, LEARNER, PERMANENT_LEARNER, REMOVED, ServerFacts, server_rows, status
from pfsb.sessions.asking import ask
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.command_counts import CommandCounts
from pfsb.sessions.event_feed import EventFeed
from pfsb.sessions.expiry import Expiry
from pfsb.sessions.local_clients import LocalClients
from pfsb.sessions.quota_watch import QuotaWatch
from pfsb.sessions.refusals import HANGING, REMOVED_NOT_SENT, REMOVED_UNDER_WAY
from pfsb.sessions.revision_waiters import RevisionWaiters
from pfsb.sessions.settings_follower import SettingsFollower, abilities_of, values_of_file
from pfsb.sessions.state_machine import SessionStateMachine, is_birth, may_change_members
from pfsb.snapshots_asked import SnapshotsAsked
from pfsb.storage.counters import StorageCounters
from pfsb.support.hosts import LookUp
from pfsb.support.views import shown
from pfsb.transports.faults import LinkFaults
from pfsb.transports.links import TransportCounters

DRAIN_SECONDS = 5.0
"""How long, in seconds, a stopping server waits for the answers to commands that are under way."""
DRAIN_LOOK_SECONDS = 0.05
"""Time, in seconds, between two looks of a stopping server whether all commands under way are answered."""
DIGESTS_ASKED_MAX = 1_000
"""Maximum number of DIGEST questions that may wait for slots which this server has not executed yet."""


@define(eq=False)
class _DigestAsked:
    seq: int
    answer: Answer
    until: float
    """The time, by the server's clock in seconds, at which the question is refused if the slot is not executed by
    then."""


class Server:
    """One server, without the sockets of its clients."""

    _log = Logger()

    def __init__(
        self,
        *,
        config: Config,
        server_id: int,
        catalogue: Catalogue,
        clock: IReactorTime,
        rng: random.Random,
        storage: IStableStorage,
        transport: ITransport,
        faults: LinkFaults,
        on_failure: Callable[[Failure], None],
        counters: TransportCounters | None = None,
        storage_counters: StorageCounters | None = None,
        has_disk: bool = True,
        tracer: ITracer | None = None,
        past_reader: IPastReader | None = None,
        look_up: LookUp | None = None,
        rules_at_birth: int = 1,
        place: str = "",
    ) -> None:
        """`rules_at_birth` are the rules of execution of a cluster to which this server gives birth. `place` is where
        clients reach this server, for the other servers to know; empty: they are not told."""
        self.config = config
        self.server_id = server_id
        self.catalogue = catalogue
        self.faults = faults
        self._clock = clock
        self._storage = storage
        self._transport = transport
        settings = config.settings()
        self.machine = SessionStateMachine(server_id, catalogue)
        self.settings = SettingsFollower(
            server_id,
            self.machine,
            values_of_file(config, catalogue, rules_at_birth),
            abilities_of(catalogue.installed),
            rng.randbytes,
            self._follow_settings,
            place,
        )
        self.machine.on_settings = self.settings.follow
        self.replica = Replica(
            server_id=server_id,
            servers=config.founding_ids,
            learners=config.joining_ids(server_id),
            settings=settings,
            clock=clock,
            rng=rng,
            storage=storage,
            transport=transport,
            state_machine=self.machine,
            on_failure=on_failure,
            tracer=tracer,
            birth=Birth(self.settings.make_birth, is_birth),
        )
        self.machine.settings.on_members = self.replica.ordered_queue.change_members
        self.replica.ordered_queue.may_hold_change = may_change_members
        self.replica.snapshot_taker.why_none = self._why_no_snapshots
        self._told_without_snapshots: Sequence[str] = ()
        """Names of the applications without snapshots of which the text log has told."""
        self._digests_asked: list[_DigestAsked] = []
        self.snapshots = SnapshotsAsked(self.replica, clock, lambda: self.machine.settings.is_born)
        """Takes snapshots for clients."""
        self.hand_overs = HandOversAsked(self.replica, config, clock, lambda: self.leader(), lambda: self.no_member)
        """Hands the view of this server over for clients."""
        self.past_reads = PastReads(self.replica, self.machine, clock, lambda: self.revisions, past_reader)
        """Tells clients what keys were at earlier revisions."""
        self.changes = MembershipChanges(
            server_id,
            self.replica,
            self.machine,
            clock,
            config.limits.request_seconds,
            lambda: self.local_clients.submission,
            lambda i: self.facts.address_of(i),
            look_up,
        )
        """Changes of the membership that clients ask for, and the promotion of servers that learn."""
        self._on_places: dict[object, Callable[[], None]] = {}
        self._places_told = 0
        self._was_left_behind = False
        """Whether clients are refused because this server was left behind (`ServerFacts.is_left_behind`)."""
        self._is_removed_now = False
        """Whether a change that this turn has executed has removed this server: its clients are to be told."""
        self.disk_is_stuck = False
        """True after `stop` if the disk does not answer, so that a write is still under way."""
        self.facts = ServerFacts(
            config=config,
            server_id=server_id,
            catalogue=catalogue,
            clock=clock,
            replica=self.replica,
            machine=self.machine,
            settings=self.settings,
            asked=self.snapshots,
            clients=lambda: self.local_clients,
            transport=counters,
            storage=storage_counters,
            has_disk=has_disk,
            started_at=clock.seconds(),
        )
        self.local_clients: LocalClients
        self.event_feed: EventFeed
        self.revisions: RevisionWaiters
        self.expiry: Expiry

    # ------------------------------------------------------------------ start and stop

    def start(self) -> None:
        """Recover the state from disk and join the cluster. When this returns, clients may connect.

        Raises `StorageRefused` if the storage cannot be used, or the exception of a transport that cannot listen.
        """
        self.replica.start()
        self._tell_of_snapshots()
        self.catalogue.watch(self._tell_of_snapshots)
        self.local_clients = LocalClients(
            self.server_id,
            self.replica.data.server.incarnation_name,
            self.replica,
            self.machine,
            self.catalogue,
            self._clock,
            self.config.limits,
        )
        self.event_feed = self.local_clients.event_feed
        self.machine.counts = CommandCounts()
        self.revisions = RevisionWaiters(self.machine, self.replica.turn, self._clock)
        submission = self.local_clients.submission
        self._follow_membership()
        self.replica.membership.on_change.append(self._follow_membership)
        self._tell_of_file()
        look_at_quotas = partial(self._look_at_quotas, QuotaWatch(self.machine))
        self.expiry = Expiry(self.server_id, self.replica, self.machine, submission, self._clock, look_at_quotas)
        self.replica.attach(
            introduce_waiting=self.local_clients.submission.introduce_unloaded,
            after_answers=self._after_answers,
            clients_wait=self.local_clients.clients_wait,
            disk_changed=self.local_clients.disk_changed,
        )

    def _follow_membership(self) -> None:
        """Refuse the commands of clients while this server does not vote: it is no member of the cluster, or it learns,
        and an answer would take a second or two. One that learns answers questions with read=sequential and
        read=stale."""
        role, members = self.facts.role, self.replica.membership.members
        outside: Refused | None = None
        if role == REMOVED:
            others = ", ".join(map(str, members.voters))
            text = f"server {self.server_id} was removed from the cluster, and takes no part: ask server {others}"
            if self._was_left_behind:
                epoch = self.replica.epochs.missed_epoch
                text = f"server {self.server_id} is no member in epoch {epoch} of the cluster, and has lost its data"
            outside = Refused("UNAVAILABLE", text)
            self._log.warn("{text}; it can be stopped, and its data deleted together with its configuration", text=text)
            self._is_removed_now = self.local_clients.submission.outside is None
        elif role == JOINING:
            text = f"this server is no member of the cluster yet: say SERVERS ADD {self.server_id} to a member"
            outside = Refused("UNAVAILABLE", text)
        elif role in (LEARNER, PERMANENT_LEARNER):
            voters = ", ".join(map(str, members.voters))
            how = "still learns" if role == LEARNER else "learns for good"
            text = f"server {self.server_id} {how} what the others have executed: ask server {voters}"
            outside = Refused("UNAVAILABLE", text)
        self.local_clients.submission.outside = outside
        self.local_clients.submission.is_no_member = role in (REMOVED, JOINING)

    @property
    def no_member(self) -> Refused | None:
        """The refusal for clients of a server that has not joined the cluster yet, or was removed from it; None: this
        server is a member."""
        submission = self.local_clients.submission
        return submission.outside if submission.is_no_member else None

    def _tell_of_file(self) -> None:
        """Say in the text log, at the start, for which servers the configuration differs from the membership that is
        stored, which rules."""
        membership, ids = self.replica.membership, self.config.ids
        if membership.epoch == 0:
            return
        for text, found in (
            ("it lacks server {servers}", [i for i in membership.ids if i not in ids]),
            ("it has server {servers}, which is none of them", [i for i in ids if i not in membership.ids]),
        ):
            if found:
                self._log.warn(
                    "the servers in this configuration are not those of epoch {epoch} of the membership, which rule: "
                    + text,
                    epoch=membership.epoch,
                    servers=", ".join(map(str, found)),
                )

    def _look_at_quotas(self, watch: QuotaWatch) -> None:
        self.changes.look()
        if self.facts.is_left_behind != self._was_left_behind:
            self._was_left_behind = self.facts.is_left_behind
            self._follow_membership()
        try:
            ask(self.replica.turn, watch.look)
        except Exception:
            if not self.replica.turn.stopped:  # otherwise the exception is reported already
                raise

    def _why_no_snapshots(self) -> str | None:
        names = self.facts.without_snapshots
        if not names:
            return None
        return f"no snapshot can be taken: the application {' and '.join(names)} gives none (snapshot and restore)"

    def _tell_of_snapshots(self) -> None:
        """Say in the text log, once, that no snapshots are taken, if an application that runs now gives none."""
        names = self.facts.without_snapshots
        if names and names != self._told_without_snapshots:
            self._log.warn(
                "the application {names} gives no snapshots: this cluster takes none and has no backups, and each "
                "server keeps its whole history on disk and executes all of it again at each start",
                names=" and ".join(names),
            )
        self._told_without_snapshots = names

    def _follow_settings(self, values: ClusterSettings) -> None:
        """Called while a slot is executed: let protocol and transport follow the settings that are in force from now
        on."""
        self.replica.adopt(values.window, values.horizon, values.cluster_identity)
        self._transport.know_cluster(values.cluster_identity)

    def retire(self, drained: Callable[[], None]) -> None:
        """Hand the view of this server over, if it leads (Departure 59), and `drain`: the server was asked to stop."""
        self.replica.perform(self.replica.hand_over.hand_over_to_stop)
        self.drain(drained)

    def drain(self, drained: Callable[[], None]) -> None:
        """Take no more commands, and call `drained`, once: when those under way are answered, or after `DRAIN_SECONDS`.

        The call may come before this method returns.
        """
        self.local_clients.draining = True
        deadline = self._clock.seconds() + DRAIN_SECONDS

        def look() -> None:
            if self._is_drained() or self._clock.seconds() >= deadline:
                drained()
            else:
                self._clock.callLater(DRAIN_LOOK_SECONDS, look)

        look()

    def _is_drained(self) -> bool:
        """Whether no client waits for an answer that may come soon, so that the server may stop.

        While the disk hangs, none is waited for: no answer can come. While it is full, only answers to questions are
        waited for, since the commands under way were refused when the disk became full.
        """
        turn = self.replica.turn
        if self.replica.hand_over.is_stopping:
            return False
        if turn.trouble is DiskTrouble.HANGS:
            return True
        if turn.trouble is DiskTrouble.FULL:
            return turn.idle and not self.replica.reads.under_way
        return turn.idle and self.local_clients.idle

    def stop(self) -> Any:
        """Stop at once, without waiting for commands under way, and close the storage.

        Returns None, or a Deferred that fires when the transport has stopped.
        """
        self.expiry.stop()
        self.past_reads.stop()
        self.changes.stop()
        self.local_clients.close()
        stopped = self.replica.stop()
        self.disk_is_stuck = not self._storage.close()
        return stopped

    # ------------------------------------------------------------------ for the front ends

    @property
    def skip(self) -> set[int]:
        """The numbers of the slots that this server leaves out when it leads, because an operator has said so (FAULT
        SKIP). The caller may change the set."""
        return self.replica.proposals.skipped

    @property
    def view(self) -> int | Word:
        """The last view that this server has installed, as people see it; 0: none yet."""
        view = shown(self.facts.view)
        return Word(view) if isinstance(view, str) else view

    @property
    def others(self) -> tuple[int, ...]:
        """Ids of the other servers of the cluster."""
        return self.replica.membership.others

    @property
    def epoch(self) -> int:
        """Number of the present epoch of the membership, as far as this server has executed."""
        return self.replica.membership.epoch

    def replacing(self) -> Fields:
        """The fields of SERVERS about the server that is being replaced, and the one that takes its place; none if no
        server is."""
        replacing = self.replica.membership.members.replacing
        return () if replacing is None else (("replacing", replacing[0]), ("by", replacing[1]))

    @property
    def why_outside(self) -> str | None:
        """A text that says why this server refuses its clients as long as it does not vote; None: it votes, or it is a
        read replica, which answers what it is there for."""
        outside = self.local_clients.submission.outside
        return None if outside is None or self.facts.role == PERMANENT_LEARNER else outside.text

    @property
    def too_few_heard(self) -> str | None:
        """A text that says of how few servers this one has heard lately, itself included; None: they are a majority."""
        alive, membership = self.facts.alive, self.facts.membership
        if membership.is_majority(alive):
            return None
        text = f"this server hears {len(alive)} of {membership.n} servers, itself included"
        return f"{text}; {membership.quorum} are needed"

    @property
    def session_window(self) -> int:
        """Maximum number of unanswered commands of one session: as the settings of the cluster say, and before its
        birth as the configuration file says."""
        settings = self.machine.settings
        return settings.values.session_window if settings.is_born else self.config.limits.session_window

    @property
    def differs_from(self) -> list[int]:
        """Ids of the servers that have executed equal slots with other results than this one, while this server refuses
        changes because of that (Departure 40); empty while it does not refuse changes for this reason."""
        return self.facts.differing if self.facts.is_undecided else []

    @property
    def disk_trouble(self) -> DiskTrouble | None:
        """Why this server takes no part at present (Departures 44 and 45); None: its disk works."""
        return self.facts.disk_trouble

    def waiting(self, client_id: str) -> list[int]:
        """The numbers of a session's commands that wait in an application, as a LOCK does while the lock is taken."""
        session = self.machine.sessions.get(client_id)
        return [] if session is None else sorted(session.waiting)

    def has_session(self, client_id: str) -> bool:
        """Whether the cluster has an open session of this client, as far as this server has executed."""
        return self.machine.has_session(client_id)

    def watch_places(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called whenever other servers belong to the cluster, or clients reach one elsewhere. Returns a
        function that ends this."""
        watch = object()
        self._on_places[watch] = changed

        def end() -> None:
            del self._on_places[watch]

        return end

    def places(self) -> dict[int, str]:
        """Id -> where clients reach the server, for the servers of the cluster of which this is known, and for this
        one, also if it is none of them: by its own address clients see that they reach the others as this one does."""
        found = {i: self.facts.place_of(i) for i in sorted({*self.facts.membership.ids, self.server_id})}
        return {i: place for i, place in found.items() if place}

    def memory_is_short(self, is_short: bool) -> None:
        """Called with True when the process has come near the limit of its memory: from then on commands that may make
        the state larger are refused, and few sessions are opened. Called with False when enough memory is free
        again."""
        self.local_clients.submission.memory_is_short(is_short)

    def read_snapshot(self, name: SnapshotName, offset: int, bytes_max: int, found: Callable[[bytes], None]) -> None:
        """Read bytes of a snapshot of this server; see `IStableStorage.read_snapshot`."""
        self._storage.read_snapshot(name, offset, bytes_max, found)

    def deadline(self) -> float:
        """The time, by the server's clock in seconds, at which a request that comes now must have its answer."""
        return self._clock.seconds() + self.config.limits.request_seconds

    def digest(self, seq: int | None, answer: Answer, until: float | None = None) -> None:
        """Answer DIGEST: the digest of the history up to slot `seq`, when this server has executed that slot; `seq`
        None stands for the last slot that is executed now.

        The question is refused if the slot is not executed at the time `until`; None: at the time that `deadline`
        returns now. A caller that has kept a question waiting passes the `deadline` of the moment at which it came.
        Questions that are never answered would keep other clients from being served.
        """
        self.replica.perform(self._ask_digest, seq, self.deadline() if until is None else until, answer)

    def _ask_digest(self, seq: int | None, until: float, answer: Answer) -> None:
        aru = self.replica.data.ordering.local_aru
        if len(self._digests_asked) >= DIGESTS_ASKED_MAX:
            oldest = self._digests_asked.pop(0)
            self.replica.turn.refuse(oldest.answer, Refused("BUSY", "too many wait for digests of slots still to come"))
        self._digests_asked.append(_DigestAsked(aru if seq is None else seq, answer, until))

    def _after_answers(self) -> None:
        """Called at the end of each turn, when all answers of that turn are in the outbox.

        Notes which revision this server has come to, for the clients that wait for one; orders this server's abilities
        if they are not ordered yet (ANNOUNCE); and answers the DIGEST questions whose slots are executed.
        """
        self.revisions.note()
        self.changes.answer_in_force()
        if self._is_removed_now:
            self._is_removed_now = False
            self.local_clients.refuse_all(REMOVED_UNDER_WAY, REMOVED_NOT_SENT)
        if self.machine.settings.places_changed != self._places_told:
            self._places_told = self.machine.settings.places_changed
            for changed in [*self._on_places.values()]:
                changed()
        if not self.settings.is_announced:
            self.settings.announce(self.local_clients.submission)
        if self._digests_asked:
            self._answer_digests()

    def _answer_digests(self) -> None:
        aru = self.replica.data.ordering.local_aru
        waiting, self._digests_asked = self._digests_asked, []
        for asked in waiting:
            if asked.seq > aru and self._clock.seconds() < asked.until:
                self._digests_asked.append(asked)
            elif asked.seq > aru:
                text = f"this server has executed slots up to {aru} so far, and not slot {asked.seq} in time"
                self.replica.turn.refuse(asked.answer, Refused("UNAVAILABLE", text))
            else:
                self._answer_digest(asked)

    def _answer_digest(self, asked: _DigestAsked) -> None:
        digest = self.replica.ordered_queue.digests.at(asked.seq)
        begin = self.replica.ordered_queue.digests.begin
        if digest is None and asked.seq < begin:
            text = f"slot {asked.seq} is below the snapshot of slot {begin}, from which this server has started"
            self._answer(asked.answer, Refused("COMPACTED", text))
        elif digest is None:
            kept = self.replica.settings.digests_kept
            refused = Refused("NOTFOUND", f"the digest of {asked.seq} is not kept: only the last {kept} are")
            self._answer(asked.answer, refused)
        else:
            self._answer(asked.answer, Done((("seq", asked.seq), ("digest", Word(digest.hex())))))

    def _answer(self, answer: Answer, result: Result) -> None:
        self.replica.turn.answer(lambda results: answer(results[0]), [result], HANGING.question)

    # ------------------------------------------------------------------ looking in

    def leader(self) -> int | None:
        """The id of the leader, as far as this server knows; None during an election."""
        return self.facts.leader

    def status(self) -> dict[str, object]:
        """The answer to STATUS (docs/operating.rst)."""
        return status(self.facts)

    def servers(self) -> list[Fields]:
        """The rows of the answer to SERVERS: all that this server knows about each server of the cluster."""
        return server_rows(self.facts)
