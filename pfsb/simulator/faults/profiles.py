"""The profiles of random runs. A profile says from which faults, sizes and users its seeds draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from pfsb.paxos.messages import (
    Accept,
    Alive,
    ClientUpdate,
    Confirm,
    Confirmed,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    VCProof,
    ViewChange,
)

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
    "confusion",
)
"""Families of faults: groups of kinds that are switched on and off together. In the mixed profile, each is off in a
quarter of the seeds, independently of the others."""

ALL_FAMILIES: Final = (
    *FAMILIES,
    "promises",
    "lost_disks",
    "heirs",
    "crash_loops",
    "memory",
    "repeats",
    "slips",
    "dice",
    "paths",
    "names",
    "disk_troubles",
    "old_copies",
    "copies",
    "snapshots",
    "hand_overs",
    "members",
)
"""All families of faults, including those that only certain profiles have."""

ALL_FAULTY_KINDS: Final = (
    Prepare,
    PrepareOK,
    Proposal,
    Accept,
    ClientUpdate,
    ViewChange,
    VCProof,
    Alive,
    ReconciliationReply,
)
SNAPSHOT_KINDS: Final = (SnapshotOffer, SnapshotRequest, SnapshotPart, SnapshotPart)
"""Kinds of messages that faults may delay or lose as well, in runs with snapshots."""
ALL_PARTITIONS: Final = ("split", "isolate", "star", "chain", "one_way", "mute_leader", "one_by_one")


@frozen
class Profile:
    """The choices from which the seeds of one kind of random runs draw."""

    help: str
    families: tuple[str, ...] = ()
    """Families of faults that are switched on in every seed."""
    partitions: tuple[str, ...] = ALL_PARTITIONS
    servers: tuple[int, ...] = (3, 3, 4, 5)
    share_of_rare_sizes: float = 1 / 16
    """Share of the seeds with six or eight servers, which take longer than those of the usual sizes."""
    is_mixed: bool = False
    """Whether chance chooses the families: each of `FAMILIES` is switched on in three quarters of the seeds,
    independently of the others. The field `families` is then not used."""
    faulty_kinds: tuple[type[Message], ...] = ALL_FAULTY_KINDS
    """Kinds of messages that faults may delay or lose."""
    lasting: tuple[type[Message], ...] = ()
    """Kinds of messages from which each seed draws one, whose messages are late from the beginning to the end."""
    late: tuple[type[Message], ...] = ()
    """Kinds of messages that are always as late as the kind that is drawn from `lasting`."""
    never: tuple[type[Message], ...] = ()
    """Kinds of messages that never arrive."""
    seldom: tuple[type[Message], ...] = ()
    """Kinds of messages that are lost so often, from the beginning to the end, that half of the rounds are not whole.

    A round is one message from each server that a majority needs besides the receiver.
    """
    socket_frames: tuple[int, ...] = ()
    """Numbers of frames from which a seed draws the size of each server's socket buffer; empty: the sockets have no
    buffers, and no frame is lost there."""
    users: tuple[int, ...] = (2, 4, 6)
    onlookers: int = 0
    """Number of users that send no HELLO and only read while faults happen."""
    settings: Mapping[str, tuple[Any, ...]] = field(factory=dict)
    """Name of a setting -> the values from which a seed draws it, instead of the values that all profiles share."""
    user_profile: Mapping[str, Any] = field(factory=dict)
    """Name of a field of the users' `UserProfile` -> its fixed value; the other fields are drawn."""
    vocabulary: Mapping[str, Any] = field(factory=dict)
    """Name of a field of the users' `Vocabulary` -> its fixed value; the other fields are drawn."""
    faults_per_second: tuple[float, ...] = (0.5, 1.5, 3.0)
    patience_seconds: float = 60.0
    """How long, in seconds, a healed majority may take to serve every user.

    The time is enough for some elections with the longest Progress_Timer.
    """
    slowness: float = 1.0
    """Factor by which a run waits longer for whatever it waits for (an election, the end of its clients), because the
    Progress_Timer of the profile is so much longer than one second."""
    ends_in_shape: bool = False
    """Whether links stay cut in one of the shapes of `partitions` while only a majority is healed.

    The links between the servers of this majority are whole.
    """
    leaves_broken: bool = True
    """Whether only a majority is healed first, when the faults are over; otherwise all servers are healed at once."""
    drills: int = 2
    """Number of liveness drills at the end of a run (`pfsb.simulator.runs.liveness_drills`)."""
    has_small_quotas: bool = False
    """Whether every seed draws quotas of the replicated state that users soon reach; otherwise one in five does."""
    has_changing_settings: bool = False
    """Whether settings differ and change: the configuration file of a server may have other values than those of the
    other servers, and others at each start; and operators change the settings of the cluster."""
    has_idle_hour: bool = False
    """Whether an idle hour follows the drills (`pfsb.simulator.runs.idle_hour`)."""
    has_pace_drills: bool = False
    """Whether the run ends with measurements on slow disks and lossy links (`pfsb.simulator.runs.pace_drills`)."""
    has_later_views: bool = False
    """Whether the drills are those of `pfsb.simulator.runs.view_drills`: servers are brought into later views."""
    has_servers_without_runs: bool = False
    """Whether every second server executes all commands one by one, as an older version would."""
    has_snapshots: bool = False
    """Whether servers take snapshots often, and drop most of the slots below them. Any other profile does the same with
    `Plan.snapshots`."""
    has_hand_overs: bool = False
    """Whether the drills are those of `pfsb.simulator.runs.hand_over_drills`, and some seeds prefer servers."""
    has_changing_members: bool = False
    """Whether servers are added, removed, moved and replaced, the drills are those of
    `pfsb.simulator.runs.membership_drills`, and each family but this one is left out in a quarter of the seeds. With
    `Plan.members` the members of most other profiles change, too (`why_members_stay`)."""
    has_sessions: bool = True
    """Whether the servers have sessions; otherwise they are the protocol alone, with clients as in the paper."""

    @property
    def clears_up(self) -> bool:
        """Whether the servers have sessions, and no messages stay late or lost until the end of the run.

        Then the timers say how soon things must happen when all is healed, so the run ends with liveness drills.
        """
        return self.has_sessions and not (self.lasting or self.late or self.never or self.seldom or self.socket_frames)

    @property
    def why_members_stay(self) -> str | None:
        """Why the membership cannot change in runs of this profile; None: it can."""
        if not self.has_sessions:
            return "its servers are the protocol alone, and changes are asked of whole servers"
        if ReconciliationReply in self.never:
            return "no server is told again what was ordered, so none could learn it"
        return None


