"""`python -m benchmarks.scale`: throughput, latency and memory over servers, sizes, connections, keys and overload.

In: sections to measure. Out: tables for a terminal and for docs/performance.rst, charts as SVG, and all points as JSON,
from which a later run can draw them again. Each section starts its own servers and removes their storage.

* `sections`: the sections, and the points that each of them measures.
* `memory`: resident memory for many keys and many sessions.
* `point`: one measured point.
* `tables`, `drawing`: tables and charts.
* `__main__`: the command line.
"""
