"""`python -m benchmarks.compare`: pfsb beside etcd, ZooKeeper and PySyncObj, in one run, on one disk.

In: rows to measure, systems, numbers of rounds and servers. Out: tables of medians and ratios with the goals that pfsb
is to meet, and on request JSON and the file that docs/performance.rst includes.

In each round every system is started anew, measured alone, and stopped by process id. Ratios of two systems are taken
within a round, so that a time in which the machine is slow affects both. A system that cannot be measured on this
machine is reported as missing.

* `system`: the interface of a system. `ours`, `etcd`, `zookeeper` and `in_python` (PySyncObj) implement it;
  `in_python` runs `pysyncobj_node` in each server. `etcd_load.go` and `ZooKeeperLoad.java` are load clients.
* `tools`: finds the programs that the other systems need, or builds or installs them into a cache.
* `rows`: the measurements and their goals.
* `run`: one run of several rounds.
* `trouble`: the measurements in which a server is killed.
* `results`, `tables`: the evaluation of the results, and tables of them.
* `__main__`: the command line.
"""
