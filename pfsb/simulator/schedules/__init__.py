"""Directed schedules: runs that lead a small cluster into one situation each.

Theory of operation. A schedule is a function of a seed and of a planted defect, or None. It builds a cluster with
`scenario`, holds back or loses chosen messages, crashes and restarts servers, and waits for conditions. It fails by a
violation of a checker, or by a condition that does not come true in time. A correct server passes each schedule with
every seed. The first line of a schedule's docstring is printed by `pfsb simulate` and stands in docs/broken.rst.

* `scenario`: the clusters and clients of schedules. `all_schedules`: their names.
* `views`: leaders and elections. `updates`: the way of updates, proposals and votes.
* `disks`: records of earlier views and incarnations. `sessions`, `reads`: whole servers.

Random runs forgive some defects, or rarely reach the situation that shows them: for such defects there are schedules.
Schedules act through the cluster, the network and clients; they read the state of servers and do not change it, except
where FAULT SKIP would.
"""
