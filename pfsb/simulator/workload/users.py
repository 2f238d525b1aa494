"""People who use the cluster: each asks, waits, loses patience, goes elsewhere and repeats the same numbers.

A user with a name has one session, over many connections, sometimes two at once. One without has a session for each
connection; what was under way when that breaks stays unknown.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, field

from pfsb.applications.interfaces import Done, Result
from pfsb.simulator.checkers.session_checker import REFUSED_BY_THE_DESK, SessionChecker
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.linearizability.history import History
from pfsb.simulator.workload.commands import Vocabulary, unlock
from pfsb.simulator.workload.connection import SimulatedConnection
from pfsb.simulator.workload.numbers import Numbers
from pfsb.simulator.workload.read_checker import Log
from pfsb.simulator.workload.request import UserRequest
from pfsb.simulator.workload.user_profile import UserProfile

LOOK_SECONDS = 0.05
LOCK_PATIENCE = 4
"""A lock may be long in coming: so many times the patience."""
BACKOFF_MAX = 8
"""Patience grows to so many times."""


@define(eq=False)
class User:
    cluster: SimulatedCluster
    checks: SessionChecker
    history: History
    log: Log
    rng: random.Random
    name: str
    """"": none."""
    habits: UserProfile
    vocabulary: Vocabulary
    unique: Callable[[], int]
    doors: frozenset[int]
    """The servers that it goes to, as long as one of them runs and it does not just want to be done."""
    is_gone: bool = False
    _line: SimulatedConnection | None = None
    _is_ready: bool = False
    """The line may be used: HELLO is answered."""
    _line_since: float = 0.0
    _had_a_session: bool = False
    _numbers: Numbers = field(init=False)
    _jobs: list[UserRequest] = field(factory=list)
    """Without an answer, in the order of their numbers."""
    _done: list[UserRequest] = field(factory=list)
    _is_fed_up: bool = False
    """This server had no answer to something, or to HELLO: another one may have."""
    _may_hold: str = ""
    """A lock that the user has asked for, and not given back for certain."""
    _next_at: float = 0.0
    _enough: bool = False
    _moves: int = 0
    """Since there was enough."""
    _is_served: bool = False
    """Something was answered since there was enough."""

    @_numbers.default
    def _make_numbers(self) -> Numbers:
        return Numbers(self.rng, self.habits.goes_back)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, 4 * LOOK_SECONDS), self._live)

    def finish(self) -> None:
        """Give back what is held, and ask for one more thing; what is under way is repeated until it is answered."""
        self._enough = True

    @property
    def is_satisfied(self) -> bool:
        """Nothing is left to wish for."""
        return self.is_gone or (self._is_served and not self._jobs and not self._may_hold)

    def describe(self) -> str:
        jobs = ", ".join(f"#{job.number} {job.command[0]}" for job in self._jobs[:5])
        where = "nowhere" if self._line is None else f"server {self._line.server_id}"
        jobs = jobs or ("nothing" if self._is_served else "a server that takes a command")
        return f"{self.name or 'somebody'} at {where} waits for {jobs}; holds {self._may_hold or 'nothing'}"

    def _live(self) -> None:
        if self.is_gone:
            return
        if self._line is None or self._line.is_lost or self._is_impatient():
            self._move()
        elif self._is_ready:
            self._work()
        self.cluster.clock.callLater(LOOK_SECONDS, self._live)

    def _is_impatient(self) -> bool:
        now = self.cluster.now
        if self._is_fed_up:
            return now - self._line_since > self._backoff - 1
        if not self._is_ready:
            return now - self._line_since > 2 * self.habits.patience_seconds * self._backoff
        return any(job.line is not None and now - job.asked_at > self._patience_for(job) for job in self._jobs)

    def _patience_for(self, job: UserRequest) -> float:
        return self.habits.patience_seconds * self._backoff * (LOCK_PATIENCE if job.command[0] == "LOCK" else 1)

    @property
    def _backoff(self) -> int:
        """Who wants one thing only, and was at several servers in vain, waits longer at the next.

        A leader that is slow is not suspected as long as it orders something: all together must not ask for more.
        """
        return min(BACKOFF_MAX, 1 + self._moves // 4)

    def _work(self) -> None:
        for job in self._jobs:
            if job.line is None:
                self._ask(job)
        if self.cluster.now >= self._next_at and len(self._jobs) < self.habits.pipeline and not self._is_time_to_rest():
            self._next_at = self.cluster.now + self.rng.expovariate(1 / self.habits.think_seconds)
            self._do_something()

    def _is_time_to_rest(self) -> bool:
        """A leader that fails while nobody asks is found out all the same, and what it leaves is put in order."""
        rhythm = self.habits.rhythm_seconds
        return rhythm > 0 and self.cluster.now % rhythm > rhythm / 2 and not self._enough

    def _do_something(self) -> None:
        habits, dice = self.habits, self.rng.random()
        if self._enough:
            self._finish_up()
        elif dice < habits.vanishes:
            self.is_gone = True
            self._hang_up()
        elif dice < habits.vanishes + habits.leaves:
            self._hang_up()
            self._line_since = self.cluster.now + self.rng.uniform(0, 2) * self.habits.ttl_seconds
        elif dice < habits.vanishes + habits.leaves + habits.says_goodbye and not self._jobs:
            self._say_goodbye()
        elif dice > 1 - habits.goes_back:
            self._go_back()
        else:
            self._ask_something_new()

    def _finish_up(self) -> None:
        self._give_back()
        if not self._is_served and not self._jobs:
            self._begin(UserRequest(self._numbers.next(), self.vocabulary.change(self.rng, self.unique())))

    # ------------------------------------------------------------------ asking

    def _ask_something_new(self) -> None:
        dice = self.rng.random()
        if dice < self.vocabulary.share_of_locks:
            self._want_a_lock()
        elif dice > 1 - self.vocabulary.share_of_local_reads:
            self._read_here()
        elif dice < self.vocabulary.share_of_locks + self.vocabulary.share_of_reads:
            self._begin(UserRequest(0, self.vocabulary.question(self.rng)))
        else:
            self._begin(UserRequest(self._numbers.next(), self.vocabulary.change(self.rng, self.unique())))

    def _read_here(self) -> None:
        """At this server, sequentially if all that was asked is answered: else it would have to wait for that."""
        line = self._line
        assert line is not None
        who = self.name or line.client_id
        is_sequential = not line.unanswered
        oldest = self.log.seen_by(who) if is_sequential else 0
        name = self.rng.choice(self.vocabulary.names())

        def has_read(seq: int, result: Result) -> None:
            where = f"{who} at server {line.server_id}"
            self.cluster.findings.note(self.log.read, name, seq, result, oldest, where)
            if is_sequential:
                self.log.seen(who, seq)

        line.read(name, has_read)

    def _want_a_lock(self) -> None:
        """One at a time: whoever waits for one and holds another may wait for ever."""
        if self._may_hold:
            self._give_back()
        else:
            command = self.vocabulary.lock(self.rng)
            self._may_hold = command[1]
            self._begin(UserRequest(self._numbers.next(), command))

    def _give_back(self) -> None:
        if self._may_hold and not any("LOCK" in job.command[0] for job in self._jobs):
            self._begin(UserRequest(self._numbers.next(), unlock(self._may_hold)))

    def _go_back(self) -> None:
        """A correct client does neither; a correct server tells it the truth all the same."""
        assert self._line is not None
        if self._numbers.passed_over and self.rng.random() < 0.5:
            number = self._numbers.take_passed_over()
            job = UserRequest(number, self.vocabulary.change(self.rng, self.unique()))
            job.entry = self.history.called(self._line.client_id, job.command)
            self._line.submit(number, job.command, lambda result: self._note_answer(job, result))
        elif self._done:
            job = self.rng.choice(self._done)
            self._line.submit(job.number, job.command, lambda result: None)

    def _begin(self, job: UserRequest) -> None:
        self._jobs.append(job)
        self._ask(job)

    def _ask(self, job: UserRequest) -> None:
        line = self._line
        assert line is not None
        job.asked_at, job.line = self.cluster.now, line
        if job.entry is None:
            job.entry = self.history.called(line.client_id, job.command)
        if job.number:
            line.submit(job.number, job.command, lambda result: self._answered(line, job, result))
        else:
            line.question(job.command, lambda result: self._answered(line, job, result))

    # ------------------------------------------------------------------ answers

    def _answered(self, line: SimulatedConnection, job: UserRequest, result: Result) -> None:
        if job not in self._jobs:
            return  # answered on another line
        if isinstance(result, Done) or result.code not in REFUSED_BY_THE_DESK:
            self._settle(job, result)
        elif line is not job.line:
            return  # the line where it was asked since will tell
        elif not job.number:
            self._drop(job)
        elif result.code == "BADREQUEST":
            # The number is past, and its answer no longer kept; or it was passed over, and is of no use any more.
            job.may_have_run = job.may_have_run or result.fate != "none"
            self._drop(job)
        else:
            job.may_have_run = job.may_have_run or result.fate != "none"
            if not job.may_have_run and self.rng.random() < 0.3:
                self._drop(job)
            else:
                job.line = None
                self._is_fed_up = self._is_fed_up or self._enough or self.rng.random() < 0.3

    def _settle(self, job: UserRequest, result: Result) -> None:
        self._note_answer(job, result)
        self._jobs.remove(job)
        self._is_served = self._is_served or self._enough
        if job.number:
            self._done = [*self._done[-20:], job]
        verb = job.command[0]
        if verb == "UNLOCK" or ("LOCK" in verb and not isinstance(result, Done)):
            self._may_hold = ""

    def _note_answer(self, job: UserRequest, result: Result) -> None:
        assert job.entry is not None
        if self._line is not None and job.number:
            client = self._line.client_id
            self.log.seen(client, self.checks.results.get((client, job.number), (0, None))[0])
        if isinstance(result, Done) or result.code not in REFUSED_BY_THE_DESK:
            self.history.answered(job.entry, result)
        elif result.fate == "none" and not job.may_have_run:
            self.history.did_not_happen(job.entry)

    def _drop(self, job: UserRequest) -> None:
        """Give it up; whether it ran is known, or never will be."""
        assert job.entry is not None
        self._jobs.remove(job)
        if not job.may_have_run:
            self.history.did_not_happen(job.entry)
        if "LOCK" in job.command[0] and not job.may_have_run and job.command[0] != "UNLOCK":
            self._may_hold = ""

    # ------------------------------------------------------------------ connections

    def _move(self) -> None:
        """To a server, another one if possible."""
        if self.cluster.now < self._line_since:
            return
        before = self._line
        self._moves += self._enough
        self._hang_up()
        serving = self.cluster.serving_ids
        if not self._enough:
            serving = [i for i in serving if i in self.doors] or serving
        able = [i for i in serving if before is None or i != before.server_id] or serving
        if not able:
            return
        self._line = line = SimulatedConnection(
            self.cluster,
            self.checks,
            self.rng,
            self.rng.choice(able),
            self._session_is_over,
            self.habits.turn_seconds,
        )
        self._line_since = self.cluster.now
        line.connect(lambda: self._connected(line))

    def _connected(self, line: SimulatedConnection) -> None:
        if self.name:
            line.hello(self.name, self.habits.ttl_seconds, lambda result: self._hello_answered(line, result))
        elif line is self._line:
            self._is_ready = True
            self._numbers.begin_anew()
            self._done.clear()

    def _hello_answered(self, line: SimulatedConnection, result: Result) -> None:
        if line is not self._line:
            return
        if not isinstance(result, Done):
            self._is_fed_up = True
            return
        fields = dict(result.fields)
        last, resumed = int(fields["last"]), fields["resumed"] == "yes"
        if not resumed:
            self._session_is_new()
        for job in self._jobs:
            job.may_have_run = job.may_have_run and job.number <= last
        self._had_a_session = self._is_ready = True
        self._numbers.know(last)

    def _session_is_new(self) -> None:
        """What the former one held is free again; what it was asked may have run, and be forgotten since."""
        if self._had_a_session:
            for job in [job for job in self._jobs if job.may_have_run]:
                self._drop(job)
            self._done.clear()
        if not any("LOCK" in job.command[0] for job in self._jobs):
            self._may_hold = ""

    def _hang_up(self) -> None:
        """Leave the line, or leave it open and forget it."""
        line, self._line, self._is_ready, self._is_fed_up = self._line, None, False, False
        if line is None:
            return
        if not self.is_gone and self.name and self.rng.random() < self.habits.doubles:
            self.cluster.clock.callLater(self.rng.uniform(0, 5), line.leave)
        else:
            line.leave()
        for job in list(self._jobs):
            if job.line is not None:
                job.line, job.may_have_run = None, True
            if not self.name or not job.number:
                self._drop(job)
        if not self.name:
            self._may_hold = ""

    def _say_goodbye(self) -> None:
        line = self._line
        assert line is not None
        self._is_ready = False
        self._line_since = self.cluster.now
        line.bye(lambda result: self._session_is_over(line, "BYE"))

    def _session_is_over(self, line: SimulatedConnection, code: str) -> None:
        """Taken over by another line of this user, expired or closed: begin again."""
        if line is self._line:
            self._move()
