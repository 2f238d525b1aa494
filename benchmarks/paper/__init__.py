"""`python -m benchmarks.paper`: section 7 of the paper, measured on this machine and drawn beside the paper's values.

In: variants, numbers of servers and clients. Out: charts as SVG, and a table of ratios: the gain by aggregation and the
cost of more servers, here and in the paper. Absolute figures cannot be compared, since the paper had one machine for
each server, so the table has ratios only.

* `published`: the measured values in the paper and in its technical report.
* `variants`: how the servers are configured for each pair of charts (throughput and latency).
* `drawing`: charts and the table of ratios.
* `__main__`: the command line, which runs the clusters and the load.
"""
