"""Frozen states: pieces are those of one moment, whatever is executed while they are taken, and restore that moment."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgpack
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from sortedcontainers import SortedList
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications import frozen_keys, pieces
from pfsb.applications.chat import Chat, FrozenLines
from pfsb.applications.frozen_keys import FrozenKeys
from pfsb.applications.instances import FrozenInstances, InstanceLimits, Instances
from pfsb.applications.interfaces import DoneGrowing, GrowingBytes, IFrozenState, IGrowingValues
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import FrozenLocks, Lock
from pfsb.applications.testing import restored_from_pieces, right_pieces
from pfsb.support.limits import PIECE_BYTES
from tests.applications.context import Machine, field
from tests.examples import examples
from tests.long import long

Act = Callable[[Machine], Any]
"""One step of a history: a command, the end of a session, or time that passes. Returns what clients are told."""


def command(*words: Any, client: str = "alice") -> Act:
    return lambda machine: machine.run_checked(client, words)


def run(machine: Machine, *words: Any) -> Any:
    return command(*words)(machine)


def ends(*clients: str) -> Act:
    return lambda machine: machine.end(*clients)


def passes(milliseconds: int) -> Act:
    return lambda machine: machine.pass_time(milliseconds)


def runs(*commands: tuple[Any, ...]) -> Act:
    """Commands of one verb that are executed together (`IRunExecutor`)."""

    def act(machine: Machine) -> Any:
        context = machine.context
        context.revision += 1
        context.session, context.sessions = "alice", ["alice"] * len(commands)
        result = machine.application.execute_run(commands, context)  # type: ignore[attr-defined]
        if result is False:
            return [run(machine, *each) for each in commands]
        context.revision += len(commands) - 1
        return result

    return act


KEYS = [b"a", b"ab", b"b", b"c", b"ca", b"d", b"d\0", b"e", b"\xff"]
keys = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"1", b"22", b"x" * 30, b"y" * 300])
clients = st.sampled_from(["alice", "bob", "carol"])
locks = st.sampled_from(["l", "m"])
seqs = st.integers(0, 6)

kv_acts = st.one_of(
    st.builds(lambda key, value: command("PUT", key, value), keys, values),
    st.builds(lambda some: command("DEL", *some), st.lists(keys, min_size=1, max_size=3)),
    st.builds(lambda key, value: command("APPEND", key, value), keys, values),
    st.builds(lambda key, value: command("CAS", key, 0, b"", value), keys, values),
    st.builds(lambda key: command("INCR", key, 1), keys),
    st.builds(lambda key, value: command("PUTHASH", key, value), keys, values),
    st.builds(lambda key, value: command("IF", key, -1, "APPEND", key, value), keys, values),
    st.builds(
        lambda pairs: command("MPUT", *[word for pair in pairs for word in pair]),
        st.lists(st.tuples(keys, values), min_size=1, max_size=4),
    ),
    st.builds(
        lambda pairs: runs(*[("PUT", *pair) for pair in pairs]),
        st.lists(st.tuples(keys, values), min_size=2, max_size=8),
    ),
    st.just(lambda machine: machine.ask("KEYS")),  # puts new keys into the sorted list
)
lock_acts = st.one_of(
    st.builds(lambda client, name, wait: command("LOCK", name, wait, client=client), clients, locks, st.just(-1)),
    st.builds(
        lambda client, name, wait: command("LOCK", name, wait, client=client), clients, locks, st.integers(1, 20)
    ),
    st.builds(lambda client, name: command("TRYLOCK", name, client=client), clients, locks),
    st.builds(lambda client, name: command("UNLOCK", name, -1, client=client), clients, locks),
    st.builds(lambda some: ends(*some), st.lists(clients, unique=True, min_size=1, max_size=2)),
    st.builds(passes, st.integers(1, 15)),
)
chat_acts = st.one_of(
    st.builds(lambda client, text: command("SAY", text, client=client), clients, st.text(min_size=1, max_size=40)),
    st.builds(lambda texts: runs(*[("SAY", text) for text in texts]), st.lists(st.text(min_size=1), min_size=2)),
)
instance_acts = st.one_of(
    st.builds(lambda seq, text: command("PROPOSE", seq, text), seqs, st.sampled_from(["YQ==", "YWJj", ""])),
    st.builds(
        lambda client, seq, offset: command("PART", seq, offset, 3, "YQ==", client=client),
        clients,
        seqs,
        st.sampled_from([0, 0, 1, 2]),
    ),
    st.builds(lambda seq: command("DONE", 0, 1, seq), st.integers(0, 5)),
    st.builds(lambda some: ends(*some), st.lists(clients, unique=True, min_size=1, max_size=2)),
    st.builds(passes, st.integers(1, 15)),
)
few = InstanceLimits(unfinished_bytes=8 * (3 + 1_024), unfinished_of_session=3, unfinished_idle_ms=20)
APPLICATIONS: Sequence[tuple[Callable[[], Any], st.SearchStrategy[Act]]] = (
    (KeyValue, kv_acts),
    (Lock, lock_acts),
    (Chat, chat_acts),
    (lambda: Instances(few), instance_acts),
)

bounded = examples(100, database=None)


def told(machine: Machine, act: Act) -> Any:
    """Do one step of a history. Returns the answers that clients get, and the next time at which time matters."""
    result = act(machine)
    return repr(result), machine.take_completed(), machine.application.next_deadline()


def twin(machine: Machine, application: Any) -> Machine:
    """A machine with this application, at the revision and time of the other."""
    other = Machine(application)
    other.context.revision, other.context.time_ms = machine.context.revision, machine.context.time_ms
    return other


def taken_from(data: Sequence[bytes], make: Callable[[], Any]) -> Any:
    application = make()
    for piece in data:
        application.take_piece(piece)
    application.pieces_end()
    return application


def frozen_states() -> list[Any]:
    """All frozen states that are in memory."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) in (FrozenKeys, FrozenLocks, FrozenLines, FrozenInstances)]


