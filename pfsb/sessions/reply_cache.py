"""The answers that a session keeps, for clients that ask again (docs/internals/sessions.rst)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from attrs import define, field

from pfsb.applications.interfaces import Done, Fields, Result

CHARACTERS_MAX = 1_048_576
"""Characters of the answers that a session keeps; its newest ones are kept whatever their size."""


def size_of(result: Result) -> int:
    """The characters of its text: a measure that is the same on every server."""
    if not isinstance(result, Done):
        return len(result.text)
    characters = 0
    # Almost every answer is one field: a call for it would cost as much as the look.
    for _, value in result.fields:
        if isinstance(value, str):
            characters += len(value)
    return characters + sum(map(_characters, result.rows)) if result.rows else characters


def _characters(fields: Fields) -> int:
    characters = 0
    for _, value in fields:
        if isinstance(value, str):
            characters += len(value)
    return characters


@define
class _Page:
    results: dict[int, Result | int] = field(factory=dict)
    """A revision stands for OK revision=R, the answer to almost every command: a number is no work for the garbage
    collector, which had a tenth of a server with 5,000 busy clients, in pauses of a third of a second.
    """
    characters: int = 0

    def get(self, number: int) -> Result:
        kept = self.results[number]
        return Done((("revision", kept),)) if isinstance(kept, int) else kept


@define
class ReplyCache:
    """By command number: the last `answers_max` at least, and a quarter more at most; fewer large ones.

    Kept, and forgotten, by the page: to look after each answer by itself would cost as much as a command.
    """

    answers_max: int
    forgotten: int = 0
    """The highest number whose answer is no longer kept."""
    _full: deque[_Page] = field(factory=deque)
    """Oldest first."""
    _page: _Page = field(factory=_Page)
    """The one that is written."""

    def __len__(self) -> int:
        return sum(len(page.results) for page in self._pages())

    @property
    def numbers(self) -> list[int]:
        """In the order in which they were answered."""
        return [number for page in self._pages() for number in page.results]

    def get(self, number: int) -> Result | None:
        return next((page.get(number) for page in self._pages() if number in page.results), None)

    def keep(self, number: int, result: Result) -> None:
        page = self._page
        fields = result.fields if isinstance(result, Done) and not result.rows else ()
        if len(fields) == 1 and fields[0][0] == "revision" and type(revision := fields[0][1]) is int:
            page.results[number] = revision
        else:
            page.results[number] = result
            page.characters += size_of(result)
        if len(page.results) * 4 >= self.answers_max or page.characters * 4 > CHARACTERS_MAX:
            self._turn_the_page()

    def _pages(self) -> Iterator[_Page]:
        yield from self._full
        yield self._page

    def _turn_the_page(self) -> None:
        full = self._full
        count, characters = len(self), sum(page.characters for page in self._pages())
        while full and (count - len(full[0].results) >= self.answers_max or characters > CHARACTERS_MAX):
            oldest = full.popleft()
            count -= len(oldest.results)
            characters -= oldest.characters
            self.forgotten = max(self.forgotten, *oldest.results)
        full.append(self._page)
        self._page = _Page()
