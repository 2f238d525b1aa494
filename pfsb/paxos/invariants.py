"""Invariants of one server, which hold after every turn: numbered sentences, and the code that checks them.

1. Local_Aru, Last_Installed and the state machine's time never go back.
2. Every slot up to Local_Aru was executed exactly once, in order; the batch of an ordered slot never changes (S1).
3. Last_Attempted is at least Last_Installed; outside an election the two are equal.
4. A server in REG_LEADER leads the installed view, and a server in REG_NONLEADER does not.
5. A server leads a view at most once: from REG_LEADER there is no way back into the same view (G10).
6. The Progress_Timer runs in REG_LEADER and REG_NONLEADER at all times (G5, G8).
7. A follower's Update_Queue is empty (Figure 9 B). No server queues more than `queue_updates_max` updates of other
   servers' clients.
8. A client has at most one pending update, and it has not been executed (G16).
9. A leader's Last_Proposed is at least Local_Aru, and at most a window above it (section 5.10). Here and below, the
   window is the largest one in which open slots were proposed: the setting may have been lowered since.
10. A slot that is not ordered lies within four windows above Local_Aru: two for the proposals that a follower accepts,
    and two more for the data lists by which a leader learns from followers that are ahead of it (G19). An ordered slot
    lies within the reach of reconciliation, and a slot has the votes of few views. So the memory of a server is
    bounded (Departure 37).
11. The Last_Installed and Local_Aru that ALIVE and VC_PROOF carry are not higher than the server's present values.
12. While the disk is in trouble, the server begins no write; while the disk hangs, no message comes to wait at the gate
    (Departures 44 and 45).
13. A server that is not admitted is in LEADER_ELECTION: it follows no server, and does not lead (Departures 12 and 43).
14. Local_Aru rises by executing the slots that follow, or else to the slot of a snapshot that was installed (Departure
    57). None is installed that is not above Local_Aru, none by a server in REG_LEADER; afterwards none of its slots is
    in memory.

The tests and the simulator check the invariants at the end of every turn: `install` puts `check` into `Replica.checks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from attrs import define, field

from pfsb.paxos.data_structures import VOTED_VIEWS_MAX
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import Batch, State
from pfsb.paxos.replica import Replica
from pfsb.support.limits import SLOT_MAX


class InvariantViolated(AssertionError):
    """A server is in a state that the protocol rules out.

    The text names the server, and then the number of the broken invariant in this module's docstring.
    """


@define
class Memory:
    """The values that a call of `check` stores for the next call, during one incarnation of a server."""

    local_aru: int = 0
    last_installed: int = 0
    time_ms: int = 0
    led: int = 0
    """The latest view in which the server was REG_LEADER."""
    leads: bool = False
    messages_in_wait: int = 0
    """Number of messages that waited at the gate at the last check, if the disk hung then; else 0."""
    hangs: bool = False
    reach: int = 0
    """The highest slot that has been within the window so far."""
    begin: int | None = None
    """The slot with which the history of this server begins (`DigestChain.begin`); None: there was no check yet."""
    snapshots: int = 0
    """Number of snapshots that the server has installed since its start."""
    epoch: int = 0
    """The epoch of the membership."""
    ordered: dict[int, Batch] = field(factory=dict)
    """sequence number -> the batch of each slot that was ordered, but not yet executed, at the last check."""
    window_max: int = 0
    """The largest window in which open slots may have been proposed (`install`)."""


def install(replica: Replica, window_max: int = 0) -> Memory:
    """Check `replica` at the end of each of its turns from now on. Returns the `Memory` of these checks.

    `window_max` is the largest window that the cluster may have had when a slot was proposed that is still open, if
    that can be another one than the present window of this server.
    """
    memory = Memory(window_max=window_max)
    replica.checks.append(partial(check, replica, memory))
    return memory


def check(replica: Replica, memory: Memory) -> None:
    """Check the invariants, which are the sentences of the module's docstring, at one server: those about its present
    state, and by `memory`, the values at the last check, those about changes. Raises `InvariantViolated` if one does
    not hold; else stores the present values in `memory`."""
    for sentence in (*_violated_by_time(replica, memory), *_violated_now(replica, memory.window_max)):
        raise InvariantViolated(f"server {replica.data.server.server_id}: {sentence}")
    _remember(replica, memory)


def _violated_by_time(replica: Replica, memory: Memory) -> Iterator[str]:
    data, queue = replica.data, replica.ordered_queue
    if data.ordering.local_aru < memory.local_aru:
        yield f"1: Local_Aru went back from {memory.local_aru} to {data.ordering.local_aru}"
    if data.views.last_installed < memory.last_installed:
        yield f"1: Last_Installed went back from {memory.last_installed} to {data.views.last_installed}"
    if queue.time.time_ms < memory.time_ms:
        yield f"1: the state machine's time went back from {memory.time_ms} to {queue.time.time_ms}"
    changes = [slot for epoch, slot in replica.epochs.begun.items() if epoch > memory.epoch]
    void_above = min(changes, default=SLOT_MAX)
    for seq, batch in memory.ordered.items():
        if seq > void_above:
            continue  # a change of the membership has made void what was ordered there
        slot = data.ordering.global_history.get(seq)
        if slot is None and seq > data.ordering.global_history.floor:
            yield f"2: slot {seq} was ordered, and is gone"
        if slot is not None and (slot.ordered is None or slot.ordered.data != batch.data):
            yield f"2: what is ordered at {seq} has changed"
    yield from _wrong_installs(replica, memory)
    window, last_proposed = max(replica.window.slots, memory.window_max), data.ordering.last_proposed
    reach = max(memory.reach, data.ordering.local_aru + window)
    if data.server.state is State.REG_LEADER and last_proposed > reach:
        yield f"9: Last_Proposed is {last_proposed}, Local_Aru {data.ordering.local_aru}, the window {window}"
    if data.server.state is State.REG_LEADER and not memory.leads and data.views.last_installed <= memory.led:
        yield f"5: leads view {data.views.last_installed} again"
    if memory.hangs and _hangs(replica) and replica.turn.messages_in_wait > memory.messages_in_wait:
        yield f"12: {replica.turn.messages_in_wait} messages wait for a disk that hangs, more and more"


def _wrong_installs(replica: Replica, memory: Memory) -> Iterator[str]:
    begin, history = replica.ordered_queue.digests.begin, replica.data.ordering.global_history
    if replica.snapshot_fetcher.installed == memory.snapshots:
        if memory.begin not in (None, begin):
            yield f"14: the history begins anew, with slot {begin}, and no snapshot was installed"
        return
    if begin <= memory.local_aru:
        yield f"14: a snapshot of slot {begin} was installed, and Local_Aru was {memory.local_aru}"
    if memory.leads and replica.data.server.state is State.REG_LEADER:
        yield f"14: a leader has installed a snapshot of slot {begin}"
    left = [seq for seq in history.slots if seq <= begin]
    if left:
        yield f"14: a snapshot of slot {begin} was installed, and slots {left} are in memory"


def _violated_now(replica: Replica, window_max: int) -> Iterator[str]:
    yield from _wrong_views(replica)
    yield from _wrong_ordering(replica, max(replica.window.slots, window_max))
    yield from _wrong_clients(replica)
    if replica.storage_identity.is_newcomer and replica.data.server.state is not State.LEADER_ELECTION:
        yield f"13: {replica.data.server.state.value}, and not admitted"
    if replica.turn.writes_in_trouble:
        yield f"12: {replica.turn.writes_in_trouble} writes to a disk in trouble"


def _hangs(replica: Replica) -> bool:
    return replica.turn.trouble is DiskTrouble.HANGS


def _wrong_views(replica: Replica) -> Iterator[str]:
    state, views = replica.data.server.state, replica.data.views
    if views.last_attempted < views.last_installed:
        yield f"3: attempts {views.last_attempted}, but has installed {views.last_installed}"
    if state is not State.LEADER_ELECTION:
        if views.last_attempted != views.last_installed:
            yield f"3: {state.value} of {views.last_installed}, but attempts {views.last_attempted}"
        if replica.membership.i_lead(views.last_installed) != (state is State.REG_LEADER):
            yield f"4: {state.value} in view {views.last_installed}"
        if not replica.progress_timer.running:
            yield f"6: {state.value} without a Progress_Timer"
    if replica.turn.durable.last_installed > views.last_installed:
        yield f"11: tells of view {replica.turn.durable.last_installed}, knows {views.last_installed}"


def _wrong_ordering(replica: Replica, window: int) -> Iterator[str]:
    ordering = replica.data.ordering
    history, aru = ordering.global_history, ordering.local_aru
    if replica.ordered_queue.digests.seq != aru:
        yield f"2: Local_Aru is {aru}, but {replica.ordered_queue.digests.seq} slots were executed"
    following = history.get(aru + 1)
    batch = None if following is None else following.ordered
    if batch is not None and not replica.ordered_queue.must_wait(batch):
        yield f"2: slot {aru + 1} is ordered, and not executed"
    leads = replica.data.server.state is State.REG_LEADER
    if leads and ordering.last_proposed < aru:
        yield f"9: Last_Proposed is {ordering.last_proposed}, Local_Aru {aru}"
    for seq, slot in history.above(aru + 4 * window):
        if slot.ordered is None:
            yield f"10: slot {seq} is known, but not ordered, with Local_Aru at {aru}"
        elif not replica.plausibility.ordered(seq):
            yield f"10: slot {seq} is ordered, far above Local_Aru at {aru}"
    votes = [found.voters for seq in range(aru + 1, aru + 2 * window + 1) if (found := history.get(seq)) is not None]
    if any(len(voters) > VOTED_VIEWS_MAX for voters in votes):
        yield f"10: one of the slots above {aru} has votes of more than {VOTED_VIEWS_MAX} views"
    if replica.turn.durable.local_aru > aru:
        yield f"11: tells of Local_Aru {replica.turn.durable.local_aru}, knows {aru}"


def _wrong_clients(replica: Replica) -> Iterator[str]:
    clients = replica.data.clients
    if replica.data.server.state is State.REG_NONLEADER and clients.update_queue:
        yield f"7: a non-leader queues {len(clients.update_queue)} updates"
    if len(clients.update_queue) > replica.settings.queue_updates_max:
        me = replica.data.server.server_id
        foreign = sum(update.server_id != me for update in clients.update_queue)
        if foreign > replica.settings.queue_updates_max:
            yield f"7: {foreign} updates of other servers' clients are queued"
    for client_id, update in clients.pending_updates.items():
        if client_id != update.client_id:
            yield f"8: an update of {update.client_id} is pending for {client_id}"
        if update.timestamp <= clients.last_executed.of(client_id):
            yield f"8: update {update.timestamp} of {client_id} is pending, but has run"


def _remember(replica: Replica, memory: Memory) -> None:
    data = replica.data
    memory.local_aru = data.ordering.local_aru
    memory.last_installed = data.views.last_installed
    memory.time_ms = replica.ordered_queue.time.time_ms
    memory.begin = replica.ordered_queue.digests.begin
    memory.snapshots = replica.snapshot_fetcher.installed
    memory.epoch = replica.membership.epoch
    memory.reach = max(memory.reach, memory.local_aru + replica.window.slots)
    memory.leads = data.server.state is State.REG_LEADER
    if memory.leads:
        memory.led = data.views.last_installed
    memory.hangs = _hangs(replica)
    memory.messages_in_wait = replica.turn.messages_in_wait if memory.hangs else 0
    above = data.ordering.global_history.above(memory.local_aru)
    memory.ordered = {seq: slot.ordered for seq, slot in above if slot.ordered is not None}
