"""The subcommand `pfsb simulate`: runs of a simulated cluster, each of which can be repeated from its seed."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count, islice
from typing import Any, Final, TextIO

import click
from attrs import define, evolve, field
from twisted.internet.task import deferLater

from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.defects.all_defects import DEFECTS, describe, planted
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.defects.expected_catches import CAUGHT, DIRECTED
from pfsb.simulator.faults.profiles import ALL_FAMILIES, PROFILES
from pfsb.simulator.runs.decisive_step import story, story_of_schedule
from pfsb.simulator.runs.defect_hunt import attempt
from pfsb.simulator.runs.diagram import draw_diagram
from pfsb.simulator.runs.run import Plan, Run, RunOutcome
from pfsb.simulator.runs.shrink import Shrinking
from pfsb.simulator.schedules.all_schedules import SCHEDULES
from pfsb.support.command_line import Number, Seconds, subcommand
from pfsb.support.spelling import nearest
from pfsb.tracing import JSONTracer

SEEDS_MAX: Final = 1_000_000_000
MARKS_SEEDS: Final = 1_000
"""Number of seeds of the mixed profile that, taken together, must reach every mark in `marks.REQUIRED`."""
SHRUNK_MAX: Final = 3
"""Maximum number of failing seeds that are shrunk."""
DIAGRAM_ROWS: Final = 120
"""Maximum number of rows of a diagram."""
EVENTS_KEPT: Final = 50_000
"""Maximum number of events that are kept for the diagram of a run: the last ones of the run."""


_PROFILES: Final = "Profiles: " + "; ".join(f"{name}: {profile.help}" for name, profile in PROFILES.items()) + "."


@define
class Options:
    """Command line of `pfsb simulate`."""

    plan: Plan
    seed: int | None
    """The first seed, or the only one; None: it was drawn."""
    seeds_count: int | None
    for_seconds: float | None
    jobs: int
    trace: str | None
    diagram: str | None
    broken: str | None
    schedule: str | None
    """Name of the directed schedule to run, in place of random runs; None: random runs."""
    no_shrink: bool
    shows_defects: bool

    @property
    def is_single(self) -> bool:
        return self.seed is not None and self.seeds_count is None and self.for_seconds is None

    @property
    def is_complete(self) -> bool:
        """Whether no option narrows what the mixed profile draws, so that enough seeds must reach all marks."""
        plan = self.plan
        left_out = (plan.servers, plan.seconds, plan.users, plan.faults)
        is_plain = not (plan.without or plan.snapshots or plan.members)
        as_drawn = plan.profile == "mixed" and is_plain and self.broken is None
        return as_drawn and left_out == (None,) * len(left_out)

    def seeds(self) -> Iterator[int]:
        """The seeds to run, in order. With --for there is no last one: the caller stops when the time is over."""
        if self.for_seconds is not None:
            return count(self.plan.seed)
        return islice(count(self.plan.seed), self.seeds_count or 1)


@subcommand("simulate", epilog=_PROFILES)
@click.option("--seed", type=Number(0, SEEDS_MAX), help="The first seed, or the only one.")
@click.option("--seeds", "seeds_count", type=Number(1, SEEDS_MAX), help="How many seeds to run, one after the other.")
@click.option("--for", "for_seconds", type=Seconds(), help="Run as many seeds as fit into so many seconds.")
@click.option("--servers", type=Number(1, 9), help="How many servers; otherwise the seed draws it.")
@click.option("--seconds", type=Seconds(), help="How long things go wrong, in simulated seconds; otherwise drawn.")
@click.option("--profile", default="mixed", metavar="NAME", help="What goes wrong: a name from the end of this text.")
@click.option(
    "--jobs", type=Number(0, 256), default=1, help="Processes that run seeds at the same time; 0: one for each core."
)
@click.option(
    "--trace", type=click.Path(), metavar="FILE", help="Of one seed: write every event to this file, as JSON lines."
)
@click.option(
    "--diagram",
    type=click.Path(),
    metavar="FILE",
    help=f"Of one seed: write the last {DIAGRAM_ROWS} events to this file, as a diagram.",
)
@click.option(
    "--without",
    default="",
    metavar="KIND,...",
    show_default=False,
    help=f"Kinds of faults to leave out, with commas between ({', '.join(ALL_FAMILIES)}).",
)
@click.option("--faults", metavar="N,...", help="Numbers of the faults that happen, or none; otherwise all.")
@click.option("--snapshots", is_flag=True, help="Servers take snapshots, and drop what is below, in any profile.")
@click.option("--members", is_flag=True, help="Servers come and go, and leaders hand over, in any profile.")
@click.option("--users", type=Number(1, 1_000), help="How many of the users take part.")
@click.option(
    "--broken",
    metavar="DEFECT",
    help="Run servers with this defect; without a seed, the run that is known to find it.",
)
@click.option("--no-shrink", is_flag=True, help="Do not look for a smaller run that fails, too.")
@click.option("--list-broken", "shows_defects", is_flag=True, help="Show the names of the defects that --broken takes.")
def command(
    seed: int | None,
    servers: int | None,
    seconds: float | None,
    profile: str,
    without: str,
    faults: str | None,
    users: int | None,
    snapshots: bool,
    members: bool,
    **given: Any,
) -> Options:
    """Run whole clusters in one process, on a simulated clock, network and disks, while everything goes wrong that the
    seed draws; check every promise after every event; and shrink what fails.

    The exit status is 1 if anything fails.
    """
    broken, seeds_count, for_seconds = given["broken"], given["seeds_count"], given["for_seconds"]
    schedule = None
    if broken is not None:
        known = _known_run(broken, needs_seed=seed is None and seeds_count is None and for_seconds is None)
        if known is not None:
            seed = known.seed
            profile, schedule = (known.schedule, None) if known.schedule in PROFILES else (profile, known.schedule)
    if profile not in PROFILES:
        raise click.UsageError(f"there is no profile {profile}; known are {', '.join(PROFILES)}")
    if seeds_count and for_seconds:
        raise click.UsageError("--seeds and --for: give one of them")
    left_out = frozenset(filter(None, without.split(",")))
    if unknown := left_out - set(ALL_FAMILIES):
        raise click.UsageError(f"--without {min(unknown)}: known are {', '.join(ALL_FAMILIES)}")
    if snapshots and "dice" in PROFILES[profile].families:
        raise click.UsageError(
            f"--snapshots: the profile {profile} takes none; they could keep a wrong state before a result has shown it"
        )
    if members and (reason := PROFILES[profile].why_members_stay):
        raise click.UsageError(f"--members: they stay in the profile {profile}; {reason}")
    # Without --seed and --seeds the first seed is random, so that each call tries other seeds.
    first = seed if seed is not None else 0 if seeds_count else random.SystemRandom().randrange(SEEDS_MAX)
    plan = Plan(first, profile, servers, seconds, left_out, _faults(faults), users, snapshots, members)
    options = Options(plan=plan, seed=seed, schedule=schedule, **given)
    if not options.is_single and (options.trace or options.diagram):
        raise click.UsageError("--trace and --diagram are for one run (example: pfsb simulate --seed 7 --trace t)")
    return options


def _known_run(broken: str, *, needs_seed: bool) -> Any:
    """The recorded run that shows the defect `broken`; None if `needs_seed` is False, since the command line says which
    seeds to run. Raises `click.UsageError` if there is no such defect, or no such run."""
    if broken not in DEFECTS:
        raise click.UsageError(f"--broken {broken}: there is no such defect; {nearest(broken, DEFECTS)}")
    if not needs_seed:
        return None
    found = CAUGHT.get(broken) or DIRECTED.get(broken)
    if found is None:
        raise click.UsageError(f"--broken {broken}: no run that shows it is recorded; give --seed or --seeds")
    return found


def _faults(given: str | None) -> tuple[int, ...] | None:
    if given is None or given == "none":
        return None if given is None else ()
    try:
        return tuple(map(int, given.split(",")))
    except ValueError:
        raise click.UsageError(f"--faults {given}: takes numbers, such as 3,5, or none") from None


def run_plan(plan: Plan, broken: str | None = None) -> RunOutcome:
    """Run a plan, with the planted defect `broken`, if one is named, in every server."""
    return Run(plan, _patch(broken)).run()


def _patch(broken: str | None) -> Plant | None:
    return None if broken is None else planted(broken)


async def run(reactor: Any, options: Options) -> None:
    """Run the seeds or the schedule that the options ask for, or list the planted defects.

    Raises `SystemExit` with status 1 if a run or the schedule fails, or if the seeds together miss a mark that they
    must reach.
    """
    tool = SimulateTool(reactor, options, sys.stdout, partial(run_plan, broken=options.broken))
    if options.shows_defects:
        tool.list_broken()
    elif options.schedule is not None:
        tool.run_directed(options.schedule)
    elif options.is_single:
        await tool.run_one()
    else:
        await tool.run_many()
    if tool.has_failed:
        raise SystemExit(1)


@define(eq=False)
class SimulateTool:
    """Runs the seeds or the schedule that the command line asks for, and reports the results."""

    reactor: Any
    options: Options
    out: TextIO
    run_plan: Callable[[Plan], RunOutcome] = run_plan
    marks: Marks = field(factory=Marks)
    story: Callable[[Plan, Plant | None, str | None], list[str]] = story
    """Function that returns the lines which tell why the run of a plan fails
    (`pfsb.simulator.runs.decisive_step.story`)."""
    has_failed: bool = False
    _done: int = 0
    _failed: int = 0
    _events: int = 0
    _seconds: float = 0.0

    # ------------------------------------------------------------------ defects

    def list_broken(self) -> None:
        for name, sentence in describe():
            self._say(f"{name:28} {sentence}")

    def run_directed(self, schedule: str) -> None:
        """Run a directed schedule, which was made for a situation that random runs rarely reach."""
        plan, broken = self.options.plan, self.options.broken
        self._say(f"schedule {schedule}, seed {plan.seed}: {(SCHEDULES[schedule].__doc__ or '').partition(chr(10))[0]}")
        failure = attempt(schedule, plan.seed, _patch(broken))
        if failure:
            self.has_failed = True
            self._say(f"FAILED: {failure}")
            self._say("\n".join(story_of_schedule(schedule, plan.seed, _patch(broken), broken)))

    def _command(self, plan: Plan) -> str:
        broken = self.options.broken
        return plan.command() + (f" --broken {broken}" if broken is not None else "")

    # ------------------------------------------------------------------ one seed

    async def run_one(self) -> None:
        plan = self.options.plan
        events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        if self.options.trace or self.options.diagram:
            outcome, servers = self._run_traced(plan, events)
            if self.options.diagram:
                rows = draw_diagram(events, servers, DIAGRAM_ROWS)
                with open(self.options.diagram, "w", encoding="utf-8") as file:
                    file.write("\n".join([*rows, ""]))
        else:
            outcome = self.run_plan(plan)
        self._say(f"seed {plan.seed}: {outcome.events} events in {outcome.seconds:.1f} simulated seconds")
        self._say(f"digest {outcome.digest}")
        for name, times in sorted(outcome.marks.items()):
            if times:
                self._say(f"{times:8} {name}")
        if outcome.failure:
            self.has_failed = True
            self._say(f"FAILED: {outcome.failure}\n{outcome.picture}")
            await self._shrink(outcome)

    def _run_traced(self, plan: Plan, events: deque[dict[str, Any]]) -> tuple[RunOutcome, list[int]]:
        with closing(open(self.options.trace or os.devnull, "w", encoding="utf-8")) as file:
            time = 0.0
            tracers: dict[Any, JSONTracer] = {}

            def note(event: dict[str, Any]) -> None:
                nonlocal time
                events.append(event)
                if self.options.trace:
                    time, server = event["t"], event["server"]
                    tracer = tracers.setdefault(server, JSONTracer(file, server, lambda: time))
                    tracer.trace(**{name: value for name, value in event.items() if name not in ("t", "server")})

            simulation = Run(plan, _patch(self.options.broken), trace=note)
            return simulation.run(), list(simulation.cluster.ids)

    # ------------------------------------------------------------------ many seeds

    async def run_many(self) -> None:
        to_shrink: list[RunOutcome] = []
        jobs = self.options.jobs or os.cpu_count() or 1
        async for outcome in self._outcomes(jobs):
            self._count(outcome)
            if outcome.failure:
                self._report(outcome)
                to_shrink.append(outcome)
            self._show_progress()
        self._show_progress(is_last=True)
        for outcome in to_shrink[:SHRUNK_MAX]:
            await self._shrink(outcome)
        done, first = self._done, self.options.plan.seed
        hours = self._seconds / 3_600
        self._say(
            f"{done} seeds from {first} on, {self._failed} failed, {self._events} events in {hours:.2f} simulated hours"
        )
        self._look_at_marks()

    async def _outcomes(self, jobs: int) -> AsyncIterator[RunOutcome]:
        plans = (evolve(self.options.plan, seed=seed) for seed in self.options.seeds())
        limit = self.options.for_seconds
        until = None if limit is None else self.reactor.seconds() + limit
        if jobs == 1:
            for plan in plans:
                yield self.run_plan(plan)
                await deferLater(self.reactor, 0, lambda: None)
                if until is not None and self.reactor.seconds() >= until:
                    return
            return
        async for outcome in self._outcomes_of_processes(plans, jobs, until):
            yield outcome

    async def _outcomes_of_processes(
        self, plans: Iterator[Plan], jobs: int, until: float | None
    ) -> AsyncIterator[RunOutcome]:
        waiting: deque[Future[RunOutcome]] = deque()
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            try:
                while True:
                    if until is None or self.reactor.seconds() < until:
                        waiting += [pool.submit(self.run_plan, plan) for plan in islice(plans, 3 * jobs - len(waiting))]
                    if not waiting:
                        return
                    while not waiting[0].done():
                        await deferLater(self.reactor, 0.02, lambda: None)
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _count(self, outcome: RunOutcome) -> None:
        self._done += 1
        self._events += outcome.events
        self._seconds += outcome.seconds
        self.marks.counts.update(outcome.marks)
        if outcome.failure:
            self._failed += 1
            self.has_failed = True

    def _report(self, outcome: RunOutcome) -> None:
        self._clear_line()
        self._say(f"{self._command(outcome.plan)}    {outcome.failure.splitlines()[0]}")

    def _look_at_marks(self) -> None:
        missing = self.marks.missing()
        if missing and self._done >= MARKS_SEEDS and self.options.is_complete:
            self.has_failed = True
            self._say(f"FAILED: {self._done} seeds never came through: {'; '.join(missing)}")

    # ------------------------------------------------------------------ shrinking

    async def _shrink(self, outcome: RunOutcome) -> None:
        if self.options.no_shrink:
            self._tell_story(outcome.plan)
            return
        shrinking = Shrinking(self.run_plan, outcome)
        for _ in shrinking.steps():
            await deferLater(self.reactor, 0, lambda: None)
        best = shrinking.best
        self._say(f"smaller, after {shrinking.tries} tries: {self._command(best.plan)}")
        self._say(f"    {best.failure.splitlines()[0]}")
        users = "one user" if best.users == 1 else f"{best.users} users"
        self._say(f"    {users}; " + (", ".join(map(str, best.faults)) or "no faults"))
        self._tell_story(best.plan)

    def _tell_story(self, plan: Plan) -> None:
        """Print the rule that the run of this plan breaks, and the last steps of the run."""
        broken = self.options.broken
        self._say("\n".join(self.story(plan, _patch(broken), broken)))

    # ------------------------------------------------------------------ output

    def _say(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def _show_progress(self, *, is_last: bool = False) -> None:
        if not self.out.isatty():
            return
        if is_last:
            self._clear_line()
            return
        total = self.options.seeds_count
        bar = "" if total is None else f"[{'#' * (30 * self._done // total):30}] of {total}"
        self.out.write(f"\r{self._done} seeds {bar} {self._failed} failed, {self._events} events ")
        self.out.flush()

    def _clear_line(self) -> None:
        if self.out.isatty():
            self.out.write("\r\x1b[K")
