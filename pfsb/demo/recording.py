"""The files that a demo leaves behind: the recorded terminal, the merged traces of the servers, and a summary."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

from pfsb.demo.verdict import Verdict

COLUMNS: Final = 120
ROWS: Final = 40
_TIME = re.compile(r'\{"t":([0-9.]+),')
_OVERWRITE: Final = "\x1b[K"


class Screen:
    """A terminal that is recorded as an asciicast (version 2): a header, then one line [seconds, "o", text] per output.

    The output also goes to `out`, where a person watches it; progress is shown there only if `out` is a terminal.
    """

    def __init__(self, cast: TextIO, out: TextIO, seconds: Callable[[], float], title: str) -> None:
        self._cast = cast
        self._out = out
        self._seconds = seconds
        self._began = seconds()
        self._on_progress_line = False
        header = {"version": 2, "width": COLUMNS, "height": ROWS, "timestamp": int(self._began), "title": title}
        cast.write(json.dumps(header) + "\n")

    @property
    def elapsed(self) -> float:
        """Seconds since the recording began."""
        return self._seconds() - self._began

    def say(self, text: str) -> None:
        """Show one or more whole lines."""
        start = f"\r{_OVERWRITE}" if self._on_progress_line else ""
        self._on_progress_line = False
        self._record(start + text.replace("\n", "\r\n") + "\r\n")
        self._out.write((start if self._out.isatty() else "") + text + "\n")
        self._out.flush()

    def progress(self, text: str) -> None:
        """Show a line that the next output replaces."""
        self._on_progress_line = True
        shown = f"\r{text}{_OVERWRITE}"
        self._record(shown)
        if self._out.isatty():
            self._out.write(shown)
            self._out.flush()

    def _record(self, text: str) -> None:
        self._cast.write(json.dumps([round(self.elapsed, 6), "o", text], ensure_ascii=False) + "\n")


def merge_traces(parts: Iterable[Path], merged: Path) -> int:
    """Write the lines of all traces to `merged`, in the order of their times; returns the number of lines.

    An incomplete line at the end of a trace, which a killed server may leave, is dropped.
    """
    count = 0
    with open(merged, "w", encoding="utf-8") as out:
        for _t, line in heapq.merge(*map(_timed_lines, parts), key=lambda timed: timed[0]):
            out.write(line)
            count += 1
    return count


def _timed_lines(part: Path) -> Iterator[tuple[float, str]]:
    with open(part, encoding="utf-8", errors="replace") as file:
        for line in file:
            found = _TIME.match(line)
            if found is not None and line.endswith("}\n"):
                yield float(found[1]), line


def summary(title: str, story: Iterable[tuple[float, str]], verdict: Verdict, trouble: str) -> str:
    """The text of `summary.md`: the events with their seconds from the start, and the verdict."""
    lines = [f"# {title}", "", "## What happened", ""]
    lines += [f"* {seconds:6.2f} s: {text}" for seconds, text in story]
    lines += ["", "## Verdict", "", *verdict_lines(verdict, trouble), ""]
    return "\n".join(lines)


def verdict_lines(verdict: Verdict, trouble: str) -> list[str]:
    """The verdict in lines that suit a terminal as well as Markdown."""
    lines = [f"* {'yes' if check.holds else 'NO '}  {check.claim}: {check.figure}" for check in verdict.checks]
    lines += [f"* {name}: {figure}" for name, figure in verdict.figures.items()]
    if trouble:
        lines.append(f"* NO   the scenario came to its end: {trouble}")
    failed = sum(not check.holds for check in verdict.checks) + bool(trouble)
    lines += ["", "All is as it should be." if not failed else f"FAILED: {failed} of the above."]
    return lines
