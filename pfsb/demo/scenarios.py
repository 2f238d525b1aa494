"""The scenarios of `pfsb demo`: failures of servers, played on real processes with real clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

from attrs import define, field, frozen

from pfsb.commands.status import show_status
from pfsb.demo.load import Acknowledged, Load
from pfsb.demo.processes import UP_SECONDS, ProcessCluster
from pfsb.demo.recording import Screen
from pfsb.demo.trace import proposers
from pfsb.demo.verdict import Verdict, account, longest_gap, outage, throughput


@frozen
class Size:
    """The numbers and time limits with which a scenario is played: `lines` lines of chat are said, by `clients` clients
    together. Tests play the scenarios with smaller numbers.
    """

    lines: int = 20_000
    clients: int = 40
    equal_seconds: float = UP_SECONDS
    """How long, in seconds, servers may take at the end until all have executed the same slots."""
    skip_seq: int = 200
    """`hole` only: the sequence number that the leader leaves out."""


@define(eq=False)
class Stage:
    """The cluster, clients, screen and verdict of one scenario, and the steps of which scenarios are made."""

    reactor: Any
    directory: Path
    cluster: ProcessCluster
    screen: Screen
    size: Size
    verdict: Verdict = field(factory=Verdict)
    story: list[tuple[float, str]] = field(factory=list)
    load: Load = field(init=False)

    def __attrs_post_init__(self) -> None:
        record = self.directory / "acknowledged.jsonl"
        self.load = Load(self.reactor, record, self.size.lines, self.size.clients)

    def tell(self, text: str) -> None:
        """Show an event on the screen, and add it to the story that `summary.md` tells."""
        self.story.append((self.screen.elapsed, text))
        self.screen.say(f"{self.screen.elapsed:7.2f} s  {text}")

    async def show_servers(self) -> None:
        """Show the table of `pfsb status`."""
        table = StringIO()
        await show_status(self.reactor, self.cluster.addresses, table)
        self.screen.say(table.getvalue().rstrip("\n"))

    async def begin(self) -> tuple[int, int]:
        """Start all servers and wait until one leads; returns (view, leader)."""
        self.tell(f"{self.cluster.servers} servers start")
        view, leader = await self.cluster.start_all()
        self.tell(f"server {leader} leads view {view}")
        await self.show_servers()
        return view, leader

    def start_load(self) -> None:
        """Start the clients."""
        self.tell(f"{self.size.clients} clients, spread over all servers, begin to say {self.size.lines} lines")
        self.load.start(self.cluster.addresses, self.screen.progress)

    async def kill_leader(self, above: int = 0) -> tuple[float, int, int]:
        """Wait for a leader of a view above `above`, and kill it with SIGKILL.

        Returns the time of the kill, the view that the leader led, and its id.
        """
        view, leader = await self.cluster.wait_leader(above)
        at = self.reactor.seconds()
        await self.cluster.kill(leader)
        answered = self.load.batch.account.answered
        self.tell(f"kill -9: server {leader}, the leader of view {view}; {answered} lines are answered")
        return at, view, leader

    async def succeeded(self, view: int) -> int:
        """Wait for the leader of a view after `view`, and check that it is the server whose turn it is in that view;
        returns the new view.

        On a busy machine elections may pass over servers, so the new view need not be the next one. How many views were
        passed is shown, and is no failure of the scenario.
        """
        new_view, new_leader = await self.cluster.wait_leader(above=view)
        self.tell(f"server {new_leader} leads view {new_view}")
        ids = self.cluster.ids
        expected = ids[(new_view - 1) % len(ids)]  # Departure 26
        self.verdict.check(
            f"view {new_view} is led by the server whose turn it is",
            new_leader == expected,
            f"server {new_leader}; it is the turn of server {expected}",
        )
        self.verdict.figures[f"views passed over before view {new_view}"] = str(new_view - view - 1)
        return new_view

    async def bring_back(self) -> None:
        """Start the servers that are down, if there are any."""
        down = [server_id for server_id in self.cluster.ids if server_id not in self.cluster.running]
        if down:
            one = len(down) == 1
            who = ", ".join(map(str, down))
            self.tell(f"server {who} is started again" if one else f"servers {who} are started again")
            await self.cluster.start_all()

    async def finish(self) -> list[Acknowledged]:
        """Wait until the clients have finished and all servers have executed the same slots; check the chat logs.

        Returns the acknowledged lines.
        """
        acknowledged = await self.load.finish()
        self.tell(f"all clients are done; {self.load.batch.account.retries} commands were sent more than once")
        status = await self.cluster.wait_equal(self.cluster.ids, self.size.equal_seconds)
        self.tell(f"all servers have executed {status['aru']} slots; digest {status['digest']}")
        await self.show_servers()
        self._judge_lines(acknowledged)
        await self._judge_equality(status["aru"])
        figures = self.verdict.figures
        figures["throughput"] = (
            f"{throughput(acknowledged):.0f} lines a second, tracing on, all processes on one machine"
        )
        figures["longest time without any answer"] = f"{longest_gap(acknowledged):.3f} s"
        return acknowledged

    def _judge_lines(self, acknowledged: list[Acknowledged]) -> None:
        size, check = self.size, self.verdict.check
        figure = f"{len(acknowledged)} of {size.lines}; errors: {self.load.errors or 'none'}"
        check("every line is acknowledged", len(acknowledged) == size.lines, figure)
        said = {f"{client} {n}" for client in range(1, size.clients + 1) for n in range(1, size.lines + 1)}
        found = account(self.cluster.chat_log(self.cluster.ids[0]), acknowledged, said)
        check("chat.log has every line once", found.lines == size.lines, f"{found.lines} lines")
        check("no acknowledged line is missing", not found.missing, _listed(found.missing, "missing"))
        check("no line is doubled", not found.doubled, _listed(found.doubled, "doubled"))
        check("no line is there that was not said", not found.foreign, _listed(found.foreign, "unknown"))
        check("each client's lines are in its order", found.disordered == 0, f"{found.disordered} out of order")

    async def _judge_equality(self, aru: int) -> None:
        logs = [self.cluster.chat_log(server_id) for server_id in self.cluster.ids]
        figure = f"{len(set(logs))} version of {len(logs[0])} bytes on {len(logs)} servers"
        self.verdict.check("chat.log is the same, byte for byte", len(set(logs)) == 1, figure)
        digests = {await self.cluster.digest(server_id, aru) for server_id in self.cluster.ids}
        figure = f"digest {' and '.join(sorted(digests))} of slots 1 to {aru}"
        self.verdict.check("all servers have executed the same", len(digests) == 1, figure)

    def judge_outage(self, acknowledged: list[Acknowledged], killed_at: float, what: str = "the kill") -> None:
        """Check that a command which was sent after `killed_at`, the time at which a server was killed, was answered.

        How long that took is shown, and is no failure of the scenario: on a busy machine, a correct cluster takes
        longer. `what` is the name of the kill in the text of the check.
        """
        lasted = outage(acknowledged, killed_at)
        figure = "none came" if lasted is None else "the first answer has come"
        self.verdict.check(f"{what}: a command sent after it is answered", lasted is not None, figure)
        if lasted is not None:
            self.verdict.figures[f"{what}: to the first answer to a command sent after it"] = f"{lasted:.3f} s"


def _listed(texts: list[str], what: str) -> str:
    shown = ", ".join(repr(text) for text in texts[:5])
    return f"{len(texts)} {what}" + (f": {shown} ..." if texts else "")


# ---------------------------------------------------------------------------------------------
# The scenarios
# ---------------------------------------------------------------------------------------------


@frozen
class Scenario:
    """One scenario of `pfsb demo`, with the function that plays it."""

    name: str
    help: str
    play: Callable[[Stage], Awaitable[None]]
    servers: int = 4
    changes: dict[str, Any] = field(factory=dict)
    """Top-level keys of the configuration that are added to, or replace, the default ones."""

    known: ClassVar[dict[str, Scenario]] = {}


async def _normal(stage: Stage) -> None:
    view, _leader = await stage.begin()
    stage.start_load()
    await stage.finish()
    view_now, _leader = await stage.cluster.wait_leader()
    stage.verdict.figures["views installed while nothing failed"] = str(view_now - view)


async def _primary_dies(stage: Stage) -> None:
    await stage.begin()
    stage.start_load()
    await stage.load.until(stage.size.lines // 4)
    killed_at, view, _leader = await stage.kill_leader()
    await stage.succeeded(view)
    await stage.load.until(stage.size.lines * 3 // 4)
    await stage.bring_back()
    stage.judge_outage(await stage.finish(), killed_at)


async def _succession(stage: Stage) -> None:
    await stage.begin()
    stage.start_load()
    deaths = stage.cluster.config.f
    view, killed = 0, []
    for death in range(1, deaths + 1):
        await stage.load.until(stage.size.lines * death // (deaths + 2))
        killed_at, view, leader = await stage.kill_leader(above=view - 1)
        killed.append((killed_at, leader))
        view = await stage.succeeded(view)
    await stage.load.until(stage.size.lines * (deaths + 1) // (deaths + 2))
    await stage.bring_back()
    acknowledged = await stage.finish()
    for killed_at, leader in killed:
        stage.judge_outage(acknowledged, killed_at, f"the death of server {leader}")


async def _recovery(stage: Stage) -> None:
    await stage.begin()
    stage.start_load()
    await stage.load.until(stage.size.lines // 2)
    answered = stage.load.batch.account.answered
    killed_at = stage.reactor.seconds()
    await stage.cluster.kill(*stage.cluster.ids)
    stage.tell(f"kill -9: all {stage.cluster.servers} servers at once; {answered} lines were answered by then")
    await stage.bring_back()
    view, leader = await stage.cluster.wait_leader()
    stage.tell(f"server {leader} leads view {view}")
    acknowledged = await stage.finish()
    before = sum(1 for line in acknowledged if line.answered <= killed_at)
    stage.verdict.check(
        "lines were acknowledged before the crash", before >= answered > 0, f"{before}, all still there"
    )
    lasted = outage(acknowledged, killed_at)
    stage.verdict.figures["from the kill to the first new answer"] = (
        "none came" if lasted is None else f"{lasted:.2f} s"
    )


async def _hole(stage: Stage) -> None:
    """Plays the scenario `hole` (Figure 8, defect G11): slots are ordered above a hole, and cannot be executed until a
    new leader fills it with a no-op."""
    cluster, skipped = stage.cluster, stage.size.skip_seq
    first = cluster.ids[0]
    stage.tell(f"server {first}, the first in line, is started with --skip-seq {skipped}")
    cluster.start(first, "--skip-seq", str(skipped))
    view, leader = await stage.begin()
    if leader != first:  # on a busy machine, elections may have passed over the first server
        await cluster.ask(leader, f"FAULT SKIP {skipped}")
    stage.start_load()
    held_up = [server_id for server_id in cluster.ids if server_id != leader]

    async def waits_behind_hole() -> bool:
        statuses = await cluster.statuses(held_up)
        return any(s["aru"] == skipped - 1 and s["last_ordered"] > skipped for s in statuses.values())

    await cluster.wait_for(f"something ordered above {skipped}", waits_behind_hole, UP_SECONDS)
    killed_at = stage.reactor.seconds()
    await cluster.kill(leader)
    stage.tell(f"kill -9: server {leader}, with {skipped + 1} ordered and {skipped} never proposed")
    await stage.succeeded(view)
    await stage.load.until(stage.size.lines * 3 // 4)
    await stage.bring_back()
    acknowledged = await stage.finish()
    stage.judge_outage(acknowledged, killed_at)
    by_whom = proposers(cluster.trace_files(), skipped)
    figure = ", ".join(f"server {server} in view {in_view}" for in_view, server in by_whom) or "no server"
    only_later = bool(by_whom) and all(in_view > view for in_view, _server in by_whom)
    stage.verdict.check(f"only a later leader has proposed {skipped}", only_later, figure)


for _scenario in (
    Scenario("normal", "All is well: every server has every line, in the same order.", _normal),
    Scenario("primary-dies", "The leader is killed under load, and comes back.", _primary_dies),
    Scenario(
        "succession", "As many leaders die, one after the other, as five servers can bear.", _succession, servers=5
    ),
    Scenario("recovery", "All servers are killed at once under load, and started again.", _recovery),
    Scenario("hole", "The leader leaves a sequence number out, and dies.", _hole, changes={"faults": True}),
):
    Scenario.known[_scenario.name] = _scenario
