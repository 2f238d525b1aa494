"""ReplyCache: the results that a session keeps, for a client that repeats a command number.

Safety: a command whose result was dropped is not run again, since its number is not above the session's last number. A
client that repeats the number gets a refusal with the fate unknown.

Three settings bound what is kept: the number of results of a session (`session_window`), their bytes
(`reply_cache_bytes`), and the bytes of the results of all sessions (`replies_bytes`). Bytes are those of values, and of
texts in UTF-8, which are equal on every server, unlike memory.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final, Protocol

from attrs import define, field, frozen

from pfsb.applications.interfaces import Done, DoneGrowing, Fields, GrowingBytes, Result, RunResults
from pfsb.applications.results import check_field, check_result, right_fields

BYTES_MAX = 1_048_576
"""Maximum bytes of the results of one session, unless the settings say otherwise."""
BYTES_IN_ALL_MAX = 268_435_456
"""Maximum bytes of the results of all sessions, unless the settings say otherwise."""
ENTRY_BYTES = 64
"""Number of bytes that each result in a full page counts for, in addition to those of its values: so the number of
results without values is bounded, too."""

_RANGES = (range, RunResults)
_SIZED = (str, bytes)
"""Types of the values that count by their size. All others count nothing."""


def size_of(result: Result) -> int:
    """Number of bytes of a result's values, texts in UTF-8: a measure of its size that is equal on every server."""
    if not isinstance(result, Done):
        return _bytes(result.text)
    return _size(result.fields) + sum(map(_size, result.rows))


def _size(fields: Fields) -> int:
    return sum([_bytes(value) for _, value in fields if isinstance(value, _SIZED)])


def _bytes(value: bytes | str) -> int:
    if isinstance(value, bytes) or value.isascii():
        return len(value)
    return len(value.encode(errors="surrogatepass"))


@frozen
class Beginning:
    """A `DoneGrowing` as the cache keeps it: the result of a command such as APPEND, which tells the whole value that
    the command made.

    Later commands only add to the end of that value. So the cache stores the length of the told value, and `growing`,
    the object with the value as it is now: the told value is the beginning of it.
    """

    growing: GrowingBytes
    name: str
    """The name of the first field, whose value is the beginning."""
    size: int
    """Number of bytes of the told value, which is the beginning of `growing`."""
    fields: Fields
    """All fields of the result but the first."""

    @classmethod
    def of(cls, result: DoneGrowing) -> Beginning:
        return cls(result.growing, result.name, result.size, result.others)

    def result(self) -> DoneGrowing:
        value = self.growing.data[: self.size]
        return DoneGrowing(((self.name, value), *self.fields), growing=self.growing)


@define
class Page:
    """A page of a cache: results of commands that finished one after the other, which are dropped together."""

    owner: ReplyCache = field(eq=False, repr=False)
    entries_max: int
    """Number of entries in `results` with which the page is full. At first it is the number of results that a page
    takes; each result of a range but its first lowers it by one, since a range is one entry."""
    results: dict[int, Done | Result | Beginning | int | range | RunResults] = field(factory=dict)
    """Command number -> its result. An integer R stands for "OK revision=R", the result of almost every command. A
    range stands for the results of several commands whose numbers follow each other: it has the revision of each of
    them. So does a `RunResults`, for results that have further fields, which count up.

    The garbage collector does not visit integers and ranges. With result objects instead, garbage collection took a
    tenth of the time of a server with 5,000 busy clients, in pauses of a third of a second.
    """
    in_ranges: int = 0
    """Number of results in the page beyond one for each entry of `results`: those in a range or in a `RunResults`,
    without the first one of each."""
    size: int = 0
    """Number of bytes by which the results of the page have increased the number of bytes that the session keeps, which
    has a limit."""
    shared: int = 0
    """The part of `size` that belongs to values that grow. Other pages may keep beginnings of the same values: then
    these bytes are still occupied when this page is dropped."""
    has_beginnings: bool = False
    """Whether one of the results is a beginning of a value that grows."""
    number: int = 0
    """The place of the page, from 1, in the order in which `make_room` looks at the pages of all sessions. A page gets
    one with its first bytes, and another one when it is put at the end. 0: the page has no bytes yet."""
    looked_at: int = 0
    """The number of results in the page when `KeptReplies` last looked at it."""

    def __len__(self) -> int:
        return len(self.results) + self.in_ranges

    @property
    def numbers(self) -> Sequence[int]:
        """The command numbers whose results are in the page, in the order in which the results came."""
        if not self.in_ranges:
            return [*self.results]
        return [each for number, result in self.results.items() for each in _numbers(number, result)]

    @property
    def highest(self) -> int:
        """The highest command number whose result is in the page, which is not empty."""
        if not self.in_ranges:
            return max(self.results)
        return max([_numbers(number, result)[-1] for number, result in self.results.items()])

    def kept(self, number: int) -> Done | Result | Beginning | int | None:
        """The result of the command with this number, as it is kept; None if the page does not have it."""
        result = self.results.get(number)
        if result is None and self.in_ranges:
            for first, each in self.results.items():
                if isinstance(each, _RANGES) and 0 <= number - first < len(each):
                    return each[number - first]
        return result[0] if isinstance(result, _RANGES) else result

    def get(self, number: int) -> Result | None:
        """The result of the command with this number; None if the page does not have it."""
        result = self.kept(number)
        if isinstance(result, int):
            return Done((("revision", result),))
        return result.result() if isinstance(result, Beginning) else result

    def keep_together(self, number: int, results: range | RunResults) -> None:
        """Keep, as one entry of this page, the results of commands whose numbers follow each other, from `number` on.
        `results` has one for each command, in order; a range has the revisions of results that are "OK revision=R"."""
        self.results[number] = results if len(results) > 1 else results[0]
        self.in_ranges += len(results) - 1
        self.entries_max -= len(results) - 1


