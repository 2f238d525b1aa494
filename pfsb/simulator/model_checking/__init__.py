"""The model checker: it explores all possible steps of a small cluster, breadth first, and checks every outcome.

Theory of operation. A state of the cluster consists of a state of each server and of the set of all messages that were
ever sent. No message is ever taken out of the set, so loss, delay, reordering and repetition need no steps of their
own. A step, such as the arrival of a message, the expiry of a timer or a crash, happens to one server, and its outcome
depends on nothing but the step and the state of that server. The real protocol makes the step: a snapshot of the state
is put back into that server's `Replica`, the step is made, and a snapshot of the new state is taken. Each outcome is
computed once, and looked up in a table afterwards. A state of the cluster is stored as one integer, which is made of
the set of messages (a bit for each message) and the numbers of the servers' states.

* `explorer`: states of the cluster, the search, counterexamples, and why some kinds of steps need not be explored.
* `transitions`: states of single servers (nodes) and the table of their steps.
* `message_set`: messages, and claims (statements that must not contradict each other), as bits.
* `stepped_server`, `stepped_environment`: one server whose clock, disk and network move only on command.
* `steps`: the kinds of steps. `snapshots`: taking a server's state and putting it back.
* `explore_command`: the command `pfsb explore`.

The explored servers run the protocol without sessions and applications. The model checker knows a timer by the name of
the method that the timer calls, and `snapshots.ABSTRACTED` names the attributes whose values it may ignore. A change of
the protocol that renames, adds or removes such a method or attribute must also change these names.
"""
