"""Sessions: each command of a client runs at most once, and the client gets its result (docs/internals/sessions.rst).

In: commands of connected clients, from the front ends, and executed updates, from the protocol. Out: updates for the
protocol (`Replica.introduce`), calls of applications, answers and events for clients.

The package has two halves. The local half may read the state of the replicated half, and changes it only by updates:

- The *replicated* half is a function of the executed updates, and equal on every server. `state_machine` has the
  sessions, runs commands in the applications and drops repeated ones; `reply_cache` keeps their results.
  `cluster_settings` and `ordered_settings` are the settings of the cluster; `frozen_state`, `frozen_sessions`,
  `kept_results` and `restorer` are the state as a snapshot; `outcomes` are the results of a slot, for its digest. This
  half may not read a clock, random numbers or the local half: it only calls its `observer`.
- The *local* half knows the clients of this server. `local_clients` is the registry and the entry point, `connection`
  is one client, `submission` brings commands into updates and results back, `event_feed` and `subscription` deliver
  events. `expiry` ends the sessions of silent clients, `revision_waiters` knows which revision clients may be told,
  `command_counts` counts commands for the metrics, and `command_times` measures their answers. `refusals` are the
  refusals by the server itself, `settings_follower` has the server do what the settings say, `quota_watch` warns of
  quotas, `checked_payloads` keeps bundles that were checked, and `asking` asks an application outside of execution.

The way of a command: ClientConnection gives it a number and encodes it. The Bundler of the session (`bundler`) puts
everything that waits into its next *bundle* (`bundle`), one of which is outstanding at a time. Submission puts the
bundles of several sessions into one *update*, whose client is one of the server's Paxos clients (`paxos_clients`), and
introduces it in a turn. When the update is executed, the state machine gives the results to LocalClients, which passes
them to Submission, and from there to the bundler and the connection. The connection answers the client behind the
durability gate.

Why a command runs at most once: the numbers of a session only grow, the state machine runs a number only if it is above
all that have run, and another connection that opens the session changes its epoch, which fences off all bundles of the
former connection. The result of a command is UNKNOWN until its update is executed or is beyond its horizon. The client
may use a number again only if its command certainly did not run.

Imports go in one direction: local_clients -> connection -> submission -> paxos_clients -> bundler -> bundle. No file
imports one to its left.
"""
