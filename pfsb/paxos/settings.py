"""The numbers of the protocol. Times in seconds, sizes in bytes, windows in slots."""

from __future__ import annotations

from attrs import frozen


@frozen
class Settings:
    progress_seconds: float = 1.0
    """How long a server waits for global progress before it suspects the leader: the Progress_Timer's default."""
    progress_doublings_max: int = 3
    """Maximum doublings of the Progress_Timer, up to progress_seconds * 2**this (Departure 28)."""
    update_seconds: float = 0.5
    """How long an update may wait before it is sent again: the Update_Timer."""
    alive_seconds: float = 0.2
    """How often ALIVE and VC_PROOF go out."""
    resend_seconds: float = 0.1
    """How long a PREPARE, a PROPOSAL or a VIEW_CHANGE may have no effect before it is sent again."""
    lazy_seconds: float = 0.01
    """How long an ACCEPT may wait for a frame to travel with (Departure 25); 0: not at all."""
    reconciliation_seconds: float = 0.25
    """How long one peer may take to answer a reconciliation request before another is asked."""
    window_slots: int = 16
    """Maximum number of proposals under way at once (section 5.10, Departure 20)."""
    batch_bytes_max: int = 48_000
    """Maximum encoded bytes of the updates in one proposal; a single update may be larger, up to a frame."""
    frame_data_bytes_max: int = 50_000
    """Maximum batch bytes in one PREPARE_OK part or reconciliation reply."""
    queue_updates_max: int = 20_000
    """Maximum length of the Update_Queue for updates of other servers (Departure 30)."""
    history_slots_kept: int = 1_024
    """Number of ordered slots kept in memory below Local_Aru; older ones are read from disk."""
    horizon_slots: int = 100_000
    """Number of slots after the Local_Aru at which an update was made for which it is valid (Departure 7)."""
    digests_kept: int = 100_000
    """Number of slots back for which DIGEST can answer."""
