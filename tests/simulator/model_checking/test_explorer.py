"""The explorer finds no violation of the protocol, and one for each planted defect."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from types import MethodType
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Accept, Batch, ClientUpdate, Prepare, Proposal, VCProof, ViewChange
from pfsb.paxos.records import ViewRecord
from pfsb.paxos.replica import Replica
from pfsb.simulator.model_checking import explore_command
from pfsb.simulator.model_checking.explorer import Bounds, Counterexample, Exploration
from pfsb.simulator.model_checking.stepped_environment import SteppedCall
from pfsb.simulator.model_checking.stepped_server import SteppedServer
from pfsb.simulator.model_checking.steps import Ask, Crash, Deliver, Fire, Step, Sync
from pfsb.support.command_line import parse
from tests.long import long, longest

CHOSEN_BY_0_AND_2 = ((0, "Ask"), (2, "Proposal"), (0, "Accept"))
"""Steps after which client a's update is chosen and executed at server 0, and server 1 does not know it."""

Plant = Callable[[Replica], None]


def explored(bounds: Bounds, depth: int, states_max: int = 60_000, **options: Any) -> Exploration:
    exploration = Exploration(bounds, states_max=states_max, **options)
    for _ in exploration.levels(depth):
        pass
    return exploration


# ---------------------------------------------------------------------------------------------
# Defects
# ---------------------------------------------------------------------------------------------


def votes_before_the_disk(replica: Replica) -> None:
    """A defect: ACCEPT does not wait for the durability gate."""
    behind_the_door = replica.turn.send

    def send(message: Any, to: int | None = None) -> None:
        if isinstance(message, Accept):
            replica.turn.send_early(message, to)  # type: ignore[arg-type]
        else:
            behind_the_door(message, to)

    replica.turn.send = send  # type: ignore[method-assign]


def does_not_force_its_view(replica: Replica) -> None:
    append = replica.turn.append

    def lazily(record: Any, *, lazy: bool = False) -> None:
        append(record, lazy=lazy or isinstance(record, ViewRecord))

    replica.turn.append = lazily  # type: ignore[method-assign]


def leaves_the_data_list_out(replica: Replica) -> None:
    def nothing(local_aru: int) -> Iterator[Any]:
        return iter(())

    replica.prepare.construct_data_list = nothing  # type: ignore[method-assign]


def is_prepared_by_itself(replica: Replica) -> None:
    """A defect: a view is prepared by the leader's own promise alone."""

    def view_prepared_ready(view: int) -> bool:
        return any(promise.view == view for promise in replica.data.preparing.prepare_oks.values())

    replica.prepare.view_prepared_ready = view_prepared_ready  # type: ignore[method-assign]


def wants_more_than_a_majority(replica: Replica) -> None:
    """A defect: a view is prepared only by more than a majority of promises (`>` instead of `>=`)."""

    def view_prepared_ready(view: int) -> bool:
        promises = replica.data.preparing.prepare_oks.values()
        return sum(p.view == view and p.complete for p in promises) > replica.membership.quorum

    replica.prepare.view_prepared_ready = view_prepared_ready  # type: ignore[method-assign]


