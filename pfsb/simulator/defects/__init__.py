"""Planted defects: servers that are wrong in one respect each, which the simulator must find.

Theory of operation. A defect is a function that changes one server after it is built and before it starts, in every
incarnation of every server. It replaces methods of that one server (`defect.override`, `defect.instead_of`), so that
the code of production knows nothing of defects. A defect whose method was renamed fails at once, instead of
disappearing.

* `defect`: what a defect is, and how it gets into a server. `all_defects`: all of them, by name.
* `disk`, `votes`, `promises`, `proposals`, `execution`, `progress`, `sessions`, `reads`: the defects, by subject.
* `expected_catches`: the first run that shows each defect and the check that reports it, from `expected_catches.json`.

`docs/make_broken_table.py --hunt` looks for the runs, and writes the JSON file and docs/broken.rst. The tests run each
pinned seed with the defect and without it. This package imports nothing of `runs`, which does the hunting.
"""
