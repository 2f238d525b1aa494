"""Defects of learning and executing ordered slots (Figure 11, Block C, and section 5.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, evolve

from pfsb.paxos.data_structures import LastExecuted, Slot
from pfsb.paxos.messages import (
    Batch,
    DataEntry,
    GloballyOrderedUpdate,
)
from pfsb.simulator.defects.defect import Defects, instead_of, override

DEFECTS = Defects()


@define
class _Unfiltered(LastExecuted):
    """A Last_Executed that records executed updates as it should, but answers that none was executed."""

    def of(self, client_id: str) -> int:
        return 0


@DEFECTS.add("executed-twice", "G15", "an update that stands in two slots is executed in both")
def _executed_twice(process: Any) -> None:
    queue, data = process.replica.ordered_queue, process.replica.data
    known = data.clients.last_executed
    unfiltered = _Unfiltered(known.horizon_slots, known.timestamps)
    queue.last_executed = unfiltered


@DEFECTS.add("learned-not-executed", "G13", "what a data list tells as ordered is noted, and not executed")
def _learned_not_executed(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.prepare, "apply_entry")
    def broken(apply: Callable[[DataEntry], None], entry: DataEntry) -> None:
        if isinstance(entry, GloballyOrderedUpdate):
            replica.data.apply_globally_ordered_update(entry)
        else:
            apply(entry)


@DEFECTS.add(
    "proposals-told-as-ordered", "section 5.6", "reconciliation answers with proposals as if they were ordered"
)
def _proposals_told_as_ordered(process: Any) -> None:
    replica = process.replica
    Rows = list[tuple[int, Batch]]

    @instead_of(replica.reconciliation, "rows_from_memory")
    def broken(from_memory: Callable[[int, int], Rows], first: int, last: int) -> Rows:
        rows = from_memory(first, last)
        for seq, slot in replica.data.ordering.global_history.above(last):
            if seq != rows[-1][0] + 1 or slot.proposal is None:
                break
            rows.append((seq, slot.proposal.batch))
        return rows


@DEFECTS.add("time-goes-back", "Departure 4", "the state machine's time is that of the latest batch")
def _time_goes_back(process: Any) -> None:
    queue = process.replica.ordered_queue

    @instead_of(queue, "execute_slot")
    def broken(execute: Callable[[int, Slot], Any], seq: int, slot: Slot) -> Any:
        queue.time_ms = 0
        return execute(seq, slot)


@DEFECTS.add("horizon-ignored", "Departure 7", "an update runs however late it is ordered")
def _horizon_ignored(process: Any) -> None:
    queue = process.replica.ordered_queue

    @instead_of(queue, "execute_slot")
    def broken(execute: Callable[[int, Slot], Any], seq: int, slot: Slot) -> Any:
        assert slot.ordered is not None
        time_ms, updates = slot.ordered.open()
        young = Batch.of(time_ms, [evolve(update, made_at=seq - 1) for update in updates])
        known, slot.ordered = slot.ordered, young
        executed = execute(seq, slot)
        slot.ordered = known
        return executed


@DEFECTS.add("executes-out-of-order", "Figure 11 C", "a slot is executed as soon as it is ordered, gaps or not")
def _executes_out_of_order(process: Any) -> None:
    queue, ordering = process.replica.ordered_queue, process.replica.data.ordering

    def broken(message: GloballyOrderedUpdate) -> list[Any]:
        if not process.replica.data.apply_globally_ordered_update(message):
            return []
        ordering.local_aru = message.seq
        return [queue.execute_slot(message.seq, ordering.global_history.ensure(message.seq))]

    override(queue, "mark_ordered", lambda _: broken)
