"""Departure 38: slots that are passed, because no server can execute them.

Executing is total (Departure 37), but an application, or a library below it, may fail in a way that stops a server: on
every server, at the same slot, and again at every start. Only an operator can decide then that the slot is left out.
With every server stopped, `pfsb pass SEQ --digest HEX` notes in each data directory that slot SEQ, whose batch has this
digest, is passed: its updates count as executed, and change nothing.

Why safe: the list of passed slots decides results, so it must be the same at all servers. Each frame carries the digest
of the sender's list (`FrameIdentity.passes`), and servers with different lists refuse each other's frames. As long as a
majority has the old list and the others the new one, only one of the two groups can order anything. The digest of the
batch makes sure that the slot is left out only with the batch that was looked at: with another batch, which a later
view may have chosen if the first was on too few disks, all servers execute it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

import msgpack

DIGEST_BYTES: Final = 8
NONE: Final = bytes(DIGEST_BYTES)
"""The pass digest of a server that passes no slot."""
_PERSON: Final = b"pfsb pass"
"""Personalisation of BLAKE2b: digests of passed slots differ from hashes of the same bytes that serve another
purpose."""


def batch_digest(data: bytes) -> bytes:
    """Digest, of eight bytes, of the batch with these encoded bytes."""
    return blake2b(data, digest_size=DIGEST_BYTES, person=_PERSON).digest()


def list_digest(passes: Mapping[int, bytes]) -> bytes:
    """Digest, of eight bytes, of a list of passed slots (slot -> digest of its batch); zeros for an empty list."""
    if not passes:
        return NONE
    return blake2b(msgpack.packb(sorted(passes.items())), digest_size=DIGEST_BYTES, person=_PERSON).digest()
