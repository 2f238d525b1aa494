"""The clerk for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeVar, Unpack, overload

from pfsb.client.clerks import calls
from pfsb.client.clerks.call_list import checked_calls, read_all
from pfsb.client.clerks.calls import Call, Entry, ReadLevel
from pfsb.client.clerks.chat_lines import ClerkChat
from pfsb.client.clerks.chat_stream import ChatStream
from pfsb.client.clerks.clerk_core import HeldLock
from pfsb.client.clerks.clerk_options import TIMEOUT_SECONDS, ClerkOptions, check_timeout, make_clerk_core
from pfsb.client.clerks.errors import BadCall, ClerkError, error_of
from pfsb.client.core.command import Command
from pfsb.client.core.replies import Reply
from pfsb.client.drivers.asyncio import AsyncioDriver
from pfsb.client.servers import Servers

T = TypeVar("T")


class AsyncClerk:
    """Keeps one session with a cluster; every call runs exactly once, whichever server answers.

    A program uses it as `async with AsyncClerk(servers) as clerk`. Any number of tasks may call at once. A call that
    fails raises a `ClerkError`, which says whether the call was carried out. `options` are those of `ClerkOptions`.

    A clerk belongs to the process that has made it, and to the event loop in which it is used first: a call in a child
    of `fork`, or in another loop, fails at once with `BadCall`.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        timeout_seconds: float | None = TIMEOUT_SECONDS,
        **options: Unpack[ClerkOptions],
    ) -> None:
        """`timeout_seconds` is how long each single call may take; None: a call waits for ever.

        A call for a lock may take its `wait` seconds in addition, or for ever if its `wait` is None. Raises
        `ConfigError` for addresses that a client cannot reach, and `TypeError` or `ValueError` for a wrong option.
        """
        self._timeout = check_timeout(timeout_seconds)
        self._core = make_clerk_core(servers, **options)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: AsyncioDriver | None = None
        self._chat = ClerkChat(self._core, lambda: self._driver)

    async def __aenter__(self) -> AsyncClerk:
        self._driver.act()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session, which releases its locks, and then the connection."""
        await self._driver.stop()

    async def run(self, call: Call[T]) -> T:
        """Carry out a call that was made by a function of `pfsb.client.calls`; returns its result.

        If the task is cancelled, the servers may still execute the call.
        """
        checked_calls([call])
        (reply,) = await self._replies([call])
        return call.read(reply)

    @overload
    async def run_all(self, wanted: Iterable[Call[T]], *, return_exceptions: Literal[False] = False) -> list[T]: ...

    @overload
    async def run_all(self, wanted: Iterable[Call[T]], *, return_exceptions: Literal[True]) -> list[T | ClerkError]: ...

    async def run_all(
        self, wanted: Iterable[Call[T]], *, return_exceptions: bool = False
    ) -> list[T] | list[T | ClerkError]:
        """Carry out several calls together; returns their results in the order of the calls.

        If calls fail, the error of the first of them is raised when all calls have ended; its `results` has the result
        or error of each call. With `return_exceptions=True` nothing is raised, and that list is returned.
        """
        asked = checked_calls(wanted)
        return read_all(asked, await self._replies(asked), return_exceptions)

    async def _replies(self, wanted: list[Call[T]]) -> list[Reply]:
        asked = [self._begin(call) for call in wanted]
        self._driver.act()
        try:
            return [await answered for answered, _ in asked]
        except asyncio.CancelledError:
            for _, command in asked:
                if command is not None and not command.is_over:
                    self._core.give_up(command)
            raise

    async def get(self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> str | None:
        """Return the value of a key; None if it is absent."""
        return await self.run(calls.get(key, read=read, at=at))

    async def get_bytes(
        self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None
    ) -> bytes | None:
        """Return the bytes of the value of a key; None if it is absent."""
        return await self.run(calls.get_bytes(key, read=read, at=at))

    async def entry(self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> Entry | None:
        """Return the value of a key and the revision at which it was written; None if it is absent."""
        return await self.run(calls.entry(key, read=read, at=at))

    async def put(self, key: str | bytes, value: str | bytes) -> int:
        """Set a key; returns the revision of this change."""
        return await self.run(calls.put(key, value))

    async def delete(self, key: str | bytes) -> bool:
        """Remove a key; returns whether it existed."""
        return await self.run(calls.delete(key))

    async def cas(self, key: str | bytes, old: str | bytes | None, new: str | bytes) -> bool:
        """Compare and set: give a key the value `new` if its value is `old`, or for `old` None if the key is absent;
        returns whether the key was set."""
        return await self.run(calls.cas(key, old, new))

    async def if_revision(self, key: str | bytes, revision: int | Literal["any"], call: Call[T]) -> T | None:
        """Compare and set by revision: carry out `call`, which sets or removes keys, if `key` was last written at
        `revision`; 0: if it is absent, "any": if it is there.

        Returns the result of `call`; None if `key` was last written at another revision, and nothing was changed.
        """
        return await self.run(calls.if_revision(key, revision, call))

    async def incr(self, key: str | bytes, by: int = 1) -> int:
        """Add `by` to the integer at a key, or to 0 if the key is absent; returns the sum.

        Raises `StateError` if the value is no integer.
        """
        return await self.run(calls.incr(key, by))

    async def append(self, key: str | bytes, text: str | bytes) -> str:
        """Append text to the value of a key; returns the new value."""
        return await self.run(calls.append(key, text))

    async def puthash(self, key: str | bytes, value: str | bytes) -> str:
        """Set a key to a hash of its old value: the 32-bit FNV-1a hash of the old value followed by `value`, in decimal
        digits.

        Returns the old value; "" if the key was absent.
        """
        return await self.run(calls.puthash(key, value))

    async def mput(self, values: Mapping[str, str | bytes] | Mapping[bytes, str | bytes]) -> int:
        """Set several keys, either all or none; returns the revision at which they were written."""
        return await self.run(calls.mput(values))

    async def mget(self, *keys: str | bytes) -> dict[str, Entry]:
        """Return an `Entry` for each of these keys that exists, with its value and revision, as they were at one
        moment."""
        return await self.run(calls.mget(*keys))

    async def range(self, first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> list[Entry]:
        """Return at most `limit` entries, in byte order of the keys, from key `first` on to before key `end`.

        If `end` is "", the range goes on to the last key.
        """
        return await self.run(calls.range_(first, end, limit=limit))

    async def keys(self, first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> list[str]:
        """Return the keys of the entries that `range` with the same arguments would return, without their values."""
        return await self.run(calls.keys(first, end, limit=limit))

    async def settings(self, *, read: ReadLevel = "linearizable") -> dict[str, int | str]:
        """Return the settings that all servers of the cluster share, by name."""
        return await self.run(calls.settings(read=read))

    async def change_settings(self, values: Mapping[str, int | str]) -> int:
        """Change settings of the cluster, either all or none; returns the revision of the change."""
        return await self.run(calls.change_settings(values))

    async def say(self, text: str) -> int:
        """Add a line to the chat; returns its index."""
        return await self.run(calls.say(text))

    @asynccontextmanager
    async def lock(self, name: str, wait: float | None = None) -> AsyncIterator[HeldLock]:
        """Hold a lock inside of an `async with` block.

        Waits for the lock at most `wait` seconds, and then raises `LockTimeout`; None: waits for ever. If the lock is
        lost while the block runs, every call of this clerk raises `LockLost` until the block is left, and the end of
        the block raises `LockLost`, too.
        """
        held = await self.acquire(name, wait)
        try:
            yield held
        except BaseException:
            with suppress(ClerkError):  # the block has raised an error, and the caller gets that one
                await self.release(held)
            raise
        await self.release(held)

    async def acquire(self, name: str, wait: float | None = None) -> HeldLock:
        """Get a lock, hold it until `release`, and return it.

        Raises `LockTimeout` if the clerk does not get the lock within `wait` seconds; None: it waits for ever. If the
        task is cancelled, the lock is given back, even if a server has granted it in the same moment.
        """
        granted: asyncio.Future[HeldLock] = asyncio.get_running_loop().create_future()

        def told(result: HeldLock | ClerkError) -> None:
            if granted.cancelled():
                # The lock was granted after the cancellation, and before the task noticed it.
                if isinstance(result, HeldLock):
                    self._core.release(result, lambda _reply: None, self._driver.now, None)
                return
            if isinstance(result, HeldLock):
                granted.set_result(result)
            else:
                granted.set_exception(result)

        forget = self._core.lock(name, wait, told, self._driver.now, self._timeout)
        self._driver.act()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._core.release(granted.result(), lambda _reply: None, self._driver.now, None)
                self._driver.act()
            forget()
            raise

    async def release(self, held: HeldLock) -> None:
        """Give a lock back. Raises `LockLost` if the lock was lost before."""
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._core.release(held, _teller(answered), self._driver.now, self._timeout)
        self._driver.act()
        reply = await answered
        if not reply.ok:
            raise error_of(reply)

    def listen(self, first: int | None = None) -> ChatStream:
        """Iterate over every line of the chat from number `first` on; None: over the lines that are added from now on.

        If the server fails, the iteration continues at another server without a gap. `async with` stops listening at
        the end of its block; so does a `break` out of `async for line in clerk.listen()`.
        """
        return ChatStream(self._chat.lines(first), self._driver.loop)

    @property
    def listening(self) -> int:
        """How many iterators and functions get lines of the chat at present."""
        return len(self._chat)

    @property
    def _driver(self) -> AsyncioDriver:
        """The driver, started at the first call.

        Raises `BadCall` in another process than the clerk's own, where its connection must not be used. A child of
        `fork` may go on with the loop of its parent, so the loop alone does not tell.
        """
        if os.getpid() != self._pid:
            raise forked(self._pid)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin_in(loop)
        assert self._started is not None
        return self._started

    def _begin_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect the clerk to the event loop of its first call. Raises `BadCall` in a second loop, where no call would
        ever be answered."""
        if self._started is not None:
            text = "this clerk was used in another event loop before; make a clerk inside of each asyncio.run"
            raise BadCall(text, "OTHERLOOP", "none")
        self._loop, self._started = loop, AsyncioDriver(self._core, loop)
        self._started.start()

    def _begin(self, call: Call[Any]) -> tuple[asyncio.Future[Reply], Command | None]:
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        told, now = _teller(answered), self._driver.now
        return answered, self._core.call(call.line, told, now, self._timeout, asks=call.is_question)


def forked(pid: int) -> BadCall:
    """The error of a call in a child of `fork`; `pid` is the process id of the parent, to which the clerk belongs."""
    text = f"this clerk belongs to process {pid}, and this is process {os.getpid()}; make a clerk here after the fork"
    return BadCall(text, "FORKED", "none")


def _teller(future: asyncio.Future[Reply]) -> Callable[[Reply], None]:
    def tell(reply: Reply) -> None:
        if not future.done():
            future.set_result(reply)

    return tell
