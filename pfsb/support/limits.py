"""Limits of numbers and identities that several layers must agree on."""

from __future__ import annotations

from typing import Final

NUMBER_MAX: Final = 2**63 - 1
"""Largest integer that messages, the storage and command numbers may have: the largest signed one of 64
bits."""
SERVER_ID_MAX: Final = 65_535
"""Largest id of a server: frames have 16 bits for it."""
IDENTITY_BYTES: Final = 8
"""Length, in bytes, of a storage's random identity; it shows servers that a peer has lost its disk (Departure 12)."""
START_MARK_BYTES: Final = 4
"""Length, in bytes, of the random mark of a start of a server; it tells the starts of two copies of a data directory
apart (Departure 53)."""
CLIENT_ID_CHARS_MAX: Final = 300
"""Maximum characters of the name of a Paxos client, and of the client id of a session."""
PAYLOAD_BYTES_MAX: Final = 56_000
"""Largest payload, in bytes, of an update: a batch of one such update is no larger than `BATCH_BYTES_MAX`."""
BATCH_BYTES_MAX: Final = 58_000
"""Largest encoded batch, in bytes. Every message that may have to carry the batch fits into a frame, whatever its
numbers are: a batch that has once been accepted is told to new leaders, proposed again, and sent to servers that lack
it."""
PIECE_BYTES: Final = 65_536
"""Size of the data of a piece of a snapshot, in bytes, at which a piece that is made row by row is complete."""
PIECE_BYTES_MAX: Final = 16 * 1_048_576
"""Maximum size of the data of one piece of a snapshot, in bytes."""
TIME_MS_MAX: Final = 253_402_300_799_999
"""Latest time, in milliseconds since 1970, that a batch may carry: the end of the year 9999 (UTC).

Times that are computed from it, such as the deadline of a wait, stay far below `NUMBER_MAX`.
"""
TIME_STEP_MS_MAX: Final = 3_600_000
"""Maximum milliseconds by which one slot advances the state machine's time, once that is above 0: one hour (Departure
35). A batch whose time is further ahead advances it by this much, so one wrong message cannot end all waits of the
future. While something waits for a time, the leader orders the time much more often than that."""
WINDOW_MAX: Final = 1_000
"""Largest window that the settings of a cluster may have: proposals under way at once."""
SLOT_MAX: Final = 2**53
"""Highest sequence number that a message may name: a million slots a second for 285 years."""
VIEW_MAX: Final = 2**32 - 1
"""Highest view: 2**32 - 1. Larger numbers are reserved for a later version of pfsb in which the members of a cluster
can change."""
TTL_SECONDS_MAX: Final = 3_600
"""Maximum time to live of a session, in seconds, that a client may ask for."""
CLIENT_ID_CHARACTERS_MAX: Final = 64
"""Maximum characters of a client id that a client may give itself."""
SNAPSHOT_SECONDS_MAX: Final = 3_600
"""Maximum time, in seconds, for which a client may wait for a snapshot that it has asked for."""


def server_id_of(text: str) -> int | None:
    """The id of a server that a person or a client has written in digits; None: the text is no such id."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(SERVER_ID_MAX))):
        return None
    server_id = int(text)
    return server_id if server_id <= SERVER_ID_MAX else None
