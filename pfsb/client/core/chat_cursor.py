"""The position of a client in the chat that it follows, kept when the client moves to another connection."""

from __future__ import annotations

from attrs import define

from pfsb.client.core.command import Command
from pfsb.client.core.replies import EventLine, Reply


@define(eq=False)
class ChatCursor:
    """Finds out, from answers to LISTEN and UNLISTEN and from CHAT events, which line of the chat the client needs
    next."""

    listen_line: str | None = None
    """The LISTEN request that makes a server continue at the line that is needed next; None: the client does not follow
    the chat."""

    def answered(self, command: Command, reply: Reply) -> None:
        """Called when a server has answered a command of any verb. An accepted LISTEN sets `listen_line`, an answered
        UNLISTEN clears it."""
        if reply.ok and command.verb == "LISTEN":
            first = reply.fields.get("from")
            self.listen_line = command.line if first is None else f"LISTEN from={first}"
        elif command.verb == "UNLISTEN":
            self.listen_line = None

    def heard(self, event: EventLine) -> None:
        """Called for every event that a server has sent. If it is a CHAT event and the client follows the chat, the
        line behind that of the event is the one that is needed next. After the ENDED event of LISTEN the client does
        not follow the chat any more."""
        if event.name == "CHAT" and self.listen_line is not None:
            self.listen_line = f"LISTEN from={int(event.fields['index']) + 1}"
        elif has_ended(event):
            self.listen_line = None


def has_ended(event: EventLine) -> bool:
    """Whether this event says that the cluster does not run the chat any more, so that no line of it will come."""
    return event.name == "ENDED" and event.fields.get("verb") == "LISTEN"
