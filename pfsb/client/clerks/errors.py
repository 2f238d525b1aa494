"""What can go wrong with a call: each error says what became of it, and what to do.

``fate`` is ``none`` (it did not happen, and will not), ``done`` (it happened; only the answer is missing) or
``unknown`` (it may have happened, or may still).
"""

from __future__ import annotations

from typing import ClassVar, Final

from pfsb.client.core.replies import Reply


class ClerkError(Exception):
    """A call was not answered with success."""

    advice: ClassVar[str] = "look at the state before you go on"

    def __init__(self, text: str, code: str, fate: str) -> None:
        super().__init__(f"{text} ({code}, fate={fate}: {_FATES[fate]}; {self.advice})")
        self.text = text
        self.code = code
        """As in the line protocol."""
        self.fate = fate


class BadCall(ClerkError):
    """No server will ever take it: the arguments are wrong, too large, or not allowed here."""

    advice = "repair the call"


class StateError(ClerkError):
    """The state says no, for now: not the value that was expected, not the holder of the lock."""

    advice = "nothing was changed; look at the state and decide anew"


class LockTimeout(StateError):
    """Somebody else has kept the lock for as long as we wanted to wait."""

    advice = "wait longer, or do without"


class Unavailable(ClerkError):
    """No server has answered in time."""

    advice = "with fate=none call again; with fate=unknown look first whether it happened"


class SessionLost(ClerkError):
    """The session is not the one that it was; the locks that were held in it are somebody else's by now."""

    advice = "begin anew with what needed the locks, and look first whether this call happened"


class SessionExpired(SessionLost):
    """No server has heard of this clerk for longer than `ttl_seconds`. It has begun another session by itself."""


class SessionReplaced(SessionLost):
    """Another program has opened a session under this clerk's `client_id`, and keeps it."""

    advice = "make a new Clerk, with a client_id that nobody else uses"


class LockLost(SessionLost):
    """A lock is gone that the program believes to hold. Until it is let go of, nothing else is sent."""

    advice = "leave the `with` of the lost lock first; what was done since may have collided with its new holder"


class AnswerLost(ClerkError):
    """The call was repeated after its answer had been forgotten: most likely it has run."""

    advice = "look whether it happened"


class Closed(ClerkError):
    """The clerk was closed."""

    advice = "make a new Clerk"


class ServerFault(ClerkError):
    """A fault of the server."""

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
    "DENIED": BadCall,
    "NOTFOUND": StateError,
    "CONFLICT": StateError,
    "HELD": StateError,
    "NOTHELD": StateError,
    "TIMEOUT": LockTimeout,
    "UNAVAILABLE": Unavailable,
    "BUSY": Unavailable,
    "SHUTDOWN": Unavailable,
    "NOSESSION": SessionExpired,
    "REPLACED": SessionReplaced,
    "LOCKLOST": LockLost,
    "CLOSED": Closed,
}


def error_of(reply: Reply) -> ClerkError:
    """The exception for an ERR reply."""
    if reply.code == "BADREQUEST" and reply.fate != "none":
        return AnswerLost(reply.text, reply.code, reply.fate)
    return _KINDS.get(reply.code, ServerFault)(reply.text, reply.code, reply.fate)
