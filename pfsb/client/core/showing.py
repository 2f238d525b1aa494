"""AUTH: how a client shows its token on each new connection, and what follows from the answer."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from pfsb.client.core.replies import Reply

_WRONG: Final = frozenset({"BADTOKEN", "BADREQUEST"})
"""Codes of refusals that say that the token is wrong, and not that the server is busy."""


def is_refused_token(reply: Reply) -> bool:
    """Whether the reply to AUTH says that the client goes without the rights of its token. A server of a version that
    knows no tokens answers UNKNOWN, and refuses nothing for want of one."""
    return not reply.ok and reply.code != "UNKNOWN"


@define(eq=False)
class Showing:
    """The state of AUTH at one client."""

    servers: int
    """Number of servers of the cluster."""
    under_way: bool = field(init=False, default=False)
    """True: AUTH was sent on the present connection and is unanswered; nothing else is sent before the answer."""
    is_reader: bool = field(init=False, default=False)
    """True: the token permits to read and no more, so that no server opens a session for the client. Its questions need
    none."""
    _refusals: int = field(init=False, default=0)

    def accepted(self, reply: Reply) -> None:
        """Called when a server has taken the token, or knows no tokens."""
        self.under_way = False
        self._refusals = 0
        self.is_reader = reply.ok and reply.fields.get("role") == "read"

    def refused(self, reply: Reply) -> bool:
        """Called when a server has refused the token. Returns whether the commands of the client are to be refused,
        too: as many servers as there are have said that the token is wrong. A server may not have read its token file
        again yet, while another one has."""
        self.under_way = False
        self._refusals += reply.code in _WRONG
        return self._refusals >= self.servers
