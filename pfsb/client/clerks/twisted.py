"""The clerk for Twisted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, gatherResults

from pfsb.client.clerks import calls
from pfsb.client.clerks.calls import Call, ChatLine, Entry
from pfsb.client.clerks.clerk_core import ClerkCore, HeldLock
from pfsb.client.clerks.clerk_options import TIMEOUT_SECONDS, make_clerk_core
from pfsb.client.clerks.errors import ClerkError, error_of
from pfsb.client.clerks.listening import Listener
from pfsb.client.core.replies import Reply
from pfsb.client.drivers.twisted import TwistedDriver
from pfsb.client.servers import Servers

T = TypeVar("T")


class TwistedClerk:
    """Keeps one session with a cluster; every call runs exactly once, whichever server answers.

    Each call returns a Deferred. If the call fails, the Deferred fails with a `ClerkError`, which says whether the call
    was carried out. A call whose Deferred is cancelled may run all the same. `options` are those of `make_clerk_core`.
    """

    def __init__(
        self, reactor: Any, servers: Servers, *, timeout_seconds: float | None = TIMEOUT_SECONDS, **options: Any
    ) -> None:
        """`timeout_seconds` limits each call, except waiting for a lock; None: a call waits for ever."""
        self._core = make_clerk_core(servers, **options)
        self._timeout = timeout_seconds
        self._driver = TwistedDriver(reactor, self._core)
        self._driver.start()

    async def __aenter__(self) -> TwistedClerk:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def close(self) -> Deferred[None]:
        """Close the session; other clients can get its locks then."""
        return self._driver.stop()

    def run(self, call: Call[T]) -> Deferred[T]:
        """Carry out a call that a function of `pfsb.client.calls` has made."""

        def give_up(_answered: Deferred[Reply]) -> None:
            if command is not None:
                self._core.give_up(command)

        answered: Deferred[Reply] = Deferred(give_up)
        command = self._core.call(call.line, _teller(answered), self._driver.now, self._timeout)
        self._driver.act()
        return answered.addCallback(call.read)

    def run_all(self, wanted: Iterable[Call[T]]) -> Deferred[list[T]]:
        """Carry out several calls together; fires with the results in order, or fails with the first error."""
        return gatherResults([self.run(call) for call in wanted], consumeErrors=True).addErrback(_first_error)

    def get(self, key: str, *, read: str = "linearizable") -> Deferred[str | None]:
        """Fires with the value of a key; None if it is absent."""
        return self.run(calls.get(key, read=read))

    def entry(self, key: str, *, read: str = "linearizable") -> Deferred[Entry | None]:
        """Fires with the value of a key and the revision at which it was written; None if it is absent."""
        return self.run(calls.entry(key, read=read))

    def put(self, key: str, value: str) -> Deferred[int]:
        """Set a key; fires with the revision."""
        return self.run(calls.put(key, value))

    def delete(self, key: str) -> Deferred[bool]:
        """Remove a key; fires with whether it was there."""
        return self.run(calls.delete(key))

    def cas(self, key: str, old: str | None, new: str) -> Deferred[bool]:
        """Set a key if its value is `old`, or if it is absent (None); fires with whether it was set."""
        return self.run(calls.cas(key, old, new))

    def incr(self, key: str, by: int = 1) -> Deferred[int]:
        """Add to an integer; fires with the sum."""
        return self.run(calls.incr(key, by))

    def append(self, key: str, text: str) -> Deferred[str]:
        """Add to the end of a value; fires with the whole."""
        return self.run(calls.append(key, text))

    def puthash(self, key: str, value: str) -> Deferred[str]:
        """Set a key to the hash of its old value and this; fires with the old one."""
        return self.run(calls.puthash(key, value))

    def mput(self, values: Mapping[str, str]) -> Deferred[int]:
        """Set several keys, all or nothing; fires with the revision."""
        return self.run(calls.mput(values))

    def mget(self, *keys: str) -> Deferred[dict[str, Entry]]:
        """Fires with those of several keys that exist, all as of one moment."""
        return self.run(calls.mget(*keys))

    def range(self, first: str = "", end: str = "", *, limit: int = 1_000) -> Deferred[list[Entry]]:
        """Fires with the entries from `first` (included) to `end` (excluded; "": to the last), in byte order."""
        return self.run(calls.range_(first, end, limit=limit))

    def keys(self, first: str = "", end: str = "", *, limit: int = 1_000) -> Deferred[list[str]]:
        """Fires with the keys that `range` would give, without their values."""
        return self.run(calls.keys(first, end, limit=limit))

    def say(self, text: str) -> Deferred[int]:
        """Add a line to the chat; fires with its index."""
        return self.run(calls.say(text))

    def lock(self, name: str, wait: float | None = None) -> LockContext:
        """Hold a lock inside of `async with`. Waits for it at most `wait` seconds (then `LockTimeout`), or for ever.

        If the lock is lost meanwhile, every call of this clerk fails with `LockLost` until the block is left, and so
        does leaving the block.
        """
        return LockContext(self, name, wait)

    def acquire(self, name: str, wait: float | None = None) -> Deferred[HeldLock]:
        """Get a lock, which `release` gives back."""
        granted: Deferred[HeldLock] = Deferred(lambda _granted: forget())

        def told(result: HeldLock | ClerkError) -> None:
            if not granted.called:
                granted.callback(result) if isinstance(result, HeldLock) else granted.errback(result)

        forget = self._core.lock(name, wait, told, self._driver.now, self._timeout)
        self._driver.act()
        return granted

    def release(self, held: HeldLock) -> Deferred[None]:
        """Give a lock back. Fails with `LockLost` if it was lost."""
        answered: Deferred[Reply] = Deferred()
        self._core.release(held, _teller(answered), self._driver.now, self._timeout)
        self._driver.act()
        return answered.addCallback(_nothing)

    def listen(
        self,
        heard: Callable[[ChatLine], None],
        first: int | None = None,
        failed: Callable[[ClerkError], None] = lambda _error: None,
    ) -> Listening:
        """Call `heard` with every line of the chat from number `first` on, or from now on.

        `failed` is called when no more lines will come: the clerk was closed, or the cluster has no chat.
        """

        def deliver(line: ChatLine) -> bool:
            heard(line)
            return True

        listener = Listener(first, deliver, failed, lambda: None)
        self._core.listen(listener, self._driver.now)
        self._driver.act()
        return Listening(self._core, self._driver, listener)


@define(eq=False)
class Listening:
    """A running `listen`."""

    _core: ClerkCore
    _driver: TwistedDriver
    _listener: Listener

    def stop(self) -> None:
        """Call `heard` no more."""
        self._core.unlisten(self._listener, self._driver.now)
        self._driver.act()


@define(eq=False)
class LockContext:
    """A lock for `async with`."""

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
            # An error inside of the block matters more.
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
