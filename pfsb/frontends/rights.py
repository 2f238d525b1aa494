"""The rights of clients: which token a client has shown, and what it may do therefore (docs/rights.rst).

Which right a command needs is said by its description (`CommandDescription.right`), and nowhere else. The doors compare
it with `ClientRights.level`, an attribute of the connection, which changes when its client shows a token, and when the
token file is read again.

To check a token takes some 50 ms and 16 MiB, on purpose. So it is done in a thread, for few tokens at a time, and only
for tokens that fit a quick hash (`pfsb.support.tokens`). A token that was found right once is recognised by a keyed
hash from then on. Refusals of wrong tokens come late, and the later the more of them an address has caused.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorThreads, IReactorTime, ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.interfaces import BadRequest, Refused
from pfsb.support.hosts import is_loopback
from pfsb.support.rights import Right
from pfsb.support.tokens import KnownToken, is_token, name_of

CHECKED_AT_ONCE: Final = 2
"""Number of tokens that are checked at the same time, each in a thread with 16 MiB."""
WAITING_MAX: Final = 1_000
"""Maximum number of tokens that wait for their check, or are checked; beyond it, each address may have one."""
WAITING_OF_ADDRESS_MAX: Final = 32
"""Maximum number of tokens of one address that wait for their check, or are checked."""
FIRST_DELAY_SECONDS: Final = 0.1
"""How long, in seconds, the refusal of the first wrong token of an address is held back. Each further one doubles the
time, up to `DELAY_SECONDS_MAX`."""
DELAY_SECONDS_MAX: Final = 1.0
"""Maximum time, in seconds, between two refusals of wrong tokens to one address. It is shorter than the time in which
clients expect an answer, so that a client learns that its token is wrong."""
HELD_BACK_SECONDS_MAX: Final = 10.0
"""Maximum time, in seconds, for which a refusal is held back, however many are due to the same address."""
FORGET_SECONDS: Final = 60.0
"""Time, in seconds, after which the wrong tokens of an address are forgotten."""
ADDRESSES_MAX: Final = 10_000
"""Maximum number of addresses whose wrong tokens are remembered."""
LOG_SECONDS: Final = 10.0
"""Time, in seconds, between two lines of the log about wrong tokens."""
KEY_BYTES: Final = 32

Shown = Callable[[Refused | None], None]
"""Function that is called, once, when a token was checked: with None if it is right, or else with the refusal."""
Found = Callable[[KnownToken | Refused], None]
ReadTokens = Callable[[], Mapping[str, KnownToken] | None]
"""Function that reads the token file; it returns None if the configuration names none, and raises an exception, whose
text is for a person, if the file cannot be used."""

MAKE_A_FILE: Final = (
    "`pfsb token FILE NAME --role admin` makes a token file, and the key token_file of the configuration names it"
)


def is_near(transport: Any) -> bool:
    """Whether the client of a connection is on this machine: it comes by loopback or by a Unix socket. Headers of HTTP
    are never asked."""
    peer = transport.getPeer()
    if isinstance(peer, UNIXAddress):
        return True
    host = getattr(peer, "host", None)
    return isinstance(host, str) and is_loopback(host)


def _is_encrypted(transport: Any) -> bool:
    return ISSLTransport.providedBy(transport) or hasattr(transport, "getPeerCertificate")


def _in_threads(clock: Any) -> Callable[[Callable[[], bool]], Deferred[bool]]:
    """The function that has a check made: in a thread of the reactor, or at once if there is none, as with the clock of
    a test."""
    if not IReactorThreads.providedBy(clock):
        return maybeDeferred

    def in_thread(check: Callable[[], bool]) -> Deferred[bool]:
        from twisted.internet.threads import deferToThreadPool

        return deferToThreadPool(clock, clock.getThreadPool(), check)

    return in_thread


@define(eq=False)
class ClientRights:
    """The rights of one connection."""

    _server: ServerRights
    level: Right
    """The right that the connection has now."""
    address: str
    """Where the client is (`pfsb.frontends.stream.addresses.address_of`)."""
    _is_near: bool
    _is_encrypted: bool
    _lost: Callable[[str], None]
    _how: str
    """How a client shows a token at this door, as a part of a sentence."""
    token: KnownToken | None = field(init=False, default=None)
    """The token that the client has shown last; None: none that was right."""
    _has_ended: bool = field(init=False, default=False)

    @property
    def are_by_token(self) -> bool:
        """Whether this server knows tokens, so that a client without one has no right but `Right.NONE`."""
        return self._server.wants_tokens

    def refusal(self, needed: Right, what: str) -> BadRequest:
        """The refusal for a client that asks for `what`, which needs the right `needed`, and does not have it."""
        if not self._server.wants_tokens:
            return BadRequest(
                f"{what} administers the cluster, and without a token file it is taken from the machine of the server "
                f"alone (loopback), not from {self.address}; {MAKE_A_FILE}",
                "DENIED",
            )
        if self.token is None:
            return BadRequest(f"{what} needs a token with the right {needed.word}: {self._how}", "NOAUTH")
        return BadRequest(
            f"{what} needs the right {needed.word}, and the token {self.token.name} has {self.token.right.word}",
            "DENIED",
        )

    def require(self, needed: Right, what: str) -> None:
        """Raises `BadRequest` unless the client has the right `needed`, which `what` needs."""
        if needed > self.level:
            raise self.refusal(needed, what)

    def show(self, token: str, shown: Shown) -> None:
        """Called when the client shows a token: `shown` is called, perhaps before this method returns, when the token
        was checked. If it is right, the client has the rights of this token from then on; if it is wrong, those that it
        had before."""
        if not self._server.wants_tokens:
            shown(None)
            return

        def found(result: KnownToken | Refused) -> None:
            if isinstance(result, Refused):
                shown(result)
                return
            if not (self._is_near or self._is_encrypted):
                self._server.warn_of_plain_text(self.address)
            if result is not self.token and not self._has_ended:
                self.forget()
                self.take(result)
                self._server.hold(self)
            shown(None)

        self._server.check(self.address, token, found)

    def take(self, token: KnownToken) -> None:
        """Gives the client the rights of a token, which is right."""
        self.token, self.level = token, token.right

    def forget(self) -> None:
        """Takes the rights of its token from the client: called when its next request shows no token."""
        if self.token is not None:
            self._server.release(self)
            self.token, self.level = None, Right.NONE

    def end(self) -> None:
        """Called when the connection has ended, perhaps while a token of it is checked."""
        self.forget()
        self._has_ended = True

    def lose(self, why: str) -> None:
        """Called when the token file gives the client less than it had: ends the connection, for the reason `why`."""
        self.token, self.level = None, Right.NONE
        self._lost(why)


@define
class _Failures:
    """The wrong tokens of one address."""

    count: int = 0
    next_at: float = 0.0
    """The time at which the last refusal leaves that is held back."""


@define(eq=False)
class _Check:
    """A token that is checked, or waits for it."""

    token: str = field(repr=False)
    known: KnownToken
    address: str
    found: list[Found] = field(factory=list)


@define(eq=False)
class ServerRights:
    """The tokens of one server, and the connections whose clients have shown them."""

    _clock: IReactorTime
    _read: ReadTokens
    _run: Callable[[Callable[[], bool]], Deferred[bool]] = field()
    """Function that has a check made that takes long, and returns a Deferred of its result."""
    refused: int = field(init=False, default=0)
    """Number of wrong tokens that clients have shown."""
    _tokens: Mapping[str, KnownToken] | None = field(init=False)
    """Name -> token; None: the configuration names no token file."""
    _key: bytes = field(init=False, repr=False, factory=lambda: secrets.token_bytes(KEY_BYTES))
    _right: dict[bytes, KnownToken] = field(init=False, repr=False, factory=dict)
    """Keyed hash of a token that was found right -> that token: at most one for each token of the file."""
    _holders: dict[str, set[ClientRights]] = field(init=False, factory=dict)
    """Name of a token -> the connections that have shown it."""
    _checks: dict[bytes, _Check] = field(init=False, repr=False, factory=dict)
    """Keyed hash of each token that is checked or waits for it -> its check."""
    _waiting: dict[str, dict[bytes, None]] = field(init=False, repr=False, factory=dict)
    """Address -> keyed hashes of its tokens that wait, the first one first. Addresses take turns: the first one here is
    the next, and stands behind the others then."""
    _under_way: int = field(init=False, default=0)
    _of_address: Counter[str] = field(init=False, factory=Counter)
    _failures: dict[str, _Failures] = field(init=False, factory=dict)
    _told: int = field(init=False, default=0)
    _told_at: float = field(init=False, default=float("-inf"))
    _has_warned: bool = field(init=False, default=False)
    _log = Logger()

    @_run.default
    def _run_in_threads(self) -> Callable[[Callable[[], bool]], Deferred[bool]]:
        return _in_threads(self._clock)

    @_tokens.default
    def _first_tokens(self) -> Mapping[str, KnownToken] | None:
        return self._read()

    @property
    def wants_tokens(self) -> bool:
        """Whether this server has a token file."""
        return self._tokens is not None

    def of_client(self, transport: Any, address: str, how: str, lost: Callable[[str], None]) -> ClientRights:
        """The rights of a new connection. `address` is where the client is (`address_of`). `how` says how a client
        shows a token at this door, as the end of a sentence. `lost` is called with a reason if the token that the
        client has shown becomes worth less: it must end the connection."""
        near = is_near(transport)
        level = Right.NONE if self.wants_tokens else Right.ADMIN if near else Right.WRITE
        return ClientRights(self, level, address, near, _is_encrypted(transport), lost, how)

    # ------------------------------------------------------------------ the token file

    def read_again(self) -> None:
        """Reads the token file again. Connections whose token is gone, or has a lower role than before, are ended, and
        those whose token has a higher role have it from now on. If the file cannot be used, nothing changes."""
        if self._tokens is None:
            return
        try:
            found = self._read()
        except Exception as error:
            self._log.error("{error}; the tokens that were read before stay in use", error=str(error))
            return
        assert found is not None
        self._tokens = found
        known = ((digest, found.get(former.name), former) for digest, former in self._right.items())
        self._right = {digest: token for digest, token, former in known if token and _is_the_same(former, token)}
        ended = sum(map(self._look_at, [each for holders in self._holders.values() for each in holders]))
        self._log.info(
            "the tokens were read again: {count} ({names}); {ended} connections have lost their rights and are ended",
            count=len(found),
            names=", ".join(f"{token.name}: {token.right.word}" for token in found.values()),
            ended=ended,
        )

    def _look_at(self, client: ClientRights) -> bool:
        """Gives a client the present role of its token, or ends the connection. Returns whether it is ended."""
        former = client.token
        assert former is not None and self._tokens is not None
        token = self._tokens.get(former.name)
        if token is not None and _is_the_same(former, token) and token.right >= former.right:
            client.take(token)
            return False
        self.release(client)
        gone = "is not valid any more" if not _is_the_same(former, token) else "has a lower role than before"
        client.lose(f"the token {former.name}, which this connection has shown, {gone}")
        return True

    def hold(self, client: ClientRights) -> None:
        """Called when a client has shown a token."""
        assert client.token is not None
        self._holders.setdefault(client.token.name, set()).add(client)

    def release(self, client: ClientRights) -> None:
        """Called when a client does not have its token any more."""
        assert client.token is not None
        holders = self._holders.get(client.token.name, set())
        holders.discard(client)
        if not holders:
            self._holders.pop(client.token.name, None)

    # ------------------------------------------------------------------ checks of tokens

    def check(self, address: str, token: str, found: Found) -> None:
        """Checks a token that a client at `address` shows; `found` is called, perhaps at once, with the token as the
        file has it, or with a refusal."""
        assert self._tokens is not None
        digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()
        right = self._right.get(digest)
        if right is not None:
            found(right)
            return
        known = self._tokens.get(name_of(token)) if is_token(token) else None
        if known is None or not known.may_be(token):
            self._refuse(address, token, found)
        elif digest in self._checks:
            self._checks[digest].found.append(found)
        elif self._of_address[address] >= (WAITING_OF_ADDRESS_MAX if len(self._checks) < WAITING_MAX else 1):
            found(Refused("BUSY", "too many tokens are being checked; show yours again in a moment"))
        else:
            self._checks[digest] = _Check(token, known, address, [found])
            self._of_address[address] += 1
            self._waiting.setdefault(address, {})[digest] = None
            self._check_next()

    def _check_next(self) -> None:
        while self._waiting and self._under_way < CHECKED_AT_ONCE:
            address = next(iter(self._waiting))
            digests = self._waiting.pop(address)
            digest = next(iter(digests))
            del digests[digest]
            if digests:
                self._waiting[address] = digests  # behind all others
            self._under_way += 1
            check = self._checks[digest]
            made = self._run(lambda check=check: check.known.is_of(check.token))  # type: ignore[misc]
            made.addBoth(self._checked, digest)

    def _checked(self, result: bool | Failure, digest: bytes) -> None:
        self._under_way -= 1
        check = self._checks.pop(digest)
        self._of_address[check.address] -= 1
        if not self._of_address[check.address]:
            del self._of_address[check.address]
        if isinstance(result, Failure):
            self._log.failure("a token could not be checked", result)
        is_right = result is True
        assert self._tokens is not None
        now_known = self._tokens.get(check.known.name)
        self._check_next()
        if is_right and now_known is not None and _is_the_same(check.known, now_known):
            self._right[digest] = now_known
            for found in check.found:
                found(now_known)
        else:
            for found in check.found:
                self._refuse(check.address, check.token, found)

    def _refuse(self, address: str, token: str, found: Found) -> None:
        """Refuses a wrong token, after a delay. The text, and the log, tell no part of the token but a name that this
        server knows."""
        now = self._clock.seconds()
        failures = self._failures.pop(address, None)
        if failures is None or now - failures.next_at > FORGET_SECONDS:
            failures = _Failures()
        self._failures[address] = failures  # the last one, behind all others
        while len(self._failures) > ADDRESSES_MAX:
            del self._failures[next(iter(self._failures))]
        delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(failures.count, 10), DELAY_SECONDS_MAX)
        wait = min(max(failures.next_at - now, 0.0) + delay, HELD_BACK_SECONDS_MAX)
        failures.count, failures.next_at = failures.count + 1, now + wait
        self.refused += 1
        self._tell(address, name_of(token))
        text = "this token is wrong, or is not valid any more; `pfsb token` makes one"
        self._clock.callLater(wait, found, Refused("BADTOKEN", text))

    def _tell(self, address: str, name: str) -> None:
        """Writes a line to the log about wrong tokens, at most every `LOG_SECONDS`."""
        if self._clock.seconds() - self._told_at < LOG_SECONDS:
            return
        count, self._told, self._told_at = self.refused - self._told, self.refused, self._clock.seconds()
        known = f" under the name {name}" if self._tokens is not None and name in self._tokens else ""
        self._log.warn(
            "{count} wrong tokens were shown, the last one by {address}{known}",
            count=count,
            address=address,
            known=known,
        )

    def warn_of_plain_text(self, address: str) -> None:
        """Warns, once, of a token that has come over a network that others may read."""
        if not self._has_warned:
            self._has_warned = True
            self._log.warn(
                "INSECURE: a token came from {address} without TLS, so others may have read it on its way: let this "
                "port be a tls: endpoint (pfsb certificates CONFIG), and make new tokens",
                address=address,
            )


def _is_the_same(former: KnownToken, token: KnownToken | None) -> bool:
    """Whether two lines are of one token, perhaps with another role."""
    return token is not None and (former.salt, former.hash) == (token.salt, token.hash)
