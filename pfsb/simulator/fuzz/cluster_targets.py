"""Targets that are whole clusters: servers that are told well-formed messages which no correct server has sent.

Each input is one frame body. It comes to one server in a frame with the right tag, in the name of another server. Such
frames may make the cluster slower, but must never stop it: a server that raises, hangs or grows without end is a
finding, and so is a cluster that serves no client afterwards.

In a protocol that trusts its servers, wrong messages of some kinds do harm: votes, promises and ordered content. `LIES`
lists these kinds. The target `messages` leaves them out, and its servers must be equal at the end. The target `lies`
sends messages of all kinds, and its servers may refuse to go on, but only in the ways that are documented.
"""

from __future__ import annotations

from typing import Final

from twisted.python.failure import Failure

from pfsb.paxos.divergence import StateDiverged
from pfsb.paxos.messages import (
    Accept,
    ClientUpdate,
    GloballyOrderedUpdate,
    Message,
    Ordered,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    Stranger,
)
from pfsb.paxos.storage_identity import StorageWasReplaced
from pfsb.service.assembly import frame_identity
from pfsb.simulator.checkers.position_checker import position_of
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.fuzz.frame_targets import EXAMPLES, captured_bodies, changed_body, changed_value
from pfsb.simulator.fuzz.mutation import Mutation, packed, unpacked
from pfsb.simulator.fuzz.small_cluster import SmallCluster
from pfsb.simulator.fuzz.target import Target
from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES, FrameCodec
from pfsb.transports.wire import Malformed, decode_all, encode, encode_any, join_encoded

Row = tuple[object, ...]

SERVERS: Final = 3
FIRST_COMMANDS: Final = 20
"""Number of commands that are sent in each round before the first input, so that there are slots, sessions and locks.
"""
ELECTION_EVERY: Final = 32
"""Mean number of inputs among which one comes while the leader is silenced and the others elect a new leader."""
BEHIND_EVERY: Final = 16
"""Mean number of inputs among which one comes to a server that was left behind, and fetches a snapshot."""
LIES: Final = (Accept, Ordered, PrepareOK, Proposal, GloballyOrderedUpdate, ReconciliationReply, Stranger)
"""Kinds of messages on which safety rests, and STRANGER, which tells its receiver to stop."""


def _rows(body: bytes) -> list[Row]:
    """The messages of a body, as tuples that begin with their kind."""
    rows = unpacked(body)
    return [row for row in rows if isinstance(row, tuple) and row] if isinstance(rows, tuple) else []


_EXAMPLES: Final[dict[object, list[Row]]] = {row[0]: [row] for row in (unpacked(encode_any(each)) for each in EXAMPLES)}
_KINDS: Final = tuple(_EXAMPLES)


class ClusterTarget(Target):
    """A cluster that carries out a client's commands between the inputs. Each input is a changed frame body, which one
    server gets in the name of another server."""

    inputs_per_round = 60
    guided_by = ("pfsb/paxos/", "pfsb/sessions/", "pfsb/applications/")

    def seeds(self) -> list[bytes]:
        return captured_bodies()

    def begin(self, name: str) -> None:
        self.cluster = SmallCluster(name, SERVERS, tolerated=self.tolerates, snapshots=True)
        self.cluster.run_until_led()
        self.cluster.work(FIRST_COMMANDS)
        self._codecs = {i: self._codec(i) for i in self.cluster.servers}

    def tolerates(self, failure: Failure) -> bool:
        """Whether a server may stop itself because of this failure."""
        return False

    def _codec(self, server_id: int) -> FrameCodec:
        """Make a second codec that seals frames in a server's name.

        It numbers its frames from the beginning again. Receivers allow that, since the cluster has no secret.
        """
        disk = self.cluster.disks[server_id]
        identity = frame_identity(self.cluster.config, server_id)
        return FrameCodec(identity, disk.identity, disk.start_number, None, lambda: position_of(disk, server_id))

    def fresh(self) -> list[bytes]:
        return [each.frame[OVERHEAD_BYTES:] for each in self.cluster.frames]

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        """Make an input: one byte, and a frame body.

        The byte says which server sends the body to which, whether an election goes on meanwhile (`ELECTION_EVERY`),
        and whether the receiver was left behind before (`BEHIND_EVERY`). Half of the bodies have one message, of each
        kind equally often; the others are changed frames of the cluster.
        """
        mutation.landmarks = self._landmarks()
        how = bytes([mutation.dice.randrange(256)])
        if mutation.dice.random() < 0.5:
            return how + changed_body(mutation, data, other)
        kind = mutation.dice.choice(_KINDS)
        rows = [row for row in (*_rows(data), *_rows(other)) if row[0] == kind]
        return how + packed((mutation.value(mutation.dice.choice(rows or _EXAMPLES[kind])),))

    def _landmarks(self) -> list[int]:
        """The servers' present views, Local_Arus and times: wrong numbers near these do the most harm."""
        found: set[int] = set()
        for server in self.cluster.servers.values():
            data = server.replica.data
            found |= {
                data.views.last_attempted,
                data.views.last_installed,
                data.ordering.local_aru,
                server.machine.time_ms,
            }
        return sorted(found)

    def run(self, data: bytes) -> None:
        how = data[0] if data else 0
        if how >= 256 - 256 // ELECTION_EVERY:
            self.cluster.silence_leader()
        sender, receiver = self.pair_of(how)
        if how < 256 // BEHIND_EVERY:
            self.cluster.leave_behind(receiver)
            self.cluster.run(self.cluster.dice.choice((0.0, 0.05, 0.3)))
        body = self.taken_out(sender, data[1:])
        if body and len(body) <= FRAME_BYTES_MAX - OVERHEAD_BYTES:
            self._tell(sender, receiver, body)
        self.cluster.work(1)
        self.cluster.silent = set()

    def _tell(self, sender: int, receiver: int, body: bytes) -> None:
        rows = unpacked(body)
        parts = [packed(row) for row in rows] if isinstance(rows, tuple) else []
        for frame in self._codecs[sender].seal([part for part in parts if part]):
            self.cluster.deliver(receiver, frame)

    @staticmethod
    def pair_of(number: int) -> tuple[int, int]:
        """The (sender, receiver) that `number` stands for: two different servers, from 0 to SERVERS - 1."""
        sender, step = number % SERVERS, 1 + number // SERVERS % (SERVERS - 1)
        return sender, (sender + step) % SERVERS

    def taken_out(self, sender: int, body: bytes) -> bytes:
        """The frame body `body`, without the messages that this target never sends to the cluster.

        `sender` is the server in whose name the frame comes. An override returns b"" if no message is left, or if the
        body cannot be decoded. Here nothing is taken out.
        """
        return body

    def end(self) -> None:
        self.cluster.require_service()
        self.cluster.close()

    def drop(self) -> None:
        self.cluster.close()