@long
class DefectTests(SynchronousTestCase):
    """Each defect is found, and shown as the steps that lead to a violation."""

    def find(self, bounds: Bounds, patch: Plant | None, depth: int = 12, *, checks_gate: bool = True) -> Counterexample:
        exploration = explored(bounds, depth, patch=patch, checks_gate=checks_gate)
        assert exploration.counterexample is not None, "the defect was not found"
        return exploration.counterexample

    def test_quorum_of_one_executes_two_values_in_one_slot(self) -> None:
        """A quorum of one server breaks S1: two majorities share a server, two quorums of one do not (G27)."""
        self.patch(Membership, "is_majority", lambda self, server_ids: any(True for _ in server_ids))
        found = self.find(Bounds(crashes=0), None)
        self.assertEqual(
            str(found),
            "  1. server 0 is asked by its client for CLIENT_UPDATE a1\n"
            "  2. server 1 is asked by its client for CLIENT_UPDATE b1\n"
            "  3. server 1 sees its ProgressTimer run out\n"
            "     S1: slot 1 executes b1; but before: S1: slot 1 executes a1",
        )

    def test_vote_that_leaves_before_the_disk_write_is_found(self) -> None:
        """An ACCEPT that leaves before the record of its proposal is on disk is found (docs/defects.rst)."""
        found = self.find(Bounds(), votes_before_the_disk)
        self.assertEqual(found.steps, ("server 0 is asked by its client for CLIENT_UPDATE a1",))
        self.assertEqual(found.what, "server 0: sends ACCEPT of view 1 for slot 1, and that vote is not on disk")

    def test_vote_that_leaves_before_the_disk_write_breaks_s1_after_a_crash(self) -> None:
        """If the checks of leaving messages are off, an ACCEPT that leaves before the disk write leads to two values of
        a slot after a crash (docs/defects.rst)."""
        lost = ((0, "Ask"), (1, "Proposal"), (0, "Accept"), (1, "Crash"))
        elected = ((1, "Ask"), (2, "ProgressTimer"), (1, "ViewChange"))
        found = self.find(Bounds(views=2, lead_in=(*lost, *elected)), votes_before_the_disk, checks_gate=False)
        self.assertEqual(found.what, "S1: slot 1 executes b1; but before: S1: slot 1 executes a1")
        self.assertEqual(found.steps[3], "server 1 loses power, and starts again with what is on its disk")
        self.assertEqual(found.steps[-1], "server 1 hears from server 2: ACCEPT of view 2 for slot 1")
        self.assertEqual(len(found.steps), 11)

    def test_prepare_that_leaves_before_the_view_is_on_disk_is_found(self) -> None:
        """A PREPARE that leaves before Last_Installed is on disk is found (docs/defects.rst)."""
        found = self.find(Bounds(led=False), does_not_force_its_view)
        self.assertEqual(found.what, "server 0: sends PREPARE of view 1, Local_Aru 0, but has view 0 on disk")
        self.assertEqual(len(found.steps), 1)

    def test_view_that_is_not_forced_is_led_twice(self) -> None:
        """G10: if the checks of leaving messages are off, a view that is not forced to disk leads to two leaders of one
        view."""
        bounds = Bounds(led=False, asks=(), views=1, lead_in=((0, "ViewChange"),))
        found = self.find(bounds, does_not_force_its_view, checks_gate=False)
        self.assertEqual(
            found.what, "view 1 is led by server 0 in life 2; but before: view 1 is led by server 0 in life 1"
        )

    def test_promise_without_its_votes_is_found_when_it_is_made(self) -> None:
        """Figure 8 A and G19: a promise without its sender's votes is found when it is made, since a data list must be
        complete."""
        bounds = Bounds(crashes=0, lead_in=((0, "Ask"), (2, "Proposal"), (1, "ProgressTimer"), (2, "ProgressTimer")))
        found = self.find(bounds, leaves_the_data_list_out)
        self.assertEqual(
            found.what, "server 2: keeps quiet about its vote at slot 1, asked by PREPARE of view 2, Local_Aru 0"
        )

    @longest
    def test_promise_without_its_votes_breaks_s1(self) -> None:
        """Figure 8 A and G19: if promises are not checked, a promise without its votes leads to two values of a
        slot."""
        bounds = Bounds(views=2, crashes=0, lead_in=(*CHOSEN_BY_0_AND_2, (1, "ProgressTimer"), (2, "ProgressTimer")))
        found = self.find(bounds, leaves_the_data_list_out, checks_gate=False)
        self.assertEqual(found.what, "S1: slot 1 executes b1; but before: S1: slot 1 executes a1")

    def test_leader_that_does_not_wait_for_promises_breaks_s1(self) -> None:
        """Figure 8 B: a leader that does not wait for a majority of promises breaks S1."""
        bounds = Bounds(views=2, crashes=0, lead_in=(*CHOSEN_BY_0_AND_2, (1, "ProgressTimer"), (2, "ProgressTimer")))
        found = self.find(bounds, is_prepared_by_itself)
        self.assertEqual(found.what, "S1: slot 1 executes b1; but before: S1: slot 1 executes a1")

    def test_server_that_stops_with_an_exception_is_shown(self) -> None:
        """A server must not stop by an exception, although Paxos tolerates a crash (docs/internals/turn.rst)."""

        def trips_over_an_accept(replica: Replica) -> None:
            def accept(message: Accept) -> None:
                raise KeyError(message.seqs)

            replica.accepts.on_accept = accept  # type: ignore[method-assign]

        found = self.find(Bounds(crashes=0), trips_over_an_accept)
        self.assertEqual(found.what, "server 1: stops with KeyError: (1,)")
        self.assertEqual(
            found.steps,
            (
                "server 0 is asked by its client for CLIENT_UPDATE a1",
                "server 1 hears from server 0: ACCEPT of view 1 for slot 1",
            ),
        )

    def test_view_that_waits_for_more_than_a_majority_is_never_led(self) -> None:
        """Figure 8 B: a server that waits for more than a majority of promises breaks no promise of the protocol, but
        with one server down no server ever leads."""
        bounds = Bounds(led=False, asks=(), crashes=0, idle=frozenset({2}))
        right, wrong = explored(bounds, 12), explored(bounds, 12, patch=wants_more_than_a_majority)
        self.assertIn("server 0 leads view 1", right.nodes.reached)
        self.assertEqual(wrong.nodes.reached, set())
        self.assertIsNone(wrong.counterexample)


