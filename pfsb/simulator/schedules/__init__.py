"""Directed schedules: runs that lead a small cluster into one situation each.

Theory of operation. A schedule is a function of a seed and of a planted defect, or None. It builds a cluster with
`scenario`, holds back or loses chosen messages, crashes and restarts servers, and waits for conditions. It fails if a
checker finds a violation, or if a condition does not come true in time. A correct server passes each schedule with
every seed. The first line of a schedule's docstring is printed by `pfsb simulate` and stands in docs/broken.rst, so it
must be a sentence of its own.

* `scenario`: the clusters and clients of schedules. `all_schedules`: their names.
* `views`: leaders and elections. `updates`: updates, proposals and ACCEPTs on their way. `telling`: ORDERED.
* `disks`: records of earlier views and incarnations. `slow_disks`: timers while writes take seconds.
* `long_messages`, `paths`: servers that send much, and networks that carry little.
* `hand_overs`, `membership`, `snapshots`: leaders that hand over, servers that come and go, snapshots.
* `sessions`, `reads`: whole servers, with sessions.

Schedules are written for planted defects that random runs forgive, or whose situation random runs rarely reach.
Schedules act through the cluster, the network and clients; they read the state of servers and do not change it, except
that one schedule lets a leader skip a slot, as the command FAULT SKIP does.
"""
