"""The protocol-level client: one session with a cluster, without sockets, clock or event loop.

In: command lines that a program wants carried out (`submit`), and from a driver the events of one connection
(`connected`, `received`, `lost`) and of its timer (`woken`), each with the time. Out: replies by callback, and actions
(`Connect`, `Send`, `HangUp`) that the driver carries out after each call. Randomness and time come from the caller
only, so a test can take the place of clock, network and servers.

No module here may import Twisted or asyncio, directly or through its imports; tests/client/core/test_imports.py proves
it in a fresh interpreter. Configurations are therefore read by `pfsb.client.servers`, outside of this package.

Each command runs exactly once as long as the session lasts: a command keeps its number until it is answered, and when a
server does not answer, the client repeats the command with the same number at the next server.

* `client_core`: `ClientCore`, which puts the parts below together; the driver sees it as `actions.Driven`.
* `actions`: the actions, and the interface between core and driver.
* `connection`: `LineConnection`, one connection of the line protocol: requests to bytes, bytes to replies and events.
* `replies`: replies and events as values; `odd_replies`: those that no pfsb server sends.
* `command`, `command_queue`: a command, and the queue of commands that wait or are under way.
* `hello`: `Hello`, the session and its command numbers, and how the client notices that the session is a new one.
* `showing`: AUTH, by which a client shows its token on each connection.
* `retry_policy`: the refusals after which a command is tried again elsewhere or with another number.
* `held_locks`: `HeldLocks`, the locks of the session as far as the client knows.
* `chat_cursor`: `ChatCursor`, the position in the chat that the client follows.
* `addresses`, `server_rotation`: addresses of servers, and the order in which they are tried. `known_servers`: those
  of which servers tell (MEMBERS).
* `outage`: texts for people about the servers that do not serve.
* `timeouts`: `ResponseTimeout`, how long a server may leave a request unanswered.
"""
