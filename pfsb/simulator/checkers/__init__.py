"""The checkers: they watch the servers of a simulated cluster from outside, and raise `Violation` on a broken promise.

Theory of operation. The cluster reports events to each checker: a message leaves a server, a slot is executed, an
answer is given. A checker remembers all events over all crashes, compares them, and raises `Violation` at the first
contradiction. Checkers read the simulated disks, and never change anything. They know nothing of how a server comes to
its decisions.

* `violation`: the exception, and `Findings`, which keeps the first exception until the clock's present event is over.
* `cluster_checker`: S1, S2 and S3 (section 3 of the paper); that an answered update ran in one slot only, which a
  majority has on disk; and `ClusterChecker`, which calls these checks and those of messages, durability and updates.
* `message_checker`: each view has one leader, each slot one proposal in each view, and no restart lowers the
  view or the Local_Aru that a server tells others.
* `durability_checker`: no message leaves before the records that it relies on are on disk.
* `update_checker`: in each view an update is bound to one slot only, and each server relays it once.
* `session_checker`: each command runs once, and its answers are the result of that execution. `session_model`: which
  commands run and which sessions are open, computed a second time.
* `position_checker`: log positions in frames are those of the disks.
* `snapshot_checker`: snapshots of one slot are equal.
* `electorate`: which servers vote on a slot, as the epochs of the membership on the disks say.
* `divergence_checker`: a server that stops because a majority contradicts it is right, and says so.
* `lock_checker`: a lock has one holder, its tokens grow, and the session that has waited longest gets it.

A crash can undo an execution, which happens in memory. Checkers therefore count an execution only when it is
*settled*: the durability gate of the server has let out the messages and answers that follow from it. Nothing here
imports other packages of the simulator.
"""
