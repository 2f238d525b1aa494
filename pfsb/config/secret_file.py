"""The file with the secrets of a cluster: one, or two while the secret is being changed, each on a line of its own."""

from __future__ import annotations

from typing import Final

from pfsb.config.yaml_file import ConfigError, read_private

SECRET_BYTES_MAX: Final = 65_536


def read_secrets(path: str, named: str) -> list[bytes]:
    """Read the secrets of a file: the first is for frames that are sent, and frames with any of them are taken.

    `named` is the beginning of an error's text. Raises `ConfigError` if the file is not there, cannot be read, may be
    read by others than its owner, is empty or larger than 64 KiB, or has more than two lines.
    """
    data = read_private(path, SECRET_BYTES_MAX, named)
    found = [line.strip() for line in data.splitlines() if line.strip()]
    if not found:
        raise ConfigError(f"{named}: is empty; `pfsb secret FILE` makes one, which must be the same at every server")
    if len(found) > 2:
        raise ConfigError(f"{named}: has {len(found)} lines; it holds one secret, or two on two lines")
    return found
