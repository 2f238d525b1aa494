"""Writes docs/broken.rst: the deliberate defects, and how the simulator finds each of them.

    python docs/make_broken_table.py

With `--hunt`, each is looked for anew first, which takes some minutes: after a change of the simulator, or of the
protocol, other seeds notice. That rewrites pfsb/simulator/caught.py, too; names after `--hunt` look for these only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pfsb.simulator.broken import VARIANTS
from pfsb.simulator.caught import CAUGHT
from pfsb.simulator.directed import SCHEDULES
from pfsb.simulator.hunt import Catch, hunt

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "broken.rst"
PINNED = ROOT / "pfsb" / "simulator" / "caught.py"

INTRODUCTION = """\
Deliberate defects
==================

A simulator that finds nothing proves nothing, unless it finds what is there. Each row is a server that is wrong in one
respect, made so in the simulator only, in all servers and all their lives (``pfsb.simulator.broken``). *Found by* is a
profile of random runs (``pfsb simulate --profile``) with the first seed that notices, or a schedule made for the
situation (``pfsb.simulator.directed``); *said by* is the beginning of what the check says, with N for each number. The
seeds are pinned: the tests run each of them, broken and whole.
"""

DIRECTED = """\
Directed schedules
------------------

They look closely at what random runs rarely come to, or forgive. A correct server passes each of them with every seed.
"""


def render(caught: Mapping[str, Catch]) -> str:
    rows = [
        (f"``{v.name}``", _plain(v.broken), _plain(v.source), *_found(caught[v.name]))
        for v in VARIANTS.values()
        if v.name in caught
    ]
    schedules = [(f"``{name}``", _plain(_summary(schedule.__doc__))) for name, schedule in SCHEDULES.items()]
    lines = [
        INTRODUCTION,
        *_table(("variant", "what is broken", "source", "found by", "said by"), (18, 32, 15, 15, 20), rows),
        DIRECTED,
        *_table(("schedule", "what must hold"), (25, 75), schedules),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def pinned(caught: Mapping[str, Catch]) -> str:
    """The module `pfsb.simulator.caught`."""
    text = PINNED.read_text(encoding="utf-8")
    head = text[: text.index("CAUGHT: Final")]
    lines = ["CAUGHT: Final[Mapping[str, Catch]] = {"]
    for name in VARIANTS:
        if name in caught:
            catch = caught[name]
            check = "'" + catch.check + "'" if '"' in catch.check else f'"{catch.check}"'
            lines += [
                f'    "{name}": Catch(',
                f'        "{catch.schedule}",',
                f"        {catch.seed},",
                f"        {check},",
                "    ),",
            ]
    return head + "\n".join([*lines, "}", ""])


def _found(catch: Catch) -> tuple[str, str]:
    where = catch.schedule if catch.schedule in SCHEDULES else f"profile {catch.schedule}"
    return f"{where}, seed {catch.seed}", _plain(catch.check)


def _summary(docstring: str | None) -> str:
    assert docstring is not None, "each schedule says what it is about"
    return docstring.partition("\n")[0]


def _plain(text: str) -> str:
    """As it stands: names with underscores are no links."""
    return text.replace("_", "\\_").replace("*", "\\*").replace("`", "")


def _table(header: tuple[str, ...], widths: tuple[int, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in [header, *rows]:
        for first, cell in enumerate(row):
            lines.append(f"   {'* -' if not first else '  -'} {cell}".rstrip())
    return [*lines, ""]


def _hunt_all(names: Iterable[str]) -> dict[str, Catch]:
    caught = dict(CAUGHT)
    for name in names:
        catch = hunt(VARIANTS[name])
        if catch is None:
            caught.pop(name, None)
            sys.stderr.write(f"{name}: not caught\n")
        else:
            caught[name] = catch
            sys.stderr.write(f"{name}: {catch.schedule}, seed {catch.seed}: {catch.check}\n")
    return caught


def main(arguments: list[str]) -> None:
    caught: Mapping[str, Catch] = CAUGHT
    if arguments[:1] == ["--hunt"]:
        caught = _hunt_all(arguments[1:] or VARIANTS)
        PINNED.write_text(pinned(caught), encoding="utf-8")
    TABLE.write_text(render(caught), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