class FrozenStateTests(SynchronousTestCase):
    """Pieces and rows are small here, so that a small state has several, and each step of the cursor takes few keys."""

    def setUp(self) -> None:
        self.patch(pieces, "PIECE_BYTES", 30)
        self.patch(frozen_keys, "PIECE_BYTES", 30)
        self.patch(frozen_keys, "KEYS_AT_ONCE", 2)
        self.patch(frozen_keys, "READS_MAX", 2)
        self.patch(frozen_keys, "READ_AHEAD", 3)

    def check_application(self, make: Callable[[], Any], acts: st.SearchStrategy[Act]) -> None:
        """A server executes a history. While its pieces are taken, it goes on, and so does another server that has
        restored them. Both tell clients the same, and have the same pieces later."""

        @bounded
        @given(
            st.lists(acts, max_size=25),
            st.lists(st.tuples(st.integers(0, 2), acts), max_size=25),
            st.lists(acts, max_size=10),
        )
        def check(before: list[Act], meanwhile: list[tuple[int, Act]], after: list[Act]) -> None:
            first = Machine(make())
            for act in before:
                told(first, act)
            expected, snapshot = right_pieces(first.application), first.application.snapshot()
            self.assertEqual(b"".join(expected), snapshot)
            second = twin(first, restored_from_pieces(make, expected, snapshot))

            frozen = first.application.freeze()
            taken: list[bytes] = []
            for count, act in meanwhile:
                taken += islice(frozen, count)
                self.assertEqual(told(first, act), told(second, act))
            self.assertEqual([*taken, *frozen], expected)
            for act in after:
                self.assertEqual(told(first, act), told(second, act))
            self.assertEqual(right_pieces(second.application), right_pieces(first.application))

            third = make()
            third.restore(snapshot)
            self.assertEqual(right_pieces(third), expected)

        check()
        self.assertEqual(frozen_states(), [])

    @long
    def test_kv(self) -> None:
        self.check_application(KeyValue, kv_acts)

    @long
    def test_lock(self) -> None:
        self.check_application(Lock, lock_acts)

    @long
    def test_chat(self) -> None:
        self.check_application(Chat, chat_acts)

    @long
    def test_instances(self) -> None:
        self.check_application(lambda: Instances(few), instance_acts)

    def check_each(self, make: Callable[[], Any], before: Sequence[Act], meanwhile: Sequence[Act]) -> None:
        """Execute each of the steps `meanwhile`, by itself, while nothing and while one piece was taken."""
        for number, act in enumerate(meanwhile):
            for count in (0, 1):
                machine = Machine(make())
                for each in before:
                    each(machine)
                expected = right_pieces(machine.application)
                frozen = machine.application.freeze()  # type: ignore[attr-defined]
                taken = [*islice(frozen, count)]
                act(machine)
                self.assertNotEqual(right_pieces(machine.application), expected, f"step {number} changes something")
                self.assertEqual([*taken, *frozen], expected, f"step {number}")

    def test_each_change_of_locks_keeps_what_was(self) -> None:
        """Each change of a queue in which one session waits with two LOCKs, one of them for a time, and another session
        with one, leaves the frozen state as it was."""
        before = [
            *[command("LOCK", name, -1, client="alice") for name in ("l", "m")],
            command("LOCK", "m", 10, client="bob"),
            command("LOCK", "m", -1, client="bob"),
            command("LOCK", "m", 20, client="carol"),
        ]
        meanwhile = [
            command("LOCK", "m", -1, client="dave"),
            command("LOCK", "m", -1, client="carol"),
            command("LOCK", "new", -1, client="dave"),
            command("UNLOCK", "l", -1, client="alice"),
            command("UNLOCK", "m", -1, client="alice"),
            ends("alice"),
            ends("bob"),
            passes(10),
            passes(20),
        ]
        self.check_each(Lock, before, meanwhile)

    def test_each_change_of_instances_keeps_what_was(self) -> None:
        before = [
            *[command("PROPOSE", seq, "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo=") for seq in (3, 1, 2)],
            *[command("PART", seq, 0, 3, "YQ==") for seq in (6, 5)],
        ]
        meanwhile = [
            command("DONE", 0, 1, 2),
            command("DONE", 0, 1, 9),
            command("PROPOSE", 4, "YQ=="),
            command("PROPOSE", 5, "YQ=="),
            command("PART", 6, 1, 3, "YQ=="),
            command("PART", 6, 1, 3, "YWE="),
            command("PART", 6, 0, 2, "YQ=="),
            ends("alice"),
        ]
        self.check_each(Instances, before, meanwhile)

    def test_each_change_of_keys_keeps_what_was(self) -> None:
        """Each change of keys that are changed, new or deleted, some of them not in the sorted list yet, leaves the
        frozen state as it was."""
        before = [
            *[command("PUT", key, b"x" * 20) for key in (b"b", b"d", b"f")],
            command("DEL", b"f"),
            *[command("PUT", key, b"1") for key in (b"e", b"g", b"a")],
        ]
        meanwhile = [
            *[command("PUT", key, b"y" * size) for key in (b"a", b"c", b"d", b"g", b"h") for size in (1, 20)],
            *[command("DEL", key) for key in (b"b", b"d", b"e", b"g")],
            *[command("APPEND", key, b"z") for key in (b"c", b"d", b"g")],
            command("DEL", b"a", b"b", b"d", b"e", b"g"),
            command("MPUT", b"c", b"1", b"d", b"2"),
            runs(("PUT", b"c", b"1"), ("PUT", b"d", b"2"), ("PUT", b"d", b"3"), ("PUT", b"h", b"2")),
        ]
        self.check_each(KeyValue, before, meanwhile)

    def test_iterator_that_is_closed_leaves_nothing(self) -> None:
        """An iterator over pieces that is closed, whether it has begun or not, leaves no frozen state in memory."""
        for make in (KeyValue, Lock, Chat, Instances):
            for count in (0, 1):
                application = make()
                frozen = application.freeze()
                [*islice(frozen, count)]
                frozen.close()  # type: ignore[attr-defined]
                self.assertEqual([*frozen], [])
                self.assertEqual(frozen_states(), [])

    def test_iterator_that_ends_late_does_not_end_a_younger_one(self) -> None:
        machine = Machine(KeyValue())
        run(machine, "PUT", b"k", b"1")
        old = machine.application.freeze()  # type: ignore[attr-defined]
        expected = right_pieces(machine.application)
        new = machine.application.freeze()  # type: ignore[attr-defined]
        old.close()
        run(machine, "PUT", b"k", b"2")
        self.assertEqual([*new], expected)


