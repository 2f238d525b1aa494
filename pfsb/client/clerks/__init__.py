"""Clerks: the client library as programs use it, with a method for each call of the applications.

In: calls of a program, as methods or as values. Out: results as Python values, or a `ClerkError` that says whether the
call was carried out. Programs import the public names from `pfsb.client`.

The three clerks differ in how a result is delivered. They share one core, which a driver from `pfsb.client.drivers`
connects to an event loop; the session, repetitions and the choice of a server belong to `pfsb.client.core`.

* `calls`: calls as values: the line to send, and how its reply is read.
* `errors`: the exceptions, and which refusal raises which.
* `call_list`: several calls at once, and the list of their results and errors.
* `clerk_core`: `ClerkCore`, which adds deadlines, locks and the chat to the client's core; it has no sockets, no clock
  and no event loop.
* `clerk_options`: the options that every clerk takes, and the core that is made from them.
* `listening`: several listeners to the chat over one connection.
* `line_buffer`: the lines of one listener until the program takes them.
* `chat_lines`: the listeners and iterators of a clerk with an event loop, whichever loop it is.
* `chat_stream`: the chat as an asynchronous iterator, for `asyncio` and `blocking`; `twisted_chat`: for `twisted`.
* `asyncio`: `AsyncClerk`, whose calls are coroutines.
* `twisted`: `TwistedClerk`, whose calls return a Deferred.
* `blocking`: `Clerk`, whose calls wait; it runs an `AsyncClerk` in a thread of its own.
"""
