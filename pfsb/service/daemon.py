"""A server that goes into the background: the command in the terminal waits until the server is up, or tells why it is
not.

twistd has this, too, but its command waits for ever when the server's process ends before it has said anything.
"""

from __future__ import annotations

import os
from typing import NoReturn

from attrs import define, field

_UP = b"up"
READ_BYTES = 65_536


@define(eq=False)
class Daemon:
    """This process in the background, as long as the command in the terminal waits for it.

    What is written to standard error before `report_up` appears in the terminal.
    """

    _report: int
    """File descriptor of a pipe to the command in the terminal."""
    _is_up: bool = field(init=False, default=False)

    def report_up(self) -> None:
        """Let the command in the terminal end with exit status 0, and leave the terminal for good."""
        if self._is_up:
            return
        self._is_up = True
        os.write(self._report, _UP)
        os.close(self._report)
        _redirect(2, os.devnull)


def go_into_background(log_name: str) -> Daemon:
    """Return in a new process, which is in a session of its own. The process that has called this function waits.

    It ends with exit status 0 when the new one has called `report_up`. If that one ends before, it ends with exit
    status 1, and has shown what the new process wrote to standard error; if that was nothing, it names the log
    `log_name`.
    """
    report, report_end = os.pipe()
    text, text_end = os.pipe()
    if os.fork():
        os.close(report_end)
        os.close(text_end)
        _wait(report, text, log_name)
    os.close(report)
    os.close(text)
    os.setsid()
    if os.fork():
        os._exit(0)  # the process that goes on leads no session, so that it never gets a terminal
    _redirect(0, os.devnull)
    _redirect(1, os.devnull)
    os.dup2(text_end, 2)
    os.close(text_end)
    return Daemon(report_end)


def _wait(report: int, text: int, log_name: str) -> NoReturn:
    """Show what comes from the pipe `text`, and end the process with the exit status that `report` tells."""
    said = False
    while data := os.read(text, READ_BYTES):
        said = True
        os.write(2, data)
    is_up = os.read(report, len(_UP)) == _UP
    if not is_up and not said:
        os.write(2, f"pfsb: the server has ended before it was up; {log_name} may say why\n".encode())
    os._exit(0 if is_up else 1)


def _redirect(number: int, path: str) -> None:
    opened = os.open(path, os.O_RDWR)
    os.dup2(opened, number)
    os.close(opened)
