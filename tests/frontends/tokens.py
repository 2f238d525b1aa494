"""Tokens for tests of the doors: one for each role, whose checks are cheap."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.task import Clock

from pfsb.frontends.rights import ServerRights
from pfsb.frontends.stream.shared_limits import SharedLimits
from pfsb.support.rights import ROLES
from pfsb.support.tokens import KnownToken, make_token

_MADE = {role: make_token(f"the-{role}", right, log2_n=2) for role, right in ROLES.items()}
TOKENS = {role: token for role, (token, _) in _MADE.items()}
"""Role -> a token with that role."""
KNOWN = {known.name: known for _, known in _MADE.values()}
"""Name -> each of these tokens as servers know it."""
WRONG = TOKENS["read"][:-1] + ("A" if TOKENS["read"][-1] != "A" else "B")


class TokenFile:
    """A token file that a test changes."""

    def __init__(self) -> None:
        self.tokens: dict[str, KnownToken] = dict(KNOWN)
        self.error: Exception | None = None

    def read(self) -> dict[str, KnownToken]:
        if self.error is not None:
            raise self.error
        return dict(self.tokens)


def with_tokens(server: Any, clock: Clock, file: TokenFile) -> SharedLimits:
    """The limits of a server that has a token file."""
    return evolve(SharedLimits.of(server, clock), rights=ServerRights(clock, file.read))
