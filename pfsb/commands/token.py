"""`pfsb token`: makes tokens for clients, lists those of a token file, and removes them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from attrs import define

from pfsb.config.token_file import read_tokens
from pfsb.config.yaml_file import ConfigError
from pfsb.support.command_line import subcommand
from pfsb.support.private_files import write_private
from pfsb.support.rights import ROLES
from pfsb.support.tokens import KnownToken, is_token_name, make_token

READ_AGAIN: Final = "servers read the file again when they get SIGHUP"


@define
class Options:
    """Command line of `pfsb token`."""

    file: Path
    name: str | None
    role: str | None
    out: Path | None
    remove: bool

    def __attrs_post_init__(self) -> None:
        if self.name is None and (self.role or self.out or self.remove):
            raise click.UsageError("a name is missing: pfsb token FILE NAME --role write")
        if self.name is not None and not is_token_name(self.name):
            raise click.UsageError("a name has 1 to 32 letters, digits, hyphens and underscores")
        if self.remove and (self.role or self.out):
            raise click.UsageError("--remove goes without --role and --out")
        if self.name is not None and not self.remove and self.role is None:
            raise click.UsageError(f"--role is missing: {', '.join(ROLES)}")


@subcommand("token")
@click.argument("file", type=click.Path(dir_okay=False), metavar="FILE")
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--role", type=click.Choice([*ROLES]), help="What the owner of the token may do.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="TOKEN_FILE",
    help="Write the token to this file, which only its owner may read, instead of the terminal.",
)
@click.option("--remove", is_flag=True, help="Take the token of this name out of the file.")
def command(file: str, name: str | None, role: str | None, out: str | None, remove: bool) -> Options:
    """Make a token named NAME, and add it to FILE, for the key "token_file" of a configuration.

    The token is shown once; FILE holds only a salted hash of it, and only its owner may read FILE. Without NAME, the
    tokens of FILE are listed. Servers read their file again when they get SIGHUP.
    """
    return Options(Path(file), name, role, None if out is None else Path(out), remove)


async def run(_reactor: Any, options: Options) -> None:
    """Make, list or remove. Raises `SystemExit` with status 1 if that cannot be done."""
    try:
        _run(options)
    except ConfigError as error:
        sys.stderr.write(f"pfsb token: {error}\n")
    except OSError as error:
        sys.stderr.write(f"pfsb token: {error.filename or options.file}: {error.strerror}\n")
    else:
        return
    raise SystemExit(1)


def _run(options: Options) -> None:
    if options.name is None:
        for known in read_tokens(str(options.file), str(options.file)).values():
            sys.stdout.write(f"{known.name} {known.right.word}\n")
    elif options.remove:
        remove(options.file, options.name)
        sys.stderr.write(f"{options.file}: the token {options.name} is gone; {READ_AGAIN}\n")
    else:
        assert options.role is not None
        if options.out is not None and options.out.exists():
            raise ConfigError(f"{options.out} is there already, and is not written over")
        token = add(options.file, options.name, options.role)
        said = f"{options.file}: has the token {options.name} with the role {options.role}; {READ_AGAIN}"
        if options.out is None:
            sys.stderr.write(f"{said}. The token, which is shown this once:\n")
            sys.stdout.write(f"{token}\n")
        else:
            write_private(options.out, f"{token}\n".encode())
            sys.stderr.write(f"{said}. The token is in {options.out}\n")


def add(file: Path, name: str, role: str) -> str:
    """Make a token, add it to a token file, which is made if there is none, and return it.

    Raises `ConfigError` if the file cannot be used, or has the name already, and OSError if it cannot be written.
    """
    lines, known = _read(file)
    if name in known:
        raise ConfigError(f"{file} has a token {name} already; take another name, or --remove it first")
    token, made = make_token(name, ROLES[role])
    _write(file, [*lines, made.line])
    return token


def remove(file: Path, name: str) -> None:
    """Take a token out of a token file. Raises `ConfigError` if it is not there, or is the last one, and OSError if the
    file cannot be written."""
    lines, known = _read(file)
    if name not in known:
        raise ConfigError(f"{file} has no token {name}; there are {', '.join(known) or 'none'}")
    if len(known) == 1:
        raise ConfigError(f"{name} is the only token of {file}, and servers take no file without tokens: add another")
    _write(file, [line for line in lines if line.split(None, 1)[:1] != [name]])


def _read(file: Path) -> tuple[list[str], Mapping[str, KnownToken]]:
    """The lines of a token file, with comments, and its tokens by name; nothing of a file that is not there."""
    if not file.exists():
        return [], {}
    known = read_tokens(str(file), str(file))
    return file.read_text(encoding="utf-8").splitlines(), known


def _write(file: Path, lines: list[str]) -> None:
    write_private(file, "".join(f"{line}\n" for line in lines).encode())
