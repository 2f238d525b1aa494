"""`pfsb client`: sends commands that a person types, one command given as an argument, the lines of a pipe, or requests
in JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, TextIO

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.python import usage

from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.client_core import WINDOW, ClientCore
from pfsb.client.core.command import LOCAL_VERBS, WAITING_VERBS, verb_of
from pfsb.client.core.replies import EventLine, Reply
from pfsb.commands.client_batch import Batch
from pfsb.commands.client_terminal import Terminal, refusal_of_line
from pfsb.commands.line_client import LineClient
from pfsb.commands.options import ConfigOptions, number, seconds

BATCH_MAX: Final = 1_000_000_000
CLIENTS_MAX: Final = 10_000


class Options(ConfigOptions):
    """Command line of `pfsb client`."""

    synopsis = "Usage: pfsb client CONFIG [options] [COMMAND ...]"
    longdesc = (
        "Sends commands to a cluster, and goes on at another server when one fails: each command runs once. "
        "Without COMMAND it is interactive at a terminal, and otherwise reads a command a line."
    )
    optParameters = [  # noqa: RUF012 (read by Twisted, never changed)
        ["id", None, None, "server to start at; for FAULT, STATUS and the like the only one that is asked", int],
        ["client-id", None, None, "who to be, for a session that outlives this program (default: somebody new)"],
        ["timeout", None, 30.0, "give up after so many seconds without an answer", seconds],
        ["batch", None, None, "send so many requests", number(1, BATCH_MAX)],
        ["clients", None, 10, "by so many clients at once, spread over the servers", number(1, CLIENTS_MAX)],
        ["command", None, "SAY {client} {n}", "the request, with {client} and {n} for the numbers of both"],
        ["record", None, None, "write a JSON line for each acknowledged request to this file"],
    ]

    def take(self, rest: list[str]) -> None:
        self.words = rest

    def postOptions(self) -> None:
        known = [address.id for address in self.addresses]
        if self["id"] is not None and self["id"] not in known:
            raise usage.UsageError(f"there is no server {self['id']} in {self.config.file}, only {_listed(known)}")
        if self["batch"] is not None and self.words:
            raise usage.UsageError("with --batch the request is given by --command")
        if self["batch"] is None and self["record"] is not None:
            raise usage.UsageError("--record goes with --batch")
        if self.words:
            why_not = refusal_of_line(one_line(self.words))
            if why_not:
                raise usage.UsageError(why_not)

    @property
    def first(self) -> int | None:
        """Position in `addresses` of the server that the option --id names; None: the option was not given."""
        return None if self["id"] is None else [address.id for address in self.addresses].index(self["id"])


def _listed(ids: list[int]) -> str:
    return ", ".join(map(str, ids))


async def run(reactor: Any, options: Options) -> None:
    """Run `pfsb client`. Raises `SystemExit` with status 1 if a reply is missing or not OK."""
    if options["batch"] is not None:
        ok = await run_batch(reactor, options, sys.stdout, sys.stderr)
    elif options.words:
        ok = await run_one(reactor, options, one_line(options.words), sys.stdout, sys.stderr)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        ok = await run_terminal(reactor, options)
    else:
        ok = await run_lines(reactor, options, lines_of(reactor, sys.stdin), sys.stdout, sys.stderr)
    if not ok:
        raise SystemExit(1)


def one_line(words: list[str]) -> str:
    """Make a line of the line protocol from a command's words; quotes, which the shell has removed, are added again."""
    if len(words) == 1:
        return words[0].strip()
    verb = words[0].upper()
    if verb == "SAY":
        return f"SAY {json.dumps(' '.join(words[1:]), ensure_ascii=False)}"
    return " ".join([verb, *map(_argument, words[1:])])


def _argument(word: str) -> str:
    if word and word.isprintable() and " " not in word and '"' not in word:
        return word
    with contextlib.suppress(ValueError):
        if isinstance(json.loads(word), str):
            return word
    return json.dumps(word, ensure_ascii=False)


async def run_one(reactor: Any, options: Options, line: str, out: TextIO, err: TextIO) -> bool:
    """Send one command and print its reply, and after LISTEN the events, until the program is interrupted.

    Returns True if the reply is OK.
    """
    addresses = options.addresses
    if options.first is not None and verb_of(line) in LOCAL_VERBS:
        addresses = [addresses[options.first]]
    client = _client(reactor, options, out, addresses=addresses)
    client.start()
    try:
        reply = await _answer(reactor, options, client, line, err)
        _show(reply, out)
        if reply is not None and reply.ok and verb_of(line) == "LISTEN":
            await Deferred()
        return reply is not None and reply.ok
    finally:
        await client.stop()


