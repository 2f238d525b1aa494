"""`pfsb secret`: makes the secret that authenticates the servers of a cluster to each other, and changes it."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any, Final

import click
from attrs import define

from pfsb.config.config import ConfigError
from pfsb.config.secret_file import read_secrets
from pfsb.support.command_line import subcommand
from pfsb.support.private_files import write_private

SECRET_BYTES: Final = 32
"""Number of random bytes of a secret, which is written in hexadecimal digits."""


@define
class Options:
    """Command line of `pfsb secret`."""

    file: Path
    step: str | None


@subcommand("secret")
@click.argument("file", type=click.Path(dir_okay=False), metavar="FILE")
@click.option("--add", "step", flag_value="add", help="Put a second, new secret behind the one that is there.")
@click.option("--swap", "step", flag_value="swap", help="Let the two secrets change places: servers send by the first.")
@click.option("--drop", "step", flag_value="drop", help="Delete the second secret.")
def command(file: str, step: str | None) -> Options:
    """Write a new secret to FILE, for the key "secret_file" of a configuration; only its owner may read the file.

    Every server needs the same secrets. A secret is changed while the cluster runs by --add, --swap and --drop, in this
    order: after each of them the file is copied to all servers, which take it within seconds.
    """
    return Options(Path(file), step)


async def run(_reactor: Any, options: Options) -> None:
    """Write the file, and say what it holds. Raises `SystemExit` with status 1 if it cannot be written."""
    try:
        said = change(options.file, options.step)
    except ConfigError as error:
        sys.stderr.write(f"pfsb secret: {error}\n")
    except OSError as error:
        sys.stderr.write(f"pfsb secret: {options.file}: {error.strerror}\n")
    else:
        sys.stdout.write(f"{options.file}: {said}\n")
        return
    raise SystemExit(1)


def change(file: Path, step: str | None) -> str:
    """Make a file of secrets (None), or take one step of a change; returns what the file holds now, for a person.

    Raises `ConfigError` if the step does not fit the file, and OSError if it cannot be written.
    """
    if step is None:
        if file.exists():
            raise ConfigError(f"{file} is there already; --add puts another secret into it")
        _write(file, [_new()])
        return "holds a new secret"
    found = read_secrets(str(file), str(file))
    if step == "add":
        if len(found) == 2:
            raise ConfigError(f"{file} holds two secrets already; --swap or --drop comes next")
        _write(file, [*found, _new()])
        return "holds two secrets; servers send by the first, and take both"
    if len(found) == 1:
        raise ConfigError(f"{file} holds one secret; --add puts another one behind it")
    if step == "swap":
        _write(file, found[::-1])
        return "the two secrets have changed places; servers send by the first, and take both"
    _write(file, found[:1])
    return "holds one secret"


def _new() -> bytes:
    return secrets.token_hex(SECRET_BYTES).encode()


def _write(file: Path, found: list[bytes]) -> None:
    write_private(file, b"".join(secret + b"\n" for secret in found))
