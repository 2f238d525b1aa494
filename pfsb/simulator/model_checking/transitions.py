"""The states of single servers (nodes), and the transitions between them.

A transition depends on one server only. It is computed once, for all states of the cluster in which it can happen.

A set of messages or claims is an integer, in which bit n stands for the item that has number n in the `MessageSet`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field

from pfsb.paxos.messages import ClientUpdate, State
from pfsb.paxos.replica import Replica
from pfsb.simulator.model_checking.message_set import MessageSet, bits
from pfsb.simulator.model_checking.snapshots import Frozen
from pfsb.simulator.model_checking.stepped_server import HEARTBEAT, PROGRESS_TIMER, SteppedServer
from pfsb.simulator.model_checking.steps import Ask, Crash, Deliver, Fire, Step, StepOutcome, Sync

NODE_BITS = 22
"""Number of bits for the number of a node in `Exploration._key`, the integer for a state of the cluster."""

Move = tuple[int, int, int]
"""A transition: (index of the step in `Nodes.steps`, number of the node after it, the messages and claims that the step
adds, as bits)."""
Wrong = tuple[int, int, str]
"""A step from one node that breaks a promise: (the bit of the message that arrives, or 0 if the step is no arrival;
index of the step in `Nodes.steps`; sentence about the broken promise)."""


@define(eq=False)
class Node:
    """One state of one server, and its transitions as far as they were computed."""

    number: int
    server: int
    state: Frozen
    incarnations: int
    asked: bool = False
    """Whether `echo`, `own` and `crashes` have been computed."""
    echo: int = 0
    """The messages and claims that timers add without a change of the server's state, such as ALIVE.

    As an integer, in which bit n stands for the item with number n of the `MessageSet`.
    """
    own: list[Move] = field(factory=list)
    """Transitions by a timer or by the end of a disk write that lead to another state."""
    crashes: list[Move] = field(factory=list)
    torn: list[tuple[int, Move]] = field(factory=list)
    """Transitions by a step together with a crash during the disk write of that step, after which only a part of the
    write is on disk.

    Each is a pair (bit, transition). If the step is the arrival of message n, the bit is 1 << n; else it is 0.
    """
    known_messages: int = 0
    """The messages whose arrival in this state has been computed, as an integer: bit n stands for message n.

    The results are in `message_moves` (arrivals that change the state), `echoes` (arrivals that only bring an answer),
    `torn` (crashes during the write of an arrival) and `wrong`.
    """
    message_moves: list[tuple[int, Move]] = field(factory=list)
    """Transitions from this state to another state by the arrival of a message.

    Each is a pair (bit, transition): the arrival of message n has the bit 1 << n.
    """
    echoes: list[tuple[int, int]] = field(factory=list)
    """Arrivals of messages that do not change this state, but that the server answers.

    Each is a pair (bit, added): the arrival of message n has the bit 1 << n, and `added` has a bit for each message and
    claim that the answer adds.
    """
    wrong: list[Wrong] = field(factory=list)
    settled: tuple[int, int] | None = None
    """The effect of the end of all disk writes of this node; None until `Nodes.settled` has computed it.

    A pair: the number of the node after these writes, and the messages and claims that they add, as bits of an integer.
    """


@define(eq=False)
class Nodes:
    """Table of the nodes, which are the states of single servers. It computes their transitions when these are needed.

    `message_set` numbers the messages of these transitions, and the claims: statements that must not contradict each
    other. `views` is the highest view that a server attempts because its Progress_Timer has expired.
    """

    servers: Sequence[SteppedServer]
    message_set: MessageSet
    views: int
    steps: list[tuple[int, tuple[Step, ...]]] = field(factory=list)
    """The steps by their index, each as (server, its step). A crash that leaves only a part of a disk write on disk is
    stored as two steps: the one that began the write, and the crash."""
    reached: set[str] = field(factory=set)
    """Situations that occur in some node, in words, such as "server 1 leads view 2", for the report."""
    _nodes: list[Node] = field(factory=list)
    _numbers: dict[tuple[int, Frozen], int] = field(factory=dict)
    _step_numbers: dict[tuple[int, tuple[Step, ...]], int] = field(factory=dict)

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number]

    def __len__(self) -> int:
        return len(self._nodes)

    def first(self, server: int) -> tuple[Node, int]:
        """Start the server on an empty disk. Returns a pair: the node after the start, and the messages and claims that
        the start adds, as an integer with a bit for each of them (`MessageSet`)."""
        outcome = self.servers[server].first()
        return self._node(server, outcome.state), self._all_messages(server, outcome)

    def ask(self, node: Node, messages: int) -> None:
        """Compute those transitions of a node that are still missing: all that need no message, and those by the
        arrival of one of `messages`, an integer with a bit for each message. Messages to other servers are ignored."""
        if not node.asked:
            node.asked = True
            self._ask_own(node)
        new = messages & self.message_set.inbox[node.server] & ~node.known_messages
        if new:
            node.known_messages |= new
            for number in bits(new):
                self._add_message(node, number)

    def settled(self, node: Node) -> tuple[int, int]:
        """Compute the effect of letting all disk writes of a node end, those of its lazy records included.

        Returns a pair: the number of the node that the server is in after the last of these writes, and the messages
        and claims that they add, as an integer with a bit for each of them (`MessageSet`). Raises AssertionError if a
        promise is broken on the way.
        """
        if node.settled is None:
            messages, state = 0, None
            following = node.state
            while following != state:
                state = following
                step = Sync() if self.servers[node.server].is_writing(state) else Fire(HEARTBEAT)
                outcome = self.servers[node.server].make(state, step)
                following = outcome.state
                messages |= self._all_messages(node.server, outcome)
            node.settled = self._node(node.server, following).number, messages
        return node.settled

    def _ask_own(self, node: Node) -> None:
        server = self.servers[node.server]
        attempted = server.look(node.state).data.views.last_attempted
        for step in server.steps(node.state):
            if step == Fire(PROGRESS_TIMER) and attempted >= self.views:
                continue
            move = self._move(node, 0, step)
            if move is None:
                continue
            if isinstance(step, Crash):
                node.crashes.append(move)
            elif move[1] == node.number:
                node.echo |= move[2]
            else:
                node.own.append(move)

    def _add_message(self, node: Node, number: int) -> None:
        post = self.message_set.post(number)
        step: Step = Deliver(post.sender, post.message)
        if post.sender == post.receiver:
            assert isinstance(post.message, ClientUpdate)
            step = Ask(post.message)
        move = self._move(node, 1 << number, step)
        if move is None:
            return
        if move[1] != node.number:
            node.message_moves.append((1 << number, move))
        elif move[2]:
            node.echoes.append((1 << number, move[2]))

    def _move(self, node: Node, bit: int, step: Step) -> Move | None:
        """Make a step from a node, and end its disk write if the explorer ends that at once. Returns the transition.

        `bit` is 1 << n if the step is the arrival of message n, else 0. A step that breaks a promise is added to
        `node.wrong`, and the result is None.
        """
        server, number = self.servers[node.server], self._number_of(node.server, step)
        try:
            outcome = server.make(node.state, step)
            messages = self._all_messages(node.server, outcome)
            if server.is_done_at_once(outcome.state):
                self._tear(node, bit, step, outcome.state, messages)
            while server.is_done_at_once(outcome.state):
                outcome = server.make(outcome.state, Sync())
                messages |= self._all_messages(node.server, outcome)
        except AssertionError as error:
            node.wrong.append((bit, number, str(error)))
            return None
        return number, self._node(node.server, outcome.state).number, messages

    def _tear(self, node: Node, bit: int, step: Step, state: Frozen, messages: int) -> None:
        """Compute the crashes during the disk write of `step` after which only its first records are on disk.

        `state` is the server's state during the write, `messages` are those that `step` has added, and `bit` is that of
        `_move`. The results are added to `node.torn` or `node.wrong`. A crash that leaves no record of the write on
        disk is left out, since it equals a crash before the step.
        """
        server = self.servers[node.server]
        for crash in server.crashes(state)[1:]:
            number = self._number_of(node.server, step, crash)
            try:
                outcome = server.make(state, crash)
            except AssertionError as error:
                node.wrong.append((bit, number, str(error)))
            else:
                target = self._node(node.server, outcome.state).number
                node.torn.append((bit, (number, target, messages | self._all_messages(node.server, outcome))))

    def _node(self, server: int, state: Frozen) -> Node:
        number = self._numbers.get((server, state))
        if number is None:
            number = self._numbers[server, state] = len(self._nodes)
            assert number < 1 << NODE_BITS, "more states of single servers than a number has room for"
            replica = self.servers[server].look(state)
            self._note(replica)
            self._nodes.append(Node(number, server, state, replica.data.server.incarnation))
        return self._nodes[number]

    def _all_messages(self, server: int, outcome: StepOutcome) -> int:
        return self.message_set.all_of(server, outcome, self.views)

    def _number_of(self, server: int, *steps: Step) -> int:
        number = self._step_numbers.get((server, steps))
        if number is None:
            number = self._step_numbers[server, steps] = len(self.steps)
            self.steps.append((server, steps))
        return number

    def _note(self, replica: Replica) -> None:
        data = replica.data
        if data.server.state is State.REG_LEADER:
            self.reached.add(f"server {data.server.server_id} leads view {data.views.last_installed}")
        if data.ordering.local_aru:
            self.reached.add(f"server {data.server.server_id} has executed {data.ordering.local_aru} slots")


def make_nodes(
    ids: Iterable[int], views: int, patch: Callable[[Replica], None] | None = None, *, checks_gate: bool = True
) -> Nodes:
    """Build the servers and the empty table of their nodes. See `SteppedServer` for `patch` and `checks_gate`."""
    ids = tuple(ids)
    servers = [SteppedServer(i, ids, patch=patch, checks_gate=checks_gate) for i in ids]
    return Nodes(servers, MessageSet(len(ids)), views)
