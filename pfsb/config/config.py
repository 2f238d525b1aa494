"""The configuration of a cluster (docs/operating.rst): one YAML file for all of its servers.

A person writes the file. Any mistake in it raises one `ConfigError`, which names the file, the key's path and a
correct value.

The docstrings of the fields that are keys of the file, and the values that their readers take, are the reference that
people read: `docs/make_configuration.py` makes docs/configuration.rst of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import field, fields_dict, frozen

from pfsb.config.addresses import (
    Address,
    endpoint_string,
    host_name,
    listening_address,
    listening_place,
    peer_address,
    place_on,
    refuse_shared,
)
from pfsb.config.secret_file import read_secrets
from pfsb.config.token_file import read_tokens
from pfsb.config.yaml_file import ConfigError, Place, open_file, quoted
from pfsb.paxos.settings import Settings
from pfsb.support.limits import SERVER_ID_MAX, WINDOW_MAX
from pfsb.support.tokens import KnownToken
from pfsb.transports.frames import cluster_digest

__all__ = ["Config", "ServerConfig", "Timers", "Limits", "ConfigError", "load"]

_Item = TypeVar("_Item")

TRANSPORTS: Final = ("udp", "tcp", "tls")
MEMORY: Final = "memory"
"""The value of the key `storage` for servers that keep nothing on disk."""

DISK_SECONDS: Final = 8.0
"""How long, in seconds, a write may be under way before the disk counts as one that hangs, unless the configuration
file sets another time."""
COUNT_MAX: Final = 1_000_000_000


@frozen
class Timers:
    """Timeouts in seconds; see docs/operating.rst."""

    progress: float = 1.0
    """How long, in seconds, a server waits for progress before it suspects the leader. The time is doubled in each view
    that makes none, up to 8 times the value. Where disks are slow a server waits longer by itself."""
    update: float = 0.5
    """Time, in seconds, after which an update that has not been executed is sent again, until times are measured. From
    then on it is sent again as soon as it should have been proposed."""
    alive: float = 0.2
    """Time, in seconds, between two messages by which a server tells the others that it is alive; must be less than
    half of `progress`."""
    disk: float | None = None
    """How long, in seconds, a write may be under way before the disk counts as one that hangs. None: 8 seconds, or
    twice `progress` if that is more."""


@frozen
class Limits:
    """Limits on the use that clients make of a server, and on the size of batches; see docs/operating.rst."""

    command_bytes: int = 32_768
    """Maximum bytes of a line, of a Redis command and of a body in HTTP."""
    connections: int = 10_000
    """Maximum number of connections at the client port and that for Redis together, and again at the HTTP port."""
    session_window: int = 128
    """Maximum number of unanswered commands of one session, and of replies that the servers keep for each session.
    Counts at the birth of the cluster only."""
    request_seconds: float = 10.0
    """How long, in seconds, a command may take before it is refused with UNAVAILABLE."""
    reserve_bytes: int = 67_108_864
    """Free space, in bytes, of the file system of a data directory, below which its server refuses changes; at most a
    tenth of the file system counts."""
    opened_sessions: int = 100
    """Maximum number of sessions that one connection to the client port may open with HELLO, one after the other, and
    one connection to the HTTP port with requests of so many clients."""
    address_connections: int | None = None
    """Maximum number of connections of one address, at all doors together. None: nine tenths of `connections`."""
    address_sessions: int = 10_000
    """Maximum number of open sessions with names that the clients of one address have opened at a server."""
    unread_bytes: int = 67_108_864
    """Maximum size, in bytes, of what all clients of a server together leave unread; more drops clients."""
    unread_seconds: float = 20.0
    """How long, in seconds, a client may read nothing of what was written to it before it is dropped."""
    memory_bytes: int | None = None
    """Maximum memory of a server's process, in bytes, near which the server refuses changes. None: the limit of its
    control group, if that has one."""
    batch_bytes: int = 48_000
    """Maximum size, in bytes, of a batch of several updates; a proposal always takes at least one update. With 1, each
    update has a proposal of its own (section 7.3), which is only good for measuring what batches gain."""

    @property
    def connections_of_one_address(self) -> int:
        """The maximum number of connections of one address."""
        if self.address_connections is not None:
            return self.address_connections
        return self.connections - self.connections // 10


@frozen
class ServerConfig:
    """The addresses of one server."""

    id: int
    peer: Address
    """Host and port where the other servers reach this server. The host may be a name, but not `0.0.0.0` or `::`."""
    client: str
    """Where clients connect: the port speaks the line protocol and the Redis protocol."""
    http: str | None = None
    """Where HTTP is answered. None: the server has no HTTP port."""
    listen: Address | None = None
    """IP address and port where this server receives from the others, if that is another place than the one where they
    reach it; `0.0.0.0` and `[::]` stand for all addresses of the machine. None: at `peer`."""
    redis: str | None = None
    """Where the Redis protocol alone is spoken, for clients that connect before they have a command. None: the server
    has no such port."""

    @property
    def receives_at(self) -> Address:
        """(host, port) where this server receives from the other servers; the host may be a wildcard."""
        return self.peer if self.listen is None else self.listen

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Key of the configuration -> endpoint string, for each port of this server to which clients connect."""
        found = {"client": self.client, "http": self.http, "redis": self.redis}
        return {key: endpoint for key, endpoint in found.items() if endpoint is not None}


