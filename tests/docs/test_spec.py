"""The model in docs/spec cites what exists, its configurations fit its modules, and its page mentions all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.docs_script import DOCS, load

paper_map = load("make_paper_map")

SPEC = DOCS / "spec"
PAGE = SPEC / "index.rst"
ROOTS = {
    "MC": "Next",
    "PfsbReads": "ReadNext",
    "PfsbTelling": "TellingNext",
    "Acquaintance": "Next",
    "Position": "Next",
    "Epoch": "Next",
}
"""Module that TLC is started with -> the definition whose disjuncts are its actions."""
GROUPS = ("Next", "Regular", "TellingRegular", "Reading")
"""Definitions that are nothing but disjunctions of actions."""

CITATION = re.compile(
    r"\b(?:Figure (?P<figure>\d+)(?: (?P<block>[A-H])\d?\b)?|Departures? (?P<departure>\d+)(?: and (?P<second>\d+))?"
    r"|[Ss]ection (?P<section>\d+(?:\.\d+)?)|G(?P<defect>\d+))\b"
)
DEFINITION = re.compile(r"(\w+)(?:\([^)=]*\))? ==")
COMMENT = re.compile(r"\(\*.*?\*\)|\\\*[^\n]*", re.DOTALL)
STEP = re.compile(r"\w'|\bUNCHANGED\b")


def module(name: str) -> str:
    return (SPEC / f"{name}.tla").read_text(encoding="utf-8")


def whole(name: str) -> str:
    """The text of a module, after that of the modules of this directory that it extends."""
    text = module(name)
    extended = re.findall(r"\w+", re.findall(r"^EXTENDS (.*)$", text, re.MULTILINE)[0])
    return "".join(whole(other) for other in extended if (SPEC / f"{other}.tla").exists()) + text


def definitions(text: str) -> dict[str, tuple[str, str]]:
    """Name -> (the comment directly above the definition, the body without comments)."""
    found = {}
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if DEFINITION.match(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        match = DEFINITION.match(lines[start])
        assert match is not None
        body = "\n".join([lines[start][match.end() :], *lines[start + 1 : end]])
        found[match[1]] = (_comment_above(lines, start), COMMENT.sub("", body))
    return found


def _comment_above(lines: list[str], start: int) -> str:
    first = start
    while first and (lines[first - 1].startswith("\\*") or lines[first - 1].endswith("*)")):
        first -= 1
        if lines[first].endswith("*)"):
            while not lines[first].startswith("(*"):
                first -= 1
    return "\n".join(lines[first:start])


def actions(text: str, root: str) -> dict[str, str]:
    """Name -> the comment above it, for each disjunct of `root` and of the `GROUPS` in it that makes a step."""
    defined = definitions(text)
    found: dict[str, str] = {}
    waiting = [root]
    while waiting:
        for word in dict.fromkeys(re.findall(r"\w+", defined[waiting.pop()][1])):
            if word in GROUPS:
                waiting.append(word)
            elif word in defined and STEP.search(defined[word][1]):
                found[word] = defined[word][0]
    return found


def unknown_citations(text: str, departures: set[int]) -> list[str]:
    """The citations in `text` that lead nowhere: to no figure, section or defect of the paper map, and no departure."""
    return [match[0] for match in CITATION.finditer(text) if not _is_known(match, departures)]


def _is_known(match: re.Match[str], departures: set[int]) -> bool:
    if match["figure"]:
        figure = int(match["figure"])
        blocks = paper_map.FIGURES.get(figure, ("", {}))[1]
        return bool(blocks) and (match["block"] is None or match["block"] in blocks)
    if match["section"]:
        return match["section"] in paper_map.SECTIONS or match["section"] in paper_map.ELSEWHERE
    if match["defect"]:
        return int(match["defect"]) in paper_map.DEFECTS
    return {int(number) for number in (match["departure"], match["second"]) if number} <= departures


def departures() -> set[int]:
    text = (DOCS / "departures.rst").read_text(encoding="utf-8")
    return {int(number) for number in re.findall(r"^(\d+)\. .*\n-+$", text, re.MULTILINE)}


def spec_files() -> Iterator[Path]:
    yield from sorted([*SPEC.glob("*.tla"), *SPEC.glob("*.cfg")])


class CitationTests(SynchronousTestCase):
    def test_each_action_names_a_figure_section_or_departure(self) -> None:
        """Each action of the model names a figure, section or departure, by which a reader finds the place in the paper
        and in the code."""
        for name, root in ROOTS.items():
            found = actions(whole(name), root)
            self.assertGreater(len(found), 2, name)  # with fewer actions, this test has not understood the model
            silent = [action for action, comment in found.items() if not CITATION.search(comment)]
            self.assertEqual(silent, [], name)

    def test_each_citation_leads_somewhere(self) -> None:
        """Each citation in the model leads somewhere: figures, sections and defects are in the paper map, departures on
        their page."""
        known = departures()
        for path in [*spec_files(), PAGE]:
            self.assertEqual(unknown_citations(path.read_text(encoding="utf-8"), known), [], path.name)

    def test_a_wrong_citation_is_found(self) -> None:
        """A citation in the model that leads nowhere is found."""
        wrong = "Figure 7 D, Figure 15 A, Section 5.5, G30, Departure 1 and 99"
        right = "Figure 7 A, Section 5.7, G29, Departure 1"
        self.assertEqual(
            unknown_citations(f"{wrong}, {right}", {1}),
            ["Figure 7 D", "Figure 15 A", "Section 5.5", "G30", "Departure 1 and 99"],
        )

    def test_an_action_without_a_comment_is_found(self) -> None:
        """An action without a comment is found; a comment belongs to the definition directly below it."""
        text = "(* Figure 6 A,\n   and more. *)\nA == x' = 1\nB(s) ==\n    /\\ x' = s\nNext == A \\/ \\E s : B(s)\n"
        found = actions(text, "Next")
        self.assertEqual(found, {"A": "(* Figure 6 A,\n   and more. *)", "B": ""})


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.page = PAGE.read_text(encoding="utf-8")

    def test_every_file_is_mentioned(self) -> None:
        """The page of the model mentions every file of the model."""
        for path in spec_files():
            self.assertRegex(self.page, rf"``{re.escape(path.stem)}(\{path.suffix})?``", path.name)

    def test_every_break_is_in_the_table_and_every_one_of_the_table_in_the_model(self) -> None:
        """The table of breaks in the page has exactly the breaks that the modules compare `Mutation` with."""
        text = "".join(COMMENT.sub("", path.read_text(encoding="utf-8")) for path in SPEC.glob("*.tla"))
        compared = re.findall(r'Mutation (?:=|/=|\\in|\\notin) ("\w+"|{[^}]*})', text)
        named = set(re.findall(r'"(\w+)"', " ".join(compared))) - {"none"}
        table = set(re.findall(r"^   \* - ``(\w+)``$", self.page.split("Deliberate breaks")[1], re.MULTILINE))
        self.assertEqual(table & named, named)
        self.assertEqual(table - named, {path.stem for path in SPEC.glob("*.cfg")} & table)


class ConfigurationTests(SynchronousTestCase):
    """Configurations of the model are checked without Java: whether each can be run as it is written."""

    def test_each_configuration_names_a_module_and_sets_all_of_its_constants(self) -> None:
        for path in SPEC.glob("*.cfg"):
            text = path.read_text(encoding="utf-8")
            named = re.match(r"\\\* Run with module (\w+):", text)
            assert named is not None, path.name
            source = COMMENT.sub("", whole(named[1]))
            declared = re.findall(r"^CONSTANTS?\s+(\w+(?:\s*,\s*\w+)*)", source, re.MULTILINE)
            constants = set(re.findall(r"\w+", " ".join(declared)))
            assigned = set(re.findall(r"^    (\w+) (?:=|<-) ", text, re.MULTILINE))
            self.assertEqual(constants - assigned, set(), path.name)

    def test_all_that_a_configuration_checks_is_defined_in_its_module(self) -> None:
        for path in SPEC.glob("*.cfg"):
            text = COMMENT.sub("", path.read_text(encoding="utf-8"))
            name = re.findall(r"Run with module (\w+)", path.read_text(encoding="utf-8"))[0]
            defined = definitions(whole(name))
            asked = re.findall(r"^(?:SPECIFICATION|PROPERTIES|SYMMETRY|CONSTRAINT) (\w+)$", text, re.MULTILINE)
            asked += re.findall(r"^    (\w+)$", text, re.MULTILINE) + re.findall(r" <- (\w+)$", text, re.MULTILINE)
            self.assertIn("INVARIANTS\n", text, path.name)
            self.assertEqual([each for each in asked if each not in defined], [], path.name)
