"""Stream: the part of a client's connection that does not depend on the protocol that the client speaks.

In: the events of a Twisted transport. Out: calls of a conversation, and writes to the transport. This package imports
no protocol: a subclass of StreamProtocol says how bytes become requests, `IConversation` is all that is asked of a
conversation, and a `Render` function turns a result into bytes.

- `protocol`: StreamProtocol handles the requests of one connection and decides when the connection is read. It is not
  read while a request must be answered before others (HELLO), while `session_window` of its requests have no reply,
  while the whole server has too many requests under way, and while the client does not read. StreamFactory makes the
  connections, and counts them against the limits for all, and for those of one address.
- `reply_queue`: ReplyQueue puts replies into the order of the requests, and collects the replies of one iteration of
  the reactor into one write, unless nothing waits behind a reply. Large replies are written in slices. EndOfIteration
  calls functions at the end of an iteration, with one timer for all connections.
- `hang_ups`: how a server notices that a client is gone, for HTTP as well.
- `farewells`: connections that end while their clients may still send, for HTTP as well.
- `admission`: AdmissionControl limits the requests under way of all connections, and the time that is spent on those
  that send much, and lets connections take turns.
- `large_requests`: requests that are much work, such as questions for many rows, take turns, too.
- `plain_checks`: checks of many commands at once, for the protocols of the client port.
- `unread`: UnreadOutput limits what all clients leave unread together, and for how long a client may read nothing.
- `addresses`: how many connections and sessions the clients of one address may have.
- `shared_limits`: the limits that all doors of a server share.

Memory is bounded: a connection holds one read of the transport, `session_window` requests, one slice of a reply, and
the output that the transport has not written yet; while that is too much, the transport asks for a pause. Results that
wait to be rendered are counted for all connections together (`unread`).

Order: a request takes its place in the queue when it is handled, and the reply at the head of the queue is written
first. Only a LOCK of the line protocol has a place out of order: its reply comes when the LOCK is answered, and replies
to later requests do not wait for it.
"""
