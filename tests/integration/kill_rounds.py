"""Kills real servers with SIGKILL at random moments under load: no acknowledged write may be lost, none may run twice.

    python -m tests.integration.kill_rounds ROUNDS [--seed N] [--first N] [--kinds all,starting,one,two,behind]

Three servers on the loopback are killed in each round, and started again in the same directories. Then every write that
was answered, in this round and in those before, must be there exactly once at each of them. Every `--fresh` rounds the
directories are new. Kinds of rounds:

* `all`: all three servers at once;
* `starting`: all three at once, and up to two seconds after they were started again some or all of them once more;
* `one`, `two`: so many of the three;
* `behind`: one of the three, which stays away until the others have dropped slots that it lacks, and is killed up to
  two seconds after its start once more, while it fetches a snapshot or installs it.

The servers take snapshots often, and many kills come while one is written.

A round that fails says how to repeat it, and its directories stay. The seed decides kinds and pauses. A repetition
meets other moments all the same, since real processes do not run in step with each other.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import react

from pfsb.client.clerks.calls import Call, Entry
from pfsb.client.clerks.errors import ClerkError
from pfsb.client.clerks.twisted import TwistedClerk
from pfsb.client.core.replies import Reply, read_fields
from pfsb.demo.processes import ClusterTrouble, ProcessCluster

SERVERS: Final = 3
CLERKS: Final = 6
UNDER_WAY: Final = 8
"""Number of writes that each clerk has under way at once."""
SHARED_KEYS: Final = 3
"""Number of keys to which all clerks append. All other writes have a key each."""
SHARE_OF_SHARED: Final = 0.3
SHARE_AT_ANSWER: Final = 0.5
"""Share of rounds in which servers are killed at the moment at which an answer arrives: a write that was acknowledged
too early is most likely to be lost at that moment."""
LOAD_SECONDS: Final = (0.05, 0.7)
"""How long, in seconds, servers are under load before they are killed; drawn evenly between the two."""
START_SECONDS: Final = 2.0
"""How long, in seconds, after their start servers are killed at the latest, in rounds of the kind `starting`."""
AWAY_SECONDS: Final = (0.3, 1.5)
"""How long, in seconds, the others go on before each of their snapshots in rounds of the kind `behind`; drawn evenly
between the two."""
AFTER_SECONDS: Final = 0.1
"""How long, in seconds, the load goes on when the servers answer again."""
WAIT_SECONDS: Final = 60.0
"""How long, in seconds, a cluster may take to answer everything after a kill, and to become equal."""
CLOSE_SECONDS: Final = 5.0
"""How long, in seconds, the sessions of the clerks may take to end."""
TTL_SECONDS: Final = 600
"""Time to live of the sessions: none expires, so no write may fail."""
PADDINGS: Final = (0, 0, 0, 100, 3_000)
"""Numbers of characters that a value is filled up by."""
LIMIT: Final = 2_000
"""Number of keys that are read at once."""
END: Final = ";"
"""Stands behind each text in a value."""
TIMES: Final = {"done": (1,), "none": (0,), "unknown": (0, 1)}
"""Fate of a write -> how often its text may stand in the value of its key."""
KINDS: Final = {"all": 5, "starting": 2, "one": 1, "two": 2, "behind": 2}
"""Kind of a round -> how often it is drawn, in proportion."""


class WritesLost(Exception):
    """Raised if a server does not hold exactly what was acknowledged; the text says what differs."""


@define(eq=False)
class Write:
    """One APPEND, and the answer to it."""

    key: str
    text: str
    """The text that the write appends, different in each write."""
    value: str | None = None
    """The value that the key had after the write, as it was answered; None: it was not answered with OK."""
    revision: int = 0
    fate: str = "unknown"
    """`done`: the write was answered with OK; otherwise the fate that an error has told, or `unknown` while there is no
    answer."""


def append(write: Write) -> Call[Write]:
    """The call that carries out a write, and notes the answer in it."""

    def read(reply: Reply) -> Write:
        write.value, write.revision, write.fate = str(reply.fields["value"]), int(reply.fields["revision"]), "done"
        return write

    return Call(f'APPEND "{write.key}" "{write.text}{END}"', read)


@define(eq=False)
class KillLoad:
    """Clerks that append, each with a session of its own, to keys of their own and to shared ones."""

    clerks: Sequence[TwistedClerk]
    writes: list[Write] = field(factory=list)
    answered: int = 0
    """Number of writes that were answered with OK."""
    failed: Counter[str] = field(factory=Counter)
    """Code of an error -> number of writes that were answered with it."""
    _dice: Random = field(factory=Random)
    _prefix: str = ""
    _goes_on: bool = False
    _ended: Deferred[Any] = field(factory=Deferred)
    _awaited: Deferred[None] | None = None

    def begin(self, prefix: str, dice: Random) -> None:
        """Let all clerks write until `end`, to keys with this prefix."""
        self._prefix, self._dice, self._goes_on = prefix, dice, True
        self._ended = gatherResults(
            [ensureDeferred(self._write_on(clerk)) for clerk in self.clerks for _ in range(UNDER_WAY)],
            consumeErrors=True,
        )

    def end(self) -> Deferred[Any]:
        """Begin no more writes. The Deferred fires when those that are under way are answered."""
        self._goes_on = False
        return self._ended

    def next_answer(self) -> Deferred[None]:
        """A Deferred that fires as soon as the next answer arrives."""
        self._awaited = Deferred()
        return self._awaited

    @property
    def under_way(self) -> int:
        return len(self.writes) - self.answered - self.failed.total()

    async def _write_on(self, clerk: TwistedClerk) -> None:
        while self._goes_on:
            write = self._new_write()
            self.writes.append(write)
            try:
                await clerk.run(append(write))
                self.answered += 1
                self._tell()
            except ClerkError as error:
                write.fate = error.fate
                self.failed[error.code] += 1

    def _tell(self) -> None:
        if self._awaited is not None:
            awaited, self._awaited = self._awaited, None
            awaited.callback(None)

    def _new_write(self) -> Write:
        number = len(self.writes)
        if self._dice.random() < SHARE_OF_SHARED:
            return Write(f"{self._prefix}shared-{self._dice.randrange(SHARED_KEYS)}", str(number))
        return Write(f"{self._prefix}{number:06}", f"{number}{'x' * self._dice.choice(PADDINGS)}")


def check(writes: Sequence[Write], found: Mapping[str, Entry]) -> None:
    """Raise `WritesLost` unless the keys hold each write that was answered with OK once, none that has not happened,
    and nothing else, and each answer was the state at its time."""
    written: dict[str, set[str]] = {}
    for write in writes:
        written.setdefault(write.key, set()).add(write.text)
    texts = {key: Counter(entry.value.split(END)[:-1]) for key, entry in found.items()}
    for key, counted in texts.items():
        if strange := counted.keys() - written.get(key, set()):
            raise WritesLost(f"{key}: holds what was not written: {sorted(strange)[0][:40]!r}")
    for write in writes:
        times = texts.get(write.key, Counter())[write.text]
        if times not in TIMES[write.fate]:
            told = "was acknowledged" if write.fate == "done" else f"has fate {write.fate}"
            raise WritesLost(f"{write.key}: {write.text[:40]!r} is there {times} times, and {told}")
        if write.value is not None:
            _check_answer(write, write.value, found[write.key])


def _check_answer(write: Write, value: str, entry: Entry) -> None:
    if not entry.value.startswith(value):
        raise WritesLost(f"{write.key}: was answered as {value[-40:]!r}, and does not begin with that")
    if (entry.value == value) != (entry.revision == write.revision):
        raise WritesLost(f"{write.key}: was last written in revision {entry.revision}, and not in {write.revision}")


@define(eq=False)
class KillRounds:
    """One cluster, and its rounds."""

    _reactor: Any
    directory: Path
    snapshot_every: int
    cluster: ProcessCluster = field(init=False)
    load: KillLoad = field(init=False)

    def __attrs_post_init__(self) -> None:
        changes = {"apps": ["kv"], "snapshot_every": self.snapshot_every}
        self.cluster = ProcessCluster(self._reactor, self.directory, SERVERS, changes=changes)
        self.load = self.make_load()

    def make_load(self) -> KillLoad:
        """Make the clerks, each of which knows the addresses of all servers in the configuration."""
        addresses = self.cluster.addresses
        return KillLoad(
            [
                TwistedClerk(self._reactor, addresses, timeout_seconds=None, ttl_seconds=TTL_SECONDS)
                for _ in range(CLERKS)
            ]
        )

    async def stop(self) -> None:
        """End clerks and servers, whatever state they are in."""
        self.load.end()  # a closed clerk refuses each write at once, so its writing would never end
        with suppress(TimeoutError):
            await gatherResults([clerk.close() for clerk in self.load.clerks]).addTimeout(CLOSE_SECONDS, self._reactor)
        await self.cluster.stop()

    async def run(self, number: int, kind: str, dice: Random) -> str:
        """Carry out one round. Returns what it has done, for people.

        Raises `WritesLost`, or `ClusterTrouble` if a server ends by itself or the cluster does not come back.
        """
        load, cluster = self.load, self.cluster
        first, failed = len(load.writes), load.failed.copy()
        load.begin(f"{number:05}-", dice)
        await cluster.pause(dice.uniform(*LOAD_SECONDS))
        if dice.random() < SHARE_AT_ANSWER:
            await load.next_answer().addTimeout(WAIT_SECONDS, self._reactor, _unanswered)
        waiting = load.under_way
        victims = dice.sample(cluster.ids, {"one": 1, "behind": 1, "two": 2}.get(kind, SERVERS))
        await cluster.kill(*victims)
        if kind == "behind":
            await self._leave_behind(dice)
        for server_id in victims:
            cluster.start(server_id)
        if kind in {"starting", "behind"}:
            await cluster.pause(dice.uniform(0, START_SECONDS))
            if kind == "starting":
                victims = dice.sample(cluster.ids, dice.randint(1, SERVERS))
            await cluster.kill(*victims)
            for server_id in victims:
                cluster.start(server_id)
        begun = self._reactor.seconds()
        before = load.answered
        await cluster.wait_for("an answer", self._more_than(before), WAIT_SECONDS)
        answered_after = self._reactor.seconds() - begun
        await cluster.pause(AFTER_SECONDS)
        await load.end().addTimeout(WAIT_SECONDS, self._reactor, _unanswered)
        await cluster.wait_equal(cluster.ids, WAIT_SECONDS)
        await self.check(load.writes[first:], f"{number:05}-")
        errors = "".join(f", {count} {code}" for code, count in (load.failed - failed).items())
        written = len(load.writes) - first
        snapshots = [status["snapshots"] for status in (await cluster.statuses()).values()]
        return (
            f"{waiting} under way when killed, answers after {answered_after:.2f} s, {written} writes{errors}, "
            f"{sum(each['taken'] for each in snapshots)} snapshots taken and "
            f"{sum(each['installed'] for each in snapshots)} installed since the servers' last starts"
        )

    async def _leave_behind(self, dice: Random) -> None:
        """Have the others take two snapshots, some seconds apart: after the second one they need no slot before the
        first."""
        others = self.cluster.running
        for _ in range(2):
            await self.cluster.pause(dice.uniform(*AWAY_SECONDS))
            for server_id in others:
                reply = await self.cluster.ask(server_id, f"SNAPSHOT wait={WAIT_SECONDS:.0f}", WAIT_SECONDS)
                if not reply.ok:
                    raise ClusterTrouble(f"server {server_id}: {reply.line}")

    def _more_than(self, answered: int) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            self._refuse_dead()
            return self.load.answered > answered

        return look

    def _refuse_dead(self) -> None:
        for server_id in set(self.cluster.ids).difference(self.cluster.running):
            raise ClusterTrouble(f"server {server_id} has ended by itself: {self.cluster.last_words(server_id)}")

    async def check(self, writes: Sequence[Write], prefix: str = "") -> None:
        """Compare what each server holds, at keys with this prefix, with the writes."""
        for server_id in self.held_by:
            try:
                check(writes, await self._entries(server_id, prefix))
            except WritesLost as lost:
                raise WritesLost(f"server {server_id}: {lost}") from None

    @property
    def held_by(self) -> Sequence[int]:
        """The servers that are compared with what was answered."""
        return self.cluster.ids

    async def _entries(self, server_id: int, prefix: str) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        first, end = prefix, f"{prefix}~"
        while True:
            line = f"RANGE {json.dumps(first)} {json.dumps(end)} limit={LIMIT} read=stale"
            reply = await self.cluster.ask(server_id, line, WAIT_SECONDS)
            if not reply.ok:
                raise ClusterTrouble(f"server {server_id}: {reply.line}")
            for row in reply.rows:
                fields = read_fields(row)
                entry = Entry(str(fields["key"]), str(fields["value"]), int(fields["revision"]))
                found[entry.key] = entry
            if "next" not in reply.fields:
                return found
            first = str(reply.fields["next"])


def _unanswered(_result: object, seconds: float) -> None:
    raise ClusterTrouble(f"writes have no answer for {seconds:g} s")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def run_rounds(reactor: Any, options: argparse.Namespace, say: Callable[[str], None] = say) -> None:
    """Carry out all rounds that the options ask for. Raises what `KillRounds.run` raises; its directory stays then."""
    base = Path(tempfile.mkdtemp(prefix="pfsb-kills-", dir=options.directory))
    begun = time.monotonic()
    writes = failed = 0
    rounds = range(options.first, options.first + options.rounds)
    for fresh in range(0, options.rounds, options.fresh):
        directory = base / f"from-{rounds[fresh]}"
        kills = KillRounds(reactor, directory, options.snapshot_every)
        number, kind = rounds[fresh], ",".join(options.kinds)
        try:
            await kills.cluster.start_all()
            for number in rounds[fresh : fresh + options.fresh]:
                at = time.monotonic()
                dice = Random(f"{options.seed} {number}")
                kind = dice.choices(options.kinds, [KINDS[kind] for kind in options.kinds])[0]
                told = await kills.run(number, kind, dice)
                say(f"round {number}: {kind:<8} {told}, {time.monotonic() - at:.1f} s")
            await kills.check(kills.load.writes)
        except (WritesLost, ClusterTrouble) as trouble:
            again = f"python -m tests.integration.kill_rounds 1 --seed {options.seed} --first {number} --kinds {kind}"
            say(f"FAILED in round {number} ({kind}): {trouble}")
            say(f"Its directories are in {directory}. Such a round again: {again}")
            raise
        finally:
            await kills.stop()
        writes += len(kills.load.writes)
        failed += kills.load.failed.total()
        shutil.rmtree(directory)
    base.rmdir()
    seconds = time.monotonic() - begun
    say(
        f"{options.rounds} rounds in {seconds:.0f} s, {writes} writes, {failed} of them answered with errors: "
        f"none lost, none twice (seed {options.seed})"
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Exits with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.kill_rounds", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("rounds", type=int, help="number of rounds")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides kinds and pauses (default: new)")
    parser.add_argument("--first", type=int, default=1, help="number of the first round (default: 1)")
    parser.add_argument("--fresh", type=int, default=10, help="rounds in the same directories (default: 10)")
    parser.add_argument(
        "--kinds", type=_kinds, default=list(KINDS), help=f"kinds of rounds (default: {','.join(KINDS)})"
    )
    parser.add_argument(
        "--snapshot-every", type=int, default=10, help="slots between two snapshots, 0: none are taken (default: 10)"
    )
    parser.add_argument("--directory", help="where directories are made (default: that for temporary files)")
    return parser.parse_args(given)


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    if unknown := set(kinds).difference(KINDS):
        raise argparse.ArgumentTypeError(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return kinds


def run_to_the_end(rounds: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run `rounds`, a function of the reactor, and end the process: with status 1 if a write was lost, or the cluster
    is in trouble, which `rounds` has told already."""

    async def run(reactor: Any) -> None:
        try:
            await rounds(reactor)
        except (WritesLost, ClusterTrouble):
            sys.exit(1)

    react(lambda reactor: ensureDeferred(run(reactor)))


def main(given: Sequence[str] | None = None) -> None:
    options = arguments(given)
    run_to_the_end(lambda reactor: run_rounds(reactor, options))


if __name__ == "__main__":
    main()
