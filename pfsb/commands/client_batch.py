"""`pfsb client --batch`: many requests by many clients, and a summary of the replies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.replies import Reply
from pfsb.commands.line_client import LineClient

PROGRESS_SECONDS: Final = 0.2
_BAR_CHARACTERS: Final = 30


@define
class Account:
    """Counts of the replies to a batch, with their latencies. All times are in seconds."""

    wanted: int
    began: float
    acknowledged: int = 0
    errors: dict[str, int] = field(factory=dict)
    latencies: list[float] = field(factory=list)
    longest_gap: float = 0.0
    last_answer: float = field(init=False)
    retries: int = 0

    def __attrs_post_init__(self) -> None:
        self.last_answer = self.began

    @property
    def answered(self) -> int:
        return len(self.latencies)

    def note(self, reply: Reply, sent: float, now: float) -> None:
        self.latencies.append(now - sent)
        self.longest_gap = max(self.longest_gap, now - self.last_answer)
        self.last_answer = now
        if reply.ok:
            self.acknowledged += 1
        else:
            self.errors[reply.code] = self.errors.get(reply.code, 0) + 1

    def summary(self, now: float) -> str:
        """The summary that `pfsb client --batch` prints: a few lines for a person."""
        took = max(now - self.began, 1e-9)
        gap = max(self.longest_gap, now - self.last_answer)
        ordered = sorted(self.latencies) or [0.0]
        p50, p99 = (ordered[min(int(len(ordered) * part), len(ordered) - 1)] for part in (0.5, 0.99))
        errors = ", ".join(f"{count} {code}" for code, count in sorted(self.errors.items())) or "none"
        return (
            f"acknowledged  {self.acknowledged} of {self.wanted} in {took:.2f} s\n"
            f"throughput    {self.acknowledged / took:.0f} a second\n"
            f"latency       p50 {_ms(p50)}, p99 {_ms(p99)}, max {_ms(ordered[-1])}\n"
            f"errors        {errors}\n"
            f"retries       {self.retries}\n"
            f"longest gap   {_ms(gap)} without any answer\n"
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


@define(eq=False)
class Batch:
    """Sends `wanted` requests in all by `clients` clients; each client sends its next request when its last one is
    answered.

    `line` is the request. In it, {client} stands for the number of the client and {n} for the number of the request,
    both counted from 1.
    """

    _reactor: Any
    _addresses: Sequence[ServerAddress]
    wanted: int
    clients: int
    line: str
    first_server: int | None = None
    """Position, in the list of addresses, of the server where all clients begin; None: the clients begin at different
    servers."""
    record: TextIO | None = None
    timeout_seconds: float = 60.0
    """How long, in seconds, the clients may be without any answer: if none of them has got one for longer than this,
    the batch is given up."""
    progress: Callable[[str], None] | None = None
    on_unreachable: Callable[[str], None] = field(default=lambda text: None)
    """Called once, with a text for people, when no server has accepted a connection."""
    account: Account = field(init=False)
    trouble: str = field(init=False, default="")
    """The reason why the batch was given up; "" if it was not given up."""
    _next: int = field(init=False, default=1)
    _running: list[LineClient] = field(init=False, factory=list)

    def run(self) -> Deferred[None]:
        """Start the clients.

        Returns a Deferred that fires when all requests are answered or the batch is given up. `account` and `trouble`
        tell the outcome then.
        """
        self.account = Account(self.wanted, self._reactor.seconds())
        self._running = [self._client(index) for index in range(min(self.clients, self.wanted))]
        watch = LoopingCall(self._watch)
        watch.clock = self._reactor
        watch.start(PROGRESS_SECONDS, now=False)
        loops = [Deferred.fromCoroutine(self._loop(index)) for index in range(len(self._running))]
        done = gatherResults(loops, consumeErrors=True)

        def ended(result: Any) -> Any:
            watch.stop()
            self._watch()
            return result if isinstance(result, Failure) else None

        return done.addBoth(ended)

    def give_up(self, why: str) -> None:
        """End the batch now, without waiting for the missing replies. `why` is the reason; it is noted in `trouble` if
        no reason is noted there yet."""
        self.trouble = self.trouble or why
        for client in self._running:
            client.stop()

    def _client(self, index: int) -> LineClient:
        first = index if self.first_server is None else self.first_server
        core = ClientCore(
            self._addresses, index=first % len(self._addresses), window=1, learns=self.first_server is None
        )
        client = LineClient(self._reactor, core)
        if index == 0:
            client.core.on_unreachable = self.on_unreachable  # one client reports for all
        client.start()
        return client

    async def _loop(self, index: int) -> None:
        client = self._running[index]
        while self._next <= self.wanted and not self.trouble:
            n, self._next = self._next, self._next + 1
            line = self.line.replace("{client}", str(index + 1)).replace("{n}", str(n))
            sent = self._reactor.seconds()
            try:
                reply = await client.command(line)
            except Exception as error:
                self.give_up(self.trouble or f"{type(error).__name__}: {error}")
                return
            self._note(index, n, line, reply, sent)
        await client.stop()

    def _note(self, index: int, n: int, line: str, reply: Reply, sent: float) -> None:
        now = self._reactor.seconds()
        self.account.note(reply, sent, now)
        if self.record is not None and reply.ok:
            entry = {"client": index + 1, "number": n, "line": line, "reply": reply.line, "t0": sent, "t1": now}
            self.record.write(json.dumps({**entry, "session": self._running[index].core.client_id}) + "\n")

    def _watch(self) -> None:
        account = self.account
        account.retries = sum(client.core.retries for client in self._running)
        quiet = self._reactor.seconds() - account.last_answer
        if self.progress is not None:
            done = account.answered * _BAR_CHARACTERS // max(self.wanted, 1)
            bar = "#" * done + "." * (_BAR_CHARACTERS - done)
            self.progress(f"[{bar}] {account.answered} of {self.wanted}, {account.retries} retries")
        if quiet > self.timeout_seconds and not self.trouble:
            self.give_up(f"no answer for {quiet:.0f} s; {self._running[0].core.outage}")
