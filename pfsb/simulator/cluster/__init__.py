"""One simulated cluster: its clock, its network, its disks, and its servers over all their incarnations.

Theory of operation. `SimulatedCluster` owns one `SimulatedClock`, whose heap holds every call of every server, and
lets one call after the other happen. A server is built from `ServerParts`; it gets a `ServerClock` (which can be
paused, closed, or wrong), a `SimulatedTransport` (the real links and codec over `SimulatedNetwork`), a `MemoryStorage`
on a disk that survives crashes, and random numbers of its own. A `Probe` reports each execution and each answer to the
checkers. After each call of the clock, the cluster raises the first violation that a checker has found.

* `clock`: time. `network` and `transport`: frames, links, filters and faults of messages.
* `names`: addresses of servers, and name servers. `storage`: the storage of a server, which the checkers look at.
* `process`: the environment of a server, and a server that is the protocol alone. `server_process`: the whole server.
* `cluster`: starts, crashes, stops and pauses servers. `healing`: heals servers and the links between them.
* `stranding`: servers that are brought into a later view. `hand_overs`: figures and copies of hand-overs.
* `dice`: applications that go wrong by chance at one server. `tally`: an application that has two versions.
* `probe`: reports of servers to the checkers. `quota_checker`: counts anew what quotas bound.
* `tracing` and `marks`: traces, and counters of rare branches.

Nothing here decides when something goes wrong: faults and schedules do that through the methods of the cluster. Of the
other packages of the simulator, this one imports only `checkers`, and from `linearizability` what a command writes.
"""
