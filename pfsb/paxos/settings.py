"""The numbers of the protocol. Times in seconds, sizes in bytes, windows in slots."""

from __future__ import annotations

from attrs import frozen


@frozen
class Settings:
    progress_seconds: float = 1.0
    """Progress_Timer: how long a server waits for global progress before it suspects the leader."""
    progress_doublings_max: int = 3
    """The timer's value is at most progress_seconds * 2**this."""
    update_seconds: float = 0.5
    """Update_Timer: when a client's update is sent again."""
    alive_seconds: float = 0.2
    """How often ALIVE and VC_PROOF go out."""
    resend_seconds: float = 0.1
    """When a PREPARE, a PROPOSAL or a VIEW_CHANGE that had no effect is sent again."""
    lazy_seconds: float = 0.01
    """How long an ACCEPT may wait for a frame to travel with (Departure 25); 0: not at all."""
    reconciliation_seconds: float = 0.25
    """How long one peer may take to answer a reconciliation request before another is asked."""
    window_slots: int = 16
    """Proposals under way at once (section 5.10)."""
    batch_bytes_max: int = 48_000
    """Encoded bytes of the updates in one proposal; a single update may be larger, up to a frame."""
    frame_data_bytes_max: int = 50_000
    """Batch bytes in one PREPARE_OK part or reconciliation reply."""
    queue_updates_max: int = 20_000
    """Updates of other servers' clients that a leader keeps waiting; more are dropped, and sent again."""
    history_slots_kept: int = 1_024
    """Ordered slots kept in memory below Local_Aru; older ones are read from disk."""
    horizon_slots: int = 100_000
    """An update is valid for so many slots after the Local_Aru at which it was made (design part 5)."""
    digests_kept: int = 100_000
    """For how many slots back DIGEST can answer."""
