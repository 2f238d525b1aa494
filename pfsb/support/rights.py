"""The rights that clients have at a server, each of which includes those below it."""

from __future__ import annotations

from enum import IntEnum


class Right(IntEnum):
    """A right of clients. docs/rights.rst has a table of all commands with the right that each needs."""

    NONE = 0
    """To ask what tells nothing of the cluster's state (HELP, PING), to show a token (AUTH), and to leave."""
    READ = 1
    """To ask questions, and to follow the chat."""
    WRITE = 2
    """To change the state, and to have a session."""
    ADMIN = 3
    """To administer the cluster and its servers."""

    @property
    def word(self) -> str:
        """The name of this right in files, replies and command lines; `none` for the lowest."""
        return self.name.lower()


ROLES = {right.word: right for right in Right if right}
"""Role of a token, as people write it -> the right that it gives."""
