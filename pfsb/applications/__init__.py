"""Applications: the replicated state machines chat, lock, kv and instances (docs/internals/applications.rst).

What comes in: command lines to `check` at the server that was asked; then, at every server in the same order,
normalised commands to `execute`, ends of sessions, and the time; questions to `query`. What goes out: a result, or
`PENDING` and the result later by `IContext.complete`. The interface is `IReplicatedApplication`.

Rules that all of them keep:

* the same commands in the same order give the same answers, the same state and the same snapshot on every server: no
  clock, no random number, no float, no order of a set, no input or output in `execute`;
* time is the state machine's (`IContext.time_ms`), which is part of the order;
* `check` runs once, at one server, perhaps of another version. So `execute` and `query` trust nothing of a command but
  the types that `runner` has compared, and refuse what they do not understand in the same way on every server;
* each answer is bounded in size.

This package knows neither the protocol nor sessions beyond the client id, and opens no socket and no file. An
application of a third party is a plugin of the same kind: `catalogue` finds it by its name.

* `interfaces`: the interfaces, and the values that cross them (`Done`, `Refused`, `Command`, `Event`, ...);
* `application`: the table of verbs that the applications share; `arguments`: how a command line is taken apart;
* `catalogue`: which applications and verbs a server has;
* `chat`, `lock`, `key_value`, `instances`: the applications.
"""
