"""Writes docs/paper-map.rst: where in the code each figure of the paper, and the repair of each defect, is found.

    python docs/make_paper_map.py

The page is made from docstrings and comments: a function or class whose docstring begins "Figure 7, Block B:" claims to
implement that block, a module whose docstring begins "Section 5.6:" claims that section, and code that repairs a defect
names the defect (G7) in a docstring or comment. The sources are read, not imported.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import field, frozen

ROOT = Path(__file__).resolve().parents[1]
PAPER_MAP = ROOT / "docs" / "paper-map.rst"
PROTOCOL = "pfsb/paxos"
ONLOOKERS = ("pfsb/demo/", "pfsb/simulator/", "pfsb/paxos/invariants.py")
"""Beginnings of paths whose code shows or checks the repairs of defects: such code is not listed as a repair."""

FIGURES = {
    2: (
        "Data structures",
        {
            "A": "server variables",
            "B": "view state variables",
            "C": "Prepare phase variables",
            "D": "global ordering variables",
            "E": "timer variables",
            "F": "client handling variables",
        },
    ),
    3: (
        "Message types",
        {
            "A": "CLIENT_UPDATE",
            "B": "VIEW_CHANGE",
            "C": "VC_PROOF",
            "D": "PREPARE",
            "E": "PREPARE_OK",
            "F": "PROPOSAL",
            "G": "ACCEPT",
            "H": "GLOBALLY_ORDERED_UPDATE",
        },
    ),
    4: (
        "Conflict checks",
        {
            "A": "VIEW_CHANGE",
            "B": "VC_PROOF",
            "C": "PREPARE",
            "D": "PREPARE_OK",
            "E": "PROPOSAL",
            "F": "ACCEPT",
        },
    ),
    5: (
        "Update rules",
        {
            "A": "VIEW_CHANGE",
            "B": "PREPARE",
            "C": "PREPARE_OK",
            "D": "PROPOSAL",
            "E": "ACCEPT",
            "F": "GLOBALLY_ORDERED_UPDATE",
        },
    ),
    6: (
        "Leader election",
        {
            "A": "Progress_Timer expires",
            "B": "upon VIEW_CHANGE",
            "C": "upon VC_PROOF",
            "D": "Preinstall_Ready",
            "E": "Shift_to_Leader_Election",
        },
    ),
    7: (
        "Prepare phase",
        {"A": "Shift_to_Prepare_Phase", "B": "upon PREPARE", "C": "upon PREPARE_OK"},
    ),
    8: ("Prepare phase, helpers", {"A": "Construct_DataList", "B": "View_Prepared_Ready"}),
    9: ("Shift to a regular state", {"A": "Shift_to_Reg_Leader", "B": "Shift_to_Reg_Non_Leader"}),
    10: (
        "Global ordering",
        {
            "A": "upon CLIENT_UPDATE",
            "B": "upon PROPOSAL",
            "C": "upon ACCEPT",
            "D": "upon executing an update",
        },
    ),
    11: (
        "Global ordering, helpers",
        {"A": "Send_Proposal", "B": "Globally_Ordered_Ready", "C": "Advance_Aru"},
    ),
    12: ("Client handling", {"A": "Client_Update_Handler", "B": "Update_Timer expires"}),
    13: (
        "Client handling, helpers",
        {
            "A": "Enqueue_Update",
            "B": "Add_to_Pending_Updates",
            "C": "Enqueue_Unbound_Pending_Updates",
            "D": "Remove_Bound_Updates_From_Queue",
        },
    ),
    14: ("Recovery", {"A": "Recovery"}),
}
"""Figure -> (title, block -> the paper's name of the block)."""

SECTIONS = {
    "5.6": "Reconciliation",
    "5.9": "Message retransmission",
    "5.10": "Flow control and ALIVE messages",
}
"""Section -> title, for sections without a figure. Each must be claimed by the docstring of a protocol module."""

ELSEWHERE = {
    "3": ("The system model: clients with one update under way", "pfsb/simulator/workload/paper_clients.py", ""),
    "4.4": ("The leader's explicit ACCEPT", "pfsb/paxos/proposal.py", "ProposalHandler.propose"),
    "5.3": ("Leader election, besides Figure 6", "pfsb/paxos/leader_election.py", "LeaderElectionHandler"),
    "5.7": ("Client handling, besides Figures 12 and 13", "pfsb/paxos/client_update.py", "ClientUpdateHandler"),
    "5.8": ("Stable storage, besides Figure 14", "pfsb/paxos/records.py", ""),
    "6": ("Liveness, as drills with bounds", "pfsb/simulator/runs/liveness_drills.py", "LivenessDrills"),
    "7": ("The measurements, again", "benchmarks/paper/__main__.py", ""),
    "7.3": ("Aggregation: many updates in a proposal", "pfsb/paxos/update_queue.py", "UpdateQueue.pop_batch"),
}
"""Section -> (title, file, name in the file), for sections that no docstring claims: their place is listed here."""

DEFECTS = {
    1: "Send_Proposal goes on with the old number after its recursive call",
    2: '"view" in Send_Proposal is undefined',
    3: "State and Progress_Timer are not set when an election begins",
    4: "VIEW_CHANGE is applied twice; old votes stay after VC_PROOF",
    5: "no Progress_Timer when a view is joined by VC_PROOF or PREPARE",
    6: "a majority of one, or one's own last step, is never noticed",
    7: "a PREPARE that comes after the view is installed gets no answer",
    8: "Progress_Timer: no cap, no reset, idle elections, one broken path",
    9: "no way back into one's own view",
    10: "a server may lead the same view twice",
    11: "holes after a view change",
    12: "GLOBALLY_ORDERED_UPDATE is assigned to the whole slot",
    13: "ordering does not always lead to execution",
    14: "a follower never counts its own vote",
    15: "one update at two sequence numbers",
    16: "replies and pending entries that are never settled",
    17: "an ACCEPT that overtakes its PROPOSAL is lost",
    18: "ACCEPT for a PROPOSAL that was ignored",
    19: "PREPARE_OK when one of the two is far behind",
    20: "recovery leaves much unsaid; a lost disk is taken for a new one",
    21: "garbage collection stops with one dead server",
    22: "several outstanding updates of one client",
    23: "timers and queue when a leader steps down",
    24: "non-leaders may lack slots that the new leader knows as ordered",
    25: "one proposal a call",
    26: "a stale leader learns of a higher view late",
    27: "even numbers of servers",
    28: "what the paper leaves undefined",
    29: "membership change",
}
"""Number of a defect -> a phrase on what is wrong or missing in the paper."""

_BLOCK = re.compile(r"Figure (\d+), Block ([A-H]): (.*)", re.DOTALL)
_SECTION = re.compile(r"Section (5\.\d+): ")
_DEFECT = re.compile(r"\bG([12]?[0-9])\b")


class Incomplete(Exception):
    """Raised when claims in the code are missing, double or unknown; the text has one line for each such fault."""


@frozen
class Place:
    """A module, class or function. `name` is its qualified name, and empty for a module."""

    path: str
    name: str

    def __str__(self) -> str:
        return f"``{self.path}``" + (f" ``{self.name}``" if self.name else "")


@frozen
class Block:
    """A block of a figure, the place in the code that claims it, and the defects that are named there."""

    figure: int
    letter: str
    what: str
    place: Place
    defects: tuple[int, ...]


@frozen
class Sources:
    """The claims and the mentions of defects that were found in docstrings and comments."""

    blocks: list[Block] = field(factory=list)
    sections: dict[str, list[Place]] = field(factory=dict)
    defects: dict[int, list[Place]] = field(factory=dict)


def read_sources(root: Path = ROOT) -> Sources:
    """Read every module below `root`/pfsb but `ONLOOKERS`; blocks and sections are claimed in pfsb/paxos only."""
    sources = Sources()
    for path in sorted((root / "pfsb").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(ONLOOKERS):
            _read_module(name, path.read_text(encoding="utf-8"), sources)
    return sources


def _read_module(path: str, text: str, sources: Sources) -> None:
    if not path.startswith(PROTOCOL + "/") and not _DEFECT.search(text):
        return
    tree = ast.parse(text)
    definitions = list(_definitions(tree))
    mentions = list(_mentions(tree, text))
    for line, defect in mentions:
        place = Place(path, _innermost(definitions, line))
        places = sources.defects.setdefault(defect, [])
        if place not in places:
            places.append(place)
    if not path.startswith(PROTOCOL + "/"):
        return
    section = _SECTION.match(ast.get_docstring(tree) or "")
    if section:
        sources.sections.setdefault(section[1], []).append(Place(path, ""))
    for name, node in definitions:
        claim = _BLOCK.match(ast.get_docstring(node) or "")
        if claim:
            inside = {defect for line, defect in mentions if node.lineno <= line <= (node.end_lineno or 0)}
            what = _first_sentence(claim[3])
            sources.blocks.append(Block(int(claim[1]), claim[2], what, Place(path, name), tuple(sorted(inside))))


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """All classes and functions below `node`, each with its qualified name; outer ones before inner ones."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = prefix + child.name
            yield name, child
            yield from _definitions(child, name + ".")
        else:
            yield from _definitions(child, prefix)


def _mentions(tree: ast.Module, text: str) -> Iterator[tuple[int, int]]:
    """(line, defect) for every G-number in a docstring or comment, in the order of the lines."""
    found = []
    for line, words in [*_docstrings(tree), *_comments(text)]:
        for offset, part in enumerate(words.split("\n")):
            found += [(line + offset, int(number)) for number in _DEFECT.findall(part)]
    return iter(sorted(found))


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of each docstring of a module, class, function or attribute: of each string that stands alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _innermost(definitions: Iterable[tuple[str, Definition]], line: int) -> str:
    name = ""
    for candidate, node in definitions:
        if node.lineno <= line <= (node.end_lineno or 0):
            name = candidate
    return name


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.;:]) (?=[A-Z])", paragraph)[0].rstrip(".;:")


def check(sources: Sources) -> None:
    """Raise `Incomplete` unless every block and section is claimed once, and every defect is named somewhere."""
    problems = []
    known = {(figure, letter) for figure, (_, blocks) in FIGURES.items() for letter in blocks}
    claims: dict[tuple[int, str], list[Block]] = {}
    for block in sources.blocks:
        claims.setdefault((block.figure, block.letter), []).append(block)
    for figure, letter in sorted(known | set(claims)):
        places = [block.place for block in claims.get((figure, letter), [])]
        problems += _claim_problem(f"Figure {figure}, Block {letter}", places)
        if (figure, letter) not in known:
            problems.append(f"Figure {figure}, Block {letter}: the paper has no such block")
    for section in sorted(SECTIONS.keys() | sources.sections.keys()):
        problems += _claim_problem(f"Section {section}", sources.sections.get(section, []))
    problems += [f"Section {section}: there is no {place}" for section, place in _places_missing()]
    problems += [f"G{defect}: mentioned nowhere in pfsb/" for defect in DEFECTS if defect not in sources.defects]
    problems += [f"G{defect}: no such defect is known" for defect in sorted(sources.defects) if defect not in DEFECTS]
    if problems:
        raise Incomplete("\n".join(problems))


def _places_missing() -> Iterator[tuple[str, Place]]:
    """(section, place) of each row of `ELSEWHERE` whose file does not exist, or does not define the name."""
    for section, (_, path, name) in ELSEWHERE.items():
        file = ROOT / path
        names = [name for name, _ in _definitions(ast.parse(file.read_text(encoding="utf-8")))] if file.exists() else []
        if not file.exists() or (name and name not in names):
            yield section, Place(path, name)


def _claim_problem(name: str, places: list[Place]) -> list[str]:
    if not places:
        return [f'{name}: claimed nowhere; a docstring in {PROTOCOL} must begin "{name}:"']
    if len(places) > 1:
        return [f"{name}: claimed {len(places)} times, in {' and '.join(str(place) for place in places)}"]
    return []


def render(sources: Sources) -> str:
    """The text of docs/paper-map.rst. Raises `Incomplete`."""
    check(sources)
    lines = [
        ".. Written by docs/make_paper_map.py from the docstrings in pfsb/; do not edit.",
        "",
        "The paper and the code",
        "======================",
        "",
        "Where each figure of Kirsch & Amir, *Paxos for System Builders* (CNDS-2008-2), stands in the code. Blocks are",
        "named by the docstrings of the functions and classes that claim them; *repairs* are the known defects of the",
        "figures (see below) that are dealt with there. What differs from the paper for other reasons is numbered in",
        ":doc:`departures`.",
        "",
    ]
    for figure, (title, names) in FIGURES.items():
        blocks = sorted((b for b in sources.blocks if b.figure == figure), key=lambda block: block.letter)
        heading = f"Figure {figure}: {title}"
        rows = [
            (b.letter, names[b.letter].replace("_", "\\_"), _plain(b.what), str(b.place), _numbers(b.defects))
            for b in blocks
        ]
        lines += [heading, "-" * len(heading), ""]
        lines += _table(("block", "in the paper", "what", "where", "repairs"), (6, 18, 36, 30, 10), rows)
    lines += ["Sections in prose", "-----------------", ""]
    prose = [(section, title, str(sources.sections[section][0])) for section, title in SECTIONS.items()]
    prose += [(section, title, str(Place(path, name))) for section, (title, path, name) in ELSEWHERE.items()]
    prose.sort(key=lambda row: [int(number) for number in row[0].split(".")])
    lines += _table(("section", "what", "where"), (10, 40, 50), prose)
    lines += ["Defects of the figures", "----------------------", ""]
    repaired = [
        (f"G{defect}", what.replace("_", "\\_"), _places(sources.defects[defect])) for defect, what in DEFECTS.items()
    ]
    lines += _table(("defect", "what is wrong or missing", "where it is dealt with"), (8, 36, 56), repaired)
    return "\n".join(lines).rstrip("\n") + "\n"


def _plain(text: str) -> str:
    """The text of a docstring in reStructuredText: underscores make no links, and single backquotes are code."""
    return re.sub(r"`([^`]+)`", r"``\1``", text) if "`" in text else text.replace("_", "\\_")


def _numbers(defects: Iterable[int]) -> str:
    return ", ".join(f"G{defect}" for defect in defects)


def _places(places: list[Place]) -> str:
    by_path: dict[str, list[str]] = {}
    for place in places:
        names = by_path.setdefault(place.path, [])
        if place.name:
            names.append(f"``{place.name}``")
    return "; ".join(f"``{path}``" + (" " + ", ".join(names) if names else "") for path, names in by_path.items())


def _table(header: tuple[str, ...], widths: tuple[int, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in [header, *rows]:
        for first, cell in enumerate(row):
            lines.append(f"   {'* -' if not first else '  -'} {cell}".rstrip())
    return [*lines, ""]


def main() -> None:
    PAPER_MAP.write_text(render(read_sources()), encoding="utf-8")


if __name__ == "__main__":
    main()
