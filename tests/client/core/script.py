"""A core that is driven by hand: the test is the clock, the network and the servers."""

from __future__ import annotations

from typing import Any

from pfsb.client.core.actions import Action, Connect, Driven, HangUp, Send
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.replies import Reply

ADDRESSES = [ServerAddress(i, f"tcp:127.0.0.1:{9400 + i}:timeout=1", f"127.0.0.1:{9400 + i}") for i in range(3)]


class Script:
    """Drives a core, and records its actions: servers connected to, lines sent, connections left."""

    def __init__(self, core: Driven) -> None:
        self.core = core
        self.now = 0.0
        self.did: list[str] = []
        self.answers: list[Reply] = []
        core.start(self.now)
        self.note()

    def note(self) -> None:
        """Record the actions that the core has to be carried out."""
        self.did += [line for action in self.core.take_actions() for line in _shown(action)]

    def take(self) -> list[str]:
        """The actions that were recorded since the last call."""
        self.note()
        did, self.did = self.did, []
        return did

    def connect(self) -> None:
        """Let the server accept the connection."""
        self.core.connected(self.now)
        self.note()

    def hear(self, *lines: str) -> None:
        """Let the server send these lines."""
        self.core.received("".join(f"{line}\n" for line in lines).encode(), self.now)
        self.note()

    def hang_up(self, why: str = "gone") -> None:
        """Let the server close the connection."""
        self.core.lost(why, self.now)
        self.note()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and wake the core at its times as a driver does."""
        until = self.now + seconds
        while (at := self.core.wake_at) is not None and at <= until:
            self.now = max(self.now, at)
            self.core.woken(self.now)
            self.note()
        self.now = until

    def answer_hello(
        self, last: int = 0, opened: int = 1, epoch: int | None = None, forgotten: int | None = None
    ) -> None:
        """Accept the connection, and answer HELLO."""
        self.connect()
        resumed = "no" if epoch is None else "yes"
        more = "" if forgotten is None else f" forgotten={forgotten}"
        self.hear(f'OK client="x" epoch={epoch or opened} last={last} resumed={resumed} opened={opened}{more}')

    def answer_hello_after(self, line: str) -> None:
        """Have a line carried out in a new session, and answer it."""
        command = self.submit(line)
        self.answer_hello()
        self.hear(f"#{command.number} OK revision=3")

    def submit(self, line: str) -> Any:
        """Have a line carried out; its answer is added to `answers`."""
        core: Any = self.core
        command = core.submit(line, self.answers.append, self.now)
        self.note()
        return command

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """(code or OK, fate) of the answers."""
        return [(answer.code or "OK", answer.fate) for answer in self.answers]


def _shown(action: Action) -> list[str]:
    match action:
        case Connect(address):
            return [f"connect {address.id}"]
        case Send(data):
            return data.decode().splitlines()
        case HangUp():
            return ["hang up"]
