"""Shows a person why a run failed: the rule that was broken, in a sentence, and the last steps before, as a diagram.

The last row of the diagram is the event that a check has found wrong: a message that a server has sent, a record that
has come to its disk, or a slot that it has executed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from pfsb.simulator.cluster.tracing import watched
from pfsb.simulator.defects.all_defects import DEFECTS
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.runs.defect_hunt import attempt
from pfsb.simulator.runs.diagram import draw_diagram
from pfsb.simulator.runs.rules import rule_of
from pfsb.simulator.runs.run import Plan, Run
from pfsb.simulator.schedules.all_schedules import SCHEDULES

ROWS: Final = 24
"""Maximum number of rows of the diagram of the last steps."""
EVENTS_KEPT: Final = 5_000
"""Maximum number of events that are kept for the diagram: the last ones of the run."""


def rule_of_schedule(schedule: str) -> str:
    """The rule that a directed schedule checks, in a sentence: the first line of its docstring."""
    return (SCHEDULES[schedule].__doc__ or "").partition("\n\n")[0].replace("\n", " ").strip()


def story(plan: Plan, patch: Plant | None, broken: str | None) -> list[str]:
    """Lines that tell why the run of a plan fails; an empty list if it does not fail.

    `patch` plants the defect named `broken` in the servers; None: they have no planted defect.
    """
    events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
    run = Run(plan, patch, trace=events.append)
    outcome = run.run()
    if not outcome.failure:
        return []
    return _lines(broken, rule_of(outcome.failure), events, outcome.failure)


def story_of_schedule(schedule: str, seed: int, patch: Plant | None, broken: str | None) -> list[str]:
    """Lines that tell why a directed schedule fails; an empty list if it does not fail.

    `patch` plants the defect named `broken` in the servers; None: they have no planted defect.
    """
    events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
    with watched(events.append):
        failure = attempt(schedule, seed, patch)
    return _lines(broken, rule_of_schedule(schedule), events, failure) if failure else []


def _lines(broken: str | None, rule: str, events: Iterable[dict[str, Any]], failure: str) -> list[str]:
    events = list(events)
    servers = sorted({event["server"] for event in events if event["server"] is not None})
    lines = []
    if broken is not None:
        defect = DEFECTS[broken]
        lines.append(f"what is broken: {defect.broken} ({defect.source})")
    if rule:
        lines.append(f"the rule: {rule}")
    lines += ["the last steps:", *draw_diagram(events, servers, ROWS)]
    lines.append(f"{'':10}^ {failure.partition(chr(10))[0]}")
    return lines
