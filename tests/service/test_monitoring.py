"""The dashboard and the alert rules in etc/monitoring name only figures, labels and values that a server shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.frontends.http.protocol import HTTPSite
from pfsb.service.metrics import Metrics
from pfsb.service.reactor_lag import ReactorLag
from pfsb.sessions.connection import DIVERGED
from pfsb.sessions.refusals import TROUBLE_REFUSALS
from pfsb.storage.counters import StorageCounters
from pfsb.transports.links import TransportCounters
from tests.sessions.support import ClusterTestCase

MONITORING = Path(pfsb.__file__).parents[1] / "etc" / "monitoring"
OWN = {"up": {"job", "instance"}}
"""Figures that Prometheus itself makes for each server, with their labels."""
TARGET_LABELS = {"job", "instance"}
"""Labels that Prometheus adds to each figure."""

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(r"\b([a-z][a-z0-9_]*)\b\s*(\{[^}]*\})?(?!\s*\()")
_MATCHER = re.compile(rf"([a-z_]+)\s*(=~|!~|!=|=)\s*({_STRING})")
_GROUPING = re.compile(r"\b(by|without|on|ignoring)\s*\(([^)]*)\)")
_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "bool"}


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(name, {label: value that it is compared with}) for each figure that an expression of PromQL names."""
    plain = _GROUPING.sub(" ", re.sub(r"\[[^\]]*\]", " ", expression))
    for name, matchers in _SELECTOR.findall(plain):
        if name not in _WORDS:
            yield name, {label: json.loads(value) for label, _, value in _MATCHER.findall(matchers)}


def grouped_by(expression: str) -> set[str]:
    return {label.strip() for _, labels in _GROUPING.findall(expression) for label in labels.split(",")}


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = dashboard["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """(where it is, expression) for each expression of the dashboard and of the alert rules."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


class ExpressionTests(ClusterTestCase):
    """Every figure that an expression of the dashboard or of the alert rules names exists: an alert on another name
    would never fire."""

    def setUp(self) -> None:
        self.begin(3)
        server = self.server()
        facts = server.facts
        facts.transport, facts.storage = TransportCounters(), StorageCounters()
        clock: Any = self.cluster.clock
        metrics = Metrics(facts, ReactorLag(clock))
        metrics.site = HTTPSite(server, clock, bytes)
        metrics.site.answered["GET", 200] += 1
        server.replica.discarded["4 A6"] += 1
        self.do(self.connect(), "LOCK", "door")
        self.labels: dict[str, set[str]] = {name: set(labels) for name, labels in OWN.items()}
        self.values: dict[tuple[str, str], set[str]] = {}
        for sample in (sample for family in metrics.families() for sample in family.samples):
            self.labels.setdefault(sample.name, set(TARGET_LABELS)).update(sample.labels)
            for label, value in sample.labels.items():
                self.values.setdefault((sample.name, label), set()).add(value)

    def test_every_name_and_label_exists(self) -> None:
        for where, expression in expressions():
            named = [*selectors(expression)]
            self.assertNotEqual(named, [], where)
            for name, matchers in named:
                self.assertIn(name, self.labels, where)
                self.assertLessEqual(set(matchers), self.labels[name], where)
            known = set().union(*(self.labels[name] for name, _ in named))
            self.assertLessEqual(grouped_by(expression), known, where)

    def test_every_plain_value_of_a_label_exists(self) -> None:
        """Every value of a label in an expression exists, as in `way="out"` and `verb!="LOCK"`: a value that is
        misspelt would match nothing."""
        for where, expression in expressions():
            for name, matchers in selectors(expression):
                for label, value in matchers.items():
                    if label not in TARGET_LABELS and re.fullmatch(r"[A-Za-z_]+", value):
                        self.assertIn(value, self.values[name, label], where)

    def test_outcomes_that_count_as_trouble_are_codes_of_refusals(self) -> None:
        """The outcomes that count as trouble are codes of refusals by which a server says that it cannot do what a
        client asks, and not that the client asks something wrong."""
        named = {
            code
            for _, expression in expressions()
            for _, matchers in selectors(expression)
            for code in matchers.get("outcome", "OK").split("|")
        }
        troubles = {refused.code for each in TROUBLE_REFUSALS.values() for refused in (each.change, each.question)}
        self.assertEqual(named, {"OK", DIVERGED.code, *troubles})


class FormTests(SynchronousTestCase):
    def test_names_in_an_expression_are_found(self) -> None:
        """The names of figures in an expression are found; functions, words, labels and durations are none."""
        expression = 'histogram_quantile(0.9, sum by (le, verb) (rate(a_bucket{x=~"b|c", y!="d"}[5m]))) > 1 and b_total'
        self.assertEqual([*selectors(expression)], [("a_bucket", {"x": "b|c", "y": "d"}), ("b_total", {})])
        self.assertEqual(grouped_by(expression), {"le", "verb"})

    def test_every_panel_says_what_it_shows(self) -> None:
        """Every panel of the dashboard says what it shows, for a person who has never seen the figures."""
        shown = [panel for panel in panels() if panel["type"] != "row"]
        self.assertGreater(len(shown), 20)
        for panel in shown:
            self.assertTrue(panel["description"].endswith("."), panel["title"])

    def test_panels_do_not_overlap_and_fill_the_width(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in panels():
            at = panel["gridPos"]
            cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
            self.assertFalse(taken & cells, panel["title"])
            taken |= cells
        self.assertEqual(len(taken), 24 * (max(y for _, y in taken) + 1))

    def test_every_alert_says_who_should_look_when_and_why(self) -> None:
        names = [rule["alert"] for rule in rules()]
        self.assertEqual(len(names), len(set(names)))
        for rule in rules():
            self.assertIn(rule["labels"]["severity"], ("page", "ticket"), rule["alert"])
            self.assertEqual(set(rule["annotations"]), {"summary", "description"}, rule["alert"])
