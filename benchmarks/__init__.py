"""Measurements that are run from the root of the repository, as `python -m benchmarks.NAME`.

In: options of the command line. Out: figures for a person, and on request JSON, charts, and tables that
docs/performance.rst includes. Benchmarks measure pfsb from outside with the modules of `pfsb.bench` and `pfsb.demo`,
except for `in_memory`, `floors`, `memory`, `snapshots` and `restoring`, which measure its parts. The package pfsb never
imports them.

* `compare`: pfsb beside etcd, ZooKeeper, NATS JetStream, PostgreSQL and PySyncObj.
* `paper`: the measurements of section 7 of the paper.
* `scale`: how throughput, latency and memory change with servers, sizes, connections, keys, sessions and load.
* `returning`: how long a server takes to come back, and the cost of that to the others.
* `flame`: flame graphs of a leader under load.
* `floors`: the minimum time that each step of a command takes on this machine.
* `bare`: a cluster that only does the hops and forced writes of a command, for `floors` and `small_commits`.
* `small_commits`, `hanging_disks`: the time of one small commit, and the calls that wait for a disk that hangs, with
  each of the `ways_to_write`.
* `memory`: the memory that a server needs for many keys.
* `snapshots`, `restoring`: how long each step of a snapshot takes when it is made and when it is taken over.
* `in_memory`: a cluster in one process on a simulated clock, for `regressions` and `floors`.
* `regressions`: `make bench`, which compares figures of this version with `recorded.json`.
* `processes`: runs parts of a benchmark in processes of their own.
* `setting`: functions that the benchmarks share.
"""
