"""Defects of PREPARE_OK, the promise from which a new leader learns what was accepted (Figures 7 to 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from attrs import evolve

from pfsb.paxos.data_structures import DataStructures, PrepareOKs
from pfsb.paxos.messages import (
    DataEntry,
    Message,
    Prepare,
    PrepareOK,
    Proposal,
)
from pfsb.paxos.part_requests import PartRequests
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override

DEFECTS = Defects()


@DEFECTS.add("prepare-phase-skipped", "Figure 7, Figure 9 A", "a leader leads as soon as its view is preinstalled")
def _prepare_phase_skipped(process: Any) -> None:
    override(process.replica.prepare, "view_prepared_ready", lambda _: lambda view: True)


@DEFECTS.add("promise-stale", "Figure 7 B, G7", "a PREPARE is answered with the data list of an older view")
def _promise_stale(process: Any) -> None:
    kept: list[PrepareOK] = []

    @instead_of(process.replica.prepare, "own_prepare_ok")
    def broken(own_prepare_ok: Callable[[Prepare], list[PrepareOK]], message: Prepare) -> list[PrepareOK]:
        kept.extend([] if kept else own_prepare_ok(message))
        return [evolve(part, view=message.view) for part in kept]


DataList = Callable[[int], Iterator[DataEntry]]


@DEFECTS.add("data-list-without-ordered", "Figure 8 A, G19", "a data list leaves out what is ordered")
def _data_list_without_ordered(process: Any) -> None:
    @instead_of(process.replica.prepare, "construct_data_list")
    def broken(construct: DataList, aru: int) -> Iterator[Any]:
        return (entry for entry in construct(aru) if isinstance(entry, Proposal))


@DEFECTS.add("data-list-cut-short", "Figure 8 A, G19", "a data list ends after two entries")
def _data_list_cut_short(process: Any) -> None:
    override(process.replica.prepare, "construct_data_list", lambda construct: lambda aru: islice(construct(aru), 2))


@DEFECTS.add("contested-ignored", "Departure 39", "of two batches that promises report of one view any one counts")
def _contested_ignored(process: Any) -> None:
    override(process.replica.prepare.contested, "add", lambda _: do_nothing)


@DEFECTS.add("promise-below-floor", "G19, G21", "a leader is answered though what it lacks is no longer in memory")
def _promise_below_floor(process: Any) -> None:
    override(process.replica.prepare, "can_answer", lambda _: lambda message: True)


@DEFECTS.add("promise-in-part", "G28, Departure 6", "a promise counts when its first part is there")
def _promise_in_part(process: Any) -> None:
    def ready(view: int) -> bool:
        promises = process.replica.data.preparing.prepare_oks
        begun = [server_id for server_id, oks in promises.items() if oks.view == view]
        return bool(process.replica.membership.is_majority(begun))

    override(process.replica.prepare, "view_prepared_ready", lambda _: ready)


class _MixesEditions(DataStructures):
    __slots__ = ()

    def apply_prepare_ok(self, message: PrepareOK) -> bool:
        promises = self.preparing.prepare_oks
        entry = promises.get(message.server_id)
        if entry is None or entry.view < message.view:
            entry = promises[message.server_id] = PrepareOKs(message.view, message.edition, message.parts)
        if entry.view != message.view or message.part in entry.arrived:
            return False
        entry.arrived[message.part] = message
        return True


@DEFECTS.add("editions-mixed", "Figure 5 C, Departure 6", "parts of the promises of two lives make one promise")
def _editions_mixed(process: Any) -> None:
    become(process.replica.data, _MixesEditions)


@DEFECTS.add("promise-at-once", "Departure 47", "all parts of a promise leave at once, and none by itself")
def _promise_at_once(process: Any) -> None:
    replica = process.replica
    override(replica.prepare, "on_part_wanted", lambda _: do_nothing)

    @instead_of(replica.prepare, "next_part")
    def broken(_: object, parts: list[PrepareOK]) -> PrepareOK:
        for part in parts[:-1]:
            replica.turn.send(part, replica.membership.leader_of(part.view))
        return parts[-1]


@DEFECTS.add("parts-not-asked-for", "Departure 47", "a new leader does not ask for the parts of a long promise")
def _parts_not_asked_for(process: Any) -> None:
    override(process.replica.prepare, "ask_for_parts", lambda _: do_nothing)


class _NeverLost(PartRequests):
    __slots__ = ()

    def forget_lost(self, now: float) -> bool:
        return False


@DEFECTS.add("lost-part-not-asked-again", "Departure 47", "a new leader asks once for each part of a long promise")
def _lost_part_not_asked_again(process: Any) -> None:
    become(process.replica.prepare.requests, _NeverLost)


@DEFECTS.add("older-view-accepted", "Figure 4 E6", "proposals of older views are accepted still")
def _older_view_accepted(process: Any) -> None:
    replica = process.replica

    @instead_of(replica, "dispatch")
    def broken(dispatch: Callable[..., str | None], message: Message, *told: int) -> str | None:
        line = dispatch(message, *told)
        if isinstance(message, Proposal) and line == "4 E6" and message.view < replica.data.views.last_installed:
            replica.proposals.on_proposal(message)
        return line
