"""`pfsb client` at a terminal: a prompt below the replies and events, with completion and history, by prompt_toolkit.

prompt_toolkit runs in a thread with an event loop of its own; the client and everything else runs in the reactor.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import re
import secrets
import sys
import threading
from typing import Any, Final

from attrs import define, field
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_or_none, run_in_terminal
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import is_dumb_terminal
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall

from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.command import WAITING_VERBS, Command, verb_of
from pfsb.client.core.replies import EventLine, Reply
from pfsb.commands.line_client import FATES, LineClient
from pfsb.commands.line_refusals import refusal_of_line
from pfsb.commands.survey import survey
from pfsb.commands.terminal_input import CommandCompleter

CONNECT_SECONDS: Final = 1.0
"""How long, in seconds, the first prompt waits for a server, so that it can name it."""
WAITING_AFTER_SECONDS: Final = 1.0
"""How long, in seconds, a command may be without an answer before it is shown as waiting."""
LAST_ANSWERS_SECONDS: Final = 1.0
"""How long, in seconds, the program waits at its end for the answers to commands that were sent before."""
OUTAGE_AFTER_SECONDS: Final = 5.0
"""How long, in seconds, a command may be without an answer before the person is told which servers are up."""
REFRESH_SECONDS: Final = 0.5
"""Time, in seconds, between two looks whether the server or the waiting commands in the prompt have changed."""
MENU_LINES: Final = 6
"""Number of lines below the prompt that are kept free for the menu of completions."""
_SYLLABLES: Final = [consonant + vowel for consonant in "bdfgjklmnprstv" for vowel in "aeiou"]


@define(eq=False)
class Waiting:
    """A command that a person has typed and that has no answer yet."""

    line: str
    command: Command
    sent: float
    """The time at which the command was typed, in seconds by the reactor's clock."""
    number: int
    """The number of the command: 1 for the first that was typed, and so on."""
    answered: Deferred[None] = field(factory=Deferred)
    calls: list[IDelayedCall] = field(factory=list)
    is_shown: bool = False
    """Whether the command is shown beside the prompt as one that waits."""


