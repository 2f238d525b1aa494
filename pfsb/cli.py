"""The `pfsb` command, which runs one of its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from twisted.python import usage

from pfsb import __version__

_COMMANDS: Final = (
    ("cluster", "pfsb.commands.cluster", "Start all servers of a configuration in this terminal."),
    ("client", "pfsb.commands.client", "Send commands to a cluster; interactive, one, from a pipe, or a batch."),
    ("status", "pfsb.commands.status", "Show one line per server."),
    ("why", "pfsb.commands.why", "Say why there is no leader or no progress."),
    ("settings", "pfsb.commands.settings", "Show or change the settings that all servers share."),
    ("check", "pfsb.commands.check", "Validate a configuration."),
    (
        "explore",
        "pfsb.simulator.model_checking.explore_command",
        "Explore all that can happen to a small cluster, to some depth.",
    ),
    (
        "pass",
        "pfsb.service.pass_command",
        "Leave out a slot that no server can execute.",
    ),
    ("log", "pfsb.service.log_command", "Show and check the log in a data directory."),
    ("migrate", "pfsb.service.migrate_command", "Make a log of the database that an earlier version has left."),
    ("bench", "pfsb.bench.tool", "Measure throughput and latency, and what they cost."),
    ("demo", "pfsb.demo.tool", "Run real servers through a scenario and record it."),
    (
        "simulate",
        "pfsb.simulator.runs.simulate_command",
        "Look for bugs: simulated clusters in trouble, from one seed each.",
    ),
    (
        "fuzz",
        "pfsb.simulator.fuzz.fuzz_command",
        "Look for bugs: changed input of every kind, from frames to configurations.",
    ),
)
"""(name, module, text for --help) of each subcommand.

The module has `Options` and `run(reactor, options)`, and is imported only when its subcommand is chosen.
"""


def _lazily(module: str) -> Callable[[], usage.Options]:
    def options() -> usage.Options:
        made: usage.Options = import_module(module).Options()
        return made

    return options


USAGE: Final = 2
"""Exit status for a mistake in the command line (`pfsb.commands.exit_status`)."""


class Options(usage.Options):
    """Command line of `pfsb`."""

    synopsis = "Usage: pfsb COMMAND [options]"
    longdesc = 'One server by itself is started by "twistd pfsb"; see "twistd pfsb --help".'
    subCommands = [[name, None, _lazily(module), text] for name, module, text in _COMMANDS]  # noqa: RUF012

    def opt_version(self) -> NoReturn:
        """Show the version of pfsb and exit."""
        print(f"pfsb {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        if self.subCommand is None:
            raise usage.UsageError("a command is missing; pfsb --help shows all")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `pfsb` command: runs the subcommand that `arguments` name.

    For a mistake in the command line, one line is written to standard error, and the exit status is 2.
    """
    options = Options()
    try:
        options.parseOptions(sys.argv[1:] if arguments is None else arguments)
    except usage.UsageError as error:
        print(f"pfsb: {error}", file=sys.stderr)
        sys.exit(USAGE)
    chosen: Any = import_module(next(module for name, module, _ in _COMMANDS if name == options.subCommand))
    from twisted.internet.task import react

    react(chosen.run, (options.subOptions,))
