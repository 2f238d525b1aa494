"""The client library: `Clerk` for scripts, `AsyncClerk` for asyncio, `TwistedClerk` for Twisted."""

from pfsb.client.asyncio_clerk import AsyncClerk
from pfsb.client.blocking_clerk import Clerk
from pfsb.client.calls import Call, ChatLine, Entry
from pfsb.client.clerk_core import HeldLock
from pfsb.client.errors import (
    AnswerLost,
    BadCall,
    ClerkError,
    Closed,
    LockLost,
    LockTimeout,
    ServerFault,
    SessionExpired,
    SessionLost,
    SessionReplaced,
    StateError,
    Unavailable,
)
from pfsb.client.twisted_clerk import TwistedClerk

__all__ = [
    "Clerk",
    "AsyncClerk",
    "TwistedClerk",
    "Call",
    "ChatLine",
    "Entry",
    "HeldLock",
    "ClerkError",
    "AnswerLost",
    "BadCall",
    "Closed",
    "LockLost",
    "LockTimeout",
    "ServerFault",
    "SessionExpired",
    "SessionLost",
    "SessionReplaced",
    "StateError",
    "Unavailable",
]
