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

    Text that is written to standard error before `report_up` appears in the terminal.
    """

    _report: int
    """File descriptor of a pipe to the command in the terminal."""
    _is_up: bool = field(init=False, default=False)

    def report_up(self) -> None:
        """Called when the server is up: lets the command in the terminal end with exit status 0. From now on, standard
        error is thrown away."""
        if self._is_up:
            return
        self._is_up = True
        os.write(self._report, _UP)
        os.close(self._report)
        _redirect(2, os.devnull)


def go_into_background(log_name: str) -> Daemon:
    """Fork, and return in the new process, which has no terminal. The calling process does not return: it waits for the
    new one, and ends.

    It ends with exit status 0 when the new process has called `report_up`. If the new process ends before that, the
    calling process ends with exit status 1; it has then shown all that the new process wrote to standard error, or, if
    that was nothing, names the log `log_name`.
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
    """Copy everything that comes from the pipe `text` to standard error, until the pipe ends. Then end the process:
    with exit status 0 if the pipe `report` tells that the server is up, else with 1. `log_name` is named if nothing
    came."""
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
