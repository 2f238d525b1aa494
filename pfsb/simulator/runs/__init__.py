"""Whole runs of the simulator: one run from its seed to its result, searches over many runs, and `pfsb simulate`.

Theory of operation. A `Plan` names the seed and the profile. `Run` draws the parameters and the faults from the seed,
builds the cluster and its population (its servers and users), and goes through the phases of a run. In the first phase
faults happen. Then a majority of servers is healed, and must serve every user. Then the whole cluster is healed, and
its servers must become equal. Liveness drills follow, and last the answers to all users are checked together. The first
violation ends a run; the `RunOutcome` has its text, the marks, and a digest of all frames and answers.

* `run`: the phases. `population`: the users of a run, with servers that are whole or run only the protocol.
* `bounds_checker`: limits of tables and timers, checked twice a second. `liveness_drills`: bounds on recovery;
  `disk_drills`, `view_drills`, `dice_drills`, `pace_drills`, `hand_over_drills` and `membership_drills` are further
  drills of certain profiles; `client_drills` has what those with clients share. `idle_hour`: an hour without clients.
* `fetch_checker`: no server waits too long for parts of a snapshot.
* `shrink`: smaller runs that still fail. `diagram`: a picture of the last events of a run.
* `defect_hunt`: the first run that shows a planted defect. `simulate_command`: the command line.
* `decisive_step`: why a run failed, for a person. `rules`: the rules that checks guard, in sentences.

The texts of phases and violations are part of the output, and must not change by accident: expected_catches.json and
docs/broken.rst quote their beginnings.
"""
