"""What one seed draws before its run begins: how large everything is, how the users are, and which faults there are."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from attrs import evolve, frozen

from pfsb.config import Limits
from pfsb.paxos.settings import Settings
from pfsb.simulator.commands import Vocabulary
from pfsb.simulator.network import LinkQuality
from pfsb.simulator.users import Habits

FAMILIES: Final = ("network", "partitions", "crashes", "pauses", "clocks", "disks", "clients", "strangers")
"""Kinds of trouble; each is switched off in a quarter of the seeds of the mixed profile."""

ALL_PARTITIONS: Final = ("split", "isolate", "star", "chain", "one_way", "mute_leader", "one_by_one")


@frozen
class Profile:
    help: str
    families: tuple[str, ...] = ()
    """Switched on in every seed."""
    partitions: tuple[str, ...] = ALL_PARTITIONS
    servers: tuple[int, ...] = (3, 3, 4, 5)
    is_mixed: bool = False
    """Each family by its own chance, and any number of servers."""
    drills: int = 2
    """How many things go wrong in a known way when all is well again (`fair_weather`)."""


PROFILES: Final[Mapping[str, Profile]] = {
    "mixed": Profile("all kinds of trouble", servers=(1, 2, 3, 3, 3, 3, 4, 5, 5, 7, 9), is_mixed=True),
    "calm": Profile("no trouble at all", servers=(1, 2, 3, 4, 5)),
    "lossy": Profile("links that lose, delay, repeat and reorder", ("network",)),
    "partitions": Profile("links that are cut, in every shape", ("partitions",)),
    "star": Profile("all links but those of one server that does not lead are cut", ("partitions",), ("star",)),
    "chain": Profile("each server reaches two others at most", ("partitions",), ("chain",)),
    "one-way": Profile("links that carry one way", ("partitions",), ("one_way", "mute_leader")),
    "crashes": Profile("servers die, in the middle of a turn, too, and start again", ("crashes", "pauses")),
    "disks": Profile("disks that are slow, fail or are full, and crashes", ("disks", "crashes")),
    "clocks": Profile("clocks that run fast or slow, or jump", ("clocks", "crashes")),
    "drills": Profile("some crashes; then, when all is well, one thing after the other", ("crashes",), drills=7),
    "clients": Profile("users who hang up, come back, use two connections, and crashes", ("clients", "crashes")),
}


@frozen
class Knobs:
    """All that is fixed for a whole run."""

    servers: int
    seconds: float
    """How long things go wrong."""
    families: frozenset[str]
    partitions: tuple[str, ...]
    settings: Settings
    limits: Limits
    quality: LinkQuality
    sync_seconds: tuple[float, float]
    refusals: bool
    users: int
    anonymous: int
    """Users without a name, among them."""
    habits: Habits
    vocabulary: Vocabulary
    faults_per_second: float


def draw(rng: random.Random, profile: Profile, servers: int | None, seconds: float | None) -> Knobs:
    """`servers` and `seconds` are drawn unless they are given."""
    families = _families(rng, profile)
    drawn = rng.choice(profile.servers)
    users = rng.choice((1, 2, 4, 6, 8, 20)) if profile.is_mixed else rng.choice((2, 4, 6))
    drawn_seconds = rng.uniform(4, 14)
    limits = _limits(rng)
    return Knobs(
        servers=drawn if servers is None else servers,
        seconds=drawn_seconds if seconds is None else seconds,
        families=families,
        partitions=profile.partitions,
        settings=_settings(rng),
        limits=limits,
        quality=weather(rng) if "network" in families else LinkQuality(),
        sync_seconds=_sync_seconds(rng) if "disks" in families else (0.0005, 0.002),
        refusals=rng.random() < 0.5,
        users=users,
        anonymous=users // 3,
        habits=_habits(rng, limits, "clients" in families),
        vocabulary=Vocabulary(
            keys=rng.choice((1, 2, 4)), locks=rng.choice((1, 2)), share_of_locks=rng.choice((0.1, 0.4))
        ),
        faults_per_second=rng.choice((0.5, 1.5, 3.0)),
    )


def weather(rng: random.Random) -> LinkQuality:
    """What a link may be like for a while."""
    longest = rng.choice((0.001, 0.01, 0.03, 0.1))
    return LinkQuality(
        delay_seconds=(longest / rng.choice((1, 5, 50)), longest),
        loss=rng.choice((0.0, 0.0, 0.02, 0.1, 0.3)),
        duplication=rng.choice((0.0, 0.0, 0.05, 0.2, 0.5)),
        reordering=rng.choice((0.0, 0.0, 0.05, 0.5)),
        detour_seconds=rng.choice((0.005, 0.05, 0.3)),
        stragglers=rng.choice((0.0, 0.0, 0.01, 0.05)),
        frames_max=rng.choice((4, 30, 100_000, 100_000)),
    )


def _families(rng: random.Random, profile: Profile) -> frozenset[str]:
    on = [family for family in FAMILIES if rng.random() < 0.75]
    return frozenset(on if profile.is_mixed else profile.families)


def _settings(rng: random.Random) -> Settings:
    """Small windows, short memories and short timers, so that their limits are met."""
    progress = rng.choice((0.25, 0.5, 1.0, 1.0))
    return Settings(
        progress_seconds=progress,
        update_seconds=rng.choice((0.2, 0.5, 1.0)),
        alive_seconds=progress / rng.choice((3, 5, 10)),
        resend_seconds=rng.choice((0.05, 0.1, 0.3)),
        reconciliation_seconds=rng.choice((0.1, 0.25)),
        window_slots=rng.choice((1, 2, 4, 16)),
        batch_bytes_max=rng.choice((1, 200, 48_000)),
        frame_data_bytes_max=rng.choice((60, 1_000, 50_000)),
        queue_updates_max=rng.choice((1, 5, 20_000)),
        history_slots_kept=rng.choice((0, 4, 1_024)),
        horizon_slots=rng.choice((60, 300, 100_000)),
        digests_kept=1_000,
    )


def _limits(rng: random.Random) -> Limits:
    return Limits(
        connections=rng.choice((2, 100)),
        session_window=rng.choice((1, 2, 8, 128)),
        request_seconds=rng.choice((0.5, 2.0, 10.0)),
    )


def _habits(rng: random.Random, limits: Limits, are_careless: bool) -> Habits:
    calm = Habits(
        patience_seconds=rng.choice((0.5, 1.0, 3.0)),
        think_seconds=rng.choice((0.03, 0.1, 0.3)),
        pipeline=min(rng.choice((1, 3, 10)), limits.session_window),
        ttl_seconds=rng.choice((1, 2, 5)),
    )
    chances = (0.0, 0.02, 0.1)
    careless = evolve(
        calm,
        leaves=rng.choice(chances),
        vanishes=rng.choice((0.0, 0.002, 0.02)),
        doubles=rng.choice((0.0, 0.5)),
        goes_back=rng.choice((0.05, 0.2)),
        says_goodbye=rng.choice(chances),
    )
    return careless if are_careless else calm


def _sync_seconds(rng: random.Random) -> tuple[float, float]:
    longest = rng.choice((0.0, 0.002, 0.02, 0.2, 1.0))
    return longest / 4, longest
