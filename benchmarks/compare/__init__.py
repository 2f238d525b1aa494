"""`python -m benchmarks.compare`: pfsb beside etcd, ZooKeeper and PySyncObj, in one run, on one disk.

In: rows to measure, systems, numbers of rounds and servers. Out: tables of medians and ratios with the goals that pfsb
is to meet, and on request JSON and the file that docs/performance.rst includes.

In each round every system is started anew, measured alone, and stopped by process id. Ratios are taken within a round,
so that a slow machine slows down both sides. A system that cannot be measured here is reported as missing.

* `system`: the interface of a system. `ours`, `etcd`, `zookeeper` and `in_python` (PySyncObj) implement it; the last
  one runs `pysyncobj_node` in each server. `etcd_load.go` and `ZooKeeperLoad.java` are load clients.
* `tools`: programs that the peers need, which are built or installed into the cache.
* `rows`: the measurements and their goals.
* `run`: one run of several rounds.
* `trouble`: measurements in which a server is killed.
* `results`, `tables`: the evaluation, and its tables.
* `__main__`: the command line.
"""
