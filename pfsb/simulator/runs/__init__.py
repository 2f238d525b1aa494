"""Whole runs: from a seed to a result, a smaller failing run, a defect that is found, and `pfsb simulate`.

Theory of operation. A `Plan` names the seed and the profile. `Run` draws the parameters and the faults, builds the
cluster and its population, and goes through the phases: faults, a healed majority that must serve every user, a healed
cluster whose servers must become equal, liveness drills, and a look back at the history. The first violation ends a
run; the `RunOutcome` has its text, the marks, and a digest of all frames and answers.

* `run`: the phases. `population`: the servers and users of a run, whole or protocol alone.
* `bounds_checker`: limits of tables and timers, checked twice a second. `liveness_drills`: bounds on recovery.
* `shrink`: smaller failing runs. `diagram`: a picture of the last events.
* `defect_hunt`: the first run that shows a planted defect. `simulate_command`: the command line.

The texts of phases and violations are part of the output: expected catches and docs/broken.rst hold their beginnings.
"""