@frozen
class Config:
    """Everything that a configuration file says."""

    file: str
    """The path as it was given to `load`; error messages begin with it."""
    cluster: str
    """The cluster's name. Servers refuse frames and storages of a cluster with another name, or with other ids."""
    servers: Mapping[int, ServerConfig]
    """The servers by id, ascending."""
    f: int
    """How many failures the cluster should tolerate. The value is only checked: the file is refused unless it has at
    least 2f + 1 servers. A quorum is always a majority of the servers."""
    transport: str = "udp"
    """How frames travel between servers. `tls` needs certificates and the extra `pfsb[tls]`."""
    transport_before: str | None = None
    """Another transport, at which servers listen as well, and by which they send to servers that are not reached over a
    connection of `transport`: for a cluster that changes its transport by restarting one server after the other.
    None: there is only one transport."""
    certificates: str | None = None
    """The directory with the certificates that `pfsb certificates` makes: `authority.pem`, and for each server
    `server-ID.pem` with its certificate and its key."""
    apps: tuple[str, ...] = ("chat", "lock", "kv")
    """The applications to run, each once; there is also `instances`. Counts at the birth of the cluster only."""
    storage: str = MEMORY
    """The directory in which each server has its data directory, named by its id. With `memory` nothing is kept."""
    archive: str | None = None
    """The directory to which each server moves the parts of its log, and the older snapshots, that a snapshot has made
    superfluous, into a directory named by its id. It must be there. None: they are deleted."""
    secret_file: str | None = None
    """A file with a secret, the same at every server, which authenticates the frames between servers; `pfsb secret`
    makes one. A second line may hold another secret: frames with either are taken. Only the owner may have rights to
    the file. Servers with and without a secret refuse each other's frames. None: there is no secret."""
    token_file: str | None = None
    """A file with the tokens of clients and their roles, which `pfsb token` makes: clients show a token, and have the
    rights of its role. Only the owner may have rights to the file. A server reads it again when it gets SIGHUP. None:
    all clients may read and write, and those on the server's machine may administer."""
    timers: Timers = field(factory=Timers)
    limits: Limits = field(factory=Limits)
    priority: tuple[int, ...] = ()
    """Ids of servers that shall lead, the most preferred one first. A leader hands over to a server that stands before
    it here when that has been well for twice `timers.progress`, or for longer if it has failed. Empty: it makes no
    difference which server leads."""
    window: int = 16
    """How many slots above its Local_Aru a leader may propose (the fixed window). Counts at the birth of the cluster
    only."""
    snapshot_every: int = 10_000
    """Maximum number of slots from one snapshot of the state to the next, which comes earlier after 64 MiB of updates
    (Departure 56); 0: snapshots are only taken when an operator asks for one, and the log is kept until then."""
    faults: bool = False
    """Whether the FAULT commands are allowed."""
    insecure: bool = False
    """Whether peer ports that other machines can reach may go without `secret_file` and `tls`. Otherwise the log,
    STATUS and `pfsb check` warn: any machine that can reach them may speak for a server."""
    http_names: tuple[str, ...] = ()
    """Names under which clients reach the HTTP ports, beside those of the servers and their machines."""
    founders: tuple[int, ...] | None = None
    """Ids of the servers with which the cluster has begun, whether they are still there or not. A server of the file
    that is none of them waits until `SERVERS ADD` brings it in, and never begins a cluster by itself. None: all servers
    of the file."""

    @property
    def transports(self) -> tuple[str, ...]:
        """The transports in use, the preferred one first."""
        return (self.transport,) if self.transport_before is None else (self.transport, self.transport_before)

    @property
    def certificate_directory(self) -> Path:
        """The directory with the certificates of the cluster."""
        return Path(f"certificates/{self.cluster}" if self.certificates is None else self.certificates)

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the servers, ascending."""
        return tuple(self.servers)

    @property
    def founding_ids(self) -> tuple[int, ...]:
        """Ids of the servers with which the cluster has begun, ascending."""
        return self.ids if self.founders is None else self.founders

    def joining_ids(self, server_id: int) -> tuple[int, ...]:
        """Ids of the servers of the file that server `server_id` takes for members, beside the founding ones, until it
        has executed a change of the membership: none for a founding server; itself and all others for another one."""
        if server_id in self.founding_ids:
            return ()
        return tuple(i for i in self.ids if i not in self.founding_ids)

    @property
    def n(self) -> int:
        return len(self.servers)

    @property
    def quorum(self) -> int:
        """Minimum number of servers that are a majority."""
        return self.n // 2 + 1

    def server(self, server_id: int) -> ServerConfig:
        """The addresses of one server. Raises `ConfigError` if the file has no server with this id."""
        try:
            return self.servers[server_id]
        except KeyError:
            known = ", ".join(map(str, self.ids))
            raise ConfigError(f"{self.file}: servers: there is no server {server_id}; known are {known}") from None

    def quotas(self) -> Mapping[str, int]:
        """The quotas that this file sets at the birth of the cluster, by name: always empty.

        The cluster is born with the defaults of all quotas. Users change quotas by the line command SETTINGS SET.
        """
        return {}

    def settings(self) -> Settings:
        """The settings of the protocol.

        Times for which the file has no key are fixed fractions of times for which it has one.
        """
        return Settings(
            progress_seconds=self.timers.progress,
            update_seconds=self.timers.update,
            alive_seconds=self.timers.alive,
            resend_seconds=self.timers.alive / 2,
            disk_seconds=self.timers.disk or max(DISK_SECONDS, 2 * self.timers.progress),
            reconciliation_seconds=self.timers.progress / 4,
            window_slots=self.window,
            batch_bytes_max=self.limits.batch_bytes,
            snapshot_slots=self.snapshot_every,
            priority=self.priority,
        )

    def membership_digest(self) -> bytes:
        """Eight bytes that tell this cluster from others: a hash of its name and the ids of its founding servers.

        See docs/internals/frames.rst.
        """
        return cluster_digest(self.cluster, self.founding_ids)

    def storage_directory(self, server_id: int) -> Path | None:
        """The data directory of a server; None: the server keeps its data in memory."""
        return None if self.storage == MEMORY else Path(self.storage) / str(server_id)

    def archive_directory(self, server_id: int) -> Path | None:
        """The directory of a server in the archive; None: there is no archive."""
        return None if self.archive is None else Path(self.archive) / str(server_id)

    def secrets(self) -> list[bytes]:
        """The secrets that authenticate frames between servers: by the first frames are sent, and frames with any of
        them are taken. An empty list: there is no secret.

        Raises `ConfigError` if `secret_file` cannot be used; see `read_secrets`.
        """
        if self.secret_file is None:
            return []
        return read_secrets(self.secret_file, f"{self.file}: secret_file: {quoted(self.secret_file)}")

    def tokens(self) -> Mapping[str, KnownToken] | None:
        """Name -> token, for the tokens of clients; None: there is no token file.

        Raises `ConfigError` if `token_file` cannot be used; see `read_tokens`.
        """
        if self.token_file is None:
            return None
        return read_tokens(self.token_file, f"{self.file}: token_file: {quoted(self.token_file)}")


def load(path: str | PathLike[str]) -> Config:
    """Read and check a configuration. Raises `ConfigError`, and nothing else, whatever is in the file."""
    top = open_file(fspath(path))
    keys = top.keys(("cluster", "servers", *_READERS), required=("cluster", "servers"))
    cluster = keys["cluster"].word()
    servers = _servers(keys["servers"])
    given: dict[str, Any] = {key: reader(keys[key]) for key, reader in _READERS.items() if key in keys}
    defaults: dict[str, Any] = {"f": (len(servers) - 1) // 2, "storage": f"var/{cluster}"}
    config = Config(file=top.file, cluster=cluster, servers=servers, **(defaults | given))
    if config.transport_before == config.transport:
        raise keys["transport_before"].wrong(f"{config.transport} is the transport already; another one is meant")
    if config.transports != ("udp",):
        _refuse_shared_with_clients(config, keys["servers"])
    if config.n < 2 * config.f + 1:
        raise keys["f"].wrong(f"{config.f} needs at least {2 * config.f + 1} servers, {config.n} are given")
    for server_id in config.priority:
        if server_id not in servers:
            known = ", ".join(map(str, servers))
            raise keys["priority"].wrong(f"there is no server {server_id}; known are {known}")
    if config.archive is not None and config.storage == MEMORY:
        raise keys["archive"].wrong("storage: memory writes nothing that could be kept there")
    if config.archive is not None and Path(config.archive).absolute() == Path(config.storage).absolute():
        raise keys["archive"].wrong("is the directory of storage, and must be another one")
    return config


def keys_of_file() -> Mapping[str, Callable[[Place], Any]]:
    """Path of each key of the file, such as `limits.connections`, except the name of the cluster -> the reader of its
    value.

    A reader takes the place of a value in the file and returns the value. It raises `ConfigError` if the value is
    wrong.
    """
    keys: dict[str, Callable[[Place], Any]] = {f"servers.ID.{key}": reader for key, reader in _SERVER_KEYS.items()}
    keys |= {key: reader for key, reader in _READERS.items() if key not in ("timers", "limits")}
    keys |= {f"timers.{key}": Place.seconds for key in fields_dict(Timers)}
    keys |= {f"limits.{key}": _LIMITS[key] for key in fields_dict(Limits)}
    return keys


def _servers(place: Place) -> dict[int, ServerConfig]:
    keys = {
        _server_id(key): value.keys(tuple(_SERVER_KEYS), required=("peer", "client")) for key, value in place.entries()
    }
    if not keys:
        raise place.wrong('is empty (example: 0: {peer: "127.0.0.1:7400", client: "tcp:9400"})')
    servers = {server_id: _server(server_id, keys[server_id]) for server_id in sorted(keys)}
    refuse_shared((keys[server.id]["peer"], server.peer) for server in servers.values())
    refuse_shared(
        (keys[server.id]["peer" if server.listen is None else "listen"], _receiving_place(server))
        for server in servers.values()
    )
    refuse_shared(
        (keys[server.id][key], listening_place(endpoint, server.peer[0]))
        for server in servers.values()
        for key, endpoint in server.endpoints.items()
    )
    return servers


def _receiving_place(server: ServerConfig) -> Address | str:
    """The place where a server receives from its peers, for `refuse_shared`: two servers with one place would collide.

    The place contains the host under which the server is known, since machines in different private networks may have
    equal addresses of their own.
    """
    host = server.peer[0]
    interface, port = place_on(*server.receives_at, host)
    return (host, port) if interface == host else f"{interface}, port {port}, of {host}"


_SERVER_KEYS: Final[dict[str, Callable[[Place], Any]]] = {
    "peer": peer_address,
    "client": endpoint_string,
    "http": endpoint_string,
    "redis": endpoint_string,
    "listen": listening_address,
}


def _server_id(key: Place) -> int:
    return key.integer(0, SERVER_ID_MAX)


def _server(server_id: int, keys: Mapping[str, Place]) -> ServerConfig:
    return ServerConfig(server_id, **{key: _SERVER_KEYS[key](place) for key, place in keys.items()})


def _refuse_shared_with_clients(config: Config, place: Place) -> None:
    """Refuse a server that would take connections of its peers at a port of its clients: TCP has one such port."""
    servers = {_server_id(key): value for key, value in place.entries()}
    for server in config.servers.values():
        keys = servers[server.id].keys(tuple(_SERVER_KEYS))
        refuse_shared(
            [(keys["peer" if server.listen is None else "listen"], _receiving_place(server))]
            + [(keys[key], listening_place(each, server.peer[0])) for key, each in server.endpoints.items()]
        )


def _transport(place: Place) -> str:
    """`udp`, `tcp` or `tls`."""
    found = place.text()
    if found not in TRANSPORTS:
        raise place.wrong(f"must be {' or '.join(TRANSPORTS)}, not {place.shown()}")
    return found


def _apps(place: Place) -> tuple[str, ...]:
    """A list of names of applications."""
    found = tuple(item.word() for item in place.items())
    if not found:
        raise place.wrong("is empty (example: [chat, lock, kv])")
    return _each_once(place, found)


def _founders(place: Place) -> tuple[int, ...]:
    """A list of ids of servers."""
    found = tuple(map(_server_id, place.items()))
    if not found:
        raise place.wrong("is empty (example: [0, 1, 2])")
    return tuple(sorted(_each_once(place, found)))


def _priority(place: Place) -> tuple[int, ...]:
    """A list of ids of servers, each of them once."""
    return _each_once(place, tuple(map(_server_id, place.items())), "server ")


def _each_once(place: Place, found: tuple[_Item, ...], kind: str = "") -> tuple[_Item, ...]:
    """The items of a list; `kind` stands before an item in the text of an error. Raises `ConfigError` if one of them is
    there twice."""
    for item in found:
        if found.count(item) > 1:
            raise place.wrong(f"{kind}{item} is there twice")
    return found


def _http_names(place: Place) -> tuple[str, ...]:
    """A list of names of hosts."""
    return tuple(host_name(item) for item in place.items())


def _timers(place: Place) -> Timers:
    keys = place.keys(tuple(fields_dict(Timers)))
    timers = Timers(**{key: value.seconds() for key, value in keys.items()})
    half = timers.progress / 2
    if timers.alive >= half:
        raise keys.get("alive", place).wrong(
            f"alive must be less than half of progress, so less than {half:g} seconds, not {timers.alive:g}"
        )
    return timers


def _limits(place: Place) -> Limits:
    keys = place.keys(tuple(_LIMITS))
    return Limits(**{key: _LIMITS[key](value) for key, value in keys.items()})


@frozen
class Integers:
    """A reader of whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    def __call__(self, place: Place) -> int:
        return place.integer(self.low, self.high)


