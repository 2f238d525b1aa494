"""The answers that a session keeps, for clients that ask again (design part 5)."""

from __future__ import annotations

from collections import deque

from attrs import define, field

from pfsb.interfaces import Done, Fields, Result

CHARACTERS_MAX = 1_048_576
"""Characters of the answers that a session keeps; its newest ones are kept whatever their size."""


def size_of(result: Result) -> int:
    """The characters of its text: a measure that is the same on every server."""
    if isinstance(result, Done):
        characters = _characters(result.fields)
        return characters + sum(map(_characters, result.rows)) if result.rows else characters
    return len(result.text)


def _characters(fields: Fields) -> int:
    characters = 0
    for _, value in fields:
        if isinstance(value, str):
            characters += len(value)
    return characters


@define
class _Page:
    results: dict[int, Result] = field(factory=dict)
    characters: int = 0


@define
class KeptAnswers:
    """By command number: the last `answers_max` at least, and a quarter more at most; fewer large ones.

    Kept, and forgotten, by the page: to look after each answer by itself would cost as much as a command.
    """

    answers_max: int
    forgotten: int = 0
    """The highest number whose answer is no longer kept."""
    _pages: deque[_Page] = field(factory=lambda: deque([_Page()]))
    _count: int = 0
    _characters: int = 0

    def __len__(self) -> int:
        return self._count

    @property
    def numbers(self) -> list[int]:
        """In the order in which they were answered."""
        return [number for page in self._pages for number in page.results]

    def get(self, number: int) -> Result | None:
        return next((page.results[number] for page in self._pages if number in page.results), None)

    def keep(self, number: int, result: Result) -> None:
        page = self._pages[-1]
        page.results[number] = result
        self._count += 1
        characters = size_of(result)
        if characters:
            page.characters += characters
            self._characters += characters
        if len(page.results) * 4 >= self.answers_max or page.characters * 4 > CHARACTERS_MAX:
            self._turn_the_page()

    def _turn_the_page(self) -> None:
        while len(self._pages) > 1 and (
            self._count - len(self._pages[0].results) >= self.answers_max or self._characters > CHARACTERS_MAX
        ):
            oldest = self._pages.popleft()
            self._count -= len(oldest.results)
            self._characters -= oldest.characters
            self.forgotten = max(self.forgotten, *oldest.results)
        self._pages.append(_Page())
