"""The three clerks behave alike, against fake servers behind real sockets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.applications.interfaces import Refused
from pfsb.client import (
    AsyncClerk,
    BadCall,
    Clerk,
    Closed,
    LockLost,
    LockTimeout,
    SessionExpired,
    StateError,
    TwistedClerk,
    Unavailable,
)
from pfsb.client.clerks import calls, line_buffer
from pfsb.client.clerks.clerk_core import ClerkCore
from pfsb.client.core.client_core import WINDOW
from tests.client.cluster import LoopbackTestCase, reactor
from tests.long import long

WANTED = ("v", ("a", "v"), 7, "x", "xy", "", True, False, False, True, True, None, "w!", None, 1)
"""The results of the calls in `use_everything` and `await_everything`, in order."""


def use_everything(clerk: Clerk) -> tuple[Any, ...]:
    """Make one call of every kind by the blocking clerk. Returns the results."""
    clerk.put("a", "v")
    entry = clerk.entry("a")
    assert entry is not None
    return (
        clerk.get("a"),
        (entry.key, entry.value),
        clerk.incr("n", 7),
        clerk.append("t", "x"),
        clerk.append("t", "y"),
        clerk.puthash("h", "x"),
        clerk.cas("c", None, "1"),
        clerk.cas("c", None, "2"),
        clerk.delete("nothing"),
        clerk.delete("c"),
        clerk.if_revision("a", entry.revision, calls.cas("a", "v", "w")),
        clerk.if_revision("a", entry.revision, calls.put("a", "x")),
        clerk.if_revision("a", "any", calls.append("a", "!")),
        clerk.if_revision("nothing", "any", calls.delete("a")),
        clerk.if_revision("nothing", 0, calls.incr("nothing")),
    )


async def await_everything(clerk: AsyncClerk | TwistedClerk) -> tuple[Any, ...]:
    """Make the calls of `use_everything` by a clerk whose calls are awaited. Returns the results."""
    await clerk.put("a", "v")
    entry = await clerk.entry("a")
    assert entry is not None
    return (
        await clerk.get("a"),
        (entry.key, entry.value),
        await clerk.incr("n", 7),
        await clerk.append("t", "x"),
        await clerk.append("t", "y"),
        await clerk.puthash("h", "x"),
        await clerk.cas("c", None, "1"),
        await clerk.cas("c", None, "2"),
        await clerk.delete("nothing"),
        await clerk.delete("c"),
        await clerk.if_revision("a", entry.revision, calls.cas("a", "v", "w")),
        await clerk.if_revision("a", entry.revision, calls.put("a", "x")),
        await clerk.if_revision("a", "any", calls.append("a", "!")),
        await clerk.if_revision("nothing", "any", calls.delete("a")),
        await clerk.if_revision("nothing", 0, calls.incr("nothing")),
    )


class ImportTests(SynchronousTestCase):
    def test_scripts_get_no_reactor(self) -> None:
        """The import of the blocking clerk installs no reactor: its program may choose one later, or use none."""
        program = "import pfsb.client, sys; sys.exit('twisted.internet.reactor' in sys.modules)"
        environment = {**os.environ, "PYTHONPATH": str(Path(pfsb.__file__).resolve().parents[1])}
        self.assertEqual(subprocess.run([sys.executable, "-c", program], env=environment, timeout=60).returncode, 0)


class Interrupted:
    """Interrupts the next call of a blocking clerk that is made in the block, and ends the block with it: as Ctrl-C
    does, but exactly when the result of the call has come, or else before the thread `waits` for it."""

    def __init__(self, *, waits: bool = True) -> None:
        self.results: list[Any] = []
        """The result of the call, which the script does not get."""
        self._waits = waits
        self._was_there = False
        self._begin = asyncio.run_coroutine_threadsafe

    def __enter__(self) -> Interrupted:
        self._patch = mock.patch.object(asyncio, "run_coroutine_threadsafe", self._run)
        self._patch.start()
        return self

    def __exit__(self, kind: Any, *_: object) -> bool:
        self._patch.stop()
        return kind is KeyboardInterrupt

    def _run(self, wanted: Any, loop: Any) -> Any:
        future: Any = self._begin(wanted, loop)
        if self._was_there:
            return future
        self._was_there = True
        if not self._waits:
            raise KeyboardInterrupt
        return mock.Mock(result=lambda: self._interrupt(future), cancel=future.cancel)

    def _interrupt(self, future: Any) -> Any:
        self.results.append(future.result())
        raise KeyboardInterrupt


class ClerkTestCase(LoopbackTestCase):
    def blocking(self, script: Callable[[Clerk], Any], **options: Any) -> Deferred[Any]:
        """Run a script in a thread, as a program without a reactor does."""

        def run() -> Any:
            with Clerk(self.cluster.addresses, **options) as clerk:
                return script(clerk)

        return deferToThread(run)

    def asynchronous(self, program: Callable[[AsyncClerk], Awaitable[Any]], **options: Any) -> Deferred[Any]:
        """Run a coroutine in an asyncio loop of its own."""

        async def run() -> Any:
            async with AsyncClerk(self.cluster.addresses, **options) as clerk:
                return await program(clerk)

        return deferToThread(asyncio.run, run())

    def twisted(self, **options: Any) -> TwistedClerk:
        clerk = TwistedClerk(reactor, self.cluster.addresses, **options)
        self.addCleanup(clerk.close)
        return clerk

    async def end_silence(self) -> None:
        """Break all connections: a server that has not answered HELLO does not notice that its client leaves."""
        for member in self.cluster.members:
            await member.crash()

    def forget_sessions(self) -> None:
        """Let all sessions expire, and break every connection."""
        for session in self.cluster.shared.sessions.values():
            session.opened, session.owner = 0, None
        for member in self.cluster.members:
            for connection in list(member.factory.connections):
                connection.transport.abortConnection()  # type: ignore[union-attr]


class CallTests(ClerkTestCase):
    async def test_blocking_clerk_returns_the_results(self) -> None:
        self.assertEqual(await self.blocking(use_everything), WANTED)

    async def test_asyncio_clerk_returns_the_results(self) -> None:
        self.assertEqual(await self.asynchronous(await_everything), WANTED)

    async def test_twisted_clerk_fires_with_the_results(self) -> None:
        self.assertEqual(await await_everything(self.twisted()), WANTED)

    async def test_many_keys_at_once(self) -> None:
        def script(clerk: Clerk) -> Any:
            clerk.mput({"b": "2", "a": "1", "c": "3"})
            shown = [each.key for each in clerk.range("a", "c")]
            return shown, clerk.keys(), clerk.keys("b", limit=1), {k: e.value for k, e in clerk.mget("a", "x").items()}

        self.assertEqual(await self.blocking(script), (["a", "b"], ["a", "b", "c"], ["b"], {"a": "1"}))

    async def test_settings_are_shown_and_changed(self) -> None:
        """Every clerk shows and changes settings; a wrong value raises `BadCall`."""

        def script(clerk: Clerk) -> Any:
            clerk.change_settings({"session_window": 64, "apps": "kv"})
            return clerk.settings(read="stale")

        async def program(clerk: AsyncClerk | TwistedClerk) -> Any:
            await clerk.change_settings({"session_window": 32})
            return await clerk.settings()

        first = await self.blocking(script)
        self.assertEqual((first["session_window"], first["apps"], first["members"]), (64, "kv", "0,1,2,3"))
        self.assertEqual((await self.asynchronous(program))["session_window"], 32)
        self.assertEqual((await program(self.twisted()))["session_window"], 32)
        with self.assertRaises(BadCall) as caught:
            await self.blocking(lambda clerk: clerk.change_settings({"session_window": "many"}))
        self.assertIn("session_window must be a whole number", str(caught.exception))
        with self.assertRaises(StateError):
            await self.blocking(lambda clerk: clerk.change_settings({"apps": "counter"}))

    async def test_text_is_stored_unchanged(self) -> None:
        text = 'two words, "quotes", \\ and\nlines, nil, \u00e9\u2028\U0001f600'
        self.assertEqual(await self.blocking(lambda clerk: (clerk.put(text, text), clerk.get(text))[1]), text)

    async def test_bytes_are_stored_unchanged(self) -> None:
        """Every clerk stores bytes unchanged, as keys and as values; a str that was made of bytes stands for these
        bytes."""
        data = bytes(range(256))
        text = data.decode(errors="surrogateescape")

        def script(clerk: Clerk) -> Any:
            clerk.put(data, data)
            clerk.mput({b"m": data[:128], b"n": "\u00e9"})
            entry = clerk.entry(data)
            assert entry is not None
            return (
                clerk.get_bytes(data),
                clerk.get(text),
                (entry.key_bytes, entry.value_bytes),
                clerk.cas(text, data, "\0"),
                clerk.append(data, b"\xfe"),
                clerk.puthash(b"h", b"x"),
                clerk.mget(b"m", "n")["m"].value_bytes,
                clerk.range(data, data + b"\0")[0].key_bytes,
                clerk.keys("h"),
                clerk.get_bytes("nothing"),
                clerk.delete(data),
                clerk.incr(b"i"),
            )

        async def program(clerk: Any) -> Any:
            await clerk.put(data, data)
            return await clerk.get_bytes(data), (await clerk.entry(text)).value_bytes, await clerk.get_bytes("nothing")

        self.assertEqual(
            await self.blocking(script),
            (data, text, (data, data), True, "\0\udcfe", "", data[:128], data, ["h", "m", "n"], None, True, 1),
        )
        self.assertEqual(await self.asynchronous(program), (data, data, None))
        self.assertEqual(await program(self.twisted()), (data, data, None))

    async def test_invalid_text_is_refused_before_it_is_sent(self) -> None:
        clerk = self.twisted()
        error = self.assertRaises(BadCall, clerk.put, "a", "\ud800")
        self.assertEqual(error.fate, "none")
        self.assertRaises(BadCall, clerk.get, "a", read="stale\nDEL a")

    async def test_refusal_because_of_the_state_is_an_error_with_its_fate(self) -> None:
        clerk = self.twisted()
        await clerk.put("a", "no number")
        error = await self.assertFailure(clerk.incr("a"), StateError)
        self.assertEqual((error.code, error.fate), ("CONFLICT", "none"))
        self.assertIn("nothing was changed", str(error))

    async def test_calls_are_under_way_together_up_to_the_window(self) -> None:
        clerk = self.twisted()
        await clerk.put("a", "0")
        local_clients = next(
            member.server.local_clients for member in self.cluster.members if member.server.local_clients.connections
        )
        local_clients.hold = True
        results = clerk.run_all([calls.incr("n") for _ in range(3 * WINDOW)])
        await self.until(lambda: len(local_clients.held) == WINDOW)
        local_clients.hold = False
        local_clients.release()
        self.assertEqual(await results, list(range(1, 3 * WINDOW + 1)))

    async def test_blocking_clerk_has_many_under_way(self) -> None:
        def script(clerk: Clerk) -> Any:
            return clerk.run_all([calls.incr("n") for _ in range(200)])

        self.assertEqual(await self.blocking(script), list(range(1, 201)))

    async def test_clerk_goes_on_when_servers_crash(self) -> None:
        clerk = self.twisted()
        await clerk.incr("n")
        for member in [each for each in self.cluster.members if each.server.local_clients.connections][:2]:
            await member.crash()
        self.assertEqual(await clerk.incr("n"), 2)

    @long
    async def test_error_of_an_unanswered_call_says_whether_it_may_have_happened(self) -> None:
        for member in self.cluster.members:
            member.server.local_clients.silent = True
        clerk = self.twisted(timeout_seconds=0.5, patience_seconds=0.1)
        self.assertEqual((await self.assertFailure(clerk.put("a", "1"), Unavailable)).fate, "none")
        for member in self.cluster.members:
            member.server.local_clients.silent = False
        await clerk.put("a", "2")
        for member in self.cluster.members:
            member.server.local_clients.silent = True
        self.assertEqual((await self.assertFailure(clerk.put("a", "3"), Unavailable)).fate, "unknown")
        await self.end_silence()

    async def test_clerk_says_why_no_server_takes_changes(self) -> None:
        """A program learns within seconds, with the servers' reason, that no server takes changes; also if it has no
        session and HELLO is refused."""
        clerk, other = self.twisted(), self.twisted()
        await clerk.get("a")
        for member in self.cluster.members:
            member.server.local_clients.refuse = Refused("READONLY", "short of memory; delete something")
        for each in (clerk, other):
            error = await self.assertFailure(each.put("a", "1"), Unavailable)
            self.assertEqual((error.code, error.fate), ("READONLY", "none"))
            self.assertEqual(error.text, "short of memory; delete something")
        for member in self.cluster.members:
            member.server.local_clients.refuse = None
        self.assertEqual([await self.incr_at_last(clerk), await self.incr_at_last(other)], [1, 2])

    async def incr_at_last(self, clerk: TwistedClerk) -> int:
        """The sum of INCR. A refusal of HELLO that was under way answers it, too, and it did not happen then."""
        while True:
            try:
                return await clerk.incr("n")
            except Unavailable as error:
                self.assertEqual((error.code, error.fate), ("READONLY", "none"))

    async def test_closed_clerk_takes_no_calls(self) -> None:
        clerk = self.twisted()
        await clerk.close()
        await self.assertFailure(clerk.put("a", "1"), Closed)

    async def test_closed_blocking_clerk_takes_no_calls(self) -> None:
        kept: list[Clerk] = []
        await self.blocking(kept.append)
        self.assertRaises(Closed, kept[0].put, "a", "1")

    async def test_closing_ends_calls_of_other_threads(self) -> None:
        for member in self.cluster.members:
            member.server.local_clients.silent = True

        def script(clerk: Clerk) -> Any:
            errors: list[Any] = []

            def other() -> None:
                try:
                    clerk.put("a", "1")
                except Closed as error:
                    errors.append(error)

            thread = threading.Thread(target=other)
            thread.start()
            while not any(member.server.local_clients.unanswered for member in self.cluster.members):
                threading.Event().wait(0.01)
            clerk.close()
            thread.join(5)
            return errors

        self.assertEqual(len(await self.blocking(script)), 1)
        await self.end_silence()


class LockTests(ClerkTestCase):
    async def test_lock_is_held_inside_and_given_back(self) -> None:
        def script(clerk: Clerk) -> Any:
            with clerk.lock("door") as first:
                clerk.put("a", "1")
            with clerk.lock("door") as second:
                return first.token < second.token

        self.assertIs(await self.blocking(script), True)
        verbs = [command[0] for _, _, command in self.cluster.shared.executed]
        self.assertEqual(verbs, ["LOCK", "PUT", "UNLOCK", "LOCK", "UNLOCK"])

    async def test_lock_is_held_with_asyncio(self) -> None:
        async def program(clerk: AsyncClerk) -> bool:
            async with clerk.lock("door") as held:
                return held.token > 0 and not held.is_lost

        self.assertIs(await self.asynchronous(program), True)
        self.assertEqual(self.cluster.shared.executed[-1][2][0], "UNLOCK")

    async def test_lock_is_given_back_if_it_is_granted_when_the_task_was_just_cancelled(self) -> None:
        """If the lock is granted just when the task was cancelled, the clerk gives the lock back. The task learns of
        its cancellation one iteration of the loop later, and the reply is read in between."""
        cancelled: list[asyncio.Task[Any]] = []
        lock_of_core = ClerkCore.lock

        def lock(core: ClerkCore, name: str, wait: Any, told: Callable[[Any], None], *rest: Any) -> Any:
            def cancel_and_tell(result: Any) -> None:
                if cancelled:
                    cancelled.pop().cancel()
                told(result)

            return lock_of_core(core, name, wait, cancel_and_tell, *rest)

        self.patch(ClerkCore, "lock", lock)

        async def program(clerk: AsyncClerk) -> bool:
            task = asyncio.create_task(clerk.acquire("door"))
            cancelled.append(task)
            await asyncio.wait([task])
            await clerk.incr("n")  # returns only after UNLOCK was answered
            async with clerk.lock("door", wait=0):
                return task.cancelled()

        self.assertIs(await self.asynchronous(program), True)
        verbs = [command[0] for _, _, command in self.cluster.shared.executed]
        self.assertEqual(verbs, ["LOCK", "UNLOCK", "INCR", "LOCK", "UNLOCK"])

    async def test_lock_is_given_back_if_it_comes_when_the_script_was_just_interrupted(self) -> None:
        """If the lock comes just when the script was interrupted, the clerk gives the lock back: the script never sees
        it."""

        def script(clerk: Clerk) -> Any:
            clerk.get("a")  # opens the session
            with Interrupted() as interrupted, clerk.lock("a"):
                self.fail("the block of a lock that was interrupted")
            clerk.incr("n")  # returns only after UNLOCK was answered
            return interrupted.results

        (held,) = await self.blocking(script)
        self.assertEqual(held.name, "a")
        verbs = [command[0] for _, _, command in self.cluster.shared.executed]
        self.assertEqual(verbs, ["GET", "LOCK", "UNLOCK", "INCR"])

    async def test_lock_that_is_waited_for_is_not_taken_when_the_script_was_interrupted(self) -> None:
        """A LOCK that waits is withdrawn when the script was interrupted before its thread waits for the call, where
        the call cannot be cancelled."""
        holder = self.twisted()
        held = await holder.acquire("a")

        def script(clerk: Clerk) -> Any:
            clerk.get("a")
            with Interrupted(waits=False), clerk.lock("a"):
                self.fail("the block of a lock that was interrupted")
            blockingCallFromThread(reactor, holder.release, held)
            clerk.get("a")
            with clerk.lock("a", wait=0) as ours:
                return ours.name

        self.assertEqual(await self.blocking(script), "a")
        first, second = self.twisted(), self.twisted()
        async with first.lock("door"):
            waiting = second.acquire("door")
            await self.until(lambda: self.cluster.shared.waiting)
            self.assertNoResult(waiting)
        held = await waiting
        await second.release(held)

    async def test_wait_for_a_lock_ends(self) -> None:
        first, second = self.twisted(), self.twisted()
        async with first.lock("door"):
            error = await self.assertFailure(second.acquire("door", wait=0), LockTimeout)
        self.assertEqual(error.fate, "none")

    async def test_clerk_does_not_give_one_lock_to_two_of_its_users(self) -> None:
        """A clerk refuses a lock that another user of the same clerk holds or waits for: both have the same session, so
        the servers would grant it to both."""
        clerk = self.twisted()
        async with clerk.lock("door"):
            error = await self.assertFailure(clerk.acquire("door"), StateError)
        self.assertEqual(error.code, "HELD")

    async def test_lock_is_given_back_if_it_comes_after_its_wait_was_cancelled(self) -> None:
        first, second = self.twisted(), self.twisted()
        held = await first.acquire("door")
        waiting = second.acquire("door")
        await self.until(lambda: self.cluster.shared.waiting)
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        await self.assertFailure(second.acquire("door"), StateError)
        await first.release(held)
        await self.until(lambda: [c[0] for _, _, c in self.cluster.shared.executed].count("UNLOCK") == 2)
        async with first.lock("door", wait=0), second.lock("window"):
            pass

    async def test_release_that_times_out_still_gives_the_lock_back(self) -> None:
        clerk, other = self.twisted(timeout_seconds=0.3, patience_seconds=0.1), self.twisted()
        held = await clerk.acquire("door")
        for member in self.cluster.members:
            member.server.local_clients.hold = True
        error = await self.assertFailure(clerk.release(held), Unavailable)
        self.assertEqual(error.fate, "unknown")
        self.assertEqual((await self.assertFailure(clerk.acquire("door"), StateError)).code, "HELD")
        for member in self.cluster.members:
            member.server.local_clients.hold = False
            member.server.local_clients.release()
        async with other.lock("door"):
            pass

    async def test_error_inside_of_the_block_is_not_hidden_by_the_release(self) -> None:
        clerk = self.twisted()
        with self.assertRaises(ZeroDivisionError):
            async with clerk.lock("door"):
                self.forget_sessions()
                await self.assertFailure(clerk.put("a", "1"), SessionExpired)
                raise ZeroDivisionError

    async def test_lost_lock_is_reported_and_no_call_is_sent_until_the_block_ends(self) -> None:
        """After a lock is lost, the clerk sends no call until the block ends: the program may believe that it still
        holds the lock."""
        clerk = self.twisted()
        told: list[Any] = []
        with self.assertRaises(LockLost):
            async with clerk.lock("door") as held:
                held.on_lost(told.append)
                self.forget_sessions()
                await self.until(lambda: held.is_lost)
                self.assertRaises(LockLost, held.check)
                self.assertEqual((await self.assertFailure(clerk.put("a", "1"), LockLost)).fate, "none")
        self.assertEqual(told, [held])
        self.assertGreater(await clerk.put("a", "2"), 0)
        self.assertEqual([c for _, _, c in self.cluster.shared.executed if c[0] == "PUT"], [("PUT", b"a", b"2")])

    async def test_lost_lock_raises_in_a_script(self) -> None:
        def script(clerk: Clerk) -> Any:
            lost = threading.Event()
            try:
                with clerk.lock("door") as held:
                    held.on_lost(lambda _held: lost.set())
                    reactor.callFromThread(self.forget_sessions)
                    lost.wait(10)
            except LockLost as error:
                return error.fate, clerk.incr("n")

        self.assertEqual(await self.blocking(script), ("none", 1))


class ChatTests(ClerkTestCase):
    async def test_chat_is_heard_in_a_script(self) -> None:
        def script(clerk: Clerk) -> Any:
            chat = clerk.listen()
            said = [clerk.say(f"line {n}") for n in range(5)]
            heard = [next(chat) for _ in said]
            chat.close()
            return said == [line.index for line in heard], [line.text for line in heard], list(chat)

        self.assertEqual(await self.blocking(script), (True, [f"line {n}" for n in range(5)], []))

    async def test_line_that_comes_when_the_script_was_just_interrupted_is_not_lost(self) -> None:
        """A line of the chat that comes just when the script was interrupted is not lost: the script gets each line
        once, also if it goes on after Ctrl-C."""

        def script(clerk: Clerk) -> Any:
            clerk.say("one")
            clerk.say("two")
            with clerk.listen(1) as chat:
                with Interrupted():
                    self.fail(next(chat))
                return [next(chat).text, next(chat).text]

        self.assertEqual(await self.blocking(script), ["one", "two"])

    async def test_listening_fails_if_no_server_answers(self) -> None:
        for member in self.cluster.members:
            await member.crash()
        failed = self.blocking(lambda clerk: clerk.listen(), timeout_seconds=0.2)
        self.assertEqual((await self.assertFailure(failed, Unavailable)).fate, "none")

    async def test_chat_is_heard_from_the_beginning_with_asyncio(self) -> None:
        async def program(clerk: AsyncClerk) -> list[int]:
            for n in range(3):
                await clerk.say(str(n))
            heard = []
            async for line in clerk.listen(1):
                heard.append(line.index)
                if len(heard) == 3:
                    break
            return heard

        self.assertEqual(await self.asynchronous(program), [1, 2, 3])

    async def test_each_listener_gets_every_line_from_its_first_one_on(self) -> None:
        clerk = self.twisted()
        everything: list[int] = []
        late: list[int] = []
        clerk.listen(lambda line: everything.append(line.index), first=1)
        for n in range(5):
            await clerk.say(str(n))
        clerk.listen(lambda line: late.append(line.index), first=3)
        await clerk.say("last")
        await self.until(lambda: len(late) == 4 and len(everything) == 6)
        self.assertEqual((everything, late), ([1, 2, 3, 4, 5, 6], [3, 4, 5, 6]))

    async def test_chat_continues_at_another_server_without_gap(self) -> None:
        listener, speaker = self.twisted(), self.twisted()
        heard: list[int] = []
        listening = listener.listen(lambda line: heard.append(line.index), first=1)
        await speaker.say("before")
        await self.until(lambda: heard)
        for member in self.cluster.members[:2]:
            await member.crash()
        for n in range(5):
            await speaker.say(str(n))
        await self.until(lambda: len(heard) == 6)
        listening.stop()
        await speaker.say("unheard")
        self.assertEqual(heard, [1, 2, 3, 4, 5, 6])

    async def test_slow_listener_holds_up_no_calls_and_misses_no_line(self) -> None:
        """A slow listener keeps no other call waiting and misses no line: lines that do not fit into its buffer stay at
        the server."""
        self.patch(line_buffer, "LINES_MAX", 10)

        async def program(clerk: AsyncClerk) -> list[int]:
            stream = clerk.listen(1)
            for n in range(100):
                await clerk.say(str(n))
            return [(await anext(stream)).index for _ in range(100)]

        self.assertEqual(await self.asynchronous(program), list(range(1, 101)))