async def run_lines(reactor: Any, options: Options, lines: AsyncIterator[str], out: TextIO, err: TextIO) -> bool:
    """Send a command for each line, and print the replies in the order of the lines.

    Lines after a LOCK or a DIGEST wait for its reply. Returns True if all replies are OK.
    """
    client = _client(reactor, options, out)
    client.start()
    under_way: deque[Deferred[Reply | None]] = deque()
    ok = True

    async def settle(most: int) -> bool:
        fine = True
        while len(under_way) > most:
            reply = await under_way.popleft()
            _show(reply, out)
            fine = fine and reply is not None and reply.ok
        return fine

    try:
        async for text in lines:
            line = text.strip()
            why_not = refusal_of_line(line) if line else ""
            if why_not:
                err.write(f"pfsb client: {why_not}\n")
                ok = False
            elif verb_of(line) in ("QUIT", "BYE"):
                break
            elif line:
                under_way.append(Deferred.fromCoroutine(_answer(reactor, options, client, line, err)))
                ok = await settle(0 if verb_of(line) in WAITING_VERBS else WINDOW - 1) and ok
        return await settle(0) and ok
    finally:
        await client.stop()


async def lines_of(reactor: Any, stream: TextIO) -> AsyncIterator[str]:
    """Yield the lines of a pipe or file, each read when it is wanted.

    Reading may block, so a thread reads; the program can end while that thread is blocked.
    """
    lines: DeferredQueue[str] = DeferredQueue()
    wanted = threading.Semaphore(0)

    def read() -> None:
        while True:
            wanted.acquire()
            reactor.callFromThread(lines.put, stream.readline())

    threading.Thread(target=read, daemon=True).start()
    while True:
        wanted.release()
        line = await lines.get()
        if not line:
            return
        yield line


async def run_terminal(reactor: Any, options: Options) -> bool:
    """Run commands that a person types, until the end of input or QUIT. Returns True: a person has seen which commands
    failed."""
    client = _client(reactor, options, sys.stdout)
    terminal = Terminal(reactor, client)
    client.core.on_event = terminal.show_event
    client.core.on_server = terminal.show_server
    client.core.on_session_end = terminal.show_session_end
    client.start()
    await terminal.run()
    await client.stop()
    return True


async def run_batch(reactor: Any, options: Options, out: TextIO, err: TextIO) -> bool:
    """Run a batch and print its summary, also after an interrupt. True if all requests were acknowledged."""
    with contextlib.ExitStack() as stack:
        record = None
        if options["record"] is not None:
            record = stack.enter_context(open(options["record"], "w", encoding="utf-8"))
        progress = (lambda text: _overwrite(err, text)) if err.isatty() else None
        batch = Batch(
            reactor,
            options.addresses,
            wanted=options["batch"],
            clients=options["clients"],
            line=options["command"],
            first_server=options.first,
            record=record,
            timeout_seconds=options["timeout"],
            progress=progress,
        )
        trigger = reactor.addSystemEventTrigger("before", "shutdown", batch.give_up, "interrupted")
        await batch.run()
        with contextlib.suppress(ValueError):  # the shutdown has begun
            reactor.removeSystemEventTrigger(trigger)
    if progress is not None:
        err.write("\n")
    if batch.trouble:
        err.write(f"pfsb client: {batch.trouble}\n")
    out.write(batch.account.summary(reactor.seconds()))
    return batch.account.acknowledged == batch.wanted


def _overwrite(stream: TextIO, text: str) -> None:
    stream.write(f"\r{text}\x1b[K")
    stream.flush()


def _client(reactor: Any, options: Options, out: TextIO, **given: Any) -> LineClient:
    def show_event(event: EventLine) -> None:
        if event.name != "WELCOME":
            out.write(f"{event.line}\n")
            out.flush()

    def show_end(end: SessionEnd) -> None:
        sys.stderr.write(f"pfsb client: {end.text}\n")

    given["on_session_end"] = show_end
    if options["client-id"] is not None:
        given["client_id"] = options["client-id"]
    addresses = given.pop("addresses", options.addresses)
    index = (options.first or 0) % len(addresses)
    return LineClient(reactor, ClientCore(addresses, on_event=show_event, index=index, **given))


async def _answer(reactor: Any, options: Options, client: LineClient, line: str, err: TextIO) -> Reply | None:
    """Get the reply to a line; None, with a message on standard error, if there is none in time.

    For LOCK there is no time limit.
    """
    answered = client.command(line)
    limit: float = options["timeout"]
    if verb_of(line) != "LOCK":
        answered.addTimeout(limit, reactor)
    try:
        return await answered
    except Exception:
        err.write(f"pfsb client: {line}: no answer within {limit:g} s; {client.core.last_trouble}\n")
        return None


def _show(reply: Reply | None, out: TextIO) -> None:
    if reply is not None:
        out.write("".join(f"{line}\n" for line in reply.lines()))
        out.flush()
