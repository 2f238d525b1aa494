"""`python -m benchmarks.scale`: how throughput, latency and memory change as one quantity grows.

The quantity is the number of servers, connections, keys or sessions, the size of values, or the load. In: the sections
to measure, one for each quantity. Out: tables for a terminal and for docs/performance.rst, charts as SVG, and all
points as JSON, from which a later run can draw them again. Each section starts its own servers, and removes their
storage.

* `sections`: the sections, and the points that each section measures.
* `memory`: resident memory for many keys and many sessions.
* `point`: one measured point.
* `tables`, `drawing`: tables and charts.
* `__main__`: the command line.
"""
