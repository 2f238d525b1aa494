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

import click
import yaml
from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from pfsb.bench.client import CLIENTS, LoadClient, LoadFailed, client_command
from pfsb.bench.machine import sync_seconds
from pfsb.bench.measure import Measurement, measure
from pfsb.bench.plot import Chart, Series, svg
from pfsb.bench.probe import NoCluster, Probe
from pfsb.bench.report import table
from pfsb.bench.workload import READS, Workload, WrongMix, fill, needs_depth_one, operations
from pfsb.commands.options import ConfigOptions, config_argument, token_file_option
from pfsb.config.config import MEMORY, Config
from pfsb.demo.processes import ClusterTrouble, ProcessCluster
from pfsb.support.command_line import Number, OneOf, Seconds, subcommand

CONNECTIONS_MAX: Final = 20_000
VALUE_BYTES_MAX: Final = 49_000
RATE_MAX: Final = 10_000_000


@define
class Options(ConfigOptions):
    """Command line of `pfsb bench`."""

    workloads: list[Workload]
    """One workload for each pair of a number of connections and a rate; the servers are filled in later."""
    start: bool
    value_size: int
    keys: int
    mix: str
    to: str
    client: str
    directory: str
    json: str | None
    plot: str | None
    named_token_file: str | None

    @property
    def token_file(self) -> str | None:
        return self.named_token_file


@subcommand("bench")
@config_argument()
@click.option("--start", is_flag=True, help="Start the servers of the configuration, and stop them afterwards.")
@click.option(
    "--connections",
    "-c",
    default="8",
    metavar="N,...",
    help="How many connections; several numbers (1,16,64) are measured one after the other.",
)
@click.option("--depth", "-d", type=Number(1, 10_000), default=8, help="Operations under way on each connection.")
@click.option(
    "--rate",
    metavar="N,...",
    help="An open loop: so many are due each second, and DEPTH is the most under way on a connection.",
)
@click.option("--value-size", type=Number(1, VALUE_BYTES_MAX), default=100, help="Bytes of a value.")
@click.option("--keys", type=Number(1, 100_000_000), default=10_000, help="How many keys there are.")
@click.option(
    "--mix",
    default="put",
    metavar="MIX",
    help="What to do: put get incr append puthash say lock lockone ping, as in put=70,get=30.",
)
@click.option("--read", type=OneOf(READS), default="linearizable", help="How get reads.")
@click.option("--seconds", "-s", type=Seconds(), default=5.0, help="Measured time.")
@click.option(
    "--warmup", type=Seconds(), default=1.0, help="Time before that; longer until each connection has had an answer."
)
@click.option("--to", default="leader", metavar="SERVERS", help="Which servers are asked: leader, all or an id.")
@click.option("--client", type=OneOf(CLIENTS), default="auto", help="What the load client is written in.")
@click.option(
    "--directory",
    type=click.Path(),
    default=".",
    metavar="DIR",
    help="With --start: where to make the directory for storage; its disk is measured too.",
)
@click.option("--json", type=click.Path(), metavar="FILE", help="Write everything that was measured to this file.")
@click.option(
    "--plot",
    type=click.Path(),
    metavar="FILE",
    help="Write throughput and latency, by operations under way, to this SVG file.",
)
@token_file_option
def command(
    config: Config,
    connections: str,
    depth: int,
    rate: str | None,
    read: str,
    seconds: float,
    warmup: float,
    **given: Any,
) -> Options:
    """Keep CONNECTIONS x DEPTH operations under way, and measure how many are answered, how soon, and what that takes
    of the servers.

    The cluster must run, or is started for it with --start, on ports of its own and with storage that is thrown away.
    """
    options = Options(config, workloads=[], **given)
    try:
        doing = operations(options.mix, options.value_size, read)
    except WrongMix as error:
        raise click.UsageError(f"--mix: {error}") from None
    if needs_depth_one(doing) and depth != 1:
        raise click.UsageError("locks are granted in any order: a mix with lock or lockone needs --depth 1")
    if options.to not in ("leader", "all", *map(str, config.ids)):
        raise click.UsageError(f"--to: {options.to} is no server; it may be leader, all or an id")
    if not Path(options.directory).is_dir():
        raise click.UsageError(f"--directory: {options.directory} is no directory")
    one = Workload((), doing, 1, depth, seconds=seconds, warmup=warmup, keys=options.keys)
    counts = _numbers("--connections", connections, CONNECTIONS_MAX)
    rates = [0] if rate is None else _numbers("--rate", rate, RATE_MAX)
    options.workloads = [evolve(one, connections=count, rate=due) for count in counts for due in rates]
    return options


