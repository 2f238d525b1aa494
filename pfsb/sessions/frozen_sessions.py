"""The sessions of one moment, with all results that they keep: rows of a snapshot that are made while commands go on.

At that moment nothing is copied but the list of the sessions. When a session is about to change for the first time, or
when its turn has come, its *image* is made: a few numbers for the session and for each of its pages. A page only gets
results at its end, and none is ever replaced, so the number of results that it has tells which of them are in the
snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from attrs import define, field

from pfsb.applications.interfaces import GrowingBytes
from pfsb.paxos.snapshot_rows import Row, packed
from pfsb.sessions.kept_results import entries_of
from pfsb.sessions.reply_cache import ReplyCache
from pfsb.sessions.session import Closed, Session

SESSION, PAGE, MORE = 0, 1, 2
"""Kinds of rows: (SESSION, client id, epoch, server, ttl, last number, opened, forgotten, (number, application) of each
command that waits, number of pages); (PAGE, bytes, those of them in values that grow, number, results that the page had
at the last look, entries) for each page of the session's reply cache, the last of which is the one that takes results;
(MORE, further entries of the same page)."""
ROW_ENTRIES: Final = 256
"""Maximum number of entries of a page in one row."""
_LARGE_PAGE_BYTES: Final = 65_536
"""Bytes of a page's results above which each entry has a row of its own: so a row is not much larger than a piece."""
_SESSION_WORK: Final = 8
"""Work, as in `Row`, of the row of a session without its results."""
_PAGE_WORK: Final = 3

_Image = tuple[tuple[Any, ...], Sequence[tuple[Mapping[int, Any], int, int, int, int, int]]]
"""(the parts of the row of the session, for each page its results, how many of them count, and the parts of its row)"""

_of_session: Final = attrgetter("client_id", "epoch", "server_id", "ttl_ms", "last_number", "opened")
_of_page: Final = attrgetter("results", "size", "shared", "number", "looked_at")


@define(eq=False)
class FrozenSessions:
    """The sessions as they were when a snapshot was begun, in their order."""

    number: int
    """The number of the snapshot (`Session.frozen_in`)."""
    _sessions: Sequence[Session]
    _open: Mapping[str, Session]
    """Client id -> session, for the sessions that are open at present."""
    _growing: Sequence[GrowingBytes]
    """The values that grow whose beginnings were kept as results when the snapshot was begun, in the order of
    `KeptReplies.growing`."""
    _sharing: Sequence[Any]
    """The applications whose states and results share values that grow (`IGrowingValues`)."""
    _ends: Sequence[tuple[str, Closed]]
    """(client id, end) of the sessions that had ended when the snapshot was begun, and of some that had been opened
    anew by then."""
    _closed: Mapping[str, Closed]
    """Client id -> end of each session that has ended and is not forgotten, at present."""
    _closed_then: set[int] = field(factory=set, init=False)
    """Addresses of the ends of sessions that were in `_closed` when the snapshot was begun, and are not any more."""
    _counted_then: dict[int, int] = field(factory=dict, init=False)
    """Address of a value that grows -> its `counted` when the snapshot was begun, for the values that have changed
    since."""
    _places: dict[int, int] = field(factory=dict, init=False)
    """Address of each value that grows -> its place among the rows of the values that grow."""
    images: dict[int, _Image] = field(factory=dict, init=False)
    """Address of a session that has changed since the snapshot was begun, and whose rows are not made yet -> its
    image."""

    def keep(self, session: Session) -> None:
        """Called before a session is changed: keep its image, unless that is done or not needed."""
        if session.frozen_in != self.number:
            session.frozen_in = self.number
            self.images[id(session)] = _image(session)

    def answers_change(self, answers: ReplyCache) -> None:
        self.keep(self._open[answers.client_id])

    def growing_changes(self, growing: GrowingBytes) -> None:
        self._counted_then.setdefault(id(growing), growing.counted)

    def growing_rows(self) -> Iterator[Row]:
        """Rows (counted bytes, application, key) of the values that the state of an application shares, and (counted
        bytes, "", value) of all others. A value that no state shares any more does not change.

        The rows are taken before the first piece of any application, as `IGrowingValues.growing_then` demands.
        """
        for place, growing in enumerate(self._growing):
            self._places[id(growing)] = place
            counted = self._counted_then.get(id(growing), growing.counted)
            for application in self._sharing:
                if application.growing_then(growing.key) is growing:
                    yield packed((counted, application.name, growing.key)), 1
                    break
            else:
                yield packed((counted, "", growing.data)), 1

    def keep_closed(self, ended: Closed) -> None:
        """Called when the end of a session is forgotten, since it was opened anew or has ended long ago."""
        self._closed_then.add(id(ended))

    def closed_rows(self) -> Iterator[Row]:
        closed, closed_then = self._closed, self._closed_then
        for client_id, ended in self._ends:
            if closed.get(client_id) is ended or id(ended) in closed_then:
                yield packed((client_id, *ended)), 1

    def rows(self) -> Iterator[Row]:
        for session in self._sessions:
            if session.frozen_in == self.number:
                image = self.images.pop(id(session))
            else:
                session.frozen_in = self.number
                image = _image(session)
            yield from self._rows_of(*image)

    def _rows_of(self, head: tuple[Any, ...], pages: Sequence[Any]) -> Iterator[Row]:
        yield packed(head), _SESSION_WORK
        for results, count, *parts in pages:
            at_once = ROW_ENTRIES if parts[0] <= _LARGE_PAGE_BYTES else 1
            entries = entries_of(results, count, self._places)
            taken = [*islice(entries, at_once)]
            yield packed((PAGE, *parts, [entry for entry, _ in taken])), _PAGE_WORK + _work(taken)
            while len(taken) == at_once and (taken := [*islice(entries, at_once)]):
                yield packed((MORE, [entry for entry, _ in taken])), _work(taken)


def _image(session: Session) -> _Image:
    answers = session.answers
    pages = [*answers.pages()]
    head = SESSION, *_of_session(session), answers.forgotten, tuple(session.waiting.items()), len(pages)
    return head, [(results, len(results), *parts) for results, *parts in map(_of_page, pages)]


def _work(entries: Sequence[tuple[Any, int]]) -> int:
    return sum([work for _, work in entries])