def _lopsided(help: str, *shapes: str) -> Profile:
    """Make a profile in which links are cut in these shapes, and stay cut while only a majority is healed.

    `patience_seconds` is shorter than usual: a majority with whole links between its servers must serve its users soon,
    whatever links it has to the other servers.
    """
    return Profile(help, ("partitions",), shapes, patience_seconds=30.0, ends_in_shape=True)


_QUICK_READERS: Final = {"pipeline": 1, "think_seconds": 0.03, "batching_seconds": 0.0, "rhythm_seconds": 0.0}
"""Value of `Profile.user_profile` for users that send one request at a time, soon after the last answer, and not in
step with each other.

With such users, many reads begin while a request for a read index, or a round of CONFIRM, is under way for earlier
reads. The new reads must not use that request or round, and wait for the next one (Departure 24).
"""

_BUSY: Final = {"think_seconds": 0.03, "rhythm_seconds": 0.0}
"""Value of `Profile.user_profile` for users that ask for so much that a server which is away soon lacks many slots."""
_LARGE_FRAMES: Final = {
    "window_slots": (4, 16),
    "batch_bytes_max": (48_000,),
    "frame_data_bytes_max": (50_000,),
    "queue_updates_max": (20_000,),
}
_SHORT_PARTS: Final = {"frame_data_bytes_max": (60, 200), "window_slots": (4, 16), "batch_bytes_max": (1, 200)}
"""Value of `Profile.settings` by which a snapshot has so many parts that it takes a while to fetch one."""