class PieceTests(SynchronousTestCase):
    def test_applications_say_so(self) -> None:
        for make in (KeyValue, Lock, Chat, Instances):
            self.assertTrue(IFrozenState.providedBy(make()))

    def test_pieces_have_about_64_kib(self) -> None:
        """Pieces of small values have about 64 KiB; a value of a megabyte is in one piece."""
        machine = Machine(KeyValue())
        for number in range(5_000):
            run(machine, "PUT", b"k%05d" % number, b"x" * 100)
        run(machine, "PUT", b"k01000/large", b"y" * 1_048_576)
        sizes = [*map(len, right_pieces(machine.application))]
        (large,) = [size for size in sizes if size > 2 * PIECE_BYTES]
        self.assertLess(large, 1_048_576 + 2 * PIECE_BYTES)
        for size in sizes[:-1]:
            self.assertGreaterEqual(size, PIECE_BYTES)

    def test_full_pieces_of_the_chat_stay_the_same(self) -> None:
        """The pieces of the chat that are full are equal in later snapshots, so that storages may keep them once."""
        machine = Machine(Chat())
        earlier: list[bytes] = []
        for number in range(6_000):
            run(machine, "SAY", f"line {number} of a long talk, in which much is said")
            if number % 1_000 == 0:
                present = right_pieces(machine.application)
                self.assertEqual(present[: len(earlier) - 1], earlier[:-1])
                earlier = present
        self.assertGreater(len(earlier), 3)

    def test_pieces_that_are_missing_or_strange_are_refused(self) -> None:
        for make, act in (
            (KeyValue, command("PUT", b"k", b"v")),
            (Lock, command("LOCK", "l", -1)),
            (Chat, command("SAY", "hello")),
            (Instances, command("PROPOSE", 1, "YQ==")),
        ):
            machine = Machine(make())
            act(machine)
            snapshot = machine.application.snapshot()
            empty = make().snapshot()
            self.assertRaises(ValueError, make().pieces_end)
            self.assertRaises(ValueError, taken_from, [snapshot[:-1]], make)  # the snapshot without its end
            self.assertRaises(ValueError, taken_from, [empty[:-1], snapshot[-1:]], make)  # the last row is missing
            self.assertRaises(ValueError, taken_from, [snapshot[:-2]], make)  # within a row
            for row in (7.5, (), ((), (), (), ()), {}, None, ("l", -1, -1, -1)):
                strange = [empty[:-1], msgpack.packb(row), msgpack.packb(1)]
                self.assertRaises(ValueError, taken_from, strange, make)
            self.assertRaises(ValueError, taken_from, [msgpack.packb((99, "what"))], make)
            self.assertRaises(ValueError, taken_from, [b"\xc1"], make)

    def test_row_that_has_only_begun_is_refused(self) -> None:
        """Bytes that begin a row and do not end it are refused, behind the end of a snapshot or behind any piece, also
        if the row begins with nil. The state stays as it was."""
        for make in (KeyValue, Lock, Chat, Instances):
            empty = make().snapshot()
            for begun in (b"\x93\x01", b"\xa5abc", b"\xc0\x91", b"\x82\x01", b"\xc6\x7f\xff\xff\xff"):
                self.assertRaises(ValueError, taken_from, [empty + begun], make)
                self.assertRaises(ValueError, taken_from, [empty[:-1] + begun, empty[-1:]], make)
                self.assertRaises(ValueError, make().restore, empty + begun)

    def test_piece_behind_the_end_is_refused(self) -> None:
        """A piece behind the end is refused, even if it is a second end."""
        for make in (KeyValue, Lock, Chat, Instances):
            empty = make().snapshot()
            self.assertRaises(ValueError, taken_from, [empty, empty[-1:]], make)
            self.assertRaises(ValueError, make().restore, empty + empty[-1:])

    def test_long_queue_is_taken_while_it_moves(self) -> None:
        """A long queue is frozen while a session waits in it with several LOCKs, of which one times out, and another
        session leaves it."""
        machine = Machine(Lock())
        for client in ("holder", *[f"c{number}" for number in range(4_000)]):
            command("LOCK", "door", 10 if client == "c3900" else -1, client=client)(machine)
            command("LOCK", "door", -1, client=client)(machine)
        expected = right_pieces(machine.application)
        frozen = machine.application.freeze()  # type: ignore[attr-defined]
        taken = [next(frozen)]
        passes(10)(machine)
        for client in ("c3901", "c5", "holder"):
            ends(client)(machine)
        command("LOCK", "door", -1, client="c3902")(machine)
        self.assertTrue([*taken, *frozen] == expected, "pieces differ")  # and are too long to be shown
        self.assertGreater(len(expected), 1)

    def test_session_with_too_many_values_is_told_which_as_before(self) -> None:
        """The refusal lists instances in the order in which their values began, also when the last parts came in
        another order."""
        machine = Machine(Instances(evolve(few, value_bytes=9, unfinished_bytes=10**6)))
        for seq in (5, 1, 3):
            run(machine, "PART", seq, 0, 9, "YQ==")
        run(machine, "PART", 5, 1, 9, "YQ==")
        other = twin(machine, taken_from(right_pieces(machine.application), lambda: Instances(few)))
        refused = run(machine, "PART", 6, 0, 9, "YQ==")
        self.assertIn("instances 5, 1, 3", refused.text)
        self.assertEqual(run(other, "PART", 6, 0, 3, "YQ=="), refused)

    def test_long_history_on_servers_that_are_restored_now_and_then(self) -> None:
        """Servers that are restored from pieces of full size, taken slowly, now and then during a long history, agree
        with one that was not restored."""
        dice = random.Random(3)
        machine = Machine(KeyValue())
        names = [b"key%04d" % number for number in range(3_000)]
        for _ in range(4):
            expected = right_pieces(machine.application)
            frozen: Iterator[bytes] = machine.application.freeze()  # type: ignore[attr-defined]
            taken: list[bytes] = []
            for _ in range(1_500):
                key = dice.choice(names)
                match dice.randrange(4):
                    case 0:
                        run(machine, "DEL", key, dice.choice(names))
                    case 1:
                        run(machine, "APPEND", key, b"a" * dice.randrange(300))
                    case _:
                        runs(*[("PUT", dice.choice(names) + b"/%d" % dice.randrange(3), key) for _ in range(8)])(
                            machine
                        )
                if dice.random() < 0.01:
                    taken += islice(frozen, 1)
            self.assertTrue([*taken, *frozen] == expected, "pieces differ")  # and are too long to be shown
            machine = twin(machine, taken_from(right_pieces(machine.application), KeyValue))
        self.assertGreater(len(expected), 4)


