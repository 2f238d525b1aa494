"""The clerk for scripts: every call waits for its answer. The clerk has a thread of its own, and needs no reactor."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, TypeVar, Unpack, overload

from pfsb.client.clerks import calls
from pfsb.client.clerks.asyncio import AsyncClerk, forked
from pfsb.client.clerks.call_list import checked_calls
from pfsb.client.clerks.calls import Call, ChatLine, Entry, ReadLevel
from pfsb.client.clerks.chat_stream import ChatStream
from pfsb.client.clerks.clerk_core import HeldLock
from pfsb.client.clerks.clerk_options import TIMEOUT_SECONDS, ClerkOptions
from pfsb.client.clerks.errors import ClerkError, Closed, Unavailable
from pfsb.client.servers import Servers

T = TypeVar("T")

END_SECONDS: Final = 1.0
"""How long, in seconds, `close` waits for the end of the calls of other threads, which it makes fail."""


class Clerk:
    """Keeps one session with a cluster; every call runs exactly once, whichever server answers.

    A program uses it as `with Clerk(servers) as clerk`. Any number of threads may call at once. A call that fails
    raises a `ClerkError`, which says whether the call was carried out. The session is kept in the background, also
    while no call is under way: a program does not lose its locks because it computes for a long time. `options` are
    those of `ClerkOptions`; `on_session_end` is called in the clerk's thread, not in a thread of the program.

    A clerk belongs to the process that has made it: in a child of `fork`, as `multiprocessing` makes them on Linux,
    every call fails at once with `BadCall`, and the session of the parent goes on. Make a clerk of its own there.
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
        self._pid = os.getpid()
        self._clerk = AsyncClerk(servers, timeout_seconds=timeout_seconds, **options)
        self._timeout = timeout_seconds
        self._loop = asyncio.new_event_loop()
        self._gate = threading.Lock()
        """A lock, held while a call is handed to the clerk's thread, and while the clerk is closed. So no call is
        handed over after the close: it would never be answered."""
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="pfsb clerk", daemon=True)
        self._thread.start()

    def __enter__(self) -> Clerk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the session, which releases its locks, and then the connection. Calls of other threads fail.

        In a child of `fork` this does nothing: the session is the parent's.
        """
        if os.getpid() != self._pid:
            return
        self._refuse_own_thread()
        with self._gate:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            self._thread.join()
        elif self._thread.is_alive():
            try:
                asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()

    def run(self, call: Call[T]) -> T:
        """Carry out a call that was made by a function of `pfsb.client.calls`; returns its result."""
        return self._wait(self._clerk.run(call))

    @overload
    def run_all(self, wanted: Iterable[Call[T]], *, return_exceptions: Literal[False] = False) -> list[T]: ...

    @overload
    def run_all(self, wanted: Iterable[Call[T]], *, return_exceptions: Literal[True]) -> list[T | ClerkError]: ...

    def run_all(self, wanted: Iterable[Call[T]], *, return_exceptions: bool = False) -> list[T] | list[T | ClerkError]:
        """Carry out several calls together; returns their results in the order of the calls.

        If calls fail, the error of the first of them is raised when all calls have ended; its `results` has the result
        or error of each call. With `return_exceptions=True` nothing is raised, and that list is returned.
        """
        asked = checked_calls(wanted)
        if return_exceptions:
            return self._wait(self._clerk.run_all(asked, return_exceptions=True))
        return self._wait(self._clerk.run_all(asked))

    def get(self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> str | None:
        """Return the value of a key; None if it is absent."""
        return self.run(calls.get(key, read=read, at=at))

    def get_bytes(self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> bytes | None:
        """Return the bytes of the value of a key; None if it is absent."""
        return self.run(calls.get_bytes(key, read=read, at=at))

    def entry(self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> Entry | None:
        """Return the value of a key and the revision at which it was written; None if it is absent."""
        return self.run(calls.entry(key, read=read, at=at))

    def put(self, key: str | bytes, value: str | bytes) -> int:
        """Set a key; returns the revision of this change."""
        return self.run(calls.put(key, value))

    def delete(self, key: str | bytes) -> bool:
        """Remove a key; returns whether it existed."""
        return self.run(calls.delete(key))

    def cas(self, key: str | bytes, old: str | bytes | None, new: str | bytes) -> bool:
        """Compare and set: give a key the value `new` if its value is `old`, or for `old` None if the key is absent;
        returns whether the key was set."""
        return self.run(calls.cas(key, old, new))

    def if_revision(self, key: str | bytes, revision: int | Literal["any"], call: Call[T]) -> T | None:
        """Compare and set by revision: carry out `call`, which sets or removes keys, if `key` was last written at
        `revision`; 0: if it is absent, "any": if it is there.

        Returns the result of `call`; None if `key` was last written at another revision, and nothing was changed.
        """
        return self.run(calls.if_revision(key, revision, call))

    def incr(self, key: str | bytes, by: int = 1) -> int:
        """Add `by` to the integer at a key, or to 0 if the key is absent; returns the sum.

        Raises `StateError` if the value is no integer.
        """
        return self.run(calls.incr(key, by))

    def append(self, key: str | bytes, text: str | bytes) -> str:
        """Append text to the value of a key; returns the new value."""
        return self.run(calls.append(key, text))

    def puthash(self, key: str | bytes, value: str | bytes) -> str:
        """Set a key to a hash of its old value: the 32-bit FNV-1a hash of the old value followed by `value`, in decimal
        digits.

        Returns the old value; "" if the key was absent.
        """
        return self.run(calls.puthash(key, value))

    def mput(self, values: Mapping[str, str | bytes] | Mapping[bytes, str | bytes]) -> int:
        """Set several keys, either all or none; returns the revision at which they were written."""
        return self.run(calls.mput(values))

    def mget(self, *keys: str | bytes) -> dict[str, Entry]:
        """Return an `Entry` for each of these keys that exists, with its value and revision, as they were at one
        moment."""
        return self.run(calls.mget(*keys))

    def range(self, first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> list[Entry]:
        """Return at most `limit` entries, in byte order of the keys, from key `first` on to before key `end`.

        If `end` is "", the range goes on to the last key.
        """
        return self.run(calls.range_(first, end, limit=limit))

    def keys(self, first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> list[str]:
        """Return the keys of the entries that `range` with the same arguments would return, without their values."""
        return self.run(calls.keys(first, end, limit=limit))

    def settings(self, *, read: ReadLevel = "linearizable") -> dict[str, int | str]:
        """Return the settings that all servers of the cluster share, by name."""
        return self.run(calls.settings(read=read))

    def change_settings(self, values: Mapping[str, int | str]) -> int:
        """Change settings of the cluster, either all or none; returns the revision of the change."""
        return self.run(calls.change_settings(values))

    def say(self, text: str) -> int:
        """Add a line to the chat; returns its index."""
        return self.run(calls.say(text))

    @contextmanager
    def lock(self, name: str, wait: float | None = None) -> Iterator[HeldLock]:
        """Hold a lock inside of a `with` block.

        Waits for the lock at most `wait` seconds, and then raises `LockTimeout`; None: waits for ever. If the lock is
        lost while the block runs, every call of this clerk raises `LockLost` until the block is left, and the end of
        the block raises `LockLost`, too.
        """
        grant = _Grant(self._clerk, name, wait)
        try:
            yield self._wait(grant.get())
        except BaseException:
            with suppress(ClerkError, RuntimeError):  # the block has raised an error, and the caller gets that one
                self._wait(grant.give_back())
            raise
        self._wait(grant.give_back())

    def listen(self, first: int | None = None) -> Chat:
        """Iterate over every line of the chat from number `first` on; None: over the lines that are added from now on.

        If the server fails, the iteration continues at another server without a gap. `with` stops listening at the end
        of its block; so does a `break` out of `for line in clerk.listen()`.
        """
        return Chat(self._wait(self._begin_to_listen(first)), self._wait)

    @property
    def listening(self) -> int:
        """How many iterators get lines of the chat at present."""
        return self._clerk.listening

    async def _begin_to_listen(self, first: int | None) -> ChatStream:
        stream = self._clerk.listen(first)
        try:
            async with asyncio.timeout(self._timeout):
                await stream.begun()
        except BaseException as error:
            await stream.aclose()
            if isinstance(error, TimeoutError):
                raise Unavailable("no server lets us listen", "UNAVAILABLE", "none") from None
            raise
        return stream

    async def _close(self) -> None:
        await self._clerk.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # calls of other threads fail now, since the clerk is closed
            await asyncio.wait(others, timeout=END_SECONDS)
        await asyncio.sleep(0)

    def _wait(self, wanted: Coroutine[Any, Any, T]) -> T:
        if os.getpid() != self._pid:
            wanted.close()
            raise forked(self._pid)  # the thread that would carry out the call is not in this process
        is_begun = False
        try:
            self._refuse_own_thread()
            with self._gate:
                if self._is_closed or not self._thread.is_alive():
                    raise Closed("this clerk was closed", "CLOSED", "none")
                is_begun = True
                future = asyncio.run_coroutine_threadsafe(wanted, self._loop)
        except BaseException:
            if not is_begun:  # otherwise the clerk's thread may be in the coroutine
                wanted.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()  # has an effect only if this thread was interrupted
            raise

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a notice of the clerk comes in its own thread, which must not wait for the clerk")


class _Grant:
    """A lock that a thread of the program asks for; its methods run in the clerk's thread.

    The grant notes by itself that it has the lock. The thread of the program may be interrupted (KeyboardInterrupt)
    just as the lock comes, and then never learns that it has it.
    """

    def __init__(self, clerk: AsyncClerk, name: str, wait: float | None) -> None:
        self._clerk = clerk
        self._name = name
        self._wait = wait
        self._asking: asyncio.Task[Any] | None = None
        self._held: HeldLock | None = None
        self._is_over = False

    async def get(self) -> HeldLock:
        if self._is_over:
            raise asyncio.CancelledError
        self._asking = asyncio.current_task()
        self._held = await self._clerk.acquire(self._name, self._wait)
        return self._held

    async def give_back(self) -> None:
        """Gives the lock back if the clerk has got it, and else stops asking for it. Raises `LockLost` if the lock was
        lost before."""
        self._is_over = True
        held, self._held = self._held, None
        if held is not None:
            await self._clerk.release(held)
        elif self._asking is not None:
            self._asking.cancel()


class Chat:
    """An iterator over lines of the chat, which gives each line once, in order.

    The iteration ends when the clerk is closed, at the end of a `with` block, and after `close`, which another thread
    may call while this one waits for a line. An iterator that the program has dropped stops listening, too.
    """

    def __init__(self, stream: ChatStream, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._stream = stream
        self._wait = wait
        self._come: deque[ChatLine] = deque()
        """Lines that have come and that the program has not got: a thread that waits may be interrupted
        (KeyboardInterrupt) just as a line comes."""

    def __iter__(self) -> Chat:
        return self

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> ChatLine:
        while True:
            with suppress(IndexError):
                return self._come.popleft()
            try:
                is_over = self._wait(_fetch(self._stream, self._come))
            except Closed:
                is_over = True
            if is_over:
                raise StopIteration

    def close(self) -> None:
        """Stop listening to the chat."""
        with suppress(Closed):
            self._wait(self._stream.aclose())


async def _fetch(stream: ChatStream, come: deque[ChatLine]) -> bool:
    """Wait for the next line of a stream, and add it to `come`. Returns True if the stream has ended instead."""
    line = await anext(stream, None)
    if line is None:
        return True
    come.append(line)
    return False
