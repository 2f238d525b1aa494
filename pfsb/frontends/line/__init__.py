"""Line: the line protocol (docs/protocol.rst), and the Conversation that the Redis protocol uses as well.

In: the bytes of one connection. Out: replies in the order of the requests, each with the number of its request, and
events between replies. The package asks the sessions (`Server.local_clients`) and the server itself; it may not touch
the replicated state, nor any other client.

The way of a line: LineSplitter cuts the bytes into lines, `grammar.parse` makes each line a `grammar.Request`, which
has its number, its verb and the rest of the line, and `Conversation.handle_request` handles it:

- a command or a linearizable question is checked by its application, pipelined, and submitted to the session together
  with the requests of this kind before and after it;
- a question with read=stale, or with read=sequential when no request of the client is under way, is answered from the
  state of this server; a question with read=sequential behind requests under way waits for their replies first, so that
  its answer shows what the client has written;
- a request about the server or the session (STATUS, HELLO, LISTEN ...) is handled when all requests before it have
  their replies.

Files: `protocol` (the connection), `splitter` (bytes to lines), `grammar` (lines to requests, results to lines, as pure
functions), `conversation` (what each verb does), `arguments` (options behind a verb), `subscriptions` (LISTEN),
`members` (MEMBERS), `server_queries` (STATUS, SERVERS, DIGEST, HELP, FAULT), `fault_command` (FAULT's arguments),
`help` (texts of HELP), `plain_lines` (many lines of one verb that arrive together), `foreign` (lines of other
protocols).
"""
