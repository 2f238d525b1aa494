"""`pfsb client` at a terminal: line editing and history by readline, in a thread, since readline blocks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.command import WAITING_VERBS, verb_of
from pfsb.client.core.replies import EventLine, Reply
from pfsb.commands.line_client import LineClient
from pfsb.commands.survey import survey

HISTORY_FILE: Final = "~/.pfsb_history"
HISTORY_LINES_MAX: Final = 2_000
PROMPT_AFTER_SECONDS: Final = 1.0
"""How long, in seconds, the next prompt waits for the reply to a command.

A later reply, for example to a LOCK that has to wait, is printed when it comes.
"""
OUTAGE_AFTER_SECONDS: Final = 5.0
"""How long, in seconds, a command may be without an answer before the person is told which servers are up."""
_CLEAR_LINE: Final = "\r\x1b[K"


class Terminal:
    """Reads lines in a thread of its own, and prints in the reactor's thread, around the line that is being typed."""

    def __init__(self, reactor: Any, client: LineClient) -> None:
        self._reactor = reactor
        self._client = client
        self._prompting = False
        self._prompt = ""
        self._connected = threading.Event()
        self._ended: Deferred[None] = Deferred()

    def run(self) -> Deferred[None]:
        """Start to read lines. The Deferred fires at the end of input, or when the user types QUIT, EXIT or BYE."""
        import readline
        import termios

        self._readline = readline
        settings = termios.tcgetattr(sys.stdin.fileno())
        self._load_history()
        threading.Thread(target=self._read, daemon=True).start()

        def restore(result: Any) -> Any:
            self._save_history()
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)
            return result

        # At an interrupt the thread is still inside readline, which has changed the terminal's settings.
        self._reactor.addSystemEventTrigger("before", "shutdown", restore, None)
        return self._ended

    def show(self, text: str) -> None:
        """Print a line; if the user is typing a line, print the prompt and that line again below it."""
        if self._prompting:
            sys.stdout.write(f"{_CLEAR_LINE}{text}\n{self._prompt}{self._readline.get_line_buffer()}")
        else:
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def show_server(self, address: ServerAddress) -> None:
        """Called when the client has connected to a server: print which one."""
        self.show(f"connected to server {address.id} at {address.shown}")
        self._connected.set()

    def show_event(self, event: EventLine) -> None:
        if event.name != "WELCOME":
            self.show(event.line)

    def show_session_end(self, end: SessionEnd) -> None:
        self.show(f"{end.text}; locks lost: {', '.join(end.locks)}" if end.locks else end.text)

    def _read(self) -> None:
        # The first prompt names the server, if one can be reached soon.
        self._connected.wait(PROMPT_AFTER_SECONDS)
        while True:
            server = self._client.core.server
            self._prompt = f"server {server.id}> " if self._client.core.is_connected else "no server> "
            self._prompting = True
            try:
                line = input(self._prompt)
            except (EOFError, ValueError, OSError):
                break
            finally:
                self._prompting = False
            if not self._run_line(line.strip()):
                break
        self._reactor.callFromThread(self._end)

    def _run_line(self, line: str) -> bool:
        """Called in the thread that reads: have the reactor send the line, and wait `PROMPT_AFTER_SECONDS` at most for
        the reply.

        Returns False if the line ends the program.
        """
        if line.upper() in ("QUIT", "EXIT", "BYE"):
            return False
        if line:
            answered = threading.Event()
            self._reactor.callFromThread(self._send, line, answered.set)
            answered.wait(PROMPT_AFTER_SECONDS)
        return True

    def _send(self, line: str, answered: Callable[[], None]) -> None:
        why_not = refusal_of_line(line)
        if why_not:
            self.show(why_not)
            answered()
            return

        def heard(reply: Reply) -> None:
            for each in reply.lines():
                self.show(each)

        def failed(reason: Any) -> None:
            self.show(f"not answered: {reason.getErrorMessage()}")

        asked = self._client.command(line)
        asked.addBoth(_cancel, self._reactor.callLater(OUTAGE_AFTER_SECONDS, self._tell_outage, line))
        asked.addCallbacks(heard, failed).addBoth(lambda _: answered())

    def _tell_outage(self, line: str) -> None:
        """Called when a command has no answer for long: say how it stands with the servers."""
        if verb_of(line) not in WAITING_VERBS:
            asked = Deferred.fromCoroutine(survey(self._reactor, self._client.core.addresses))
            asked.addCallback(lambda found: self.show(f"{line}: no answer yet; {found.outage}; it is tried on"))

    def _end(self) -> None:
        sys.stdout.write("\n")
        if not self._ended.called:
            self._ended.callback(None)

    def _load_history(self) -> None:
        self._readline.set_history_length(HISTORY_LINES_MAX)
        try:
            self._readline.read_history_file(os.path.expanduser(HISTORY_FILE))
        except OSError:
            # There is no history file yet, or it cannot be read: begin with an empty history.
            return

    def _save_history(self) -> None:
        try:
            self._readline.write_history_file(os.path.expanduser(HISTORY_FILE))
        except OSError as error:
            sys.stderr.write(f"pfsb client: the history was not saved: {error}\n")


def _cancel(result: Any, call: IDelayedCall) -> Any:
    """Cancel a call that is not needed any more; returns `result`."""
    if call.active():
        call.cancel()
    return result


def refusal_of_line(line: str) -> str:
    """The reason why this client does not send the line; empty if the line may be sent."""
    if line.startswith("#"):
        return "this client numbers its commands by itself; write the command without #number"
    if line.split(None, 1)[0].upper() == "HELLO":
        return "this client says HELLO by itself; start it with --client-id to choose who it is"
    try:
        line.encode()
    except UnicodeEncodeError:
        return "this is not UTF-8; set your terminal, or your shell's LANG, to UTF-8"
    return "one line at a time" if "\n" in line else ""
