"""`python -m benchmarks.scale`: how throughput, latency and memory go with servers, sizes, connections and overload."""