class MessageTarget(ClusterTarget):
    """A cluster that is told wrong messages, except those on which safety rests (`LIES`)."""

    name = "messages"
    help = "a cluster that is told wrong messages, but no false votes, promises and ordered content"

    def taken_out(self, sender: int, body: bytes) -> bytes:
        try:
            messages = decode_all(sender, body)
        except Malformed:
            return b""
        left = [encode_any(message) for message in messages if not isinstance(message, LIES)]
        return join_encoded(left) if left else b""


class LieTarget(ClusterTarget):
    """A cluster that is told wrong messages of all kinds. A server that notices a lie may stop itself (`tolerates`)."""

    name = "lies"
    help = "a cluster that is told wrong messages of all kinds"

    def tolerates(self, failure: Failure) -> bool:
        """Whether a server may stop itself because of this failure: it has noticed the consequence of a lie.

        It may have noticed two batches with one sequence number (S1), a majority that has executed something else
        (Departure 40), or the message that its storage was replaced.
        """
        return failure.check(StorageWasReplaced, StateDiverged) is not None or "(S1)" in failure.getErrorMessage()

    def end(self) -> None:
        """Close the cluster without asking for service: after a false vote, the servers need neither serve nor be
        equal."""
        self.cluster.close()


class PayloadTarget(ClusterTarget):
    """A cluster that is told updates with any payload: they are ordered, and every server must execute them alike or
    refuse them."""

    name = "payloads"
    help = "a cluster whose clients' updates have any payload"

    def seeds(self) -> list[bytes]:
        updates: list[Message] = [message for body in captured_bodies() for message in decode_all(0, body)]
        payloads = [message.payload for message in (*updates, *EXAMPLES) if isinstance(message, ClientUpdate)]
        return [*dict.fromkeys(payloads)]

    def begin(self, name: str) -> None:
        super().begin(name)
        self._number = 0
        self._views = self._installed()

    def end(self) -> None:
        """Check the service, and that no leader was suspected: an update that a leader cannot propose holds up all
        others until there is another leader."""
        self.cluster.require_service()
        views = self._installed()
        require(views == self._views, f"the cluster has gone from the views {self._views} to {views}")
        self.cluster.close()

    def _installed(self) -> set[int]:
        return {server.replica.data.views.last_installed for server in self.cluster.servers.values()}

    def fresh(self) -> list[bytes]:
        return []

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        return bytes([mutation.dice.randrange(SERVERS)]) + changed_value(mutation, data, other)

    def run(self, data: bytes) -> None:
        self._number += 1
        sender, receiver = self.pair_of(data[0] if data else 0)
        made_at = self.cluster.servers[sender].replica.data.ordering.local_aru
        update = ClientUpdate(f"{sender}.9.{self._number}", sender, 1, made_at, data[1:])
        message = encode(update)
        if len(message) <= FrameCodec.message_bytes_max:
            self._tell(sender, receiver, join_encoded([message]))
        self.cluster.work(1)
        self.cluster.run(0.01)
