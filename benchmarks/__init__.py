"""Measurements that need more than a cluster: the peers, the paper's figures, and figures recorded earlier."""
