"""The settings of the protocol: times are in seconds, sizes in bytes, windows in slots."""

from __future__ import annotations

from attrs import frozen


@frozen
class Settings:
    """The constants of the protocol at one server: not the settings of the cluster, which are ordered."""

    progress_seconds: float = 1.0
    """How long, in seconds, a server waits for global progress before it suspects the leader: the Progress_Timer's
    default."""
    progress_doublings_max: int = 3
    """Maximum number of doublings of the Progress_Timer, up to progress_seconds * 2**progress_doublings_max
    (Departure 28)."""
    update_seconds: float = 0.5
    """How long, in seconds, an update may wait to be executed before it is sent again, while no times are measured: the
    Update_Timer's length at first (Departure 49)."""
    alive_seconds: float = 0.2
    """Time, in seconds, from one ALIVE of a server to its next; a VC_PROOF goes with each."""
    resend_seconds: float = 0.1
    """How long, in seconds, a PREPARE, a PROPOSAL or a VIEW_CHANGE may have no effect before it is sent again, while no
    times are measured (Departure 49)."""
    lazy_seconds: float = 0.01
    """How long, in seconds, an ACCEPT may wait for another frame to travel in (Departure 25); with 0 no ACCEPT
    waits.
    """
    disk_seconds: float = 8.0
    """How long, in seconds, a write to disk may be under way before the disk counts as one that hangs (Departure
    44).
    """
    reconciliation_seconds: float = 0.25
    """How long, in seconds, one peer may take to answer a reconciliation request before another is asked, while no
    times are measured (Departure 49)."""
    window_slots: int = 16
    """Maximum number of proposals under way at once (section 5.10, Departure 20)."""
    batch_bytes_max: int = 48_000
    """Maximum encoded bytes of the updates in one proposal; a single update may be larger, up to a frame."""
    frame_data_bytes_max: int = 50_000
    """Maximum number of bytes of batches in one part of a PREPARE_OK, or in one reconciliation reply."""
    queue_updates_max: int = 20_000
    """Maximum length of the Update_Queue; beyond it the leader takes only its own clients' updates (Departure 30)."""
    history_slots_kept: int = 1_024
    """Number of ordered slots kept in memory below Local_Aru; older ones are read from disk."""
    horizon_slots: int = 100_000
    """Number of slots after its `made_at` in which an update may still be executed (Departure 7)."""
    digests_kept: int = 100_000
    """Number of executed slots, the latest ones, whose digest a client can ask for by DIGEST."""
    priority: tuple[int, ...] = ()
    """Ids of the servers that shall lead if they can, the most preferred one first (Departure 59)."""
    snapshot_slots: int = 10_000
    """Maximum number of slots from one snapshot to the next (Departure 56); 0: snapshots are only taken when one is
    asked for."""
