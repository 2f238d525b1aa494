"""The token that a subcommand of `pfsb` shows to servers: of a file, or of the environment.

No option takes the token itself, since every user of a machine can see the command lines of its processes. The
environment of a process can be read by its own user only.
"""

from __future__ import annotations

import os
from typing import Final

import click

from pfsb.config.token_file import read_token
from pfsb.config.yaml_file import ConfigError
from pfsb.support.tokens import is_token

TOKEN: Final = "PFSB_TOKEN"
"""Name of the environment variable with a token."""
TOKEN_FILE: Final = "PFSB_TOKEN_FILE"
"""Name of the environment variable with the path of a file that holds a token; it counts before `TOKEN`."""


def own_token(file: str | None = None) -> str | None:
    """The token to show: that in `file`, or in the file that `TOKEN_FILE` names, or `TOKEN`; None: there is none.

    Raises `click.UsageError`, whose text repeats no part of a token, if what is named cannot be used.
    """
    path = file or os.environ.get(TOKEN_FILE)
    if path:
        try:
            return read_token(path)
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
    token = os.environ.get(TOKEN)
    if not token:
        return None
    if not is_token(token):
        raise click.UsageError(f"the environment variable {TOKEN} holds no token, such as pfsb token has written")
    return token
