"""ConnectionCommands: the commands of Redis about the connection and the server, which the front end answers itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pfsb import __version__
from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.resp import replies
from pfsb.frontends.resp.commands import TRANSLATED, RedisCommand, wrong_number_of_arguments
from pfsb.frontends.resp.replies import Dialect

if TYPE_CHECKING:
    from pfsb.server import Server

REDIS_VERSION: Final = "7.0.0"
"""The version of Redis that INFO shows: client libraries look at it before they use a newer command."""
NAME_CHARACTERS_MAX: Final = 64

OWN: Final[dict[str, RedisCommand]] = {
    "PING": RedisCommand(-1, "PONG, or the message.", keys=(0, 0, 0)),
    "ECHO": RedisCommand(2, "The message.", keys=(0, 0, 0)),
    "HELLO": RedisCommand(-1, "Choose RESP 2 or 3; what server this is.", keys=(0, 0, 0)),
    "CLIENT": RedisCommand(-2, "SETNAME, GETNAME, ID, INFO, SETINFO, NO-EVICT, NO-TOUCH.", keys=(0, 0, 0)),
    "COMMAND": RedisCommand(-1, "What commands there are: COUNT, LIST, INFO, DOCS.", keys=(0, 0, 0)),
    "CONFIG": RedisCommand(-2, "GET: what redis-benchmark asks for.", keys=(0, 0, 0)),
    "INFO": RedisCommand(-1, "The state of this server.", keys=(0, 0, 0)),
    "SELECT": RedisCommand(2, "There is one database, 0.", keys=(0, 0, 0)),
    "QUIT": RedisCommand(-1, "End the connection.", keys=(0, 0, 0)),
}
"""Name -> each command of Redis that this front end answers itself and at once, without a session or the log."""
COMMANDS: Final[Mapping[str, RedisCommand]] = {**TRANSLATED, **OWN}
"""Name -> each command of Redis that is known here: those that become commands of the line protocol, and `OWN`."""
_SHOWN: Final = ("cluster", "server", "state", "view", "leader", "aru", "revision")
"""Names of the fields of STATUS that INFO shows, too."""
_CONFIG: Final = {"save": "", "appendonly": "yes"}
"""The settings that CONFIG GET shows, name -> value.

