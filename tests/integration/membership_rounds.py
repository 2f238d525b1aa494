"""Replaces the servers of a real cluster one by one, lets it grow and shrink, and kills servers meanwhile, under load:
no acknowledged write may be lost, none may run twice.

    python -m tests.integration.membership_rounds CHANGES [--seed N] [--kind replace|grow|mixed] [--kills SHARE]

Three servers begin. Each change adds a server with a new id, a new directory and new addresses, and waits until it
votes, or removes one. In a share of the changes servers are killed with SIGKILL at a random moment and started again:
any, also the one that joins, the leader, or the one that goes. At the end every write that was answered must be there
exactly once at each server that is left.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred

from pfsb.client.core.replies import Reply
from pfsb.demo.processes import ClusterTrouble, ProcessCluster
from pfsb.support.hosts import shown
from tests.integration.kill_rounds import WAIT_SECONDS, KillRounds, WritesLost, run_to_the_end, say

FOUNDERS: Final = (0, 1, 2)
GROWN: Final = 7
"""Number of servers to which a cluster grows before it shrinks again."""
SERVERS: Final = 24
"""Number of servers in the configuration: no id is used twice."""


def _unanswered(_result: object, seconds: float) -> None:
    raise ClusterTrouble(f"writes have no answer for {seconds:g} s")


@define(eq=False)
class MembershipRounds(KillRounds):
    """One cluster, and the changes of its membership."""

    kind: str = "mixed"
    kills: float = 0.5
    """Share of the changes during which servers are killed."""
    dice: Random = field(factory=Random)
    members: list[int] = field(init=False)
    """Ids of the servers that vote, as far as changes are in force."""
    new: list[int] = field(init=False)
    """Ids that were not used yet."""
    waited: list[float] = field(init=False, factory=list)
    """How long, in seconds, each server that was added has taken from the change until it voted."""
    _killing: list[Deferred[Any]] = field(init=False, factory=list)
    _shrinks: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        changes = {"apps": ["kv"], "snapshot_every": self.snapshot_every, "founders": [*FOUNDERS]}
        self.cluster = ProcessCluster(self._reactor, self.directory, SERVERS, changes=changes)
        self.members, self.new = [*FOUNDERS], [i for i in self.cluster.ids if i not in FOUNDERS]
        self.load = self.make_load()

    async def begin(self) -> None:
        """Start the founders, and let the load begin."""
        for server_id in FOUNDERS:
            self.cluster.start(server_id)
        await self.cluster.wait_up(FOUNDERS)
        await self.cluster.wait_admitted(FOUNDERS)
        self.load.begin("", self.dice)

    async def change(self) -> str:
        """Make one change. Returns what was done, for people."""
        if self.kind == "grow":
            self._shrinks = len(self.members) > 3 if self._shrinks else len(self.members) >= GROWN
            adds = not self._shrinks
        elif self.kind == "replace":
            adds = len(self.members) <= 3
        else:
            adds = len(self.members) < 3 or (len(self.members) < GROWN and self.dice.random() < 0.5)
        killed = self.dice.random() < self.kills
        told = await self._add(killed) if adds and self.new else await self._remove(killed)
        for killing in self._killing:
            await killing
        self._killing.clear()
        before = self.load.answered
        await self.cluster.wait_for("an answer", self._more_than(before), WAIT_SECONDS)
        return f"{told}; {self.load.answered} writes"

    async def _add(self, kills: bool) -> str:
        server_id = self.new.pop(0)
        address = shown(*self.cluster.config.server(server_id).peer)
        early = self.dice.random() < 0.5
        if early:
            self.cluster.start(server_id)
        await self._ask(f'SERVERS ADD {server_id} "{address}"', "is a member already")
        begun = self._reactor.seconds()
        if not early:
            self.cluster.start(server_id)
        victims = self.dice.sample([*self.members, server_id], 1) if kills else []
        self._kill_soon(victims)

        async def votes() -> bool:
            found = (await self.cluster.statuses([server_id])).get(server_id, {})
            return found.get("role") == "voter" and bool(found.get("admitted"))

        await self.cluster.wait_for(f"server {server_id} to vote", votes, WAIT_SECONDS)
        self.waited.append(self._reactor.seconds() - begun)
        self.members.append(server_id)
        return f"server {server_id} votes after {self.waited[-1]:.1f} s" + (f", killed {victims}" if victims else "")

    async def _remove(self, kills: bool) -> str:
        gone = self.members[0] if self.kind == "replace" else self.dice.choice(self.members)
        others = [i for i in self.members if i != gone]
        victims = [gone] if kills and self.dice.random() < 0.3 else []
        if victims:
            await self.cluster.kill(gone)
        elif kills and len(others) > 2:
            victims = self.dice.sample(others, 1)
            self._kill_soon(victims)
        await self._ask(f"SERVERS REMOVE {gone}", "is no member")
        self.members.remove(gone)
        await self._until_in_force(gone)
        if gone in self.cluster.running:
            await self.cluster.kill(gone)
        return f"server {gone} is removed" + (f", killed {victims}" if victims else "")

    async def _until_in_force(self, gone: int) -> None:
        """Wait until all others have executed the change: each of them names the same servers."""

        async def look() -> bool:
            statuses = (await self.cluster.statuses(self.members)).values()
            return len(statuses) == len(self.members) and len({status["epoch"] for status in statuses}) == 1

        await self.cluster.wait_for(f"all servers to know that {gone} is gone", look, WAIT_SECONDS)

    def _kill_soon(self, server_ids: Sequence[int]) -> None:
        for server_id in server_ids:
            self._killing.append(ensureDeferred(self._kill_and_start(server_id, self.dice.uniform(0, 2.5))))

    async def _kill_and_start(self, server_id: int, seconds: float) -> None:
        await self.cluster.pause(seconds)
        if server_id in self.cluster.running:
            await self.cluster.kill(server_id)
            await self.cluster.pause(self.dice.uniform(0, 1.0))
            self.cluster.start(server_id)

    async def _ask(self, line: str, done_before: str) -> None:
        """Say a line to one server after the other, until one does it, or says that it is done."""
        deadline = self._reactor.seconds() + WAIT_SECONDS
        last: Reply | Exception | None = None
        while self._reactor.seconds() < deadline:
            server_id = self.dice.choice([i for i in self.members if i in self.cluster.running] or self.members)
            try:
                last = await self.cluster.ask(server_id, line, 15.0)
            except Exception as error:  # it was killed
                last = error
            else:
                if last.ok or done_before in last.text:
                    return
            await self.cluster.pause(0.2)
        raise ClusterTrouble(f"{line}: {last}")

    def _refuse_dead(self) -> None:
        """Servers that are away are so on purpose."""

    async def finish(self) -> None:
        """End the load, and compare all servers that are left with what was answered."""
        await self.load.end().addTimeout(WAIT_SECONDS, self._reactor, _unanswered)
        await self.cluster.wait_equal(self.members, WAIT_SECONDS)
        await self.check(self.load.writes)

    @property
    def held_by(self) -> Sequence[int]:
        """The servers that are compared with what was answered."""
        return self.members


async def run_changes(reactor: Any, options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Make all changes that the options ask for. Raises `WritesLost` or `ClusterTrouble`; the directory stays then."""
    directory = Path(tempfile.mkdtemp(prefix="pfsb-members-", dir=options.directory))
    dice = Random(options.seed)
    rounds = MembershipRounds(
        reactor, directory, options.snapshot_every, kind=options.kind, kills=options.kills, dice=dice
    )
    number = 0
    begun = time.monotonic()
    try:
        await rounds.begin()
        for number in range(1, options.changes + 1):
            at = time.monotonic()
            say(f"change {number}: {await rounds.change()}, {time.monotonic() - at:.1f} s")
        await rounds.finish()
    except (WritesLost, ClusterTrouble) as trouble:
        say(f"FAILED at change {number} of {options.kind} (seed {options.seed}): {trouble}; see {directory}")
        raise
    finally:
        await rounds.stop()
    shutil.rmtree(directory)
    errors = "".join(f", {count} {code}" for code, count in rounds.load.failed.items())
    say(
        f"{options.changes} changes in {time.monotonic() - begun:.0f} s, {len(rounds.load.writes)} writes{errors}: "
        f"none lost, none twice (seed {options.seed}); servers vote after {max(rounds.waited, default=0):.1f} s at most"
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Exits with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.membership_rounds", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("changes", type=int, help="number of changes; at most 21 of them add a server")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides changes, kills and pauses")
    parser.add_argument("--kind", choices=("replace", "grow", "mixed"), default="mixed")
    parser.add_argument("--kills", type=float, default=0.5, help="share of the changes with kills (default: 0.5)")
    parser.add_argument("--snapshot-every", type=int, default=200, help="slots between two snapshots (default: 200)")
    parser.add_argument("--directory", help="where directories are made (default: that for temporary files)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    options = arguments(given)
    run_to_the_end(lambda reactor: run_changes(reactor, options, say))


if __name__ == "__main__":
    main()
