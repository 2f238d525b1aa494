"""Wrong options of a clerk: found by a type checker, and at once when the clerk is made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any
from unittest import SkipTest

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.client import AsyncClerk, Clerk, TwistedClerk
from pfsb.client.clerks.clerk_options import ClerkOptions, check_options
from tests.long import long

SERVERS = ["127.0.0.1:1"]

PROGRAM = """\
from random import Random
from twisted.internet import reactor
from pfsb.client import AsyncClerk, Call, Clerk, TwistedClerk, calls

right = Clerk("etc/four.yaml", timeout_seconds=None, client_id="alice", ttl_seconds=5, patience_seconds=1)
AsyncClerk(["127.0.0.1:9400"], dice=Random(), on_session_end=print)
right.get("a", read="stale")
calls.command("TODOS", read_reply=lambda reply: reply.ok, read="sequential")
maybe: int | None = right.if_revision("a", 0, calls.put("a", "1"))
right.if_revision("a", "any", calls.delete("b"))
ids: list[int] = right.run_all([calls.incr("n")])
async def main(clerk: TwistedClerk) -> None:
    async with clerk.listen(first=1) as chat:
        async for line in chat:
            print(line.text)
    clerk.listen(lambda line: print(line.text), 5)

Clerk("etc/four.yaml", ttl=5)  # wrong
Clerk("etc/four.yaml", ttl_seconds="5")  # wrong
AsyncClerk("etc/four.yaml", timeout=5)  # wrong
AsyncClerk("etc/four.yaml", on_session_end=5)  # wrong
TwistedClerk(reactor, "etc/four.yaml", patience_seconds="long")  # wrong
TwistedClerk(reactor, 5)  # wrong
right.put("a", 5)  # wrong
right.get("a", read="stael")  # wrong
calls.settings(read="any")  # wrong
calls.command("TODOS", read_reply=lambda reply: reply.ok, read="Stale")  # wrong
right.if_revision("a", "none", calls.put("a", "1"))  # wrong
right.if_revision("a", 7, "PUT a 1")  # wrong
sure: int = right.if_revision("a", 7, calls.put("a", "1"))  # wrong
right.run("PUT a 5")  # wrong
texts: list[str] = right.run_all([calls.incr("n")])  # wrong
"""


class AtOnceTests(SynchronousTestCase):
    def error(self, kind: type[Exception], **options: Any) -> str:
        """The text of the error for these options, which is the same for each of the three clerks."""
        texts = {
            str(self.assertRaises(kind, Clerk, SERVERS, **options)),
            str(self.assertRaises(kind, AsyncClerk, SERVERS, **options)),
            str(self.assertRaises(kind, TwistedClerk, Clock(), SERVERS, **options)),
        }
        self.assertEqual(len(texts), 1)
        return texts.pop()

    def test_unknown_option_is_told_with_the_nearest_one(self) -> None:
        self.assertEqual(self.error(TypeError, ttl=5), 'a clerk has no option "ttl"; did you mean "ttl_seconds"?')
        self.assertIn('did you mean "timeout_seconds"?', self.error(TypeError, timeout=5))

    def test_option_of_a_wrong_type_is_told_with_the_right_one(self) -> None:
        self.assertEqual(
            self.error(TypeError, ttl_seconds="5"),
            "ttl_seconds is '5', of type str; it must be an int: whole seconds",
        )
        for wrong in ({"timeout_seconds": "1"}, {"client_id": 5}, {"patience_seconds": None}, {"ttl_seconds": 1.5}):
            self.assertIn("it must be", self.error(TypeError, **wrong))
        for wrong in ({"on_session_end": 5}, {"dice": 5}, {"timeout_seconds": True}):
            self.assertIn("it must be", self.error(TypeError, **wrong))

    def test_option_out_of_its_range_is_told_with_the_range(self) -> None:
        self.assertEqual(self.error(ValueError, ttl_seconds=0), "ttl_seconds is 0; it is from 1 to 3600 seconds")
        for wrong in ({"ttl_seconds": 3_601}, {"timeout_seconds": 0}, {"patience_seconds": -1}):
            self.error(ValueError, **wrong)
        for wrong_id in ("", "two words", "~mine", "!", "x" * 65, "line\n"):
            self.error(ValueError, client_id=wrong_id)

    def test_wrong_token_is_not_repeated(self) -> None:
        """The error for a wrong token does not repeat it, since the text of an exception comes into logs."""
        for wrong in ("hunter2", "alice.hunter2 ", "al ice.hunter2"):
            self.assertNotIn("hunter2", self.error(ValueError, token=wrong))
        self.assertNotIn("hunter2", self.error(TypeError, token=b"alice.hunter2"))

    def test_right_options_are_taken(self) -> None:
        options: ClerkOptions = {
            "client_id": "x" * 64,
            "ttl_seconds": 3_600,
            "patience_seconds": 0.1,
            "on_session_end": print,
            "authority": "authority.pem",
            "token": "alice.secret",
            "learn_servers": False,
            "dice": Random(1),
        }
        check_options(options)
        check_options({"client_id": None, "authority": None, "token": None, "dice": None})
        self.assertEqual(options.keys(), ClerkOptions.__annotations__.keys())

    def test_reactor_comes_first(self) -> None:
        error = self.assertRaises(TypeError, TwistedClerk, SERVERS, Clock())
        self.assertIn("it must be the reactor", str(error))


class TypeCheckerTests(SynchronousTestCase):
    @long
    def test_type_checker_finds_each_wrong_line_and_no_other(self) -> None:
        try:
            import mypy  # noqa: F401
        except ImportError as error:
            raise SkipTest("mypy is not installed") from error
        path = Path(self.mktemp())
        path.mkdir()
        (path / "program.py").write_text(PROGRAM)
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "--no-incremental",
            "program.py",
        ]
        environment = {**os.environ, "MYPYPATH": str(Path(pfsb.__file__).resolve().parents[1])}
        done = subprocess.run(command, cwd=path, env=environment, capture_output=True, text=True, timeout=300)
        found = {int(line) for line in re.findall(r"^program\.py:(\d+): error", done.stdout, re.MULTILINE)}
        wrong = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
        self.assertEqual(found, wrong, done.stdout + done.stderr)
