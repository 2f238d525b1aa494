"""One server below its sockets: storage, protocol, sessions and applications, put together.

The service gives it a reactor, UDP and SQLite; the simulator a clock, a network and a disk of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb import __version__
from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import Answer, Done, Event, Fields, Refused, Word
from pfsb.config.config import Config
from pfsb.paxos.interfaces import IStableStorage, ITracer, ITransport
from pfsb.paxos.messages import State
from pfsb.paxos.replica import Replica
from pfsb.sessions.command_counts import CommandCounts
from pfsb.sessions.expiry import Expiry
from pfsb.sessions.local_clients import LocalClients
from pfsb.sessions.revision_waiters import RevisionWaiters
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.sessions.subscription import Subscription
from pfsb.storage.shared import StorageCounters
from pfsb.transports.faults import LinkFaults
from pfsb.transports.links import TransportCounters

DRAIN_SECONDS = 5.0
"""How long a stopping server waits for what is under way."""
DRAIN_LOOK_SECONDS = 0.05
DIGESTS_ASKED_MAX = 1_000
"""How many DIGESTs of slots still to come may wait."""


@define(eq=False)
class _DigestAsked:
    seq: int
    answer: Answer


class Server:
    """Everything of one server that does not touch a socket."""

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
        tracer: ITracer | None = None,
    ) -> None:
        self.config = config
        self.server_id = server_id
        self.catalogue = catalogue
        self.faults = faults
        self._clock = clock
        self._storage = storage
        self._counters = counters
        self._storage_counters = storage_counters
        settings = config.settings()
        self.machine = SessionStateMachine(server_id, catalogue, config.limits.session_window, settings.horizon_slots)
        self.replica = Replica(
            server_id=server_id,
            servers=config.ids,
            settings=settings,
            clock=clock,
            rng=rng,
            storage=storage,
            transport=transport,
            state_machine=self.machine,
            on_failure=on_failure,
            tracer=tracer,
        )
        self._digests_asked: list[_DigestAsked] = []
        self._started_at = clock.seconds()
        self.local_clients: LocalClients
        self.revisions: RevisionWaiters
        self._expiry: Expiry

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Recover from disk, join the others. Clients may come when this has returned.

        Raises `StorageRefused`, or whatever the transport raises when it cannot listen.
        """
        self.replica.start()
        self.local_clients = LocalClients(
            self.server_id,
            self.replica.data.server.incarnation,
            self.replica,
            self.machine,
            self._clock,
            self.config.limits,
        )
        self.machine.counts = CommandCounts()
        self.revisions = RevisionWaiters(self.machine, self.replica.turn, self._clock)
        self._expiry = Expiry(self.server_id, self.replica, self.machine, self.local_clients.submission, self._clock)
        self.replica.turn.at_end.append(self._answer_digests)

    def drain(self, drained: Callable[[], None]) -> None:
        """Take no more commands; call back when those under way are answered, or `DRAIN_SECONDS` have gone."""
        self.local_clients.draining = True
        deadline = self._clock.seconds() + DRAIN_SECONDS

        def look() -> None:
            if (self.local_clients.idle and self.replica.turn.idle) or self._clock.seconds() >= deadline:
                drained()
            else:
                self._clock.callLater(DRAIN_LOOK_SECONDS, look)

        look()

    def stop(self) -> Any:
        """Stop at once; what is on disk is whole. Returns None or a Deferred."""
        self._expiry.stop()
        self.local_clients.close()
        stopped = self.replica.stop()
        self._storage.close()
        return stopped

    # ------------------------------------------------------------------ for the front ends

    @property
    def skip(self) -> set[int]:
        """Sequence numbers that this server, as leader, leaves out (FAULT SKIP)."""
        return self.replica.proposals.skipped

    @property
    def view(self) -> int:
        return self.replica.data.views.last_installed

    def leader(self) -> int | None:
        """Who leads, as far as this server knows."""
        if self.view == 0 or self.replica.data.server.state is State.LEADER_ELECTION:
            return None
        return self.replica.membership.leader_of(self.view)

    def waiting(self, client_id: str) -> list[int]:
        """The command numbers of a session whose answer is still to come (LOCK)."""
        session = self.machine.sessions.get(client_id)
        return [] if session is None else sorted(session.waiting)

    def subscribe(
        self, verb: str, first: int, deliver: Callable[[Event], None], *, is_patient: bool = False
    ) -> Subscription:
        """An application's events from number `first` on, or only what is to come (0); see `EventFeed.subscribe`."""
        return self.local_clients.subscribe(verb, first, deliver, is_patient=is_patient)

    def digest(self, seq: int | None, answer: Answer) -> None:
        """DIGEST: waits until this server has executed `seq`."""
        self.replica.perform(self._ask_digest, seq, answer)

    def _ask_digest(self, seq: int | None, answer: Answer) -> None:
        aru = self.replica.data.ordering.local_aru
        if len(self._digests_asked) >= DIGESTS_ASKED_MAX:
            oldest = self._digests_asked.pop(0)
            self.replica.turn.call(oldest.answer, Refused("BUSY", "too many wait for digests of slots still to come"))
        self._digests_asked.append(_DigestAsked(aru if seq is None else seq, answer))

    def _answer_digests(self) -> None:
        if not self._digests_asked:
            return
        aru = self.replica.data.ordering.local_aru
        waiting, self._digests_asked = self._digests_asked, []
        for asked in waiting:
            if asked.seq > aru:
                self._digests_asked.append(asked)
            else:
                self._answer_digest(asked)

    def _answer_digest(self, asked: _DigestAsked) -> None:
        digest = self.replica.ordered_queue.digests.at(asked.seq)
        if digest is None:
            kept = self.replica.settings.digests_kept
            refused = Refused("NOTFOUND", f"the digest of {asked.seq} is not kept: only the last {kept} are")
            self.replica.turn.call(asked.answer, refused)
        else:
            self.replica.turn.call(asked.answer, Done((("seq", asked.seq), ("digest", Word(digest.hex())))))

    # ------------------------------------------------------------------ looking in

    def status(self) -> dict[str, object]:
        """Interface part 4."""
        data, replica = self.replica.data, self.replica
        batches = replica.proposals.batch_bytes
        return {
            "cluster": self.config.cluster,
            "server": self.server_id,
            "version": __version__,
            "state": data.server.state.value,
            "view": data.views.last_installed,
            "attempted": data.views.last_attempted,
            "leader": self.leader(),
            "n": self.config.n,
            "quorum": self.config.quorum,
            "tolerates": (self.config.n - 1) // 2,
            "aru": data.ordering.local_aru,
            "last_ordered": self._last_ordered(),
            "revision": self.machine.revision,
            "sessions": len(self.machine.sessions),
            "connections": self.local_clients.connections,
            "pending": len(data.clients.pending_updates),
            "queued": len(data.clients.update_queue),
            "compacted": 0,
            "snapshot": 0,
            "digest": replica.ordered_queue.digests.head.hex(),
            "uptime": round(self._clock.seconds() - self._started_at, 3),
            "transport": self.config.transport,
            "apps": [application.name for application in self.catalogue.applications],
            "peers": dict(self._peers()),
            "incarnation": data.server.incarnation,
            "turns": replica.turn.count,
            "updates": self.machine.updates,
            "proposed": {"count": batches.count, "bytes": batches.sum},
            "discarded": replica.discarded,
            "frames": self._frames(),
            "storage": self._groups(),
        }

    def servers(self) -> list[Fields]:
        """The rows of SERVERS: what this server knows of each."""
        return [self._server_row(server_id) for server_id in self.config.ids]

    def _server_row(self, server_id: int) -> Fields:
        data = self.replica.data
        if server_id == self.server_id:
            state, aru, alive = data.server.state, data.ordering.local_aru, True
        else:
            peer = self.replica.flow_control.peers[server_id]
            state, aru = peer.state, peer.local_aru
            alive = self.replica.flow_control.heard_lately(server_id)
        host, port = self.config.server(server_id).peer
        return (
            ("id", server_id),
            ("state", Word(state.value)),
            ("aru", aru),
            ("alive", Word("yes" if alive else "no")),
            ("address", f"{host}:{port}"),
        )

    def _peers(self) -> Iterator[tuple[str, dict[str, object]]]:
        now = self._clock.seconds()
        for server_id, peer in self.replica.flow_control.peers.items():
            heard = peer.last_heard >= 0
            yield (
                str(server_id),
                {
                    "aru": peer.local_aru,
                    "alive": self.replica.flow_control.heard_lately(server_id),
                    "last_heard": round(now - peer.last_heard, 3) if heard else None,
                    "state": peer.state.value,
                    "view": peer.view,
                },
            )

    def _last_ordered(self) -> int:
        ordering = self.replica.data.ordering
        ordered = (seq for seq, slot in ordering.global_history.above(ordering.local_aru) if slot.ordered is not None)
        return max(ordered, default=ordering.local_aru)

    def _frames(self) -> dict[str, object]:
        counters = self._counters
        if counters is None:
            return {}
        return {
            "in": counters.frames_in,
            "out": counters.frames_out,
            "refused": dict(counters.refused),
            "lost_by_fault": counters.lost_by_fault,
            "send_errors": counters.send_errors,
        }

    def _groups(self) -> dict[str, object]:
        counters = self._storage_counters
        if counters is None:
            return {}
        return {
            "groups": counters.groups,
            "records": counters.records,
            "batch_bytes": counters.batch_bytes,
            "slow_groups": counters.slow_groups,
            "max_write_seconds": round(counters.max_write_seconds, 6),
        }
