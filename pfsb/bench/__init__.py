"""`pfsb bench`: puts load on a cluster and measures throughput, latency and the cost for the servers.

In: a configuration, whose servers run or are started for the measurement, and a workload. Out: a table for a person,
and on request JSON and charts.

The load comes from a process of its own, so that it disturbs neither the servers nor the clock of the measurement: a
program in C (`load.c`), or one in Python where there is no compiler. A load client reads a workload from standard
input and prints `begin` and `end`, when the measured time begins and ends, and then one JSON object. At `begin` and
`end`, this package looks at the servers from outside: their STATUS and their CPU time.

Functions here block, and run in a thread or in a program without a reactor; only `tool` has a reactor. Nothing here
may use the inside of a server: every figure must be one that an operator of a real cluster could get, too.

* `workload`: the input of load clients, and mixes of operations.
* `load.c`, `plain_load`: the load clients.
* `client`: builds and runs a load client, and reads its result.
* `histogram`: the buckets of latencies, which all load clients share.
* `machine`: CPU time and memory of processes, and the speed of a disk.
* `probe`: the servers of a cluster, seen from outside.
* `measure`: one measurement, from a load client's result and two looks at the servers.
* `report`, `plot`: tables and charts.
* `tool`: the command line.

`benchmarks/` at the root of the repository measures with these modules, too.
"""
