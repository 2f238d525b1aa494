"""`pfsb client`: sends commands that a person types, one command given as an argument, the lines of a pipe, or requests
in JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import click
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredQueue

from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.client_core import WINDOW, ClientCore
from pfsb.client.core.command import LOCAL_VERBS, WAITING_VERBS, verb_of
from pfsb.client.core.replies import EventLine, Reply, read_fields
from pfsb.commands.client_batch import Batch
from pfsb.commands.exit_status import ExitStatus, status_of
from pfsb.commands.line_client import FATES, LineClient
from pfsb.commands.line_refusals import refusal_of_line
from pfsb.commands.options import HERE, ConfigOptions, config_argument, token_file_option
from pfsb.commands.survey import SURVEY_SECONDS, NoAnswer, in_time, survey
from pfsb.support.command_line import SETTINGS, Number, Seconds, Subcommand, subcommand

BATCH_MAX: Final = 1_000_000_000
CLIENTS_MAX: Final = 10_000
TIMEOUT_SECONDS: Final = 30.0
"""How long, in seconds, to wait for an answer, unless the command line says otherwise."""


@define
class Options(ConfigOptions):
    """Command line of `pfsb client`."""

    words: tuple[str, ...]
    """The words of COMMAND in the command line; empty: no command was given."""
    server_id: int | None
    client_id: str | None
    timeout: float | None
    json: bool
    batch: int | None
    clients: int
    request: str
    record: str | None
    named_token_file: str | None

    @property
    def token_file(self) -> str | None:
        return self.named_token_file

    def __attrs_post_init__(self) -> None:
        known = [address.id for address in self.addresses]
        if self.server_id is not None and self.server_id not in known:
            raise click.UsageError(f"there is no server {self.server_id} in {self.config.file}, only {_listed(known)}")
        if self.batch is not None and self.words:
            raise click.UsageError("with --batch the request is given by --command")
        if self.batch is None and self.record is not None:
            raise click.UsageError("--record goes with --batch")
        if self.words:
            why_not = refusal_of_line(one_line(self.words))
            if why_not:
                raise click.UsageError(why_not)

    @property
    def timeout_seconds(self) -> float:
        """How long, in seconds, a command may be without an answer before it is given up."""
        return TIMEOUT_SECONDS if self.timeout is None else self.timeout

    @property
    def first(self) -> int | None:
        """Position, in the list of the servers' addresses, of the server that the option --id names; None: the option
        was not given."""
        return None if self.server_id is None else [address.id for address in self.addresses].index(self.server_id)


class ClientCommand(Subcommand):
    """A subcommand whose options stand before CONFIG, or between it and COMMAND: behind the first word of COMMAND
    everything belongs to COMMAND, such as a number below zero."""

    settings = {**SETTINGS, "allow_interspersed_args": False}  # noqa: RUF012 (read by click, never changed)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        before, rest = self._split(ctx, args)
        between, words = self._split(ctx, rest[1:])
        if rest and rest[0].isalpha() and not Path(rest[0]).exists():
            raise click.UsageError(
                f"{rest[0]}: there is no such file; the configuration stands before the command, for example "
                f"pfsb client {HERE} {' '.join(rest)}"
            )
        return super().parse_args(ctx, [*before, *between, "--", *rest[:1], *words])

    def _split(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        """`args` in two parts: the options with which it begins, without a "--" that ends them, and the rest."""
        options: list[click.Parameter] = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        try:
            _, rest, _ = click.Command(None, params=options, add_help_option=False).make_parser(ctx).parse_args([*args])
        except click.UsageError:
            return [*args], []  # the same error is raised again when all is parsed
        begin = [*args][: len(args) - len(rest)]
        return begin[:-1] if begin[-1:] == ["--"] else begin, rest


@subcommand("client", cls=ClientCommand)
@config_argument()
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND ...]")
@click.option(
    "--id",
    "server_id",
    type=Number(0, 65_535),
    help="Server to start at; for FAULT, STATUS and the like the only one that is asked.",
)
@click.option(
    "--client-id",
    metavar="NAME",
    help="Who to be, for a session that outlives this program; otherwise a new client.",
)
@click.option(
    "--timeout", type=Seconds(), help=f"Give up after so long without an answer; otherwise after {TIMEOUT_SECONDS:g} s."
)
@click.option("--json", is_flag=True, help="Show each reply as one line of JSON.")
@click.option("--batch", type=Number(1, BATCH_MAX), help="Send so many requests.")
@click.option(
    "--clients",
    type=Number(1, CLIENTS_MAX),
    default=10,
    help="With --batch: by so many clients at once, spread over the servers.",
)
@click.option(
    "--command",
    "request",
    default="SAY {client} {n}",
    metavar="COMMAND",
    help="With --batch: the request, with {client} and {n} for the numbers of both.",
)
@click.option(
    "--record",
    type=click.Path(),
    metavar="FILE",
    help="With --batch: write a JSON line for each acknowledged request to this file.",
)
@token_file_option
def command(**given: Any) -> Options:
    """Send commands to a cluster, and go on at another server when one fails: each command runs once.

    Without COMMAND it is interactive at a terminal, and otherwise reads a command a line. Options stand before COMMAND.

    \b
      pfsb client etc/four.yaml                    interactive
      pfsb client etc/four.yaml PUT colour blue    one command
      pfsb client etc/four.yaml < commands         a command a line
    """
    return Options(**given)


def _listed(ids: list[int]) -> str:
    return ", ".join(map(str, ids))


async def run(reactor: Any, options: Options) -> None:
    """Run `pfsb client`. Raises `SystemExit` with an `ExitStatus` if a reply is missing or not OK."""
    if options.batch is not None:
        status = await run_batch(reactor, options, sys.stdout, sys.stderr)
    elif options.words:
        status = await run_one(reactor, options, one_line(options.words), sys.stdout, sys.stderr)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        status = await run_terminal(reactor, options)
    else:
        status = await run_lines(reactor, options, lines_of(reactor, sys.stdin), sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


def one_line(words: Sequence[str]) -> str:
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


async def run_one(reactor: Any, options: Options, line: str, out: TextIO, err: TextIO) -> ExitStatus:
    """Send one command and print its reply on `out`, and after LISTEN the events, until the program is interrupted. A
    command without an answer is told on `err`.

    Returns `OK` if the reply is OK.
    """
    addresses = options.addresses
    if options.first is not None and verb_of(line) in LOCAL_VERBS:
        addresses = [addresses[options.first]]
    asking = Asking(reactor, options, out, err, addresses)
    asking.client.start()
    try:
        status = await asking.answer(line)
        if status is ExitStatus.OK and verb_of(line) == "LISTEN":
            await Deferred()
        return status
    finally:
        await asking.stop()


async def run_lines(reactor: Any, options: Options, lines: AsyncIterator[str], out: TextIO, err: TextIO) -> ExitStatus:
    """Send a command for each of `lines`, and print the replies on `out`, in the order of the lines. Commands without
    an answer are told on `err`.

    Lines behind a LOCK or a DIGEST are sent when that has its reply. Returns `OK` if all replies are OK.
    """
    asking = Asking(reactor, options, out, err, options.addresses)
    asking.client.start()
    under_way: deque[Deferred[Answer]] = deque()
    statuses = [ExitStatus.OK]

    async def settle(most: int) -> None:
        while len(under_way) > most:
            statuses[0] = max(statuses[0], asking.show(await under_way.popleft()))

    try:
        async for text in lines:
            line = text.strip()
            why_not = refusal_of_line(line) if line else ""
            if why_not:
                err.write(f"pfsb client: {why_not}\n")
                statuses[0] = max(statuses[0], ExitStatus.REFUSED)
            elif verb_of(line) in ("QUIT", "BYE"):
                break
            elif line:
                under_way.append(Deferred.fromCoroutine(asking.ask(line)))
                await settle(0 if verb_of(line) in WAITING_VERBS else WINDOW - 1)
        await settle(0)
        return statuses[0]
    finally:
        await asking.stop()


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


async def run_terminal(reactor: Any, options: Options) -> ExitStatus:
    """Run commands that a person types, until the end of input or QUIT. Returns `OK`: a person has seen which commands
    failed."""
    # Imported only here, since the import of prompt_toolkit takes longer than a command.
    from pfsb.commands.client_terminal import Terminal, friendly_name, greeting
    from pfsb.commands.terminal_input import HISTORY_FILE, LineHistory

    if options.client_id is None:
        options.client_id = friendly_name()
    client = _client(reactor, options, sys.stdout)
    config, history = options.config, LineHistory()
    terminal = Terminal(reactor, client, greeting(config.cluster, config.n, client.core.client_id), history)
    ended = terminal.run()
    client.start()
    await ended
    await client.stop()
    if history.trouble:
        _say(sys.stderr, f"lines could not be saved in {HISTORY_FILE}: {history.trouble}")
    return ExitStatus.OK


async def run_batch(reactor: Any, options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    """Run a batch and print its summary on `out`, also after an interrupt. Returns `OK` if all requests were
    acknowledged."""
    assert options.batch is not None
    with contextlib.ExitStack() as stack:
        record = None
        if options.record is not None:
            record = stack.enter_context(open(options.record, "w", encoding="utf-8"))
        progress = (lambda text: _overwrite(err, text)) if err.isatty() else None
        batch = Batch(
            reactor,
            options.addresses,
            wanted=options.batch,
            clients=options.clients,
            line=options.request,
            first_server=options.first,
            record=record,
            timeout_seconds=options.timeout_seconds,
            progress=progress,
            on_unreachable=lambda text: _say(err, f"{text}; trying again"),
        )
        trigger = reactor.addSystemEventTrigger("before", "shutdown", batch.give_up, "interrupted")
        await batch.run()
        with contextlib.suppress(ValueError):  # the shutdown has begun
            reactor.removeSystemEventTrigger(trigger)
    if progress is not None:
        err.write("\n")
    out.write(batch.account.summary(reactor.seconds()))
    if not batch.trouble:
        return ExitStatus.OK if batch.account.acknowledged == batch.wanted else ExitStatus.REFUSED
    found = await survey(reactor, options.addresses, SURVEY_SECONDS)
    err.write(f"pfsb client: {batch.trouble}; {found.count}\n")
    return ExitStatus.UNAVAILABLE if found.up else ExitStatus.UNREACHABLE


def _say(stream: TextIO, text: str) -> None:
    stream.write(f"pfsb client: {text}\n")
    stream.flush()


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
    if options.client_id is not None:
        given["client_id"] = options.client_id
    addresses = given.pop("addresses", options.addresses)
    index = (options.first or 0) % len(addresses)
    learns = options.server_id is None
    return LineClient(reactor, ClientCore(addresses, on_event=show_event, index=index, learns=learns, **given))


@define(eq=False)
class Asking:
    """Sends commands by one client, and tells what became of those that get no answer.

    If no server has ever accepted a connection, and the command line names no timeout, a command ends as soon as all
    servers have been tried: nothing was sent, so a script can decide at once what to do.
    """

    _reactor: Any
    _options: Options
    _out: TextIO
    _err: TextIO
    _addresses: Sequence[ServerAddress]
    client: LineClient = field(init=False)
    _under_way: list[Deferred[Reply]] = field(init=False, factory=list)

    @client.default
    def _make_client(self) -> LineClient:
        client = _client(self._reactor, self._options, self._out, addresses=self._addresses)
        client.core.on_unreachable = self._none_reachable
        return client

    async def stop(self) -> None:
        """Stop the client: it says BYE if it has a session, and waits at most a second (`BYE_SECONDS`) for the answer.

        It says BYE also after a command that had no answer in time. A LOCK that waits would otherwise live on until the
        session expires, and might be granted to a client that is gone.
        """
        await self.client.stop()

    async def answer(self, line: str) -> ExitStatus:
        """Send a line, wait for the reply, and print it. Returns the exit status that it stands for."""
        return self.show(await self.ask(line))

    async def ask(self, line: str) -> Answer:
        """Send a line, and wait for the reply. Returns an `Answer`, which has the reply, or the reason why there is
        none.

        A LOCK is waited for without a limit, unless the command line sets one.
        """
        answered, command = self.client.send(line)
        limit = self._options.timeout_seconds
        has_limit = verb_of(line) != "LOCK" or self._options.timeout is not None
        self._under_way.append(answered)
        try:
            reply = await (in_time(self._reactor, self._addresses, answered, limit) if has_limit else answered)
            return Answer(line, status_of(reply), reply)
        except NoServer as error:
            return Answer(line, ExitStatus.UNREACHABLE, why=str(error), fate="none")
        except NoAnswer as error:
            fate = self.client.core.give_up(command)
            status = ExitStatus.UNAVAILABLE if error.found.up else ExitStatus.UNREACHABLE
            return Answer(line, status, why=f"no answer within {limit:g} s; {error}", fate=fate)
        finally:
            self._under_way.remove(answered)

    def show(self, answer: Answer) -> ExitStatus:
        """Print a reply; or, on standard error, what became of a command without a reply. Returns the exit status of
        the answer."""
        if self._options.json:
            # Bytes of a value that are no UTF-8 are halves of surrogate pairs here, and escapes in the JSON.
            text = json.dumps(answer.plain(), ensure_ascii=False)
            self._out.write(text.encode(errors="backslashreplace").decode() + "\n")
        elif answer.reply is not None:
            self._out.write("".join(f"{line}\n" for line in answer.reply.lines()))
        else:
            self._err.write(f"pfsb client: {answer.line}: {answer.why}; fate={answer.fate}: {FATES[answer.fate]}\n")
        self._out.flush()
        return answer.status

    def _none_reachable(self, text: str) -> None:
        if self._options.timeout is None and not self.client.core.was_connected:
            for answered in tuple(self._under_way):
                answered.errback(NoServer(text))
        else:
            _say(self._err, f"{text}; trying again")


class NoServer(Exception):
    """Raised for a command when no server has accepted a connection; the text says which servers were tried, and why
    each of them cannot be reached."""


@frozen
class Answer:
    """How one command has ended: with a reply, or without one for the reason `why`."""

    line: str
    status: ExitStatus
    reply: Reply | None = None
    why: str = ""
    fate: str = ""

    def plain(self) -> dict[str, Any]:
        """The answer as a value for JSON: for an OK reply its fields and its rows, for a refusal or a command without a
        reply the error, the fate and the text."""
        reply = self.reply
        if reply is None:
            code = self.status.name
            return {"ok": False, "error": code, "fate": self.fate, "text": self.why}
        if not reply.ok:
            return {"ok": False, "error": reply.code, "fate": reply.fate, "text": reply.text}
        return {"ok": True, **reply.fields, "rows": [_plain_row(row) for row in reply.rows]}


def _plain_row(row: str) -> Any:
    """One row of a reply as a value for JSON. For a row that is a JSON object, as that of STATUS, it is this object;
    for a row of name=value pairs, an object with their names and values; for any other row, its text."""
    if row.startswith("{"):
        with contextlib.suppress(ValueError):
            return json.loads(row)
    return read_fields(row) or row
