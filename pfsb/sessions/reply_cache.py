"""ReplyCache: the results that a session keeps, for a client that repeats a command number.

Safety: a command whose result was dropped is not run again, since its number is not above the session's last number. A
client that repeats the number gets a refusal with the fate unknown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from attrs import define, field

from pfsb.applications.interfaces import Done, Fields, Result

CHARACTERS_MAX = 1_048_576
"""Maximum number of characters in the results that a session keeps. The newest results are kept even if they are
more."""


def size_of(result: Result) -> int:
    """Number of characters of text in a result: a measure of its size that is equal on every server, unlike bytes."""
    if not isinstance(result, Done):
        return len(result.text)
    characters = 0
    # Almost every result has one field, so this loop is written here: a call of `_characters` would double its cost.
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
    """A page of the cache: results of commands that finished one after the other, which are dropped together."""

    results: dict[int, Result | int] = field(factory=dict)
    """Command number -> its result. An integer R stands for "OK revision=R", the result of almost every command.

    The garbage collector does not visit integers. With result objects instead, garbage collection took a tenth of the
    time of a server with 5,000 busy clients, in pauses of a third of a second.
    """
    characters: int = 0

    def get(self, number: int) -> Result:
        result = self.results[number]
        return Done((("revision", result),)) if isinstance(result, int) else result


@define
class ReplyCache:
    """The latest results of a session, by command number.

    The cache keeps between `answers_max` results and a quarter more, or fewer if they are large. Results are kept in
    pages, each with about a quarter of `answers_max` results or fewer large ones, and the oldest page is dropped as a
    whole: dropping each result by itself would cost as much as running a command.
    """

    answers_max: int
    forgotten: int = 0
    """The highest command number whose result was dropped."""
    _full: deque[_Page] = field(factory=deque)
    """The pages that take no more results, the oldest first."""
    _page: _Page = field(factory=_Page)
    """The page to which the next result is added."""

    def __len__(self) -> int:
        return sum(len(page.results) for page in self._pages())

    @property
    def numbers(self) -> list[int]:
        """The command numbers whose results are kept, in the order in which the results came."""
        return [number for page in self._pages() for number in page.results]

    def get(self, number: int) -> Result | None:
        return next((page.get(number) for page in self._pages() if number in page.results), None)

    def keep(self, number: int, result: Result, revision: int = 0) -> bool:
        """Keep a result. Returns whether it is "OK revision=R" and nothing else, where R is the given revision."""
        page = self._page
        is_revision = (
            type(result) is Done
            and result.fields == (("revision", revision),)
            and type(result.fields[0][1]) is int  # True and 1.0 equal 1, and are shown otherwise
            and not result.rows
        )
        if is_revision:
            page.results[number] = revision
        else:
            page.results[number] = result
            page.characters += size_of(result)
        if len(page.results) * 4 >= self.answers_max or page.characters * 4 > CHARACTERS_MAX:
            self._begin_page()
        return is_revision

    def _pages(self) -> Iterator[_Page]:
        yield from self._full
        yield self._page

    def _begin_page(self) -> None:
        full = self._full
        count, characters = len(self), sum(page.characters for page in self._pages())
        while full and (count - len(full[0].results) >= self.answers_max or characters > CHARACTERS_MAX):
            oldest = full.popleft()
            count -= len(oldest.results)
            characters -= oldest.characters
            self.forgotten = max(self.forgotten, *oldest.results)
        full.append(self._page)
        self._page = _Page()
