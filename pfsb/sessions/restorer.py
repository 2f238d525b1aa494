"""Builds the state of a `SessionStateMachine` from the pieces of a snapshot (`pfsb.sessions.frozen_state`), beside the
present state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

from attrs import define, field
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.failures import depends_on_machine
from pfsb.applications.interfaces import GrowingBytes, IFrozenState, IGrowingValues
from pfsb.paxos.interfaces import IRestorer
from pfsb.paxos.members import Members, decode_members
from pfsb.paxos.snapshot import Piece, WrongSnapshot
from pfsb.paxos.snapshot_rows import RowReader
from pfsb.sessions import kept_results
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.frozen_sessions import MORE, PAGE, SESSION
from pfsb.sessions.frozen_state import CLOSED, GROWING, SESSIONS, STATE, StateHead, section_of
from pfsb.sessions.kept_results import decoded_value
from pfsb.sessions.ordered_settings import Abilities
from pfsb.sessions.reply_cache import KeptReplies, Page, ReplyCache
from pfsb.sessions.session import Closed, Session

_number_of: Final = attrgetter("number")
PAGES_AT_ONCE: Final = 20_000
"""Maximum number of pages of kept replies that get their place in one step: this takes some milliseconds."""


@define(eq=False)
class RestoredApplication:
    """An application whose state is being restored."""

    application: Any
    size: int | None
    waits: bool
    """Whether this server has only one object of the application, which the caller has made (`GivenApplications`). Then
    the pieces of the application wait until the state is adopted, so that a restore that is given up does not change
    the object."""
    _pieces: list[bytes] = field(factory=list, init=False)

    def take(self, data: bytes) -> None:
        if self.size is not None or self.waits:
            self._pieces.append(data)
        else:
            self.application.take_piece(data)

    def end(self) -> None:
        """Called after the last piece, and again when the state is adopted if the pieces had to wait for that."""
        pieces, self._pieces = self._pieces, []
        if self.size is None:
            for piece in pieces:
                self.application.take_piece(piece)
            self.application.pieces_end()
            return
        data = b"".join(pieces)
        if len(data) != self.size:
            raise WrongSnapshot("the state of an application is not complete")
        self.application.restore(data)


@define(eq=False)
class RestoredState:
    """The state in a snapshot. It is complete when `SessionRestorer.end` was called."""

    head: StateHead
    values: ClusterSettings | None
    """The settings; None: the snapshot is of a slot before their birth."""
    announced: dict[int, Abilities]
    kept: KeptReplies
    members: Members | None = None
    """The servers of the epoch, if a change of the membership was executed."""
    applications: list[RestoredApplication] = field(factory=list, init=False)
    closed_sessions: dict[str, Closed] = field(factory=dict, init=False)
    growing: list[GrowingBytes] = field(factory=list, init=False)
    shared: list[tuple[GrowingBytes, str]] = field(factory=list, init=False)
    """(a value that grows, the name of the application whose state shares it)"""
    sessions: dict[str, Session] = field(factory=dict, init=False)

    def end(self, waiting: bool) -> None:
        """Finish those restored applications that wait until the state is adopted if `waiting`, or all others if not,
        and give them the values that they share. Raises `WrongSnapshot`."""
        _guarded(self._end, waiting)

    def _end(self, waiting: bool) -> None:
        chosen = {each.application.name: each for each in self.applications if each.waits is waiting}
        for each in chosen.values():
            each.end()
        for growing, name in self.shared:
            if name in chosen:
                application = chosen[name].application
                if not IGrowingValues.providedBy(application):
                    raise WrongSnapshot(f"answers share values with {name}, which shares none")
                application.share(growing.key, growing)


@implementer(IRestorer)
class SessionRestorer:
    """Builds the state of a snapshot, piece by piece (`IRestorer`)."""

    def __init__(
        self,
        make: Callable[[ClusterSettings, str, int], Any],
        catalogue: Catalogue,
        adopt: Callable[[RestoredState], None],
    ) -> None:
        """`make` makes an application that the settings of the snapshot ask for, by name and version. `catalogue` has
        the applications of the present state, and can be switched to those of the snapshot or not. `adopt` replaces the
        present state by the complete one."""
        self._make = make
        self._catalogue = catalogue
        self._adopt = adopt
        self._state: RestoredState | None = None
        self._section = ""
        self._reader = RowReader()
        self._session: Session | None = None
        """The session whose pages are being taken."""
        self._pages: list[Page] = []
        self._pages_left = 0
        self._numbered: list[Page] = []
        """The pages taken so far that hold bytes."""
        self._begun: dict[str, RestoredApplication] = {}
        """Section of an application -> the application, for the sections of which a piece was taken."""
        self._is_whole = False
        """Whether all pieces were found to be there, and the pages are in order."""
        self._placed = 0
        """Number of the pages in `_numbered` that have their place among the kept replies."""

    def take(self, piece: Piece) -> None:
        """Take the next piece. Raises `CannotRun` if this server lacks an application."""
        with_errors = self._take_application if piece.section.startswith("app ") else self._take_rows
        _guarded(with_errors, piece)

    def end(self) -> bool:
        if not self._is_whole:
            _guarded(self._end)
            self._is_whole = True
            return not self._numbered
        pages = self._numbered[self._placed : self._placed + PAGES_AT_ONCE]
        self._require_state().kept.pages.update(zip(map(_number_of, pages), pages, strict=True))
        self._placed += len(pages)
        return self._placed == len(self._numbered)

    def adopt(self) -> None:
        while not (self._is_whole and self._placed == len(self._numbered)):
            self.end()
        self._adopt(self._require_state())

    # ------------------------------------------------------------------ sections

    def _take_rows(self, piece: Piece) -> None:
        if piece.section != self._section:
            self._reader.end()
            self._section, self._reader = piece.section, RowReader(decoded_value)
        rows = self._reader.rows(piece.data)
        if piece.section == STATE:
            for row in rows:
                self._begin(StateHead(*row))
            return
        state = self._require_state()
        if piece.section == CLOSED:
            state.closed_sessions.update([(client_id, (number, seq, at)) for client_id, number, seq, at in rows])
        elif piece.section == GROWING:
            for counted, name, data in rows:
                self._take_growing(state, counted, name, data)
        elif piece.section == SESSIONS:
            for row in rows:
                self._take_session(state, row)
        else:
            raise WrongSnapshot(f"it has a section {piece.section}, which this version of pfsb does not know")

    def _begin(self, head: StateHead) -> None:
        _require_numbers(head)
        values = None if head.settings is None else ClusterSettings.decode(head.settings)
        announced = {server_id: Abilities.decode(data) for server_id, data in head.announced}
        kept = KeptReplies(size=head.replies_bytes, numbered=head.pages_numbered)
        members = None if head.members is None else decode_members(head.members)
        state = self._state = RestoredState(head, values, announced, kept, members)
        if values is None:
            return
        for name, version, size in head.applications:
            application = self._make(values, name, version)
            if size is None and not IFrozenState.providedBy(application):
                raise WrongSnapshot(f"it has the state of {name} in pieces, which that application does not take here")
            waits = self._catalogue.is_present(application)
            state.applications.append(RestoredApplication(application, size, waits))
        self._catalogue.require_fitting(each.application for each in state.applications)

    def _require_state(self) -> RestoredState:
        if self._state is None:
            raise WrongSnapshot("it does not begin with the numbers of the state")
        return self._state

    @staticmethod
    def _take_growing(state: RestoredState, counted: int, name: str, data: bytes) -> None:
        """Take a value that grows: `data` are its bytes, or its key in the application `name`."""
        growing = GrowingBytes(counted=counted)
        state.growing.append(growing)
        if name:
            growing.key = data
            state.shared.append((growing, name))
        else:
            growing.data = data

    def _take_session(self, state: RestoredState, row: Sequence[Any]) -> None:
        kind, *parts = row
        if kind == SESSION:
            self._begin_session(state, *parts)
            return
        session = self._session
        if session is None:
            raise WrongSnapshot("kept results come before their session")
        *numbers, entries = parts
        if kind == PAGE:
            self._end_page()
            page = session.answers.new_page(*numbers)
            self._pages.append(page)
            self._pages_left -= 1
            if page.number:
                self._numbered.append(page)
        elif kind != MORE or not self._pages:
            raise WrongSnapshot("a row of its sessions has another form")
        for entry in entries:
            kept_results.put(self._pages[-1], entry, state.growing)

    def _begin_session(
        self,
        state: RestoredState,
        client_id: str,
        epoch: int,
        server_id: int,
        ttl_ms: int,
        last_number: int,
        opened: int,
        forgotten: int,
        waiting: Sequence[tuple[int, str]],
        pages: int,
    ) -> None:
        self._end_session()
        assert state.values is not None, "there are no sessions before the birth of the settings"
        if client_id in state.sessions:
            raise WrongSnapshot("it has a session twice")
        window, bytes_max = state.values.session_window, state.values.reply_cache_bytes
        answers = ReplyCache(window, forgotten, bytes_max, state.kept, client_id)
        session = Session(client_id, epoch, server_id, ttl_ms, answers, last_number, dict(waiting), opened)
        state.sessions[client_id] = self._session = session
        self._pages_left = pages

    def _end_page(self) -> None:
        if not self._pages_left:
            raise WrongSnapshot("a session has more pages than it tells")

    def _end_session(self) -> None:
        session, pages, self._pages = self._session, self._pages, []
        if session is not None:
            if self._pages_left:
                raise WrongSnapshot("a session has fewer pages than it tells")
            session.answers.put_pages(pages)
        self._session = None

    def _take_application(self, piece: Piece) -> None:
        state = self._require_state()
        found = self._begun.get(piece.section)
        if found is None:
            named = zip(state.head.applications, state.applications, strict=True)
            sections = {section_of(name, version): each for (name, version, _), each in named}
            found = self._begun[piece.section] = sections[piece.section]
        found.take(piece.data)

    # ------------------------------------------------------------------ the end

    def _end(self) -> None:
        self._reader.end()
        state = self._require_state()
        self._end_session()
        told = state.head.closed, state.head.growing, state.head.sessions
        if told != (len(state.closed_sessions), len(state.growing), len(state.sessions)):
            raise WrongSnapshot("its sessions are not complete")
        self._numbered.sort(key=_number_of)
        state.kept.growing = {id(growing): growing for growing in state.growing}
        state.end(waiting=False)


def _require_numbers(head: StateHead) -> None:
    """Raise an exception unless the fields of the state's head have the right types and ranges: the state is adopted
    without further checks."""
    numbers = (head.seq, head.revision, head.time_ms, head.forgotten, head.oldest_kept, head.replies_bytes)
    counts = (head.pages_numbered, head.closed, head.growing, head.sessions)
    heard, overdue = dict(head.heard_in), dict(head.overdue)
    if {*map(type, (*numbers, *counts, *heard, *heard.values(), *overdue.values()))} != {int}:
        raise WrongSnapshot("a number of its state is none")


def _guarded(function: Callable[..., None], *args: Any) -> None:
    """Call `function`. Raises `WrongSnapshot` in place of the exceptions that wrong pieces cause."""
    try:
        function(*args)
    except WrongSnapshot:
        raise
    except Exception as error:
        if depends_on_machine(error):
            raise
        raise WrongSnapshot(f"a piece of it cannot be understood ({type(error).__name__}: {error})") from error
