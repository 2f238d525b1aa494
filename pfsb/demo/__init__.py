"""`pfsb demo`: plays a scenario with real servers and real clients, checks the outcome and records everything.

In: the name of a scenario and its size. Out: a verdict, and a directory with `summary.md`, the merged traces of all
servers, a recording of the terminal, the acknowledged lines and the servers' own files.

Servers are processes that are started, killed and asked from outside, as an operator would do it. Nothing here may
reach into a server or import its insides; the scenarios judge by STATUS, DIGEST, chat logs, traces and the answers that
clients got. No process may outlive the demo, whatever happens in it.

* `scenarios`: the scenarios, and the steps that they share.
* `processes`: `ProcessCluster`, the servers as processes; benchmarks and integration tests use it, too.
* `load`: the clients, and the lines that were acknowledged to them.
* `verdict`: the checks: no acknowledged line is missing or there twice, clients were served again soon after a failure.
* `trace`: finds facts in the traces of the servers.
* `recording`: the files that a demo leaves behind.
* `tool`: the command line.
"""
