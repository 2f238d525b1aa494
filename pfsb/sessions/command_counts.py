"""How many commands this server's clients have had executed, by verb and result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from pfsb.applications.interfaces import PENDING, Done, Refused

_ALL_DONE: Final = {Done}


@define
class CommandCounts:
    """Told of whole bundles: almost always everything in one is done, and then it is counted without a look at each."""

    _done: Counter[str] = field(factory=Counter)
    """By verb."""
    _others: Counter[tuple[str, str]] = field(factory=Counter)

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
        """The result is OK, PENDING for what waits (LOCK), or the code of a refusal."""
        return Counter({(verb, "OK"): count for verb, count in self._done.items()}) + self._others
