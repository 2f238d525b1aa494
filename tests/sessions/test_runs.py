"""Runs: commands that are executed together have the same results as commands that are executed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Counters,
    Done,
    IContext,
    IReplicatedApplication,
    IRunExecutor,
    Refused,
    Result,
    RunResults,
)
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.command_counts import CommandCounts
from pfsb.sessions.reply_cache import KeptReplies, ReplyCache
from pfsb.sessions.state_machine import CLOSE, EXPIRE, OPEN
from tests.examples import examples
from tests.long import long
from tests.sessions.support import BareApplication, Driver, code, dump

OPTIONS = examples(200, database=None)
NAMED = ("alice", "bob")
ANONYMOUS = ("~0.1", "~0.2")
NUMBERS = 60
"""Number above all command numbers of the tests: no session has as many commands."""


class CountingKeyValue(KeyValue):
    """The key-value store, and how many commands it has executed in runs."""

    together = 0

    def execute_run(self, commands: Sequence[Command], context: IContext) -> bool:
        has_run = super().execute_run(commands, context)
        self.together += len(commands) if has_run else 0
        return has_run


class OneByOneKeyValue(KeyValue):
    run_verbs = ()


class CountingChat(Chat):
    """The chat, and how many lines were said in runs."""

    together = 0

    def execute_run(self, commands: Sequence[Command], context: IContext) -> bool | Counters:
        counters = super().execute_run(commands, context)
        self.together += len(commands) if counters else 0
        return counters


class OneByOneChat(Chat):
    run_verbs = ()


@implementer(IReplicatedApplication, IRunExecutor)
class Sum(BareApplication):
    """An application whose commands may fail, one by one and together.

    ADD of 13 fails in its program when it has changed the sum. A run with 13 is not executed together, and a run with
    17, which is no fault by itself, raises an exception before it has changed anything. ADD of 19 is refused. MARK
    answers with a field that no client can be told.
    """

    name = "sum"
    commands = (CommandDescription("ADD", "ADD n", "Add."), CommandDescription("MARK", "MARK", "Add one."))

    def __init__(self, run_verbs: Sequence[str]) -> None:
        self.run_verbs = run_verbs
        self.sum = 0
        self.together = 0
        self.raises: BaseException = ZeroDivisionError()

    def execute(self, command: Command, context: IContext) -> Result:
        if command == ("MARK",):
            self.sum += 1
            return Done((("a mark", self.sum), ("revision", context.revision)))
        if command[1] == 19:
            return Refused("CONFLICT", "never 19")
        self.sum += command[1]
        if command[1] == 13:
            raise self.raises
        return Done((("revision", context.revision),))

    def execute_run(self, commands: Sequence[Command], context: IContext) -> bool | Counters:
        if commands[0] == ("MARK",):
            self.sum += len(commands)
            self.together += len(commands)
            return (("a mark", self.sum - len(commands) + 1),)
        numbers = [number for _, number in commands]
        if 17 in numbers:
            raise KeyError(17)
        if 13 in numbers or 19 in numbers:
            return False
        self.sum += sum(numbers)
        self.together += len(numbers)
        return True

    def check(self, command: tuple[str, ...]) -> Command:
        raise AssertionError("commands come checked")

    def snapshot(self) -> bytes:
        return str(self.sum).encode()


# ---------------------------------------------------------------------------------------------
# Random bundles
# ---------------------------------------------------------------------------------------------

keys = st.sampled_from(("a", "b", "c", "k\u00e9y"))
sizes = st.sampled_from((0, 1, 1, 2, 5, 9, 30))
puts = st.builds(lambda key, size: ("PUT", key, "v" * size), keys, sizes)
appends = st.builds(lambda key: ("APPEND", key, "xyz"), keys)
says = st.builds(lambda text: ("SAY", text), st.sampled_from(("hello", "gr\u00fc\u00df", "x" * 15)))
locks = st.builds(
    lambda verb, name: (verb, name, -1)[: 2 + (verb != "TRYLOCK")],
    st.sampled_from(("LOCK", "TRYLOCK", "UNLOCK", "UNLOCK")),
    st.sampled_from(("one", "two")),
)
others = st.one_of(
    st.just(("PUT", "a")),
    st.just(("PUT", "a", 7)),
    st.just(("PUT", 7, 7)),
    st.builds(lambda key: ("INCR", key, 1), keys),
    appends,
    st.builds(lambda key: ("DEL", key), keys),
    st.builds(lambda key: ("GET", key), keys),
    locks,
    locks,
    says,
    st.just(("SAY", 7)),
    st.just(("SAY", "a", "b")),
    st.builds(lambda key: ("PUTHASH", key, "x"), keys),
    st.builds(lambda key: ("MPUT", key, "x", "b", "y"), keys),
    st.builds(lambda key, old: ("CAS", key, 1, old, "new"), keys, st.sampled_from(("v", "new"))),
    st.builds(lambda key: ("CAS", key, 0, "", "v"), keys),
    st.just(("LOG", 1, 3)),
    st.just(("NONSENSE", "hello")),
    st.builds(lambda name, value: ("SETTINGS SET", f"{name}={value}"), st.just("kv_bytes"), st.integers(1, 90)),
    st.builds(lambda name, value: ("SETTINGS SET", f"{name}={value}"), st.just("session_window"), st.integers(1, 30)),
    st.builds(lambda name, value: ("SETTINGS SET", f"{name}={value}"), st.just("value_bytes"), st.integers(1, 20)),
    st.builds(lambda name, value: ("SETTINGS SET", f"{name}={value}"), st.just("chat_bytes"), st.integers(1, 90)),
)
sums = st.builds(lambda number: ("ADD", number), st.sampled_from((1, 2, 3, 5, 13, 17, 19)))
commands = st.one_of(
    st.lists(puts, min_size=1, max_size=9),
    st.lists(puts, min_size=1, max_size=9),
    st.lists(st.one_of(puts, appends), min_size=2, max_size=4),
    st.lists(st.one_of(puts, puts, puts, others), min_size=1, max_size=6),
    st.lists(sums, min_size=1, max_size=5),
    st.lists(says, min_size=1, max_size=6),
    st.lists(st.just(("MARK",)), min_size=1, max_size=3),
    st.lists(others, min_size=1, max_size=6),
    st.lists(
        st.one_of(
            st.lists(puts, min_size=1, max_size=4),
            st.lists(says, min_size=1, max_size=3),
            st.lists(others, min_size=1, max_size=1),
        ),
        min_size=2,
        max_size=4,
    ).map(lambda pieces: [command for piece in pieces for command in piece]),
)
"""Commands of a bundle: of one verb each; the last choice has several verbs, with runs in them."""
steps = st.lists(st.sampled_from((1, 1, 1, 1, 1, 1, 1, 1, 2, 0, -1, None)), max_size=9) | st.lists(
    st.sampled_from((2, 0, -1, -3, -7)), max_size=1
)
"""By how much each number is above the one before, 1 if there is none; None: the command comes without a number."""
bundles = st.tuples(st.sampled_from(NAMED + ANONYMOUS), st.sampled_from((0, 0, 0, 0, 0, 1)), commands, steps)
"""(client id, by how much its epoch is wrong, commands, steps)"""
singles = st.lists(
    st.tuples(
        st.sampled_from(NAMED + ANONYMOUS),
        st.sampled_from((0, 0, 0, 0, 0, 0, 0, 1)),
        st.lists(st.one_of(puts, puts, puts, puts, appends), min_size=1, max_size=1)
        | st.lists(says, min_size=1, max_size=1),
        st.lists(st.sampled_from((1, 1, 1, 1, 2, 0, None)), max_size=1),
    ),
    min_size=2,
    max_size=4,
    unique_by=lambda each: each[0],
)
"""Bundles of one command each, as many clients send them that do not pipeline."""
alike = st.sampled_from((puts, puts, says, sums)).flatmap(
    lambda verb: st.lists(
        st.tuples(
            st.sampled_from(NAMED + ANONYMOUS),
            st.sampled_from((0, 0, 0, 0, 0, 0, 0, 1)),
            st.lists(verb, min_size=1, max_size=4),
            st.lists(st.sampled_from((1, 1, 1, 1, 1, 1, 2, 0)), max_size=3),
        ),
        min_size=2,
        max_size=4,
        unique_by=lambda each: each[0],
    )
)
"""Bundles of one verb, as many clients send them that pipeline."""
operations = st.tuples(st.sampled_from((OPEN, OPEN, CLOSE, EXPIRE)), st.sampled_from(NAMED), st.integers(0, 1))
mixed = st.lists(st.one_of(bundles, bundles, bundles, operations), min_size=1, max_size=3)
slots = st.lists(st.one_of(mixed, mixed, singles, alike), min_size=5, max_size=8)
quotas = st.fixed_dictionaries(
    {},
    optional={
        "kv_bytes": st.integers(5, 90),
        "value_bytes": st.integers(1, 20),
        "chat_bytes": st.integers(5, 90),
        "reply_cache_bytes": st.sampled_from((1, 100, 700)),
        "replies_bytes": st.sampled_from((1, 200, 1_500)),
        "sessions": st.integers(1, 3),
    },
)


class Pair:
    """Two state machines that execute the same updates: one executes runs together, the other commands one by one."""

    def __init__(self, window: int, quotas: dict[str, int]) -> None:
        self.kv, self.chat, self.sum = CountingKeyValue(), CountingChat(), Sum(("ADD", "MARK"))
        self.together = self._driver((self.kv, self.chat, self.sum), window, quotas)
        self.one_by_one = self._driver((OneByOneKeyValue(), OneByOneChat(), Sum(())), window, quotas)
        self.last = dict.fromkeys(NAMED + ANONYMOUS, 0)

    def _driver(self, applications: tuple[Any, Any], window: int, quotas: dict[str, int]) -> Driver:
        apps = ("chat", 1), ("kv", 1), ("lock", 1), ("sum", 1)
        driver = Driver(0, Catalogue([*applications, Lock()]), window, apps=apps, **quotas)
        driver.machine.counts = CommandCounts()
        return driver

    def execute(self, server_id: int, *parts: Any) -> None:
        """Have both execute one slot, whose update has these bundles and operations."""
        made = [self._operation(*each) if each[0] in (OPEN, CLOSE, EXPIRE) else self._bundle(*each) for each in parts]
        for driver in (self.together, self.one_by_one):
            driver.execute(driver.update(*made, server_id=server_id))

    def _epoch(self, client_id: str) -> int:
        session = self.one_by_one.machine.sessions.get(client_id)
        return session.epoch if session is not None else 0

    def _operation(self, verb: str, client_id: str, wrong: int) -> Bundle:
        last = 10_000 if verb == OPEN else self._epoch(client_id) + wrong
        return Bundle("!", 0, False, ((0, (verb, client_id, last)),))

    def _bundle(self, client_id: str, wrong: int, commands: Sequence[Command], steps: Sequence[int | None]) -> Bundle:
        entries = []
        for command, step in zip(commands, [*steps, *[1] * len(commands)], strict=False):
            is_question = step is None or command[0] in ("GET", "LOG")
            self.last[client_id] = (
                max(1, self.last[client_id] + (step or 0)) if not is_question else (self.last[client_id])
            )
            question = command if command[0] == "LOG" else ("GET", "a")
            entries.append((0, question) if is_question else (self.last[client_id], command))
        is_anonymous = client_id in ANONYMOUS
        return Bundle(client_id, 0 if is_anonymous else self._epoch(client_id) + wrong, is_anonymous, tuple(entries))

    def require_equal(self, test: SynchronousTestCase) -> None:
        """Require that both have told and kept the same, and are in the same state."""
        both = self.together, self.one_by_one
        for one, other in zip(*map(_all_of, both), strict=True):
            test.assertEqual(one, other)


def _all_of(driver: Driver) -> Sequence[Any]:
    machine, observer = driver.machine, driver.observer
    answers = [
        [machine.answer_of(session, number) for number in range(1, NUMBERS)] for session in machine.sessions.values()
    ]
    pages = [[[*page.numbers] for page in session.answers.pages()] for session in machine.sessions.values()]
    assert machine.counts is not None
    return (
        driver.outcomes,
        [[*results] for results in observer.results],
        observer.ends,
        observer.completions,
        observer.grown,
        dump(machine),
        answers,
        pages,
        [(page.number, page.looked_at, page.size, len(page)) for page in machine.kept_replies.pages.values()],
        machine.kept_replies.size,
        machine.quotas(),
        machine.counts.by_verb_and_result(),
        machine.settings.values,
    )


class SameStateTests(SynchronousTestCase):
    """A bundle leads to the same state and the same answers, whether its commands are executed together or one by
    one."""

    @long
    def test_random_bundles(self) -> None:
        """Random bundles contain repeated numbers, questions, refusals, fenced sessions, quotas that are reached within
        a bundle, faults of applications, and enough runs: counters check that each of these has occurred."""
        together = said = 0

        @examples(100, database=None)
        @given(
            st.integers(1, 12),
            st.one_of(st.just({}), st.just({}), quotas),
            slots,
            st.lists(st.integers(0, 1), min_size=8, max_size=8),
        )
        def run(window: int, quotas: dict[str, int], slots: Any, servers: list[int]) -> None:
            nonlocal together, said
            pair = Pair(window, quotas)
            pair.execute(0, (OPEN, "alice", 0), (OPEN, "bob", 0))
            for slot, server_id in zip(slots, servers, strict=False):
                pair.execute(server_id, *slot)
                pair.require_equal(self)
            together += pair.kv.together + pair.sum.together
            said += pair.chat.together
            self.flushLoggedErrors(ZeroDivisionError, KeyError, ValueError)

        run()
        self.assertGreater(together, 50)
        self.assertGreater(said, 20)


class RunTests(SynchronousTestCase):
    """The bundles that are executed together, and those that are not."""

    def setUp(self) -> None:
        self.pair = Pair(12, {"kv_bytes": 40, "value_bytes": 9})
        self.pair.execute(0, (OPEN, "alice", 0), (OPEN, "bob", 0))
        self.kv = self.pair.kv

    def run_bundle(self, *entries: tuple[int, Command], client_id: str = "alice", wrong: int = 0) -> Sequence[Any]:
        """Executes one bundle, at both machines. Returns its results."""
        for driver in (self.pair.together, self.pair.one_by_one):
            epoch = driver.machine.sessions[client_id].epoch + wrong
            driver.execute(driver.bundle(client_id, epoch, *entries))
        self.pair.require_equal(self)
        return self.pair.together.observer.results[0]

    def put(self, *numbers: int, value: str = "v") -> Sequence[Any]:
        return self.run_bundle(*[(number, ("PUT", f"k{number}", value)) for number in numbers])

    def test_run_is_executed_together(self) -> None:
        """Commands of one verb with following numbers are executed together, and each has its own revision."""
        results = self.put(1, 2, 3)
        self.assertIsInstance(results, RunResults)
        first = self.pair.together.machine.revision - 2
        self.assertEqual([*results], [Done((("revision", first + place),)) for place in range(3)])
        self.assertEqual(self.kv.together, 3)

    def test_repeated_number_is_not(self) -> None:
        """A repeated number is not executed in a run: its command is answered from the reply cache."""
        self.put(1, 2)
        self.put(2, 3)
        self.put(3, 3)
        self.assertEqual(self.kv.together, 2)

    def test_numbers_that_are_skipped_are_not(self) -> None:
        """Commands between whose numbers others are skipped are no run: results that are kept together have following
        numbers."""
        self.put(1, 3)
        self.assertEqual(self.kv.together, 0)

    def test_run_that_comes_under_a_former_epoch_is_refused(self) -> None:
        """A run under a former epoch is refused: no command of it is executed."""
        results = self.run_bundle((1, ("PUT", "a", "b")), (2, ("PUT", "a", "b")), wrong=-1)
        self.assertEqual([code(each) for each in results], [("REPLACED", "none")] * 2)
        self.assertEqual(self.kv.together, 0)

    def test_quota_that_is_reached_within_a_run_refuses_the_rest(self) -> None:
        """When a quota is reached within a run, the commands before that are executed, and so is a later one that adds
        little."""
        results = self.run_bundle(
            *[(number, ("PUT", f"k{number}", "v" * 9)) for number in range(1, 6)], (6, ("PUT", "k", "v"))
        )
        self.assertEqual([isinstance(each, Refused) for each in results], [False] * 3 + [True] * 2 + [False])
        self.assertEqual(self.kv.together, 0)

    def test_value_beyond_its_quota_is_refused_alone(self) -> None:
        """A value beyond its quota is refused alone; the commands before and after it in the run are executed."""
        results = self.run_bundle((1, ("PUT", "a", "v")), (2, ("PUT", "b", "v" * 10)), (3, ("PUT", "c", "v")))
        self.assertEqual([isinstance(each, Refused) for each in results], [False, True, False])

    def test_key_that_is_set_twice_has_the_later_value(self) -> None:
        """A key that is set twice in one run has the later value and its revision, and is counted once."""
        self.run_bundle((1, ("PUT", "a", "one")), (2, ("PUT", "b", "two")), (3, ("PUT", "a", "three")))
        self.assertEqual(self.kv.together, 3)
        revision = self.pair.together.machine.revision
        self.assertEqual(self.kv.query(("GET", b"a")), Done((("value", b"three"), ("revision", revision))))
        self.assertEqual(self.kv.used(), len("a" + "three" + "b" + "two"))

    def test_fault_of_the_program_in_a_run_has_the_commands_run_one_by_one(self) -> None:
        """When the program fails in a run, its commands are executed one by one, since none of them has run before; a
        command that fails by itself fails at every server alike."""
        results = self.run_bundle((1, ("ADD", 17)), (2, ("ADD", 13)), (3, ("ADD", 1)))
        self.assertEqual([isinstance(each, Refused) for each in results], [False, True, False])
        self.assertEqual(code(results[1]), ("INTERNAL", "unknown"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_fault_of_the_machine_in_a_run_stops_the_server(self) -> None:
        """A fault of the machine in a run (no memory) stops the server, since other servers may execute the run."""
        driver = self.pair.together
        epoch = driver.machine.sessions["alice"].epoch
        run = driver.bundle("alice", epoch, (1, ("PUT", "a", "b")), (2, ("PUT", "a", "b")))

        def fails(commands: Sequence[Command], context: IContext) -> bool:
            raise MemoryError

        self.kv.execute_run = fails  # type: ignore[method-assign]
        self.assertRaises(MemoryError, driver.execute, run)

    def test_verb_that_waits_is_never_executed_in_runs(self) -> None:
        """A verb that may be PENDING is never executed in runs: the limit of waiting commands is compared for each
        command."""

        class Waits(Sum):
            commands = (CommandDescription("ADD", "ADD n", "Add.", waits=True),)

        waits = Waits(("ADD",))
        driver = Driver(0, Catalogue([waits]))
        epoch = driver.open("alice")["epoch"]
        driver.run("alice", epoch, (1, ("ADD", 1)), (2, ("ADD", 2)))
        self.assertEqual((waits.sum, waits.together), (3, 0))

    def run_bundles(self, *parts: tuple[str, int, Command]) -> list[Sequence[Any]]:
        """Executes one update with a bundle of one command for each (client id, number, command), at both machines."""
        for driver in (self.pair.together, self.pair.one_by_one):
            contents = [
                Bundle(client_id, driver.machine.sessions[client_id].epoch, False, ((number, command),))
                for client_id, number, command in parts
            ]
            driver.execute(driver.update(*contents))
        self.pair.require_equal(self)
        return self.pair.together.observer.results

    def test_single_commands_of_several_sessions_are_executed_together(self) -> None:
        """Single commands of several sessions in one update are executed together, and each bundle gets its own
        results."""
        results = self.run_bundles(("alice", 1, ("PUT", "a", "1")), ("bob", 1, ("PUT", "b", "2")))
        revision = self.pair.together.machine.revision
        self.assertEqual(
            [[*each] for each in results], [[Done((("revision", revision - 1),))], [Done((("revision", revision),))]]
        )
        self.assertEqual(self.kv.together, 2)

    def test_single_commands_are_not_if_one_was_executed_before(self) -> None:
        """Single commands are not executed together if one of them was executed before, if a session has two bundles in
        the update, or if they have two verbs."""
        self.put(1)
        self.run_bundles(("bob", 1, ("PUT", "a", "1")), ("alice", 1, ("PUT", "b", "2")))
        self.run_bundles(("bob", 2, ("PUT", "a", "1")), ("bob", 3, ("PUT", "b", "2")))
        self.run_bundles(("bob", 4, ("PUT", "a", "1")), ("alice", 2, ("APPEND", "b", "2")))
        self.assertEqual(self.kv.together, 0)

    def execute(self, *contents: tuple[str, Sequence[tuple[int, Command]]], server_id: int = 0) -> list[Sequence[Any]]:
        """Executes one update with a bundle for each (client id, entries), at both machines."""
        for driver in (self.pair.together, self.pair.one_by_one):
            bundles = [
                Bundle(client_id, driver.machine.sessions[client_id].epoch, False, entries)
                for client_id, entries in contents
            ]
            driver.execute(driver.update(*bundles, server_id=server_id))
        self.pair.require_equal(self)
        return self.pair.together.observer.results

    def test_runs_of_several_sessions_are_executed_together(self) -> None:
        """Runs of several sessions are executed in one call of the application, and each bundle gets its own
        results."""
        calls: list[int] = []
        execute_run = self.kv.execute_run

        def counts(commands: Sequence[Command], context: IContext) -> bool:
            calls.append(len(commands))
            return execute_run(commands, context)

        self.kv.execute_run = counts  # type: ignore[method-assign]
        puts = [(number, ("PUT", f"k{number}", "v")) for number in (1, 2, 3)]
        results = self.execute(("alice", puts[:2]), ("bob", puts))
        self.assertEqual(calls, [5])
        self.assertEqual([len(each) for each in results], [2, 3])
        self.assertEqual([self.last_of("alice"), self.last_of("bob")], [2, 3])

    def last_of(self, client_id: str) -> int:
        return self.pair.together.machine.last_number(client_id)

    def test_runs_of_several_sessions_with_a_gap_are_executed_one_after_the_other(self) -> None:
        """If a bundle has a gap in its numbers, the bundles are executed one after the other; the one without a gap is
        a run by itself."""
        puts = [(number, ("PUT", f"k{number}", "v")) for number in (1, 2, 4)]
        self.execute(("alice", puts), ("bob", puts[:2]))
        self.assertEqual(self.kv.together, 2)

    def test_bundle_of_several_verbs_is_executed_in_pieces(self) -> None:
        """Commands of one verb that follow each other are executed together, all others one by one, in their order."""
        put, say, append = ("PUT", "a", "1"), ("SAY", "hello"), ("APPEND", "a", "2")
        entries = [*enumerate((put, put, put, say, say, say, append, put, say, say), start=1)]
        results = self.run_bundle(*entries)
        self.assertEqual((self.kv.together, self.pair.chat.together), (3, 3))
        first = self.pair.together.machine.revision - 9
        self.assertEqual(results[4], Done((("index", 2), ("revision", first + 4))))
        self.assertEqual(results[6].fields[0], ("value", b"12"))
        self.assertEqual([dict(each.fields)["revision"] for each in results], [*range(first, first + 10)])

    def test_questions_are_left_out_at_other_servers(self) -> None:
        """Questions are executed only at the server at which they were asked; at other servers the commands around them
        are one run."""
        put, get = ("PUT", "a", "1"), ("GET", "a")
        results = self.execute(("alice", [(1, put), (0, get), (2, put), (3, put)]))
        self.assertEqual((self.kv.together, dict(results[0][1].fields)["value"]), (0, b"1"))
        self.execute(("alice", [(4, put), (0, get), (5, put), (6, put)]), server_id=2)
        self.assertEqual(self.kv.together, 3)

    def test_lines_that_are_said_together_belong_to_their_sessions(self) -> None:
        """Lines of chat that are said in one run belong to their own sessions, and each has its own number."""
        results = self.execute(("alice", [(1, ("SAY", "a")), (2, ("SAY", "b"))]), ("bob", [(1, ("SAY", "c"))]))
        self.assertEqual(self.pair.chat.lines, [("alice", "a"), ("alice", "b"), ("bob", "c")])
        self.assertEqual([dict(each[-1].fields)["index"] for each in results], [2, 3])
        self.assertEqual(self.pair.chat.together, 3)

    def test_results_that_no_client_can_be_told_are_refused_one_by_one(self) -> None:
        """If the results of a run cannot be printed, each command of it is refused with INTERNAL, as if it had been
        executed by itself."""
        results = self.run_bundle((1, ("MARK",)), (2, ("MARK",)))
        self.assertEqual([code(each) for each in results], [("INTERNAL", "unknown")] * 2)
        self.assertEqual((self.pair.sum.sum, self.pair.sum.together), (2, 2))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

    def test_update_of_another_server_is_executed_together_as_well(self) -> None:
        """A run in an update of another server is executed together as well."""
        update: ClientUpdate = self.pair.together.update(
            Bundle("~2.1", 0, True, ((1, ("PUT", "a", "b")), (2, ("PUT", "c", "d")))), server_id=2
        )
        self.pair.together.execute(update)
        self.assertEqual(self.kv.together, 2)


class KeptRunTests(SynchronousTestCase):
    """Results of runs, which the cache keeps as ranges."""

    @OPTIONS
    @given(
        st.integers(1, 40),
        st.sampled_from((1, 150, 700, 10_000)),
        st.lists(st.tuples(st.integers(1, 30), st.sampled_from((0, 0, 0, 3, 80)), st.integers(0, 20)), max_size=12),
    )
    def test_pages_are_those_of_results_that_came_one_by_one(
        self, answers_max: int, bytes_max: int, parts: list[tuple[int, int, int]]
    ) -> None:
        """The pages of the cache are the same for results of runs and for results kept one by one, with further fields,
        other results and changed limits in any order."""
        kept, other = KeptReplies(5_000), KeptReplies(5_000)
        runs, single = (ReplyCache(answers_max, 0, bytes_max, each) for each in (kept, other))
        number = 1
        for count, size, limit in parts:
            if size:
                result = Done((("value", "x" * size),))
                runs.keep(number, result)
                single.keep(number, result)
            else:
                counters = (("index", number),) if limit % 3 == 0 else ()
                results = RunResults.of(range(100 + number, 100 + number + count), counters)
                runs.keep_run(number, results)
                for each in range(number, number + count):
                    single.keep(each, results[each - number], 100 + each)
            number += 1 if size else count
            if limit > 15:
                for cache in (runs, single):
                    cache.set_limits(limit, bytes_max)
            for each_kept in (kept, other):
                each_kept.make_room()
            self.assertEqual(_pages(runs), _pages(single))
            self.assertEqual((runs.forgotten, len(runs), kept.size), (single.forgotten, len(single), other.size))
            self.assertEqual([runs.get(n) for n in range(number + 2)], [single.get(n) for n in range(number + 2)])

    def test_run_is_one_entry(self) -> None:
        """The results of a run take the memory of one entry, and give the garbage collector no further objects."""
        cache = ReplyCache(128)
        cache.keep_run(5, RunResults(range(70, 90)))
        self.assertEqual(cache.page.results, {5: range(70, 90)})
        self.assertEqual((cache.get(4), cache.get(25)), (None, None))
        self.assertEqual(cache.get(24), Done((("revision", 89),)))


def _pages(cache: ReplyCache) -> list[Any]:
    return [([*page.numbers], page.size, page.shared, page.looked_at) for page in cache.pages()]


class RunResultsTests(SynchronousTestCase):
    def test_results_are_a_sequence(self) -> None:
        """The results of a run are a sequence: a caller that knows nothing of runs finds a result for each command."""
        results = RunResults(range(7, 10))
        each = [Done((("revision", 7),)), Done((("revision", 8),)), Done((("revision", 9),))]
        self.assertEqual([*results], each)
        self.assertEqual([results[0], results[-1]], [each[0], each[2]])
        self.assertEqual([*results[1:]], each[1:])
        self.assertIsInstance(results[1:], RunResults)
        self.assertEqual((len(results), results.index(each[1])), (3, 1))
        self.assertRaises(IndexError, results.__getitem__, 3)
        self.assertEqual(repr(results), "RunResults((('revision', range(7, 10)),))")

    def test_results_with_further_fields_are_a_sequence_too(self) -> None:
        """Results of a run that have fields before the revision are a sequence, too: both count up."""
        results = RunResults.of(range(7, 9), (("index", 3),))
        each = [Done((("index", 3), ("revision", 7))), Done((("index", 4), ("revision", 8)))]
        self.assertEqual([*results], each)
        self.assertEqual([results[0], results[-1], *results[1:]], [each[0], each[1], each[1]])
        self.assertEqual(results.columns, (("index", range(3, 5)), ("revision", range(7, 9))))
