"""`twistd pfsb`: one server as a Twisted service. The only module that knows the global reactor."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IReactorDaemonize
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from pfsb import __version__
from pfsb.applications.catalogue import Catalogue, catalogue_of_plugins
from pfsb.applications.interfaces import BadRequest, Event, IEventLog
from pfsb.config.config import Config, ConfigError, load
from pfsb.frontends.client_port import ClientPortFactory, RedisPortFactory
from pfsb.frontends.http_port import LazyHTTPSite
from pfsb.frontends.stream.shared_limits import SharedLimits
from pfsb.paxos.divergence import StateDiverged
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.storage_identity import StorageWasReplaced
from pfsb.server import Server
from pfsb.service.assembly import log_storage, mutual_tls, real_server
from pfsb.service.chat_log import ChatLog, ChatLogWriter
from pfsb.service.daemon import Daemon, go_into_background
from pfsb.service.executed import tell_executed
from pfsb.service.log_lines import FORMATS, LEVELS
from pfsb.service.log_signals import LOG_SIGNALS
from pfsb.service.memory_watch import MemoryWatch, found_limit_bytes, used_bytes
from pfsb.service.nearby import client_place, data_place, warnings_of_start
from pfsb.service.pid_file import PidFile, remove_stale
from pfsb.service.ports import check_ports, port_service
from pfsb.service.preflight import PortInUse, refuse_used_ports
from pfsb.service.reactor_lag import ReactorLag
from pfsb.service.text_log import OBSERVER_NAME, PROCESS_LOG
from pfsb.service.whole_cluster import WHOLE_CLUSTER
from pfsb.sessions.state_machine import CannotRun
from pfsb.support.open_files import allow_many_files
from pfsb.tracing import JSONTracer

if TYPE_CHECKING:
    from pfsb.frontends.http.protocol import HTTPSite

EXIT_FAILED = 3
"""Exit status of a server that has stopped itself."""
DAEMON_UMASK = 0o077
"""File creation mask of a server in the background, as twistd has it: no other user may read what it writes."""
LAST_WORDS_SECONDS = 0.05
"""How long, in seconds, the reactor runs on after the last answers, so that they are written to the sockets."""
LOG_SECONDS = 1.0
"""How long, in seconds, the end of the process waits for the last lines of the text log to be written."""
OTHER_FILES_MAX = 100
"""Number of file descriptors reserved for storage, logs and the server's own sockets, which need about 50 in practice.
"""
GARBAGE_THRESHOLDS = (50_000, 4, 250)
"""The three thresholds for `gc.set_threshold`, in this order: number of new containers, less those that were freed,
before a collection of the youngest generation; number of those collections before one of the middle generation; number
of those before a full one. With 20 as the second, a collection held the reactor for a quarter of a second after 5,000
clients had connected; with 4, half as long.
"""


def steady_seconds() -> Callable[[], float]:
    """Return a function that tells the time, in seconds since 1970.

    At this call it equals the wall clock, and it never goes back afterwards.

    Twisted's reactor would read the wall clock; if that is set back by an hour, no timer fires for an hour.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Options(usage.Options):
    """Command line of `twistd pfsb`; see docs/operating.rst."""

    synopsis = "[--id N] [--config FILE] [options]"
    longdesc = "Runs one server of a cluster. All servers of a cluster use the same configuration file."
    optParameters: ClassVar[list[list[str | None]]] = [
        ["id", "i", None, "which server of the configuration to run"],
        ["config", "c", None, "the cluster's configuration, for example etc/four.yaml"],
        ["storage", None, None, "data directory of this server, or `memory` (instead of the configured one)"],
        ["skip-seq", None, None, "as leader, leave this sequence number out: a hole for the next leader to find"],
        ["trace", None, None, "write what happens to this file, as JSON lines"],
        ["log-format", None, "text", "form of the log's lines: text or json"],
        ["log-level", None, "info", f"lowest level that is logged: {', '.join(LEVELS)}"],
    ]

    optFlags: ClassVar[list[list[str | None]]] = [
        ["executed", None, "log each update when it is executed, for classrooms; history of the past is left out"],
    ]

    config: Config
    server_id: int
    catalogue: Catalogue
    daemon: Daemon | None = None
    """The report of this process to the command in the terminal, if this process has gone into the background; None: it
    is in the foreground."""

    def __init__(self) -> None:
        super().__init__()
        self["apps"] = []

    def opt_version(self) -> NoReturn:
        """Show the version of pfsb and exit."""
        print(f"pfsb {__version__}")  # noqa: T201 (twistd asks for it at a terminal)
        sys.exit(0)

    def opt_app(self, name: str) -> None:
        """run this application (repeatable; instead of the configured ones)"""
        self["apps"].append(name)

    def postOptions(self) -> None:
        """Refuse all mistakes that can be found before the process leaves the terminal.

        Raises SystemExit with one line for standard error: twistd would print a UsageError on standard output,
        below the whole usage.
        """
        try:
            self._check()
            self._refuse_wrong_log()
        except (usage.UsageError, ConfigError, BadRequest, PortInUse, StorageRefused) as error:
            sys.exit(f"pfsb: {error}")
        self._name_files()

    def _check(self) -> None:
        if self["config"] is None:
            raise usage.UsageError("--config is missing (example: --config etc/four.yaml)")
        if self["id"] is None:
            raise usage.UsageError("--id is missing: which server of the configuration is this? (example: --id 0)")
        self.server_id = _whole(self["id"], "--id")
        self["skip-seq"] = None if self["skip-seq"] is None else _whole(self["skip-seq"], "--skip-seq")
        _one_of(self["log-format"], FORMATS, "--log-format")
        _one_of(self["log-level"], LEVELS, "--log-level")
        self.config = load(self["config"])
        self.config.server(self.server_id)
        self.config.secrets()
        self.config.tokens()
        if "tls" in self.config.transports:
            now: Any = reactor
            mutual_tls(self.config, self.server_id, now.seconds())
        check_ports(self.config, self.server_id)
        self.catalogue = catalogue_of_plugins(self["apps"] or self.config.apps)
        refuse_used_ports(self.config, self.server_id)
        if self.directory is not None:
            clock: Any = reactor
            storage = log_storage(self.config, self.server_id, self.directory, clock, _nothing_failed)
            storage.refuse_if_unusable()
            for line in warnings_of_start(self.config, self.server_id, self.directory):
                tell_terminal(f"warning: {line}")

    def _refuse_wrong_log(self) -> None:
        """Raise `UsageError` if a server that goes into the background shall write its log to standard output
        (`--logfile -`), which it does not have. twistd itself would find this out only after the server has left the
        terminal."""
        if not self.stays and self._twistd["logfile"] == "-":
            raise usage.UsageError("--logfile - needs -n: a server in the background has no standard output")

    @property
    def stays(self) -> bool:
        """Whether the process stays in the foreground, as the options of twistd say."""
        return self.parent is None or bool(self._twistd["nodaemon"] or self._twistd["debug"])

    @property
    def _twistd(self) -> Any:
        """The options of twistd itself."""
        return self.parent

    def leave_terminal(self) -> None:
        """Go into the background, unless the command line says otherwise; see `go_into_background`."""
        if self.stays:
            return
        twistd = self._twistd
        clock: Any = reactor
        is_told = IReactorDaemonize.providedBy(clock)
        if is_told:
            clock.beforeDaemonize()
        self.daemon = go_into_background(twistd["logfile"] or "the system's log")
        LOG_SIGNALS.leave_terminal()
        if is_told:
            clock.afterDaemonize()
        twistd["nodaemon"] = True  # the process is in the background already
        if twistd["umask"] is None:
            twistd["umask"] = DAEMON_UMASK

    def _name_files(self) -> None:
        """Put the server's id into the default names of the pid file and the log file.

        Several servers of one cluster may be started in the same directory, and would otherwise share these files.
        """
        if self.parent is None:
            return
        clock: Any = reactor
        LOG_SIGNALS.hung_up = lambda: clock.callFromThread(stop_reactor)
        PROCESS_LOG.follow_signals(LOG_SIGNALS)
        if self.parent.get("pidfile") == "twistd.pid":
            self.parent["pidfile"] = f"pfsb-{self.server_id}.pid"
        if self.parent.get("pidfile"):
            remove_stale(Path(self.parent["pidfile"]))
        if not self.parent.get("nodaemon") and self.parent.get("logfile") is None:
            self.parent["logfile"] = f"pfsb-{self.server_id}.log"
        if not self.parent.get("logger"):
            PROCESS_LOG.options = self.parent
            PROCESS_LOG.server_id = self.server_id
            PROCESS_LOG.line_format, PROCESS_LOG.least_level = self["log-format"], self["log-level"]
            self.parent["logger"] = OBSERVER_NAME

    @property
    def directory(self) -> Path | None:
        """The data directory of this server; None: its data is kept in memory."""
        if self["storage"] is None:
            return self.config.storage_directory(self.server_id)
        return None if self["storage"] == "memory" else Path(self["storage"])


