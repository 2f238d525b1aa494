"""Where a client is in the chat that it follows, whatever server tells it."""

from __future__ import annotations

from attrs import define

from pfsb.client.core.command import Command
from pfsb.client.core.replies import EventLine, Reply


@define(eq=False)
class ChatCursor:
    listen_line: str | None = None
    """What asks a server to go on from there; None: the chat is not followed."""

    def answered(self, command: Command, reply: Reply) -> None:
        if reply.ok and command.verb == "LISTEN":
            first = reply.fields.get("from")
            self.listen_line = command.line if first is None else f"LISTEN from={first}"
        elif command.verb == "UNLISTEN":
            self.listen_line = None

    def heard(self, event: EventLine) -> None:
        if event.name == "CHAT" and self.listen_line is not None:
            self.listen_line = f"LISTEN from={int(event.fields['index']) + 1}"
