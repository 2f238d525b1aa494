"""The parameters of one run, drawn from its seed before it begins: sizes, timers, users, and families of faults."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve, field, frozen

from pfsb.config.config import Limits
from pfsb.paxos.messages import Message, PrepareOK, Proposal, ReconciliationReply
from pfsb.paxos.settings import Settings
from pfsb.simulator.cluster.network import LinkQuality, MessageFault, PathLimits, SocketBuffer
from pfsb.simulator.faults.profiles import FAMILIES, SNAPSHOT_KINDS, Profile
from pfsb.simulator.workload.commands import Vocabulary
from pfsb.simulator.workload.user_profile import UserProfile
from pfsb.storage.effect import KEPT_SLOTS
from pfsb.support.limits import SERVER_ID_MAX
from pfsb.transports.path_size import ETHERNET_BYTES

RARE_SIZES: Final = (6, 8)
"""Numbers of servers from which a seed with a rare size draws (`Profile.share_of_rare_sizes`)."""
SHARE_OF_IDS_WITH_GAPS: Final = 0.2
"""Share of the seeds in which the ids of the servers have gaps, such as 2, 5 and 9."""
APPS_OF_FILES: Final = 3
"""Number of values of the setting `apps`, the first ones, that any server of a run with changing settings can run from
the beginning."""
JOINERS: Final = 8
"""Number of servers that may be added in a run that changes the membership."""
MORE_SECONDS: Final = 4.0
"""How much longer, in simulated seconds, faults happen in a run that changes the membership: a server learns for 1.5
seconds before it votes."""
SHARE_OF_HAND_OVERS: Final = 0.75
"""Share of the seeds in which leaders hand over, if changes of the membership are added to a profile."""
MANY_SESSIONS: Final = 100_000
"""Value of the quota `sessions` that no run comes near to: its default."""
IDS_MAX: Final = (12, SERVER_ID_MAX)
"""The two possible values of the highest id of a server, for seeds that give servers ids with gaps between them. Such a
seed draws one of the two, and then the ids, up to it."""


@frozen
class Parameters:
    """All values that are fixed for a whole run."""

    ids: tuple[int, ...]
    """The ids of the servers, ascending."""
    seconds: float
    """How long faults happen, in simulated seconds."""
    families: frozenset[str]
    partitions: tuple[str, ...]
    faulty_kinds: tuple[type[Message], ...]
    """Kinds of messages that faults may delay or lose."""
    lasting: Mapping[type[Message], MessageFault]
    """Kind of message -> its fault from the beginning to the end of the run."""
    settings: Settings
    limits: Limits
    quality: LinkQuality
    sync_seconds: tuple[float, float]
    refusals: bool
    users: int
    anonymous: int
    """Number of users with anonymous sessions, included in `users`."""
    onlookers: int
    """Number of users that only read while faults happen, included in `anonymous`."""
    listeners: int
    """Number of clients that follow the event log, in addition to the users."""
    home_servers: frozenset[int]
    """The servers that users prefer to connect to while faults happen.

    An ACCEPT for a server without clients may wait for another frame (Departure 25), and the other servers have no
    clients most of the time.
    """
    user_profile: UserProfile
    vocabulary: Vocabulary
    faults_per_second: float
    servers_without_runs: frozenset[int] = frozenset()
    """The servers that execute all commands one by one; the others execute runs of them together."""
    quotas: Mapping[str, int] = field(factory=dict)
    """Quotas of the replicated state with which the cluster is born; those that are left out have their defaults."""
    changing_settings: Mapping[str, tuple[Any, ...]] = field(factory=dict)
    """Name of each setting that changes in this run -> the values that it may get: in the configuration file of one
    server when it starts, or from an operator. Empty: the files of all servers are alike, and no setting changes."""
    path_limits: PathLimits | None = None
    """The limits of each link: how large a datagram may be that passes, and how many bytes may be under way. None:
    every frame travels whole, as on one machine."""
    buffer: SocketBuffer | None = None
    """The buffer of each server's socket, from the beginning to the end of the run; None: each frame is read when it
    arrives."""
    joiners: tuple[int, ...] = ()
    """Ids of the servers that may be added in the run, in the order in which they are used."""
    kept_slots: int = KEPT_SLOTS
    """Number of slots, up to that of a snapshot, that the servers' disks keep readable."""

    @property
    def servers(self) -> int:
        return len(self.ids)

    @property
    def machines(self) -> tuple[int, ...]:
        """The ids of all servers that there may be in the run, ascending."""
        return tuple(sorted((*self.ids, *self.joiners)))