def _one_of(value: str, known: Sequence[str], option: str) -> None:
    if value not in known:
        raise usage.UsageError(f"{option} is one of {', '.join(known)}, not {value!r}")


def _nothing_failed(failure: Failure) -> None:
    raise AssertionError("nothing is written before the server starts") from failure.value


def _whole(text: str, option: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise usage.UsageError(f"{option} takes a whole number, not {text!r} (example: {option} 2)")
    return int(text)


class ServerService(Service):
    """A server with its sockets, from `startService` to `stopService`."""

    _log = Logger()

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ports = MultiService()
        self._chat_log: ChatLogWriter | None = None
        self._exit_status: int | None = None
        """The status with which the process must end at once, without the interpreter's usual clean-up; None: the
        interpreter may end as usual."""
        self._was_up = False
        self._last_words = ""
        """The reason why the process ends, for standard error; it is written behind the last line of the log."""
        self._server: Server | None = None
        self._http: LazyHTTPSite | None = None
        self._memory_watch: MemoryWatch | None = None

    def startService(self) -> None:
        """Start the server. Raises SystemExit with one line that tells the reason if it cannot run here."""
        super().startService()
        clock: Any = reactor
        clock.seconds = steady_seconds()
        atexit.register(self._end)  # runs after twistd has removed its pid file
        PROCESS_LOG.begin()
        self._pid_file.hold()
        try:
            self._start()
        except CannotRun as error:
            self._failed(Failure(error))
        except (StorageRefused, CannotListenError, OSError, ConfigError) as error:
            self._log.critical("{error}", error=str(error))
            self._give_up(str(error))
        except Exception as error:
            self._log.failure("the server cannot start")
            self._give_up(f"the server cannot start ({type(error).__name__}: {error}); the log says where it failed")
        if self._options.daemon is not None and self._exit_status is None:
            self._options.daemon.report_up()

    def _give_up(self, why: str) -> NoReturn:
        """End the process, since its server could not start; `why` is the reason. Also removes the pid file, as twistd
        does only when a process ends otherwise."""
        self._last_words = why
        self._pid_file.remove()
        sys.exit(1)

    @property
    def _pid_file(self) -> PidFile:
        twistd: Any = self._options.parent
        return PidFile(Path(twistd["pidfile"]) if twistd["pidfile"] else None)

    def _start(self) -> None:
        options = self._options
        config, server_id = options.config, options.server_id
        clock: Any = reactor
        tracer = None
        if options["trace"] is not None:
            trace_file = open(options["trace"], "a", encoding="utf-8")  # noqa: SIM115 (open as long as the process)
            tracer = JSONTracer(trace_file, server_id, clock.seconds)
        server = self._server = real_server(
            config,
            server_id,
            options.catalogue,
            directory=options.directory,
            clock=clock,
            on_failure=self._failed,
            tracer=tracer,
        )
        PROCESS_LOG.view = lambda: server.view
        if options["skip-seq"] is not None:
            server.skip.add(options["skip-seq"])
        server.start()
        if options["executed"]:
            server.machine.on_executed = tell_executed
        self._keep_chat_log(server)
        self._allow_connections(config.limits.connections)
        self._watch_memory(server)
        shared = SharedLimits.of(server, clock)
        # A signal comes at any moment, also while the tokens are in use.
        PROCESS_LOG.on_hangup = lambda: clock.callFromThread(shared.rights.read_again)
        factory = ClientPortFactory(server, clock, shared)
        self._factory = factory
        port_service(config, server_id, config.server(server_id).client, factory).setServiceParent(self._ports)
        redis = config.server(server_id).redis
        if redis is not None:
            port_service(config, server_id, redis, RedisPortFactory(factory)).setServiceParent(self._ports)
        self._open_http_port(server, shared)
        self._ports.privilegedStartService()
        self._ports.startService()
        clock.callWhenRunning(self._take_signals)
        _collect_garbage_seldom()
        # The state of a snapshot that is being loaded stays: to scan it again and again would take a third of the time,
        # and up to a tenth of a second at once.
        server.replica.snapshot_fetcher.on_loaded = gc.freeze
        self._was_up = True
        for warning in server.facts.warnings:
            self._log.warn("{warning}", warning=warning)
        self._log.info(
            "server {id} of cluster {cluster} is up; clients connect to {place}; {data}",
            id=server_id,
            cluster=config.cluster,
            place=client_place(config, server_id),
            data=data_place(options.directory),
        )

    def _allow_connections(self, connections: int) -> None:
        """Warn if the process may not open enough files for `connections` clients: each needs a file descriptor.

        The HTTP port may have as many connections in addition. They are not added here, since both ports are hardly
        ever full at once.
        """
        files = allow_many_files()
        if files < connections + OTHER_FILES_MAX:
            self._log.warn(
                "limits.connections is {connections}, but this process may open {files} files only (ulimit -n)",
                connections=connections,
                files=files,
            )

    def _watch_memory(self, server: Server) -> None:
        """Have the server refuse changes before its process is killed for want of memory."""
        configured = server.config.limits.memory_bytes
        limit = found_limit_bytes() if configured is None else configured
        if limit is not None:
            self._memory_watch = MemoryWatch(reactor, limit, server.memory_is_short, used_bytes)
            self._memory_watch.start()

    def _open_http_port(self, server: Server, shared: SharedLimits) -> None:
        endpoint = server.config.server(server.server_id).http
        if endpoint is None:
            return
        clock: Any = reactor
        lag = ReactorLag(clock)
        lag.start()

        def make() -> HTTPSite:
            from pfsb.frontends.http.protocol import HTTPSite
            from pfsb.service.metrics import Metrics

            metrics = Metrics(server.facts, lag, shared)
            metrics.site = HTTPSite(server, clock, metrics.render, shared)
            return metrics.site

        self._http = LazyHTTPSite(make)
        port_service(server.config, server.server_id, endpoint, self._http).setServiceParent(self._ports)

    def _keep_chat_log(self, server: Server) -> None:
        """Write `chat.log` while the cluster runs the chat.

        When the cluster stops running the chat, the file is put aside: the lines of a later chat count from 1 again.
        """
        clock: Any = reactor

        self._begin_chat_log(server)
        server.catalogue.watch(lambda: clock.callLater(0, self._begin_chat_log, server))

    def _begin_chat_log(self, server: Server) -> None:
        directory, chat = self._options.directory, _chat(server)
        if directory is not None and chat is not None and self._chat_log is None:
            clock: Any = reactor

            def append(event: Event) -> None:
                writer.append(event)

            def failed(error: Exception) -> None:
                text = "{path} gets no new lines until this server starts again"
                self._log.failure(text, Failure(error), path=str(directory / "chat.log"))

            def ended(_: str) -> None:
                self._chat_log = None
                clock.callLater(0, put_aside)

            def put_aside() -> None:
                writer.put_aside()
                self._begin_chat_log(server)

            feed, verb = server.event_feed, chat.listen_verb
            told = feed.subscribe(verb, 0, append, failed, ended, is_patient=True)
            log = ChatLog(directory / "chat.log")
            writer = self._chat_log = ChatLogWriter(clock, log, feed.log(verb).events, told.next - 1)
            writer.start()

    def _take_signals(self) -> None:
        """Stop the reactor at SIGTERM and SIGINT, so that the exit status is 0: the server was asked to stop."""

        def stop(*_: object) -> None:
            clock: Any = reactor
            clock.callFromThread(stop_reactor)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    def stopService(self) -> Deferred[None]:
        """Take no more commands, hand over if this server leads and the others go on, finish what is under way, and
        stop.

        The Deferred fires when the server has stopped.
        """
        super().stopService()
        stopped: Deferred[None] = Deferred()
        server = self._server
        if server is None or server.replica.turn.stopped:
            if server is not None:
                # The reactor closes every port at its end; a transport that was not stopped would open its port again.
                server.replica.stop()
            stopped.callback(None)
            return stopped

        def drained() -> None:
            self._factory.leave()
            if self._http is not None:
                self._http.leave()
            if self._memory_watch is not None:
                self._memory_watch.stop()
            server.stop()
            self._log.info("the server has stopped, as it was asked to")
            if server.disk_is_stuck:
                # The writer's thread is inside a system call. The end of the interpreter could wait for it.
                self._exit_status = 0
            if self._chat_log is not None and not self._chat_log.close():
                self._exit_status = 0
            self._ports.stopService()
            clock: Any = reactor
            clock.callLater(LAST_WORDS_SECONDS, stopped.callback, None)

        if WHOLE_CLUSTER.stops:
            server.drain(drained)  # none of the others would lead for longer than a moment
        else:
            server.retire(drained)
        return stopped

    def _failed(self, failure: Failure) -> None:
        """Called when the server cannot go on: logs the reason, and ends the process with `EXIT_FAILED`.

        The protocol tolerates a server that crashes, but not one that goes on in a wrong state.
        """
        why = failure.getErrorMessage()
        if failure.check(StorageWasReplaced):
            why = f"{why}; {data_place(self._options.directory)}"
        if failure.check(StorageWasReplaced, StorageRefused, CannotRun, StateDiverged):
            self._log.critical("{error}", error=why)
        else:
            self._log.failure("this server stops itself", failure)
        self._last_words = f"server {self._options.server_id} stops: {why}"
        if self._server is not None:
            self._server.replica.turn.stop()
        self._exit_status = EXIT_FAILED
        stop_reactor()

    def _end(self) -> None:
        """Called when the interpreter is about to end: writes the last lines of the text log.

        Ends the process at once if an exit status is set, or if the disk with the text log does not answer: a thread
        that is inside a system call holds locks for which the interpreter would wait.
        """
        is_written = PROCESS_LOG.finish(LOG_SECONDS)
        if self._last_words:
            tell_terminal(self._last_words)
        if self._exit_status is not None:
            os._exit(self._exit_status)
        if not is_written:
            os._exit(0 if self._was_up else 1)


def _chat(server: Server) -> Any:
    """The application `chat`, if the cluster runs it and it offers its lines as events (`IEventLog`); else None."""
    applications = server.catalogue.applications
    return next((each for each in applications if each.name == "chat" and IEventLog.providedBy(each)), None)


def _collect_garbage_seldom() -> None:
    """Make garbage collections rare: a server makes hardly any cycles, and most objects live only until the messages of
    one update have been exchanged.

    With the interpreter's own threshold (700) collecting takes a tenth of a busy server's time. Objects made during the
    start are exempt from collections: scanning them takes 20 ms, and would free only a few hundred kilobytes.
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def tell_terminal(text: str) -> None:
    """Write one line to standard error itself; twistd makes lines of the log of what is written to `sys.stderr`."""
    if sys.__stderr__ is not None:
        with suppress(OSError, ValueError):
            sys.__stderr__.write(f"pfsb: {text}\n")
            sys.__stderr__.flush()


def stop_reactor() -> None:
    """Stop the reactor: now, or as soon as it runs. Has no effect if it is stopping, as after a second SIGTERM."""
    clock: Any = reactor
    try:
        clock.stop()
    except ReactorNotRunning:
        with suppress(ReactorNotRunning):
            clock.callWhenRunning(clock.stop)


def makeService(options: Options) -> Service:
    """Make the service of one server. twistd calls this function by way of `pfsb.service.start`."""
    options.leave_terminal()
    return ServerService(options)
