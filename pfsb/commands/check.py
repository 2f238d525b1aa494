"""`pfsb check`: validates a configuration, prints a summary of it, and looks up its names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from attrs import define
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.python.failure import Failure

from pfsb.applications.catalogue import catalogue_of_plugins
from pfsb.applications.interfaces import BadRequest
from pfsb.commands.options import ConfigOptions, config_argument
from pfsb.config.addresses import below_tls
from pfsb.config.config import MEMORY, Config, ConfigError, ServerConfig
from pfsb.config.exposure import exposure
from pfsb.service.assembly import INSTALL_TLS
from pfsb.service.nearby import holds_storage, storages_elsewhere
from pfsb.support.command_line import subcommand
from pfsb.support.hosts import (
    LookUp,
    SocketAddress,
    is_far,
    is_near,
    literal,
    look_up_in_threads,
    loopback_warning,
    shown,
)

LOOK_UP_SECONDS: Final = 5.0
"""How long, in seconds, the look-up of a name may take before `pfsb check` says that there was no answer."""

EXPIRY_DAYS: Final = 30
"""Number of days before a certificate expires from which on `pfsb check` warns of it."""

Found = Mapping[int, tuple[SocketAddress, ...] | str]
"""Server -> the addresses of its peer host on this machine, or a text that tells why there are none."""


@define
class Options(ConfigOptions):
    """Command line of `pfsb check`. A mistake in the file is reported like a mistake in the command line."""

    json: bool

    def __attrs_post_init__(self) -> None:
        try:
            self.config.secrets()
            self.config.tokens()
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
        try:
            catalogue_of_plugins(self.config.apps)
        except BadRequest as error:
            raise click.UsageError(f"{self.config.file}: apps: {error}") from None


@subcommand("check")
@config_argument()
@click.option("--json", is_flag=True, help="Show the same as one JSON object.")
def command(**given: Any) -> Options:
    """Read a configuration, and say what it means or what is wrong with it.

    Names of hosts are looked up on this machine; names without an address are said, and are no mistake in the file.
    """
    return Options(**given)


async def run(reactor: Any, options: Options) -> None:
    """Print a summary of the configuration, and the addresses that the names in it have on this machine."""
    config = options.config
    found = await look_up_hosts(reactor, config, look_up_in_threads(reactor))
    certificates = list(certificate_notes(config, datetime.fromtimestamp(reactor.seconds(), UTC)))
    if options.json:
        shown_plainly = plain(config, found)
        shown_plainly["notes"] += certificates
        sys.stdout.write(json.dumps(shown_plainly) + "\n")
    else:
        sys.stdout.write(summary(config) + notes(config, found) + "".join(f"  {line}\n" for line in certificates))


async def look_up_hosts(reactor: Any, config: Config, look_up: LookUp) -> Found:
    """Look up the peer hosts of all servers at once. Never fails, and takes `LOOK_UP_SECONDS` at most."""
    asked = [_look_up(reactor, server, look_up) for server in config.servers.values()]
    return dict(zip(config.ids, await gatherResults(asked), strict=True))


def _look_up(reactor: Any, server: ServerConfig, look_up: LookUp) -> Deferred[tuple[SocketAddress, ...] | str]:
    def none(failure: Failure) -> str:
        return f"no answer for {LOOK_UP_SECONDS:g} s" if failure.check(TimeoutError) else failure.getErrorMessage()

    return look_up(*server.peer).addTimeout(LOOK_UP_SECONDS, reactor).addErrback(none)


def summary(config: Config) -> str:
    """The text of the summary: a line about the cluster, and one for each server."""
    secret = "authenticated" if _is_authenticated(config) else "not authenticated"
    before = "" if config.transport_before is None else f" (before: {config.transport_before})"
    directory = "only in memory" if config.storage == MEMORY else f"in {Path(config.storage).absolute()}/ID"
    lines = [
        f"{config.file}: cluster {config.cluster}: {config.n} servers, {config.quorum} are a majority, "
        f"{config.n - config.quorum} may fail; {config.transport}{before}, {secret}; "
        f"{', '.join(config.apps)}; "
        f"storage {config.storage}",
        f"  started in this directory, each server keeps its data {directory}",
    ]
    if config.archive is not None:
        lines.append(f"  what snapshots make superfluous goes to {Path(config.archive).absolute()}/ID")
    for server in config.servers.values():
        listen = f" (listens at {shown(*server.listen)})" if server.listen else ""
        ports = ", ".join(f"{key} {endpoint}" for key, endpoint in server.endpoints.items())
        lines.append(f"  server {server.id}: peer {shown(*server.peer)}{listen}, {ports}")
    return "".join(f"{line}\n" for line in lines)


def _is_authenticated(config: Config) -> bool:
    """Whether servers prove to each other that they are servers of this cluster."""
    return bool(config.secrets()) or config.transports == ("tls",)


def plain(config: Config, found: Found) -> dict[str, Any]:
    """The summary and the notes as a value for JSON. `found` has the addresses of the peer hosts, as `look_up_hosts`
    returns them."""
    servers = {
        str(server.id): {
            "peer": shown(*server.peer),
            "listen": shown(*server.listen) if server.listen else None,
            "ports": dict(server.endpoints),
        }
        for server in config.servers.values()
    }
    return {
        "file": str(config.file),
        "cluster": config.cluster,
        "majority": config.quorum,
        "may_fail": config.n - config.quorum,
        "transport": config.transport,
        "transport_before": config.transport_before,
        "authenticated": _is_authenticated(config),
        "apps": list(config.apps),
        "storage": config.storage,
        "archive": config.archive,
        "servers": servers,
        "notes": [line.strip() for line in notes(config, found).splitlines()],
    }


def notes(config: Config, found: Found) -> str:
    """A line for each name in the configuration: its addresses on this machine, from `found`. Around them warnings: of
    founders that are not in the file, of each server that other machines could not reach, of each data directory nearby
    that a start in this directory would not use, and of an archive that is not there."""
    lines = (
        *_exposed(config),
        *_founders(config),
        *_names(config, found),
        *_unreachable(config, found),
        *_elsewhere(config),
        *_archive(config),
    )
    return "".join(f"  {line}\n" for line in lines)


def _founders(config: Config) -> Iterator[str]:
    """A warning if no cluster can begin with the servers of the file, since too few of them are founders."""
    ids, founders = config.ids, config.founding_ids
    present = [server_id for server_id in founders if server_id in ids]
    if len(present) > len(founders) // 2:
        return
    if len(present) > 1:
        found = f"only servers {_listed(present)} are there"
    else:
        found = f"only server {present[0]} is there" if present else "none is there"
    yield (
        f"warning: founders: the cluster has begun with {_listed(founders)}, and of the servers of this file "
        f"({_listed(ids)}) {found}; they join a cluster that runs, or go on in it, and begin none"
    )


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))


def _archive(config: Config) -> Iterator[str]:
    if config.archive is not None and not Path(config.archive).is_dir():
        yield (
            f"warning: archive: {Path(config.archive).absolute()} is no directory on this machine; servers do not make "
            "it, and keep their files until it is there"
        )


def certificate_notes(config: Config, now: datetime) -> Iterator[str]:
    """A line for each certificate of a server that is in the directory of this machine, if TLS is used, and a warning
    for each that expires soon or has expired; and one if none is there, or packages are missing."""
    endpoints = (each for server in config.servers.values() for each in server.endpoints.values())
    if "tls" not in config.transports and not any(map(below_tls, endpoints)):
        return
    try:
        from pfsb.service.certificates import CertificateDirectory
    except ImportError as error:
        yield f"warning: TLS needs more packages ({error.name}): {INSTALL_TLS}"
        return
    directory = CertificateDirectory(config.certificate_directory, config.cluster)
    expiries = {server_id: directory.expiry(server_id) for server_id in config.ids}
    if not any(expiries.values()):
        yield f"warning: no certificate of a server is in {directory.path}: pfsb certificates {config.file} makes them"
    for server_id, expiry in expiries.items():
        if expiry is not None:
            has = "has expired on" if expiry <= now else "expires on"
            line = f"the certificate of server {server_id} {has} {expiry:%Y-%m-%d}"
            is_late = expiry - now < timedelta(days=EXPIRY_DAYS)
            yield f"warning: {line}: pfsb certificates {config.file} --renew makes another" if is_late else line


def _exposed(config: Config) -> Iterator[str]:
    found = exposure(config)
    if found is not None:
        yield f"warning: {found}"


def _elsewhere(config: Config) -> Iterator[str]:
    for server_id in config.ids:
        directory = config.storage_directory(server_id)
        if directory is not None:
            for other in storages_elsewhere(config, server_id, directory):
                yield f"warning: {other} holds a storage of server {server_id}, and a start in this directory uses " + (
                    "another one" if holds_storage(directory) else "an empty one"
                )


def _names(config: Config, found: Found) -> Iterator[str]:
    for server in config.servers.values():
        answer = found[server.id]
        if literal(*server.peer) is None:
            if isinstance(answer, str):
                yield f'warning: the name "{server.peer[0]}" has no address: {answer}'
            else:
                yield f'the name "{server.peer[0]}" is: {", ".join(each.host for each in answer)}'


def _unreachable(config: Config, found: Found) -> Iterator[str]:
    """A warning for each server that only its own machine can reach, if other machines can reach at least one server.
    `found` has the addresses of the peer hosts."""
    addresses = {server_id: answer for server_id, answer in found.items() if not isinstance(answer, str)}
    far = next((server_id for server_id, answer in addresses.items() if is_far(answer)), None)
    if far is None:
        return
    far_host = f"{config.servers[far].peer[0]} ({addresses[far][0].host})"
    for server_id, answer in addresses.items():
        server = config.servers[server_id]
        receives_at = literal(*server.receives_at)
        if is_near((receives_at,) if receives_at is not None else answer):
            yield f"warning: {loopback_warning(server_id, server.peer, far_host)}"
