"""The model checker: all steps of a small cluster, explored breadth first.

Theory of operation. A state of the cluster is a state of each server and the set of all messages that were ever sent,
so that loss, delay, reordering and repetition need no steps of their own. A step touches one server and depends on its
state alone. It is made by the real protocol: the snapshot of the state is put back into the one replica of that
server, the step is made, and a snapshot of the outcome is taken. Each outcome is computed once and then found in a
table. An explored state is a number: the set of messages and the numbers of the servers' states.

* `explorer`: states of the cluster, the search, counterexamples, and the reasons for all that is left out.
* `transitions`: states of single servers and the table of their steps. `message_set`: messages and claims as bits.
* `stepped_server`, `stepped_environment`: one server whose clock, disk and network move only on command.
* `steps`: the kinds of steps. `snapshots`: taking a server's state and putting it back.
* `explore_command`: `pfsb explore`.

Sessions, applications and snapshots of them are not part of the explored servers. Timers are known by the names of the
methods that they call, and `snapshots.ABSTRACTED` names the attributes that make no difference: a change of the
protocol may have to change both, and fails here if it does not.
"""
