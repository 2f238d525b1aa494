"""`python -m benchmarks.compare`: pfsb beside etcd, ZooKeeper and PySyncObj, in one run, on one disk."""