@long
class ProtocolTests(SynchronousTestCase):
    """The protocol keeps its promises in every explored state."""

    def test_no_promise_is_broken_after_the_first_start(self) -> None:
        """From the first start on, no promise is broken in any state within five steps: two clients, up to three views,
        one crash."""
        self.assertKeepsItsPromises(explored(Bounds(led=False), 5), 5)

    def test_no_promise_is_broken_when_a_view_is_led(self) -> None:
        """When a view is led, no promise is broken in any state within five steps: two clients, two view changes, one
        crash."""
        exploration = explored(Bounds(), 5)
        self.assertKeepsItsPromises(exploration, 5)
        self.assertIn("server 0 has executed 1 slots", exploration.nodes.reached)

    def test_chosen_update_survives_two_view_changes(self) -> None:
        """When server 0 has executed an update that the next leader does not know, no promise is broken in any state
        within five steps."""
        lead_in = (*CHOSEN_BY_0_AND_2, (1, "Ask"), (1, "ProgressTimer"), (2, "ProgressTimer"), (1, "ViewChange"))
        exploration = explored(Bounds(crashes=0, lead_in=lead_in), 5)
        self.assertKeepsItsPromises(exploration, 5)
        self.assertIn("server 1 leads view 2", exploration.nodes.reached)
        self.assertIn("server 1 has executed 1 slots", exploration.nodes.reached)

    def test_one_server_is_explored_to_the_end(self) -> None:
        """G6: a single server elects itself and executes; there are few states, and all are explored."""
        exploration = explored(Bounds(servers=1, asks=(("a", 0), ("b", 0)), views=2, crashes=1), 100)
        self.assertTrue(exploration.is_complete)
        self.assertKeepsItsPromises(exploration, exploration.depth)
        self.assertIn("server 0 has executed 2 slots", exploration.nodes.reached)

    def test_two_explorations_find_the_same_states(self) -> None:
        """Two explorations find the same states: no random numbers are involved (docs/testing.rst)."""
        first, second = (
            [(p.depth, p.states, p.server_states, p.steps) for p in Exploration(Bounds()).levels(4)] for _ in range(2)
        )
        self.assertEqual(first, second)
        self.assertEqual([depth for depth, *_ in first], [1, 2, 3, 4])

    def assertKeepsItsPromises(self, exploration: Exploration, depth: int) -> None:
        self.assertIsNone(exploration.counterexample, str(exploration.counterexample))
        self.assertEqual((exploration.depth, exploration.is_cut_short), (depth, False))


