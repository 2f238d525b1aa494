"""Options that are common to the subcommands of `pfsb` that speak to a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from twisted.python import usage

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.servers import server_addresses
from pfsb.config.config import Config, ConfigError, load


class ConfigOptions(usage.Options):
    """A command line that has the name of a configuration file before or after its options.

    `config` has what the file says.
    """

    config: Config
    addresses: list[ServerAddress]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Accept the configuration file before the options, where Twisted by itself accepts no arguments."""
        given = list(sys.argv[1:] if options is None else options)
        if given and not given[0].startswith("-"):
            self._read(given.pop(0))
        super().parseOptions(given)

    def parseArgs(self, *arguments: str) -> None:
        rest = list(arguments)
        if not hasattr(self, "config"):
            if not rest:
                raise usage.UsageError("a configuration file is missing, for example etc/four.yaml")
            self._read(rest.pop(0))
        self.take(rest)

    def take(self, rest: list[str]) -> None:
        """Take the arguments that follow the configuration file. This method raises UsageError if there is one, since
        most subcommands of `pfsb` have none; the others override it."""
        if rest:
            raise usage.UsageError(f"{rest[0]} is one argument too many; only a configuration file is taken")

    def _read(self, file: str) -> None:
        try:
            self.config = load(file)
            self.addresses = server_addresses(self.config)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


def number(least: int, most: int) -> Callable[[str], int]:
    """Make a function for `optParameters` that converts a text to a whole number from `least` to `most`.

    The function raises ValueError for any other text.
    """

    def coerce(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}, not {text}")
        return value

    coerce.coerceDoc = f"A whole number from {least} to {most}."  # type: ignore[attr-defined]
    return coerce


def seconds(text: str) -> float:
    """Convert a text to a number of seconds that is more than 0; for `optParameters`."""
    value = float(text)
    if not 0 < value < 1_000_000:
        raise ValueError(f"must be seconds, more than 0, not {text}")
    return value