class Terminal:
    """Reads lines in a thread of its own, and prints above the line that is being typed.

    `run` is called before the client starts. It and the methods `show...` are called in the reactor's thread. `source`
    and `sink` stand for the terminal in tests; otherwise prompt_toolkit chooses them.
    """

    def __init__(
        self,
        reactor: Any,
        client: LineClient,
        greeting: str,
        history: History,
        source: Input | None = None,
        sink: Output | None = None,
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._greeting = greeting
        self.completer = CommandCompleter()
        self._source = source
        self._sink = sink if sink is not None else _output()
        self._history = history
        self._connected = threading.Event()
        self._loop_runs = threading.Event()
        self._ended: Deferred[None] = Deferred()
        self._waiting: list[Waiting] = []
        self._typed = 0
        self._was_greeted = False
        self._named: ServerAddress | None = None
        """The server that the person was told last that the client is connected to; None: none can be reached."""

    def run(self) -> Deferred[None]:
        """Start to read lines. The Deferred fires at the end of input, or when the user types QUIT, EXIT or BYE."""
        core = self._client.core
        core.on_event, core.on_server, core.on_session_end = self.show_event, self.show_server, self.show_session_end
        core.on_unreachable = self._show_unreachable
        threading.Thread(target=self._run_loop, daemon=True).start()
        self._loop_runs.wait()
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._interrupt)
        return self._ended

    def show(self, text: str) -> None:
        """Print a line above the line that is being typed."""
        try:
            self._loop.call_soon_threadsafe(self._print, text)
        except RuntimeError:  # the prompt is gone
            sys.stdout.write(f"{text}\n")

    def show_server(self, address: ServerAddress) -> None:
        """Called when the client has connected to a server: prints which one. Prints nothing before the greeting, which
        names the server itself; and nothing for the server that was named last: without a majority the client tries the
        same servers again and again."""
        if self._was_greeted and address != self._named:
            self.show(f"connected to server {address.id} at {address.shown}")
        self._named = address
        if not self.completer.commands:
            self._client.command("HELP").addCallbacks(self.completer.learn, lambda _: None)
        self._connected.set()

    def show_event(self, event: EventLine) -> None:
        """Print an event of a server; but not its welcome, since the program prints a greeting of its own."""
        if event.name != "WELCOME":
            self.show(event.line)

    def show_session_end(self, end: SessionEnd) -> None:
        """Print why the session has ended, and which locks are lost with it."""
        self.show(f"{end.text}; locks lost: {', '.join(end.locks)}" if end.locks else end.text)

    def _show_unreachable(self, text: str) -> None:
        self._named = None
        self.show(f"{text}; trying again")

    # ------------------------------------------------------------------ in the thread of the prompt

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._read())
        finally:
            self._loop_runs.set()
            self._reactor.callFromThread(self._end)

    async def _read(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            rprompt=self._right_prompt,
            completer=self.completer,
            complete_while_typing=False,
            history=self._history,
            reserve_space_for_menu=MENU_LINES,
            input=self._source,
            output=self._sink,
        )
        self._loop_runs.set()
        await asyncio.to_thread(self._connected.wait, CONNECT_SECONDS)
        self._print(self._greeting.format(server=self._server_text()))
        self._was_greeted = True
        refreshing = asyncio.create_task(self._refresh())
        with contextlib.suppress(EOFError):
            while await self._read_lines():
                pass
        refreshing.cancel()

    async def _refresh(self) -> None:
        """Have the prompt drawn anew when the server or the waiting commands in it have changed."""
        shown = ""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            text = self._prompt() + self._right_prompt()
            if text != shown:
                shown = text
                self._session.app.invalidate()

    async def _read_lines(self) -> bool:
        """Read one input of a person: a line that was typed, or several that were pasted; and send each as a command.
        Returns False if one of the lines ends the program, else True."""
        try:
            text = await self._session.prompt_async(handle_sigint=False)
        except KeyboardInterrupt:  # Ctrl-C: the line is dropped
            return True
        for line in map(str.strip, text.splitlines()):
            if line.upper() in ("QUIT", "EXIT", "BYE"):
                return False
            if line:
                self._reactor.callFromThread(self._send, line)
        return True

    def _print(self, text: str) -> None:
        def write() -> None:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

        if get_app_or_none() is None:
            write()
        elif self._sink is not None:
            run_in_terminal(write)
        else:
            # prompt_toolkit does not draw the line anew on a terminal that cannot move its cursor.
            sys.stdout.write(f"\n{text}\n{self._prompt()}{self._session.default_buffer.text}")
            sys.stdout.flush()

    def _prompt(self) -> str:
        core = self._client.core
        return f"server {core.server.id}> " if core.is_connected else "no server> "

    def _right_prompt(self) -> str:
        """The text at the right edge of the prompt's line: the commands that have waited for some seconds, and for how
        long; empty if there are none. It is also empty beside a line that was sent or dropped, whose prompt stays on
        the screen as it is."""
        if self._session.app.is_done:
            return ""
        now = self._reactor.seconds()
        waits = [f"{each.line} ({now - each.sent:.0f} s)" for each in tuple(self._waiting) if each.is_shown]
        return f"waiting: {', '.join(waits)}" if waits else ""

    def _server_text(self) -> str:
        core = self._client.core
        return f"server {core.server.id} ({core.server.shown})" if core.is_connected else "no server yet"

    # ------------------------------------------------------------------ in the reactor

    def _send(self, line: str) -> None:
        why_not = refusal_of_line(line)
        if why_not:
            self.show(why_not)
            return
        self._typed += 1
        asked, command = self._client.send(line)
        waiting = Waiting(line, command, self._reactor.seconds(), self._typed)
        self._waiting.append(waiting)
        waiting.calls += [
            self._reactor.callLater(WAITING_AFTER_SECONDS, self._tell_waiting, waiting),
            self._reactor.callLater(OUTAGE_AFTER_SECONDS, self._tell_outage, line),
        ]
        asked.addBoth(self._answered, waiting)
        asked.addCallbacks(self._heard, self._failed, callbackArgs=(waiting,), errbackArgs=(waiting,))

    def _answered(self, result: Any, waiting: Waiting) -> Any:
        self._waiting.remove(waiting)
        for call in waiting.calls:
            if call.active():
                call.cancel()
        waiting.answered.callback(None)
        return result

    def _heard(self, reply: Reply, waiting: Waiting) -> None:
        *rows, last = reply.lines()
        # The answer to a command behind which others were typed says to which command it belongs.
        mark = f"{waiting.line}: " if waiting.is_shown and waiting.number < self._typed else ""
        self.show("\n".join([*rows, f"{mark}{last}"]))

    def _failed(self, reason: Any, waiting: Waiting) -> None:
        if not self._ended.called:  # otherwise the person has left, as from a lock that was not free
            self.show(f"{waiting.line}: not answered: {reason.getErrorMessage()}")

    def _tell_waiting(self, waiting: Waiting) -> None:
        """Called when a command has had no answer for `WAITING_AFTER_SECONDS`: shows it beside the prompt from now on.
        For a LOCK, also prints that it waits until the lock is free."""
        waiting.is_shown = True
        if verb_of(waiting.line) == "LOCK":
            self.show(f"{waiting.line}: waits until the lock is free; other commands can be typed")

    def _tell_outage(self, line: str) -> None:
        """Called when a command has had no answer for `OUTAGE_AFTER_SECONDS`: asks all servers for their state, and
        prints which of them are up. Does nothing for a verb that may wait long, such as LOCK."""
        if verb_of(line) not in WAITING_VERBS:
            asked = Deferred.fromCoroutine(survey(self._reactor, self._client.core.addresses))
            asked.addCallback(lambda found: self.show(f"{line}: no answer yet; {found.outage}; it is tried on"))

    def _interrupt(self) -> Deferred[None]:
        """Called when the reactor stops, as after SIGTERM: ends the prompt.

        The Deferred fires when the prompt has ended and has set the terminal back to the settings that it had before.
        """

        def leave() -> None:
            app = get_app_or_none()
            if app is not None:
                app.exit(exception=EOFError())

        over: Deferred[None] = Deferred()
        if self._ended.called:
            over.callback(None)
            return over
        self._ended.addBoth(lambda _: over.callback(None))
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(leave)
        return over

    def _end(self) -> None:
        """Called when the prompt has ended: waits up to `LAST_ANSWERS_SECONDS` for the answers to the last commands,
        which may have been pasted together with a QUIT. Prints the fate of those that have no answer then."""
        with contextlib.suppress(ValueError):  # the shutdown has begun
            self._reactor.removeSystemEventTrigger(self._trigger)
        last = [each for each in self._waiting if verb_of(each.line) not in WAITING_VERBS]
        answered = gatherResults([each.answered for each in last], consumeErrors=True)
        answered.addTimeout(LAST_ANSWERS_SECONDS, self._reactor)
        answered.addErrback(lambda _: self._tell_fates())
        answered.addBoth(lambda _: self._ended.callback(None))

    def _tell_fates(self) -> None:
        for each in self._waiting:
            if verb_of(each.line) not in WAITING_VERBS:
                fate = each.command.fate
                self.show(f"{each.line}: no answer yet; fate={fate}: {FATES[fate]}")


