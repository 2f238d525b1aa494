"""Applications: the replicated state machines chat, lock, kv and instances (docs/internals/applications.rst).

In: at the server that a client has asked, command lines to `check` and questions to `query`; at every server, in the
same order, normalised commands to `execute`, ends of sessions, and the time. Out: a result, or `PENDING` and the result
later by `IContext.complete`. The interface is `IReplicatedApplication`.

Rules that all of them keep:

* the same commands in the same order give the same answers, the same state and the same snapshot on every server: no
  clock, no random number, no float, no order of a set, no input or output in `execute`;
* time is the state machine's (`IContext.time_ms`), which is part of the order;
* `check` runs once, at one server, which may run another version. So `execute` and `query` rely only on the types of a
  command, which `runner` has compared, and refuse a command that they do not know in the same way on every server;
* each answer is bounded in size.

This package knows neither the protocol nor sessions beyond the client id, and opens no socket and no file. An
application of a third party is a plugin of the same kind: `catalogue` finds it by its name.

* `interfaces`: the interfaces, and the values that cross them (`Done`, `Refused`, `Command`, `Event`, ...);
* `application`: the table of verbs that the applications share; `arguments`: how a command line is taken apart;
* `catalogue`: which applications and verbs a server has; `admission`: which applications are refused;
* `pieces`, `frozen_keys`: the state of an application as a snapshot, which is read while commands go on;
* `results`, `names`: which answers can be told to a client; `failures`: exceptions of applications;
* `testing`: tests of an application without servers;
* `chat`, `lock`, `key_value`, `instances` (with `unfinished`): the applications.
"""