class SteppedServerTests(SynchronousTestCase):
    """Snapshots: putting a server's state back leaves no trace."""

    @long
    def test_state_that_is_put_back_goes_on_as_before(self) -> None:
        """Two servers make the same random steps, and one of them makes steps from other states in between."""
        walker, jumper = SteppedServer(0, (0, 1, 2)), SteppedServer(0, (0, 1, 2))
        rng = random.Random(5)
        walked, jumped = walker.first(), jumper.first()
        elsewhere = jumped.state
        kinds = set()
        for number in range(600):
            step = rng.choice([*walker.steps(walked.state), *MESSAGES])
            walked, jumped = walker.make(walked.state, step), jumper.make(jumped.state, step)
            where = f"step {number}: {step}"
            # A frozen outbox has no order, since messages may arrive in any order.
            self.assertEqual(sorted(walked.sent, key=repr), sorted(jumped.sent, key=repr), where)
            self.assertEqual(walked.facts, jumped.facts, where)
            self.assertEqual(by_names(walked.state), by_names(jumped.state), where)
            elsewhere = jumper.make(elsewhere, rng.choice([*jumper.steps(elsewhere), *MESSAGES])).state
            kinds.add(step.kind)
        self.assertLessEqual({"Crash", "Sync", "ProgressTimer", "UpdateTimers", "Proposal", "Accept"}, kinds)
        self.assertEqual(walker.snapshots.moved_parts() + jumper.snapshots.moved_parts(), [])

    def test_equal_states_have_equal_successors(self) -> None:
        """Equal states have equal successors, which the table of steps relies on."""
        server = SteppedServer(0, (0, 1, 2))
        born = server.first().state
        elected = server.make(born, Deliver(1, ViewChange(1, 1))).state
        self.assertNotEqual(born, elected)
        self.assertEqual(server.make(born, Deliver(1, ViewChange(1, 1))).state, elected)

    def test_crash_loses_records_that_were_not_written(self) -> None:
        """Figure 14: a view whose record was not on disk is not installed after the restart."""
        server = SteppedServer(0, (0, 1, 2))
        installing = server.make(server.first().state, Deliver(1, ViewChange(1, 1))).state
        self.assertEqual(server.look(installing).data.views.last_installed, 1)
        self.assertEqual(server.look(server.make(installing, Crash()).state).data.views.last_installed, 0)
        written = server.make(installing, Sync()).state
        self.assertEqual(server.look(server.make(written, Crash()).state).data.views.last_installed, 1)

    def test_attribute_that_cannot_be_frozen_is_refused(self) -> None:
        """An attribute that snapshots cannot freeze raises TypeError, instead of being left out."""

        def keep_something(replica: Replica) -> None:
            replica.discarded_by = {"somebody": object()}  # type: ignore[attr-defined]

        with self.assertRaisesRegex(TypeError, "a object cannot be put away"):
            SteppedServer(0, (0, 1, 2), patch=keep_something)

    def test_update_timer_sends_to_the_leader_or_to_all(self) -> None:
        """Figure 12 B and Departure 17: the step chooses between the leader and all servers."""
        server = SteppedServer(2, (0, 1, 2))
        following = server.make(server.first().state, Deliver(0, VCProof(0, 1))).state
        asked = server.make(server.make(following, Sync()).state, Ask(UPDATE)).state
        receivers = [
            [to for message, to in server.make(asked, Fire("UpdateTimers.expire", choice)).sent if message == UPDATE]
            for choice in (0, 1)
        ]
        self.assertEqual(receivers, [[0], [0, 1]])


UPDATE = ClientUpdate("a", 2, 1, 0, b"")
ONE = Batch.of(0, [ClientUpdate("b", 1, 1, 0, b"")])
MESSAGES: list[Step] = [
    Ask(ClientUpdate("a", 0, 1, 0, b"")),
    *(Deliver(1, ViewChange(1, view)) for view in (1, 2, 3)),
    Deliver(1, Prepare(1, 2, 0)),
    Deliver(1, VCProof(1, 2)),
    *(Deliver(1, Proposal(1, 2, seq, ONE)) for seq in (1, 2)),
    *(Deliver(i, Accept(i, view, (seq,), ONE.digest)) for i in (1, 2) for view in (1, 2) for seq in (1, 2)),
]
"""Messages that server 0 may receive, in any order."""


