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

from attrs import define, evolve, field
from twisted.internet.task import deferLater
from twisted.python import usage

from pfsb.commands.options import number, seconds
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


class Options(usage.Options):
    """Command line of `pfsb simulate`."""

    synopsis = "Usage: pfsb simulate [--seed N] [--seeds N | --for SECONDS] [options]"
    longdesc = (
        "Runs whole clusters in one process, on a simulated clock, network and disks, while everything goes wrong that "
        "the seed draws; checks every promise after every event; and shrinks what fails. The exit status is 1 if "
        "anything fails. Profiles: " + "; ".join(f"{name}: {profile.help}" for name, profile in PROFILES.items()) + "."
    )
    optFlags = [  # noqa: RUF012 (read by Twisted)
        ["no-shrink", None, "do not look for a smaller run that fails, too"],
        ["list-broken", None, "show the names of the defects that --broken takes"],
    ]
    optParameters = [  # noqa: RUF012
        ["seed", None, None, "the first seed, or the only one", number(0, SEEDS_MAX)],
        ["seeds", None, None, "how many seeds to run, one after the other", number(1, SEEDS_MAX)],
        ["for", None, None, "run as many seeds as fit into so many seconds", seconds],
        ["servers", None, None, "how many servers; otherwise the seed draws it", number(1, 9)],
        ["seconds", None, None, "how long things go wrong, in simulated seconds; otherwise drawn", seconds],
        ["profile", None, "mixed", "what goes wrong"],
        ["jobs", None, 1, "processes that run seeds at the same time; 0: one for each core", number(0, 256)],
        ["trace", None, None, "of one seed: write every event to this file, as JSON lines"],
        ["diagram", None, None, f"of one seed: write the last {DIAGRAM_ROWS} events to this file, as a diagram"],
        ["without", None, "", f"kinds of faults to leave out, with commas between ({', '.join(ALL_FAMILIES)})"],
        ["faults", None, None, "numbers of the faults that happen, with commas between, or none; otherwise all"],
        ["users", None, None, "how many of the users take part", number(1, 1_000)],
        ["broken", None, None, "run servers with this defect; without a seed, the run that is known to find it"],
    ]

    plan: Plan
    schedule: str | None = None
    """Name of the directed schedule to run, in place of random runs; None: random runs."""

    def postOptions(self) -> None:
        if self["broken"] is not None:
            self._choose_broken_run(self["broken"])
        if self["profile"] not in PROFILES:
            raise usage.UsageError(f"there is no profile {self['profile']}; known are {', '.join(PROFILES)}")
        if self["seeds"] and self["for"]:
            raise usage.UsageError("--seeds and --for: give one of them")
        if not self.is_single and (self["trace"] or self["diagram"]):
            raise usage.UsageError("--trace and --diagram are for one run (example: pfsb simulate --seed 7 --trace t)")
        without = frozenset(filter(None, self["without"].split(",")))
        unknown = without - set(ALL_FAMILIES)
        if unknown:
            raise usage.UsageError(f"--without {min(unknown)}: known are {', '.join(ALL_FAMILIES)}")
        # Without --seed and --seeds the first seed is random, so that each call tries other seeds.
        first = self["seed"] if self["seed"] is not None else self._first_seed()
        names = ("profile", "servers", "seconds", "users")
        self.plan = Plan(first, without=without, faults=self._faults(), **{name: self[name] for name in names})

    def _choose_broken_run(self, name: str) -> None:
        if name not in DEFECTS:
            raise usage.UsageError(f"--broken {name}: there is no such defect; {nearest(name, DEFECTS)}")
        if self["seed"] is None and self["seeds"] is None and self["for"] is None:
            found = CAUGHT.get(name) or DIRECTED.get(name)
            if found is None:
                raise usage.UsageError(f"--broken {name}: no run that shows it is recorded; give --seed or --seeds")
            self["seed"] = found.seed
            if found.schedule in PROFILES:
                self["profile"] = found.schedule
            else:
                self.schedule = found.schedule

    @property
    def is_single(self) -> bool:
        return self["seed"] is not None and self["seeds"] is None and self["for"] is None

    @property
    def is_complete(self) -> bool:
        """Whether no option narrows what the mixed profile draws, so that enough seeds must reach all marks."""
        left_out = (self["servers"], self["seconds"], self["users"], self["faults"])
        as_drawn = self["profile"] == "mixed" and not self["without"] and self["broken"] is None
        return as_drawn and left_out == (None,) * len(left_out)

    def seeds(self) -> Iterator[int]:
        """The seeds to run, in order. With --for there is no last one: the caller stops when the time is over."""
        if self["for"] is not None:
            return count(self.plan.seed)
        return islice(count(self.plan.seed), self["seeds"] or 1)

    def _first_seed(self) -> int:
        return 0 if self["seeds"] else random.SystemRandom().randrange(SEEDS_MAX)

    def _faults(self) -> tuple[int, ...] | None:
        given = self["faults"]
        if given is None or given == "none":
            return None if given is None else ()
        try:
            return tuple(map(int, given.split(",")))
        except ValueError:
            raise usage.UsageError(f"--faults {given}: takes numbers, such as 3,5, or none") from None


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
    tool = SimulateTool(reactor, options, sys.stdout, partial(run_plan, broken=options["broken"]))
    if options["list-broken"]:
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
    """Tells why the run of a plan fails (`pfsb.simulator.runs.decisive_step`)."""
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
        plan, broken = self.options.plan, self.options["broken"]
        self._say(f"schedule {schedule}, seed {plan.seed}: {(SCHEDULES[schedule].__doc__ or '').partition(chr(10))[0]}")
        failure = attempt(schedule, plan.seed, _patch(broken))
        if failure:
            self.has_failed = True
            self._say(f"FAILED: {failure}")
            self._say("\n".join(story_of_schedule(schedule, plan.seed, _patch(broken), broken)))

    def _command(self, plan: Plan) -> str:
        broken = self.options["broken"]
        return plan.command() + (f" --broken {broken}" if broken is not None else "")

    # ------------------------------------------------------------------ one seed

    async def run_one(self) -> None:
        plan = self.options.plan
        events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        if self.options["trace"] or self.options["diagram"]:
            outcome, servers = self._run_traced(plan, events)
            if self.options["diagram"]:
                rows = draw_diagram(events, servers, DIAGRAM_ROWS)
                with open(self.options["diagram"], "w", encoding="utf-8") as file:
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
        with closing(open(self.options["trace"] or os.devnull, "w", encoding="utf-8")) as file:
            time = 0.0
            tracers: dict[Any, JSONTracer] = {}

            def note(event: dict[str, Any]) -> None:
                nonlocal time
                events.append(event)
                if self.options["trace"]:
                    time, server = event["t"], event["server"]
                    tracer = tracers.setdefault(server, JSONTracer(file, server, lambda: time))
                    tracer.trace(**{name: value for name, value in event.items() if name not in ("t", "server")})

            simulation = Run(plan, _patch(self.options["broken"]), trace=note)
            return simulation.run(), list(simulation.cluster.ids)

    # ------------------------------------------------------------------ many seeds

    async def run_many(self) -> None:
        to_shrink: list[RunOutcome] = []
        jobs = self.options["jobs"] or os.cpu_count() or 1
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
        until = None if self.options["for"] is None else self.reactor.seconds() + self.options["for"]
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
        if self.options["no-shrink"]:
            self._tell_story(outcome.plan)
            return
        shrinking = Shrinking(self.run_plan, outcome)
        for _ in shrinking.steps():
            await deferLater(self.reactor, 0, lambda: None)
        best = shrinking.best
        self._say(f"smaller, after {shrinking.tries} tries: {self._command(best.plan)}")
        self._say(f"    {best.failure.splitlines()[0]}")
        self._say(f"    {best.users} users; " + (", ".join(map(str, best.faults)) or "no faults"))
        self._tell_story(best.plan)

    def _tell_story(self, plan: Plan) -> None:
        """Show the rule that the run breaks, and its last steps."""
        broken = self.options["broken"]
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
        total = self.options["seeds"]
        bar = "" if total is None else f"[{'#' * (30 * self._done // total):30}] of {total}"
        self.out.write(f"\r{self._done} seeds {bar} {self._failed} failed, {self._events} events ")
        self.out.flush()

    def _clear_line(self) -> None:
        if self.out.isatty():
            self.out.write("\r\x1b[K")
