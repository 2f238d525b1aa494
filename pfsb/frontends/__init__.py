"""Front ends: what a server's clients speak to it, and how bytes of a client become commands of its session.

In: bytes of clients. Out: bytes of replies and events. Below are the sessions: a front end opens a connection with
`Server.local_clients.connect`, submits checked commands to it, and is called back with results, behind the durability
gate. A front end must not reach past the sessions into the protocol, may not block the reactor, and keeps no state of
a client that would have to survive a restart.

- `client_port`: one port for two protocols, told apart by the client's first byte; and a port for Redis alone.
- `line`: the line protocol (docs/protocol.rst) for people at a terminal and for simple programs; and the Conversation,
  which says what each verb does and in which order replies are given.
- `resp`: the Redis protocol (docs/redis.rst); it translates commands of Redis into requests of a Conversation.
- `stream`: the part that both share: reading, back-pressure, the queue of replies. It knows neither of the two.
- `http`: HTTP (docs/http.rst), on a port of its own; `http_port` loads it when the first client connects.
- `rights`: which rights a client has at any of these doors (docs/rights.rst).

`line` and `resp` import `stream`, `resp` imports the Conversation of `line`, and `stream` imports neither.
"""