def greeting(cluster: str, servers: int, name: str) -> str:
    """The three lines that are printed first; "{server}" in them stands for the server that the client is connected to.

    `cluster` is the name of the cluster, `servers` the number of its servers, and `name` the client id.
    """
    quoted = cluster.replace("{", "{{").replace("}", "}}")
    return (
        f"you are {name}, at {{server}}; cluster {quoted} has {servers} server{'s' * (servers > 1)}\n"
        "Tab completes, Up finds earlier lines, Ctrl-C drops a line, Ctrl-D or QUIT ends\n"
        "try SAY hello, LISTEN from=1, PUT colour blue, GET colour, LOCK printer, HELP"
    )


def friendly_name() -> str:
    """A client id that can be said aloud: the name of the user, and one of 24 million words, so that it is unique."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the machine does not know this user
        user = ""
    word = "".join(secrets.choice(_SYLLABLES) for _ in range(4))
    return f"{re.sub('[^A-Za-z0-9_.]', '', user)[:20] or 'guest'}-{word}"


def _output() -> Output | None:
    """The terminal as prompt_toolkit writes to it. None for a terminal that cannot move its cursor: prompt_toolkit then
    chooses the output itself."""
    if is_dumb_terminal():
        return None
    output = create_output()
    if isinstance(output, Vt100_Output):
        # Where the cursor is need not be known, and asking terminals that do not answer delays everything.
        output.enable_cpr = False
    return output
