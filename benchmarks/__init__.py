"""Measurements that are run from the root of the repository: peers, the paper's figures, memory, regressions."""