`appendonly` is on, since every write is on disk before its answer. `save` is empty: there is no other way of saving.
"""


class ConnectionCommands:
    """Answers the commands in `OWN` for one connection, and holds the name and the dialect (RESP 2 or 3) of this
    connection."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._number = number
        self._name = ""
        self.dialect = Dialect(2)
        self.quits = False
        self._commands: dict[str, Callable[[Sequence[str]], bytes]] = {
            "PING": self._ping,
            "ECHO": lambda args: replies.bulk(args[0]),
            "HELLO": self._hello,
            "CLIENT": self._client,
            "COMMAND": self._command,
            "CONFIG": self._config,
            "INFO": self._info,
            "SELECT": self._select,
            "QUIT": self._quit,
        }
        assert self._commands.keys() == OWN.keys()

    def reply_to(self, name: str, args: Sequence[str]) -> bytes:
        """The reply to one of the commands in `OWN`. Raises `BadRequest`."""
        return self._commands[name](args)

    def _ping(self, args: Sequence[str]) -> bytes:
        if len(args) > 1:
            raise wrong_number_of_arguments("ping")
        return replies.bulk(args[0]) if args else replies.simple("PONG")

    def _hello(self, args: Sequence[str]) -> bytes:
        version, *options = args or (str(self.dialect.protocol),)
        if version not in ("2", "3"):
            raise BadRequest(f"RESP 2 and 3 are spoken here, not {quoted(version)}", "NOPROTO")
        name = self._name
        while options:
            option = options.pop(0).upper()
            if option != "SETNAME" or not options:
                raise BadRequest(
                    f"HELLO takes 2 or 3 and SETNAME name, not {quoted(option)}: there are no passwords here"
                )
            name = _client_name(options.pop(0))
        self._name, self.dialect = name, Dialect(int(version))
        return self.dialect.mapping(
            (
                ("server", replies.bulk("pfsb")),
                ("version", replies.bulk(__version__)),
                ("proto", replies.integer(self.dialect.protocol)),
                ("id", replies.integer(self._number)),
                ("mode", replies.bulk("standalone")),
                ("role", replies.bulk("master")),
                ("modules", replies.array(())),
            )
        )

    def _client(self, args: Sequence[str]) -> bytes:
        match (args[0].upper(), *args[1:]):
            case ("SETNAME", name):
                self._name = _client_name(name)
            case ("GETNAME",):
                return replies.bulk(self._name) if self._name else self.dialect.nil
            case ("ID",):
                return replies.integer(self._number)
            case ("INFO",):
                return replies.bulk(f"id={self._number} name={self._name} db=0 resp={self.dialect.protocol}\n")
            case ("SETINFO", _, _) | ("NO-EVICT" | "NO-TOUCH", _):
                pass  # accepted without effect: no client is evicted here, and no library needs special treatment
            case _:
                raise BadRequest(f"CLIENT {quoted(' '.join(args))} is not known here; {OWN['CLIENT'].help}")
        return replies.OK

    def _command(self, args: Sequence[str]) -> bytes:
        names = [name.upper() for name in args[1:]]
        match args[0].upper() if args else "":
            case "":
                return replies.array([_row(name) for name in COMMANDS])
            case "COUNT" if not names:
                return replies.integer(len(COMMANDS))
            case "LIST" if not names:
                return replies.array([replies.bulk(name.lower()) for name in COMMANDS])
            case "INFO":
                wanted = names or list(COMMANDS)
                return replies.array([_row(name) if name in COMMANDS else self.dialect.nil for name in wanted])
            case "DOCS":
                known = [name for name in names or COMMANDS if name in COMMANDS]
                return self.dialect.mapping((name.lower(), self._page(name)) for name in known)
        raise BadRequest(f"COMMAND {quoted(' '.join(args))} is not known here; {OWN['COMMAND'].help}")

    def _page(self, name: str) -> bytes:
        command = COMMANDS[name]
        group = "connection" if command.translate is None else "generic"
        return self.dialect.mapping((("summary", replies.bulk(command.help)), ("group", replies.bulk(group))))

    def _config(self, args: Sequence[str]) -> bytes:
        if args[0].upper() != "GET" or len(args) < 2:
            raise BadRequest("CONFIG knows GET name; what a server does is in its configuration file")
        return self.dialect.mapping(
            (name, replies.bulk(_CONFIG[name])) for name in map(str.lower, args[1:]) if name in _CONFIG
        )

    def _info(self, args: Sequence[str]) -> bytes:
        status = self._server.status()
        sections: dict[str, Mapping[str, Any]] = {
            "Server": {
                "redis_version": REDIS_VERSION,
                "redis_mode": "standalone",
                "pfsb_version": status["version"],
                "uptime_in_seconds": status["uptime"],
            },
            "Clients": {"connected_clients": status.get("connections")},
            "Replication": {"role": "master", "connected_slaves": 0},
            "Pfsb": {name: status.get(name) for name in _SHOWN},
        }
        wanted = {name.lower() for name in args}
        shown = [name for name in sections if wanted <= {"all", "default", "everything"} or name.lower() in wanted]
        return replies.bulk("\r\n".join(_section(name, sections[name]) for name in shown))

    def _select(self, args: Sequence[str]) -> bytes:
        if args[0] != "0":
            raise BadRequest(f"there is one database here, 0, and no {quoted(args[0])}")
        return replies.OK

    def _quit(self, args: Sequence[str]) -> bytes:
        self.quits = True
        return replies.OK


def _section(name: str, values: Mapping[str, Any]) -> str:
    return "".join((f"# {name}\r\n", *(f"{key}:{value}\r\n" for key, value in values.items())))


def _row(name: str) -> bytes:
    """The entry for one command in the reply to COMMAND."""
    command = COMMANDS[name]
    flag = "write" if command.changes else "readonly" if command.translate else "fast"
    return replies.array(
        (
            replies.bulk(name.lower()),
            replies.integer(command.arity),
            replies.array((replies.simple(flag),)),
            *map(replies.integer, command.keys),
        )
    )


def _client_name(name: str) -> str:
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable() or " " in name:
        raise BadRequest(f"a connection's name has up to {NAME_CHARACTERS_MAX} printable characters and no space")
    return name
