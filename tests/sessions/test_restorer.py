"""Building a state of pieces: what is right, what is missing, and what this server cannot run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import Done
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.paxos.snapshot import Piece, WrongSnapshot
from pfsb.paxos.snapshot_rows import packed
from pfsb.sessions import restorer as restorer_module
from pfsb.sessions.frozen_state import CLOSED, GROWING, SESSIONS, STATE
from pfsb.sessions.state_machine import CannotRun, SessionStateMachine
from pfsb.support.limits import PIECE_BYTES_MAX
from tests.sessions.histories import Fresh
from tests.sessions.support import Driver, Later

INSTALLED = Fresh({"chat": Chat, "kv": KeyValue, "lock": Lock, "later": Later})
APPS = tuple((name, 1) for name in INSTALLED.makers)
LARGE = b"x" * 300


def driver(installed: Fresh = INSTALLED, **options: int) -> Driver:
    catalogue = Catalogue([make() for make in INSTALLED.makers.values()], installed)
    return Driver(0, catalogue, apps=APPS, **options)


def busy_driver() -> Driver:
    """A state machine with something in each section."""
    made = driver(window=40)
    epoch = made.open("alice")["epoch"]
    made.run("alice", epoch, (1, ("PUT", "a", "1")), (2, ("WAIT",)), (3, ("SAY", "hello")), (4, ("LOCK", "door", -1)))
    made.run("alice", epoch, (5, ("PUT", "long", LARGE.decode())), (6, ("APPEND", "long", "y")))
    made.run_anonymous("~0.1", (1, ("INCR", "n", 1)), opens=True)
    made.close("bob", made.open("bob")["epoch"])
    other = made.open("carol")["epoch"]
    made.run("carol", other, (1, ("INCR", "n", 1)))
    made.close("carol", other)
    return made


def restore(machine: SessionStateMachine, pieces: list[Piece]) -> None:
    restorer = machine.restorer()
    for piece in pieces:
        restorer.take(piece)
    restorer.adopt()


class RestoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.source = busy_driver()
        self.pieces = [*self.source.machine.freeze()]
        self.target = driver()
        self.machine = self.target.machine

    def test_sections(self) -> None:
        sections = [STATE, CLOSED, GROWING, SESSIONS, "app chat 1", "app kv 1", "app lock 1", "app later 1"]
        self.assertEqual([piece.section for piece in self.pieces], sections)

    def test_state_is_the_same(self) -> None:
        restore(self.machine, self.pieces)
        self.assertEqual([*self.machine.freeze()], self.pieces)
        self.assertEqual(self.target.observer.restored_states, 1)

    def test_nothing_changes_before_it_is_adopted(self) -> None:
        """A state is built in new applications; those that run keep their state until the new ones are adopted."""
        before = [*self.machine.freeze()]
        restorer = self.machine.restorer()
        for piece in self.pieces:
            restorer.take(piece)
        restorer.end()
        self.assertEqual([*self.machine.freeze()], before)
        restorer.adopt()
        self.assertEqual([*self.machine.freeze()], self.pieces)

    def test_end_is_made_in_steps(self) -> None:
        """The end of a restored state is made in steps, between which a server goes on; the steps that are left are
        made when the state is adopted."""
        self.patch(restorer_module, "PAGES_AT_ONCE", 1)
        restorer = self.machine.restorer()
        for piece in self.pieces:
            restorer.take(piece)
        before = [*self.machine.freeze()]
        steps = 1
        while not restorer.end():
            steps += 1
        self.assertEqual(steps, 1 + len(self.source.machine.kept_replies.pages))
        self.assertGreater(steps, 2)
        self.assertEqual([*self.machine.freeze()], before)
        restorer.adopt()
        self.assertEqual([*self.machine.freeze()], self.pieces)
        self.assertEqual([*self.machine.kept_replies.pages], [*self.source.machine.kept_replies.pages])

    def test_log_grows_once(self) -> None:
        """When a state is adopted, the observer hears of the events that are new on this server, and not of them again
        with the next slot."""
        restore(self.machine, self.pieces)
        self.assertEqual(self.target.observer.grown, ["LISTEN"])
        self.target.seq = self.source.seq
        self.target.execute()
        self.assertEqual(self.target.observer.grown, ["LISTEN"])

    def test_settings_are_told(self) -> None:
        told: list[Any] = []
        self.machine.on_settings = told.append
        restore(self.machine, self.pieces)
        self.assertEqual(told, [self.source.machine.settings.values])

    def test_state_goes_on_in_applications_of_a_caller_that_has_made_them(self) -> None:
        """If the caller has made the applications, no others can be made: the running ones take the state from the
        pieces when it is adopted."""
        given = Driver(0, Catalogue([Chat(), KeyValue(), Lock(), Later()]), apps=APPS)
        epoch = given.open("dave")["epoch"]
        given.run("dave", epoch, (1, ("PUT", "other", "1")), (2, ("SAY", "other")), (3, ("WAIT",)))
        before = [*given.machine.freeze()]
        restorer = given.machine.restorer()
        for piece in self.pieces:
            restorer.take(piece)
        restorer.end()
        self.assertEqual([*given.machine.freeze()], before)
        restorer.adopt()
        self.assertEqual([*given.machine.freeze()], self.pieces)

    def test_state_that_is_given_up_leaves_nothing_in_applications_of_a_caller(self) -> None:
        """A state that is given up leaves nothing in applications that the caller has made, neither in those that run
        from the beginning, nor in one that the settings do not ask for yet."""
        for ends in (True, False):
            applications = [Chat(), KeyValue(), Lock(), Later()]
            first = [application.snapshot() for application in applications]
            machine = SessionStateMachine(0, Catalogue(applications))
            for pieces in (self.pieces, self.pieces[:-1]):
                restorer = machine.restorer()
                for piece in pieces:
                    restorer.take(piece)
                if ends and pieces is self.pieces:
                    restorer.end()
                self.assertEqual([application.snapshot() for application in applications], first)
            restore(machine, self.pieces)
            self.assertEqual([*machine.freeze()], self.pieces)

        applications = [Chat(), KeyValue(), Lock(), Later()]
        few = Driver(0, Catalogue(applications), apps=(("kv", 1),))
        few.run_anonymous("~0.1", (1, ("PUT", "other", "1")), opens=True)
        before = [application.snapshot() for application in applications]
        restorer = few.machine.restorer()
        for piece in self.pieces:
            restorer.take(piece)
        self.assertEqual([application.snapshot() for application in applications], before)

    def test_state_before_the_birth_has_no_settings(self) -> None:
        """Slot 1 may have been executed without settings: a state of before the birth of the cluster has none."""
        unborn = [SessionStateMachine(0, Catalogue([Chat()])) for _ in range(2)]
        unborn[0].execute(1, 7, [])
        pieces = [*unborn[0].freeze()]
        self.assertEqual([piece.section for piece in pieces], [STATE])
        restore(unborn[1], pieces)
        self.assertEqual((unborn[1].time_ms, unborn[1].settings.is_born), (7, False))

    def test_result_that_is_larger_than_a_piece_is_cut(self) -> None:
        """An application may give a result of any size: a result that is larger than a piece is cut into several."""
        session = self.source.machine.sessions["alice"]
        session.answers.keep(7, Done((("value", bytes(PIECE_BYTES_MAX + 5)),)))
        pieces = [*self.source.machine.freeze()]
        self.assertLessEqual(max(len(piece.data) for piece in pieces), PIECE_BYTES_MAX)
        restore(self.machine, pieces)
        self.assertEqual(self.machine.sessions["alice"].answers.get(7), session.answers.get(7))


class WrongPiecesTests(SynchronousTestCase):
    """Pieces that make up no state are refused before anything is changed."""

    def setUp(self) -> None:
        self.pieces = [*busy_driver().machine.freeze()]
        self.target = driver()
        self.before = [*self.target.machine.freeze()]

    def assertRefused(self, *pieces: Piece) -> None:
        self.assertRaises(WrongSnapshot, restore, self.target.machine, pieces)
        self.assertEqual([*self.target.machine.freeze()], self.before)
        self.assertEqual(self.target.observer.restored_states, 0)

    def test_missing_pieces(self) -> None:
        for left_out in self.pieces:
            self.assertRefused(*[piece for piece in self.pieces if piece is not left_out])

    def test_pieces_that_are_cut_off(self) -> None:
        for short in self.pieces:
            cut = Piece(short.section, short.data[:-1])
            self.assertRefused(*[cut if piece is short else piece for piece in self.pieces])

    def test_pieces_that_come_twice(self) -> None:
        for twice in self.pieces[1:]:
            if twice.section not in (CLOSED, "app chat 1", "app lock 1", "app kv 1"):
                self.assertRefused(*[each for piece in self.pieces for each in [piece] * (1 + (piece is twice))])

    def test_rows_of_another_form(self) -> None:
        state, *rest = self.pieces
        for section, *rows in (
            (STATE, 7),
            (STATE, (1, 2)),
            (CLOSED, ("alice", 1)),
            (GROWING, 7),
            (SESSIONS, ()),
            (SESSIONS, (1, 0, 0, 0, 0, ())),
            (SESSIONS, (2, ())),
            (SESSIONS, (0, "dave", 0, 0, 0, 0, 0, 0, (), 0), (1, 0, 0, 0, 0, ())),
            (SESSIONS, (0, "dave", 0, 0, 0, 0, 0, 0, (), 1), (2, ())),
            (SESSIONS, (0, "dave", 0, 0, 0, 0, 0, 0, (), 1), (1, 0, 0, 0, 0, ((9, 9),))),
            (SESSIONS, (0, "dave", 0, 0, 0, 0, 0, 0, (), 1), (1, 0, 0, 0, 0, ((5, 1, 99, "value", 1, ()),))),
            ("nonsense", 7),
        ):
            wrong = Piece(section, b"".join(map(packed, rows)))
            self.assertRefused(*[wrong] * (section == STATE), state, wrong, *rest)

    def test_numbers_of_the_state_that_are_none(self) -> None:
        """The row with the numbers of the state is checked before it is adopted: wrong numbers are refused."""
        state, *rest = self.pieces
        row = list(msgpack.unpackb(state.data, use_list=False))
        for place, value in ((0, "7"), (1, None), (5, ((1,),)), (5, (("a", 1),)), (6, ((),)), (9, 1.0)):
            wrong = packed([*row[:place], value, *row[place + 1 :]])
            self.assertRefused(Piece(STATE, wrong), *rest)

    def test_application_that_comes_twice(self) -> None:
        """Two applications with a verb in common cannot run in one server: a snapshot of both is refused."""
        state, *rest = self.pieces
        row = list(msgpack.unpackb(state.data, use_list=False))
        (place,) = [at for at, value in enumerate(row) if isinstance(value, tuple) and ("kv", 1, None) in value]
        (lock,) = [each for each in row[place] if each[0] == "lock"]
        twice = packed([*row[:place], [*row[place], lock], *row[place + 1 :]])
        self.assertRefused(Piece(STATE, twice), *rest)

    def test_state_of_an_application_that_the_snapshot_does_not_name(self) -> None:
        self.assertRefused(*self.pieces, Piece("app nonsense 1", b""))

    def test_pieces_for_an_application_that_takes_none(self) -> None:
        """A snapshot made by another version of the program may have pieces for an application that takes none: it is
        refused."""
        self.target = driver(Fresh({**INSTALLED.makers, "kv": lambda: _Renamed("kv")}))
        self.before = [*self.target.machine.freeze()]
        self.assertRefused(*self.pieces)

    def test_application_that_is_not_installed(self) -> None:
        """A snapshot with an application that is not installed stops the server, with one line for the operator, as
        settings with such an application do."""
        self.target = driver(Fresh({"chat": Chat}))
        self.before = [*self.target.machine.freeze()]
        error = self.assertRaises(CannotRun, restore, self.target.machine, self.pieces)
        self.assertIn("kv version 1", str(error))
        self.assertEqual([*self.target.machine.freeze()], self.before)

    def test_fault_of_the_machine_is_no_wrong_snapshot(self) -> None:
        def short_of_memory() -> Any:
            raise MemoryError

        self.target = driver(Fresh({**INSTALLED.makers, "kv": short_of_memory}))
        self.assertRaises(CannotRun, restore, self.target.machine, self.pieces)


class _Renamed(Later):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class FreezeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.driver = busy_driver()
        self.machine = self.driver.machine
        self.kv = next(each for each in self.machine.applications if isinstance(each, KeyValue))
        self.frozen: list[Iterator[bytes]] = []
        """The iterators that the application `kv` has given out over its pieces."""
        freeze = self.kv.freeze

        def note() -> Iterator[bytes]:
            self.frozen.append(freeze())
            return self.frozen[-1]

        self.patch(self.kv, "freeze", note)

    def test_application_that_raises_costs_the_snapshot_and_nothing_else(self) -> None:
        """An application that raises while its state is frozen costs the snapshot only: as a fault of the server it
        would stop all servers at the same slot."""
        (later,) = [each for each in self.machine.applications if each.name == "later"]
        self.patch(later, "snapshot", lambda: {}["no key"])
        pieces = self.machine.freeze()
        self.assertRaises(KeyError, next, pieces)
        self.assertEqual([*pieces], [])
        self.assertNothingKept()
        self.driver.run_anonymous("~0.1", (2, ("INCR", "n", 1)))

    def test_state_that_is_no_bytes_costs_the_snapshot_too(self) -> None:
        """An application whose state is not bytes costs the snapshot too, whether the state comes in one go or in
        pieces."""
        (later,) = [each for each in self.machine.applications if each.name == "later"]
        for application, method, wrong in (
            (later, "snapshot", lambda: "text"),
            (self.kv, "freeze", lambda: (each for each in [b"right", None])),
            (self.kv, "freeze", lambda: (each for each in [bytes(PIECE_BYTES_MAX + 1)])),
        ):
            patch = self.patch(application, method, wrong)
            self.assertRaises(TypeError, list, self.machine.freeze())
            patch.restore()
            self.assertNothingKept()

    def assertNothingKept(self) -> None:
        """While no snapshot is taken, nothing is told of changes, and the iterators of applications are closed."""
        self.assertEqual(
            (self.machine.kept_replies.watcher, self.machine.frozen, self.kv.is_frozen), (None, None, False)
        )
        self.assertEqual([[*each] for each in self.frozen], [[] for _ in self.frozen])

    def test_iterator_that_is_used_up_or_closed_keeps_nothing(self) -> None:
        for end in (list, Generator.close):
            pieces = self.machine.freeze()
            next(pieces)
            end(pieces)
            self.assertNothingKept()
        pieces = self.machine.freeze()
        pieces.close()
        self.assertNothingKept()

    def test_end_of_a_former_iterator_does_not_end_the_next_one(self) -> None:
        expected = [*self.machine.freeze()]
        former = self.machine.freeze()
        pieces = self.machine.freeze()
        former.close()
        self.driver.run_anonymous("~0.1", (2, ("INCR", "n", 1)), (3, ("PUT", "a", "2")))
        self.assertEqual([*pieces], expected)

    def test_state_that_is_replaced_while_it_is_frozen(self) -> None:
        """A state that is replaced while it is frozen goes on without its snapshot: the freeze ends, and no more
        changes are noted for it."""
        others = [*busy_driver().machine.freeze()]
        pieces = self.machine.freeze()
        next(pieces)
        restore(self.machine, others)
        self.assertNothingKept()
        self.driver.run_anonymous("~0.1", (2, ("INCR", "n", 1)))

    def test_memory_of_images_is_small(self) -> None:
        """A session that changes during a freeze has a few numbers set aside, and no copy of its results."""
        pieces = self.machine.freeze()
        self.driver.run_anonymous("~0.1", (2, ("PUT", "b", "1")))
        session = self.machine.sessions["~0.1"]
        frozen = self.machine.frozen
        assert frozen is not None
        ((_, ((results, count, *_),)),) = frozen.images.values()
        self.assertIs(results, session.answers.page.results)
        self.assertEqual((count, len(results)), (1, 2))
        pieces.close()
