"""CheckedPayloads: the bundles of payloads that were checked, kept until they are executed.

A server checks an update when it takes it from another server, and executes it a little later. The check decodes the
payload, so its result is kept: each payload is decoded once, and checked once, however many messages bring it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, field

from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle

KEPT_BYTES_MAX: Final = 4_000_000
"""Maximum bytes of the payloads whose bundles are kept. At the limit all of them are dropped, so that payloads which
are never executed do not pile up; a dropped payload is decoded again when it is executed."""


@define
class CheckedPayloads:
    """Keeps the bundles of each checked payload, so that they need not be decoded again when it is executed."""

    _bundles: dict[bytes, Sequence[Bundle]] = field(factory=dict)
    _bytes: int = 0

    def check(self, payload: bytes) -> bool:
        """Whether the payload is valid. The bundles of a valid one are kept for `take`."""
        if payload in self._bundles:
            return True
        bundles = bundle.decode(payload)
        if bundles is None:
            return False
        self._bytes += len(payload)
        if self._bytes > KEPT_BYTES_MAX:
            self._bundles.clear()
            self._bytes = len(payload)
        self._bundles[payload] = bundles
        return True

    def take(self, payload: bytes) -> Sequence[Bundle] | None:
        """The bundles of a payload that is executed now, which are kept no longer; None if the payload is not valid."""
        bundles = self._bundles.pop(payload, None)
        if bundles is None:
            return bundle.decode(payload)
        self._bytes -= len(payload)
        return bundles
