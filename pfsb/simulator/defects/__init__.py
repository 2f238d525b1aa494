"""Planted defects: servers that are wrong in one respect each, which the simulator must find.

Theory of operation. A defect is a function that changes one server after it is built and before it starts, in every
incarnation of every server. It replaces methods of that one server (`defect.override`, `defect.instead_of`), so that
the code of production knows nothing of defects. If a method that a defect replaces is renamed, the defect raises
AttributeError at once, instead of having no effect.

* `defect`: what a defect is, and how it gets into a server. `all_defects`: all of them, by name.
* `disk`, `votes`, `promises`, `proposals`, `telling`, `execution`, `progress`, `hand_overs`, `membership`: defects of
  the protocol, by subject.
* `disk_troubles`, `snapshots`, `digests`: defects of servers whose disks hang or are full, of snapshots and of digests.
* `frames`, `paths`, `names`, `confusion`: defects between servers.
* `sessions`, `runs`, `reads`: defects above the protocol.
* `expected_catches`: the first run that shows each defect and the check that reports it, from `expected_catches.json`.

`docs/make_broken_table.py --hunt` looks for the first run that shows each defect, and writes the JSON file and
docs/broken.rst. The tests repeat each of these runs with the defect and without it. This package does not import
`runs`, which has the code that looks for them.
"""
