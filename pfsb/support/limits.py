"""Limits of numbers and identities that several layers must agree on."""

from __future__ import annotations

from typing import Final

NUMBER_MAX: Final = 2**63 - 1
"""Largest integer that messages, the storage and command numbers may have: the largest that SQLite stores."""
SERVER_ID_MAX: Final = 65_535
"""Largest id of a server: frames have 16 bits for it."""
IDENTITY_BYTES: Final = 8
"""Length, in bytes, of a storage's random identity; it shows servers that a peer has lost its disk (Departure 12)."""
