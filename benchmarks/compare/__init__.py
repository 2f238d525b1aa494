"""`python -m benchmarks.compare`: pfsb beside other replicated systems, in one run, on one disk.

In: rows to measure, systems, numbers of rounds and servers. Out: tables of medians and ratios with the goals that pfsb
is to meet, and on request JSON and the file that docs/performance.rst includes.

The clusters of all systems are up at the same time. They take turns at each load, and those whose turn it is not are
stopped with SIGSTOP. Ratios of two systems are taken within a round, so that a time in which the machine is slow
affects both. A system that cannot be measured on this machine is reported as missing.

* `system`: the interface of a system. `ours`, `etcd`, `zookeeper`, `nats`, `postgresql` and `in_python` (PySyncObj)
  implement it; `in_python` runs `pysyncobj_node` in each server. `etcd_load.go`, `ZooKeeperLoad.java` and
  `wire_load.go` are load clients; `wire` calls the last of them.
* `family`: stops, continues, kills and looks at a process together with its descendants.
* `tools`: finds the programs that the other systems need, or builds or installs them.
* `rows`: the measurements and their goals.
* `run`: one run of several rounds, and whose turn it is.
* `trouble`: the measurements in which a server is killed.
* `results`, `tables`: the evaluation of the results, and tables of them.
* `__main__`: the command line.
"""
