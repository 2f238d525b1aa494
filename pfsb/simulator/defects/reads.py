"""Defects of reads without the log (Departure 24): each lets a read miss a write that was answered before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfsb.paxos.messages import Confirm, Confirmed, ReadIndex, ReadRequest
from pfsb.simulator.defects.defect import Defects, instead_of

DEFECTS = Defects(needs_sessions=True)


@DEFECTS.add("read-not-confirmed", "Departure 24", "a leader answers reads without asking whether it still is one")
def _read_not_confirmed(process: Any) -> None:
    reads = process.replica.reads

    @instead_of(reads, "ask_for_confirmation")
    def broken(_: Callable[[Any], None], present: Any) -> None:
        present.confirmed_by.update(process.replica.membership.ids)


@DEFECTS.add("read-confirmed-by-anyone", "Departure 24", "a server confirms the leader of a view that it has left")
def _read_confirmed_by_anyone(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.reads, "on_confirm")
    def broken(_: Callable[[Confirm], None], message: Confirm) -> None:
        answer = Confirmed(replica.data.server.server_id, message.view, message.number)
        replica.turn.send(answer, message.server_id)


@DEFECTS.add("read-index-too-low", "Departure 24", "a read waits only for what the leader has executed itself")
def _read_index_too_low(process: Any) -> None:
    reads = process.replica.reads

    @instead_of(reads, "ask_for_confirmation")
    def broken(ask: Callable[[Any], None], present: Any) -> None:
        present.index = min(present.index, process.replica.data.ordering.local_aru)
        ask(present)


@DEFECTS.add("read-not-awaited", "Departure 24", "a server answers a read before it has executed up to the index")
def _read_not_awaited(process: Any) -> None:
    @instead_of(process.replica.reads, "on_read_index")
    def broken(read_index: Callable[[ReadIndex], None], message: ReadIndex) -> None:
        read_index(ReadIndex(message.server_id, message.number, 0))


@DEFECTS.add("read-joins-request", "Departure 24", "a read joins a request that was sent before it was asked")
def _read_joins_request(process: Any) -> None:
    reads = process.replica.reads

    @instead_of(reads, "begin_reads")
    def broken(begin_reads: Callable[[Any], None], begun: Any) -> None:
        begin_reads(begun)
        if reads.requested:
            reads.requested += reads.waiting
            reads.waiting = []


@DEFECTS.add("read-joins-round", "Departure 24", "a request joins a round of CONFIRM that began before it came")
def _read_joins_round(process: Any) -> None:
    reads = process.replica.reads

    @instead_of(reads, "on_read_request")
    def broken(read_request: Callable[[ReadRequest], None], message: ReadRequest) -> None:
        present = reads.present_round()
        if present is None:
            read_request(message)
        else:
            present.asked_by[message.server_id] = message.number


@DEFECTS.add("read-of-former-life", "Departure 24", "a server numbers its requests from 1 on in each of its lives")
def _read_of_former_life(process: Any) -> None:
    server = process.replica.data.server

    @instead_of(process.replica.reads, "request_index")
    def broken(request: Callable[[], None]) -> None:
        start = server.incarnation, server.start_mark
        server.incarnation = server.start_mark = 0
        request()
        server.incarnation, server.start_mark = start
