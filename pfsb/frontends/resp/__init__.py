"""Resp: the Redis protocol (docs/redis.rst), versions 2 and 3, for clients that have a library for Redis.

In: the bytes of one connection. Out: replies, strictly in the order of the commands; events are not sent. Sessions have
no names here: each connection has an anonymous session. When that ends, the connection is closed, since a client that
held locks must not go on as if it held them.

The way of a command: CommandParser cuts the bytes into commands; `commands` translates a command of Redis into a
request of the line protocol and a *form*, which becomes the tag of the request; the Conversation of
`pfsb.frontends.line` handles the request. When the result is there, the form turns it into the bytes of the reply.
Commands about the connection (HELLO, CLIENT, INFO ...) are answered by `connection_commands` without the Conversation.

A LOCK that waits blocks its connection, as a blocking command does in Redis: commands behind it are not handled, but
the connection is still read, to notice that its client is gone.

Files: `protocol` (the connection, and RespConversation), `parser` (bytes to commands), `commands` (translations),
`application_commands` (verbs of the line protocol as commands), `plain_commands` (many commands of one name that
arrive together), `connection_commands`, `command_replies` (COMMAND), `patterns` (KEYS and SCAN), `replies` (forms, as
pure functions).
"""
