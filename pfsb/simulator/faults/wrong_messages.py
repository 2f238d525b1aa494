"""Messages that are well-formed and wrong, as a server in error may send them.

The numbers in them are impossible, or their content is not valid, or they are late, early or repeated without end. None
of them is a lie on which safety rests: no false vote for something that could be proposed, no promise that leaves out a
slot, no false content of an ordered slot. A protocol that trusts its servers has no defence against such lies, and can
only notice them. The messages made here must do less harm: a server that gets them must stay correct, and serve its
clients when the messages have ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from attrs import evolve

from pfsb.paxos.messages import (
    DIGEST_BYTES,
    Accept,
    Acquainted,
    Alive,
    Batch,
    ClientUpdate,
    Confirm,
    Confirmed,
    GloballyOrderedUpdate,
    HandOver,
    HandOverReason,
    Heard,
    KnownPosition,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
    Stranger,
    VCProof,
    ViewChange,
)
from pfsb.paxos.plausibility import VIEW_STEP_MAX
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import SNAPSHOT_DIGEST_BYTES, SnapshotName
from pfsb.sessions import bundle
from pfsb.support.limits import IDENTITY_BYTES, NUMBER_MAX, SERVER_ID_MAX, SLOT_MAX, VIEW_MAX

NO_OP: Final = Batch.of(0, ())
REPEATED_MAX: Final = 60
"""Maximum number of copies of a request in one frame."""
VALID_PAYLOAD: Final = bundle.encode(
    [bundle.encode_bundle(bundle.encode_head("~wrong", 0, True), 1, [bundle.encode_entries([(1, ("SAY", "wrong"))])])]
)
ASIDE: Final = VIEW_STEP_MAX // 2
"""How many views, at least, a wrong vote for one of the next slots is above the view that the receiver has attempted.

