"""What one seed draws before its run begins: how large everything is, how the users are, and which faults there are."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve, field, frozen

from pfsb.config import Limits
from pfsb.paxos.messages import (
    Accept,
    Alive,
    ClientUpdate,
    Confirm,
    Confirmed,
    Message,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    VCProof,
    ViewChange,
)
from pfsb.paxos.settings import Settings
from pfsb.simulator.commands import Vocabulary
from pfsb.simulator.network import LinkQuality, Mood
from pfsb.simulator.users import Habits

FAMILIES: Final = (
    "network",
    "moods",
    "partitions",
    "crashes",
    "drains",
    "holes",
    "pauses",
    "clocks",
    "disks",
    "clients",
    "strangers",
)
"""Kinds of trouble; each is switched off in a quarter of the seeds of the mixed profile."""

ALL_FAMILIES: Final = (*FAMILIES, "promises", "lost_disks")
"""With those that profiles of their own have."""

ALL_MOODS: Final = (Prepare, PrepareOK, Proposal, Accept, ClientUpdate, ViewChange, VCProof, Alive, ReconciliationReply)
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
    moods: tuple[type[Message], ...] = ALL_MOODS
    """Kinds of messages that may be late or lost by themselves."""
    lasting: tuple[type[Message], ...] = ()
    """One of these kinds is late from the beginning to the end."""
    late: tuple[type[Message], ...] = ()
    """So are these, by as much."""
    never: tuple[type[Message], ...] = ()
    """Messages that never arrive."""
    seldom: tuple[type[Message], ...] = ()
    """Messages of which one half is lost, from the beginning to the end."""
    users: tuple[int, ...] = (2, 4, 6)
    settings: Mapping[str, tuple[Any, ...]] = field(factory=dict)
    """What these settings are drawn from, in place of what other profiles draw from."""
    habits: Mapping[str, Any] = field(factory=dict)
    """What of the users' `Habits` is not drawn."""
    vocabulary: Mapping[str, Any] = field(factory=dict)
    """What of the users' `Vocabulary` is not drawn."""
    faults_per_second: tuple[float, ...] = (0.5, 1.5, 3.0)
    patience_seconds: float = 60.0
    """How long everyone may have to wait for a majority that is well: some elections with the longest timeout."""
    ends_in_shape: bool = False
    """The links beside those of the majority that is well are cut in one of the shapes of `partitions`, for good."""
    leaves_broken: bool = True
    """In the end a minority is left broken; else all are well at once."""
    drills: int = 2
    """How many things go wrong in a known way when all is well again (`fair_weather`)."""
    has_sessions: bool = True
    """Whole servers; else the protocol alone, with clients as the paper has them."""

    @property
    def clears_up(self) -> bool:
        """In the end all messages fare alike, so that it is known how soon something must happen."""
        return self.has_sessions and not (self.lasting or self.late or self.never or self.seldom)


def _lopsided(help: str, *shapes: str) -> Profile:
    """A majority that can talk in both directions answers soon, whatever shape of links it has to the others."""
    return Profile(help, ("partitions",), shapes, patience_seconds=30.0, ends_in_shape=True)


