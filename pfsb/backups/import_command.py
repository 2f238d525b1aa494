"""`pfsb import`: puts keys and lines of the chat, as `pfsb export` has written them, into a running cluster."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import click
from attrs import define, field

from pfsb.backups.json_lines import ChatLine, KeyLine, WrongLine, is_reserved, read_line
from pfsb.client.clerks import calls
from pfsb.client.clerks.errors import ClerkError
from pfsb.client.clerks.twisted import TwistedClerk
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.options import ConfigOptions, config_argument
from pfsb.support.command_line import Seconds, subcommand

TOGETHER: Final = 64
"""Maximum number of keys or lines that are under way at once."""
TOGETHER_BYTES: Final = 200_000
"""Number of bytes of keys and values above which no more are added to those under way."""
_SHOWN_EVERY: Final = 10_000


@define
class Options(ConfigOptions):
    """Command line of `pfsb import`."""

    file: str | None
    timeout: float


@subcommand("import")
@config_argument()
@click.option("--file", type=click.Path(dir_okay=False), help="Read this file; otherwise standard input.")
@click.option("--timeout", type=Seconds(), default=60.0, help="Give up after so many seconds without an answer.")
def command(**given: Any) -> Options:
    """Put keys and lines of the chat into a running cluster, from the JSON lines that "pfsb export" has written.

    Keys that are there get the new value. Lines of the chat are said anew, by clients of the same names, in their
    order. Locks are not made, since they belong to sessions. A second import of the same lines says the chat twice.
    """
    return Options(**given)


async def run(reactor: Any, options: Options) -> None:
    """Import the lines. Raises `SystemExit` with an `ExitStatus` if that fails."""
    try:
        with sys.stdin.buffer if options.file is None else Path(options.file).open("rb") as data:
            status = await import_lines(reactor, options, data, sys.stderr)
    except OSError as error:
        sys.stderr.write(f"pfsb import: {options.file or 'standard input'}: {error.strerror}\n")
        status = ExitStatus.USAGE
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


async def import_lines(reactor: Any, options: Options, lines: Iterable[bytes], err: TextIO) -> ExitStatus:
    """Put the lines into the cluster, and say at the end, or at a line that is wrong or refused, how far that has
    come."""
    clerks = _Clerks(reactor, options)
    counts = {KeyLine: 0, ChatLine: 0}
    status, last = ExitStatus.OK, 0
    try:
        async for number, done in _imported(clerks, lines):
            counts[KeyLine] += sum(isinstance(each, KeyLine) for each in done)
            counts[ChatLine] += sum(isinstance(each, ChatLine) for each in done)
            if number // _SHOWN_EVERY > last // _SHOWN_EVERY:
                err.write(f"{number} lines\n")
                err.flush()
            last = number
    except WrongLine as error:
        err.write(f"pfsb import: {error}\n")
        status = ExitStatus.USAGE
    except ClerkError as error:
        err.write(f"pfsb import: behind line {last}: {error}\n")
        status = ExitStatus.REFUSED
    finally:
        await clerks.close()
    err.write(f"{counts[KeyLine]} keys and {counts[ChatLine]} lines of the chat are in the cluster\n")
    return status


@define
class _Clerks:
    """A clerk for the keys, and one for each client that has said something."""

    _reactor: Any
    _options: Options
    _by_client: dict[str, TwistedClerk] = field(factory=dict, init=False)

    def of(self, client_id: str) -> TwistedClerk:
        """The clerk of a client; an anonymous or a server's own name, which no client can have, stands for no name."""
        named = "" if is_reserved(client_id) else client_id
        if named not in self._by_client:
            options: dict[str, Any] = {"client_id": named} if named else {}
            timeout = self._options.timeout
            self._by_client[named] = TwistedClerk(
                self._reactor, self._options.addresses, timeout_seconds=timeout, **options
            )
        return self._by_client[named]

    async def close(self) -> None:
        for clerk in self._by_client.values():
            await clerk.close()


Batch = list[KeyLine | ChatLine]


async def _imported(clerks: _Clerks, lines: Iterable[bytes]) -> AsyncIterator[tuple[int, Batch]]:
    """Import the lines, several keys together; yield the number of the last line, and what was imported since."""
    for number, batch in batches_of(lines):
        if isinstance(batch[0], ChatLine):
            clerk = clerks.of(batch[0].client)
            await clerk.run_all([calls.say(each.text) for each in batch if isinstance(each, ChatLine)])
        else:
            keys = [calls.put(each.key, each.value) for each in batch if isinstance(each, KeyLine)]
            await clerks.of("").run_all(keys)
        yield number, batch


def batches_of(lines: Iterable[bytes]) -> Iterator[tuple[int, Batch]]:
    """The lines in batches of one kind, and for the chat of one client, so that its order stays: (number of the last
    line, batch). Raises `WrongLine`, when all before is yielded, with the number of the line."""
    batch: Batch = []
    size = number = 0
    for number, data in enumerate(lines, start=1):
        try:
            found = read_line(data) if data.strip() else None
        except WrongLine as error:
            if batch:
                yield number - 1, batch
            raise WrongLine(f"line {number}: {error}") from None
        if found is None:
            continue
        if batch and (len(batch) >= TOGETHER or size > TOGETHER_BYTES or not _go_together(batch[0], found)):
            yield number - 1, batch
            batch, size = [], 0
        batch.append(found)
        size += len(found.value) if isinstance(found, KeyLine) else len(found.text)
    if batch:
        yield number, batch


def _go_together(one: KeyLine | ChatLine, other: KeyLine | ChatLine) -> bool:
    if isinstance(one, ChatLine) and isinstance(other, ChatLine):
        return one.client == other.client
    return isinstance(one, KeyLine) and isinstance(other, KeyLine)
