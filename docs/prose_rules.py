"""Finds docstrings and comments that break the mechanical rules of docs/contributing.rst.

    python docs/prose_rules.py [PATH ...]

A docstring should name its subject, and be clear without the code. A program cannot tell whether a docstring does so,
but it can find beginnings and words by which many unclear docstrings are known. Without PATH, the whole repository is
read.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parents[1]
PATHS = ("pfsb", "tests", "docs", "benchmarks", "twisted")

RULES = (
    (re.compile(r"(What|Whatever|Who|Whoever|Whose|Whom)\b(?!.*\?)"), "begins with a question word but is no question"),
    (
        re.compile(r"(It|Its|They|Them|Their|Those|These|Of|The same|The others?|So|Such|Also|Likewise|That)\b"),
        "begins with a word that leans on its neighbour",
    ),
    (
        re.compile(
            r"(?s).*\b(somebody|nobody|everybody|anybody|somebody's|nobody's|everybody's|whoever|someone|anyone)\b",
            re.I,
        ),
        "says somebody, nobody or whoever where a client, server, caller or peer is meant",
    ),
)
"""(pattern that matches a faulty docstring, name of the fault). Comments are checked by the last rule only."""


@frozen
class Problem:
    """One docstring or comment that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def problems(path: Path) -> Iterator[Problem]:
    """A `Problem` for each docstring or comment of a Python file that breaks a rule: docstrings first."""
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            text = " ".join(node.value.value.split())
            for pattern, rule in RULES:
                if pattern.match(text):
                    yield Problem(name, node.lineno, rule, text[:100])
    if not RULES[-1][0].match(source):
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and RULES[-1][0].match(token.string):
            yield Problem(name, token.start[0], RULES[-1][1], token.string[:100])


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and all of its statements, outer ones before inner ones.

    Expressions are left out: most nodes of a tree are expressions, and no statement is below them.
    """
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting.extend(getattr(node, name, ()))


def python_files(paths: list[str]) -> Iterator[Path]:
    """The paths that are files, and the Python files below those that are directories, in the order of their names."""
    for path in map(Path, paths):
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main() -> None:
    paths = sys.argv[1:] or [str(ROOT / path) for path in PATHS]
    found = [problem for path in python_files(paths) for problem in problems(path.resolve())]
    sys.stdout.writelines(f"{problem}\n" for problem in found)
    sys.stdout.write(f"{len(found)} problems\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