PROFILES: Final[Mapping[str, Profile]] = {
    "mixed": Profile("all kinds of trouble", servers=(1, 2, 3, 3, 3, 3, 4, 5, 5, 7, 9), is_mixed=True),
    "calm": Profile("no trouble at all", servers=(1, 2, 3, 4, 5)),
    "lossy": Profile("links that lose, delay, repeat and reorder", ("network",)),
    "partitions": Profile("links that are cut, in every shape", ("partitions",)),
    "star": _lopsided("all links but those of one server that does not lead are cut", "star"),
    "chain": _lopsided("each server reaches two others at most", "chain"),
    "one-way": _lopsided("links that carry one way", "one_way", "mute_leader"),
    "crashes": Profile("servers die, in the middle of a turn, too, and start again", ("crashes", "pauses")),
    "disks": Profile("disks that are slow, fail or are full, and crashes", ("disks", "crashes")),
    "clocks": Profile("clocks that run fast or slow, or jump", ("clocks", "crashes")),
    "drills": Profile("some crashes; then, when all is well, one thing after the other", ("crashes",), drills=7),
    "clients": Profile("users who hang up, come back, use two connections, and crashes", ("clients", "crashes")),
    "moods": Profile("messages of one kind that are late or lost", ("moods", "crashes"), lasting=ALL_MOODS),
    "late-prepare": Profile(
        "a PREPARE is always late, and overtaken by proofs of its view",
        lasting=(Prepare,),
        settings={"progress_seconds": (1.0,), "alive_seconds": (0.02,), "resend_seconds": (0.3,)},
    ),
    "overtaking": Profile(
        "votes overtake their proposals, and nobody is told again what was ordered",
        lasting=(Proposal,),
        never=(ReconciliationReply,),
        settings={"progress_seconds": (1.0,)},
        leaves_broken=False,
    ),
    "promises": Profile(
        "promises in many parts, some of them late or lost, and leaders that die one after the other",
        ("promises",),
        seldom=(PrepareOK, Accept, ReconciliationReply),
        servers=(3,),
        users=(6, 8),
        settings={
            "batch_bytes_max": (1,),
            "frame_data_bytes_max": (60, 200),
            "window_slots": (16,),
            "progress_seconds": (1.0,),
            "resend_seconds": (0.1, 0.3),
        },
        faults_per_second=(3.0, 6.0),
    ),
    "echoes": Profile(
        "copies that arrive long after, where little is remembered",
        ("network", "clients"),
        settings={"horizon_slots": (8, 20), "history_slots_kept": (0, 4)},
    ),
    "readers": Profile(
        "many read what others write, while leaders are deposed, clocks differ, and a kind of messages is late",
        ("clocks", "partitions", "crashes"),
        ("isolate_leader",),
        lasting=(ReadRequest, ReadIndex, Confirm, Confirmed),
        late=(Accept,),
        users=(8, 20),
        habits={"pipeline": 1, "think_seconds": 0.03, "rhythm_seconds": 0.0},
        vocabulary={"keys": 1, "share_of_reads": 0.6, "share_of_locks": 0.02},
        settings={"progress_seconds": (1.0,), "update_seconds": (0.5, 1.0), "alive_seconds": (0.05, 0.2)},
        faults_per_second=(0.3,),
    ),
    "lost-disks": Profile("servers, never a majority, that come back with an empty disk", ("lost_disks", "crashes")),
    "drains": Profile("servers that are stopped in order, and clocks that are set", ("drains", "clocks", "clients")),
    "paper": Profile(
        "all kinds of trouble, the protocol alone, and clients as the paper has them",
        ("network", "moods", "partitions", "crashes", "holes", "pauses", "clocks", "disks"),
        settings={"horizon_slots": (100_000,)},
        has_sessions=False,
    ),
}


@frozen
class Knobs:
    """All that is fixed for a whole run."""

    servers: int
    seconds: float
    """How long things go wrong."""
    families: frozenset[str]
    partitions: tuple[str, ...]
    moody: tuple[type[Message], ...]
    """Kinds of messages that faults may make late."""
    lasting: Mapping[type[Message], Mood]
    """How the network is from the beginning to the end."""
    settings: Settings
    limits: Limits
    quality: LinkQuality
    sync_seconds: tuple[float, float]
    refusals: bool
    users: int
    anonymous: int
    """Users without a name, among them."""
    listeners: int
    """Who only listen, beside them."""
    doors: frozenset[int]
    """The servers that users go to; the others have clients in an emergency only (Departure 25)."""
    habits: Habits
    vocabulary: Vocabulary
    faults_per_second: float


