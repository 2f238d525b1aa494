"""Defects that hinder progress: of timers, of entering views, of retransmission, and of updates that wait."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from pfsb.paxos.messages import Accept, Alive, Batch, ClientUpdate, Message, Proposal, State, VCProof, ViewChange
from pfsb.paxos.round_trip import RoundTrip
from pfsb.simulator.defects.defect import Defects, do_nothing, instead_of, override

DEFECTS = Defects()

# ---------------------------------------------------------------------------------------------
# The Progress_Timer
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("view-joined-without-timer", "G5, Figure 9 B", "a view is followed without starting the Progress_Timer")
def _view_joined_without_timer(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.prepare, "shift_to_reg_nonleader")
    def broken(shift: Callable[[], None]) -> None:
        was_running = replica.progress_timer.running
        shift()
        if not was_running:
            replica.progress_timer.stop()


@DEFECTS.add("timer-without-cap", "G8", "the Progress_Timer doubles for ever")
def _timer_without_cap(process: Any) -> None:
    process.replica.progress_timer.longest = float("inf")


@DEFECTS.add("timer-never-back", "G8", "the Progress_Timer never gets back to its default")
def _timer_never_back(process: Any) -> None:
    override(process.replica.progress_timer, "come_down", lambda _: do_nothing)


@DEFECTS.add(
    "timer-without-slots", "Departure 48", "the Progress_Timer is shorter than the time that slots take on slow disks"
)
def _timer_without_slots(process: Any) -> None:
    timer = process.replica.progress_timer
    timer.slot_time = RoundTrip(0.0, Random(0))


@DEFECTS.add(
    "timer-without-disk", "Departure 48", "the Progress_Timer expires during one long write of the server's own disk"
)
def _timer_without_disk(process: Any) -> None:
    override(process.replica.progress_timer, "own_disk_is_slow", lambda _: lambda: False)


@DEFECTS.add(
    "timer-of-former-writes",
    "Departure 48",
    "the Progress_Timer expires during a long write if a write that had begun before the timer has ended",
)
def _timer_of_former_writes(process: Any) -> None:
    replica = process.replica
    timer = replica.progress_timer

    @instead_of(timer, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        timer.written = replica.turn.durable_position


@DEFECTS.add("standstill-measured", "Departure 48", "the time for which a server stood still counts as that of a slot")
def _standstill_measured(process: Any) -> None:
    slot_time = process.replica.slot_time
    override(slot_time, "interrupted", lambda _: lambda now: slot_time.start_anew())


@DEFECTS.add("waits-not-measured", "Departure 49", "a PROPOSAL is repeated after a fixed time, however slow disks are")
def _waits_not_measured(process: Any) -> None:
    slot_time = process.replica.slot_time
    override(slot_time, "answered", lambda _: do_nothing)
    override(slot_time, "back_off", lambda _: do_nothing)


@DEFECTS.add("waits-guessed", "Departure 49", "every answer to a request that was sent again counts for the last copy")
def _waits_guessed(process: Any) -> None:
    slot_time = process.replica.slot_time

    @instead_of(slot_time, "answered")
    def broken(answered: Callable[[float, float, float], None], first_at: float, last_at: float, now: float) -> None:
        slot_time.guessing_since = None
        answered(first_at, last_at, now)


@DEFECTS.add("waits-stay-long", "Departure 49", "a wait that has grown never gets shorter again")
def _waits_stay_long(process: Any) -> None:
    replica = process.replica
    for round_trip in (replica.slot_time, replica.update_timers.round_trip, replica.reconciliation.round_trip):
        override(round_trip, "answered", lambda _: do_nothing)
        override(round_trip, "start_anew", lambda _: do_nothing)


@DEFECTS.add("arrived-updates-repeated", "Departure 49", "an update is sent again though the leader has proposed it")
def _arrived_updates_repeated(process: Any) -> None:
    override(process.replica.update_timers, "bound_in_this_view", lambda _: dict)


@DEFECTS.add("waiting-copies-repeated", "Departure 49", "an update is sent again though its copy waits at the gate")
def _waiting_copies_repeated(process: Any) -> None:
    timers = process.replica.update_timers

    @instead_of(timers, "expire_due")
    def broken(expire: Callable[[], None]) -> None:
        for timer in timers.running():
            timer.position = 0
        expire()


@DEFECTS.add(
    "holes-not-asked-for", "Departure 49", "a follower asks for slots that it lacks only when an ALIVE has told of them"
)
def _holes_not_asked_for(process: Any) -> None:
    override(process.replica.reconciliation, "ask_own_leader", lambda _: lambda: False)


@DEFECTS.add("idle-elections", "G8, Departure 10", "an idle cluster elects again and again: ALIVE is no progress")
def _idle_elections(process: Any) -> None:
    override(process.replica.demand, "knows_of_unexecuted_update", lambda _: lambda: True)


# ---------------------------------------------------------------------------------------------
# Views
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("prepare-not-answered", "G7", "a PREPARE of a view that is installed already is not answered")
def _prepare_not_answered(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.prepare, "on_prepare")
    def broken(prepare: Callable[[Any], None], message: Any) -> None:
        if replica.data.server.state is State.LEADER_ELECTION:
            prepare(message)


@DEFECTS.add(
    "no-way-back", "G9", "a server that was restarted, or has suspected its leader wrongly, stays out of its view"
)
def _no_way_back(process: Any) -> None:
    override(process.replica.election, "may_rejoin", lambda _: lambda view: False)


@DEFECTS.add("back-too-easily", "G9", "a server that suspects its leader goes back to it on any VC_PROOF")
def _back_too_easily(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.election, "on_vc_proof")
    def broken(vc_proof: Callable[[VCProof], None], message: VCProof) -> None:
        replica.election.just_recovered = True
        vc_proof(message)


@DEFECTS.add(
    "no-idle-way-back",
    "Departure 51",
    "a server that has suspected its leader wrongly stays out of its view until an update is ordered",
)
def _no_idle_way_back(process: Any) -> None:
    override(process.replica.election, "rejoin_if_idle", lambda _: do_nothing)


@DEFECTS.add(
    "back-while-updates-wait",
    "Departure 51",
    "a server goes back to its view on ALIVEs although updates wait that the leader does not order",
)
def _back_while_updates_wait(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.election, "rejoin_if_idle")
    def broken(rejoin: Callable[[Alive], None], message: Alive) -> None:
        knows = replica.demand.knows_of_unexecuted_update
        replica.demand.knows_of_unexecuted_update = lambda: False
        rejoin(message)
        replica.demand.knows_of_unexecuted_update = knows


@DEFECTS.add(
    "back-to-a-lonely-leader",
    "Departure 51",
    "a server goes back to its view on an ALIVE of the leader, whether a majority is in that view or not",
)
def _back_to_a_lonely_leader(process: Any) -> None:
    replica = process.replica

    def works() -> bool:
        return not replica.election.attempted_by_leader() and not replica.demand.knows_of_unexecuted_update()

    override(replica.election, "installed_view_works", lambda _: works)


@DEFECTS.add(
    "back-on-one-word-of-the-leader",
    "Departure 51",
    "a server goes back to its view on one ALIVE of the leader, if other servers of a majority have sent two",
)
def _back_on_one_word_of_the_leader(process: Any) -> None:
    election = process.replica.election

    @instead_of(election, "installed_view_works")
    def broken(works: Callable[[], bool]) -> bool:
        present = election.present_in_installed_view()
        if not election.is_majority(present):
            return False
        leader = process.replica.membership.leader_of(process.replica.data.views.last_installed)
        election.present_in_installed_view = lambda: present | {leader}
        is_back = works()
        del election.present_in_installed_view
        return is_back


@DEFECTS.add("the-dead-count", "Departure 51", "a server counts as present in a view though it was not heard lately")
def _the_dead_count(process: Any) -> None:
    election, peers = process.replica.election, process.replica.peers

    @instead_of(election, "present_in_installed_view")
    def broken(present: Callable[[], set[int]]) -> set[int]:
        peers.heard_lately = lambda server_id: True
        found = present()
        del peers.heard_lately
        return found


@DEFECTS.add("newcomer-goes-back", "Departure 51", "a server that is not admitted goes back to its view on ALIVEs")
def _newcomer_goes_back(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.alive, "on_alive")
    def broken(on_alive: Callable[[Alive], None], message: Alive) -> None:
        on_alive(message)
        if replica.storage_identity.is_newcomer:
            replica.election.on_alive(message)


@DEFECTS.add("denied-votes-kept", "Departure 52", "a vote is kept though its sender says that it leads or follows")
def _denied_votes_kept(process: Any) -> None:
    override(process.replica.election, "forget_denied_vote", lambda _: do_nothing)


@DEFECTS.add("denied-votes-counted", "Departure 52", "the vote of a server that has gone back to its view still counts")
def _denied_votes_counted(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.election, "forget_denied_vote")
    def broken(forget: Callable[[Alive], None], message: Alive) -> None:
        votes = dict(replica.data.views.vc)
        forget(message)
        replica.data.views.vc.update(votes)


@DEFECTS.add(
    "votes-interrupt", "Figure 4 A4 and A6", "any vote for a higher view makes a server leave a view that works"
)
def _votes_interrupt(process: Any) -> None:
    replica = process.replica

    @instead_of(replica, "dispatch")
    def broken(dispatch: Callable[..., str | None], message: Message, *told: int) -> str | None:
        if isinstance(message, ViewChange) and message.attempted > replica.data.views.last_attempted:
            replica.election.on_view_change(message)
            return None
        return dispatch(message, *told)


@DEFECTS.add("proof-ignored", "Figure 6 C", "VC_PROOF is not looked at: who missed a view change stays behind")
def _proof_ignored(process: Any) -> None:
    override(process.replica.election, "on_vc_proof", lambda _: do_nothing)


@DEFECTS.add("alone-and-leading", "section 5.10", "a leader that hears from no server does not suspect itself")
def _alone_and_leading(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.alive, "stay_if_followed")
    def broken(_: Callable[[], None]) -> None:
        if replica.data.server.state is State.REG_LEADER:
            replica.progress_timer.start()


@DEFECTS.add("view-not-raised", "Departure 50", "a leader leaves servers that have installed a later view alone")
def _view_not_raised(process: Any) -> None:
    override(process.replica.view_raise, "look", lambda _: do_nothing)


@DEFECTS.add("raised-without-pause", "Departure 50", "a leader raises its view as often as a server tells a later one")
def _raised_without_pause(process: Any) -> None:
    process.replica.view_raise.longest_wait = process.replica.view_raise.shortest_wait


@DEFECTS.add(
    "raise-not-followed", "Departure 50", "the followers of a leader that raises its view attempt the next view"
)
def _raise_not_followed(process: Any) -> None:
    override(process.replica.election, "attempted_by_leader", lambda _: lambda: 0)


@DEFECTS.add(
    "raise-given-up", "Departure 50", "a leader that raises its view, or a follower of it, installs the view below"
)
def _raise_given_up(process: Any) -> None:
    override(process.replica.election, "leader_goes_beyond", lambda _: lambda view: False)


# ---------------------------------------------------------------------------------------------
# Ordering
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("holes-left", "G11", "a new leader with nothing to propose stops at an empty slot below others")
def _holes_left(process: Any) -> None:
    _fill_holes_with(process, lambda seq: None)


@DEFECTS.add("holes-filled-fresh", "G11", "a new leader fills holes with what its clients ask for, if they do")
def _holes_filled_fresh(process: Any) -> None:
    """Fill holes with queued updates, and let the queue take updates that are bound already.

    So an update that a later slot holds, and that its server sends again, is bound to a hole, too.
    """
    replica = process.replica
    override(replica.update_queue, "bound_updates", lambda _: set)
    _fill_holes_with(process, lambda seq: replica.update_queue.pop_batch(replica.proposals.now_ms()))


def _fill_holes_with(process: Any, batch_for_hole: Callable[[int], Batch | None]) -> None:
    history = process.replica.data.ordering.global_history

    @instead_of(process.replica.proposals, "batch_for")
    def broken(batch_for: Callable[[int], Batch | None], seq: int) -> Batch | None:
        slot = history.get(seq)
        is_hole = seq < history.top and (slot is None or slot.proposal is None)
        return batch_for_hole(seq) if is_hole else batch_for(seq)


@DEFECTS.add("own-vote-not-counted", "G14", "a server does not count its own vote")
def _own_vote_not_counted(process: Any) -> None:
    override(process.replica.proposals, "vote", lambda _: do_nothing)


@DEFECTS.add("early-votes-dropped", "G17", "votes that come before their proposal are dropped, and not repeated")
def _early_votes_dropped(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.accepts, "on_accept")
    def broken(accept: Callable[[Accept], None], message: Accept) -> None:
        for seq, digest in message.votes():
            slot = replica.data.ordering.global_history.get(seq)
            if slot is not None and slot.proposal is not None and slot.proposal.view == message.view:
                accept(Accept(message.server_id, message.view, (seq,), digest))


@DEFECTS.add("proposals-not-repeated", "section 5.9", "a PROPOSAL that was lost is not sent again")
def _proposals_not_repeated(process: Any) -> None:
    override(process.replica.retransmission, "resend_proposals", lambda _: do_nothing)


@DEFECTS.add("accept-not-repeated", "section 5.9, G18", "a PROPOSAL that comes again is not answered again")
def _accept_not_repeated(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.proposals, "on_proposal")
    def broken(proposal: Callable[[Proposal], None], message: Proposal) -> None:
        if not replica.proposals.is_ordered(message.seq) and not replica.proposals.is_held(message):
            proposal(message)


@DEFECTS.add("never-reconciles", "G24", "a server that is behind asks no other")
def _never_reconciles(process: Any) -> None:
    for asking in ("ask_at_start", "ask_a_peer"):
        override(process.replica.reconciliation, asking, lambda _: do_nothing)


# ---------------------------------------------------------------------------------------------
# Updates that wait
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("enqueued-not-rebuilt", "G15", "a new leader queues an update again that a slot holds already")
def _enqueued_not_rebuilt(process: Any) -> None:
    override(process.replica.update_queue, "bound_updates", lambda _: set)


@DEFECTS.add("pending-not-dropped", "G16", "an update that has run stays pending if its copy names another server")
def _pending_not_dropped(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.update_queue, "drop_executed")
    def broken(drop: Callable[[ClientUpdate, int], None], update: ClientUpdate, seq: int) -> None:
        if update.server_id == replica.membership.server_id:
            drop(update, seq)


@DEFECTS.add(
    "updates-not-repeated", "Figure 12 B", "an update that was lost on its way to the leader is not sent again"
)
def _updates_not_repeated(process: Any) -> None:
    override(process.replica.update_timers, "send_again", lambda _: do_nothing)
    override(process.replica.update_timers, "forward_pending_updates", lambda _: do_nothing)
    process.replica.alive.on_leader_at_work = do_nothing


@DEFECTS.add("relayed-in-circles", "G8, Departure 17", "who does not lead passes an update on to everybody")
def _relayed_in_circles(process: Any) -> None:
    replica = process.replica

    def relay(update: ClientUpdate, sender: int) -> None:
        replica.demand.note_foreign_update(update)
        replica.turn.send(update)

    override(replica.client_updates, "relay_to_leader", lambda _: relay)


@DEFECTS.add("relay-left-out", "G8", "an update of another server's client is not relayed to the leader")
def _relay_left_out(process: Any) -> None:
    replica = process.replica
    override(
        replica.client_updates,
        "relay_to_leader",
        lambda _: lambda update, sender: replica.demand.note_foreign_update(update),
    )


@DEFECTS.add(
    "overtaken-leader-stays", "Departure 10", "a leader that waits for a slot which followers have executed leads on"
)
def _overtaken_leader_stays(process: Any) -> None:
    override(process.replica.alive, "is_overtaken", lambda _: lambda: False)
