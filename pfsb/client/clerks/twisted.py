"""The clerk for Twisted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeVar, Unpack, overload

from attrs import define
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from pfsb.client.clerks import calls
from pfsb.client.clerks.call_list import checked_calls, read_all
from pfsb.client.clerks.calls import Call, ChatLine, Entry, ReadLevel
from pfsb.client.clerks.chat_lines import ClerkChat
from pfsb.client.clerks.clerk_core import HeldLock, call_safely
from pfsb.client.clerks.clerk_options import TIMEOUT_SECONDS, ClerkOptions, check_timeout, make_clerk_core
from pfsb.client.clerks.errors import ClerkError, Closed, error_of
from pfsb.client.clerks.listening import Listener
from pfsb.client.clerks.twisted_chat import TwistedChat
from pfsb.client.core.replies import Reply
from pfsb.client.drivers.twisted import TwistedDriver
from pfsb.client.servers import Servers

T = TypeVar("T")

_log: Final = Logger()


def _log_end(error: ClerkError) -> None:
    """Log why no more lines of the chat will come, unless the program has closed the clerk itself."""
    if not isinstance(error, Closed):
        _log.error("listening to the chat has ended: {error}", error=str(error))


def _log_failure(text: str) -> None:
    _log.failure("{text}", text=text)


class TwistedClerk:
    """Keeps one session with a cluster; every call runs exactly once, whichever server answers.

    Each call returns a Deferred. If the call fails, the Deferred fails with a `ClerkError`, which says whether the call
    was carried out. A call whose Deferred is cancelled may run all the same. `options` are those of `ClerkOptions`.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Servers,
        *,
        timeout_seconds: float | None = TIMEOUT_SECONDS,
        **options: Unpack[ClerkOptions],
    ) -> None:
        """`timeout_seconds` is how long each single call may take; None: a call waits for ever.

        A call for a lock may take its `wait` seconds in addition, or for ever if its `wait` is None. Raises
        `ConfigError` for addresses that a client cannot reach, and `TypeError` or `ValueError` for a wrong option.
        """
        if not callable(getattr(reactor, "callLater", None)):
            raise TypeError(f"the first argument is {reactor!r:.80}; it must be the reactor, before the servers")
        self._timeout = check_timeout(timeout_seconds)
        self._core = make_clerk_core(servers, **options)
        self._core.failed = _log_failure
        self._reactor = reactor
        self._driver = TwistedDriver(reactor, self._core)
        self._driver.start()
        self._chat = ClerkChat(self._core, lambda: self._driver)

    async def __aenter__(self) -> TwistedClerk:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def close(self) -> Deferred[None]:
        """Close the session, which releases its locks, and then the connection.

        The Deferred fires when both are closed.
        """
        return self._driver.stop()

    def run(self, call: Call[T]) -> Deferred[T]:
        """Carry out a call that was made by a function of `pfsb.client.calls`; the Deferred fires with its result."""

        checked_calls([call])
        return self._ask(call).addCallback(call.read)

    def _ask(self, call: Call[Any]) -> Deferred[Reply]:
        def give_up(_answered: Deferred[Reply]) -> None:
            if command is not None:
                self._core.give_up(command)

        answered: Deferred[Reply] = Deferred(give_up)
        told, now = _teller(answered), self._driver.now
        command = self._core.call(call.line, told, now, self._timeout, asks=call.is_question)
        self._driver.act()
        return answered

    @overload
    def run_all(self, wanted: Iterable[Call[T]], *, return_exceptions: Literal[False] = False) -> Deferred[list[T]]: ...

    @overload
    def run_all(
        self, wanted: Iterable[Call[T]], *, return_exceptions: Literal[True]
    ) -> Deferred[list[T | ClerkError]]: ...

    def run_all(self, wanted: Iterable[Call[T]], *, return_exceptions: bool = False) -> Deferred[Any]:
        """Carry out several calls together; the Deferred fires with their results in the order of the calls.

        The Deferred fails as soon as one call fails, with the error of that call. The other calls go on. With
        `return_exceptions=True` it fires when all calls have ended, with the result or the `ClerkError` of each.
        """
        asked = checked_calls(wanted)
        if return_exceptions:
            replies = gatherResults([self._ask(call) for call in asked], consumeErrors=True).addErrback(_first_error)
            return replies.addCallback(lambda found: read_all(asked, found, True))
        return gatherResults([self.run(call) for call in asked], consumeErrors=True).addErrback(_first_error)

    def get(self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> Deferred[str | None]:
        """Get the value of a key; the Deferred fires with the value, or None if the key is absent."""
        return self.run(calls.get(key, read=read, at=at))

    def get_bytes(
        self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None
    ) -> Deferred[bytes | None]:
        """Get the bytes of the value of a key; the Deferred fires with them, or None if the key is absent."""
        return self.run(calls.get_bytes(key, read=read, at=at))

    def entry(
        self, key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None
    ) -> Deferred[Entry | None]:
        """Get a key; the Deferred fires with its value and revision, or None if the key is absent."""
        return self.run(calls.entry(key, read=read, at=at))

    def put(self, key: str | bytes, value: str | bytes) -> Deferred[int]:
        """Set a key; the Deferred fires with the revision of this change."""
        return self.run(calls.put(key, value))

    def delete(self, key: str | bytes) -> Deferred[bool]:
        """Remove a key; the Deferred fires with whether it existed."""
        return self.run(calls.delete(key))

    def cas(self, key: str | bytes, old: str | bytes | None, new: str | bytes) -> Deferred[bool]:
        """Compare and set: give a key the value `new` if its value is `old`, or for `old` None if the key is absent.

        The Deferred fires with whether the key was set.
        """
        return self.run(calls.cas(key, old, new))

    def if_revision(self, key: str | bytes, revision: int | Literal["any"], call: Call[T]) -> Deferred[T | None]:
        """Compare and set by revision: carry out `call`, which sets or removes keys, if `key` was last written at
        `revision`; 0: if it is absent, "any": if it is there.

        The Deferred fires with the result of `call`; with None if `key` was last written at another revision, and
        nothing was changed.
        """
        return self.run(calls.if_revision(key, revision, call))

    def incr(self, key: str | bytes, by: int = 1) -> Deferred[int]:
        """Add `by` to the integer at a key, or to 0 if the key is absent; the Deferred fires with the sum."""
        return self.run(calls.incr(key, by))

    def append(self, key: str | bytes, text: str | bytes) -> Deferred[str]:
        """Append text to the value of a key; the Deferred fires with the new value."""
        return self.run(calls.append(key, text))

    def puthash(self, key: str | bytes, value: str | bytes) -> Deferred[str]:
        """Set a key to a hash of its old value: the 32-bit FNV-1a hash of the old value followed by `value`, in decimal
        digits.

        The Deferred fires with the old value; "" if the key was absent.
        """
        return self.run(calls.puthash(key, value))

    def mput(self, values: Mapping[str, str | bytes] | Mapping[bytes, str | bytes]) -> Deferred[int]:
        """Set several keys, either all or none; the Deferred fires with the revision at which they were written."""
        return self.run(calls.mput(values))

    def mget(self, *keys: str | bytes) -> Deferred[dict[str, Entry]]:
        """Get several keys; the Deferred fires with an `Entry` for each of these keys that exists, as they were at one
        moment."""
        return self.run(calls.mget(*keys))

    def range(self, first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> Deferred[list[Entry]]:
        """Get at most `limit` entries, in byte order of the keys, from key `first` on to before key `end`.

        If `end` is "", the range goes on to the last key. The Deferred fires with the entries.
        """
        return self.run(calls.range_(first, end, limit=limit))

    def keys(self, first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> Deferred[list[str]]:
        """Get keys; the Deferred fires with the keys of the entries that `range` with the same arguments would give."""
        return self.run(calls.keys(first, end, limit=limit))

    def settings(self, *, read: ReadLevel = "linearizable") -> Deferred[dict[str, int | str]]:
        """Get the settings that all servers of the cluster share; the Deferred fires with a dict by name."""
        return self.run(calls.settings(read=read))

    def change_settings(self, values: Mapping[str, int | str]) -> Deferred[int]:
        """Change settings of the cluster, either all or none; the Deferred fires with the revision of the change."""
        return self.run(calls.change_settings(values))

    def say(self, text: str) -> Deferred[int]:
        """Add a line to the chat; the Deferred fires with the index of the line."""
        return self.run(calls.say(text))

    def lock(self, name: str, wait: float | None = None) -> LockContext:
        """Hold a lock inside of an `async with` block.

        Waits for the lock at most `wait` seconds, and then raises `LockTimeout`; None: waits for ever. If the lock is
        lost while the block runs, every call of this clerk fails with `LockLost` until the block is left, and the end
        of the block raises `LockLost`, too.
        """
        return LockContext(self, name, wait)

    def acquire(self, name: str, wait: float | None = None) -> Deferred[HeldLock]:
        """Get a lock, and hold it until `release`; the Deferred fires with the lock.

        The Deferred fails with `LockTimeout` if the clerk does not get the lock within `wait` seconds; if `wait` is
        None, the clerk waits for ever.
        """
        granted: Deferred[HeldLock] = Deferred(lambda _granted: forget())

        def told(result: HeldLock | ClerkError) -> None:
            if not granted.called:
                granted.callback(result) if isinstance(result, HeldLock) else granted.errback(result)

        forget = self._core.lock(name, wait, told, self._driver.now, self._timeout)
        self._driver.act()
        return granted

    def release(self, held: HeldLock) -> Deferred[None]:
        """Give a lock back.

        The Deferred fires when that is done, and fails with `LockLost` if the lock was lost before.
        """
        answered: Deferred[Reply] = Deferred()
        self._core.release(held, _teller(answered), self._driver.now, self._timeout)
        self._driver.act()
        return answered.addCallback(_nothing)

    @overload
    def listen(self, *, first: int | None = None) -> TwistedChat: ...

    @overload
    def listen(
        self,
        heard: Callable[[ChatLine], object],
        first: int | None = None,
        failed: Callable[[ClerkError], object] = _log_end,
    ) -> Listening: ...

    def listen(
        self,
        heard: Callable[[ChatLine], object] | None = None,
        first: int | None = None,
        failed: Callable[[ClerkError], object] = _log_end,
    ) -> Listening | TwistedChat:
        """Call `heard` with each line of the chat from number `first` on; None: with each that is added from now on.

        `failed` is called once, with the error, if no more lines will come, because the clerk was closed or the cluster
        has no chat (any more). Without `failed`, the log tells it. An exception of `heard` is logged, and the next line
        is delivered all the same.

        Without `heard`, returns an iterator over the same lines, for `async for` and `async with` in a coroutine.
        """
        if heard is None:
            return TwistedChat(self._chat.lines(first), self._reactor)
        if not callable(heard):
            raise TypeError(f"heard is {heard!r:.80}; it is a function, and the number of a line is given by first=")
        tell: Callable[[ChatLine], object] = heard

        def deliver(line: ChatLine) -> bool:
            call_safely(tell, line, _log_failure)
            return True

        listener = Listener(first, deliver, lambda error: call_safely(failed, error, _log_failure), lambda: None)
        self._chat.listen(listener)
        return Listening(self._chat, listener)

    @property
    def listening(self) -> int:
        """How many iterators and functions get lines of the chat at present."""
        return len(self._chat)


@define(eq=False)
class Listening:
    """A listener to the chat that `TwistedClerk.listen` has started."""

    _chat: ClerkChat
    _listener: Listener

    def stop(self) -> None:
        """Stop listening: the callbacks `heard` and `failed` of `TwistedClerk.listen` are not called any more."""
        self._chat.unlisten(self._listener)


@define(eq=False)
class LockContext:
    """The context manager of `TwistedClerk.lock`: gets the lock on entry, and gives it back at the end."""

    _clerk: TwistedClerk
    _name: str
    _wait: float | None
    _held: HeldLock | None = None

    async def __aenter__(self) -> HeldLock:
        self._held = await self._clerk.acquire(self._name, self._wait)
        return self._held

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._held is not None
        try:
            await self._clerk.release(self._held)
        except ClerkError:
            # If the block has raised an error, the caller gets that error instead.
            if kind is None:
                raise


def _teller(deferred: Deferred[Reply]) -> Callable[[Reply], None]:
    def tell(reply: Reply) -> None:
        if not deferred.called:
            deferred.callback(reply)

    return tell


def _nothing(reply: Reply) -> None:
    if not reply.ok:
        raise error_of(reply)


def _first_error(failure: Any) -> Any:
    return failure.value.subFailure