def _numbers(option: str, text: str, greatest: int) -> list[int]:
    numbers = [int(word) if word.isascii() and word.isdigit() else 0 for word in text.split(",")]
    if not all(0 < number <= greatest for number in numbers):
        raise click.UsageError(f"{option}: {text} is not from 1 to {greatest}, nor several such (1,16,64)")
    return numbers


async def run(reactor: Any, options: Options) -> None:
    """Carry out `pfsb bench`: measure, and print the report. Raises `SystemExit` with status 1 if measuring fails."""
    try:
        client = LoadClient(client_command(options.client))
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
    if not options.start:
        return await _in_thread(options, Probe.of(options.addresses), client)
    scratch = Path(tempfile.mkdtemp(prefix="pfsb-bench-", dir=options.directory)).resolve()
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
    """The settings of a configuration that `--start` gives to the servers that it starts: all but ids, ports,
    directories of storage, and tokens: the load generators show none."""
    with open(config.file, encoding="utf-8") as file:
        settings: dict[str, Any] = yaml.safe_load(file)
    kept = {key: value for key, value in settings.items() if key not in ("servers", "storage", "token_file")}
    if config.storage == MEMORY:
        kept["storage"] = MEMORY
    if config.secret_file is not None:
        kept["secret_file"] = os.path.abspath(config.secret_file)
    if "tls" in config.transports:
        kept["certificates"] = os.path.abspath(config.certificate_directory)
    return kept


def _in_thread(
    options: Options, probe: Probe, client: LoadClient
) -> Deferred[tuple[list[Measurement], dict[str, str | int | float]]]:
    return deferToThread(measure_all, options, probe, client, sys.stderr)


def measure_all(
    options: Options, probe: Probe, client: LoadClient, progress: TextIO
) -> tuple[list[Measurement], dict[str, str | int | float]]:
    """Measure all workloads, one after the other. Blocks until the last has ended. All connections show the token of
    the probe.

    Returns the measurements, and the values that are the same for all of them (number of servers, mix and so on).
    """
    targets = probe.towards(options.to)
    if any(step.startswith("GET ") for step in _steps(options.workloads[0])):
        client.run(evolve(fill(targets, options.keys, options.value_size), token=probe.token).render())
    measurements = []
    for workload in options.workloads:
        offered = f", {workload.rate:,.0f} due each second" if workload.rate else ""
        progress.write(f"{workload.connections} x {workload.depth}{offered} ...\n")
        progress.flush()
        measurements.append(measure(probe, client, evolve(workload, targets=targets, token=probe.token)))
    about: dict[str, str | int | float] = {
        "servers": len(probe.targets),
        "asked": options.to,
        "mix": options.mix,
        "value bytes": options.value_size,
        "load client": measurements[0].client,
    }
    return measurements, about


def _steps(workload: Workload) -> Iterable[str]:
    return (step for operation in workload.operations for step in operation.steps)


def _write(options: Options, measurements: Sequence[Measurement], about: dict[str, Any]) -> None:
    if options.json is not None:
        content = {"about": about, "measurements": [m.as_json() for m in measurements]}
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        Path(options.plot).write_text(svg(charts(measurements)), encoding="utf-8")


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
