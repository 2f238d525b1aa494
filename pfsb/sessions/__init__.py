"""Sessions: each command of a client runs at most once, and the client gets its result (docs/internals/sessions.rst).

In: commands of connected clients, from the front ends; executed updates, from the protocol. Out: updates for the
protocol (`Replica.introduce`), calls of applications, answers and events for clients.

The package has two halves. The second may read the state of the first, and changes it only through updates:

- The *replicated* half is a function of the executed updates, and equal on every server. `state_machine` has the
  sessions, runs commands in the applications and drops repeated ones; `reply_cache` keeps their results. It may not
  look at a clock, at dice or at the other half: it only calls its `observer`.
- The *local* half knows the clients of this server. `local_clients` is the registry and the entry point, `connection`
  is one client, `submission` brings commands into updates and results back, `event_feed` and `subscription` tell
  events. `expiry` has sessions ended whose clients are silent, `revision_waiters` tells which revision clients may
  see, `command_counts` counts.

The way of a command: ClientConnection gives it a number and encodes it. The Bundler of the session (`bundler`) puts
everything that waits into its next *bundle* (`bundle`), one of which is outstanding at a time. Submission puts the
bundles of several sessions into one *update*, whose client is one of the server's Paxos clients (`paxos_clients`), and
introduces it in a turn. When the update is executed, the state machine tells the results to LocalClients, which passes
them to Submission, and from there to the bundler, the connection and the client's answer: behind the durability gate.

Why at most once: numbers of a session only grow, the state machine runs a number only if it is above all that have run,
and another connection that opens the session changes its epoch, which fences off all bundles of the former one. A
result is UNKNOWN until the update is executed or is beyond its horizon; only a command that was certainly not run gives
its number back.

A direction holds for imports: local_clients -> connection -> submission -> paxos_clients -> bundler -> bundle, and no
file knows one to its left.
"""
