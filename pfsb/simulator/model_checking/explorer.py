"""The exploration of a small cluster: all orders of messages, timers, disk writes and crashes, to a given depth.

A state of the cluster is a state of each server, and the set of all messages that were ever sent. That set only grows:
a message stays in it after it has arrived, so it may arrive again (duplication), in any order, late, or never (loss),
without a step for any of these. The set also holds claims (`message_set`), for example about executed slots, so that
each execution at any server in any incarnation is compared with all later ones.

A step touches one server. Its outcome depends on the state of that server alone, so it is computed once for all states
of the cluster in which it can happen (`transitions`), and most steps are a look into a table. A state of the cluster
that is found again is not explored again.

The following is left out, because other steps cover it:

* *A step that only sends messages* (a repetition, ALIVE, an answer) is taken at once: it changes no server, and adding
  messages to a set that only grows prevents no other step.
* *A server that is down* is no state of its own: to the others it looks like a server that makes no step. A crash and
  the restart after it are one step.
* *The end of a disk write* is a step of its own only where its moment matters. That is so if the bounds allow a crash
  that could come before it, and a message (a leader's PROPOSAL) has left the server before it. Otherwise the write ends
  at once: a crash before its end leaves no trace of the turns that wait for it, so it equals a crash before these turns
  (docs/internals/turn.rst). A crash that leaves only a part of the write on disk is explored as well, and messages that
  leave after the write may be received at any later time.
* *Several messages of one frame* arrive one by one.
* *Times*: a timer may fire whenever it is armed, so the values in `snapshots.ABSTRACTED` make no difference.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.simulator.model_checking.message_set import Post
from pfsb.simulator.model_checking.steps import Crash
from pfsb.simulator.model_checking.transitions import NODE_BITS, Move, Node, make_nodes

NODE_MASK = (1 << NODE_BITS) - 1
REPORT_EVERY = 10_000
"""Number of explored states between two reports of the progress."""


@frozen
class Bounds:
    """The size of the explored cluster, and the limits of what may happen in it."""

    servers: int = 3
    asks: tuple[tuple[str, int], ...] = (("a", 0), ("b", 1))
    """Pairs (client, server): the client has one update, which may reach that server any number of times."""
    views: int = 3
    """The highest view that a server attempts because of a timer. Every VIEW_CHANGE for a higher view is lost."""
    crashes: int = 1
    """Maximum number of crashes on the way to any state, of all servers together."""
    idle: frozenset[int] = frozenset()
    """Servers that are down all the time."""
    led: bool = True
    """Whether server 0 leads view 1 at the beginning, and the others follow; otherwise all have just started."""
    lead_in: tuple[tuple[int, str], ...] = ()
    """Steps that are made before the search begins, as pairs (server, kind of step).

    A kind is the class of a message that arrives (`Proposal`), the class of a timer, `Ask`, `Sync` or `Crash`.
    """


@frozen
class Counterexample:
    """A broken promise, and the fewest steps that lead to it."""

    what: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{number:3}. {step}" for number, step in enumerate(self.steps, start=1)]
        return "\n".join([*lines, f"     {self.what}"])


@frozen
class Progress:
    """The progress of an exploration."""

    depth: int
    """Number of steps from the beginning within which all states of the cluster are explored."""
    states: int
    server_states: int
    """Number of states of single servers that were found so far, of all servers together."""
    steps: int
    """Number of steps that were looked at so far, whether they led to a new state or to a known one."""


class _Stop(Exception):
    """Ends the exploration with a counterexample."""

    def __init__(self, counterexample: Counterexample) -> None:
        super().__init__(counterexample.what)
        self.counterexample = counterexample


@frozen
class _Place:
    """A state of the cluster, decoded from its key: the integer that `Exploration._key` makes of the state."""

    number: int
    """Number of the state, in the order of discovery; -1 for a state from before the search begins."""
    nodes: tuple[Node, ...]
    messages: int
    crashes_left: int


class Exploration:
    """A breadth-first search over the states of a cluster: a counterexample has the fewest steps possible."""

    def __init__(
        self,
        bounds: Bounds,
        *,
        states_max: int = 10_000_000,
        patch: Callable[[Replica], None] | None = None,
        checks_gate: bool = True,
    ) -> None:
        """`patch` and `checks_gate` are handed to each `SteppedServer`, whose class explains them.

        The search ends when it has found `states_max` states of the cluster.
        """
        self.bounds = bounds
        self.nodes = make_nodes(range(bounds.servers), bounds.views, patch, checks_gate=checks_gate)
        self.depth = 0
        self.steps = 0
        self.counterexample: Counterexample | None = None
        self.is_cut_short = False
        """Whether the search has ended because it had found `states_max` states."""
        self.is_complete = False
        """Whether all states that can be reached, at any depth, are explored."""
        self._states_max = states_max
        self._awake = [i for i in range(bounds.servers) if i not in bounds.idle]
        self._seen: set[int] = set()
        self._next: list[int] = []
        """Keys (`_key`) of the states of the next depth, whose steps are still to be explored."""
        self._parents = array("I")
        self._causes = array("I")
        self._beginning: list[int] = []
        """The steps of `Bounds.lead_in`, by their indexes in `Nodes.steps`."""

    # ------------------------------------------------------------------ expanding states

    def levels(self, depth: int) -> Iterator[Progress]:
        """Explore up to `depth` steps, and yield the progress at the end of each depth, and after every `REPORT_EVERY`
        states.

        The search ends earlier at a broken promise, with `states_max` states, or when there are no more states.

        Raises ValueError if the lead-in cannot happen.
        """
        try:
            self._begin()
            number = 0
            while self._next and self.depth < depth:
                present, self._next = self._next, []
                for key in present:
                    self._expand(self._place(key, number))
                    number += 1
                    if number % REPORT_EVERY == 0:
                        yield self._progress()
                    if len(self._seen) >= self._states_max:
                        self.is_cut_short = True
                        yield self._progress()
                        return
                self.depth += 1
                yield self._progress()
            self.is_complete = not self._next
        except _Stop as stop:
            self.counterexample = stop.counterexample

    def _expand(self, place: _Place) -> None:
        messages, crashes_left = place.messages, place.crashes_left
        for server in self._awake:
            node = place.nodes[server]
            for bit, move in node.message_moves:
                if messages & bit:
                    self._go(place, server, move)
            for move in node.own:
                self._go(place, server, move)
            if crashes_left:
                for move in node.crashes:
                    self._go(place, server, move)
                for bit, move in node.torn:
                    if messages & bit or not bit:
                        self._go(place, server, move)

    def _go(self, place: _Place, server: int, move: Move) -> None:
        self.steps += 1
        after = self._after(place, server, move)
        key = self._key(after)
        if key not in self._seen:
            self._add(key, place.number, move[0])

    def _after(self, place: _Place, server: int, move: Move) -> _Place:
        """The state after the step `move` of `server` in the state `place`, and after the steps that follow at once:
        answers to messages and, if no further crash is allowed, the ends of disk writes.
        """
        step, target, more = move
        nodes = list(place.nodes)
        nodes[server] = self.nodes[target]
        left = place.crashes_left - (nodes[server].incarnations - place.nodes[server].incarnations)
        messages = place.messages | more
        try:
            if not left:
                messages = self._settle_all(nodes, messages)
            messages = self._let_echo(nodes, messages)
        except AssertionError as error:
            raise self._stop(str(error), place, step) from error
        new = messages & ~place.messages
        if new and (wrong := self.nodes.message_set.contradiction(new, messages)) is not None:
            raise self._stop(wrong, place, step)
        return _Place(place.number, tuple(nodes), messages, left)

    def _settle_all(self, nodes: list[Node], messages: int) -> int:
        for server in self._awake:
            settled, more = nodes[server].settled or self.nodes.settled(nodes[server])
            nodes[server] = self.nodes[settled]
            messages |= more
        return messages

    def _let_echo(self, nodes: Sequence[Node], messages: int) -> int:
        before = -1
        while messages != before:
            before = messages
            for server in self._awake:
                node = nodes[server]
                self.nodes.ask(node, messages)
                messages |= node.echo
                for bit, more in node.echoes:
                    if messages & bit:
                        messages |= more
        return messages

    # ------------------------------------------------------------------ states as numbers

    def _key(self, place: _Place) -> int:
        key = place.messages
        for node in place.nodes:
            key = key << NODE_BITS | node.number
        return key

    def _place(self, key: int, number: int) -> _Place:
        """The state of the cluster that has this key, decoded; `number` becomes its `_Place.number`.

        Raises `_Stop` if a step that is possible in this state breaks a promise.
        """
        last = len(self.nodes.servers) - 1
        nodes = tuple(self.nodes[key >> NODE_BITS * (last - i) & NODE_MASK] for i in range(last + 1))
        crashes_left = self.bounds.crashes + len(nodes) - sum(node.incarnations for node in nodes)
        place = _Place(number, nodes, key >> NODE_BITS * (last + 1), crashes_left)
        for server in self._awake:
            if nodes[server].wrong:
                self._stop_if_wrong(place, nodes[server])
        return place

    def _add(self, key: int, parent: int, cause: int) -> None:
        self._seen.add(key)
        self._next.append(key)
        self._parents.append(parent)
        self._causes.append(cause)

    # ------------------------------------------------------------------ the beginning

    def _begin(self) -> None:
        nodes, messages = [], 0
        for server in range(self.bounds.servers):
            node, more = self.nodes.first(server)
            nodes.append(node)
            messages |= more if server in self._awake else 0
        messages = self._settle_all(nodes, messages)
        place = _Place(-1, tuple(nodes), self._let_echo(nodes, messages), self.bounds.crashes)
        if self.bounds.led:
            place = self._let_all_arrive(place)
        messages = place.messages
        for client_id, server in self.bounds.asks:
            messages |= self.nodes.message_set.add(Post(server, server, ClientUpdate(client_id, server, 1, 0, b"")))
        place = _Place(-1, place.nodes, self._let_echo(place.nodes, messages), self.bounds.crashes)
        for server, what in self.bounds.lead_in:
            move = self._find(place, server, what)
            self._beginning.append(move[0])
            place = self._after(place, server, move)
        self._add(self._key(place), 0, 0)

    def _let_all_arrive(self, place: _Place) -> _Place:
        """Deliver all messages until nothing changes any more, and return the state then. No timer fires meanwhile."""
        before = None
        while place != before:
            before = place
            for server in self._awake:
                for bit, move in place.nodes[server].message_moves:
                    if place.messages & bit:
                        place = self._after(place, server, move)
                        break
        return place

    def _find(self, place: _Place, server: int, what: str) -> Move:
        node = place.nodes[server]
        possible = [move for bit, move in node.message_moves if place.messages & bit] + node.own
        possible += node.crashes if place.crashes_left else []
        kinds = [self.nodes.steps[step][1][0].kind for step, _, _ in possible]
        if what not in kinds:
            raise ValueError(f"server {server}: no {what} can happen there; what can: {', '.join(sorted(set(kinds)))}")
        return possible[kinds.index(what)]

    # ------------------------------------------------------------------ reports

    def _progress(self) -> Progress:
        return Progress(self.depth, len(self._seen), len(self.nodes), self.steps)

    def _stop_if_wrong(self, place: _Place, node: Node) -> None:
        for bit, step, wrong in node.wrong:
            is_crash = isinstance(self.nodes.steps[step][1][-1], Crash)
            if (place.messages & bit or not bit) and (place.crashes_left or not is_crash):
                raise self._stop(f"server {node.server}: {wrong}", place, step)

    def _stop(self, wrong: str, place: _Place, last: int) -> _Stop:
        steps = [last] if place.number >= 0 else []
        number = place.number
        while number > 0:
            steps.append(self._causes[number])
            number = self._parents[number]
        return _Stop(Counterexample(wrong, tuple(map(self._tell, [*self._beginning, *reversed(steps)]))))

    def _tell(self, number: int) -> str:
        server, steps = self.nodes.steps[number]
        return f"server {server} {', and '.join(map(str, steps))}"
