"""The errors that calls of a clerk raise. Each says whether the call was carried out, and what the program should do.

``fate`` is ``none`` (the call was not carried out, and will not be), ``done`` (the call was carried out; only the
answer is missing) or ``unknown`` (the call may have been carried out, or may be later).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from pfsb.client.core.replies import Reply


class ClerkError(Exception):
    """A call of a clerk has failed; the base class of all errors here."""

    advice: ClassVar[str] = "look at the state before you go on"

    def __init__(self, text: str, code: str, fate: str) -> None:
        super().__init__(f"{text} ({code}, fate={fate}: {_FATES[fate]}; {self.advice})")
        self.text = text
        self.code = code
        """The code of the line protocol's ERR reply."""
        self.fate = fate
        """Whether the call was carried out: none, done or unknown."""
        self.results: Sequence[Any] = ()
        """The result, or the `ClerkError`, of each call of a `run_all` that has raised this error, in the order of the
        calls. Empty for the error of a single call, and for a `run_all` of `TwistedClerk`, which does not wait for the
        other calls."""


class BadCall(ClerkError):
    """No server will ever accept the call: its arguments are wrong, too large, or not allowed here."""

    advice = "repair the call"


class NoRight(BadCall):
    """The servers want a token, or the clerk's token is wrong, or has not the right that the call needs."""

    advice = "make a clerk with a token that has the right"


class StateError(ClerkError):
    """The state does not permit the call now: another value than expected, or a lock that is not held."""

    advice = "nothing was changed; look at the state and decide anew"


class ChatEnded(StateError):
    """The cluster does not run the application chat any more, so no line will come."""

    advice = "lines of a chat that begins later count from 1 again"


class LockTimeout(StateError):
    """The call has waited for a lock for its `wait` seconds, and another session still holds the lock."""

    advice = "wait longer, or do without"


class NotKept(StateError):
    """The servers do not have that part of the past any more; the text says which is the lowest revision."""

    advice = "ask for a later revision, or another server, which may have kept more"


class Unavailable(ClerkError):
    """No server has carried out the call in time; `fate` says whether one may still do so."""

    advice = "with fate=none call again; with fate=unknown look first whether it happened"


class SessionLost(ClerkError):
    """The session was lost; other sessions may hold its locks by now."""

    advice = "begin anew with what needed the locks, and look first whether this call happened"


class SessionExpired(SessionLost):
    """No server has heard from this clerk for longer than `ttl_seconds`. The clerk has begun another session."""


class SessionReplaced(SessionLost):
    """Another program has opened a session under this clerk's `client_id`, and keeps it."""

    advice = "make a new Clerk, with a client_id that no other client uses"


class LockLost(SessionLost):
    """The clerk has lost a lock of the program, and refuses every call until the program releases this lock."""

    advice = "leave the `with` of the lost lock first; what was done since may have collided with its new holder"


class AnswerLost(ClerkError):
    """The call was repeated after servers had forgotten its answer; most likely it was carried out."""

    advice = "look whether it happened"


class Closed(ClerkError):
    """The clerk was closed."""

    advice = "make a new Clerk"


class ServerFault(ClerkError):
    """A server has answered with an error that no other class stands for, such as a failure of its own."""

    advice = "tell whoever runs it; its log says more"


_FATES: Final = {
    "none": "it did not happen",
    "done": "it happened",
    "unknown": "it may have happened",
}

_KINDS: Final[dict[str, type[ClerkError]]] = {
    "BADREQUEST": BadCall,
    "UNKNOWN": BadCall,
    "TOOLARGE": BadCall,
    "DENIED": NoRight,
    "NOAUTH": NoRight,
    "BADTOKEN": NoRight,
    "NOTFOUND": StateError,
    "CONFLICT": StateError,
    "PRECONDITION": StateError,
    "HELD": StateError,
    "NOTHELD": StateError,
    "ENDED": ChatEnded,
    "TIMEOUT": LockTimeout,
    "COMPACTED": NotKept,
    "UNAVAILABLE": Unavailable,
    "BUSY": Unavailable,
    "SHUTDOWN": Unavailable,
    "DIVERGED": Unavailable,
    "READONLY": Unavailable,
    "NOSESSION": SessionExpired,
    "REPLACED": SessionReplaced,
    "LOCKLOST": LockLost,
    "CLOSED": Closed,
}


def error_of(reply: Reply) -> ClerkError:
    """The exception that stands for an ERR reply: the class that belongs to its code, with the reply's code, fate and
    text."""
    if reply.code == "BADREQUEST" and reply.fate != "none":
        return AnswerLost(reply.text, reply.code, reply.fate)
    return _KINDS.get(reply.code, ServerFault)(reply.text, reply.code, reply.fate)
