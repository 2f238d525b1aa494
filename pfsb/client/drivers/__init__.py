"""Drivers: each connects a client without sockets and clock (`pfsb.client.core.actions.Driven`) to an event loop.

In: the actions of the core. Out: calls of the core with the events of one connection and of one timer, and with the
time of the event loop's clock. A program that calls the core itself must call `act` afterwards, since its call may
have left actions to carry out.

A driver decides nothing: which server to try, when to give it up and what to repeat is up to the core. A driver
guarantees two things that the core relies on: bytes of a connection that was left do not reach the core, and `woken`
is called at `wake_at` or soon after.

* `twisted`: `TwistedDriver`, for a Twisted reactor.
* `endpoints`: the Twisted endpoint of a server, with TLS if the server speaks that;
* `asyncio`: `AsyncioDriver`, for an asyncio event loop.

The names of these modules do not hide the packages `twisted` and `asyncio`, because every import is absolute.
"""
