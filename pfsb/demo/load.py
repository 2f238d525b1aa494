"""The clients of a demo, and the lines that servers have acknowledged to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from attrs import define, field, frozen
from twisted.internet.task import deferLater

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.client_core import BYE_SECONDS
from pfsb.client.core.replies import read_fields
from pfsb.commands.client_batch import Batch
from pfsb.demo.processes import LOOK_SECONDS, ClusterTrouble

LINE: Final = "SAY {client} {n}"
"""The command for each line of chat. Every text is different, so that a line that was executed twice is noticed."""
TIMEOUT_SECONDS: Final = 60.0
"""How long, in seconds, the clients go on without any answer before they give up."""


@frozen
class Acknowledged:
    """One line of chat that a server has acknowledged to its client. Times are in seconds since 1970."""

    client: int
    number: int
    text: str
    index: int
    """The line's position in the chat log, counted from 1, as the acknowledgement gives it."""
    sent: float
    answered: float


def read_record(path: Path) -> list[Acknowledged]:
    """The acknowledged lines of a batch, in the order of the answers, from the file that
    `Batch` (`pfsb.commands.client_batch`) has written."""
    with open(path, encoding="utf-8") as file:
        return [_acknowledged(json.loads(line)) for line in file]


def _acknowledged(entry: dict[str, Any]) -> Acknowledged:
    index = int(read_fields(entry["reply"])["index"])
    text = entry["line"].removeprefix("SAY ")
    return Acknowledged(entry["client"], entry["number"], text, index, entry["t0"], entry["t1"])


@define(eq=False)
class Load:
    """`clients` clients, spread over all servers, that together say `lines` lines of chat."""

    _reactor: Any
    _record: Path
    lines: int
    clients: int
    batch: Batch = field(init=False)
    _file: TextIO = field(init=False)
    _ended: bool = field(init=False, default=True)
    """True: no client is at work; the load was not started, or has ended."""

    def start(self, addresses: Sequence[ServerAddress], progress: Callable[[str], None]) -> None:
        """Start the clients; `progress` is called now and then with a text that says how far they are."""
        self._file = open(self._record, "w", encoding="utf-8")  # noqa: SIM115 (closed when the batch ends)
        self.batch = Batch(
            self._reactor,
            addresses,
            wanted=self.lines,
            clients=self.clients,
            line=LINE,
            record=self._file,
            timeout_seconds=TIMEOUT_SECONDS,
            progress=progress,
        )
        self._ended = False
        self.batch.run().addBoth(self._end)

    async def until(self, answered: int) -> None:
        """Wait until `answered` lines have been answered since `start`.

        Raises ClusterTrouble if the clients end before that.
        """
        while self.batch.account.answered < answered:
            if self._ended:
                raise ClusterTrouble(f"the clients have given up: {self.batch.trouble or 'too few lines'}")
            await deferLater(self._reactor, LOOK_SECONDS)

    async def finish(self) -> list[Acknowledged]:
        """Wait until all clients have ended; returns the acknowledged lines. Raises ClusterTrouble if one gave up."""
        while not self._ended:
            await deferLater(self._reactor, LOOK_SECONDS)
        if self.batch.trouble:
            raise ClusterTrouble(f"the clients have given up: {self.batch.trouble}")
        return read_record(self._record)

    @property
    def errors(self) -> dict[str, int]:
        """Number of lines that were answered with an error since `start`, by the code of the error."""
        return self.batch.account.errors

    async def abandon(self) -> None:
        """End the load at once, and give its connections time to close."""
        if not self._ended:
            self.batch.give_up("the scenario has ended")
            await deferLater(self._reactor, 2 * BYE_SECONDS)

    def _end(self, result: Any) -> None:
        self._ended = True
        self._file.close()
        if result is not None:
            self.batch.trouble = self.batch.trouble or result.getErrorMessage()
