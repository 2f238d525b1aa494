"""The position of a client in the chat that it follows, which outlives connections."""

from __future__ import annotations

from attrs import define

from pfsb.client.core.command import Command
from pfsb.client.core.replies import EventLine, Reply


@define(eq=False)
class ChatCursor:
    """Learns from LISTEN, UNLISTEN and CHAT events which line of the chat comes next."""

    listen_line: str | None = None
    """The request that makes a server continue at the next line; None: the chat is not followed."""

    def answered(self, command: Command, reply: Reply) -> None:
        """A server has answered this command, whatever its verb."""
        if reply.ok and command.verb == "LISTEN":
            first = reply.fields.get("from")
            self.listen_line = command.line if first is None else f"LISTEN from={first}"
        elif command.verb == "UNLISTEN":
            self.listen_line = None

    def heard(self, event: EventLine) -> None:
        """A server has sent this event."""
        if event.name == "CHAT" and self.listen_line is not None:
            self.listen_line = f"LISTEN from={int(event.fields['index']) + 1}"
