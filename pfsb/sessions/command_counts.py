"""CommandCounts: how many commands of this server's clients were executed, by verb and result, for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from pfsb.applications.interfaces import PENDING, Done, Refused, RunResults

_ALL_DONE: Final = {Done}


@define
class CommandCounts:
    """Counts commands bundle by bundle: if all results of a bundle are Done, as usual, one step counts all of them."""

    _done: Counter[str] = field(factory=Counter)
    """Verb -> number of commands whose result was `Done`."""
    _others: Counter[tuple[str, str]] = field(factory=Counter)
    """(verb, result) -> number of commands that were refused, or, such as a LOCK, were PENDING when they had run."""

    def note_run(self, verb: str, results: Sequence[Any]) -> None:
        """Counts a run: commands of one verb that were executed together."""
        if type(results) is RunResults:
            self._done[verb] += len(results)
        else:
            self.note([verb] * len(results), results)

    def note(self, verbs: Sequence[str], results: Sequence[Any]) -> None:
        if set(map(type, results)) == _ALL_DONE:
            self._done.update(verbs)
            return
        for verb, result in zip(verbs, results, strict=True):
            if isinstance(result, Refused):
                self._others[verb, result.code] += 1
            elif result is PENDING:
                self._others[verb, "PENDING"] += 1
            else:
                self._done[verb] += 1

    def by_verb_and_result(self) -> Counter[tuple[str, str]]:
        """(verb, result) -> number of commands; the result is OK, the code of a refusal, or PENDING for a command, such
        as a LOCK, whose result comes later.
        """
        return Counter({(verb, "OK"): count for verb, count in self._done.items()}) + self._others
