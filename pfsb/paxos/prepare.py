"""Figures 7, 8 and 9: the Prepare phase, in which a new leader learns all batches that earlier views may have chosen.

The phase runs once for a view, and covers all sequence numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from attrs import evolve

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.allowance import Allowance
from pfsb.paxos.contested_slots import ContestedSlots
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import PrepareOKs
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.messages import DataEntry, GloballyOrderedUpdate, Prepare, PrepareOK, Proposal, State
from pfsb.paxos.part_requests import PartRequests
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.records import ViewRecord
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.paxos.window import Window

COPIES_OF_PREPARE = 8
"""Maximum number of PREPAREs of one view that a follower answers within `resend_seconds`: several, since clocks may
differ in rate."""


class PrepareHandler(Handler):
    """Asks for promises as the leader of a new view (PREPARE), and gives them as a follower (PREPARE_OK)."""

    def __init__(
        self,
        core: Core,
        ordering: GlobalOrderingHandler,
        update_queue: UpdateQueue,
        alive: AliveHandler,
        progress_timer: ProgressTimer,
        window: Window,
    ) -> None:
        super().__init__(core)
        self._ordering = ordering
        self._window = window
        self._update_queue = update_queue
        self._alive = alive
        self._progress_timer = progress_timer
        self._answered = (0, 0.0)
        """(view of the PREPARE that this server answered last, clock time of the answer)."""
        self._next_part = 0
        """The part of this server's own promise that answers the next PREPARE."""
        self._fetched: set[int] = set()
        """The parts of this server's own promise that the leader has asked for one by one."""
        self.requests = PartRequests(core.settings.resend_seconds)
        self.contested = ContestedSlots(core)
        self.allowances = defaultdict(Allowance, {peer: Allowance() for peer in core.membership.others})
        """Server -> its `Allowance`: how many bytes of batches this server still sends that server in parts of promises
        (Departure 37)."""

    # ------------------------------------------------------------------ the leader asks

    def shift_to_prepare_phase(self) -> None:
        """Figure 7, Block A: install the view that this server leads, on disk, and then send its PREPARE.

        G10: a view that is installed already is never prepared again. After a crash a second Prepare phase could end
        with another batch in a slot of the same view. So the PREPARE waits at the gate for the view, although it
        promises nothing: its Local_Aru may rest on slots that a crash makes this server forget, and promises that
        answer it lack these slots (break PrepareBeforeSync in docs/spec/index.rst).
        """
        data = self._data
        assert self._membership.i_lead(data.views.last_attempted)
        assert data.views.last_attempted > data.views.last_installed, "a server never leads a view twice (G10)"
        self._install(data.views.last_attempted)
        data.apply_prepare(self._own_prepare())
        data.preparing.prepare_oks.clear()
        self.requests.begin()
        self.contested.clear()
        for part in self._construct_prepare_ok(data.ordering.local_aru):
            data.apply_prepare_ok(part)
        data.clients.last_enqueued.clear()
        self.send_prepare()
        self._if_prepared_lead()  # G6: in a cluster of one, this server's own promise is a majority

    def send_prepare(self, to: int | None = None) -> None:
        """Send the PREPARE, with the present Local_Aru, to one server, or to all others if `to` is None.

        A repeated PREPARE with a higher Local_Aru is safe, because the leader knows all slots up to that number as
        ordered (G19). A follower that has ordered more slots above the leader's Local_Aru than a data list can carry
        answers only a later PREPARE, when reconciliation has brought the leader close enough.
        """
        self._turn.send(self._own_prepare(), to)

    def ask_again(self) -> None:
        """Repeat the PREPARE, or ask for parts again that have not come; called until the view is prepared (section
        5.9).

        Departure 47: once a part of a long promise has arrived, the PREPARE goes only to servers of which nothing has
        arrived, and to those that leave requests for parts unanswered: such a server may have crashed, and a promise
        of its new incarnation begins with an answer to a PREPARE.
        """
        begun = self._promises_begun()
        if all(promise.complete for promise in begun.values()):
            self.send_prepare()
            return
        for server_id in self._membership.others:
            if server_id not in begun or self.requests.is_silent(server_id):
                self.send_prepare(server_id)

    def on_prepare_ok(self, message: PrepareOK) -> bool:
        """Figure 7, Block C: store a promise and apply its data list; lead when a majority has promised.

        Applying the data list is Figure 5, lines C5-C6; the rest of that block is `DataStructures.apply_prepare_ok`.

        Departure 47: the leader asks for the next parts as soon as one arrives, and each new part of a long promise
        starts the Progress_Timer again, so that the timer does not expire as long as parts arrive.

        Returns whether the promise, or the part of it, was stored, and was not before.
        """
        is_new = self._data.apply_prepare_ok(message)
        if is_new:
            members = self._membership.members
            for entry in message.data_list:
                self._compare_with_held(entry, message.server_id)
                self.apply_entry(entry)
                if self._membership.members is not members:
                    return True  # Departure 60: a change was executed, so the view is over and the rest is void
            if message.parts > 1:
                self.give_time()
        self._if_prepared_lead()
        if message.parts > 1 and self._data.server.state is State.LEADER_ELECTION:
            self.requests.answered(message.server_id, message.part, self._clock.seconds())
            self.ask_for_parts()
        return is_new

    def ask_for_parts(self) -> None:
        """Departure 47: ask for parts of promises that have begun to arrive, as many as may be under way.

        A PREPARE_OK that the leader of the view sends, without a data list, is such a request: it names the part.
        """
        data, begun = self._data, self._promises_begun()
        view = data.views.last_installed
        wanted = max(self._membership.lacking(self._promised(view)), bool(self.contested))
        for server_id, part in self.requests.choose(begun, wanted, self._clock.seconds()):
            promise = begun[server_id]
            request = PrepareOK(data.server.server_id, view, (), part, promise.parts, promise.edition)
            self._turn.send(request, server_id)

    def _promises_begun(self) -> dict[int, PrepareOKs]:
        """The promises of other servers for the view that this server prepares, as far as they have arrived."""
        data = self._data
        own, view = data.server.server_id, data.views.last_installed
        return {i: oks for i, oks in data.preparing.prepare_oks.items() if i != own and oks.view == view}

    # ------------------------------------------------------------------ the others promise

    def on_prepare(self, message: Prepare) -> None:
        """Figure 7, Block B: promise, once, to follow the leader of the view that the PREPARE names.

        A server that has installed the view already, perhaps by a VC_PROOF that overtook the PREPARE, answers all the
        same (G7). That is safe: since it installed the view it has accepted nothing of an older one, so its data list
        is complete. A leader that lacks more slots than a data list can carry is not answered; it catches up first, and
        its next PREPARE has a higher Local_Aru (G19, Departure 6).
        """
        data = self._data
        if data.server.state is State.LEADER_ELECTION:
            data.apply_prepare(message)
            self.shift_to_reg_nonleader()
        can_answer = data.server.state is State.REG_NONLEADER and self.can_answer(message)
        if can_answer and not self._answers_too_often(message.view):
            self._turn.send(self.next_part(self.own_prepare_ok(message)), message.server_id)

    def next_part(self, parts: list[PrepareOK]) -> PrepareOK:
        """Departure 47: the part of this server's promise that answers a PREPARE: each time the next one, in turn.

        A single part fits any socket buffer. A leader that does not ask for single parts gets all of them, whichever
        are lost, by repeating its PREPARE.
        """
        part = parts[self._next_part % len(parts)]
        self._next_part = part.part + 1
        return part

    def on_part_wanted(self, message: PrepareOK) -> None:
        """Departure 47: send the leader the part of this server's promise that it asks for.

        A request for a part of another promise than the one that this server has made has no effect: the leader will
        repeat its PREPARE. The first request for a part shows that the leader has got others, and starts the
        Progress_Timer again. That is bounded, since the promise has a fixed number of parts.
        """
        own = self._data.preparing.prepare_oks.get(self._data.server.server_id)
        if own is None or (own.view, own.edition, own.parts) != (message.view, message.edition, message.parts):
            return
        allowance = self.allowances[message.server_id]
        if not allowance.is_left(self._clock.seconds()):
            return  # Departure 37
        if message.part not in self._fetched:
            self._fetched.add(message.part)
            self.give_time()
        part = own.arrived[message.part]
        allowance.spend(sum(len(entry.batch.data) for entry in part.data_list))
        self._turn.send(part, message.server_id)

    def _answers_too_often(self, view: int) -> bool:
        """Departure 37: whether a PREPARE of this view was answered so lately that this one is a copy of it.

        A leader repeats a PREPARE every `resend_seconds`; a promise may be a thousand times as large as a PREPARE.
        """
        answered_view, answered_at = self._answered
        now = self._clock.seconds()
        if answered_view == view and now - answered_at < self._settings.resend_seconds / COPIES_OF_PREPARE:
            return True
        self._answered = view, now
        return False

    def can_answer(self, message: Prepare) -> bool:
        """Whether this server can send a complete data list above the leader's Local_Aru: safety needs that (G19)."""
        ordering = self._data.ordering
        longest = 2 * self._window.slots
        return message.local_aru >= ordering.global_history.floor and message.local_aru >= ordering.local_aru - longest

    def own_prepare_ok(self, message: Prepare) -> list[PrepareOK]:
        """The parts of this server's PREPARE_OK for the view of a PREPARE: built once, and the same each time."""
        own = self._data.preparing.prepare_oks.get(self._data.server.server_id)
        if own is None or own.view != message.view:
            for part in self._construct_prepare_ok(message.local_aru):
                self._data.apply_prepare_ok(part)
            own = self._data.preparing.prepare_oks[self._data.server.server_id]
            self._next_part = 0
            self._fetched.clear()
        return [own.arrived[part] for part in range(own.parts)]

    def give_time(self) -> None:
        """Departure 47: start the Progress_Timer again, since a part of a long promise has come for the first time, or
        is asked for for the first time.
        """
        self._progress_timer.start()

    # ------------------------------------------------------------------ Figure 8

    def construct_data_list(self, local_aru: int) -> Iterator[DataEntry]:
        """Figure 8, Block A: for each slot above the leader's Local_Aru, the ordered batch or else the proposal."""
        for seq, slot in self._data.ordering.global_history.above(local_aru):
            if slot.ordered is not None:
                yield GloballyOrderedUpdate(self._data.server.server_id, seq, slot.ordered)
            elif slot.proposal is not None:
                yield slot.proposal

    def _construct_prepare_ok(self, local_aru: int) -> list[PrepareOK]:
        """This server's PREPARE_OK for the installed view, for the slots above `local_aru`, cut into parts that fit a
        frame (G28, Departure 6)."""
        lists: list[list[DataEntry]] = [[]]
        size = 0
        for entry in self.construct_data_list(local_aru):
            if lists[-1] and size + len(entry.batch.data) > self._settings.frame_data_bytes_max:
                lists.append([])
                size = 0
            lists[-1].append(entry)
            size += len(entry.batch.data) + 64
        data = self._data
        server, view = data.server, data.views.last_installed
        whole = PrepareOK(server.server_id, view, (), parts=len(lists), edition=server.incarnation)
        return [evolve(whole, data_list=tuple(entries), part=part) for part, entries in enumerate(lists)]

    def view_prepared_ready(self, view: int) -> bool:
        """Figure 8, Block B: whether all parts of the PREPARE_OKs of a majority have arrived."""
        return self.is_majority(self._promised(view))

    def _promised(self, view: int) -> list[int]:
        """Ids of the servers of which all parts of the promise for `view` have arrived."""
        promises = self._data.preparing.prepare_oks
        return [server_id for server_id, oks in promises.items() if oks.view == view and oks.complete]

    # ------------------------------------------------------------------ Figure 9

    def _if_prepared_lead(self) -> None:
        """Lead if a majority has promised, and no slot is contested (Departure 39)."""
        if self.view_prepared_ready(self._data.views.last_installed) and (
            not self.contested or self.contested.settle()
        ):
            self.shift_to_reg_leader()

    def shift_to_reg_leader(self) -> None:
        """Figure 9, Block A: begin to lead, when the view is prepared.

        The end of the turn proposes (`ProposalHandler.send_proposal`): first the slots from Local_Aru to the highest
        known one, each with the batch that it holds or else a no-op (G11), then the updates that wait in the queue.
        """
        data = self._data
        data.server.state = State.REG_LEADER
        self._update_queue.remove_bound_updates_from_queue()
        self._update_queue.enqueue_unbound_pending_updates()
        data.ordering.last_proposed = data.ordering.local_aru
        data.preparing.prepare_oks.clear()
        self._alive.announce_leadership()
        self._progress_timer.start()

    def shift_to_reg_nonleader(self) -> None:
        """Figure 9, Block B: follow the leader of the attempted view."""
        data = self._data
        data.server.state = State.REG_NONLEADER
        self._update_queue.clear()
        if data.views.last_installed != data.views.last_attempted:
            self._install(data.views.last_attempted)
        self._progress_timer.start()  # G5: after a PREPARE, a VC_PROOF and a PROPOSAL alike
        self._alive.hurry_if_leader_is_gone()

    # ------------------------------------------------------------------ helpers

    def _install(self, view: int) -> None:
        """Set Last_Installed, and force it to disk: a promise that nothing of an older view is accepted any more."""
        views = self._data.views
        assert view > views.last_installed, "Last_Installed never goes back"
        views.last_installed = view
        self._turn.append(ViewRecord(views.last_attempted, view))
        self._progress_timer.start()

    def _own_prepare(self) -> Prepare:
        data = self._data
        return Prepare(data.server.server_id, data.views.last_installed, data.ordering.local_aru)

    def _compare_with_held(self, entry: DataEntry, server_id: int) -> None:
        """Departure 39: note the batch that a data list reports for a slot, and whether this server holds another batch
        there as the proposal of the same view.
        """
        if isinstance(entry, Proposal):
            self._data.preparing.prepare_oks[server_id].reported[entry.seq] = entry.batch.digest
            slot = self._data.ordering.global_history.get(entry.seq)
            held = None if slot is None else slot.proposal
            if held is not None and held.view == entry.view and held.batch.digest != entry.batch.digest:
                self._ordering.note_contradiction(held, entry.view, server_id)
                self.contested.add(held, entry)

    def apply_entry(self, entry: DataEntry) -> None:
        if isinstance(entry, Proposal):
            self._data.apply_proposal(entry)
        else:
            self._ordering.on_globally_ordered_update(entry)
