"""What the commands that speak to a cluster have in common on their command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from twisted.python import usage

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.servers import server_addresses
from pfsb.config.config import Config, ConfigError, load


class ConfigOptions(usage.Options):
    """A configuration file comes first, or after the options; `config` is then what it says."""

    config: Config
    addresses: list[ServerAddress]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Twisted takes options before arguments only; here the file may come first."""
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
        """What comes after the file; most commands take nothing."""
        if rest:
            raise usage.UsageError(f"{rest[0]} is one argument too many; only a configuration file is taken")

    def _read(self, file: str) -> None:
        try:
            self.config = load(file)
            self.addresses = server_addresses(self.config)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


def number(least: int, most: int) -> Callable[[str], int]:
    """A coercion for `optParameters`: a whole number between the two."""

    def coerce(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}, not {text}")
        return value

    coerce.coerceDoc = f"A whole number from {least} to {most}."  # type: ignore[attr-defined]
    return coerce


def seconds(text: str) -> float:
    """A coercion for `optParameters`: more than nothing."""
    value = float(text)
    if not 0 < value < 1_000_000:
        raise ValueError(f"must be seconds, more than 0, not {text}")
    return value
