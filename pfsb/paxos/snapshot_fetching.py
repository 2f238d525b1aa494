"""Departure 57: a server that is too far behind for reconciliation fetches a snapshot from a server that has one.

Servers drop the slots below their snapshots (Departure 56). A server that asks for such slots (section 5.6) gets an
offer of the snapshot in place of them. It fetches the file part by part, at the pace of the network and of the server
that sends it, goes on after a restart where it was, and at another server if the first one falls silent. When the file
is whole and right on this server's disk, its state is built beside the present one, and put in its place in one turn.
From there on reconciliation brings the slots that follow.

Safety: the snapshot stands for the slots up to its own as ordered batches stand for theirs: a server that has executed
all of them has made it. Promises and votes of this server stay as they are; slots up to the snapshot's are
ordered, and are dropped from memory as if they had been executed here. A SnapshotRecord and the new Local_Aru are
forced together, and nothing that rests on them leaves before (Departure 1).

Departure 58: a server whose own snapshot is missing or damaged when it starts has its promises and votes in its log,
and no state. It asks all others for a snapshot that is not older, sends no vote before it has installed one, and then
executes the slots of its own log that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.frozen_history import HistoryRestorer
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.interfaces import IFetchedSnapshot, IStableStorage
from pfsb.paxos.messages import SnapshotOffer, SnapshotPart, SnapshotRequest, State
from pfsb.paxos.ordered_update_queue import OrderedUpdateQueue
from pfsb.paxos.part_requests import PartRequests
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.plausibility import BURST_SLOTS_MAX
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.records import AruRecord, SnapshotRecord
from pfsb.paxos.snapshot import SnapshotDecoder, SnapshotName, WrongSnapshot, any_snapshot_from
from pfsb.paxos.snapshot_names import SnapshotNames
from pfsb.paxos.snapshot_taking import AGAIN_SECONDS, WAITING_BYTES_MAX, SnapshotTaker

AHEAD_PARTS_MAX = 64
"""Maximum number of parts, behind the first one that is missing, that are asked for: so many may wait in memory."""
LOAD_BYTES = 65_536
"""Number of bytes of a snapshot that are read and taken into the new state in one turn. If they hold small sessions,
that takes 15 ms."""
SILENCE_PERIODS = 8
"""How long, in units of `reconciliation_seconds`, no part may come from a server before another one is asked."""
ASKED_ELSEWHERE_MAX = BURST_SLOTS_MAX
"""Maximum number of slots, up to that of a snapshot that is offered, for which all other servers are asked first: so
many come in one burst. A server that lacks more takes the snapshot."""
TAKEN_FOR_SECONDS = 10.0
"""How long, in seconds, after a snapshot was begun for a server that has lost its state no other one is begun for any
such server: a server in error could ask for one again and again."""
LOG_SECONDS = 10.0
"""Time, in seconds, between two lines of the text log which say that this server has lost its state, and waits."""
PAUSE_PERIODS = 8
"""How long, in units of `reconciliation_seconds`, this server asks for nothing after a snapshot found no room on its
disk. Otherwise it would fetch the same again at once, and so on without end."""


@define(eq=False)
class Fetch:
    """A snapshot that is being fetched. Its parts are numbered from 0: part 0 begins at `begin`, where the file ended
    when the fetch began, and each but the last has `part_bytes` bytes."""

    name: SnapshotName
    file: IFetchedSnapshot
    part_bytes: int
    source: int
    """The server that is asked for parts."""
    others: set[int] = field(factory=set)
    """Further servers that have offered this snapshot."""
    begin: int = field(init=False)
    written: int = field(default=0, init=False)
    """Number of parts that were given to the file, all of them from part 0 on."""
    arrived: dict[int, bytes] = field(factory=dict, init=False)
    """Parts that have arrived before an earlier one, and wait for it."""
    progress_at: float = 0.0
    """Time by the clock at which the last part has arrived."""

    @begin.default
    def _make_begin(self) -> int:
        return self.file.size

    @property
    def parts(self) -> int:
        return -(-(self.name.size - self.begin) // self.part_bytes)

    @property
    def lacking(self) -> int:
        return self.parts - self.written - len(self.arrived)

    def missing(self) -> Iterator[int]:
        last = min(self.parts, self.written + AHEAD_PARTS_MAX)
        return (part for part in range(self.written, last) if part not in self.arrived)

    def bounds(self, part: int) -> tuple[int, int]:
        """(offset, size) of a part, in bytes."""
        offset = self.begin + part * self.part_bytes
        return offset, min(self.part_bytes, self.name.size - offset)

    def take(self, part: int, data: bytes) -> None:
        """Take a part that has arrived, and write all that have no gap before them."""
        self.arrived[part] = data
        while (following := self.arrived.pop(self.written, None)) is not None:
            self.file.write(following)
            self.written += 1


def _nobody_waits(_: SnapshotName | None) -> None:
    """Does nothing: the server that needs the snapshot asks again."""


@define(eq=False)
class Load:
    """A snapshot that is complete on disk, and whose state is being built."""

    name: SnapshotName
    source: int
    """The server that has sent the last part."""
    restorer: HistoryRestorer
    decoder: SnapshotDecoder = field(factory=SnapshotDecoder)
    has_ended: bool = False
    """Whether the state is whole, so that the next turn puts it in place."""


class SnapshotFetcher(Handler):
    """Fetches a snapshot from another server, and sends parts of this server's snapshot to others."""

    _log = Logger()

    def __init__(
        self,
        core: Core,
        ordered_queue: OrderedUpdateQueue,
        storage: IStableStorage,
        ordering: GlobalOrderingHandler,
        reconciliation: ReconciliationHandler,
        taker: SnapshotTaker,
        names: SnapshotNames,
        peers: Peers,
    ) -> None:
        super().__init__(core)
        self._ordered_queue = ordered_queue
        self._storage = storage
        self._ordering = ordering
        self._reconciliation = reconciliation
        self._taker = taker
        self._names = names
        self._peers = peers
        self.fetch: Fetch | None = None
        """The snapshot whose parts are being fetched; None: none is."""
        self.loading: SnapshotName | None = None
        """The snapshot that was fetched, and is being checked or loaded; None: none is."""
        self.requests = PartRequests(core.settings.resend_seconds)
        self._checking: IFetchedSnapshot | None = None
        """The file that is being checked; None: none is."""
        self._load: Load | None = None
        """The new state that is being built; None: none is."""
        self._call: IDelayedCall | None = None
        self.installed = 0
        """Number of snapshots of other servers that were installed since this server's start."""
        self.wrong = 0
        """Number of fetched files, since the start, that were not what their names say."""
        self._pause_until = 0.0
        """Time by the clock before which no snapshot is fetched (`PAUSE_PERIODS`)."""
        self._reading: dict[int, int] = {}
        """Server -> number of parts that are being read for it."""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.lost: SnapshotName | None = None
        """Departure 58: the snapshot with which this server should have started, while it has no state in its place;
        None: it has its state."""
        self._log_from = 0.0
        self._taken_for_at = NEVER
        """Time by the clock at which a snapshot was last begun for a server that has lost its state."""
        self.on_loaded: Callable[[], None] = lambda: None
        """Called when a part of a snapshot was taken into the new state."""
        self.on_state: Callable[[], None] = lambda: None
        """Called in the turn in which a server that had lost its state has put a snapshot in place: executes the slots
        behind it that are on this server's own disk."""
        self.on_ready: Callable[[], None] = lambda: None
        """Called in the same turn, when the records of the snapshot were given to the storage."""

    @property
    def is_busy(self) -> bool:
        """Whether this server has lost its state, or a snapshot is being fetched or loaded, or another try waits:
        reconciliation waits for that."""
        return self.lost is not None or self._is_at_work

    @property
    def _is_at_work(self) -> bool:
        is_fetching = self.fetch is not None or self.loading is not None
        return is_fetching or self._clock.seconds() < self._pause_until

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # ------------------------------------------------------------------ the server that has a snapshot

    def offer(self, to: int) -> bool:
        """Offer this server's snapshot to server `to`, which lacks slots that it stands for. Returns False if there is
        none."""
        name = self._storage.snapshot
        if name is None:
            return False
        me, local_aru = self._data.server.server_id, self._data.ordering.local_aru
        self._turn.send(SnapshotOffer(me, local_aru, name), to)
        return True

    def on_snapshot_request(self, message: SnapshotRequest) -> None:
        """Send a part of a snapshot, as long as its receiver has not used up what it may ask for (Departure 37)."""
        to, name, offset = message.server_id, message.name, message.offset
        if not self._reconciliation.may_serve(to) or self._reading.get(to, 0) >= AHEAD_PARTS_MAX:
            return
        if not name.size:
            self._offer_from(to, name.seq)
            return
        self._reading[to] = self._reading.get(to, 0) + 1
        if name == self._storage.snapshot or self._reconciliation.keeps_for(to):
            self._reconciliation.keep_for(to, name.seq)

        def found(data: bytes) -> None:
            self._reading[to] -= 1
            self._turn.run(self._send_part, to, name, offset, data)

        size = min(message.size, self._settings.frame_data_bytes_max)
        self._storage.read_snapshot(name, offset, size, found)

    def _offer_from(self, to: int, seq: int) -> None:
        """Departure 58: offer this server's snapshot to a server that has lost its state, if it is of slot `seq` or a
        later one. Otherwise take one now, which is offered when that server asks again."""
        present, now = self._storage.snapshot, self._clock.seconds()
        is_able = self._data.ordering.local_aru >= seq and self._taker.file is None and self._turn.trouble is None
        if present is not None and present.seq >= seq:
            self.offer(to)
        elif is_able and now - self._taken_for_at >= TAKEN_FOR_SECONDS:
            self._taken_for_at = now
            self._taker.take_now(_nobody_waits)

    def _send_part(self, to: int, name: SnapshotName, offset: int, data: bytes) -> None:
        self._reconciliation.note_served(to, len(data))
        self.bytes_sent += len(data)
        self._turn.send(SnapshotPart(self._data.server.server_id, name, offset, data), to)

    # ------------------------------------------------------------------ the server that is behind

    def on_snapshot_offer(self, message: SnapshotOffer) -> None:
        """Begin to fetch a snapshot that a server offers which was asked for slots; or note one more server that has
        the snapshot that is being fetched already."""
        sender, name = message.server_id, message.name
        was_asked = self._is_trusted(sender) if self.lost is not None else self._reconciliation.was_offered(sender)
        if not was_asked or not self.is_wanted(name):
            return
        fetch = self.fetch
        if not self._is_at_work:
            lacks_few = name.seq - self._data.ordering.local_aru <= ASKED_ELSEWHERE_MAX
            if self.lost is None and lacks_few and self._reconciliation.ask_elsewhere():
                return
            self._begin(name, sender)
        elif fetch is not None and fetch.name == name and sender != fetch.source:
            fetch.others.add(sender)

    def on_snapshot_part(self, message: SnapshotPart) -> None:
        fetch = self.fetch
        if fetch is None or message.name != fetch.name:
            return
        if not message.data:
            if message.server_id == fetch.source:
                # Without the doubt, a server whose file is gone would be asked again at once, and so on without end.
                self._peers.doubt(fetch.source, self._data.ordering.local_aru)
                self._go_to_another(fetch)
            return
        if fetch.file.has_failed:
            self._look_at(fetch)
            return
        part, rest = divmod(message.offset - fetch.begin, fetch.part_bytes)
        end = min(fetch.parts, fetch.written + AHEAD_PARTS_MAX)
        if rest or not fetch.written <= part < end or part in fetch.arrived:
            return
        if len(message.data) != fetch.bounds(part)[1]:
            return
        self.bytes_received += len(message.data)
        fetch.progress_at = self._clock.seconds()
        fetch.take(part, message.data)
        self.requests.answered(message.server_id, part, self._clock.seconds())
        if fetch.lacking:
            self._ask(fetch)
        else:
            self._finish(fetch)

    def is_wanted(self, name: SnapshotName) -> bool:
        """Whether this server can use a snapshot: it is ahead of this server, which neither leads nor has trouble with
        its disk, and no other server contradicts its name (Departure 40)."""
        leads = self._data.server.state is State.REG_LEADER
        is_later = name.seq > self._data.ordering.local_aru if self.lost is None else name.seq >= self.lost.seq
        return is_later and not leads and self._turn.trouble is None and not self._names.is_contradicted(name)

    # ------------------------------------------------------------------ the server that has lost its state

    def begin_without_state(self, lost: SnapshotName) -> None:
        """Departure 58: ask the other servers for a snapshot in place of this server's own, which is lost."""
        self.lost = lost
        self._turn.lacks_state = True
        self._log_from = self._clock.seconds() + LOG_SECONDS
        self._look_after(0.0)

    def _is_trusted(self, server_id: int) -> bool:
        """Whether a server that was asked for any snapshot has lately sent neither a wrong one nor an offer of one that
        it has not."""
        return self._clock.seconds() >= self._peers.by_id[server_id].in_doubt_until

    def _ask_for_state(self) -> None:
        """Ask all others for an offer, again and again."""
        assert self.lost is not None
        if self._turn.trouble is None and self._clock.seconds() >= self._pause_until:
            name = any_snapshot_from(self.lost.seq)
            for server_id in self._membership.others:
                self._turn.send(SnapshotRequest(self._data.server.server_id, name, 0, 0), server_id)
        if self._clock.seconds() >= self._log_from:
            self._log_from = self._clock.seconds() + LOG_SECONDS
            self._log.warn(
                "this server has lost its snapshot of slot {seq}, and no other server has offered one that is not "
                "older yet. If all have lost theirs, make a new cluster of a backup (pfsb restore)",
                seq=self.lost.seq,
            )
        self._look_after(self._settings.reconciliation_seconds)

    def _begin(self, name: SnapshotName, source: int) -> None:
        file = self._storage.fetch_snapshot(name)
        fetch = self.fetch = Fetch(name, file, self._settings.frame_data_bytes_max, source)
        fetch.progress_at = self._clock.seconds()
        self.requests.begin()
        self._log.info(
            "fetches the snapshot of slot {seq}, {size} bytes, from server {source}",
            seq=name.seq,
            size=name.size - fetch.begin,
            source=source,
        )
        if self._tracer is not None:
            self._tracer.trace("fetch", seq=name.seq, peer=source, size=name.size, begin=fetch.begin)
        if fetch.lacking:
            self._ask(fetch)
        else:
            self._finish(fetch)

    def _ask(self, fetch: Fetch) -> None:
        """Ask for the parts that may be asked for now (`PartRequests`), and look again after a time. While the disk is
        slower than the network, none are asked for."""
        me = self._data.server.server_id
        if fetch.file.waiting_bytes > WAITING_BYTES_MAX:
            fetch.progress_at = self._clock.seconds()
            self._look_after(AGAIN_SECONDS)
            return
        for source, part in self.requests.choose({fetch.source: fetch}, 1, self._clock.seconds()):
            self._turn.send(SnapshotRequest(me, fetch.name, *fetch.bounds(part)), source)
        self._look_after(self.requests.patience)

    def _look_after(self, seconds: float) -> None:
        if self._call is None:
            self._call = self._clock.callLater(seconds, self._look)
        else:
            self._call.reset(seconds)

    def _look(self) -> None:
        self._call = None
        if self.fetch is not None:
            self._turn.run(self._look_at, self.fetch)
        elif self._checking is not None:
            self._turn.run(self._look_at_check, self._checking)
        elif self.lost is not None and self.loading is None:
            self._turn.run(self._ask_for_state)

    def _look_at(self, fetch: Fetch) -> None:
        if fetch.file.has_failed:
            self._has_no_room(fetch.name)
        elif not self.is_wanted(fetch.name):
            self._give_up()
        elif self._clock.seconds() - fetch.progress_at > SILENCE_PERIODS * self._settings.reconciliation_seconds:
            self._go_to_another(fetch)
        else:
            self._ask(fetch)

    def _look_at_check(self, file: IFetchedSnapshot) -> None:
        """Give the snapshot up for a while if the check of its file has failed, because the disk had no room. Else look
        again later."""
        if file.has_failed and self.loading is not None:
            self._has_no_room(self.loading)
        else:
            self._look_after(self._settings.reconciliation_seconds)

    def _has_no_room(self, name: SnapshotName) -> None:
        self._log.error(
            "the disk has no room for the snapshot of slot {seq}, {size} bytes, which this server needs; it tries "
            "again after a while",
            seq=name.seq,
            size=name.size,
        )
        self._pause_until = self._clock.seconds() + PAUSE_PERIODS * self._settings.reconciliation_seconds
        self._give_up()

    def _go_to_another(self, fetch: Fetch) -> None:
        """Ask another server that has offered the same snapshot; if there is none, give up for now. Parts that
        have arrived stay on disk, for the next offer of this snapshot."""
        if not fetch.others:
            self._give_up()
            return
        fetch.source = min(fetch.others)
        fetch.others.remove(fetch.source)
        fetch.progress_at = self._clock.seconds()
        self.requests.begin()
        self._ask(fetch)

    def _give_up(self) -> None:
        self.fetch = self.loading = self._checking = self._load = None
        self.stop()
        if self.lost is not None:
            self._look_after(self._settings.reconciliation_seconds)
        else:
            self._reconciliation.ask_a_peer()

    # ------------------------------------------------------------------ when the file is there

    def _finish(self, fetch: Fetch) -> None:
        """Have the file checked and forced to disk, when all parts are there."""
        self.fetch, self.loading, self._checking = None, fetch.name, fetch.file
        self._look_after(self._settings.reconciliation_seconds)

        def finished(is_right: bool) -> None:
            self._turn.run(self._checked, fetch, is_right)

        fetch.file.finish(finished)

    def _checked(self, fetch: Fetch, is_right: bool) -> None:
        self._checking = None
        self.stop()
        if not is_right:
            self.wrong += 1
            self._log.error(
                "the snapshot of slot {seq} from server {source} is not what its name says; it is fetched again",
                seq=fetch.name.seq,
                source=fetch.source,
            )
            self._peers.doubt(fetch.source, self._data.ordering.local_aru)
            self._give_up()
            return
        self._load = Load(fetch.name, fetch.source, self._ordered_queue.restorer())
        self._read(self._load, 0)

    def _read(self, load: Load, offset: int) -> None:
        def found(data: bytes) -> None:
            self._turn.run(self._take, load, offset, data)

        self._storage.read_snapshot(load.name, offset, LOAD_BYTES, found)

    def _take(self, load: Load, offset: int, data: bytes) -> None:
        """Take the next bytes of the snapshot into the new state; when it is complete, put it in place, in a turn of
        its own."""
        if self._load is not load:
            return
        if not self.is_wanted(load.name):
            self._give_up()
            return
        if load.has_ended:
            self._install(load.name, load.restorer)
            return
        try:
            for piece in load.decoder.feed(data):
                load.restorer.take(piece)
            if load.decoder.is_complete:
                load.has_ended = load.restorer.end()
            elif not data:
                raise WrongSnapshot("it ends too early")
        except WrongSnapshot as error:
            self._log.error("the snapshot of slot {seq} cannot be used: {error}", seq=load.name.seq, error=error)
            # Without the doubt, the same offer would follow at once, and so on without end.
            self._peers.doubt(load.source, self._data.ordering.local_aru)
            self._give_up()
            return
        self.on_loaded()
        self._read(load, offset + len(data))

    def _install(self, name: SnapshotName, restorer: HistoryRestorer) -> None:
        """Put the new state, which is complete, in the place of the present one, and force what says so.

        Any exception in this method fails the turn, and stops the server: a part of the new state may be in place.
        """
        self._taker.stop()
        # Before the records of an epoch that the snapshot begins: a storage must see that Local_Aru was below its slot.
        self._turn.append(SnapshotRecord(name))
        restorer.adopt()
        self.loading = self._load = None
        self.installed += 1
        self._log.info("has installed the snapshot of slot {seq}", seq=name.seq)
        if self._tracer is not None:
            self._tracer.trace("install", seq=name.seq, digest=self._ordered_queue.digests.head.hex())
        lost, self.lost = self.lost, None
        if lost is not None:
            self._turn.lacks_state = False
            self.on_state()
        self._turn.append(AruRecord(self._data.ordering.local_aru), lazy=True)
        if lost is not None:
            self.on_ready()
        self._ordering.snapshot_installed()
        self._taker.begin()
        self._reconciliation.installed()
