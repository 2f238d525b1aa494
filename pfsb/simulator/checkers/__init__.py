"""The checkers: judges of a cluster, which see its servers from outside.

Theory of operation. The cluster feeds each checker with events: a message leaves a server, a slot is executed, an
answer is given. A checker remembers what it has seen over all crashes, compares, and raises `Violation` at the first
contradiction. Checkers read disks, and never change anything. They know nothing of how a server comes to its
decisions.

* `violation`: the exception, and `Findings`, which keeps it until the present event is over.
* `cluster_checker`: S1, S2 and S3, answers, and the sum of the checkers below.
* `message_checker`: one leader a view, one proposal a view and slot, numbers that never fall.
* `durability_checker`: no message leaves before the records that it rests on are on disk.
* `update_checker`: the binding of updates to slots, and their relaying.
* `session_checker`: commands run once, and answers are those of the execution.
* `lock_checker`: one holder, growing tokens, first come first served.

An execution in memory may be undone by a crash, so that it counts only when it is *settled*: the durability gate of
its server has let out the effects. Nothing here imports other packages of the simulator.
"""