def by_names(frozen: Any) -> Any:
    """Make the states of two servers comparable: methods by their names."""
    if isinstance(frozen, tuple):
        return tuple(map(by_names, frozen))
    if isinstance(frozen, frozenset):
        return frozenset(map(by_names, frozen))
    if isinstance(frozen, SteppedCall):
        return frozen.function.__qualname__
    return frozen.__qualname__ if isinstance(frozen, MethodType) else frozen


class ToolTests(SynchronousTestCase):
    """The command line and the report of `pfsb explore`."""

    def options(self, *arguments: str) -> explore_command.Options:
        options: explore_command.Options = parse(explore_command.command, arguments)
        return options

    def run_tool(self, *arguments: str) -> str:
        """Run the command; its output. The clock of its reactor moves on by itself."""
        out = StringIO()
        self.patch(sys, "stdout", out)
        clock = Clock()
        running = Deferred.fromCoroutine(explore_command.run(clock, self.options(*arguments)))
        while not running.called:
            clock.advance(1)
        failures = []
        running.addErrback(failures.append)
        self.statuses = [failure.value.code for failure in failures]
        return out.getvalue()

    def test_options_become_bounds(self) -> None:
        """The options of `pfsb explore` become the bounds and the lead-in of the exploration."""
        options = self.options(
            "--servers", "4", "--clients", "1", "--crashes", "0", "--cold", "--lead-in", "0:Ask, 1:Crash"
        )
        expected = Bounds(4, (("a", 0),), crashes=0, led=False, lead_in=((0, "Ask"), (1, "Crash")))
        self.assertEqual(options.bounds, expected)

    def test_lead_in_of_an_unknown_server_is_refused(self) -> None:
        """A lead-in with an unknown server is refused, with an example of a right one."""
        for text in ("7:Ask", "Ask", "1:"):
            error = self.assertRaises(click.UsageError, self.options, "--lead-in", text)
            self.assertIn("with a server below 3; example: --lead-in 0:Ask,1:Proposal,0:Accept", str(error))

    def test_summary_has_the_extent_and_the_result(self) -> None:
        """The summary of an exploration has the progress by levels, the bounds, the extent and the result."""
        told = self.run_tool("--depth", "2").splitlines()
        self.assertIn("depth 1: 9 states", told[0])
        self.assertEqual(told[2], "3 servers; updates: a1 at server 0, b1 at server 1; views up to 3; crashes: 1")
        self.assertIn("all states up to 2 steps deep; depth 2: 49 states", told[3])
        self.assertEqual(told[-1], "nothing is wrong")
        self.assertEqual(self.statuses, [])

    def test_broken_promise_is_shown_as_steps_and_exit_status(self) -> None:
        """If a promise is broken, the report has the steps that lead there, and the exit status is 1."""
        self.patch(Membership, "is_majority", lambda self, server_ids: any(True for _ in server_ids))
        told = self.run_tool("--crashes", "0").splitlines()
        self.assertEqual(
            told[-5:-3], ["a promise is broken:", "  1. server 0 is asked by its client for CLIENT_UPDATE a1"]
        )
        self.assertEqual(self.statuses, [1])

    def test_lead_in_that_cannot_happen_is_one_line(self) -> None:
        """A lead-in that cannot happen is refused with the steps that are possible."""
        err = StringIO()
        self.patch(sys, "stderr", err)
        self.run_tool("--lead-in", "0:Prepare")
        self.assertEqual(
            err.getvalue(),
            "pfsb explore: --lead-in: server 0: no Prepare can happen there; what can: Ask, Crash, ProgressTimer\n",
        )
        self.assertEqual(self.statuses, [1])