class StepTests(SynchronousTestCase):
    def test_many_new_keys_in_one_place_are_passed_a_part_at_a_time(self) -> None:
        """A row never takes many reads of the sorted list, unless all that was read ahead is used up."""
        machine = Machine(KeyValue())
        runs(*[("PUT", b"k%05d" % number, b"x" * 100) for number in range(20_000)])(machine)
        expected = right_pieces(machine.application)
        reads: list[int] = []
        irange = SortedList.irange

        def counted(keys: Any, *bounds: bytes) -> Any:
            reads[-1] += 1
            return irange(keys, *bounds)

        frozen = machine.application.freeze()  # type: ignore[attr-defined]
        taken = [*islice(frozen, 5)]
        runs(*[("PUT", b"k15000/%06d" % number, b"x") for number in range(50_000)])(machine)
        self.patch(SortedList, "irange", counted)
        for number in range(5, len(expected)):
            reads.append(0)
            taken += islice(frozen, 1)
            self.assertEqual(len(taken), number + 1)
        self.assertTrue([*taken, *frozen] == expected, "pieces differ")  # and are too long to be shown
        self.assertLessEqual(max(reads), 2 * frozen_keys.READS_MAX)
        self.assertGreater(sum(reads), 2 * 65_000 // frozen_keys.KEYS_AT_ONCE)


class GrowingValueTests(SynchronousTestCase):
    """Answers to APPEND share bytes with the entry of the key."""

    def setUp(self) -> None:
        self.machine = Machine(KeyValue())
        self.kv: Any = self.machine.application
        run(self.machine, "PUT", b"k", b"x" * 300)

    def append(self, machine: Machine) -> DoneGrowing:
        done = run(machine, "APPEND", b"k", b"y")
        self.assertIsInstance(done, DoneGrowing)
        return done

    def test_entry_names_what_it_shares(self) -> None:
        self.assertTrue(IGrowingValues.providedBy(self.kv))
        self.assertIsNone(self.kv.growing_at(b"k"))
        self.assertIsNone(self.kv.growing_at(b"other"))
        done = self.append(self.machine)
        self.assertIs(self.kv.growing_at(b"k"), done.growing)
        self.assertEqual((done.growing.key, done.growing.data), (b"k", b"x" * 300 + b"y"))
        run(self.machine, "PUT", b"k", b"new")
        self.assertIsNone(self.kv.growing_at(b"k"))

    def test_restored_entry_shares_what_it_is_given(self) -> None:
        """A restored entry shares its bytes with the result of the APPEND, so that the next APPEND makes them grow, as
        at a server that was not restored."""
        self.append(self.machine)
        other = twin(self.machine, taken_from(right_pieces(self.kv), KeyValue))
        self.assertIsNone(other.application.growing_at(b"k"))  # type: ignore[attr-defined]
        growing = GrowingBytes(kept=1, counted=301)
        other.application.share(b"k", growing)  # type: ignore[attr-defined]
        self.assertEqual((growing.key, growing.data), (b"k", b"x" * 300 + b"y"))
        done = self.append(other)
        self.assertIs(done.growing, growing)
        self.assertEqual(field(done, "value"), field(self.append(self.machine), "value"))
        self.assertEqual((growing.kept, growing.counted, len(growing.data)), (1, 301, 302))
        self.assertEqual(right_pieces(other.application), right_pieces(self.kv))
        self.assertRaises(ValueError, self.kv.share, b"other", growing)
