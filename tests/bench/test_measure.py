"""The evaluation of a load client's result and of two looks at the servers."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.bench.client import LoadClient, LoadFailed, LoadResult, client_command, read_result
from pfsb.bench.histogram import Histogram, bucket
from pfsb.bench.measure import Measurement, evaluate
from pfsb.bench.probe import Moment
from pfsb.bench.report import remarks, table
from pfsb.bench.workload import Workload, operations

WORKLOAD = Workload([("h", 1)], operations("put", 1), connections=2, depth=3)


def status(aru: int, revision: int, uptime: float, groups: int, **more: Any) -> dict[str, Any]:
    return {
        "aru": aru,
        "revision": revision,
        "uptime": uptime,
        "storage": {"groups": groups, "records": 4 * groups},
        **more,
    }


def result(begun: Moment, ended: Moment) -> LoadResult:
    latencies = Histogram([(bucket(2_000_000), 1_000)])
    return LoadResult("c", 1_000, 0, 0, "", 2.0, 0.5, latencies, begun, ended)


class EvaluateTests(SynchronousTestCase):
    def test_rates_and_costs(self) -> None:
        """CPU time and batches are given per operation, and disk writes per second of the servers' own time."""
        begun = Moment({0: status(10, 100, 5.0, 50), 1: status(9, 90, 5.0, 40)}, 1.0)
        ended = Moment({0: status(60, 1_100, 7.5, 150), 1: status(58, 1_060, 7.5, 190)}, 1.5)
        found = evaluate(WORKLOAD, result(begun, ended))
        self.assertEqual((found.per_second, found.server_cpu_us, found.server_cores), (500.0, 500.0, 0.25))
        self.assertEqual((found.client_cores, found.commands_per_proposal), (0.25, 20.0))
        self.assertEqual((found.disk_writes_per_second, found.records_per_disk_write), (50.0, 4.0))
        self.assertApproximates(found.p50_us, 2_000, 20)
        self.assertIsNone(found.updates_per_proposal)

    def test_other_cores_are_busy_with_neither_servers_nor_load_client(self) -> None:
        """The load of other cores is the busy time of all processors, less that of the servers and of the load
        client."""
        found = evaluate(WORKLOAD, result(Moment({}, 1.0, 10.0), Moment({}, 2.0, 13.5)))
        self.assertEqual(found.other_cores, 1.0)

    def test_updates_come_from_servers_that_count_them(self) -> None:
        """Commands per update, multiplied by updates per proposal, are the commands per proposal."""
        begun = Moment({0: status(0, 0, 1.0, 0, updates=0)}, None)
        ended = Moment({0: status(10, 600, 2.0, 10, updates=30)}, None)
        found = evaluate(WORKLOAD, result(begun, ended))
        self.assertEqual((found.updates_per_proposal, found.commands_per_update), (3.0, 20.0))

    def test_commands_and_proposals_are_counted_at_one_server(self) -> None:
        """Counters of commands and of proposals are taken from one server and never mixed: a server that has answered
        STATUS later than another has grown more."""
        begun = Moment({0: status(0, 0, 1.0, 0, updates=0), 1: status(0, 0, 1.0, 0, updates=50)}, None)
        ended = Moment({0: status(10, 100, 2.0, 9, updates=40), 1: status(9, 900, 2.0, 9, updates=999)}, None)
        found = evaluate(WORKLOAD, result(begun, ended))
        self.assertEqual((found.commands_per_proposal, found.updates_per_proposal), (10.0, 4.0))

    def test_size_of_proposals_is_that_of_the_servers_that_proposed(self) -> None:
        """The mean size of proposals counts only servers that have proposed: followers do not make it smaller."""
        begun = Moment({i: status(0, 0, 1.0, 0, proposed={"count": 5, "bytes": 50}) for i in (0, 1)}, None)
        ended = Moment(
            {i: status(0, 0, 2.0, 0, proposed={"count": 5 + i, "bytes": 50 + 700 * i}) for i in (0, 1)}, None
        )
        self.assertEqual(evaluate(WORKLOAD, result(begun, ended)).bytes_per_proposal, 700.0)

    def test_unknown_figures_are_none(self) -> None:
        """Figures that are not known are None: a server on another machine has no process here, and of a server that
        answered only once no growth is known."""
        found = evaluate(WORKLOAD, result(Moment({}, None), Moment({0: status(1, 1, 1.0, 1)}, None)))
        unknown = (found.server_cpu_us, found.server_cores, found.disk_writes_per_second, found.commands_per_proposal)
        self.assertEqual(unknown, (None,) * 4)


class ResultTests(SynchronousTestCase):
    def test_object_that_is_no_result_is_refused(self) -> None:
        """An object that is no result of a load client is refused, with the name of the key that is missing."""
        self.assertIn("operations", str(self.assertRaises(LoadFailed, read_result, {"client": "c", "histogram": []})))


class ReportTests(SynchronousTestCase):
    def measurement(self) -> Measurement:
        begun = Moment({0: status(10, 100, 5.0, 50)}, 1.0)
        return evaluate(WORKLOAD, result(begun, Moment({0: status(60, 1_100, 7.0, 150)}, 1.5)))

    def test_table_leaves_out_empty_columns(self) -> None:
        """The table has one line of names and one for each measurement, all of one width."""
        lines = table([self.measurement(), self.measurement()]).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("writes/proposal", lines[0])
        self.assertNotIn("writes/update", lines[0])
        self.assertEqual(len({len(line) for line in lines}), 1)

    def test_remarks_name_a_load_client_at_its_limit_disturbances_and_errors(self) -> None:
        """The report has remarks about a load client at its limit, disturbances and errors: such figures do not measure
        the servers."""
        self.assertEqual(remarks([self.measurement()]), [])
        busy = evolve(self.measurement(), client_cores=0.97)
        self.assertIn("the load client itself is the limit", remarks([busy])[0])
        disturbed = evolve(self.measurement(), other_cores=1.2)
        self.assertIn("other programs kept 1.2 cores busy", remarks([disturbed])[0])
        refused = evolve(self.measurement(), errors=3, first_error="ERR BUSY fate=none no room")
        self.assertIn("3 errors, the first: ERR BUSY", remarks([refused])[0])


class ClientTests(SynchronousTestCase):
    def test_client_in_python_is_taken_without_a_compiler(self) -> None:
        """Without a compiler the client in Python is used; a user who asks for the one in C gets an error that says why
        there is none."""
        with patch.dict(os.environ, {"PATH": "", "CC": "no-such-compiler"}):
            self.assertEqual(client_command("auto")[-1], "pfsb.bench.plain_load")
            self.assertIn("no C compiler", str(self.assertRaises(LoadFailed, client_command, "c")))

    def test_client_that_gives_up_says_why(self) -> None:
        """When a load client gives up, the error has what it has written to standard error."""
        client = LoadClient(["sh", "-c", "echo begin; echo no route >&2; exit 2"])
        self.assertIn("gave up: no route", str(self.assertRaises(LoadFailed, client.run, "")))

    def test_stopped_client_runs_no_more(self) -> None:
        """A load client that is stopped before its first run does not run."""
        client = LoadClient(["sh", "-c", "echo '{}'"])
        client.stop()
        self.assertEqual(str(self.assertRaises(LoadFailed, client.run, "")), "interrupted")
