"""The `pfsb` command, which runs one of its subcommands."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from pfsb.support.command_line import SETTINGS, no_such_option, one_line, version_option
from pfsb.support.spelling import nearest

_SECTIONS: Final = {
    "Run a cluster": {
        "init": ("pfsb.commands.init", "Write a configuration for a cluster on this machine."),
        "cluster": ("pfsb.commands.cluster", "Start all servers of a configuration in this terminal."),
        "check": ("pfsb.commands.check", "Validate a configuration."),
        "certificates": ("pfsb.commands.certificates", "Make the certificates for TLS between servers."),
        "secret": ("pfsb.commands.secret", "Make a secret that authenticates servers to each other."),
        "token": ("pfsb.commands.token", "Make a token, with which a client shows its rights."),
    },
    "Ask a cluster": {
        "client": ("pfsb.commands.client", "Send commands: interactive, one, from a pipe, or a batch."),
        "status": ("pfsb.commands.status", "Show one line per server."),
        "why": ("pfsb.commands.why", "Say why there is no leader or no progress."),
        "servers": ("pfsb.commands.servers", "Show the servers of a cluster, or add, remove or move one."),
        "settings": ("pfsb.commands.settings", "Show or change the settings that all servers share."),
        "bench": ("pfsb.bench.tool", "Measure throughput and latency, and what they cost."),
        "demo": ("pfsb.demo.tool", "Run real servers through a scenario and record it."),
    },
    "Keep what a cluster holds": {
        "backup": ("pfsb.backups.backup_command", "Write a running cluster's state into a file, or check one."),
        "restore": ("pfsb.backups.restore_command", "Make the data directories of a new cluster of a backup."),
        "history": ("pfsb.backups.history_command", "Show all changes of a key, from archives and data directories."),
        "export": ("pfsb.backups.export_command", "Show what is in a backup as JSON lines."),
        "import": ("pfsb.backups.import_command", "Put such lines into a running cluster."),
        "recover": ("pfsb.backups.recover_command", "Make a new cluster of what is left when a majority is lost."),
        "snapshot": ("pfsb.backups.snapshot_command", "Have servers write their states to disk as a whole."),
    },
    "Data of a stopped server": {
        "log": ("pfsb.service.log_command", "Show and check the log in a data directory."),
        "migrate": (
            "pfsb.service.migrate_command",
            "Make a log of the database that an earlier version has left.",
        ),
        "pass": ("pfsb.service.pass_command", "Leave out a slot that no server can execute."),
    },
    "Look for bugs in pfsb": {
        "simulate": (
            "pfsb.simulator.runs.simulate_command",
            "Simulate clusters in trouble, from one seed each.",
        ),
        "explore": (
            "pfsb.simulator.model_checking.explore_command",
            "Explore all that can happen to a small cluster.",
        ),
        "fuzz": (
            "pfsb.simulator.fuzz.fuzz_command",
            "Change input of every kind, from frames to configurations.",
        ),
    },
}
"""Heading in the help -> name of a subcommand -> its module, and what it does.

The module has `command`, whose callback returns the checked options, and `run(reactor, options)`. It is imported only
when its subcommand is chosen.
"""
_COMMANDS: Final = {name: place for section in _SECTIONS.values() for name, place in section.items()}

USAGE: Final = 2
"""Exit status for a mistake in the command line (`pfsb.commands.exit_status`)."""


PIPE: Final = 141
"""Exit status when the reader of the output is gone: that of a process that SIGPIPE has ended."""


class Subcommands(click.Group):
    """The subcommands of `pfsb`, each of which is imported when it is chosen."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        found: click.Command = import_module(_COMMANDS[name][0]).command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command {args[0]}; {nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(no_such_option(error, self, ctx)) from None
        if not args and not ctx.resilient_parsing:
            raise click.UsageError("a command is missing; pfsb --help shows all")
        return rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for heading, commands in _SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{width}}", text) for name, (_, text) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        names = [name for name in _COMMANDS if name.startswith(incomplete)]
        found: list[Any] = [CompletionItem(name, help=_COMMANDS[name][1]) for name in names]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Subcommands, context_settings=SETTINGS, no_args_is_help=False, params=[version_option()])
def program() -> None:
    """A replicated state machine server: several servers run the same commands in the same order.

    "pfsb COMMAND --help" explains a command and its options. One server by itself is started by "twistd pfsb"; see
    "twistd pfsb --help".
    """


@program.result_callback()
@click.pass_context
def _run(ctx: click.Context, options: Any) -> None:
    """Called with what a subcommand's callback has returned: run the subcommand. Raises `SystemExit`."""
    assert ctx.invoked_subcommand is not None
    chosen: Any = import_module(_COMMANDS[ctx.invoked_subcommand][0])
    from twisted.internet.task import react

    react(_run_for_reader, (chosen.run, options))


async def _run_for_reader(reactor: Any, run: Callable[[Any, Any], Awaitable[None]], options: Any) -> None:
    """Run a subcommand. If the reader of its output has gone, as `head` does, it ends without a word."""
    try:
        await run(reactor, options)
        sys.stdout.flush()
    except click.ClickException as error:
        print(f"pfsb: {one_line(error)}", file=sys.stderr)
        raise SystemExit(USAGE) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(PIPE) from None


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `pfsb` command: runs the subcommand that `arguments` name.

    For a mistake in the command line, one line is written to standard error, and the exit status is 2.
    """
    try:
        program.main(arguments, prog_name="pfsb", standalone_mode=False)
    except click.ClickException as error:
        print(f"pfsb: {one_line(error)}", file=sys.stderr)
        sys.exit(USAGE)
    except click.Abort:
        sys.exit(130)
    sys.exit(0)
