"""Defects of servers whose disks hang or are full (Departures 44 and 45)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import Alive, Message
from pfsb.paxos.turn import Turn
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override

DEFECTS = Defects(needs_sessions=True)


@DEFECTS.add("hang-unnoticed", "Departure 44", "a server does not notice that its disk hangs")
def _hang_unnoticed(process: Any) -> None:
    override(process.replica.disk_watch, "note_waiting", lambda _: do_nothing)


@DEFECTS.add("hang-not-told", "Departure 44", "a leader whose disk hangs tells the others that it leads")
def _hang_not_told(process: Any) -> None:
    _hide_in_alive(process, DiskTrouble.HANGS)


@DEFECTS.add("hang-for-ever", "Departure 44", "a server whose disk has hung never takes part again")
def _hang_for_ever(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.disk_watch, "find_trouble")
    def broken(trouble: Callable[[], DiskTrouble | None]) -> DiskTrouble | None:
        hangs = replica.turn.trouble is DiskTrouble.HANGS
        return DiskTrouble.HANGS if hangs else trouble()


@DEFECTS.add("answers-wait-for-ever", "Departure 44", "answers that wait at the gate wait as long as the disk hangs")
def _answers_wait_for_ever(process: Any) -> None:
    override(process.replica.turn, "refuse_answers", lambda _: do_nothing)


@DEFECTS.add("refusals-wait", "Departure 44", "refusals wait at the gate, as answers do")
def _refusals_wait(process: Any) -> None:
    turn = process.replica.turn
    override(turn, "refuse", lambda _: turn.call)


@DEFECTS.add("waits-go-on", "Departure 44", "clients that wait for a lock are not told that the disk hangs")
def _waits_go_on(process: Any) -> None:
    @instead_of(process.replica, "attach")
    def broken(attach: Callable[..., None], **given: Any) -> None:
        attach(**given)

        @instead_of(process.server.local_clients, "connect")
        def not_told(connect: Callable[[Any], Any], ended: Any) -> Any:
            connection = connect(ended)
            override(connection, "refuse_pending", lambda _: do_nothing)
            return connection


class _BoastfulTurn(Turn):
    @property
    def shows_only_what_is_durable(self) -> bool:
        return True


@DEFECTS.add("hanging-disk-shows-all", "Departure 44", "a stale read shows what waits for a disk that hangs")
def _hanging_disk_shows_all(process: Any) -> None:
    become(process.replica.turn, _BoastfulTurn)


@DEFECTS.add("messages-pile-up", "Departure 44", "messages wait at the gate as long as the disk hangs, ever more")
def _messages_pile_up(process: Any) -> None:
    override(process.replica.turn, "drop_messages", lambda _: do_nothing)


@DEFECTS.add("votes-in-trouble", "Departures 44 and 45", "a server whose disk hangs or is full handles all messages")
def _votes_in_trouble(process: Any) -> None:
    @instead_of(process.replica.disk_watch, "handled")
    def broken(_: Any, messages: Sequence[Message]) -> Sequence[Message]:
        return messages


@DEFECTS.add("proposes-in-trouble", "Departures 44 and 45", "a leader whose disk hangs or is full goes on proposing")
def _proposes_in_trouble(process: Any) -> None:
    _forget_trouble_in(process, process.replica.proposals, "send_proposal")


@DEFECTS.add("lazy-writes-in-trouble", "Departures 44 and 45", "lazy records are written to a disk in trouble")
def _lazy_writes_in_trouble(process: Any) -> None:
    _forget_trouble_in(process, process.replica.turn, "flush_lazy")


def _forget_trouble_in(process: Any, owner: object, method: str) -> None:
    """Let a method work as if the disk neither hung nor were full.

    `method` is the name of the method, which takes no arguments; `owner` is the part of the server that has it.
    """
    turn = process.replica.turn

    @instead_of(owner, method)
    def broken(original: Callable[[], None]) -> None:
        trouble, turn.trouble = turn.trouble, None
        original()
        turn.trouble = trouble


@DEFECTS.add("full-unnoticed", "Departure 45", "a server does not notice that its disk is full")
def _full_unnoticed(process: Any) -> None:
    @instead_of(process.replica.disk_watch, "find_trouble")
    def broken(trouble: Callable[[], DiskTrouble | None]) -> DiskTrouble | None:
        found = trouble()
        return None if found is DiskTrouble.FULL else found


@DEFECTS.add("full-counts-as-follower", "Departure 45", "a follower whose disk is full is counted as one that votes")
def _full_counts_as_follower(process: Any) -> None:
    _hide_in_alive(process, DiskTrouble.FULL)


def _hide_in_alive(process: Any, trouble: DiskTrouble) -> None:
    """While the server's disk has this trouble, let ALIVE tell the state that the server would have without it."""
    replica = process.replica

    @instead_of(replica.alive, "own_alive")
    def broken(own_alive: Callable[[], Alive]) -> Alive:
        is_hidden = replica.turn.trouble is trouble
        return evolve(own_alive(), state=replica.data.server.state) if is_hidden else own_alive()


@DEFECTS.add("full-answers-nothing", "Departure 45", "a server whose disk is full refuses questions")
def _full_answers_nothing(process: Any) -> None:
    @instead_of(process.replica.reads, "begin_read")
    def broken(begin_read: Callable[[Callable[[bool], None]], None], ready: Callable[[bool], None]) -> None:
        if process.replica.turn.trouble is None:
            begin_read(ready)
        else:
            ready(False)
