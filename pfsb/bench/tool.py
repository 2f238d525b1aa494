"""`pfsb bench`: puts load on a cluster, and reports throughput, latency and the cost for the servers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import yaml
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.python import usage

from pfsb.bench.client import CLIENTS, LoadClient, LoadFailed, client_command
from pfsb.bench.machine import sync_seconds
from pfsb.bench.measure import Measurement, measure
from pfsb.bench.plot import Chart, Series, svg
from pfsb.bench.probe import NoCluster, Probe
from pfsb.bench.report import table
from pfsb.bench.workload import READS, Workload, WrongMix, fill, needs_depth_one, operations
from pfsb.commands.options import ConfigOptions, number, seconds
from pfsb.config.config import MEMORY, Config
from pfsb.demo.processes import ClusterTrouble, ProcessCluster

CONNECTIONS_MAX: Final = 20_000
VALUE_BYTES_MAX: Final = 49_000
RATE_MAX: Final = 10_000_000


class Options(ConfigOptions):
    """Command line of `pfsb bench`."""

    synopsis = "Usage: pfsb bench CONFIG [options]"
    longdesc = (
        "Keeps CONNECTIONS x DEPTH operations under way and measures how many are answered, how soon, and what that "
        "takes of the servers. The cluster must run, or is started for it with --start, on ports of its own and with "
        "storage that is thrown away."
    )
    optFlags = [["start", None, "start the servers of the configuration, and stop them afterwards"]]  # noqa: RUF012
    optParameters = [  # noqa: RUF012 (read by Twisted, never changed)
        ["connections", "c", "8", "how many connections; several numbers (1,16,64) are measured one after the other"],
        ["depth", "d", 8, "operations under way on each connection", number(1, 10_000)],
        [
            "rate",
            None,
            None,
            "an open loop: so many are due each second, and DEPTH is the most under way on a connection",
        ],
        ["value-size", None, 100, "bytes of a value", number(1, VALUE_BYTES_MAX)],
        ["keys", None, 10_000, "how many keys there are", number(1, 100_000_000)],
        ["mix", None, "put", "what to do: put get incr append puthash say lock lockone ping, as in put=70,get=30"],
        ["read", None, "linearizable", f"how get reads: {', '.join(READS)}"],
        ["seconds", "s", 5.0, "measured time", seconds],
        ["warmup", None, 1.0, "time before that, in seconds; longer until each connection has had an answer", seconds],
        ["to", None, "leader", "which servers are asked: leader, all or an id"],
        ["client", None, "auto", f"what the load client is written in: {', '.join(CLIENTS)}"],
        ["directory", None, ".", "with --start: where to make the directory for storage; its disk is measured too"],
        ["json", None, None, "write everything that was measured to this file"],
        ["plot", None, None, "write throughput and latency, by operations under way, to this SVG file"],
    ]

    workloads: list[Workload]
    """One workload for each pair of a number of connections and a rate; the servers are filled in later."""

    def postOptions(self) -> None:
        if not hasattr(self, "config"):
            return  # parseArgs has reported that it is missing
        try:
            doing = operations(self["mix"], self["value-size"], self["read"])
        except WrongMix as error:
            raise usage.UsageError(f"--mix: {error}") from None
        _one_of("--read", self["read"], READS)
        _one_of("--client", self["client"], CLIENTS)
        if needs_depth_one(doing) and self["depth"] != 1:
            raise usage.UsageError("locks are granted in any order: a mix with lock or lockone needs --depth 1")
        if self["to"] not in ("leader", "all", *map(str, self.config.ids)):
            raise usage.UsageError(f"--to: {self['to']} is no server; it may be leader, all or an id")
        if not Path(self["directory"]).is_dir():
            raise usage.UsageError(f"--directory: {self['directory']} is no directory")
        one = Workload((), doing, 1, self["depth"], seconds=self["seconds"], warmup=self["warmup"], keys=self["keys"])
        counts = _numbers("--connections", self["connections"], CONNECTIONS_MAX)
        rates = [0] if self["rate"] is None else _numbers("--rate", self["rate"], RATE_MAX)
        self.workloads = [evolve(one, connections=count, rate=rate) for count in counts for rate in rates]


def _one_of(option: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise usage.UsageError(f"{option}: {given} is not known; it may be {', '.join(known)}")


def _numbers(option: str, text: str, greatest: int) -> list[int]:
    numbers = [int(word) if word.isascii() and word.isdigit() else 0 for word in text.split(",")]
    if not all(0 < number <= greatest for number in numbers):
        raise usage.UsageError(f"{option}: {text} is not from 1 to {greatest}, nor several such (1,16,64)")
    return numbers


async def run(reactor: Any, options: Options) -> None:
    """Carry out `pfsb bench`: measure, and print the report. Raises `SystemExit` with status 1 if measuring fails."""
    try:
        client = LoadClient(client_command(options["client"]))
        measuring = Deferred.fromCoroutine(_measured(reactor, options, client))
        trigger = reactor.addSystemEventTrigger("before", "shutdown", _interrupt, client, measuring)
        measurements, about = await measuring
        with contextlib.suppress(ValueError):  # the trigger has fired
            reactor.removeSystemEventTrigger(trigger)
    except CancelledError:
        print("pfsb bench: interrupted", file=sys.stderr)
        raise SystemExit(1) from None
    except (NoCluster, LoadFailed, ClusterTrouble, OSError) as error:
        print(f"pfsb bench: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    for key, value in about.items():
        print(f"{key}: {value}")
    print(table(measurements), end="")
    _write(options, measurements, about)


def _interrupt(client: LoadClient, measuring: Deferred[Any]) -> Deferred[None]:
    """Called before the reactor shuts down, as after Ctrl-C: stop measuring.

    The Deferred fires when the servers that were started for the measurement have ended and their storage is removed.
    """
    ended: Deferred[None] = Deferred()

    def told(result: Any) -> Any:
        ended.callback(None)
        return result

    client.stop()
    measuring.addBoth(told)
    measuring.cancel()
    return ended


async def _measured(
    reactor: Any, options: Options, client: LoadClient
) -> tuple[list[Measurement], dict[str, str | int | float]]:
    if not options["start"]:
        return await _in_thread(options, Probe.of(options.addresses), client)
    scratch = Path(tempfile.mkdtemp(prefix="pfsb-bench-", dir=options["directory"])).resolve()
    try:
        changes = changes_for(options.config)
        async with ProcessCluster(reactor, scratch / "servers", options.config.n, changes=changes) as cluster:
            await cluster.start_all()
            measurements, about = await _in_thread(options, Probe.of(cluster.addresses), client)
        if options.config.storage != MEMORY:
            about["ms for a 4 KiB append and fdatasync"] = round(1000 * sync_seconds(scratch), 3)
        return measurements, about
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def changes_for(config: Config) -> dict[str, Any]:
    """The settings of a configuration that `--start` gives to the servers that it starts: all but ids, ports and
    directories of storage."""
    with open(config.file, encoding="utf-8") as file:
        settings: dict[str, Any] = yaml.safe_load(file)
    kept = {key: value for key, value in settings.items() if key not in ("servers", "storage")}
    if config.storage == MEMORY:
        kept["storage"] = MEMORY
    if config.secret_file is not None:
        kept["secret_file"] = os.path.abspath(config.secret_file)
    return kept


def _in_thread(
    options: Options, probe: Probe, client: LoadClient
) -> Deferred[tuple[list[Measurement], dict[str, str | int | float]]]:
    return deferToThread(measure_all, options, probe, client, sys.stderr)


def measure_all(
    options: Options, probe: Probe, client: LoadClient, progress: TextIO
) -> tuple[list[Measurement], dict[str, str | int | float]]:
    """Measure all workloads, one after the other. Blocks until the last has ended.

    Returns the measurements, and the values that are the same for all of them (number of servers, mix and so on).
    """
    targets = probe.towards(options["to"])
    if any(step.startswith("GET ") for step in _steps(options.workloads[0])):
        client.run(fill(targets, options["keys"], options["value-size"]).render())
    measurements = []
    for workload in options.workloads:
        offered = f", {workload.rate:,.0f} due each second" if workload.rate else ""
        progress.write(f"{workload.connections} x {workload.depth}{offered} ...\n")
        progress.flush()
        measurements.append(measure(probe, client, evolve(workload, targets=targets)))
    about: dict[str, str | int | float] = {
        "servers": len(probe.targets),
        "asked": options["to"],
        "mix": options["mix"],
        "value bytes": options["value-size"],
        "load client": measurements[0].client,
    }
    return measurements, about


def _steps(workload: Workload) -> Iterable[str]:
    return (step for operation in workload.operations for step in operation.steps)


def _write(options: Options, measurements: Sequence[Measurement], about: dict[str, Any]) -> None:
    if options["json"] is not None:
        content = {"about": about, "measurements": [m.as_json() for m in measurements]}
        Path(options["json"]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options["plot"] is not None:
        Path(options["plot"]).write_text(svg(charts(measurements)), encoding="utf-8")


def charts(measurements: Sequence[Measurement]) -> list[Chart]:
    """Charts of throughput and latency against the number of operations under way, or in an open loop against the rate
    at which operations were due."""
    is_open = any(m.rate for m in measurements)

    def points(name: str, divisor: float) -> list[tuple[float, float]]:
        found = [(m.rate if is_open else m.connections * m.depth, getattr(m, name)) for m in measurements]
        return [(x, y / divisor) for x, y in found if y is not None]

    latency = [
        Series("p50", points("p50_us", 1000)),
        Series("p99", points("p99_us", 1000)),
        Series("p99.9", points("p999_us", 1000)),
    ]
    x_name = "operations due each second" if is_open else "operations under way"
    return [
        Chart("Throughput", x_name, "operations per second", [Series("", points("per_second", 1))], log_x=True),
        Chart("Latency", x_name, "milliseconds", latency, log_x=True, log_y=True),
    ]