class RepliesWatcher(Protocol):
    """Interface of an object that is told of changes of reply caches while a snapshot is taken
    (`pfsb.sessions.frozen_sessions`)."""

    def answers_change(self, answers: ReplyCache) -> None:
        """Called before `KeptReplies.make_room` changes or drops a page of the reply cache `answers`."""

    def growing_changes(self, growing: GrowingBytes) -> None:
        """Called before `growing.counted` is changed, for a value that grows and whose beginnings are kept in reply
        caches."""


@define
class KeptReplies:
    """The bytes of the results that all sessions keep together, and the rule by which pages of the sessions' caches
    (`Page`) are dropped.

    Everything here follows from the executed commands alone, so every server drops the same pages.
    """

    bytes_max: int = BYTES_IN_ALL_MAX
    size: int = 0
    """Number of bytes that all sessions keep. A value that grows counts once, however many of its beginnings are
    kept."""
    pages: OrderedDict[int, Page] = field(factory=OrderedDict, eq=False, repr=False)
    """Number of a page -> the page, for all pages that have bytes, by ascending numbers. `make_room` looks at the first
    one next."""
    numbered: int = 0
    """The highest number that a page has got."""
    growing: dict[int, GrowingBytes] = field(factory=dict, eq=False, repr=False)
    """Address of a value that grows -> the value, for each one whose beginnings are kept as results; in the order in
    which its first beginning was kept."""
    watcher: RepliesWatcher | None = field(default=None, eq=False, repr=False)
    """Object that is told of some changes before they are made; None: there is none."""

    def note(self, page: Page) -> None:
        """Put a page at the end of `pages`: one that has got its first bytes, and is counted from now on, or one at
        which `make_room` has looked."""
        self.numbered += 1
        page.number, page.looked_at = self.numbered, len(page)
        self.pages[page.number] = page

    def release(self, page: Page) -> None:
        """Stop counting the results of a page, which was dropped."""
        self.size -= page.size - page.shared
        self.pages.pop(page.number, None)
        for result in page.results.values() if page.has_beginnings else ():
            if isinstance(result, Beginning):
                growing = result.growing
                growing.kept -= 1
                if not growing.kept:
                    if self.watcher is not None:
                        self.watcher.growing_changes(growing)
                    self.size -= growing.counted
                    growing.counted = 0
                    del self.growing[id(growing)]

    def make_room(self) -> None:
        """Drop pages until no more than `bytes_max` bytes are kept.

        The page that was counted first is looked at first. If this page has got results since it was looked at last, it
        is put at the end and not dropped: a session that goes on working loses its results after one that has stopped.
        Each such look is paid for by a result, so the work is constant for each command on average.
        """
        while self.size > self.bytes_max and self.pages:
            page = self.pages.popitem(last=False)[1]
            if self.watcher is not None:
                self.watcher.answers_change(page.owner)
            if len(page) > page.looked_at:
                self.note(page)
            else:
                page.owner.drop(page)


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
    bytes_max: int = BYTES_MAX
    """Maximum bytes of the results that are kept. The newest results are kept even if they alone are larger."""
    _kept: KeptReplies = field(factory=KeptReplies, eq=False, repr=False)
    """The count of the results of all sessions, this one included."""
    client_id: str = ""
    """The client id of the session."""
    _full: deque[Page] = field(init=False, factory=deque)
    """The pages of this cache that take no more results, the oldest first."""
    page: Page = field(init=False)
    """The page of this cache to which the next result is added."""

    @page.default
    def _make_page(self) -> Page:
        return Page(self, _a_quarter_of(self.answers_max))

    def set_limits(self, answers_max: int, bytes_max: int) -> None:
        """Set the maximum number of results and of their bytes that are kept, from the next result on."""
        self.answers_max, self.bytes_max = answers_max, bytes_max
        self.page.entries_max = _a_quarter_of(answers_max) - self.page.in_ranges

    def __len__(self) -> int:
        return sum(map(len, self.pages()))

    @property
    def numbers(self) -> list[int]:
        """The command numbers whose results are kept, in the order in which the results came."""
        return [number for page in self.pages() for number in page.numbers]

    def get(self, number: int) -> Result | None:
        return next((result for page in self.pages() if (result := page.get(number)) is not None), None)

    def keep_revision(self, number: int, revision: int) -> None:
        """Keep the result "OK revision=R" of the command with this number, as `keep` does."""
        page = self.page
        page.results[number] = revision
        if len(page.results) >= page.entries_max:
            self._begin_page()

    def keep_run(self, number: int, results: Sequence[Result]) -> None:
        """Keep the results of commands that were executed together. Their numbers follow each other, from `number` on;
        `results` has one for each, in order.

        The results are put into the same pages of the cache (`Page`) as if `keep` were called for each command.
        """
        if not isinstance(results, RunResults):
            for place, result in enumerate(results):
                self.keep(number + place, result)
            return
        left: range | RunResults = results if results.counted else results.revisions
        while len(left) > (room := max(1, self.page.entries_max - len(self.page.results))):
            self._keep_together(number, left[:room])
            number, left = number + room, left[room:]
        self._keep_together(number, left)

    def _keep_together(self, number: int, results: range | RunResults) -> None:
        """Keep these results in the present page, which has room for them."""
        page = self.page
        page.keep_together(number, results)
        if len(page.results) >= page.entries_max:
            self._begin_page()

    def keep(self, number: int, result: Result, revision: int = 0) -> bool:
        """Keep the result of the command with this number. Returns whether it is "OK revision=R" and nothing else,
        where R is `revision`.

        Raises an exception, and keeps nothing, if no client can be told the result (`check_result`).

        This method runs for each command, so the usual case is handled here without a call of another method.
        """
        page = self.page
        results = page.results
        if type(result) is Done and not result.rows:
            fields = result.fields
            # True equals 1, but is shown in another way; 1.0 equals 1, too, and cannot be shown.
            if fields == (("revision", revision),) and type(fields[0][1]) is int:
                results[number] = revision
                if len(results) >= page.entries_max:
                    self._begin_page()
                return True
            size = 0
            for name, value in fields:
                if (name, type(value)) not in right_fields:
                    check_field(name, value)
                if isinstance(value, _SIZED):
                    size += _bytes(value)
            results[number] = result
        else:
            check_result(result)
            size = self._keep_other(page, number, result)
        if size:
            page.size += size
            self._kept.size += size
            if not page.number:
                self._kept.note(page)
        if len(results) >= page.entries_max or (size and page.size * 4 > self.bytes_max):
            self._begin_page()
        return False

    def _keep_other(self, page: Page, number: int, result: Result) -> int:
        """Keep in `page` a result that is a refusal, has rows, or is a `DoneGrowing`. Returns by how many bytes the
        kept results grow."""
        if not isinstance(result, DoneGrowing):
            page.results[number] = result
            return size_of(result)
        page.results[number] = Beginning.of(result)
        page.has_beginnings = True
        growing = result.growing
        growth = len(growing.data) - growing.counted
        if not growing.kept:
            self._kept.growing[id(growing)] = growing
        elif self._kept.watcher is not None:
            self._kept.watcher.growing_changes(growing)
        growing.kept += 1
        growing.counted = len(growing.data)
        page.shared += growth
        return growth

    def drop(self, page: Page) -> None:
        """Forget the results of a page, since all sessions together keep too much."""
        if page is self.page:
            self.page = self._make_page()
        else:
            self._full = deque(each for each in self._full if each is not page)
        self._forget(page)

    def drop_all(self) -> None:
        """Stop counting the results of this session, which has ended."""
        for page in self.pages():
            self._kept.release(page)

    def pages(self) -> Iterator[Page]:
        """The pages of this cache, the oldest first."""
        yield from self._full
        yield self.page

    def new_page(self, size: int, shared: int, number: int, looked_at: int) -> Page:
        """Make a page for `put_pages`, still without results."""
        page = self._make_page()
        page.size, page.shared, page.number, page.looked_at = size, shared, number, looked_at
        return page

    def put_pages(self, pages: Iterable[Page]) -> None:
        """Replace all pages of this cache by these pages of a snapshot, the oldest first. The last page takes the next
        results."""
        *full, self.page = pages
        self._full = deque(full)

    def _begin_page(self) -> None:
        full, page = self._full, self.page
        entries = ENTRY_BYTES * len(page)
        page.size += entries
        self._kept.size += entries
        if not page.number:
            self._kept.note(page)
        full.append(page)
        count, size = sum(map(len, full)), sum(map(_size_of_page, full))
        while len(full) > 1 and (count - len(full[0]) >= self.answers_max or size > self.bytes_max):
            oldest = full.popleft()
            count -= len(oldest)
            size -= oldest.size
            self._forget(oldest)
        self.page = self._make_page()

    def _forget(self, page: Page) -> None:
        self._kept.release(page)
        self.forgotten = max(self.forgotten, page.highest)


_size_of_page: Final = attrgetter("size")


def _a_quarter_of(answers_max: int) -> int:
    """The number of results with which a page is full: a quarter of `answers_max`, rounded up, and 1 at least."""
    return max(1, -(-answers_max // 4))


def _numbers(number: int, result: object) -> Sequence[int]:
    """The command numbers that an entry of a page stands for."""
    return range(number, number + len(result)) if isinstance(result, _RANGES) else (number,)
