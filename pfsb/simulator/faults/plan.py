"""The faults of a run: a list that is drawn from the seed beforehand, so that any part of it can be left out.

Each fault draws from random numbers of its own. When other faults are left out, it therefore does the same, as far as
the cluster is in the same state.
"""

from __future__ import annotations

import random
from math import log
from typing import Final

from attrs import evolve, frozen

from pfsb.paxos.messages import ReconciliationReply
from pfsb.simulator.cluster.network import MessageFault
from pfsb.simulator.faults.parameters import Parameters

LOOK_SECONDS: Final = 0.0005
"""How long, in seconds, a fault that waits for a certain situation pauses between two looks at the cluster."""
LOOKS_MAX: Final = 6_000
"""Maximum number of looks at the cluster by a fault that waits for a certain situation. If the situation has not come
by then, the fault does not happen."""
SNAPSHOT_FAULTS_PER_SECOND: Final = (0.3, 0.6, 1.0)
"""Numbers of faults around snapshots, on average in each second of the simulation, from which a seed draws one."""
LOST_SNAPSHOTS: Final = (0, 0, 1, 2)
"""Numbers of servers that lose the snapshot with which they start, of which a seed draws one."""
CHANGES_PER_SECOND: Final = (0.3, 0.7, 1.5)
"""Numbers of changes of the membership, on average in each second of the simulation, from which a seed draws one."""
HAND_OVERS_PER_SECOND: Final = (0.1, 0.3, 1.0)
"""Numbers of hand-overs, on average in each second of the simulation, from which a seed draws one, if changes of the
membership are added to a profile."""
CHANGES_BEGIN_SECONDS: Final = 1.0
"""Simulated time, in seconds, of the first change at the earliest: before, no server has executed anything."""
DAY_SECONDS: Final = 86_400.0
CLOCKS_BEGIN_SECONDS: Final = 10 * DAY_SECONDS
"""Time that all clocks show at the start of a run. A clock that is a day late must not show a negative time."""

_KINDS: Final = {
    "network": ("weather", "weather_of_one"),
    "moods": ("late_kind", "late_kind", "lost_kind", "no_more_moods"),
    "crashes": ("crash", "crash", "crash_in_turn", "crash_in_turn", "crash_in_write", "crash_leader", "crash_all"),
    "crash_loops": ("crash_loop",),
    "drains": ("drain", "drain_leader"),
    "holes": ("leave_a_hole", "laggard_leads", "skip_everywhere"),
    "promises": ("laggard_leads", "laggard_leads", "crash_promiser"),
    "pauses": ("pause", "pause", "pause_leader"),
    "clocks": ("clock", "wall_clock"),
    "disks": ("slow_disk", "failing_disk", "full_disk"),
    "lost_disks": ("lose_disk",),
    "heirs": ("lose_disk_of_follower",),
    "old_copies": ("put_back_old_copy",),
    "copies": ("put_back_copy_of_start", "lose_last_group", "lose_power_before_copy"),
    "memory": ("run_out_of_memory",),
    "repeats": ("order_again",),
    "strangers": ("stranger",),
    "slips": ("slip",),
    "dice": ("throw_dice",),
    "names": (
        "move",
        "move",
        "move_alive",
        "exchange_addresses",
        "name_servers",
        "name_servers",
        "forget_name",
        "impostor",
    ),
    "confusion": ("confused_peer", "confused_peer", "damaged_frames"),
    "hand_overs": (
        *("hand_over", "hand_over", "retire", "retire_leader", "retire_leader", "retire_both"),
        *("crash_in_hand_over", "crash_in_hand_over", "pause_in_hand_over", "lose_hand_over", "late_hand_over"),
        *("repeat_hand_over", "untrue_hand_over"),
    ),
    "members": (
        *("add_server", "add_server", "remove_server", "remove_leader", "replace_server", "replace_server"),
        *("order_replacement", "order_replacement", "add_read_replica", "add_read_replica", "remove_read_replica"),
        *("move_server", "two_changes", "two_changes", "add_again", "change_in_hand_over", "change_and_retire"),
        *("crash_in_change", "crash_in_change", "crash_in_change"),
    ),
    "snapshots": (
        *("take_snapshot", "stay_away", "stay_away", "crash_in_snapshot", "crash_in_snapshot"),
        *("crash_in_fetch", "crash_in_fetch", "crash_source", "cut_source", "crash_both", "replace_snapshot"),
    ),
    "paths": ("path_size", "path_size", "path_size_of_one"),
    "disk_troubles": (
        *("hang_disk", "hang_disk", "hang_disk_of_leader", "hang_disk_of_leader"),
        *("fill_disk", "fill_disk_of_leader", "fill_all_disks", "disk_of_seconds"),
    ),
}
"""Family -> kinds of faults to draw from; a kind that stands twice is drawn twice as often.

The kinds of partitions are in the profile.
"""
_DRAWN_APART: Final = ("snapshots", "members")
"""Families whose faults are drawn by functions of their own, after all others."""
_OF_FULL_DISKS: Final = ("fill_in_fetch", "fill_in_fetch")
"""Further kinds of the family `snapshots`, in runs that have `disk_troubles`."""


