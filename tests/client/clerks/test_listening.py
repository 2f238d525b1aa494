"""Listening to the chat ends and is cancelled cleanly with each of the three clerks."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from pfsb.applications.key_value import KeyValue
from pfsb.client import AsyncClerk, ChatEnded, Clerk, ClerkError
from pfsb.client.clerks import line_buffer
from pfsb.client.clerks.twisted import TwistedClerk
from tests.client.clerks.test_clerks import ClerkTestCase
from tests.client.cluster import reactor


class EndOfTheChatTests(ClerkTestCase):
    """The cluster stops running the chat while a program listens: the program gets `ChatEnded`, and its clerk goes
    on."""

    def end_chat(self) -> None:
        self.cluster.shared.catalogue.switch([KeyValue()])

    async def test_iteration_raises(self) -> None:
        def script(clerk: Clerk) -> Any:
            chat = clerk.listen(1)
            clerk.say("first")
            heard = next(chat).text
            reactor.callFromThread(self.end_chat)
            try:
                next(chat)
            except ChatEnded as error:
                return heard, error.text, clerk.incr("n"), clerk.listening
            return None

        self.assertEqual(await self.blocking(script), ("first", "no chat any more", 1, 0))

    async def test_iteration_in_asyncio_raises(self) -> None:
        async def program(clerk: AsyncClerk) -> Any:
            async with clerk.listen(1) as chat:
                await clerk.say("first")
                heard = (await anext(chat)).text
                reactor.callFromThread(self.end_chat)
                try:
                    await anext(chat)
                except ChatEnded as error:
                    return heard, error.text, await clerk.incr("n"), clerk.listening
            return None

        self.assertEqual(await self.asynchronous(program), ("first", "no chat any more", 1, 0))

    async def test_iteration_in_twisted_raises(self) -> None:
        clerk = self.twisted()
        chat = clerk.listen(first=1)
        await clerk.say("first")
        await anext(chat)
        reactor.callLater(0, self.end_chat)
        await self.assertFailure(ensureDeferred(anext(chat)), ChatEnded)
        self.assertEqual((await clerk.incr("n"), clerk.listening), (1, 0))

    async def test_function_is_called_and_without_one_the_log_tells_it(self) -> None:
        clerk = self.twisted()
        heard: list[str] = []
        errors: list[ClerkError] = []
        clerk.listen(lambda line: heard.append(line.text), 1, errors.append)
        clerk.listen(lambda line: heard.append(line.text), 1)
        with capturedLogs() as captured:
            await clerk.say("first")
            await self.until(lambda: len(heard) == 2)
            self.end_chat()
            await self.until(lambda: errors)
        self.assertEqual([type(each) for each in errors], [ChatEnded])
        ours = [event for event in captured if event.get("log_namespace", "").startswith("pfsb.client")]
        said = [str(formatEvent(event)) for event in ours]
        self.assertEqual(len(said), 1)
        self.assertTrue(said[0].startswith("listening to the chat has ended: no chat any more (ENDED"), said)


class BlockingTests(ClerkTestCase):
    async def test_iteration_of_another_thread_ends_with_the_clerk(self) -> None:
        def script(clerk: Clerk) -> Any:
            heard: list[str] = []
            chat = clerk.listen()

            def follow() -> None:
                for line in chat:
                    heard.append(line.text)

            thread = threading.Thread(target=follow)
            thread.start()
            clerk.say("first")
            while not heard:
                threading.Event().wait(0.01)
            clerk.close()
            thread.join(5)
            return thread.is_alive(), heard

        self.assertEqual(await self.blocking(script), (False, ["first"]))

    async def test_iteration_of_another_thread_ends_when_the_chat_is_closed(self) -> None:
        """When a chat is closed, the iteration of another thread over it ends, and the clerk goes on."""

        def script(clerk: Clerk) -> Any:
            with clerk.listen() as chat:
                thread = threading.Thread(target=list, args=(chat,))
                thread.start()
            thread.join(5)
            return thread.is_alive(), clerk.incr("n")

        self.assertEqual(await self.blocking(script), (False, 1))

    async def test_break_stops_listening(self) -> None:
        """A `break` out of `async for` or `for` stops the listening, although the program has no iterator that it could
        close."""

        def script(clerk: Clerk) -> Any:
            clerk.say("first")
            for _line in clerk.listen(1):
                break
            gc.collect()
            clerk.get("a")  # the clerk's thread has ended the listening by the time of this answer
            return clerk.listening

        self.assertEqual(await self.blocking(script), 0)

    async def test_call_after_the_end_is_refused_and_none_waits_for_ever(self) -> None:
        """Threads call while another one closes the clerk: each call ends, with a result or with `Closed`."""

        def script(clerk: Clerk) -> Any:
            ended: list[str] = []

            def call() -> None:
                try:
                    while True:
                        clerk.incr("n")
                except Exception as error:
                    ended.append(type(error).__name__)

            threads = [threading.Thread(target=call, daemon=True) for _ in range(8)]
            for thread in threads:
                thread.start()
            threading.Event().wait(0.1)
            clerk.close()
            for thread in threads:
                thread.join(5)
            return [thread.is_alive() for thread in threads], {*ended}

        self.assertEqual(await self.blocking(script), ([False] * 8, {"Closed"}))


class AsyncioTests(ClerkTestCase):
    async def test_cancelled_task_loses_no_line(self) -> None:
        async def program(clerk: AsyncClerk) -> Any:
            async with clerk.listen() as chat:
                await chat.begun()
                waiting = asyncio.ensure_future(anext(chat))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                await clerk.say("first")
                return waiting.cancelled(), (await anext(chat)).text

        self.assertEqual(await self.asynchronous(program), (True, "first"))

    async def test_end_of_the_block_and_break_stop_listening(self) -> None:
        async def program(clerk: AsyncClerk) -> Any:
            await clerk.say("first")
            async with clerk.listen(1) as chat:
                self.assertEqual((await anext(chat)).text, "first")
            left = [line async for line in chat]
            async for _line in clerk.listen(1):
                break
            gc.collect()
            await asyncio.sleep(0.01)
            return left, clerk.listening

        self.assertEqual(await self.asynchronous(program), ([], 0))

    async def test_iteration_ends_with_the_clerk(self) -> None:
        async def program(clerk: AsyncClerk) -> Any:
            heard: list[str] = []

            async def follow() -> None:
                async for line in clerk.listen(1):
                    heard.append(line.text)

            following = asyncio.ensure_future(follow())
            await clerk.say("first")
            while not heard:
                await asyncio.sleep(0.01)
            await clerk.close()
            await following
            return heard

        self.assertEqual(await self.asynchronous(program), ["first"])


class TwistedTests(ClerkTestCase):
    async def test_coroutine_iterates_over_the_lines(self) -> None:
        clerk = self.twisted()
        for n in range(3):
            await clerk.say(str(n))
        heard: list[int] = []
        async with clerk.listen(first=1) as chat:
            async for line in chat:
                heard.append(line.index)
                if len(heard) == 3:
                    break
        self.assertEqual(heard, [1, 2, 3])
        self.assertEqual([line async for line in chat], [])
        self.assertEqual(clerk.listening, 0)

    async def test_cancelled_coroutine_stops_listening(self) -> None:
        clerk = self.twisted()
        following = self.follow(clerk, [])
        await self.until(lambda: clerk.listening)
        following.cancel()
        await self.assertFailure(following, CancelledError)
        self.assertEqual(clerk.listening, 0)

    async def test_cancelled_wait_loses_no_line(self) -> None:
        clerk = self.twisted()
        chat = clerk.listen(first=1)
        waiting: Deferred[Any] = ensureDeferred(anext(chat))
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        await clerk.say("first")
        self.assertEqual((await anext(chat)).text, "first")
        chat.stop()

    async def test_iteration_ends_with_the_clerk(self) -> None:
        clerk = self.twisted()
        heard: list[str] = []
        following = self.follow(clerk, heard)
        await clerk.say("first")
        await self.until(lambda: heard)
        await clerk.close()
        await following
        self.assertEqual(heard, ["first"])

    async def test_break_stops_listening(self) -> None:
        clerk = self.twisted()
        await clerk.say("first")
        async for _line in clerk.listen(first=1):
            break
        gc.collect()
        await self.until(lambda: not clerk.listening)

    async def test_slow_iteration_misses_no_line(self) -> None:
        self.patch(line_buffer, "LINES_MAX", 10)
        clerk = self.twisted()
        chat = clerk.listen(first=1)
        for n in range(50):
            await clerk.say(str(n))
        self.assertEqual([(await anext(chat)).index for _ in range(50)], list(range(1, 51)))
        chat.stop()

    async def test_function_that_raises_is_reported_and_gets_the_next_line(self) -> None:
        """A function `heard` that raises an exception gets the next line; the exception is logged. It once broke the
        connection, and the same line came again for ever."""
        clerk = self.twisted()
        heard: list[int] = []

        def hear(line: Any) -> None:
            heard.append(line.index)
            raise ZeroDivisionError

        clerk.listen(hear, 1)
        await clerk.say("first")
        await clerk.say("second")
        await self.until(lambda: len(heard) == 2)
        self.assertEqual(heard, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_number_in_the_place_of_the_function_is_told(self) -> None:
        clerk: Any = self.twisted()
        self.assertIn("first=", str(self.assertRaises(TypeError, clerk.listen, 1)))

    def follow(self, clerk: TwistedClerk, heard: list[str]) -> Deferred[None]:
        async def follow() -> None:
            async with clerk.listen(first=1) as chat:
                async for line in chat:
                    heard.append(line.text)

        return ensureDeferred(follow())
