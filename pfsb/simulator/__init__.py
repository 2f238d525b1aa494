"""A simulator of whole clusters: one process, one seed, and checkers that see every event.

Theory of operation. The protocol, the sessions, the applications and the frame codec are those of production. Clock,
network, disks, clients and random numbers are simulated, and every random number comes from the seed of the run, so
that a seed repeats a run to the byte. Random runs inject faults and check safety after every event, and liveness when
the faults are over. Directed schedules lead a cluster into one situation each. Planted defects show that the checkers
find what is wrong. The model checker explores all steps of a small cluster instead of random ones.

Imports run downward only (tests/simulator/test_layers.py), in this order:

* `fuzz`: changed input for every decoder, for ports, files and clusters, and `pfsb fuzz`.
* `runs`: a whole run, its phases, shrinking, the hunt for defects, and `pfsb simulate`.
* `model_checking`: breadth-first exploration of all steps, and `pfsb explore`.
* `schedules`: directed schedules.
* `defects`: planted defects, and the table of the runs that show them.
* `faults`: profiles, the parameters and faults that a seed draws, and the injection of faults.
* `workload`: simulated users, their connections, and the check of reads beside the log.
* `cluster`: clock, network, disks and servers of one cluster.
* `linearizability`: the check of the history that the users saw.
* `checkers`: the checks of messages, executions, answers, sessions and locks.

Nothing outside imports the simulator but the commands, tests and benchmarks, and the server has no code for it:
checkers stand around the server, and defects replace methods of servers that are already built.

A change must not alter the following by accident: the strings that seed `random.Random`, and the order in which random
numbers are drawn. Both decide which run belongs to a seed, and tests rely on what the runs of certain seeds find. Names
of profiles, options, marks and trace events are used outside of the simulator, too.
"""
