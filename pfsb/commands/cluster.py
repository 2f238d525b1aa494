"""`pfsb cluster`: all servers of a configuration in one terminal, as child processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import which
from typing import Any, Final, TextIO

import click
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from pfsb.client.core.addresses import ServerAddress
from pfsb.commands.init import write_sample
from pfsb.commands.options import HERE, ConfigOptions, config_argument, config_here
from pfsb.commands.survey import ask_status, is_token_wanted
from pfsb.config.config import Config
from pfsb.config.sample import SERVERS
from pfsb.service.log_lines import FORMATS, LEVELS
from pfsb.support.command_line import OneOf, has_colours, subcommand

TERM_SECONDS: Final = 1.0
"""How long, in seconds, a server may take to notice the end of its standard input before it gets SIGTERM."""
STOP_SECONDS: Final = 15.0
"""How long, in seconds, a server may take to stop before it is killed."""
POLL_SECONDS: Final = 0.5
"""Time, in seconds, between two questions to the servers whether they are ready."""
LINE_BYTES_MAX: Final = 65_536
"""Maximum length, in bytes, of a line of a server's output; a longer one is cut into several lines."""

_COLOURS: Final = (36, 33, 35, 32, 34, 31)


@define
class Options(ConfigOptions):
    """Command line of `pfsb cluster`."""

    log_format: str
    log_level: str
    executed: bool


def config_made_here() -> Config:
    """The configuration for a command line that names none: `HERE`, which is written if there is none."""
    if not Path(HERE).exists():
        try:
            write_sample(Path(HERE))
        except OSError as error:
            raise click.UsageError(f"no configuration is named, and none can be written: {error}") from None
        sys.stdout.write(f"pfsb cluster: no configuration was named; wrote {HERE}, with {SERVERS} servers\n")
        sys.stdout.flush()
    return config_here()


@subcommand("cluster")
@config_argument(config_made_here)
@click.option(
    "--log-format", type=OneOf(FORMATS), default="text", help="Form of the servers' lines; json comes without marks."
)
@click.option("--log-level", type=OneOf(LEVELS), default="info", help="Lowest level that servers tell.")
@click.option("--executed", is_flag=True, help="Show each update when a server executes it.")
def command(**given: Any) -> Options:
    """Start all servers of a configuration, and show what they say.

    Ctrl-C stops them. Without CONFIG they are those of pfsb.yaml in the current directory, which is written if there is
    none.
    """
    return Options(**given)


async def run(reactor: Any, options: Options) -> None:
    """Run the cluster until Ctrl-C or SIGTERM, or until its terminal is closed.

    Raises `SystemExit` with status 1 if all servers ended by themselves.
    """
    file = options.config.file
    more = [f"--log-format={options.log_format}", f"--log-level={options.log_level}"]
    more += ["--executed"] * options.executed
    commands = {address.id: [*_command(address.id, file), *more] for address in options.addresses}
    client = shlex.join([sys.argv[0], "client", str(file)])
    has_marks = options.log_format == "text"
    cluster = Cluster(reactor, commands, options.addresses, sys.stdout, has_marks=has_marks, client=client)
    reactor.addSystemEventTrigger("before", "shutdown", cluster.stop)
    reactor.callWhenRunning(_stop_at_signals, reactor)
    if not await cluster.run():
        raise SystemExit(1)


