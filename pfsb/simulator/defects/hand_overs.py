"""Defects of leaders that hand over, and of the servers that follow them (Departure 59)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfsb.paxos.hand_over import UnderWay
from pfsb.paxos.messages import HandOver, Message, State
from pfsb.simulator.defects.defect import Defects, do_nothing, instead_of, override

DEFECTS = Defects(needs_hand_overs=True)


@DEFECTS.add("hands-over-and-leads-on", "Departure 59", "a leader that hands over goes on leading its view")
def _hands_over_and_leads_on(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.election, "leave_view")
    def broken(leave_view: Callable[[int], None], view: int) -> None:
        if replica.data.server.state is not State.REG_LEADER:
            leave_view(view)


@DEFECTS.add("target-leads-at-once", "Departure 59", "a server to which a view is handed over leads without promises")
def _target_leads_at_once(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.hand_over, "on_hand_over")
    def broken(on_hand_over: Callable[[HandOver], None], message: HandOver) -> None:
        on_hand_over(message)
        is_attempting = replica.data.server.state is State.LEADER_ELECTION
        if is_attempting and replica.membership.i_lead(message.next_view):
            replica.prepare.shift_to_prepare_phase()
            replica.prepare.shift_to_reg_leader()


@DEFECTS.add(
    "former-leader-hands-over",
    "Departure 59",
    "a follower takes the HAND_OVER of any former leader, and attempts the next view that the target leads",
)
def _former_leader_hands_over(process: Any) -> None:
    replica = process.replica

    @instead_of(replica, "dispatch")
    def broken(dispatch: Callable[..., str | None], message: Message, *told: int) -> str | None:
        views, members = replica.data.views, replica.membership
        is_former = isinstance(message, HandOver) and message.view < views.last_installed
        if is_former and replica.data.server.state is State.REG_NONLEADER:
            assert isinstance(message, HandOver), "it is one"
            target = members.leader_of(message.next_view)
            replica.election.leave_view(members.next_led_by(target, views.last_installed))
            return None
        return dispatch(message, *told)


@DEFECTS.add("window-stays-closed", "Departure 59", "a leader that has handed over proposes nothing in later views")
def _window_stays_closed(process: Any) -> None:
    override(process.replica.window, "open", lambda _: do_nothing)


@DEFECTS.add("hand-over-not-followed", "Departure 59", "followers take no notice of a HAND_OVER")
def _hand_over_not_followed(process: Any) -> None:
    override(process.replica.hand_over, "on_hand_over", lambda _: do_nothing)


@DEFECTS.add("target-not-asked", "Departure 59", "a leader hands over to a server without asking whether that is there")
def _target_not_asked(process: Any) -> None:
    hand_over = process.replica.hand_over

    @instead_of(hand_over, "step")
    def broken(step: Callable[[], None]) -> None:
        if hand_over.under_way is not None:
            hand_over.under_way.is_answered = True
        step()


@DEFECTS.add("slots-not-waited-for", "Departure 59", "a leader hands over and keeps the view if slots are under way")
def _slots_not_waited_for(process: Any) -> None:
    hand_over = process.replica.hand_over

    @instead_of(hand_over, "leave")
    def broken(leave: Callable[[UnderWay], None], under_way: UnderWay) -> None:
        if not hand_over.has_slots_under_way():
            leave(under_way)


@DEFECTS.add("stops-without-handing-over", "Departure 59", "a leader that is asked to stop does not hand over")
def _stops_without_handing_over(process: Any) -> None:
    override(process.replica.hand_over, "hand_over_to_stop", lambda _: do_nothing)


@DEFECTS.add(
    "preference-without-pause", "Departure 59", "a preferred server that fails again and again is handed each view"
)
def _preference_without_pause(process: Any) -> None:
    override(process.replica.hand_over, "note_end", lambda _: do_nothing)
