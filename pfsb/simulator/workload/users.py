"""Simulated users: each sends commands, waits, moves to another server and repeats unanswered commands there.

A user with a name has one session over many connections, sometimes two at once. A user without a name has a session
for each connection; the fate of its commands under way stays unknown when the connection breaks.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, field

from pfsb.applications.interfaces import Command, Done, Refused, Result
from pfsb.simulator.checkers.session_checker import REFUSED_BY_LOCAL_CLIENTS, SessionChecker
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.linearizability.history import History
from pfsb.simulator.linearizability.operations import number_in
from pfsb.simulator.workload.commands import Vocabulary, unlock
from pfsb.simulator.workload.connection import SimulatedConnection
from pfsb.simulator.workload.numbers import CommandNumbers
from pfsb.simulator.workload.read_checker import ReadHistory
from pfsb.simulator.workload.request import UserRequest
from pfsb.simulator.workload.user_profile import UserProfile

LOOK_SECONDS = 0.05
"""How long, in seconds, a user waits between two decisions about its next action."""
LOCK_PATIENCE = 4
"""How many times longer a user waits for the answer to a LOCK than to another command: the lock may be held."""
MIND_CHANGES = 0.3
"""Chance that a user gives up its commands that have not run, and uses their numbers for other commands. It is drawn
each time that HELLO opens the user's session, if the user's profile has `goes_back` above 0; other users never do
so."""
LATE_GOODBYES = 0.3
"""Chance that a user says BYE on an old connection before it closes it. Drawn for each connection that stays open for
some time after its last use, if HELLO was answered on it."""
BACKOFF_MAX = 8
"""Maximum factor by which a user waits longer for answers after many moves to other servers since `User.finish`."""


@define(eq=False)
class User:
    """One user. It uses at most one connection at a time, and may leave an old one open for a while."""

    cluster: SimulatedCluster
    checks: SessionChecker
    history: History
    log: ReadHistory
    rng: random.Random
    name: str
    """The client id of the user's session; "" for a user without a name."""
    profile: UserProfile
    vocabulary: Vocabulary
    unique: Callable[[], int]
    home_servers: frozenset[int]
    """Ids of the servers that the user prefers until `finish`; it uses others only while none of these runs."""
    is_gone: bool = False
    connection: SimulatedConnection | None = None
    """The connection that the user has, or has lost without noticing; None: it has none."""
    _is_ready: bool = False
    """Whether the user may send commands on `connection`; for a user with a name, only after HELLO was answered."""
    _connection_since: float = 0.0
    _had_a_session: bool = False
    _numbers: CommandNumbers = field(init=False)
    _requests: list[UserRequest] = field(factory=list)
    """Commands without an answer, in the order of their numbers."""
    _done: list[UserRequest] = field(factory=list)
    _wants_another_server: bool = False
    """Whether the present server has refused a command or HELLO, so that the user will move to another server."""
    _seen: dict[str, int] = field(factory=dict)
    """Key -> its revision, as the last answer to this user that told it has shown it."""
    _may_hold: str = ""
    """Name of a lock that the user has asked for and may hold; "" if there is none."""
    _next_at: float = 0.0
    _is_finishing: bool = False
    _moves_when_finishing: int = 0
    """How many times the user has moved to another server since `finish`."""
    _tried: set[int] = field(factory=set)
    """The servers that the user has gone to since `finish`, in the present round over all of them."""
    _is_served: bool = False
    """Whether a command of the user was answered since `finish`."""

    @_numbers.default
    def _make_numbers(self) -> CommandNumbers:
        return CommandNumbers(self.rng, self.profile.goes_back)

    # ------------------------------------------------------------------ what to do next

    def start(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, 4 * LOOK_SECONDS), self._act)

    def finish(self) -> None:
        """Called once, when the faults of a run are over: from now on, only release the lock, send one more command,
        and repeat commands under way until they are answered."""
        self._is_finishing = True
        self._tried.clear()

    @property
    def is_satisfied(self) -> bool:
        """Whether the user has finished: its lock is released and all its commands are answered, or it is gone."""
        return self.is_gone or (self._is_served and not self._requests and not self._may_hold)

    @property
    def session_in_use(self) -> str:
        """The client id of the session that the user's connection speaks for; "" if it speaks for none."""
        connection = self.connection
        return "" if connection is None or connection.is_lost or not self._is_ready else connection.client_id

    def describe(self) -> str:
        requests = ", ".join(f"#{request.number} {request.command[0]}" for request in self._requests[:5])
        where = "nowhere" if self.connection is None else f"server {self.connection.server_id}"
        requests = requests or ("nothing" if self._is_served else "a server that takes a command")
        return f"{self.name or 'a client'} at {where} waits for {requests}; holds {self._may_hold or 'nothing'}"

    def _act(self) -> None:
        if self.is_gone:
            return
        if self.connection is None or self.connection.is_lost or self._is_impatient():
            self._move()
        elif self._is_ready:
            self._send_requests()
        self.cluster.clock.callLater(LOOK_SECONDS, self._act)

    def _is_impatient(self) -> bool:
        now = self.cluster.now
        if self._wants_another_server:
            return now - self._connection_since > self._backoff - 1
        if not self._is_ready:
            return now - self._connection_since > 2 * self.profile.patience_seconds * self._backoff
        return any(
            request.connection is not None and now - request.asked_at > self._patience_with(request)
            for request in self._requests
        )

    def _patience_with(self, request: UserRequest) -> float:
        return self.profile.patience_seconds * self._backoff * (LOCK_PATIENCE if request.command[0] == "LOCK" else 1)

    @property
    def _backoff(self) -> int:
        """Factor by which the user waits longer for answers: 1, and 1 more for every four moves since `finish`.

        It is BACKOFF_MAX at most.
        Servers do not suspect a slow leader as long as it orders something. If users repeated their commands too often,
        they would send more to such a leader than it can order, and their commands would never be answered.
        """
        return min(BACKOFF_MAX, 1 + self._moves_when_finishing // 4)

    def _send_requests(self) -> None:
        for request in self._requests:
            if request.connection is None:
                self._ask(request)
        if (
            self.cluster.now >= self._next_at
            and len(self._requests) < self.profile.pipeline
            and not self._is_pause_of_rhythm()
        ):
            self._next_at = self.cluster.now + self.rng.expovariate(1 / self.profile.think_seconds)
            self._choose_action()

    def _is_pause_of_rhythm(self) -> bool:
        """Whether now is the second half of a period of `rhythm_seconds`, in which no user begins a command.

        In such a time the servers must still notice that a leader has failed, and order the updates that it has left
        unordered, although no client sends anything.
        """
        rhythm = self.profile.rhythm_seconds
        return rhythm > 0 and self.cluster.now % rhythm > rhythm / 2 and not self._is_finishing

    def _choose_action(self) -> None:
        profile, dice = self.profile, self.rng.random()
        if self._is_finishing:
            self._finish()
        elif dice < profile.vanishes:
            self.is_gone = True
            self._hang_up()
        elif dice < profile.vanishes + profile.leaves:
            self._hang_up()
            self._connection_since = self.cluster.now + self.rng.uniform(0, 2) * self.profile.ttl_seconds
        elif dice < profile.vanishes + profile.leaves + profile.says_goodbye and not self._requests:
            self._say_goodbye()
        elif dice > 1 - profile.goes_back:
            self._reuse_a_number()
        else:
            self._ask_next()

    def _new_change(self) -> Command:
        command = self.vocabulary.change(self.rng, self.unique())
        return self.vocabulary.conditional(self.rng, command, self._seen)

    def _finish(self) -> None:
        self._give_back()
        if not self._is_served and not self._requests:
            self._begin(UserRequest(self._numbers.next(), self._new_change()))

    # ------------------------------------------------------------------ asking

    def _ask_next(self) -> None:
        dice = self.rng.random()
        if dice < self.vocabulary.share_of_locks:
            self._use_a_lock()
        elif dice > 1 - self.vocabulary.share_of_local_reads:
            self._read_locally()
        elif dice < self.vocabulary.share_of_locks + self.vocabulary.share_of_reads:
            self._begin(UserRequest(0, self.vocabulary.question(self.rng)))
        else:
            self._begin(UserRequest(self._numbers.next(), self._new_change()))

    def _read_locally(self) -> None:
        """Have the present server answer a read of a key from its own state, without the log.

        The read is a sequential one if all commands of the connection are answered, else a stale one: a sequential read
        would have to wait for these commands.
        """
        connection = self.connection
        assert connection is not None
        who = self.name or connection.client_id
        is_sequential = not connection.unanswered
        oldest = self.log.seen_by(who) if is_sequential else 0
        name = self.rng.choice(self.vocabulary.names())

        def has_read(seq: int, result: Result) -> None:
            if isinstance(result, Refused) and result.code in ("REPLACED", "UNAVAILABLE"):
                # Another connection has taken the session over, or the disk hangs: nothing is told of the state.
                return
            where = f"{who} at server {connection.server_id}"
            self.cluster.findings.note(self.log.read, name, seq, result, oldest, where)
            if is_sequential:
                self.log.seen(who, seq)

        connection.read(name, has_read)

    def _use_a_lock(self) -> None:
        """Ask for a lock, or release the lock that the user may hold.

        A user has at most one lock: users that hold one lock and wait for another could wait for each other for ever.
        """
        if self._may_hold:
            self._give_back()
        else:
            command = self.vocabulary.lock(self.rng)
            self._may_hold = command[1]
            self._begin(UserRequest(self._numbers.next(), command))

    def _give_back(self) -> None:
        if self._may_hold and not any("LOCK" in request.command[0] for request in self._requests):
            self._begin(UserRequest(self._numbers.next(), unlock(self._may_hold)))

    def _reuse_a_number(self) -> None:
        """Send a new command with a number that was skipped, or send a command again that was answered.

        A correct client does neither, but a server must give a true answer even then.
        """
        assert self.connection is not None
        if self._numbers.skipped and self.rng.random() < 0.5:
            number = self._numbers.take_skipped()
            request = UserRequest(number, self._new_change())
            request.history_entry = self.history.called(self.connection.client_id, request.command)
            self.connection.submit(number, request.command, lambda result: self._note_answer(request, result))
        elif self._done:
            request = self.rng.choice(self._done)
            self.connection.submit(request.number, request.command, lambda result: None)

    def _begin(self, request: UserRequest) -> None:
        self._requests.append(request)
        self._ask(request)

    def _ask(self, request: UserRequest) -> None:
        connection = self.connection
        assert connection is not None
        request.asked_at, request.connection = self.cluster.now, connection
        if request.history_entry is None:
            request.history_entry = self.history.called(connection.client_id, request.command)
        if request.number:
            connection.submit(
                request.number, request.command, lambda result: self._answered(connection, request, result)
            )
        else:
            connection.question(request.command, lambda result: self._answered(connection, request, result))

    # ------------------------------------------------------------------ answers

    def _answered(self, connection: SimulatedConnection, request: UserRequest, result: Result) -> None:
        if request not in self._requests:
            return  # the command was answered on another connection before
        if isinstance(result, Done) or result.code not in REFUSED_BY_LOCAL_CLIENTS:
            self._settle(request, result)
        elif connection is not request.connection:
            return  # an earlier connection refuses the command, which the user has since sent on a new one
        elif not request.number:
            self._drop(request)
        elif result.code == "BADREQUEST":
            # The command has run, and the server no longer keeps its answer, or its number is now too low to be used.
            request.may_have_run = request.may_have_run or result.fate != "none"
            self._drop(request)
        else:
            request.may_have_run = request.may_have_run or result.fate != "none"
            if not request.may_have_run and self.rng.random() < 0.3:
                self._drop(request)
            else:
                request.connection = None
                self._wants_another_server = self._wants_another_server or self._is_finishing or self.rng.random() < 0.3

    def _settle(self, request: UserRequest, result: Result) -> None:
        self._note_answer(request, result)
        revision = number_in(result, "revision")
        if revision is not None and len(request.command) > 1:
            self._seen[str(request.command[1])] = revision
        self._requests.remove(request)
        self._is_served = self._is_served or self._is_finishing
        if request.number:
            self._done = [*self._done[-20:], request]
        verb = request.command[0]
        if verb == "UNLOCK" or ("LOCK" in verb and not isinstance(result, Done)):
            self._may_hold = ""

    def _note_answer(self, request: UserRequest, result: Result) -> None:
        assert request.history_entry is not None
        if self.connection is not None and request.number:
            client = self.connection.client_id
            self.log.seen(client, self.checks.results.get((client, request.number), (0, None))[0])
        if isinstance(result, Done) or result.code not in REFUSED_BY_LOCAL_CLIENTS:
            self.history.answered(request.history_entry, result)
        elif result.fate == "none" and not request.may_have_run:
            self.history.did_not_happen(request.history_entry)

    def _drop(self, request: UserRequest) -> None:
        """Stop repeating a command, because its fate is known or can never become known."""
        assert request.history_entry is not None
        self._requests.remove(request)
        if not request.may_have_run:
            self.history.did_not_happen(request.history_entry)
        if "LOCK" in request.command[0] and not request.may_have_run and request.command[0] != "UNLOCK":
            self._may_hold = ""

    # ------------------------------------------------------------------ connections

    def _move(self) -> None:
        """Connect to a server, if possible to another than the present one, and leave the present connection."""
        if self.cluster.now < self._connection_since:
            return
        before = self.connection
        self._moves_when_finishing += self._is_finishing
        self._hang_up()
        serving = self.cluster.serving_ids
        if not self._is_finishing:
            serving = [i for i in serving if i in self.home_servers] or serving
        able = [i for i in serving if before is None or i != before.server_id] or serving
        if not able:
            return
        self.connection = connection = SimulatedConnection(
            self.cluster,
            self.checks,
            self.rng,
            self.rng.choice(self._untried(able) if self._is_finishing else able),
            self._session_is_over,
            self.profile.batching_seconds,
        )
        self._tried.add(connection.server_id)
        self._connection_since = self.cluster.now
        connection.connect(lambda: self._connected(connection))

    def _untried(self, able: list[int]) -> list[int]:
        """The servers that were not tried in the present round; all of them, in a new round, if none is left.

        The client library rotates in the same way (`pfsb.client.core.server_rotation`). A user that moved at random
        would come back to the servers of a large minority that is paused for good, and wait there each time.
        """
        untried = [i for i in able if i not in self._tried]
        if not untried:
            self._tried.clear()
        return untried or able

    def _connected(self, connection: SimulatedConnection) -> None:
        if self.name:
            connection.hello(
                self.name, self.profile.ttl_seconds, lambda result: self._on_hello_answered(connection, result)
            )
        elif connection is self.connection:
            self._is_ready = True
            self._numbers.restart()
            self._done.clear()

    def _on_hello_answered(self, connection: SimulatedConnection, result: Result) -> None:
        if connection is not self.connection:
            return
        if not isinstance(result, Done):
            self._wants_another_server = True
            return
        fields = dict(result.fields)
        last, resumed = int(fields["last"]), fields["resumed"] == "yes"
        if not resumed:
            self._session_is_new()
        for request in self._requests:
            request.may_have_run = request.may_have_run and request.number <= last
        if self.profile.goes_back and self.rng.random() < MIND_CHANGES:
            self._change_mind(last)
        self._had_a_session = self._is_ready = True
        self._numbers.continue_from(last)

    def _change_mind(self, last: int) -> None:
        """Give up the commands that have not run, and use their numbers for others.

        The answer to HELLO has told that no command with a number above `last` has run. The new epoch fences off former
        connections, so none of these commands can run later.
        """
        for request in [request for request in self._requests if request.number > last]:
            request.may_have_run = False
            self._drop(request)
        self._numbers.go_back_to(last)

    def _session_is_new(self) -> None:
        """Called when HELLO has begun a new session: give up the commands of the former session that may have run,
        since the servers have forgotten their results. Locks of the former session are free, so the user no longer
        counts as the holder of one, unless a LOCK, TRYLOCK or UNLOCK is still to be sent again."""
        if self._had_a_session:
            for request in [request for request in self._requests if request.may_have_run]:
                self._drop(request)
            self._done.clear()
        if not any("LOCK" in request.command[0] for request in self._requests):
            self._may_hold = ""

    def _hang_up(self) -> None:
        """Leave the connection: disconnect at once, or after a while in which the user does not use it."""
        connection, self.connection, self._wants_another_server = self.connection, None, False
        was_ready, self._is_ready = self._is_ready, False
        if connection is None:
            return
        if not self.is_gone and self.name and self.rng.random() < self.profile.doubles:
            self.cluster.clock.callLater(self.rng.uniform(0, 5), self._leave_late, connection, was_ready)
        else:
            connection.disconnect()
        for request in list(self._requests):
            if request.connection is not None:
                request.connection, request.may_have_run = None, True
            if not self.name or not request.number:
                self._drop(request)
        if not self.name:
            self._may_hold = ""

    def _leave_late(self, connection: SimulatedConnection, was_ready: bool) -> None:
        """Leave a connection some time after the user has ceased to use it.

        `was_ready` tells whether HELLO was answered on the connection while the user still used it. If so, chance
        decides whether the user says BYE before it leaves. This BYE closes the session only if the session was not
        opened anew meanwhile.
        """
        if was_ready and self.rng.random() < LATE_GOODBYES:
            connection.bye(lambda result: connection.disconnect())
        else:
            connection.disconnect()

    def _say_goodbye(self) -> None:
        connection = self.connection
        assert connection is not None
        self._is_ready = False
        self._connection_since = self.cluster.now
        connection.bye(lambda result: self._session_is_over(connection, "BYE"))

    def _session_is_over(self, connection: SimulatedConnection, code: str) -> None:
        """Called by `connection` when its session has expired or was taken over by another connection, or BYE was
        answered.

        If the user has not left this connection meanwhile, it leaves it now and connects again.
        """
        if connection is self.connection:
            self._move()
