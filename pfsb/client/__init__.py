"""The client library: `Clerk` for scripts, `AsyncClerk` for asyncio, `TwistedClerk` for Twisted.

The clerks are imported on first use, so that a program imports only the event loop that its clerk needs, and so that
`pfsb.client.core` can be imported without any event loop.

* `clerks`: the clerks. `core`: the session with a cluster, without sockets. `drivers`: event loops that drive the core.
* `servers`: the addresses of servers, from a configuration or a list.
"""

from typing import TYPE_CHECKING

from pfsb.client.clerks import calls
from pfsb.client.clerks.calls import Call, ChatLine, Entry, ReadLevel
from pfsb.client.clerks.clerk_core import HeldLock
from pfsb.client.clerks.errors import (
    AnswerLost,
    BadCall,
    ChatEnded,
    ClerkError,
    Closed,
    LockLost,
    LockTimeout,
    NoRight,
    NotKept,
    ServerFault,
    SessionExpired,
    SessionLost,
    SessionReplaced,
    StateError,
    Unavailable,
)
from pfsb.client.core.replies import Reply

if TYPE_CHECKING:
    from pfsb.client.clerks.asyncio import AsyncClerk
    from pfsb.client.clerks.blocking import Clerk
    from pfsb.client.clerks.clerk_options import ClerkOptions
    from pfsb.client.clerks.twisted import TwistedClerk
else:
    _LATER = {
        "Clerk": "blocking",
        "AsyncClerk": "asyncio",
        "TwistedClerk": "twisted",
        "ClerkOptions": "clerk_options",
    }

    def __getattr__(name):
        """Called by Python when the program first uses a name that this module does not have yet (PEP 562): imports the
        clerk of that name from its module and returns it. Raises `AttributeError` for any other name."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(f"pfsb.client.clerks.{_LATER[name]}"), name)
        globals()[name] = found
        return found

    def __dir__():
        """List the names of this module for `dir`, including the clerks that have not been imported yet."""
        return sorted({*globals(), *__all__})


__all__ = [
    "Clerk",
    "AsyncClerk",
    "TwistedClerk",
    "ClerkOptions",
    "calls",
    "Call",
    "ChatLine",
    "Entry",
    "HeldLock",
    "ReadLevel",
    "Reply",
    "ClerkError",
    "AnswerLost",
    "BadCall",
    "ChatEnded",
    "Closed",
    "LockLost",
    "LockTimeout",
    "NoRight",
    "NotKept",
    "ServerFault",
    "SessionExpired",
    "SessionLost",
    "SessionReplaced",
    "StateError",
    "Unavailable",
]
