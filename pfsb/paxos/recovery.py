"""Figure 14: a server starts from the state on its disk.

An empty disk is not a case of its own here: a new storage initialises itself, and its random identity shows the other
servers that it is new (Departure 12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch, GloballyOrderedUpdate, Proposal
from pfsb.paxos.ordered_update_queue import OrderedUpdateQueue
from pfsb.paxos.records import Accepted, Recovered
from pfsb.paxos.snapshot import SnapshotDecoder, SnapshotName, WrongSnapshot

ORDERED = 0
"""The `view` of an `Accepted` that is no proposal but an ordered batch."""


def recover(
    data: DataStructures,
    found: Recovered,
    ordered_queue: OrderedUpdateQueue,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Figure 14, Block A: rebuild memory from disk, and execute the stored history again.

    Executing rebuilds Last_Executed and the reply caches (G20). If the disk holds a snapshot, both come from it, and
    only the slots behind it are executed. State is not restored (Departure 21): a server always
    starts in an election, which the caller enters next. Pending_Updates are not restored: clients repeat their updates
    (Departure 3). Since a long history takes a while, `progress(done, of)` is called after every 1000th slot, with the
    number of slots executed so far and the number of all slots to be executed.
    """
    recover_views(data, found)
    if found.snapshot is not None:
        _restore(found.snapshot, found.snapshot_bytes, ordered_queue)
    execute_again(found.ordered, found.local_aru, ordered_queue, progress)
    assert data.ordering.local_aru == found.local_aru, "the history on disk reaches up to its aru"
    _accept_rest(data, found, ordered_queue)


def recover_views(data: DataStructures, found: Recovered) -> None:
    """Rebuild the part of memory that no snapshot holds: the views. They are not below the first one of the epoch."""
    first_view = 0 if found.members is None else found.members.first_view
    data.views.last_installed = max(found.last_installed, first_view)
    data.views.last_attempted = max(found.last_attempted, data.views.last_installed)


def recover_behind(
    data: DataStructures,
    found: Recovered,
    ordered_queue: OrderedUpdateQueue,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Departure 58: do the rest of `recover` for a server whose snapshot was lost, and that has just put another one in
    place, of the same slot or a later one."""
    execute_again(found.ordered_after(data.ordering.local_aru), found.local_aru, ordered_queue, progress)
    assert data.ordering.local_aru >= found.local_aru, "the history on disk reaches up to its aru"
    _accept_rest(data, found, ordered_queue)


def execute_again(
    ordered: Iterable[tuple[int, Batch]],
    up_to: int,
    ordered_queue: OrderedUpdateQueue,
    progress: Callable[[int, int], None],
) -> None:
    """Execute slots of a history on disk, which are (seq, batch) in ascending order. `progress` is called now and then
    with the present slot, and with `up_to`, the last one."""
    for seq, batch in ordered:
        ordered_queue.recover(seq, batch)
        if seq % 1000 == 0:
            progress(seq, up_to)


def _accept_rest(data: DataStructures, found: Recovered, ordered_queue: OrderedUpdateQueue) -> None:
    """Take what the disk holds above Local_Aru, and execute what is known as ordered of it."""
    for accepted in found.accepted:
        if accepted.seq > data.ordering.local_aru:
            _accept(data, accepted)
    ordered_queue.catch_up()


def _restore(name: SnapshotName, portions: Iterable[bytes], ordered_queue: OrderedUpdateQueue) -> None:
    """Begin with the state of a snapshot. Raises `StorageRefused` if it is not the right one."""
    decoder, restorer = SnapshotDecoder(), ordered_queue.restorer()
    try:
        for portion in portions:
            for piece in decoder.feed(portion):
                restorer.take(piece)
        if not decoder.is_complete:
            raise WrongSnapshot("it ends too early")
        if decoder.name != name or restorer.seq != name.seq:
            raise WrongSnapshot("it is another one than the storage names")
        restorer.adopt()
    except WrongSnapshot as error:
        raise StorageRefused(
            f"the snapshot of slot {name.seq} on this disk cannot be used: {error}; leave the server stopped, and the "
            "others go on without it as long as they are a majority"
        ) from error


def _accept(data: DataStructures, accepted: Accepted) -> None:
    me = data.server.server_id
    if accepted.view == ORDERED:
        data.apply_globally_ordered_update(GloballyOrderedUpdate(me, accepted.seq, accepted.batch))
    else:
        # The sender of the proposal, the leader of that view, is not on disk, and this server's id stands in its place.
        # That does no harm: (view, seq) identifies a proposal, and no server looks at the sender of one that it holds:
        # a vote goes to the leader of the proposal's view (Departure 55).
        data.apply_proposal(Proposal(me, accepted.view, accepted.seq, accepted.batch))
    data.ordering.global_history.ensure(accepted.seq).on_disk = accepted.batch
