"""The workload: simulated users, who send commands, move between servers and repeat their numbers.

Theory of operation. A `User` keeps a list of `UserRequest` and decides several times a second about its next action: a
new command, a repetition, another server, a lock, a read. Its `SimulatedConnection` passes requests to `LocalClients`
of one incarnation of a server, and answers back, both with delays; the session checker is called for each of them at
the server. The commands and answers of all users become a `History`, which is checked for linearizability at the end.
Listeners follow the events of the chat. Servers that run only the protocol have the clients in `paper_clients`.

* `users`, `user_profile`, `request`, `numbers`: one user, its behaviour, its commands and their numbers.
* `commands`: the commands that users may choose. `connection`: the way to a server and back.
* `listeners`: clients that only listen. `read_checker`: reads and events that do not go through the log.
* `operators`: operators, who change the settings of the cluster while users work.
* `paper_clients`: clients as in section 3 of the paper.

Users see of a server what real clients see, and some of them misbehave on purpose: they skip and repeat numbers,
vanish, and use two connections at once. A correct server must answer them truthfully all the same.
"""
