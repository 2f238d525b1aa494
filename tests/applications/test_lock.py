"""The application lock: one holder, first come first served, growing tokens, and no wait without end unless a client
asks for it."""

from __future__ import annotations

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Done, Result
from pfsb.applications.lock import Lock
from tests.applications.context import Machine, code, field, refusal, rows
from tests.examples import examples


def granted(name: str, token: int) -> Done:
    return Done((("name", name), ("token", token)))


class LockTest(SynchronousTestCase):
    """Tests of the verbs of lock. In these tests a command's number and revision are the same."""

    def setUp(self) -> None:
        self.lock = Lock()
        self.machine = Machine(self.lock)
        self.empty = self.lock.snapshot()

    def completed(self) -> list[tuple[tuple[str, int], str | int]]:
        """The clients that were answered since the last call, each with its token or its error."""
        answers = []
        for ticket, result in self.machine.take_completed():
            answers.append((ticket, field(result, "token") if isinstance(result, Done) else code(result)))
        return answers

    def waits(self, client_id: str, *typed: str) -> None:
        self.assertIs(self.machine.run(client_id, "LOCK", *typed), PENDING)

    def test_free_lock_is_granted_at_once_with_the_revision_as_token(self) -> None:
        """A free lock is granted at once, and its token is the revision of the command."""
        self.machine.context.revision = 41
        self.assertEqual(self.machine.run("alice", "LOCK", "x"), granted("x", 42))

    def test_holder_that_locks_again_has_the_same_token(self) -> None:
        """A holder that locks again, by LOCK or TRYLOCK, gets the same token; one UNLOCK is enough then."""
        self.machine.run("alice", "LOCK", "x")
        self.assertEqual(self.machine.run("alice", "LOCK", "x", "wait=0"), granted("x", 1))
        self.assertEqual(self.machine.run("alice", "TRYLOCK", "x"), granted("x", 1))
        self.machine.run("alice", "UNLOCK", "x")
        self.assertEqual(self.machine.run("bob", "TRYLOCK", "x"), granted("x", 5))

    def test_unlock_grants_to_the_session_that_waits_longest(self) -> None:
        """UNLOCK grants the lock to the session that has waited longest, in the order of execution; the token is the
        revision of the UNLOCK."""
        self.machine.run("alice", "LOCK", "x")
        self.waits("zoe", "x")
        self.waits("bob", "x")
        self.assertEqual(self.machine.run("alice", "UNLOCK", "x", "token=1"), Done((("name", "x"),)))
        self.assertEqual(self.completed(), [(("zoe", 2), 4)])
        self.machine.run("zoe", "UNLOCK", "x")
        self.assertEqual(self.completed(), [(("bob", 3), 5)])

    def test_session_has_so_many_locks(self) -> None:
        """A session may hold or wait for so many locks as its quota says; a lock that it has already, or asks for
        again, does not count twice."""
        self.machine.context.quotas = evolve(self.machine.context.quotas, session_locks=2)
        self.machine.run("bob", "LOCK", "z")
        self.machine.run("alice", "LOCK", "x")
        self.waits("alice", "z")
        for verb, name in (("LOCK", "y"), ("TRYLOCK", "y")):
            self.assertEqual(code(self.machine.run("alice", verb, name)), "TOOLARGE")
        self.machine.run("bob", "LOCK", "y")
        self.assertEqual(code(self.machine.run("alice", "LOCK", "y")), "TOOLARGE")
        self.assertEqual(self.machine.run("alice", "LOCK", "x"), granted("x", 2))
        self.waits("alice", "z")
        self.machine.run("bob", "UNLOCK", "z")
        self.machine.run("alice", "UNLOCK", "x")
        self.waits("alice", "y")

    def test_locks_are_independent(self) -> None:
        """Unlocking one lock grants nothing to sessions that wait for another."""
        self.machine.run("alice", "LOCK", "x")
        self.machine.run("alice", "LOCK", "y")
        self.waits("bob", "y")
        self.machine.run("alice", "UNLOCK", "x")
        self.assertEqual(self.completed(), [])

    def test_trylock_of_a_held_lock_names_the_holder(self) -> None:
        """TRYLOCK of a held lock is refused with the name of the holder, and leaves no place in the queue."""
        self.machine.run("alice", "LOCK", "x")
        held = self.machine.run("bob", "TRYLOCK", "x")
        self.assertEqual((code(held), held.text), ("HELD", 'lock "x" is held by "alice"'))
        self.machine.run("alice", "UNLOCK", "x")
        self.assertEqual(self.completed(), [])

    def test_unlock_by_another_session_than_the_holder_is_refused(self) -> None:
        """Refused are a free lock, a lock of another session, a lock that this session waits for, and an old token."""
        self.assertEqual(code(self.machine.run("bob", "UNLOCK", "x")), "NOTHELD")
        self.machine.run("alice", "LOCK", "x")
        self.waits("bob", "x")
        self.assertEqual(code(self.machine.run("bob", "UNLOCK", "x", "token=2")), "NOTHELD")
        wrong = self.machine.run("alice", "UNLOCK", "x", "token=7")
        self.assertEqual((code(wrong), wrong.text), ("NOTHELD", 'you hold lock "x" with token 2, not 7'))
        self.assertEqual(self.completed(), [])

    def test_wait_ends_at_its_deadline(self) -> None:
        """A LOCK with a time limit is answered at its deadline, not a millisecond earlier, and its place in the queue
        is gone."""
        self.machine.run("alice", "LOCK", "x")
        self.waits("bob", "x", "wait=5")
        self.assertEqual(self.lock.next_deadline(), self.machine.context.time_ms + 5_000)
        self.machine.pass_time(4_999)
        self.assertEqual(self.completed(), [])
        self.machine.pass_time(1)
        self.assertEqual(self.completed(), [(("bob", 2), "TIMEOUT")])
        self.assertIsNone(self.lock.next_deadline())
        self.machine.run("alice", "UNLOCK", "x")
        self.assertEqual(self.completed(), [])
        self.assertEqual(field(self.machine.ask("LOCKS"), "count"), 0)

    def test_wait_of_nothing_is_answered_at_once(self) -> None:
        """LOCK with wait=0 of a held lock is refused at once with TIMEOUT, and does not wait in the queue."""
        self.machine.run("alice", "LOCK", "x")
        self.assertEqual(code(self.machine.run("bob", "LOCK", "x", "wait=0")), "TIMEOUT")
        self.assertEqual(rows(self.machine.ask("LOCKS"))[0][3], ("waiting", 0))

    def test_wait_without_a_limit_has_no_deadline(self) -> None:
        """LOCK without a limit has no deadline: the session waits, however long it takes."""
        self.machine.run("alice", "LOCK", "x")
        self.waits("bob", "x")
        self.assertIsNone(self.lock.next_deadline())
        self.machine.pass_time(10**15)
        self.assertEqual(self.completed(), [])

    def test_grant_ends_the_deadline(self) -> None:
        """A session that has got the lock does not lose it at the deadline of its LOCK."""
        self.machine.run("alice", "LOCK", "x")
        self.waits("bob", "x", "wait=5")
        self.waits("carol", "x", "wait=9")
        self.machine.run("alice", "UNLOCK", "x")
        self.assertEqual(self.completed(), [(("bob", 2), 4)])
        self.assertEqual(self.lock.next_deadline(), self.machine.context.time_ms + 9_000)
        self.machine.pass_time(5_000)
        self.assertEqual(self.completed(), [])

    def test_session_that_asks_twice_has_one_place_and_two_answers(self) -> None:
        """If a session has sent two LOCKs for a lock, both are answered when the lock is granted, with one token."""
        self.machine.run("alice", "LOCK", "x")
        self.waits("bob", "x")
        self.waits("carol", "x")
        self.waits("bob", "x", "wait=5")
        self.assertEqual(rows(self.machine.ask("LOCKS"))[0][3], ("waiting", 2))
        self.machine.run("alice", "UNLOCK", "x")
        self.assertEqual(self.completed(), [(("bob", 2), 5), (("bob", 4), 5)])
        self.assertIsNone(self.lock.next_deadline())
        self.machine.run("bob", "UNLOCK", "x")
        self.assertEqual(self.completed(), [(("carol", 3), 6)])

    def test_session_that_asks_twice_loses_its_place_with_its_last_wait(self) -> None:
        """If a session has sent two LOCKs for a lock, it keeps its place in the queue after the TIMEOUT of the first,
        and loses it with that of the second."""
        self.machine.run("alice", "LOCK", "x")
        self.waits("bob", "x", "wait=5")
        self.waits("carol", "x")
        self.waits("bob", "x", "wait=9")
        self.machine.pass_time(5_000)
        self.assertEqual(self.completed(), [(("bob", 2), "TIMEOUT")])
        self.machine.run("alice", "UNLOCK", "x")
        self.assertEqual(self.completed(), [(("bob", 4), 5)])

    def test_end_of_a_session_releases_what_it_held(self) -> None:
        """Expiry and closing release locks and places in queues; the locks go to other sessions."""
        self.machine.run("alice", "LOCK", "x")
        self.machine.run("alice", "LOCK", "y")
        self.machine.run("bob", "LOCK", "z")
        self.waits("alice", "z", "wait=5")
        self.waits("carol", "x")
        self.machine.end("alice")
        self.assertEqual(self.completed(), [(("carol", 5), 5), (("alice", 4), "NOSESSION")])
        self.assertIsNone(self.lock.next_deadline())
        self.assertEqual(
            rows(self.machine.ask("LOCKS")),
            (
                (("name", "x"), ("holder", "carol"), ("token", 5), ("waiting", 0)),
                (("name", "z"), ("holder", "bob"), ("token", 3), ("waiting", 0)),
            ),
        )

    def test_end_of_a_session_without_locks_changes_nothing(self) -> None:
        """The end of a session that holds no lock changes nothing."""
        self.machine.end("alice")
        self.assertEqual(self.lock.snapshot(), self.empty)

    def test_token_grows_through_sessions_that_end_at_one_revision(self) -> None:
        """Tokens grow also where a lock passes through sessions that expire in one update, without a command between
        them."""
        self.machine.run("alice", "LOCK", "x")
        for client_id in ("bob", "carol", "dave"):
            self.waits(client_id, "x")
        self.machine.end("alice", "bob", "carol")
        self.assertEqual(self.completed(), [(("bob", 2), 4), (("carol", 3), 5), (("dave", 4), 6)])
        self.machine.end("dave")
        self.assertEqual(self.machine.run("eve", "LOCK", "x"), granted("x", 7))

    def test_locks_are_listed_by_name_within_the_limit(self) -> None:
        """LOCKS lists locks in the order of their names, in whatever order they were taken."""
        for name in ("b", "c", "a"):
            self.machine.run("alice", "LOCK", name)
        self.assertEqual([row[0][1] for row in rows(self.machine.ask("LOCKS"))], ["a", "b", "c"])
        listed = self.machine.ask("LOCKS", "limit=2")
        self.assertEqual([row[0][1] for row in rows(listed)], ["a", "b"])
        self.assertEqual(field(listed, "held"), 3)

    def test_free_locks_and_ended_waits_leave_no_memory(self) -> None:
        """Free locks, and waits that were granted before their deadline, take no memory."""
        for number in range(500):
            self.machine.run("alice", "LOCK", f"x{number}")
            self.waits("bob", f"x{number}", "wait=9999")
            self.machine.run("alice", "UNLOCK", f"x{number}")
            self.machine.run("bob", "UNLOCK", f"x{number}")
        self.assertEqual((self.lock.locks, self.lock.locks_of, self.lock.deadlines.live), ({}, {}, set()))
        self.assertLess(len(self.lock.deadlines.heap), 100)

    def test_wait_beyond_all_limits_can_still_be_stored(self) -> None:
        """The deadline of any wait fits into the 64 bits of a snapshot, even of a LOCK that another version of the
        server has checked."""
        self.machine.run("alice", "LOCK", "x")
        self.assertIs(self.machine.run_checked("bob", ("LOCK", "x", 2**64 - 1)), PENDING)
        fresh = Lock()
        fresh.restore(self.lock.snapshot())
        self.assertEqual(fresh.next_deadline(), self.machine.context.time_ms + 31_536_000_000)

    def test_token_counts_from_one(self) -> None:
        """The first token is 1: no grant has token 0."""
        self.assertEqual(self.lock.check(("UNLOCK", "x")), ("UNLOCK", "x", -1))
        refused = refusal(self.lock, "UNLOCK", "x", "token=0")
        self.assertEqual(str(refused), 'token= takes a number from 1 on, not "0"; usage: UNLOCK name [token=T]')


