"""The mechanical rules of docs/contributing.rst hold in every Python file."""

from __future__ import annotations

from pathlib import Path

from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from tests.docs.docs_script import load
from tests.long import long

prose_rules = load("prose_rules")


class ProseTests(SynchronousTestCase):
    @long
    def test_every_docstring_and_comment_keeps_the_rules(self) -> None:
        """Every docstring and comment keeps the mechanical rules. `python docs/prose_rules.py` lists those that do
        not."""
        paths = [str(prose_rules.ROOT / path) for path in prose_rules.PATHS]
        found = [str(each) for path in prose_rules.python_files(paths) for each in prose_rules.problems(path)]
        self.assertEqual(found, [])

    def test_each_rule_finds_its_offence(self) -> None:
        """Each rule finds a docstring or comment that breaks it."""
        file = FilePath(self.mktemp())
        file.setContent(
            b'"""What a reader trips over."""\n'
            b"def f():\n"
            b'    """Of the same kind."""\n'
            b"    # for nobod" + b"y in particular\n"
        )
        found = [problem.line for problem in prose_rules.problems(Path(file.path))]
        self.assertEqual(found, [1, 3, 4])

    def test_question_is_no_offence(self) -> None:
        """A docstring may begin with a question."""
        file = FilePath(self.mktemp())
        file.setContent(b'"""What limits a row? The disk."""\n')
        self.assertEqual(list(prose_rules.problems(Path(file.path))), [])
