"""The map from the paper to the code is complete, and the page that shows it is up to date."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from tests.docs.docs_script import load

paper_map = load("make_paper_map")


@cache
def _read_once() -> Any:
    return paper_map.read_sources()


def read_sources() -> Any:
    """The claims of all docstrings in `pfsb`, read again for each caller, which may change them."""
    return deepcopy(_read_once())


class PaperMapTests(SynchronousTestCase):
    def test_every_block_has_one_place_and_every_defect_a_repair(self) -> None:
        """Promise 5: a reader with the paper in hand finds every figure in one place, by its name."""
        paper_map.check(read_sources())

    def test_page_is_what_the_script_writes(self) -> None:
        """The page is what docs/make_paper_map.py writes now. Run that script after a change of docstrings."""
        self.maxDiff = None
        self.assertEqual(paper_map.PAPER_MAP.read_text(), paper_map.render(read_sources()))


class DeparturesTests(SynchronousTestCase):
    """Each departure that the code marks is explained once, in docs/departures.rst, and the other way round."""

    def test_every_departure_in_the_code_is_explained_and_every_one_explained_is_in_the_code(self) -> None:
        """Every departure with a mark in the code, such as `# Departure 3: ...`, has its section in
        docs/departures.rst, and each section a mark."""
        marked = {
            int(number)
            for path in (paper_map.ROOT / "pfsb").rglob("*.py")
            for number in re.findall(r"\bDeparture (\d+)\b", path.read_text())
        }
        self.assertEqual(marked, set(self.explained()))

    def test_departures_are_numbered_in_order(self) -> None:
        """The departures are numbered in order: a number once given is never given again."""
        numbers = self.explained()
        self.assertEqual(numbers, [*range(1, numbers[-1] + 1)])

    def test_every_departure_says_what_the_paper_does_and_why_leaving_it_is_safe(self) -> None:
        """Every departure has its reason, and why it is safe; otherwise it could not be told from a mistake."""
        for section in re.split(r"\n(?=\d+\. )", self.text())[1:]:
            for word in ("*Paper*", "*Here*", "*Why safe*"):
                self.assertIn(word, section)

    def explained(self) -> list[int]:
        return [int(number) for number in re.findall(r"^(\d+)\. .*\n-+$", self.text(), re.MULTILINE)]

    def text(self) -> str:
        return (paper_map.ROOT / "docs" / "departures.rst").read_text()


class CheckTests(SynchronousTestCase):
    """The check of the paper map finds each kind of mistake."""

    def setUp(self) -> None:
        self.sources = read_sources()

    def problems(self) -> str:
        return str(self.assertRaises(paper_map.Incomplete, paper_map.check, self.sources))

    def test_block_that_nobody_claims(self) -> None:
        """A block of a figure that no docstring claims is found."""
        del self.sources.blocks[[(b.figure, b.letter) for b in self.sources.blocks].index((7, "B"))]
        self.assertIn("Figure 7, Block B: claimed nowhere; a docstring in pfsb/paxos must begin", self.problems())

    def test_block_that_is_claimed_twice(self) -> None:
        """A block that two docstrings claim is found."""
        self.sources.blocks.append(self.sources.blocks[0])
        self.assertIn("claimed 2 times", self.problems())

    def test_block_that_the_paper_does_not_have(self) -> None:
        """A docstring that claims a block which the paper does not have is found."""
        wrong = paper_map.Block(14, "B", "", paper_map.Place("x.py", "f"), ())
        self.sources.blocks.append(wrong)
        self.assertIn("Figure 14, Block B: the paper has no such block", self.problems())

    def test_section_that_nobody_claims(self) -> None:
        """A section in prose that is implemented nowhere is found, such as that of reconciliation, which is not
        optional (G24)."""
        del self.sources.sections["5.6"]
        self.assertIn("Section 5.6: claimed nowhere", self.problems())

    def test_section_whose_place_does_not_exist(self) -> None:
        """A section whose place, a name in the code, does not exist any more is found."""
        self.patch(paper_map, "ELSEWHERE", {"7.3": ("Aggregation", "pfsb/paxos/update_queue.py", "UpdateQueue.gone")})
        self.assertIn("Section 7.3: there is no ``pfsb/paxos/update_queue.py`` ``UpdateQueue.gone``", self.problems())

    def test_defect_that_nobody_mentions(self) -> None:
        """A known defect of the paper that no docstring or comment mentions is found."""
        del self.sources.defects[24]
        self.assertIn("G24: mentioned nowhere", self.problems())

    def test_defect_that_does_not_exist(self) -> None:
        """A docstring or comment that mentions a defect whose number does not exist is found."""
        self.sources.defects[30] = [paper_map.Place("x.py", "f")]
        self.assertIn("G30: no such defect", self.problems())


class ReadTests(SynchronousTestCase):
    def read(self, text: str) -> Any:
        package = FilePath(self.mktemp()).child("pfsb").child("paxos")
        package.makedirs()
        package.child("example.py").setContent(text.encode())
        return paper_map.read_sources(Path(package.parent().parent().path))

    def test_docstring_claims_and_comment_repairs(self) -> None:
        """Blocks, sections and defects are found with the functions and classes whose docstrings or comments name
        them."""
        sources = self.read(
            '"""Section 5.6: catching up (G24)."""\n'
            "class A:\n"
            "    def f(self):\n"
            '        """Figure 7, Block B: promise, once. Then more (G7)."""\n'
            "        x = 'G1'  # G19: complete\n"
        )
        here = paper_map.Place("pfsb/paxos/example.py", "A.f")
        self.assertEqual(sources.blocks, [paper_map.Block(7, "B", "promise, once", here, (7, 19))])
        module = paper_map.Place("pfsb/paxos/example.py", "")
        self.assertEqual(sources.sections, {"5.6": [module]})
        self.assertEqual(sources.defects, {24: [module], 7: [here], 19: [here]})

    def test_figure_in_the_middle_of_a_docstring_claims_nothing(self) -> None:
        """A docstring that cites a figure in its middle does not claim it."""
        sources = self.read('def f():\n    """See Figure 7, Block B: there."""\n')
        self.assertEqual(sources.blocks, [])