class LockAgainstModel(RuleBasedStateMachine):
    """Compares the application with a queue for each lock, kept by hand as [holder, waiter, waiter...], and with a
    second server, which is restored half-way."""

    clients = st.sampled_from("abcd")
    names = st.sampled_from("xy")

    def __init__(self) -> None:
        super().__init__()
        self.machine, self.twin = Machine(Lock()), Machine(Lock())
        self.lines: dict[str, list[str]] = {"x": [], "y": []}
        # (client id, number) of a LOCK that waits -> (lock, deadline).
        self.waiting: dict[tuple[str, int], tuple[str, int | None]] = {}
        self.last_token: dict[str, int] = {"x": 0, "y": 0}
        self.token: dict[str, int] = {}

    def both(self, client_id: str, *typed: str) -> Result:
        """Run the command on both servers, which must answer the same."""
        result: Result = self.machine.run(client_id, *typed)
        assert self.twin.run(client_id, *typed) == result
        return result

    def check_granted(self, name: str, result: Result) -> None:
        """Note a grant, whose token must be larger than all earlier tokens of this lock."""
        token = field(result, "token")
        assert field(result, "name") == name
        assert token > self.last_token[name]
        self.last_token[name] = self.token[name] = token

    def check_answers(self) -> None:
        """Compare the completions with the model: the session that stands first gets the lock, at all its numbers."""
        completed = self.machine.take_completed()
        assert self.twin.take_completed() == completed
        granted_now: dict[tuple[str, str], Result] = {}
        for ticket, result in completed:
            name, deadline = self.waiting.pop(ticket)
            if isinstance(result, Done):
                if (name, ticket[0]) not in granted_now:
                    self.check_granted(name, result)
                assert granted_now.setdefault((name, ticket[0]), result) == result
            else:
                assert code(result) == "TIMEOUT"
                assert deadline is not None and deadline <= self.machine.context.time_ms
        for (name, client_id), _ in granted_now.items():
            assert self.lines[name][0] == client_id
            assert not [ticket for ticket, wait in self.waiting.items() if (wait[0], ticket[0]) == (name, client_id)]

    def leave(self, name: str, client_id: str) -> None:
        self.lines[name].remove(client_id)

    @rule(client_id=clients, name=names, seconds=st.sampled_from([None, 0, 1, 3]))
    def lock(self, client_id: str, name: str, seconds: int | None) -> None:
        options = [] if seconds is None else [f"wait={seconds}"]
        result = self.both(client_id, "LOCK", name, *options)
        line = self.lines[name]
        if not line:
            line.append(client_id)
            self.check_granted(name, result)
        elif line[0] == client_id:
            assert result == granted(name, self.token[name])
        elif seconds == 0:
            assert code(result) == "TIMEOUT"
        else:
            assert result is PENDING
            deadline = None if seconds is None else self.machine.context.time_ms + seconds * 1_000
            self.waiting[(client_id, self.machine.context.revision)] = (name, deadline)
            if client_id not in line:
                line.append(client_id)

    @rule(client_id=clients, name=names)
    def try_lock(self, client_id: str, name: str) -> None:
        result = self.both(client_id, "TRYLOCK", name)
        line = self.lines[name]
        if not line:
            line.append(client_id)
            self.check_granted(name, result)
        elif line[0] == client_id:
            assert result == granted(name, self.token[name])
        else:
            assert code(result) == "HELD"

    @rule(client_id=clients, name=names, right=st.booleans())
    def unlock(self, client_id: str, name: str, right: bool) -> None:
        token = self.token.get(name, 1) + (0 if right else 1_000)
        result = self.both(client_id, "UNLOCK", name, f"token={token}")
        if right and self.lines[name][:1] == [client_id]:
            self.leave(name, client_id)
            assert result == Done((("name", name),))
        else:
            assert code(result) == "NOTHELD"
        self.check_answers()

    @rule(name=names)
    def holder_unlocks(self, name: str) -> None:
        if self.lines[name]:
            self.unlock(self.lines[name][0], name, True)

    @rule(milliseconds=st.sampled_from([1, 999, 1_000, 2_000]))
    def time_passes(self, milliseconds: int) -> None:
        now = self.machine.context.time_ms + milliseconds
        due = {ticket for ticket, (_, deadline) in self.waiting.items() if deadline is not None and deadline <= now}
        for machine in (self.machine, self.twin):
            machine.pass_time(milliseconds)
        assert {ticket for ticket, _ in self.machine.context.completed} == due
        places = {(client_id, self.waiting[(client_id, number)][0]) for client_id, number in due}
        self.check_answers()
        for client_id, name in places:
            if not any(ticket[0] == client_id and wait[0] == name for ticket, wait in self.waiting.items()):
                self.leave(name, client_id)

    @rule(ending=st.lists(clients, unique=True, min_size=1, max_size=3))
    def sessions_end(self, ending: list[str]) -> None:
        """End several sessions at one revision: a lock may pass through a session that ends within the same update."""
        for client_id in ending:
            for machine in (self.machine, self.twin):
                machine.end(client_id)
            for name, line in self.lines.items():
                if client_id in line:
                    self.leave(name, client_id)
            for ticket in [ticket for ticket in self.waiting if ticket[0] == client_id]:
                del self.waiting[ticket]
                refused = [code(result) for ended, result in self.machine.context.completed if ended == ticket]
                assert refused == ["NOSESSION"]
            for machine in (self.machine, self.twin):
                machine.context.completed = [one for one in machine.context.completed if one[0][0] != client_id]
            self.check_answers()

    @rule()
    def twin_starts_anew(self) -> None:
        """Let a server that has restored a snapshot take over: it must go on exactly as the one that made it."""
        self.twin.application = Lock()
        self.twin.application.restore(self.machine.application.snapshot())

    @invariant()
    def nobody_waits_for_a_free_lock(self) -> None:
        """Check that each lock has one holder, all others wait in the queue, and nothing is kept for free locks."""
        shown = {}
        for (_, name), (_, holder), (_, token), (_, waiting) in rows(self.machine.ask("LOCKS")):
            shown[name] = (holder, token, waiting)
        lines = {name: line for name, line in self.lines.items() if line}
        assert shown == {name: (line[0], self.token[name], len(line) - 1) for name, line in lines.items()}

    @invariant()
    def next_deadline_is_exact(self) -> None:
        deadlines = [deadline for _, deadline in self.waiting.values() if deadline is not None]
        for machine in (self.machine, self.twin):
            assert machine.application.next_deadline() == min(deadlines, default=None)

    @invariant()
    def servers_are_equal(self) -> None:
        assert self.machine.application.snapshot() == self.twin.application.snapshot()


class LockModelTest(SynchronousTestCase):
    """Runs the state machine test `LockAgainstModel`, which trial does not find by itself."""

    def test_every_history_keeps_the_lines_in_order(self) -> None:
        """After random commands each lock has one holder, waiters are served in order, tokens grow, deadlines are
        exact, and two servers are equal."""
        bounded = examples(80, stateful_step_count=40, database=None)
        run_state_machine_as_test(LockAgainstModel, settings=bounded)
