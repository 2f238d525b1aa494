"""Every document and file that code, tests and documents cite is in the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pfsb

ROOT = Path(pfsb.__file__).resolve().parents[1]
PLACES = ("pfsb", "tests", "benchmarks", "docs", "twisted")
ENDINGS = {".py", ".rst", ".inc", ".yaml", ".c"}

OUTSIDE = re.compile(r"(?i)\b(?:design|interface)s?\s+parts?\s+\d|\b(?:paper|design|interface|style)\.md\b")
"""Documents that were never in the repository."""
PAGE = re.compile(r"(?<!tests/)\bdocs/([\w/-]+\.(?:rst|svg|py|inc))\b")
NAME = re.compile(r"``([A-Z]\w+)\.(\w+)``|``(test_\w+)``")
FILE = re.compile(r"``((?:pfsb|tests|benchmarks|etc)/[\w/.-]+\.(?:py|yaml|json|c))``")


def texts() -> Iterator[tuple[str, str]]:
    """(path, text) of every file that may cite a document, but this one."""
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            if path.suffix in ENDINGS and path != Path(__file__).resolve():
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for name in ("README.rst", "Makefile", "setup.cfg", "pyproject.toml"):
        yield name, (ROOT / name).read_text(encoding="utf-8")


class CitationTests(SynchronousTestCase):
    def test_no_document_outside_the_repository_is_cited(self) -> None:
        """No file cites a document that was never in the repository, and that a reader therefore cannot find."""
        found = [f"{path}: {match[0]}" for path, text in texts() for match in OUTSIDE.finditer(text)]
        self.assertEqual(found, [])

    def test_every_page_that_is_cited_exists(self) -> None:
        """Every page of docs/ that a docstring or a document cites, such as `docs/internals/turn.rst`, exists."""
        found = [
            f"{path}: {match[0]}"
            for path, text in texts()
            for match in PAGE.finditer(text)
            if not (ROOT / "docs" / match[1]).exists()
        ]
        self.assertEqual(found, [])

    def test_every_file_that_a_document_names_exists(self) -> None:
        """Every path of a file that a document names exists."""
        found = [
            f"{path}: {match[1]}"
            for path, text in texts()
            if path.startswith("docs/") or path == "README.rst"
            for match in FILE.finditer(text)
            if not (ROOT / match[1]).exists()
        ]
        self.assertEqual(found, [])

    def test_every_name_that_a_document_gives_exists(self) -> None:
        """Every name of code that a document gives, such as ``ProposalHandler.propose`` or ``test_...``, is found in
        the code."""
        code = "".join(text for path, text in texts() if path.endswith(".py"))
        words = set(re.findall(r"\w+", code))
        found = [
            f"{path}: {match[0]}"
            for path, text in texts()
            if path.startswith("docs/") and path.endswith(".rst")
            for match in NAME.finditer(text)
            if not words.issuperset(filter(None, match.groups()))
        ]
        self.assertEqual(found, [])
