"""`python -m benchmarks.flame`: where a leader spends CPU time under load, as flame graphs and as shares of its code.

In: loads. Out: one SVG for each load, and a table with the share of each part of pfsb, of Twisted and of Python. The
leader is sampled from outside by py-spy, which needs the right to trace processes.

* `stacks`: sampled stacks as a tree, and the part of the program that each sample belongs to.
* `drawing`: a flame graph as SVG.
* `__main__`: the command line, which runs the cluster, the load and py-spy.
"""
