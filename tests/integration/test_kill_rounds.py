"""A short form of `tests.integration.kill_rounds` (real processes), and tests of what it checks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.clerks.calls import Entry
from tests.integration.case import ClusterCase, reactor
from tests.integration.kill_rounds import Write, WritesLost, arguments, check, run_rounds


class KillRoundsTests(ClusterCase):
    """Servers that are killed at once, and again while they start."""

    async def test_no_acknowledged_write_is_lost_and_none_runs_twice(self) -> None:
        """In three rounds of kills in the same directories no acknowledged write is lost, and none runs twice."""
        said: list[str] = []
        directory = self.directory()
        directory.mkdir()
        options = arguments(["3", "--kinds", "all,starting,behind", "--directory", str(directory)])
        await run_rounds(reactor, options, said.append)
        self.assertIn("none lost, none twice", said[-1])
        self.assertEqual(list(directory.iterdir()), [], "directories of rounds that went well are removed")


def done(key: str, text: str, value: str, revision: int) -> Write:
    return Write(key, text, value, revision, "done")


class CheckTests(SynchronousTestCase):
    """The writes of a round, and what a server holds of them."""

    def setUp(self) -> None:
        self.writes = [
            done("own", "1", "1;", 7),
            done("shared", "2", "2;", 8),
            done("shared", "4", "2;3;4;", 10),
            Write("shared", "3"),
            Write("never", "5", fate="none"),
            Write("perhaps", "6"),
        ]
        self.found = {"own": Entry("own", "1;", 7), "shared": Entry("shared", "2;3;4;", 10)}

    def assertLost(self, key: str, value: str, revision: int, *parts: str) -> None:
        with self.assertRaises(WritesLost) as raised:
            check(self.writes, self.found | {key: Entry(key, value, revision)})
        for part in parts:
            self.assertIn(part, str(raised.exception))

    def test_writes_that_are_there_once_are_right(self) -> None:
        """A round is right in which each answered write is there once; a write without an answer may be there or
        not."""
        check(self.writes, self.found)
        check(self.writes, self.found | {"perhaps": Entry("perhaps", "6;", 11)})
        check(self.writes, self.found | {"shared": Entry("shared", "2;3;4;", 10)})

    def test_lost_write(self) -> None:
        """A write that was answered with OK counts as lost if the key, or the text in it, is missing."""
        del self.found["own"]
        with self.assertRaises(WritesLost) as raised:
            check(self.writes, self.found)
        self.assertIn("own: '1' is there 0 times, and was acknowledged", str(raised.exception))
        self.assertLost("own", "", 7, "own: '1' is there 0 times, and was acknowledged")

    def test_write_that_ran_twice(self) -> None:
        """A write that is there twice is found, whether it was answered or not."""
        self.assertLost("own", "1;1;", 7, "own: '1' is there 2 times, and was acknowledged")
        self.assertLost("perhaps", "6;6;", 12, "perhaps: '6' is there 2 times, and has fate unknown")

    def test_write_that_ran_although_it_was_refused(self) -> None:
        """A write that is there although it was refused with fate=none is found: a client may have repeated it under
        another number."""
        self.assertLost("never", "5;", 12, "never: '5' is there 1 times, and has fate none")

    def test_order_that_differs_from_what_was_answered(self) -> None:
        """A value whose texts stand in another order than the answers, each of which has the whole value, is found."""
        self.assertLost("shared", "2;4;3;", 10, "shared: was answered as '2;3;4;'")

    def test_revision_that_differs_from_what_was_answered(self) -> None:
        """A key whose revision differs from that in the answer to its last write is found."""
        self.assertLost("own", "1;", 8, "own: was last written in revision 8, and not in 7")

    def test_text_that_nobody_has_written(self) -> None:
        """A text that no client has written is found, under a known key or another one."""
        self.assertLost("own", "1;x;", 8, "own: holds what was not written: 'x'")
        self.assertLost("strange", "y;", 9, "strange: holds what was not written: 'y'")
