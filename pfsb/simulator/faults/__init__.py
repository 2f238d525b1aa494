"""Faults: what a seed draws before a run begins, and how the faults then happen.

Theory of operation. A `Profile` names the choices of one kind of random runs. `draw_parameters` draws the fixed values
of a run from it: sizes, timers, users, and families of faults. `draw_faults` draws a list of `Fault`, each with a
number and a time. The list is complete before the run begins and each fault draws from random numbers of its own, so
that any subset of the list can be run: shrinking depends on that. `AllFaults` carries the faults out until `cease` is
called. Each kind of fault is a method of the same name; traces and marks show the name, too.

* `profiles`: all profiles. `parameters`: the values of one run. `plan`: the list of faults.
* `injector`: the base of all faults. `network_faults`, `server_faults`, `name_faults`, `snapshot_faults`,
  `hand_over_faults`, `membership_faults`, `confusion`: the faults themselves. `all_faults`: all of them together.
* `foreign_frames`: frames that must not change a server. `wrong_messages`: messages of a server in error.
  `repeated_bundles`: commands that are ordered again.

Faults act on the cluster through its public methods, and never touch the state of a server. A run depends on the order
in which its seed's random numbers are drawn: a new draw must come after all others, so that old seeds keep their runs.
"""