def draw(rng: random.Random, profile: Profile, servers: int | None, seconds: float | None) -> Knobs:
    """`servers` and `seconds` are drawn unless they are given."""
    families = _families(rng, profile)
    drawn = rng.choice(profile.servers)
    users = rng.choice((1, 2, 4, 6, 8, 20)) if profile.is_mixed else rng.choice(profile.users)
    drawn_seconds = rng.uniform(4, 14)
    limits = _limits(rng)
    return Knobs(
        servers=drawn if servers is None else servers,
        seconds=drawn_seconds if seconds is None else seconds,
        families=families,
        partitions=profile.partitions,
        moody=profile.moods,
        lasting=_lasting(rng, profile),
        settings=_settings(rng, {name: rng.choice(values) for name, values in profile.settings.items()}),
        limits=limits,
        quality=weather(rng) if "network" in families else LinkQuality(),
        sync_seconds=_sync_seconds(rng) if "disks" in families else (0.0005, 0.002),
        refusals=rng.random() < 0.5,
        users=users,
        anonymous=users // 3,
        listeners=rng.choice((0, 1, 2)),
        doors=_doors(rng, drawn if servers is None else servers),
        habits=evolve(_habits(rng, limits, "clients" in families), **profile.habits),
        vocabulary=_vocabulary(rng, profile),
        faults_per_second=rng.choice(profile.faults_per_second),
    )


def _doors(rng: random.Random, servers: int) -> frozenset[int]:
    return frozenset(rng.sample(range(servers), min(servers, rng.choice((1, 2, servers, servers)))))


def _vocabulary(rng: random.Random, profile: Profile) -> Vocabulary:
    drawn = Vocabulary(keys=rng.choice((1, 2, 4)), locks=rng.choice((1, 2)), share_of_locks=rng.choice((0.1, 0.4)))
    return evolve(drawn, **profile.vocabulary)


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
        echoes=rng.choice((0.0, 0.0, 0.02, 0.2)),
        frames_max=rng.choice((4, 30, 100_000, 100_000)),
    )


def _lasting(rng: random.Random, profile: Profile) -> dict[type[Message], Mood]:
    """Late by less than the shortest Progress_Timer, after some doublings, so that a view can work."""
    moods: dict[type[Message], Mood] = {kind: Mood(loss=1.0) for kind in profile.never}
    moods |= {kind: Mood(loss=0.5) for kind in profile.seldom}
    if profile.lasting:
        longest = rng.choice((0.02, 0.1, 0.3))
        moods |= dict.fromkeys((rng.choice(profile.lasting), *profile.late), Mood((longest / 2, longest)))
    return moods


def _families(rng: random.Random, profile: Profile) -> frozenset[str]:
    on = [family for family in FAMILIES if rng.random() < 0.75]
    return frozenset(on if profile.is_mixed else profile.families)


def _settings(rng: random.Random, given: Mapping[str, Any]) -> Settings:
    """Small windows, short memories and short timers, so that their limits are met."""
    progress = given.get("progress_seconds", rng.choice((0.25, 0.5, 1.0, 1.0)))
    drawn = Settings(
        progress_seconds=progress,
        update_seconds=rng.choice((0.2, 0.5, 1.0)),
        alive_seconds=progress / rng.choice((3, 5, 10)),
        resend_seconds=rng.choice((0.05, 0.1, 0.3)),
        lazy_seconds=rng.choice((0.0, 0.005, 0.02, 0.1)),
        reconciliation_seconds=rng.choice((0.1, 0.25)),
        window_slots=rng.choice((1, 2, 4, 16)),
        batch_bytes_max=rng.choice((1, 200, 48_000)),
        frame_data_bytes_max=rng.choice((60, 1_000, 50_000)),
        queue_updates_max=rng.choice((1, 5, 20_000)),
        history_slots_kept=rng.choice((0, 4, 1_024)),
        horizon_slots=rng.choice((60, 300, 100_000)),
        digests_kept=1_000,
    )
    return evolve(drawn, **given)


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
        rhythm_seconds=rng.choice((0.0, 0.0, 2.0, 6.0)),
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