def draw_parameters(
    rng: random.Random, profile: Profile, servers: int | None, seconds: float | None, ids_rng: random.Random
) -> Parameters:
    """Draw the parameters of a run. `servers` and `seconds` replace the drawn values unless they are None.

    `ids_rng` serves the rare sizes and the ids alone, so that seeds without them keep their other parameters.
    """
    families = _families(rng, profile)
    usual = rng.choice(profile.servers)
    rare = _rare_size(ids_rng, profile)
    ids = _ids(ids_rng, servers or rare or usual)
    users = rng.choice((1, 2, 4, 6, 8, 20)) if profile.is_mixed else rng.choice(profile.users)
    drawn_seconds = rng.uniform(4, 14)
    limits = _limits(rng)
    parameters = Parameters(
        ids=ids,
        seconds=drawn_seconds if seconds is None else seconds,
        families=families,
        partitions=profile.partitions,
        faulty_kinds=profile.faulty_kinds,
        lasting=_lasting(rng, profile, len(ids)),
        settings=draw_settings(rng, {name: rng.choice(values) for name, values in profile.settings.items()}),
        limits=limits,
        quality=draw_link_quality(rng) if "network" in families else LinkQuality(),
        sync_seconds=_sync_seconds(rng) if "disks" in families else (0.0005, 0.002),
        refusals=rng.random() < 0.5,
        users=users,
        anonymous=max(users // 3, profile.onlookers),
        onlookers=profile.onlookers,
        listeners=rng.choice((0, 1, 2)),
        home_servers=_home_servers(rng, ids),
        user_profile=evolve(_user_profile(rng, limits, "clients" in families), **profile.user_profile),
        vocabulary=_vocabulary(rng, profile),
        faults_per_second=rng.choice(profile.faults_per_second),
        servers_without_runs=frozenset(ids[1::2] if profile.has_servers_without_runs else ()),
    )
    return _within_reach(parameters)


def with_batching(rng: random.Random, profile: Profile, parameters: Parameters) -> Parameters:
    """Draw the users' `batching_seconds`. This comes after older draws, so that older seeds keep their parameters.

    The values are powers of two: multiples of them are exact, so that requests of one period arrive at one instant.
    """
    user_profile = {"batching_seconds": rng.choice((0.0, 1 / 64, 1 / 8, 1 / 8)), **profile.user_profile}
    return evolve(parameters, user_profile=evolve(parameters.user_profile, **user_profile))


def with_quotas(rng: random.Random, profile: Profile, parameters: Parameters) -> Parameters:
    """Draw the quotas, after all other parameters. Seeds without small quotas have the defaults.

    Quotas are small in every seed of a profile that `has_small_quotas`, and in one in five seeds of the other profiles;
    in no seed with an idle hour, or with applications that throw dice: the clients of these drills need sessions and
    locks of their own beside those of the users.
    There is always room for one session of each user and one more. While sessions that users have left behind have not
    expired, other users may be refused a session; the end of a run waits until these have expired.
    """
    drawn = {
        "value_bytes": rng.choice((30, 320, 1_048_576)),
        "kv_bytes": rng.choice((40, 340, 700, 2**30)),
        "chat_bytes": rng.choice((100, 1_000, 2**28)),
        "session_locks": rng.choice((1, 10_000)),
        "sessions": rng.choice((parameters.users + 1, 2 * parameters.users + 2, MANY_SESSIONS)),
        "reply_cache_bytes": rng.choice((60, 1_000, 2**20)),
        "replies_bytes": rng.choice((100, 1_500, 2**28)),
    }
    has_other_clients = profile.has_idle_hour or "dice" in profile.families
    is_small = profile.has_small_quotas or (rng.random() < 0.2 and not has_other_clients)
    return evolve(parameters, quotas=drawn if is_small else {})


def with_changing_settings(profile: Profile, parameters: Parameters) -> Parameters:
    """The parameters, with the settings that change in the run (`Parameters.changing_settings`), if the profile has
    any.

    The values of `session_window` leave room for the replies to all commands that a user has under way, and those of
    `sessions` for a session of each user and one more. Configuration files have one of the first `APPS_OF_FILES` values
    of `apps`: a server that lacks what the first leader's file asks for would stop.
    """
    if not profile.has_changing_settings:
        return parameters
    fewest = parameters.user_profile.pipeline
    changing = {
        "session_window": (fewest, fewest + 1, 2 * fewest, 128),
        "window": (1, 2, 5, 16),
        "value_bytes": (30, 320, 1_048_576),
        "kv_bytes": (340, 700, 2**30),
        "chat_bytes": (1_000, 2**28),
        "session_locks": (1, 2, 10_000),
        "session_waits": (1, 2, 10_000),
        "reply_cache_bytes": (60, 1_000, 2**20),
        "replies_bytes": (100, 1_500, 2**28),
        "sessions": (parameters.users + 1, 2 * parameters.users + 2, MANY_SESSIONS),
        "horizon": (20, 60, 300, 100_000),
        "apps": ("chat,lock,kv", "kv,lock,chat", "chat,tally,lock,kv", "tally:2,kv,chat,lock", "lock,kv,chat,tally:2"),
        "rules": (1, 2),
    }
    return evolve(parameters, changing_settings=changing)


def with_path_limits(rng: random.Random, parameters: Parameters) -> Parameters:
    """Add limits of the links, drawn from `rng`, to the parameters of a profile with faults of paths. `rng` serves
    these limits alone."""
    if "paths" not in parameters.families:
        return parameters
    return evolve(parameters, path_limits=draw_path_limits(rng))


def draw_path_limits(rng: random.Random) -> PathLimits:
    """Draw the limits of a link: of the interfaces, of the way between them, and of the queue on it."""
    interface = rng.choice((ETHERNET_BYTES, ETHERNET_BYTES, 8_972))
    return PathLimits(
        interface_bytes=interface,
        path_bytes=min(interface, rng.choice((600, 1_000, 1_250, 1_400, ETHERNET_BYTES, 8_972))),
        buffer_bytes=rng.choice((30_000, 200_000, 1_000_000)),
    )


def with_buffers(rng: random.Random, profile: Profile, parameters: Parameters) -> Parameters:
    """Draw the buffers of the servers' sockets, after all other parameters, in the profiles that have any."""
    if not profile.socket_frames:
        return parameters
    frames, reading_seconds = rng.choice(profile.socket_frames), rng.choice((0.00002, 0.0001, 0.0003))
    # A byte limit as of a socket that was given room for so many full frames: small frames find more room.
    full_bytes = parameters.settings.frame_data_bytes_max + 1_000
    is_in_bytes = rng.random() < 0.5
    bytes_max = frames * full_bytes if is_in_bytes else SocketBuffer().bytes_max
    frames_max = SocketBuffer().frames_max if is_in_bytes else frames
    # Large messages travel in frames of their own, as they do in production, where each of them nearly fills a frame.
    alone = dict.fromkeys((PrepareOK, Proposal, ReconciliationReply), MessageFault())
    lasting = {**alone, **parameters.lasting}
    return evolve(parameters, buffer=SocketBuffer(frames_max, bytes_max, reading_seconds), lasting=lasting)


def with_snapshots(rng: random.Random, parameters: Parameters) -> Parameters:
    """The parameters, changed so that servers take snapshots after few slots and keep few slots below them, in memory
    and on disk: a server that was away for a while must fetch a snapshot. `rng` serves these parameters alone."""
    settings = evolve(
        parameters.settings,
        snapshot_slots=rng.choice((5, 10, 20, 50, 200)),
        history_slots_kept=rng.choice((0, 0, 2, 8)),
    )
    return evolve(
        parameters,
        settings=settings,
        families=parameters.families | {"snapshots"},
        faulty_kinds=(*parameters.faulty_kinds, *SNAPSHOT_KINDS),
        kept_slots=rng.choice((0, 0, 3, 20)),
    )


def with_priority(rng: random.Random, parameters: Parameters) -> Parameters:
    """The parameters of a profile with hand-overs: in some seeds servers are preferred (`priority`). `rng` serves this
    parameter alone."""
    ids = parameters.ids
    priority = tuple(rng.sample(ids, rng.choice((0, 0, 1, min(2, len(ids)), len(ids)))))
    return evolve(parameters, settings=evolve(parameters.settings, priority=priority))


def with_members(rng: random.Random, parameters: Parameters) -> Parameters:
    """The parameters, changed for a run that changes the membership: more time; ids for servers that come later, which
    stand before, between and behind those of the founders; and users that go to any server. `rng` serves these
    parameters alone."""
    taken, joiners = set(parameters.ids), list[int]()
    for _ in range(JOINERS):
        highest = max(taken)
        free = [i for i in range(min(SERVER_ID_MAX, highest + 3) + 1) if i not in taken]
        joiners.append(rng.choice(free))
        taken.add(joiners[-1])
    return evolve(
        parameters, joiners=tuple(joiners), home_servers=frozenset(taken), seconds=parameters.seconds + MORE_SECONDS
    )


def with_added_members(rng: random.Random, parameters: Parameters) -> Parameters:
    """The parameters of a profile that does not change the membership by itself, changed as by `with_members`, with the
    family `members`, and in most seeds hand-overs."""
    added = {"members", *(["hand_overs"] if rng.random() < SHARE_OF_HAND_OVERS else [])}
    changing = {**parameters.changing_settings, "rules": (2,)} if parameters.changing_settings else {}
    changed = evolve(parameters, families=parameters.families | added, changing_settings=changing)
    return with_members(rng, changed)


def families_left_out(rng: random.Random, profile: Profile) -> frozenset[str]:
    """The families that a seed of a profile which changes the membership leaves out: each in a quarter of the seeds."""
    return frozenset(family for family in profile.families if family != "members" and rng.random() < 0.25)


def _within_reach(parameters: Parameters) -> Parameters:
    """Reduce the load on a cluster that can order so little that its users might never be served.

    A user that has waited too long for a result repeats its command, and each repetition can be a further update. That
    is too much for two kinds of clusters:

    - The Update_Queue has room for one update only, so most updates find it full and wait for their Update_Timers. In
      such a cluster, servers wait at least four times that timer for a result (`request_seconds`) before they refuse a
      command, and its user repeats it.
    - The leader orders one small batch after the other, with a slow disk. It is not suspected, however slow it is,
      since it makes progress. Such a cluster has at most four users.
    """
    settings, limits, users = parameters.settings, parameters.limits, parameters.users
    if settings.queue_updates_max == 1:
        limits = evolve(limits, request_seconds=max(limits.request_seconds, 4 * settings.update_seconds))
    if settings.window_slots == 1 and settings.batch_bytes_max <= 200 and parameters.sync_seconds[1] >= 0.2:
        users = min(users, 4)
    return evolve(parameters, limits=limits, users=users, anonymous=min(parameters.anonymous, users))


def _rare_size(rng: random.Random, profile: Profile) -> int | None:
    """Draw a size that few seeds have; None in the other seeds, which have one of the profile's usual sizes."""
    return rng.choice(RARE_SIZES) if rng.random() < profile.share_of_rare_sizes else None


def _ids(rng: random.Random, servers: int) -> tuple[int, ...]:
    """Draw the ids of the servers: in most seeds from 0 on without a gap, in others any that a configuration file may
    have."""
    if rng.random() >= SHARE_OF_IDS_WITH_GAPS:
        return tuple(range(servers))
    return tuple(sorted(rng.sample(range(rng.choice(IDS_MAX) + 1), servers)))


def _home_servers(rng: random.Random, ids: tuple[int, ...]) -> frozenset[int]:
    return frozenset(rng.sample(ids, min(len(ids), rng.choice((1, 2, len(ids), len(ids))))))


def _vocabulary(rng: random.Random, profile: Profile) -> Vocabulary:
    drawn = Vocabulary(keys=rng.choice((1, 2, 4)), locks=rng.choice((1, 2)), share_of_locks=rng.choice((0.1, 0.4)))
    return evolve(drawn, **profile.vocabulary)


def draw_link_quality(rng: random.Random) -> LinkQuality:
    """Draw one link quality: delays, and chances of loss, duplication and reordering."""
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


def _lasting(rng: random.Random, profile: Profile, servers: int) -> dict[type[Message], MessageFault]:
    """Draw the faults that messages of some kinds suffer from the beginning to the end of the run.

    Every delay is shorter than a Progress_Timer that has doubled a few times, whatever its default, so that leaders can
    still order updates before they are suspected.
    """
    faults: dict[type[Message], MessageFault] = {kind: MessageFault(loss=1.0) for kind in profile.never}
    faults |= {kind: MessageFault(loss=_loss_of_half_the_rounds(servers)) for kind in profile.seldom}
    if profile.lasting:
        longest = rng.choice((0.02, 0.1, 0.3))
        faults |= dict.fromkeys((rng.choice(profile.lasting), *profile.late), MessageFault((longest / 2, longest)))
    return faults


def _loss_of_half_the_rounds(servers: int) -> float:
    """The loss at which half of the rounds of a bare majority are complete, whatever the size of the cluster.

    A round is one message from each server that a majority needs besides the receiver. In a cluster of three, where a
    round is one message, the loss is one half. If it were one half at each size, a majority that has four servers would
    rarely get all its votes within a Progress_Timer of one second, would change its view all the time, and would order
    less than the users ask for.
    """
    messages = max(1, servers // 2)
    return float(1 - 0.5 ** (1 / messages))


def _families(rng: random.Random, profile: Profile) -> frozenset[str]:
    on = [family for family in FAMILIES if rng.random() < 0.75]
    return frozenset(on if profile.is_mixed else profile.families)


def draw_settings(rng: random.Random, given: Mapping[str, Any]) -> Settings:
    """Draw settings with small windows, short timers, and few slots kept in memory, so that runs reach the limits.
    `given` has the settings that are not drawn here, by name."""
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
        snapshot_slots=0,
    )
    return evolve(drawn, **given)


def _limits(rng: random.Random) -> Limits:
    return Limits(
        connections=rng.choice((2, 100)),
        session_window=rng.choice((1, 2, 8, 128)),
        request_seconds=rng.choice((0.5, 2.0, 10.0)),
    )


def _user_profile(rng: random.Random, limits: Limits, are_careless: bool) -> UserProfile:
    calm = UserProfile(
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