PROFILES: Final[Mapping[str, Profile]] = {
    "mixed": Profile("all kinds of trouble", servers=(1, 2, 3, 3, 3, 3, 4, 5, 5, 7, 9), is_mixed=True),
    "calm": Profile("no trouble at all", servers=(1, 2, 3, 4, 5)),
    "lossy": Profile("links that lose, delay, repeat and reorder", ("network",)),
    "partitions": Profile("links that are cut, in every shape", ("partitions",)),
    "star": _lopsided("all links but those of one server that does not lead are cut", "star"),
    "chain": _lopsided("each server reaches two others at most", "chain"),
    "one-way": _lopsided("links that carry one way", "one_way", "mute_leader"),
    "deaf": _lopsided("servers that the others hear, and that hear no other", "deaf", "deaf", "deaf_leader"),
    "crashes": Profile("servers die, in the middle of a turn, too, and start again", ("crashes", "pauses")),
    "disks": Profile("disks that are slow, fail or are full, and crashes", ("disks", "crashes")),
    "disk-troubles": Profile(
        "disks that hang and come back, that are full and have room again, that take seconds, and crashes",
        ("disk_troubles", "crashes"),
        servers=(1, 2, 3, 3, 4, 5),
        settings={"disk_seconds": (0.5, 1.0, 2.0)},
        drills=4,
        faults_per_second=(0.3, 1.0),
    ),
    "clocks": Profile("clocks that run fast or slow, or jump", ("clocks", "crashes")),
    "drills": Profile("some crashes; then, when all is well, one thing after the other", ("crashes",), drills=7),
    "idle": Profile(
        "some crashes; then, when all is well, an hour in which nothing is asked for, and a new leader",
        ("crashes",),
        users=(2,),
        # A heartbeat every second or more: with those of other profiles an hour would take a minute.
        settings={"progress_seconds": (5.0,)},
        slowness=5.0,
        drills=1,
        has_idle_hour=True,
    ),
    "pace": Profile(
        "some crashes; then slow disks, lossy links and deaths of leaders, and how fast the protocol is",
        ("crashes",),
        servers=(3, 3, 5),
        settings={
            "progress_seconds": (1.0,),
            "update_seconds": (0.5,),
            "alive_seconds": (0.2,),
            "resend_seconds": (0.1,),
            "lazy_seconds": (0.01,),
            "reconciliation_seconds": (0.25,),
            "window_slots": (16,),
            "batch_bytes_max": (48_000,),
            "frame_data_bytes_max": (50_000,),
            "queue_updates_max": (20_000,),
            "history_slots_kept": (1_024,),
            "horizon_slots": (100_000,),
        },
        faults_per_second=(0.5,),
        has_pace_drills=True,
        has_sessions=False,
    ),
    "clients": Profile("users who hang up, come back, use two connections, and crashes", ("clients", "crashes")),
    "quotas": Profile(
        "users who soon have all that they may have, hang up, come back and ask again, and crashes",
        ("clients", "crashes"),
        users=(4, 6, 8),
        has_small_quotas=True,
    ),
    "runs": Profile(
        "users who send many PUTs at once, soon have all that they may have, and come back; servers without memory",
        ("clients", "crashes", "memory", "repeats"),
        users=(2, 4, 6),
        # A period in which as many requests come together as a user has under way.
        user_profile={"pipeline": 8, "think_seconds": 0.03, "batching_seconds": 0.5, "rhythm_seconds": 0.0},
        vocabulary={"share_of_puts": 0.9, "share_of_reads": 0.02, "share_of_locks": 0.02, "share_of_local_reads": 0.05},
        faults_per_second=(0.5, 1.5),
        has_small_quotas=True,
    ),
    "crowds": Profile(
        "many users who send one PUT each at the same moments, and come back; servers without memory",
        ("clients", "crashes", "memory", "repeats"),
        users=(8, 12),
        user_profile={"pipeline": 1, "think_seconds": 0.03, "batching_seconds": 0.25, "rhythm_seconds": 0.0},
        vocabulary={"share_of_puts": 0.95, "share_of_reads": 0.01, "share_of_locks": 0.02, "share_of_local_reads": 0.0},
        faults_per_second=(0.5, 1.5),
    ),
    "medleys": Profile(
        "users who send PUTs, lines for the chat and other commands in one bundle, under small quotas, and come back",
        ("clients", "crashes", "memory", "repeats"),
        users=(2, 4, 6),
        user_profile={"pipeline": 12, "think_seconds": 0.02, "batching_seconds": 0.5, "rhythm_seconds": 0.0},
        vocabulary={
            "share_of_puts": 0.7,
            "share_of_lines": 0.45,
            "share_of_reads": 0.1,
            "share_of_locks": 0.02,
            "share_of_local_reads": 0.02,
        },
        faults_per_second=(0.5, 1.5),
        has_small_quotas=True,
        has_servers_without_runs=True,
    ),
    "choirs": Profile(
        "many users who say some lines each at the same moments, and come back; servers without memory",
        ("clients", "crashes", "memory", "repeats"),
        users=(8, 12),
        user_profile={"pipeline": 3, "think_seconds": 0.03, "batching_seconds": 0.25, "rhythm_seconds": 0.0},
        vocabulary={
            "share_of_lines": 0.95,
            "share_of_reads": 0.01,
            "share_of_locks": 0.02,
            "share_of_local_reads": 0.0,
        },
        faults_per_second=(0.5, 1.5),
        has_small_quotas=True,
        has_servers_without_runs=True,
    ),
    "conditions": Profile(
        "users whose commands run only if a key has a certain revision, who come back, and crashes",
        ("clients", "crashes", "memory", "repeats"),
        users=(3, 5),
        vocabulary={"keys": 2, "share_of_conditions": 0.7, "share_of_reads": 0.3, "share_of_locks": 0.02},
        faults_per_second=(0.5, 1.5),
    ),
    "moods": Profile("messages of one kind that are late or lost", ("moods", "crashes"), lasting=ALL_FAULTY_KINDS),
    "late-prepare": Profile(
        "a PREPARE is always late, and overtaken by proofs of its view",
        lasting=(Prepare,),
        settings={"progress_seconds": (1.0,), "alive_seconds": (0.02,), "resend_seconds": (0.3,)},
    ),
    "told": Profile(
        "five servers or more; what the leader tells as ordered is late or lost, overtakes its proposals, or is wrong",
        ("network", "moods", "partitions", "crashes", "confusion"),
        servers=(5, 5, 5, 7, 7, 9),
        faulty_kinds=(Ordered, Ordered, Proposal, Accept, Alive, ReconciliationReply),
        lasting=(Ordered, Proposal),
        users=(2, 4),
        settings={"progress_seconds": (1.0,)},
        faults_per_second=(0.5, 1.5),
    ),
    "told-once": Profile(
        "five servers; what the leader tells overtakes its proposals, and no server is told again what was ordered",
        servers=(5,),
        lasting=(Proposal,),
        never=(ReconciliationReply,),
        settings={"progress_seconds": (1.0,)},
        leaves_broken=False,
    ),
    "overtaking": Profile(
        "votes overtake their proposals, and no server is told again what was ordered",
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
    "buffers": Profile(
        "socket buffers that hold a few frames or one, promises in many parts, and leaders that die",
        ("promises", "crashes"),
        socket_frames=(1, 2, 4, 4),
        servers=(3, 3, 4, 5, 7, 9),
        users=(6, 8),
        settings={
            "batch_bytes_max": (1,),
            "frame_data_bytes_max": (60, 200),
            "window_slots": (16,),
            "progress_seconds": (1.0,),
            "resend_seconds": (0.1, 0.3),
        },
        faults_per_second=(1.5, 3.0),
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
        user_profile=_QUICK_READERS,
        vocabulary={"keys": 1, "share_of_reads": 0.6, "share_of_locks": 0.02},
        settings={"progress_seconds": (1.0,), "update_seconds": (0.5, 1.0), "alive_seconds": (0.05, 0.2)},
        faults_per_second=(0.3,),
    ),
    "keyholes": Profile(
        "servers that others hear for some purposes and for no other, clocks that differ, and many who only read",
        ("clocks", "partitions", "crashes"),
        ("keyhole", "keyhole_of_leader", "keyhole_of_leader", "isolate_leader"),
        servers=(3, 3, 5),
        users=(14, 20),
        onlookers=12,
        user_profile={**_QUICK_READERS, "patience_seconds": 3.0, "ttl_seconds": 5},
        vocabulary={"keys": 1, "share_of_reads": 0.0, "share_of_locks": 0.02},
        settings={"progress_seconds": (1.0,), "update_seconds": (0.5, 1.0), "alive_seconds": (0.05, 0.2)},
        faults_per_second=(0.3,),
    ),
    "late-answers": Profile(
        "what is said about reads is late, servers hear little or die again at once, and readers move about",
        ("partitions", "crash_loops"),
        ("keyhole",),
        lasting=(ReadIndex, Confirm, Confirmed),
        servers=(3,),
        users=(19, 22),
        onlookers=16,
        user_profile={**_QUICK_READERS, "patience_seconds": 3.0, "ttl_seconds": 1, "leaves": 0.1},
        vocabulary={"keys": 1, "share_of_reads": 0.0, "share_of_locks": 0.02},
        settings={"progress_seconds": (1.0,), "update_seconds": (0.5, 1.0), "alive_seconds": (0.05, 0.2)},
        faults_per_second=(0.3, 1.0),
    ),
    "lost-disks": Profile("servers, never a majority, that come back with an empty disk", ("lost_disks", "crashes")),
    "heirs": Profile(
        "servers that come back with an empty disk and hear a leader that was deposed, while no other hears them",
        ("heirs", "partitions", "clocks"),
        ("isolate_leader",),
        servers=(3,),
        users=(2, 4),
        user_profile={"pipeline": 1, "think_seconds": 0.5, "rhythm_seconds": 0.0},
        # A server with an empty disk has the Local_Aru 0, and sends no ACCEPT for a slot above two windows. It can do
        # harm only while few slots are used, so the windows are large and the users few and slow.
        settings={"progress_seconds": (1.0, 2.0), "window_slots": (16,), "batch_bytes_max": (48_000,)},
        faults_per_second=(1.5, 3.0),
    ),
    "old-copies": Profile(
        "servers, never a majority, that come back with an older copy of their disk, or one whose log was cut",
        ("old_copies", "crashes"),
    ),
    "copies": Profile(
        "servers, never a majority, that start with a copy from before a start, or lose the end of their log",
        ("copies", "network"),
        servers=(3, 3, 4, 5, 7),
        faults_per_second=(0.3, 1.0),
    ),
    "memory": Profile("applications that run out of memory, or of stack, inside a command", ("memory", "crashes")),
    "takeovers": Profile(
        "servers that are not heard for a while, and users who go to another one and ask for the same lock there",
        ("partitions", "clients"),
        ("one_way", "one_way", "isolate"),
        servers=(3,),
        users=(3, 4),
        user_profile={
            "patience_seconds": 0.5,
            "think_seconds": 0.1,
            "pipeline": 1,
            "doubles": 0.9,
            "goes_back": 0.2,
            "leaves": 0.05,
            "vanishes": 0.0,
            "ttl_seconds": 5,
            "rhythm_seconds": 0.0,
        },
        vocabulary={"keys": 1, "locks": 1, "share_of_locks": 0.8, "share_of_reads": 0.05, "share_of_local_reads": 0.05},
        settings={"progress_seconds": (1.0,), "update_seconds": (1.0,), "alive_seconds": (0.1, 0.2)},
        faults_per_second=(0.3,),
    ),
    "settings": Profile(
        "servers with different configuration files, settings that change while users work, late copies, and crashes",
        ("crashes", "clients", "network"),
        servers=(3, 3, 4, 5),
        users=(2, 4, 6),
        vocabulary={"keys": 2, "locks": 2, "share_of_locks": 0.4},
        has_changing_settings=True,
    ),
    "slips": Profile(
        "a server executes a slot otherwise than the others, again and again, while servers die",
        ("slips", "crashes", "partitions"),
        ("isolate_leader", "split"),
        servers=(3, 4, 5),
    ),
    "dice": Profile(
        "a server whose applications go wrong by chance, once or after each start, while servers die",
        ("dice", "crashes", "partitions", "pauses", "network", "clients"),
        ("isolate_leader", "split", "one_way"),
        servers=(3, 3, 4, 5, 7),
        faults_per_second=(0.5, 1.5),
    ),
    "paths": Profile(
        "links that drop fragments and large datagrams, carry less or more from time to time, and have short queues",
        ("paths", "network", "crashes"),
        settings=_LARGE_FRAMES,
        vocabulary={"long_values_bytes": 20_000},
    ),
    "confused": Profile(
        "servers in error that send wrong messages, damaged frames, and crashes", ("confusion", "crashes", "strangers")
    ),
    "later-views": Profile(
        "some crashes; then servers that are in a later view than the one in which a majority works, or say so",
        ("crashes",),
        servers=(3, 4, 5, 5),
        drills=4,
        has_later_views=True,
    ),
    "hand-overs": Profile(
        "leaders that hand over while messages are late or lost, servers stop, stand still or crash, and links are cut",
        ("hand_overs", "network", "crashes", "partitions", "pauses", "confusion"),
        ("isolate_leader", "split", "one_way"),
        servers=(2, 3, 3, 4, 5),
        faults_per_second=(0.5, 1.5, 3.0),
        drills=4,
        has_hand_overs=True,
    ),
    "rolling": Profile(
        "servers that are stopped in order and started again, and leaders that hand over; nothing else",
        ("hand_overs",),
        servers=(3, 3, 4, 5, 7),
        user_profile={"think_seconds": 0.03},
        drills=6,
        has_hand_overs=True,
    ),
    "membership": Profile(
        "servers that are added, removed, moved and replaced, or come back, amid all kinds of trouble and hand-overs",
        (
            *("members", "hand_overs", "crashes", "network", "moods", "partitions", "pauses", "drains", "disks"),
            *("clients", "clocks", "holes", "lost_disks", "disk_troubles"),
        ),
        servers=(1, 2, 3, 3, 3, 4, 5),
        users=(2, 4),
        faults_per_second=(0.3, 1.0),
        drills=3,
        has_changing_members=True,
        has_snapshots=True,
    ),
    "names": Profile(
        "servers that come back at other addresses, and name servers that are wrong, late or silent, or know no name",
        ("names", "crashes", "strangers"),
        faults_per_second=(0.5, 1.5, 3.0),
    ),
    "moves": Profile(
        "three to nine servers that come back at other addresses, over links that drop fragments and large datagrams",
        ("names", "paths", "network", "crashes", "strangers"),
        servers=(3, 4, 5, 7, 9),
        settings=_LARGE_FRAMES,
        vocabulary={"long_values_bytes": 20_000},
        faults_per_second=(0.5, 1.5, 3.0),
    ),
    "holes": Profile("slots that leaders leave out, one or all of them", ("holes",)),
    "drains": Profile("servers that are stopped in order, and clocks that are set", ("drains", "clocks", "clients")),
    "snapshots": Profile(
        "all kinds of trouble; servers take snapshots often, and drop what they stand for",
        servers=(3, 3, 3, 4, 5, 5, 7, 9),
        is_mixed=True,
        has_snapshots=True,
    ),
    "snapshot-crashes": Profile(
        "snapshots; servers die at any step of taking, fetching and installing one",
        ("crashes",),
        user_profile=_BUSY,
        settings=_SHORT_PARTS,
        faults_per_second=(0.3, 1.0),
        has_snapshots=True,
    ),
    "snapshot-disks": Profile(
        "snapshots; disks that are slow, fail, hang or are full, and crashes",
        ("disks", "disk_troubles", "crashes"),
        user_profile=_BUSY,
        settings={"disk_seconds": (0.5, 1.0, 2.0)},
        faults_per_second=(0.3, 1.0),
        has_snapshots=True,
    ),
    "snapshot-losses": Profile(
        "snapshots in many parts or in large ones, which are lost, late, repeated or larger than links carry; crashes",
        ("network", "moods", "paths", "crashes"),
        faulty_kinds=(ReconciliationReply, Alive, Accept),
        user_profile=_BUSY,
        settings={
            "frame_data_bytes_max": (60, 200, 1_000, 50_000, 50_000),
            "batch_bytes_max": (200, 48_000),
            "window_slots": (4, 16),
        },
        vocabulary={"long_values_bytes": 3_000},
        faults_per_second=(0.5, 1.5),
        has_snapshots=True,
    ),
    "snapshot-late": Profile(
        "snapshots whose parts or offers are always late: meanwhile leaders change and servers take the next snapshot",
        ("crashes", "partitions"),
        ("isolate_leader", "isolate", "split"),
        servers=(3, 3, 3, 5),
        lasting=(SnapshotPart, SnapshotPart, SnapshotOffer),
        user_profile=_BUSY,
        settings=_SHORT_PARTS,
        faults_per_second=(0.3, 1.0),
        has_snapshots=True,
    ),
    "snapshot-settings": Profile(
        "snapshots; servers with different configuration files, settings that change, and crashes",
        ("crashes", "clients"),
        servers=(3, 3, 4, 5),
        users=(2, 4, 6),
        vocabulary={"keys": 2, "locks": 2, "share_of_locks": 0.4},
        has_changing_settings=True,
        has_snapshots=True,
    ),
    "snapshot-lies": Profile(
        "snapshots; servers in error that offer wrong ones and send wrong parts, damaged frames, and crashes",
        ("confusion", "crashes", "strangers"),
        user_profile=_BUSY,
        settings=_SHORT_PARTS,
        faults_per_second=(0.5, 1.5),
        has_snapshots=True,
    ),
    "snapshot-slips": Profile(
        "snapshots; a server executes a slot otherwise than the others, again and again, while servers die",
        ("slips", "crashes", "partitions"),
        ("isolate_leader", "split"),
        servers=(3, 4, 5),
        user_profile=_BUSY,
        faults_per_second=(0.5, 1.5),
        has_snapshots=True,
    ),
    "snapshot-paper": Profile(
        "snapshots and all kinds of trouble, the protocol alone, and clients as the paper has them",
        ("network", "moods", "partitions", "crashes", "holes", "pauses", "clocks", "disks"),
        settings={"horizon_slots": (100_000,)},
        has_snapshots=True,
        has_sessions=False,
    ),
    "paper": Profile(
        "all kinds of trouble, the protocol alone, and clients as the paper has them",
        ("network", "moods", "partitions", "crashes", "holes", "pauses", "clocks", "disks"),
        settings={"horizon_slots": (100_000,)},
        has_sessions=False,
    ),
}