No run comes to such a view. So no leader proposes anything in it, and no proposal gets a false vote.
"""


class WrongMessages:
    """Makes the messages that one server in error sends to one receiver.

    Some are made to fit the receiver's present state.
    """

    def __init__(self, sender: int, receiver: Replica, rng: random.Random) -> None:
        self._sender = sender
        self._receiver = receiver
        self._rng = rng

    def draw(self) -> list[Message]:
        """Draw the wrong messages for one frame, all of one kind."""
        makers: list[Callable[[], list[Message]]] = [
            self._arus,
            self._views,
            self._votes,
            self._ordered,
            self._proposals,
            self._promises,
            self._bursts,
            self._requests,
            self._updates,
            self._reads,
            self._identities,
        ]
        if self._receiver.membership.leader_tells:
            makers.append(self._told)
        if self._receiver.settings.snapshot_slots:
            makers += [self._snapshot_offers, self._snapshot_requests, self._snapshot_parts]
        if self._receiver.settings.priority:
            makers.append(self._hand_overs)
        return self._rng.choice(makers)()

    # ------------------------------------------------------------------ numbers and contents

    @property
    def _aru(self) -> int:
        return self._receiver.data.ordering.local_aru

    def _far_slot(self) -> int:
        return self._rng.choice((self._aru + 20_000, 2**31, 2**40, SLOT_MAX, SLOT_MAX + 1, NUMBER_MAX))

    def _next_slot(self) -> int:
        return self._aru + self._rng.randint(1, 3)

    def _view(self) -> int:
        """Draw a view that is a little or much higher than the view that the receiver has attempted, or lower by 1."""
        now = self._receiver.data.views.last_attempted
        near = now + self._rng.choice((1, 2, 7, 100))
        far = self._rng.choice((now + VIEW_STEP_MAX + 1, VIEW_MAX, VIEW_MAX + 1, NUMBER_MAX))
        return max(1, self._rng.choice((near, far, far, now - 1)))

    def _invalid_update(self) -> ClientUpdate:
        """An update that cannot be executed, or that no client of the named server can have asked for."""
        me, aru = self._sender, self._aru
        number = self._rng.randint(1, NUMBER_MAX)
        junk = self._rng.choice((b"", b"\xc1", b"\x90", b"\x91\x90", self._rng.randbytes(20)))
        stranger = self._rng.choice([i for i in (SERVER_ID_MAX, 4_711) if i not in self._receiver.membership.ids])
        return self._rng.choice(
            (
                ClientUpdate(f"{me}.1.1", me, number, aru, junk),
                ClientUpdate("nobody", me, 1, aru, junk),
                ClientUpdate(f"{stranger}.1.1", stranger, 1, aru, b"\x90"),
            )
        )

    def _invalid_batch(self) -> Batch:
        return Batch.of(0, [self._invalid_update()])

    # ------------------------------------------------------------------ kinds

    def _arus(self) -> list[Message]:
        views = self._receiver.data.views
        state = self._rng.choice(list(State))
        view = self._rng.choice((0, views.last_installed, self._view()))
        return [Alive(self._sender, view, state, self._rng.choice((0, self._far_slot())), self._rng.random() < 0.5)]

    def _views(self) -> list[Message]:
        view = self._view()
        return [self._rng.choice((ViewChange(self._sender, view), VCProof(self._sender, view)))]

    def _votes(self) -> list[Message]:
        """ACCEPTs for slots far away, or for many views that are never attempted."""
        if self._rng.random() < 0.5:
            first = self._far_slot() - 200
            return [Accept(self._sender, self._view(), tuple(range(first, first + 200)), bytes(200 * DIGEST_BYTES))]
        first = self._receiver.data.views.last_attempted + ASIDE
        return [
            Accept(self._sender, view, (self._next_slot(),), bytes(DIGEST_BYTES)) for view in range(first, first + 40)
        ]

    def _told(self) -> list[Message]:
        """An ORDERED that must have no effect: of a server that does not lead its view, of a view that is over, with a
        digest that no batch has, or for views that are never attempted and slots far away.

        If the receiver holds a proposal, the ORDERED names the slot of it, and often its batch. An ORDERED in the name
        of the leader of a view that is not over, for a batch of that view, is never drawn: if the batch is not ordered,
        it would be a lie on which safety rests, as a false vote is.
        """
        data, membership = self._receiver.data, self._receiver.membership
        installed = data.views.last_installed
        above = data.ordering.global_history.above(self._aru)
        held = [slot.proposal for _, slot in above if slot.proposal is not None]
        named = self._rng.choice(held) if held else None
        seq = self._next_slot() if named is None else named.seq
        views = range(installed + ASIDE, installed + ASIDE + membership.n)
        leads = next((view for view in views if self._leads(view)), views[0])  # a server that votes no more leads none
        wrong = [
            Ordered(self._sender, leads, (seq,), self._rng.randbytes(DIGEST_BYTES)),
            Ordered(self._sender, leads, (self._far_slot(),), self._rng.randbytes(DIGEST_BYTES)),
            Ordered(self._sender, max(installed, 1), (seq,), self._rng.randbytes(DIGEST_BYTES)),
        ]
        if named is not None:
            wrong.append(Ordered(self._sender, leads, (seq,), named.batch.digest))
            if named.view < installed or not self._leads(named.view):
                wrong += 3 * [Ordered(self._sender, named.view, (seq,), named.batch.digest)]
        return [self._rng.choice(wrong)]

    def _leads(self, view: int) -> bool:
        return self._receiver.membership.leader_of(view) == self._sender

    def _ordered(self) -> list[Message]:
        wrong = self._rng.choice(((self._far_slot(), NO_OP), (self._next_slot(), self._invalid_batch())))
        return [GloballyOrderedUpdate(self._sender, *wrong)]

    def _proposals(self) -> list[Message]:
        """A PROPOSAL as if the sender led the receiver's view: of an invalid batch, or for a slot far away."""
        view = self._receiver.data.views.last_installed
        invalid = Proposal(self._sender, max(view, 1), self._next_slot(), self._invalid_batch())
        return [self._rng.choice((invalid, invalid, Proposal(self._sender, max(view, 1), self._far_slot(), NO_OP)))]

    def _promises(self) -> list[Message]:
        """A PREPARE of a far view, or a PREPARE_OK with impossible contents."""
        view = self._receiver.data.views.last_attempted
        entries = (Proposal(self._sender, 1, self._next_slot(), self._invalid_batch()),)
        far = (GloballyOrderedUpdate(self._sender, self._far_slot(), NO_OP),)
        return [
            self._rng.choice(
                (
                    Prepare(self._sender, view + VIEW_STEP_MAX + 1, 0),
                    PrepareOK(self._sender, view, entries),
                    PrepareOK(self._sender, view, far),
                    PrepareOK(self._sender, view, (), 1, 10_000, NUMBER_MAX),
                )
            )
        ]

    def _bursts(self) -> list[Message]:
        seq = self._next_slot()
        return [
            self._rng.choice(
                (
                    ReconciliationReply(self._sender, self._far_slot(), self._far_slot()),
                    ReconciliationReply(self._sender, 1, 0),
                    ReconciliationReply(
                        self._sender, seq, seq, (GloballyOrderedUpdate(self._sender, seq, self._invalid_batch()),)
                    ),
                )
            )
        ]

    def _requests(self) -> list[Message]:
        copies = self._rng.randint(1, REPEATED_MAX)
        first = self._rng.choice((1, self._next_slot(), NUMBER_MAX))
        request = ReconciliationRequest(self._sender, first, NUMBER_MAX)
        prepare = Prepare(self._sender, max(1, self._receiver.data.views.last_installed), SLOT_MAX + 1)
        return [self._rng.choice((request, prepare))] * copies

    def _snapshot_name(self) -> SnapshotName:
        """The name of a snapshot that no server has, of a slot that may be executed soon or never."""
        seq = self._rng.choice((max(1, self._aru - 3), self._next_slot(), self._aru + 100, self._far_slot()))
        size = self._rng.choice((1, 44, 1_000, 2**40, 2**40 + 1, NUMBER_MAX))
        return SnapshotName(seq, size, self._rng.randbytes(SNAPSHOT_DIGEST_BYTES))

    def _known_snapshot(self) -> SnapshotName:
        """The name of the snapshot that the receiver fetches or has, if there is one; otherwise of one that no server
        has."""
        fetch = self._receiver.snapshot_fetcher.fetch
        known = self._receiver.storage.snapshot if fetch is None else fetch.name
        return known or self._snapshot_name()

    def _snapshot_offers(self) -> list[Message]:
        """A SNAPSHOT_OFFER of a snapshot that no server has, perhaps of the slot of the one that is being fetched."""
        name = self._snapshot_name()
        if self._rng.random() < 0.3:
            name = evolve(self._known_snapshot(), digest=name.digest)
        aru = self._rng.choice((0, name.seq, min(name.seq + 5, NUMBER_MAX), SLOT_MAX))
        return [SnapshotOffer(self._sender, aru, name)]

    def _snapshot_requests(self) -> list[Message]:
        """SNAPSHOT_REQUESTs without end, or for bytes that no snapshot has."""
        copies = self._rng.randint(1, REPEATED_MAX)
        name = self._rng.choice((self._snapshot_name(), self._known_snapshot()))
        offset = self._rng.choice((0, name.size - 1, name.size, NUMBER_MAX))
        return [SnapshotRequest(self._sender, name, offset, self._rng.choice((1, 1_000, NUMBER_MAX)))] * copies

    def _snapshot_parts(self) -> list[Message]:
        """A SNAPSHOT_PART of what is being fetched with wrong bytes, at a wrong place, or without bytes."""
        fetch, name = self._receiver.snapshot_fetcher.fetch, self._known_snapshot()
        offset, size = self._rng.choice(((0, 1), (max(0, name.size - 7), 7), (NUMBER_MAX, 1_000)))
        if fetch is not None and fetch.lacking:
            offset, size = fetch.bounds(self._rng.choice(list(fetch.missing())))
        wrong = self._rng.choice((self._rng.randbytes(min(size, 50_000)), self._rng.randbytes(1), b""))
        return [SnapshotPart(self._sender, name, offset, wrong)]

    def _updates(self) -> list[Message]:
        """Updates that are not valid, or whose `made_at` is far in the future, or that name the receiver as their own
        server."""
        me, other, name = self._sender, self._receiver.data.server.server_id, self._rng.randrange(10**9)
        future = ClientUpdate(f"{me}.0.{name}", me, 1, self._aru + self._rng.choice((1_000, 2**40)), VALID_PAYLOAD)
        not_ours = ClientUpdate(f"{other}.0.{name}", other, 1, self._aru, VALID_PAYLOAD)
        wrong = (self._invalid_update(), future, not_ours)
        return [self._rng.choice(wrong) for _ in range(self._rng.choice((1, 20)))]

    def _reads(self) -> list[Message]:
        view, number = self._view(), self._rng.choice((0, NUMBER_MAX))
        return [
            self._rng.choice(
                (
                    Confirm(self._sender, view, number),
                    Confirmed(self._sender, view, number),
                    ReadRequest(self._sender, number),
                    ReadIndex(self._sender, number, self._far_slot()),
                )
            )
        ]

    def _hand_overs(self) -> list[Message]:
        """HAND_OVERs of the receiver's view or another one, to a view that is near or far."""
        view = self._rng.choice((max(1, self._receiver.data.views.last_installed), self._view()))
        later = self._rng.choice((min(view + self._rng.randint(1, 5), NUMBER_MAX), self._view()))
        return [HandOver(self._sender, view, later, self._rng.choice(list(HandOverReason)))]

    def _identities(self) -> list[Message]:
        identity = self._rng.randbytes(IDENTITY_BYTES)
        kind = self._rng.choice((Acquainted, Heard, Stranger))
        if kind is Stranger and self._rng.random() < 0.5:
            return [self._known_position(identity)]
        return [kind(self._sender, identity)]

    def _known_position(self, identity: bytes) -> KnownPosition:
        """A KNOWN_POSITION, which says in which state its sender knows the receiver's storage: about another storage,
        or about the present state of the receiver's own storage.

        Of the receiver's own storage the message never names a later incarnation, nor more groups than its disk has:
        messages that do so, repeated often enough, would rightly stop the receiver.
        """
        if self._rng.random() < 0.5:
            return KnownPosition(self._sender, identity, self._rng.choice((0, NUMBER_MAX)), NUMBER_MAX)
        own = self._receiver
        start, position = own.log_positions.start, own.storage.position
        return KnownPosition(self._sender, own.data.server.storage_identity, start, position)
