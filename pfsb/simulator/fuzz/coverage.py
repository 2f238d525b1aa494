"""Which lines of a target an input reaches that no earlier input has reached."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any

from attrs import define, field


@define(eq=False)
class LineCoverage:
    """Counts the different lines that run, in files whose path has one of `parts` in it.

    A function of which every line was reached is not traced any more, so watching costs little after a while.
    """

    parts: Sequence[str]
    lines: int = field(default=0, init=False)
    """Number of different lines that were reached so far."""
    _unreached: dict[CodeType, set[int]] = field(factory=dict, init=False)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the lines that this thread runs inside of the `with` statement."""
        if not self.parts:
            yield
            return
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: Any, _event: str, _argument: object) -> Any:
        code = frame.f_code
        unreached = self._unreached.get(code)
        if unreached is None:
            unreached = self._unreached[code] = self._lines_of(code)
        return self._reach if unreached else None

    def _reach(self, frame: Any, event: str, _argument: object) -> Any:
        if event == "line":
            unreached = self._unreached[frame.f_code]
            if frame.f_lineno in unreached:
                unreached.discard(frame.f_lineno)
                self.lines += 1
        return self._reach

    def _lines_of(self, code: CodeType) -> set[int]:
        if not any(part in code.co_filename for part in self.parts):
            return set()
        return {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
