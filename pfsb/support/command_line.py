"""Common parts of the subcommands of `pfsb`: kinds of values, help, and errors of one line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, TextIO

import click

from pfsb.support.spelling import nearest

HELP_COLUMNS: Final = 100
"""Maximum width of a help text, in columns: longer lines are hard to read, however wide the terminal is."""
SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS, "show_default": True}
"""Settings of click for every subcommand."""


class Subcommand(click.Command):
    """A subcommand of `pfsb`. Its callback returns the checked options, with which the subcommand is then run."""

    settings: ClassVar[Mapping[str, Any]] = SETTINGS
    """Settings of click for each subcommand of this class."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.params.append(version_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(no_such_option(error, self, ctx)) from None


def subcommand(name: str, cls: type[Subcommand] = Subcommand, epilog: str | None = None) -> Callable[..., Subcommand]:
    """Decorator: makes a function a subcommand of `pfsb`. The function takes the values that the words of the command
    line give, and returns the checked options.

    The docstring of the function is the text of the help, and `epilog` stands at its end; None: nothing does.
    """
    return click.command(name, cls=cls, context_settings=dict(cls.settings), epilog=epilog)


def one_argument(name: str, missing: str) -> Callable[..., Any]:
    """Decorator: adds the only argument of a subcommand. `missing` is the error for none, or more than one."""

    def only(ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> str | None:
        if len(values) != 1 and not ctx.resilient_parsing:
            raise click.UsageError(missing)
        return values[0] if values else None

    return click.argument(name, nargs=-1, metavar=name.upper(), callback=only)


def version_option() -> click.Option:
    """The option --version, which every command has: shows the version of pfsb, and ends."""

    def show(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from pfsb import __version__

            click.echo(f"pfsb {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        show_default=False,
        callback=show,
        help="Show the version of pfsb and exit.",
    )


def parse(command: click.Command, words: Iterable[str]) -> Any:
    """The checked options that `command` makes of the words of a command line.

    Raises `click.UsageError` if the words are wrong, and `SystemExit` after --help or --version, whose text has been
    printed then.
    """
    with command.make_context(f"pfsb {command.name}", list(words)) as ctx:
        return command.invoke(ctx)


def one_line(error: click.ClickException) -> str:
    """The text of an error as one line, which begins in lower case unless its first word is a name."""
    text = " ".join(error.format_message().split()).rstrip(".")
    return text[0].lower() + text[1:] if re.match("[A-Z][a-z]+ ", text) else text


def no_such_option(error: click.NoSuchOption, command: click.Command, ctx: click.Context) -> str:
    """The text of the error for an option that `command` does not have; it proposes an option with a similar name."""
    known = [name for param in command.get_params(ctx) for name in param.opts if name.startswith("--")]
    near = nearest(error.option_name, known)
    return f"there is no option {error.option_name}; " + (
        near if near.startswith("did") else f"{ctx.command_path} --help shows all"
    )


def has_colours(stream: TextIO) -> bool:
    """Whether a stream may be written to in colours: it is a terminal, and NO_COLOR (https://no-color.org) is not
    set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


class Number(click.ParamType[int]):
    """A whole number from `least` to `most`."""

    name = "number"

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if re.fullmatch("-?[0-9]{1,20}", value) is None or not self.least <= int(value) <= self.most:
            raise click.UsageError(
                f"{_name(param)} takes a whole number from {self.least} to {self.most}, not {value}", ctx
            )
        return int(value)


class Seconds(click.ParamType[float]):
    """A number of seconds that is more than 0."""

    name = "seconds"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < 1_000_000:
            raise click.UsageError(f"{_name(param)} takes seconds, more than 0 (example: 2.5), not {value}", ctx)
        return seconds


class OneOf(click.Choice[str]):
    """One of a few words."""

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__(list(words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        words: Sequence[str] = self.choices
        if value not in words:
            raise click.UsageError(f"{_name(param)} is one of {', '.join(words)}, not {value!r}", ctx)
        return str(value)


def _name(param: click.Parameter | None) -> str:
    """The name of an option or argument as a person types it."""
    if param is None or param.name is None:
        return "it"
    return max(param.opts, key=len) if isinstance(param, click.Option) else param.human_readable_name
