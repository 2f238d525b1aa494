"""Puts a server together: the one place that knows which parts a `Server` needs and how they are connected.

`twistd pfsb` and `pfsb.instances` use `real_server`. Simulations and benchmarks bring a clock, a storage and a
transport of their own, and use `make_server`. Nothing here imports the reactor: the caller passes its clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from pfsb.applications.catalogue import Catalogue
from pfsb.config.client_places import client_place
from pfsb.config.config import Config, ConfigError
from pfsb.past_reads import IPastReader
from pfsb.paxos.interfaces import IStableStorage, ITracer, ITransport
from pfsb.server import Server
from pfsb.sessions.cluster_settings import RULES_KNOWN
from pfsb.storage.counters import StorageCounters
from pfsb.support.hosts import LookUp, look_up_in_threads
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import FrameIdentity
from pfsb.transports.links import TransportCounters

if TYPE_CHECKING:
    from pfsb.storage.log.storage import LogStorage
    from pfsb.storage.memory import MemoryStorage
    from pfsb.transports.peer_transport import PeerTransport
    from pfsb.transports.stream_security import ServerSecurity

INSTALL_TLS: Final = "pip install 'pfsb[tls]'"
"""The command that installs what TLS needs."""

OnFailure = Callable[[Failure], None]
"""A function that is called at most once, with the reason as a Failure, when a server cannot go on."""


class Surroundings(Protocol):
    """Everything that connects one server with the machine: clock, randomness, storage, transport, failures, trace."""

    @property
    def server_id(self) -> int: ...

    @property
    def clock(self) -> IReactorTime: ...

    @property
    def rng(self) -> Random: ...

    @property
    def storage(self) -> IStableStorage: ...

    @property
    def transport(self) -> ITransport: ...

    @property
    def on_failure(self) -> OnFailure: ...

    @property
    def tracer(self) -> ITracer | None: ...


@frozen
class GivenSurroundings:
    """`Surroundings` whose parts are given to the constructor."""

    server_id: int
    clock: IReactorTime
    rng: Random
    storage: IStableStorage
    transport: ITransport
    on_failure: OnFailure
    tracer: ITracer | None = None


def make_server(
    config: Config,
    catalogue: Catalogue,
    given: Surroundings,
    *,
    faults: LinkFaults | None = None,
    counters: TransportCounters | None = None,
    storage_counters: StorageCounters | None = None,
    has_disk: bool = True,
    past_reader: IPastReader | None = None,
    look_up: LookUp | None = None,
    rules_at_birth: int = 1,
    place: str = "",
) -> Server:
    """Make a server, not started yet.

    `faults` are the faults that the transport applies to the server's links, and that an operator changes by the line
    command FAULT. None: the transport applies no faults, and FAULT has no effect on the links. `has_disk` is False for
    a server with `storage: memory`. `past_reader` builds states of the past; None: the server can build none.
    `look_up` looks up the names of hosts in changes of the membership; None: they are taken as they are.
    `rules_at_birth` and `place` are as in `Server`.
    """
    return Server(
        config=config,
        server_id=given.server_id,
        catalogue=catalogue,
        clock=given.clock,
        rng=given.rng,
        storage=given.storage,
        transport=given.transport,
        faults=LinkFaults(given.clock, given.rng) if faults is None else faults,
        on_failure=given.on_failure,
        counters=counters,
        storage_counters=storage_counters,
        has_disk=has_disk,
        tracer=given.tracer,
        past_reader=past_reader,
        look_up=look_up,
        rules_at_birth=rules_at_birth,
        place=place,
    )


def real_server(
    config: Config,
    server_id: int,
    catalogue: Catalogue,
    *,
    directory: Path | None,
    clock: Any,
    on_failure: OnFailure,
    tracer: ITracer | None = None,
) -> Server:
    """Make a server that speaks to its peers over sockets, and stores its data in `directory` (None: in memory).

    The server is not started yet. `clock` is a reactor. Raises `ConfigError` if the configured secret or certificates
    cannot be used.
    """
    rng = Random(os.urandom(16))
    faults = LinkFaults(clock, rng)
    transport = peer_transport(config, server_id, clock, faults)
    storage: LogStorage | MemoryStorage
    past_reader: IPastReader | None = None
    if directory is None:
        storage = memory_storage(clock, on_failure)
    else:
        storage = log_storage(config, server_id, directory, clock, on_failure)
        past_reader = past_process(directory, storage.counters, clock)
    return make_server(
        config,
        catalogue,
        GivenSurroundings(server_id, clock, rng, storage, transport, on_failure, tracer),
        faults=faults,
        counters=transport.counters,
        storage_counters=storage.counters,
        has_disk=directory is not None,
        past_reader=past_reader,
        look_up=look_up_in_threads(clock),
        rules_at_birth=RULES_KNOWN,
        place=client_place(config.server(server_id)) or "",
    )


def past_process(directory: Path, counters: StorageCounters, clock: Any) -> IPastReader:
    """Make the reader that builds states of the past, of the storage in `directory` and in its archive, once it is
    asked to. `clock` is a reactor."""
    from pfsb.service.past_process import PastProcess

    def places() -> list[Path]:
        return [directory] if counters.archive is None else [directory, Path(counters.archive.directory)]

    return PastProcess(clock, places)


def log_storage(config: Config, server_id: int, directory: Path, clock: Any, on_failure: OnFailure) -> LogStorage:
    """Make the storage of a server in `directory`, not opened yet. `clock` is a reactor."""
    from pfsb.storage.log.compaction import Slack
    from pfsb.storage.log.storage import LogStorage

    return LogStorage(
        directory,
        config.membership_digest(),
        config.cluster,
        server_id,
        clock,
        os.urandom,
        on_failure,
        config.founding_ids,
        config.limits.reserve_bytes,
        Slack(config.snapshot_every) if config.snapshot_every else Slack(),
        config.archive_directory(server_id),
    )


def memory_storage(clock: IReactorTime, on_failure: OnFailure) -> MemoryStorage:
    """Make a storage whose content is lost with its process, and which needs no time to write."""
    from pfsb.storage.memory import MemoryDisk, MemoryStorage

    return MemoryStorage(MemoryDisk(), clock, lambda: 0.0, os.urandom, on_failure, lambda: True, is_transient=True)


def peer_transport(config: Config, server_id: int, clock: Any, faults: LinkFaults) -> PeerTransport:
    """Make the transport of a server, not started yet. `clock` is a reactor.

    Raises `ConfigError` if the configured secret or certificates cannot be used; see `Config.secrets`.
    """
    transport = _transport_of(config, server_id, clock, faults)
    if config.secret_file is not None:
        transport.watch_secrets(config.secret_file, lambda: _secrets_or_error(config))
    return transport


def _secrets_or_error(config: Config) -> Sequence[bytes] | str:
    try:
        return config.secrets()
    except ConfigError as error:
        return str(error)


def _transport_of(config: Config, server_id: int, clock: Any, faults: LinkFaults) -> PeerTransport:
    addresses = {i: config.server(i).peer for i in config.ids}
    listen = config.server(server_id).listen
    identity, secrets = frame_identity(config, server_id), config.secrets()
    if config.transports == ("udp",):
        from pfsb.transports.udp import UDPTransport

        return UDPTransport(clock, identity, addresses, faults, tuple(secrets), listen)
    from pfsb.transports.tcp import StreamTransport

    security = mutual_tls(config, server_id, clock.seconds()) if "tls" in config.transports else None
    return StreamTransport(
        clock, identity, addresses, faults, tuple(secrets), listen, kinds=config.transports, security=security
    )


def mutual_tls(config: Config, server_id: int, now: float) -> ServerSecurity:
    """The TLS of a server towards its peers; `now` is the time in seconds since 1970.

    Raises `ConfigError` if its certificates cannot be used, or packages are missing, with the command that installs
    them.
    """
    where = f"{config.file}: transport: tls"
    try:
        from pfsb.transports.tls import CertificatesMissing, Credentials, MutualTLS
    except ImportError as error:
        raise ConfigError(f"{where} needs more packages ({error.name}): {INSTALL_TLS}") from None
    directory = config.certificate_directory
    credentials = Credentials(directory / "authority.pem", directory / f"server-{server_id}.pem")
    security = MutualTLS(config.cluster, credentials)
    try:
        security.check(server_id, now)
    except CertificatesMissing as error:
        raise ConfigError(f"{where}: {error}") from None
    return security


def frame_identity(config: Config, server_id: int) -> FrameIdentity:
    """How a server names itself in the frames that it sends, and from which servers it accepts frames."""
    members = (*config.founding_ids, *config.joining_ids(server_id))
    peers, named = frozenset(members) - {server_id}, frozenset(config.ids) - {server_id}
    return FrameIdentity(server_id, peers, config.membership_digest(), named=named)
