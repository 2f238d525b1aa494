"""Fencing: a connection whose session was opened anew elsewhere is told nothing that belongs to the new connection."""

from __future__ import annotations

from pfsb.applications.interfaces import Done
from pfsb.paxos.messages import ClientUpdate
from tests.sessions.support import ClusterTestCase, Driver, code, value

INCR = ("INCR", "n", 1)
LOCK = ("LOCK", "door", -1)


class MachineTests(ClusterTestCase):
    """The state machine by itself, without servers around it."""

    def setUp(self) -> None:
        self.driver = Driver()
        self.machine = self.driver.machine

    def test_result_of_a_wait_is_told_with_the_epoch_of_its_session(self) -> None:
        holder = self.driver.open("holder")["epoch"]
        first = self.driver.open("svc")["epoch"]
        self.driver.run("holder", holder, (1, LOCK))
        self.driver.run("svc", first, (1, LOCK))
        second = self.driver.open("svc")["epoch"]
        self.driver.run("holder", holder, (2, ("UNLOCK", "door", -1)))
        self.assertEqual([number for _, number, _ in self.driver.observer.completions], [1])
        self.assertEqual(self.driver.observer.completed_epochs, [second])

    def test_wait_that_ends_with_its_session_is_told_with_the_epoch_of_that(self) -> None:
        holder, svc = self.driver.open("holder")["epoch"], self.driver.open("svc")["epoch"]
        self.driver.run("holder", holder, (1, LOCK))
        self.driver.run("svc", svc, (1, LOCK))
        self.driver.close("svc", svc)
        self.assertEqual(self.driver.observer.completed_epochs, [svc])

    def test_wait_of_a_session_that_has_ended_answers_no_later_session(self) -> None:
        """A waiting command of a session that has ended, and that the application completes later, answers no command
        of a later session with the same number."""
        first = self.driver.open("svc")["epoch"]
        self.driver.run("svc", first, (1, ("WAIT",)))
        self.driver.close("svc", first)
        second = self.driver.open("svc")["epoch"]
        other = self.driver.open("other")["epoch"]
        self.driver.run("svc", second, (2, LOCK))
        self.driver.run("other", other, (1, ("GO",)))
        self.assertEqual(self.driver.observer.completions, [])

    def test_end_under_a_former_epoch_is_refused(self) -> None:
        """A CLOSE under a former epoch is refused, so that the holder of that epoch does not believe that its locks are
        released."""
        first = self.driver.open("svc")["epoch"]
        self.driver.open("svc")
        (results,) = self.driver.execute(self.driver.operation("CLOSE", "svc", first))
        self.assertEqual((code(results[0]), list(self.machine.sessions)), (("REPLACED", "none"), ["svc"]))


class ConnectionTests(ClusterTestCase):
    """Two connections of one session, at two servers."""

    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.first, self.second = (i for i in self.cluster.ids if i != self.leader)
        self.holder = self.open("holder", self.leader)
        self.do(self.holder, "LOCK", "door")
        self.old = self.open("svc", self.first)

    def test_lock_of_the_new_connection_is_not_granted_to_the_old_one(self) -> None:
        """A lock that the new connection of a session asked for as number 1 is not told to the old one, whose LOCK with
        that number the HELLO has overtaken."""
        on_the_way = self.cluster.network.hold(lambda p: p.sender == self.first and isinstance(p.message, ClientUpdate))
        fenced_off = self.old.ask("LOCK", "door", number=1)
        self.cluster.run(0.05)
        new = self.open("svc", self.second)
        granted = new.ask("LOCK", "door", number=1)
        self.cluster.run(0.2)
        self.do(self.holder, "UNLOCK", "door")
        self.cluster.run(0.5)
        self.assertEqual(value(granted.result, "name"), "door")
        self.assertFalse(fenced_off.answered and isinstance(fenced_off.result, Done))
        on_the_way.release()
        self.cluster.run(1.0)
        self.assertEqual(code(fenced_off.result), ("REPLACED", "unknown"))

    def test_wait_of_the_old_connection_is_not_granted_to_it(self) -> None:
        """A LOCK of the old connection waits on for the new one, and the old one is told that its fate is unknown."""
        fenced_off = self.old.ask("LOCK", "door", number=1)
        self.cluster.run(0.5)
        new = self.open("svc", self.second)
        self.cluster.run(0.5)
        self.assertEqual(code(fenced_off.result), ("REPLACED", "unknown"))
        again = new.ask("LOCK", "door", number=1)
        self.do(self.holder, "UNLOCK", "door")
        self.assertEqual(value(self.answer(again), "name"), "door")
        self.assertEqual(len(self.old.told), 2, "HELLO and LOCK are answered once")

    def test_reads_of_the_old_connection_are_refused(self) -> None:
        """Reads of the old connection are refused: the session may have seen later states at the other server."""
        self.open("svc", self.second)
        self.cluster.run(0.5)
        self.assertEqual(code(self.answer(self.old.look("GET", "n"))), ("REPLACED", "none"))
        self.assertEqual(code(self.do(self.old, "GET", "n")), ("REPLACED", "none"))

    def test_read_that_is_decided_after_the_end_is_refused(self) -> None:
        """A read that began before the session was taken over, and is decided afterwards, is refused."""
        self.cluster.cut(self.leader, self.first)
        told = self.old.ask("GET", "n")
        self.cluster.run(0.01)
        self.open("svc", self.second)
        self.cluster.run(0.1)
        self.cluster.heal()
        self.assertEqual(code(self.answer(told)), ("REPLACED", "none"))

    def test_bye_of_the_old_connection_is_refused(self) -> None:
        """A BYE of the old connection is refused: OK would say that the locks of the session are released."""
        new = self.open("svc", self.second)
        self.do(new, "LOCK", "window")
        self.cluster.run(0.5)
        self.assertEqual(code(self.answer(self.old.bye())), ("REPLACED", "none"))
        self.assertEqual(code(self.do(self.holder, "TRYLOCK", "window")), ("HELD", "none"))

    def test_number_of_the_old_connection_is_not_answered_from_the_new_one(self) -> None:
        new = self.open("svc", self.second)
        self.do(new, "INCR", "n", number=1)
        self.cluster.run(0.5)
        self.assertEqual(code(self.do(self.old, "INCR", "n", number=1)), ("REPLACED", "unknown"))
