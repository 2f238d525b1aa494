"""Defects of servers whose membership changes (Departure 60)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve

from pfsb.membership_changes import MembershipChanges
from pfsb.paxos.data_structures import GlobalHistory
from pfsb.paxos.members import Members, decode_members, encode_members
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import GloballyOrderedUpdate, PrepareOK, ReconciliationReply, SnapshotOffer
from pfsb.paxos.records import EpochRecord, Record
from pfsb.sessions.ordered_settings import OrderedSettings
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override

DEFECTS = Defects(needs_sessions=True, needs_changing_members=True)


class _KeepsAll(GlobalHistory):
    """A history that keeps the slots above a change."""

    __slots__ = ()

    def cut_above(self, seq: int) -> None:
        """Keep all."""


@DEFECTS.add(
    "void-slots-kept",
    "Departure 60",
    "a server keeps what the former epoch has ordered above a change",
)
def _void_slots_kept(process: Any) -> None:
    become(process.replica.data.ordering.global_history, _KeepsAll)


@DEFECTS.add(
    "epoch-not-forced", "Departure 60", "a server acts in an epoch of the membership before the epoch is on its disk"
)
def _epoch_not_forced(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.turn, "append")
    def broken(append: Callable[..., None], record: Record, **how: Any) -> None:
        if isinstance(record, EpochRecord):
            process.clock.callLater(0.05, replica.perform, lambda: append(record, **how))
        else:
            append(record, **how)


@DEFECTS.add(
    "other-epochs-count", "Departure 60", "a server handles all messages of other epochs of the membership as its own"
)
def _other_epochs_count(process: Any) -> None:
    override(process.replica.epochs, "line_against", lambda _: lambda message, sender, epoch: None)


@DEFECTS.add(
    "no-snapshot-before-admission",
    "Departure 60",
    "a voter that is not admitted yet takes no snapshot, though those that could admit it may be gone",
)
def _no_snapshot_before_admission(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.snapshot_fetcher, "on_snapshot_offer")
    def broken(on_snapshot_offer: Callable[[SnapshotOffer], None], message: SnapshotOffer) -> None:
        votes = replica.data.server.server_id in replica.membership.voters
        if not (votes and replica.storage_identity.is_newcomer):
            on_snapshot_offer(message)


@DEFECTS.add(
    "strangers-not-asked",
    "Departure 60",
    "a server all of whose peers were replaced asks none of those that have taken their places",
)
def _strangers_not_asked(process: Any) -> None:
    override(process.replica.reconciliation, "ask_stranger", lambda _: do_nothing)


class _CountsAll(Membership):
    """Members of which all count for a majority, whether they vote or not."""

    __slots__ = ()

    def is_majority(self, server_ids: Iterable[int]) -> bool:
        return len({*server_ids}) >= self.quorum

    def lacking(self, server_ids: Iterable[int]) -> int:
        return max(0, self.quorum - len({*server_ids}))


def _votes_as_learner(process: Any) -> None:
    identity, replica = process.replica.storage_identity, process.replica

    @instead_of(identity, "begin_epoch")
    def broken(begin_epoch: Callable[[], None]) -> None:
        begin_epoch()
        if replica.data.server.server_id in replica.membership.members.learners:
            identity.is_newcomer = False
            replica.take_part()


@DEFECTS.add("learner-votes", "Departure 60", "a server that learns votes as well")
def _learner_votes(process: Any) -> None:
    _votes_as_learner(process)


@DEFECTS.add("learner-counts", "Departure 60", "a server that learns votes, and the others count its votes")
def _learner_counts(process: Any) -> None:
    become(process.replica.membership, _CountsAll)
    _votes_as_learner(process)


class _ForgetsStorages(Membership):
    """Members whose storages a change does not tell."""

    __slots__ = ()

    def enter(self, members: Members) -> None:
        known = dict(self.identities)
        super().enter(members)
        self.identities = known


@DEFECTS.add(
    "storages-not-followed", "Departure 60", "a server takes any storage for that of a voter which a change has named"
)
def _storages_not_followed(process: Any) -> None:
    become(process.replica.membership, _ForgetsStorages)


@DEFECTS.add(
    "two-changes-of-one-epoch", "Departure 60", "a change that was made for an epoch which is over is executed"
)
def _two_changes_of_one_epoch(process: Any) -> None:
    settings: OrderedSettings = process.server.machine.settings

    @instead_of(settings, "change_members")
    def broken(change_members: Callable[..., Any], seq: int, data: object) -> Any:
        following = decode_members(data)  # type: ignore[arg-type]
        return change_members(seq, encode_members(evolve(following, epoch=settings.members.epoch + 1)))


@DEFECTS.add("epoch-not-filled", "Departure 60", "the first leader of an epoch does not fill its first slot by itself")
def _epoch_not_filled(process: Any) -> None:
    epochs = process.replica.epochs

    @instead_of(epochs, "fill")
    def broken(fill: Callable[[], None]) -> None:
        epochs.is_to_fill = False


@DEFECTS.add("epoch-begins-with-election", "Departure 60", "the named server does not lead the first view of an epoch")
def _epoch_begins_with_election(process: Any) -> None:
    epochs = process.replica.epochs

    @instead_of(epochs, "begin")
    def broken(begin: Callable[..., None], members: Members, *, by_snapshot: bool = False) -> None:
        begin(members, by_snapshot=True)


@DEFECTS.add("late-servers-not-told", "Departure 60", "servers of an earlier epoch are not told of a later one")
def _late_servers_not_told(process: Any) -> None:
    override(process.replica.epochs, "tell", lambda _: do_nothing)


class _NeverLooks(MembershipChanges):
    """Changes of a server that lets no other one vote."""

    __slots__ = ()

    def look(self) -> None:
        """Look at no server that learns."""


@DEFECTS.add("learner-is-forgotten", "Departure 60", "no leader lets a server vote that has learned enough")
def _learner_is_forgotten(process: Any) -> None:
    become(process.server.changes, _NeverLooks)


@DEFECTS.add(
    "window-closed-over-change",
    "Departure 60",
    "a leader whose hand-over is ended by a change of the membership proposes nothing until the hand-over notices",
)
def _window_closed_over_change(process: Any) -> None:
    override(process.replica.hand_over, "begin_epoch", lambda _: do_nothing)


@DEFECTS.add("change-not-brought", "Departure 60", "a server that begins an epoch sends the change to no other")
def _change_not_brought(process: Any) -> None:
    override(process.replica.reconciliation, "bring", lambda _: do_nothing)


@DEFECTS.add(
    "change-on-full-disk",
    "Departure 60",
    "a server whose disk is full executes a change of the membership all the same",
)
def _change_on_full_disk(process: Any) -> None:
    process.replica.ordered_queue.may_hold_change = lambda batch: False


@DEFECTS.add(
    "list-goes-on-past-change",
    "Departure 60",
    "a server applies the rest of a promise or a reply, after a change in it, to the epoch that the change begins",
)
def _list_goes_on_past_change(process: Any) -> None:
    replica = process.replica

    def apply_rest(entries: Iterable[object]) -> None:
        for entry in entries:
            if isinstance(entry, GloballyOrderedUpdate) and entry.seq > replica.data.ordering.local_aru:
                replica.ordering.on_globally_ordered_update(entry)

    @instead_of(replica.prepare, "on_prepare_ok")
    def promised(on_prepare_ok: Callable[..., bool], message: PrepareOK) -> bool:
        members = replica.membership.members
        is_new = on_prepare_ok(message)
        if replica.membership.members is not members:
            apply_rest(message.data_list)
        return is_new

    @instead_of(replica.reconciliation, "on_reconciliation_reply")
    def replied(on_reply: Callable[..., None], message: ReconciliationReply, epoch: int = 0) -> None:
        members = replica.membership.members
        on_reply(message, epoch)
        if replica.membership.members is not members:
            apply_rest(message.updates)


@DEFECTS.add(
    "enqueued-kept-over-change",
    "Departure 60",
    "a leader that leads on in the next epoch takes updates of void slots for ones that it has proposed",
)
def _enqueued_kept_over_change(process: Any) -> None:
    clients, epochs = process.replica.data.clients, process.replica.epochs

    @instead_of(epochs, "begin")
    def broken(begin: Callable[..., None], members: Members, *, by_snapshot: bool = False) -> None:
        before = dict(clients.last_enqueued)
        begin(members, by_snapshot=by_snapshot)
        if epochs.is_to_fill:
            clients.last_enqueued.update(before)


@DEFECTS.add(
    "first-view-led-twice", "Departure 60", "the first leader of an epoch leads the first view again after a restart"
)
def _first_view_led_twice(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.election, "shift_to_leader_election")
    def broken(shift: Callable[[int], None], view: int) -> None:
        first_view, views = replica.membership.members.first_view, replica.data.views
        leads = (
            replica.membership.epoch and views.last_installed == first_view and replica.membership.i_lead(first_view)
        )
        if leads and replica.election.just_recovered and view == first_view + 1:
            replica.prepare.shift_to_reg_leader()
        else:
            shift(view)


@DEFECTS.add(
    "snapshot-takes-view-back", "Departure 60", "a snapshot of the present epoch takes a server back to its first view"
)
def _snapshot_takes_view_back(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.ordered_queue, "change_members")
    def broken(change_members: Callable[[Members], None], members: Members) -> None:
        change_members(members)
        if members == replica.membership.members:
            views = replica.data.views
            views.last_attempted = views.last_installed = members.first_view
