"""Writes docs/broken.rst: the planted defects, and how the simulator finds each of them.

    python docs/make_broken_table.py

After a change of the simulator or of the protocol, other seeds show a defect. With `--hunt`, the program first looks
for a seed of each defect anew, which takes some minutes. After each defect it rewrites docs/broken.rst and
pfsb/simulator/defects/expected_catches.json. Names of defects after `--hunt` limit the hunt to these defects.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pfsb.simulator.defects.all_defects import DEFECTS
from pfsb.simulator.defects.defect import Defect
from pfsb.simulator.defects.expected_catches import CAUGHT, DIRECTED, Catch
from pfsb.simulator.runs.defect_hunt import FEW_SEEDS, first_profile, hunt, hunt_directed
from pfsb.simulator.schedules.all_schedules import SCHEDULES

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "broken.rst"
PINNED = ROOT / "pfsb" / "simulator" / "defects" / "expected_catches.json"

INTRODUCTION = """\
Deliberate defects
==================

A simulator that finds nothing proves nothing, unless it finds what is there. Each row is a server that is wrong in one
respect, made so in the simulator only, in all servers and all their lives (``pfsb.simulator.defects.all_defects``).
*Found by* is a profile of random runs (``pfsb simulate --profile``) with the first seed that notices, or a directed
schedule; *said by* is the beginning of what the check says, with N for each number. The seeds are pinned: the tests run
each of them, broken and whole.
"""

SCHEDULES_INTRODUCTION = """\
Directed schedules
------------------

They look closely at what random runs rarely come to (``pfsb.simulator.schedules.all_schedules``), each made for a
situation. A correct server passes each of them with every seed.
"""

STAGED = """\
Some defects are shown by such a schedule, too, and that is pinned as well:
"""


def render(caught: Mapping[str, Catch], directed: Mapping[str, Catch]) -> str:
    rows = [
        (f"``{v.name}``", _plain(v.broken), _plain(v.source), *_found(caught[v.name]))
        for v in DEFECTS.values()
        if v.name in caught
    ]
    staged = [(f"``{name}``", *_found(directed[name])) for name in DEFECTS if name in directed]
    schedules = [(f"``{name}``", _plain(_summary(schedule.__doc__))) for name, schedule in SCHEDULES.items()]
    lines = [
        INTRODUCTION,
        *_table(("variant", "what is broken", "source", "found by", "said by"), (18, 32, 15, 15, 20), rows),
        SCHEDULES_INTRODUCTION,
        *_table(("schedule", "what must hold"), (25, 75), schedules),
        STAGED,
        *_table(("variant", "shown by", "said by"), (25, 30, 45), staged),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def pinned(caught: Mapping[str, Catch], directed: Mapping[str, Catch]) -> str:
    """The text of expected_catches.json. Each defect has a line of its own, to keep the changes by a hunt small."""
    tables = [f'  "caught": {{\n{_pins(caught)}\n  }}', f'  "directed": {{\n{_pins(directed)}\n  }}']
    return "{\n" + ",\n".join(tables) + "\n}\n"


def _pins(catches: Mapping[str, Catch]) -> str:
    rows = [(name, catches[name]) for name in DEFECTS if name in catches]
    return ",\n".join(
        f"    {json.dumps(name)}: {json.dumps([catch.schedule, catch.seed, catch.check])}" for name, catch in rows
    )


def _found(catch: Catch) -> tuple[str, str]:
    where = catch.schedule if catch.schedule in SCHEDULES else f"profile {catch.schedule}"
    return f"{where}, seed {catch.seed}", _plain(catch.check)


def _summary(docstring: str | None) -> str:
    assert docstring is not None, "each schedule says what it is about"
    return docstring.partition("\n")[0]


def _plain(text: str) -> str:
    """`text` in reStructuredText, where underscores and asterisks stand for themselves."""
    return text.replace("_", "\\_").replace("*", "\\*").replace("`", "")


def _table(header: tuple[str, ...], widths: tuple[int, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in [header, *rows]:
        for first, cell in enumerate(row):
            lines.append(f"   {'* -' if not first else '  -'} {cell}".rstrip())
    return [*lines, ""]


def _hunt_all(names: Iterable[str]) -> None:
    caught, directed = dict(CAUGHT), dict(DIRECTED)
    for name in names:
        _note(caught, name, hunt(DEFECTS[name], CAUGHT.get(name)))
        if name in DIRECTED or _is_rare(DEFECTS[name], caught.get(name)):
            _note(directed, name, hunt_directed(DEFECTS[name]))
        sys.stderr.write(f"{name}: {caught.get(name, 'not caught')}\n")
        _write(caught, directed)


def _note(table: dict[str, Catch], name: str, catch: Catch | None) -> None:
    table.pop(name, None)
    if catch is not None:
        table[name] = catch


def _is_rare(defect: Defect, catch: Catch | None) -> bool:
    """True if a catch needs many seeds, or another profile than that with which its hunt has begun: then a directed
    schedule is hunted, too."""
    return catch is None or (catch.schedule, catch.seed >= FEW_SEEDS) != (first_profile(defect), False)


def _write(caught: Mapping[str, Catch], directed: Mapping[str, Catch]) -> None:
    PINNED.write_text(pinned(caught, directed), encoding="utf-8")
    TABLE.write_text(render(caught, directed), encoding="utf-8")


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--hunt"]:
        _hunt_all(arguments[1:] or DEFECTS)
    else:
        TABLE.write_text(render(CAUGHT, DIRECTED), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
