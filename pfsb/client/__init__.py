"""The client library: `Clerk` for scripts, `AsyncClerk` for asyncio, `TwistedClerk` for Twisted."""

from pfsb.client.clerks.asyncio import AsyncClerk
from pfsb.client.clerks.blocking import Clerk
from pfsb.client.clerks.calls import Call, ChatLine, Entry
from pfsb.client.clerks.clerk_core import HeldLock
from pfsb.client.clerks.errors import (
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
from pfsb.client.clerks.twisted import TwistedClerk

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
