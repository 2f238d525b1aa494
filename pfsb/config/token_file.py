"""The token file: a line for each token of a client, with its name, its role and hashes of its secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.config.yaml_file import ConfigError, read_private
from pfsb.support.tokens import KnownToken, WrongLine, is_token

TOKEN_FILE_BYTES_MAX: Final = 1_048_576
ONE_TOKEN_BYTES_MAX: Final = 4_096
"""Maximum size, in bytes, of a file that holds one token for a client."""


def read_tokens(path: str, named: str) -> Mapping[str, KnownToken]:
    """Read a token file: name -> token, in the order of the file. Blank lines, and those that begin with #, are left
    out.

    `named` is the beginning of an error's text. Raises `ConfigError` if the file is not there, cannot be read, is no
    regular file, may be used by others than its owner, holds no token, or has a wrong line. The text never repeats a
    line.
    """
    found: dict[str, KnownToken] = {}
    data = read_private(path, TOKEN_FILE_BYTES_MAX, named)
    for number, line in enumerate(_lines(data, named), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            token = KnownToken.parse(line)
        except WrongLine as error:
            raise ConfigError(f"{named}: line {number} {error}") from None
        if token.name in found:
            raise ConfigError(f"{named}: line {number} has the name {token.name} again; each token has its own name")
        found[token.name] = token
    if not found:
        raise ConfigError(f"{named}: holds no token; `pfsb token FILE NAME --role admin` makes one")
    return found


def read_token(path: str) -> str:
    """Read the file in which a client keeps its token, alone on a line. Raises `ConfigError` if the file is not there,
    cannot be read, may be used by others than its owner, or holds anything else. The text never repeats the token.

    The file may be a pipe, as `<(...)` of a shell is."""
    data = read_private(path, ONE_TOKEN_BYTES_MAX, path, may_be_pipe=True)
    lines = [line.strip() for line in _lines(data, path) if line.strip()]
    if len(lines) != 1 or not is_token(lines[0]):
        raise ConfigError(f"{path}: is no file with one token, as `pfsb token FILE NAME --out {path}` writes it")
    return lines[0]


def _lines(data: bytes, named: str) -> list[str]:
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{named}: is not UTF-8") from None