_LIMITS: Final[dict[str, Callable[[Place], Any]]] = {
    "command_bytes": Integers(256, 49_152),
    "connections": Integers(1, 1_000_000),
    "session_window": Integers(1, 10_000),
    "request_seconds": Place.seconds,
    "batch_bytes": Integers(1, 48_000),
    "opened_sessions": Integers(1, 10_000),
    "reserve_bytes": Integers(0, 1_000_000_000_000),
    "address_connections": Integers(1, 1_000_000),
    "address_sessions": Integers(1, 100_000_000),
    "memory_bytes": Integers(67_108_864, 2**50),
    "unread_bytes": Integers(1_048_576, 1_000_000_000_000),
    "unread_seconds": Place.seconds,
}

_READERS: Final[dict[str, Callable[[Place], Any]]] = {
    "f": Integers(0, COUNT_MAX),
    "transport": _transport,
    "transport_before": _transport,
    "certificates": Place.text,
    "apps": _apps,
    "storage": Place.text,
    "archive": Place.text,
    "secret_file": Place.text,
    "token_file": Place.text,
    "timers": _timers,
    "limits": _limits,
    "priority": _priority,
    "window": Integers(1, WINDOW_MAX),
    "snapshot_every": Integers(0, COUNT_MAX),
    "faults": Place.boolean,
    "insecure": Place.boolean,
    "http_names": _http_names,
    "founders": _founders,
}