@frozen
class Fault:
    """One fault, `at` seconds after the beginning of the run.

    `number` counts the faults that the seed has drawn for the run from 0, in the order of their times.
    """

    number: int
    at: float
    family: str
    kind: str

    def __str__(self) -> str:
        return f"{self.number} {self.kind} at {self.at:.2f} s"


def draw_faults(rng: random.Random, parameters: Parameters) -> tuple[Fault, ...]:
    """Draw a partition or its healing every 0.1 to 10 seconds, and all other faults at random times.

    On average, `faults_per_second` of these other faults happen in each second of the simulation.
    """
    rows: list[tuple[float, str, str]] = []
    if "partitions" in parameters.families and parameters.servers > 1:
        at = rng.uniform(0, 2)
        while at < parameters.seconds:
            rows.append((at, "partitions", rng.choice((*parameters.partitions, "heal"))))
            at += between(rng, 0.1, 10)
    families = [family for family in _KINDS if family in parameters.families and family not in _DRAWN_APART]
    at = rng.expovariate(parameters.faults_per_second)
    while families and at < parameters.seconds:
        family = rng.choice(families)
        rows.append((at, family, rng.choice(_KINDS[family])))
        at += rng.expovariate(parameters.faults_per_second)
    return tuple(Fault(number, *row) for number, row in enumerate(sorted(rows)))


def draw_snapshot_faults(rng: random.Random, parameters: Parameters, first_number: int) -> tuple[Fault, ...]:
    """Draw faults of the family `snapshots`. They are numbered from `first_number` on: the other faults of the run stay
    as they are without snapshots.

    Where no RECONCILIATION_REPLY ever arrives, no server is cut off or crashed: it could not get the slots that it has
    missed, unless they are dropped.
    """
    catches_up = parameters.lasting.get(ReconciliationReply, MessageFault()).loss < 1.0
    kinds: tuple[str, ...] = _KINDS["snapshots"] if catches_up else ("take_snapshot",)
    if catches_up and "disk_troubles" in parameters.families:
        kinds += _OF_FULL_DISKS
    per_second = rng.choice(SNAPSHOT_FAULTS_PER_SECOND)
    rows: list[tuple[float, str, str]] = []
    at = rng.expovariate(per_second)
    while at < parameters.seconds:
        rows.append((at, "snapshots", rng.choice(kinds)))
        at += rng.expovariate(per_second)
    if catches_up:
        times = [rng.uniform(0, parameters.seconds) for _ in range(rng.choice(LOST_SNAPSHOTS))]
        rows += [(at, "snapshots", "lose_snapshot") for at in times]
    return tuple(Fault(number, *row) for number, row in enumerate(rows, first_number))


def draw_changes(rng: random.Random, parameters: Parameters, first_number: int) -> tuple[Fault, ...]:
    """Draw changes of the membership, and faults around them. They are numbered from `first_number` on."""
    per_second = rng.choice(CHANGES_PER_SECOND)
    rows: list[tuple[float, str, str]] = []
    at = CHANGES_BEGIN_SECONDS + rng.expovariate(per_second)
    while at < parameters.seconds:
        rows.append((at, "members", rng.choice(_KINDS["members"])))
        at += rng.expovariate(per_second)
    return tuple(Fault(number, *row) for number, row in enumerate(rows, first_number))


def draw_with_changes(rng: random.Random, parameters: Parameters, until: float, first_number: int) -> tuple[Fault, ...]:
    """Draw the faults that a run has besides its own, which end at `until`, if changes of the membership are added to
    its profile: the changes, hand-overs, and further faults of its other families from `until` on. They are numbered
    from `first_number` on."""
    faults = draw_changes(rng, parameters, first_number)
    if "hand_overs" in parameters.families:
        faults += _draw_hand_overs(rng, parameters, first_number + len(faults))
    families = parameters.families - {"hand_overs"}
    rest = evolve(parameters, seconds=parameters.seconds - until, families=families)
    longer = draw_faults(rng, rest)
    if "snapshots" in families:
        longer += draw_snapshot_faults(rng, rest, len(longer))
    begin = first_number + len(faults)
    return faults + tuple(evolve(fault, number=begin + fault.number, at=until + fault.at) for fault in longer)


def _draw_hand_overs(rng: random.Random, parameters: Parameters, first_number: int) -> tuple[Fault, ...]:
    per_second = rng.choice(HAND_OVERS_PER_SECOND)
    rows: list[tuple[float, str, str]] = []
    at = rng.expovariate(per_second)
    while at < parameters.seconds:
        rows.append((at, "hand_overs", rng.choice(_KINDS["hand_overs"])))
        at += rng.expovariate(per_second)
    return tuple(Fault(number, *row) for number, row in enumerate(rows, first_number))


def between(rng: random.Random, low: float, high: float) -> float:
    """Draw a number between `low` and `high`, with evenly distributed logarithm: 1 to 2 is as likely as 2 to 4."""
    return float(low * 2 ** rng.uniform(0, log(high / low, 2)))
