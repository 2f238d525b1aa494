"""`pfsb certificates`: makes and renews the certificates with which servers speak TLS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
from attrs import define

from pfsb.commands.options import ConfigOptions, config_argument, require_server
from pfsb.config.addresses import EVERY_INTERFACE, listens_at
from pfsb.config.config import Config
from pfsb.service.assembly import INSTALL_TLS
from pfsb.support.command_line import Number, subcommand

DAYS = 365
"""Number of days for which the certificate of a server is valid, unless the command line names another."""


@define
class Options(ConfigOptions):
    """Command line of `pfsb certificates`."""

    server_id: int | None
    renew: bool
    new_authority: bool
    days: int


@subcommand("certificates")
@config_argument()
@click.option("--id", "server_id", type=Number(0, 65_535), help="Only for this server.")
@click.option("--renew", is_flag=True, help="Replace certificates that are there, before they expire.")
@click.option("--new-authority", is_flag=True, help="Make another authority; the former one is believed further.")
@click.option("--days", type=Number(1, 3_000), default=DAYS, help="For how many days certificates are valid.")
def command(**given: Any) -> Options:
    """Make an authority for the cluster, and a certificate and a key for each server, as far as they are missing.

    They are written to the directory that the key "certificates" names. Each server needs authority.pem and its own
    server-ID.pem there; authority.key stays where it is, and signs. Running servers take changed files without a
    restart.
    """
    options = Options(**given)
    require_server(options.config, options.server_id)
    return options


async def run(reactor: Any, options: Options) -> None:
    """Make what is missing, and say what is there. Raises `SystemExit` with status 1 if something cannot be made."""
    try:
        from pfsb.service.certificates import CertificateDirectory, CertificatesMissing
    except ImportError as error:
        sys.stderr.write(f"pfsb certificates: more packages are needed ({error.name}): {INSTALL_TLS}\n")
        raise SystemExit(1) from None
    config, now = options.config, datetime.fromtimestamp(reactor.seconds(), UTC)
    directory = CertificateDirectory(config.certificate_directory, config.cluster)
    try:
        if options.new_authority or not directory.authorities():
            directory.make_authority(now)
            sys.stdout.write(f"made an authority: {directory.authority_file}, {directory.authority_key_file}\n")
        for server_id in config.ids if options.server_id is None else (options.server_id,):
            expiry = directory.expiry(server_id)
            if options.renew or expiry is None:
                directory.make_server(server_id, hosts_of(config, server_id), now, options.days)
                expiry = directory.expiry(server_id)
                sys.stdout.write(
                    f"made a certificate: {directory.server_file(server_id)}, valid until {expiry:%Y-%m-%d}\n"
                )
            else:
                state = "has expired" if expiry <= now else f"is valid until {expiry:%Y-%m-%d}"
                sys.stdout.write(f"{directory.server_file(server_id)} {state}\n")
    except (CertificatesMissing, OSError) as error:
        sys.stderr.write(f"pfsb certificates: {error}\n")
        raise SystemExit(1) from None


def hosts_of(config: Config, server_id: int) -> Iterator[str]:
    """The names and addresses at which clients may reach a server."""
    server = config.server(server_id)
    yield server.peer[0]
    for endpoint in server.endpoints.values():
        address = listens_at(endpoint)
        if address is not None and address[0] not in EVERY_INTERFACE:
            yield address[0]
    yield from config.http_names
    yield from ("localhost", "127.0.0.1", "::1")