def _stop_at_signals(reactor: Any) -> None:
    """Let SIGINT and SIGTERM, however many come, and the closing of the terminal stop the reactor. SIGUSR1 has a server
    begin a new log; here it does nothing, since the servers' lines go to the terminal."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: reactor.callFromThread(_stop, reactor))


def _stop(reactor: Any) -> None:
    with contextlib.suppress(ReactorNotRunning):  # it is stopping already
        reactor.stop()


def _command(server_id: int, file: str) -> list[str]:
    twistd = [sys.executable, "-m", "pfsb.commands.cluster_child", "-n", "--logfile", "-"]
    return [*twistd, "pfsb", "--id", str(server_id), "--config", file]


@define(eq=False)
class Cluster:
    """The servers of a cluster as child processes.

    `commands` has the command line of each server by its id. The output of all servers is printed on `out`, and so are
    reports of this class about them.
    """

    _reactor: Any
    _commands: dict[int, list[str]]
    addresses: Sequence[ServerAddress]
    _out: TextIO
    _has_marks: bool = field(kw_only=True, default=True)
    """Whether each line of a server's output is printed with the server's id in front."""
    _client: str = field(kw_only=True, default="pfsb client")
    """The command that people are told to type where there is no telnet."""
    _children: dict[int, _Child] = field(init=False, factory=dict)
    _stopping: bool = field(init=False, default=False)
    _ended: Deferred[bool] = field(init=False, factory=Deferred)
    _all_gone: Deferred[None] = field(init=False, factory=Deferred)
    _started: float = field(init=False, default=0.0)
    """When the servers were started, by the reactor's clock."""
    _signals: list[IDelayedCall] = field(init=False, factory=list)
    """Delayed calls that send SIGTERM, and later SIGKILL, to the servers that have not stopped by then."""
    _poll: IDelayedCall | None = field(init=False, default=None)

    def run(self) -> Deferred[bool]:
        """Start all servers.

        Returns a Deferred that fires when none of them runs any more, with True if `stop` was the reason.
        """
        count = len(self._commands)
        self._tell("starts one server" if count == 1 else f"starts {count} servers")
        self._started = self._reactor.seconds()
        for server_id, command in self._commands.items():
            self._children[server_id] = child = _Child(server_id, self._say, self._child_ended)
            self._reactor.spawnProcess(child, command[0], command, env=os.environ)
        self._wait_until_ready()
        return self._ended

    def stop(self) -> Deferred[None]:
        """Ask all servers to stop, by the end of their standard input, which tells them that the others stop, too
        (`pfsb.commands.cluster_child`).

        The Deferred fires when all have stopped, or were killed after `STOP_SECONDS`.
        """
        self._stopping = True
        if not self._children:
            return gatherResults([]).addCallback(lambda _: None)
        self._tell("stopping all servers")
        for child in self._children.values():
            child.end_input()
        for seconds, name in ((TERM_SECONDS, "TERM"), (STOP_SECONDS, "KILL")):
            self._signals.append(self._reactor.callLater(seconds, self._signal, name))
        return self._all_gone

    def _signal(self, name: str) -> None:
        for child in list(self._children.values()):
            child.signal(name)

    def _child_ended(self, server_id: int, how: str) -> None:
        del self._children[server_id]
        if not self._stopping:
            self._tell(f"server {server_id} {how}; {len(self._children)} of {len(self._commands)} are left")
        if not self._children:
            for call in (*self._signals, self._poll):
                if call is not None and call.active():
                    call.cancel()
            if self._stopping:
                self._all_gone.callback(None)
            self._ended.callback(self._stopping)

    def _wait_until_ready(self) -> None:
        asked = gatherResults([ask_status(self._reactor, address) for address in self.addresses])
        asked.addCallback(self._heard_all)

    def _heard_all(self, found: list[dict[str, Any] | str]) -> None:
        if self._stopping or not self._children:
            return
        if all(is_token_wanted(status) if isinstance(status, str) else self._is_ready(status) for status in found):
            for line in self._welcome():
                self._tell(line)
        else:
            self._poll = self._reactor.callLater(POLL_SECONDS, self._wait_until_ready)

    def _is_ready(self, status: dict[str, Any]) -> bool:
        """Whether this is the STATUS of a server that this object has started, and the server has a leader.

        A server that ran before may hold the port and answer, if it was not stopped; then the child ends, and says why.
        """
        is_older = status.get("uptime", 0.0) > self._reactor.seconds() - self._started
        return status.get("leader") is not None and not is_older

    def _welcome(self) -> Iterator[str]:
        """Two lines for people: each server's port for lines, and a command for another terminal, which this machine
        has: not every one has telnet."""
        yield "lines can be typed at " + ", ".join(
            f"{address.shown} (server {address.id})" for address in self.addresses
        )
        one = self.addresses[-1]
        host, _, port = one.shown.rpartition(":")
        by_hand = f"telnet {host.strip('[]')} {port}" if one.endpoint.startswith("tcp") else f"nc -U {one.shown}"
        how = by_hand if which(by_hand.split()[0]) else self._client
        many = len(self.addresses)
        yield f"all {many} servers answer. In another terminal: {how}; there: SAY hello. Ctrl-C stops all"

    def _tell(self, text: str) -> None:
        self._write(f"pfsb cluster: {text}\n")

    def _say(self, server_id: int, line: str) -> None:
        if not self._has_marks:
            self._write(f"{line}\n")
            return
        mark = f"[{server_id}]"
        if has_colours(self._out):
            colour = _COLOURS[list(self._commands).index(server_id) % len(_COLOURS)]
            mark = f"\x1b[{colour}m{mark}\x1b[0m"
        self._write(f"{mark} {line}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is closed
            self._out.write(text)
            self._out.flush()


class _Child(ProcessProtocol):
    """One server process. It calls `say` with each line of its output, and `ended` once, when the process has ended."""

    transport: IProcessTransport | None

    def __init__(self, server_id: int, say: Callable[[int, str], None], ended: Callable[[int, str], None]) -> None:
        self._server_id = server_id
        self._say = say
        self._ended = ended
        self._partial: dict[int, bytes] = {1: b"", 2: b""}

    def end_input(self) -> None:
        """End the standard input of the process."""
        assert self.transport is not None
        self.transport.closeStdin()

    def signal(self, name: str) -> None:
        """Send TERM or KILL to the process, if it still runs."""
        assert self.transport is not None
        try:
            self.transport.signalProcess(name)
        except ProcessExitedAlready:
            # The process has ended, and Twisted is about to call `processEnded`.
            return

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._partial[childFD] + data).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            lines, rest = [*lines, rest], b""
        self._partial[childFD] = rest
        for line in lines:
            self._say(self._server_id, line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        for rest in self._partial.values():
            if rest:
                self._say(self._server_id, rest.decode("utf-8", "replace"))
        self._ended(self._server_id, _how(reason))


def _how(reason: Failure) -> str:
    if reason.check(ProcessDone):
        return "has stopped (exit status 0)"
    end: Any = reason.value
    if end.signal is not None:
        return f"was ended by signal {end.signal}"
    return f"has died (exit status {end.exitCode})"
