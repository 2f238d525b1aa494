"""ConnectionCommands: the commands of Redis about the connection and the server, which the front end answers itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pfsb import __version__
from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.resp import replies
from pfsb.frontends.resp.command_replies import entry_of, every_command, page_of
from pfsb.frontends.resp.commands import TRANSLATED, RedisCommand, text_argument, wrong_number_of_arguments
from pfsb.frontends.resp.replies import Dialect
from pfsb.support.rights import Right
from pfsb.support.tokens import name_of

if TYPE_CHECKING:
    from pfsb.server import Server

REDIS_VERSION: Final = "7.0.0"
"""The version of Redis that INFO shows: client libraries look at it before they use a newer command."""
NAME_CHARACTERS_MAX: Final = 64

_ALWAYS: Final = "noscript loading stale fast no_auth allow_busy"
_SELDOM: Final = "noscript loading stale"


def _own(
    arity: int,
    help: str,
    flags: str,
    since: str = "1.0.0",
    group: str = "connection",
    categories: str | None = None,
    subcommands: Mapping[str, RedisCommand] | None = None,
) -> RedisCommand:
    """Makes a `RedisCommand` that has no translation and no keys."""
    return RedisCommand(arity, help, None, group, flags, None, since, categories, subcommands or {})


_CLIENT: Final = {
    "SETNAME": _own(3, "Name this connection.", _SELDOM, "2.6.9"),
    "GETNAME": _own(2, "The name of this connection.", _SELDOM, "2.6.9"),
    "ID": _own(2, "The number of this connection at this server.", _SELDOM, "5.0.0"),
    "INFO": _own(2, "What this server knows of this connection.", _SELDOM, "6.2.0"),
    "SETINFO": _own(4, "Name the client library: LIB-NAME or LIB-VER.", _SELDOM, "7.2.0"),
    "NO-EVICT": _own(3, "Accepted; no client is evicted here.", f"admin {_SELDOM}", "7.0.0"),
    "NO-TOUCH": _own(3, "Accepted without effect.", _SELDOM, "7.2.0"),
}
_COMMAND: Final = {
    "COUNT": _own(2, "How many commands there are.", "loading stale", "2.8.13", "server", "connection"),
    "LIST": _own(-2, "The names of all commands.", "loading stale", "7.0.0", "server", "connection"),
    "INFO": _own(-2, "All about some commands.", "loading stale", "2.8.13", "server", "connection"),
    "DOCS": _own(-2, "Help for some commands.", "loading stale", "7.0.0", "server", "connection"),
}
_CONFIG_PARTS: Final = {"GET": _own(-3, "What redis-benchmark asks for.", f"admin {_SELDOM}", "2.0.0", "server", "")}

OWN: Final[dict[str, RedisCommand]] = {
    "AUTH": _own(-2, "Show a token: AUTH token, or AUTH name token.", _ALWAYS),
    "PING": _own(-1, "PONG, or the message.", "fast"),
    "ECHO": _own(2, "The message.", "loading stale fast"),
    "HELLO": _own(-1, "Choose RESP 2 or 3; what server this is.", _ALWAYS, "6.0.0"),
    "CLIENT": _own(-2, "About this connection.", "", "2.4.0", "connection", "", _CLIENT),
    "COMMAND": _own(-1, "What commands there are.", "loading stale", "2.8.13", "server", "connection", _COMMAND),
    "CONFIG": _own(-2, "GET: what redis-benchmark asks for.", "", "2.0.0", "server", "", _CONFIG_PARTS),
    "INFO": _own(-1, "The state of this server.", "loading stale", "1.0.0", "server", "dangerous"),
    "SELECT": _own(2, "There is one database, 0.", "loading stale fast"),
    "QUIT": _own(-1, "End the connection.", _ALWAYS),
}
"""Name -> each command of Redis that this front end answers itself and at once, without a session or the log."""
COMMANDS: Final[Mapping[str, RedisCommand]] = {**TRANSLATED, **OWN}
"""Name -> each command of Redis that is known here: those that become commands of the line protocol, and `OWN`."""
NEEDS: Final[Mapping[str, Right]] = {
    name: Right.NONE if "no_auth" in command.flags.split() else Right.READ for name, command in OWN.items()
}
"""Name of each command in `OWN` -> the right that it needs. HELLO needs none only with AUTH. All other commands are
commands of the line protocol, and need the rights that these need."""
_EVERY: Final = dict(every_command(COMMANDS))
"""Name of each command and subcommand, as Redis shows it -> the command."""
_SHOWN: Final = ("cluster", "server", "state", "view", "leader", "aru", "revision")
"""Names of the fields of STATUS that INFO shows, too."""
_CONFIG: Final = {"save": "", "appendonly": "yes"}
"""The settings that CONFIG GET shows, name -> value.

`appendonly` is on, since every write is on disk before its answer. `save` is empty: there is no other way of saving.
"""


class ConnectionCommands:
    """Answers the commands in `OWN` for one connection. Holds what the client has told of itself: the name of the
    connection, its dialect (RESP 2 or 3), and the client's library."""

    def __init__(self, server: Server, number: int, addresses: Mapping[str, str], seconds: Callable[[], float]) -> None:
        """`number` is the number of this connection at this server, which CLIENT ID shows. `addresses` are the
        addresses of its two ends, as CLIENT INFO shows them (`addr`, `laddr`). `seconds` tells the time, in seconds, by
        which the age of the connection is measured."""
        self._server = server
        self._number = number
        self._addresses = addresses
        self._seconds = seconds
        self._since = seconds()
        self._name = ""
        self._library = {"lib-name": "", "lib-ver": ""}
        self.dialect = Dialect(2)
        self.quits = False
        self._of_texts: dict[str, Callable[[Sequence[str]], bytes]] = {
            "HELLO": self._hello,
            "CLIENT": self._client,
            "COMMAND": self._command,
            "CONFIG": self._config,
            "INFO": self._info,
            "SELECT": self._select,
            "QUIT": self._quit,
        }
        self._of_bytes: dict[str, Callable[[Sequence[bytes]], bytes]] = {
            "PING": self._ping,
            "ECHO": lambda args: replies.bulk(args[0]),
        }
        assert {*self._of_texts, *self._of_bytes, "AUTH"} == OWN.keys()

    def reply_to(self, name: str, args: Sequence[bytes]) -> bytes:
        """The reply to one of the commands in `OWN`, except AUTH, and HELLO with AUTH, whose tokens are checked first
        (`token_of`). Raises `BadRequest`."""
        if name in self._of_bytes:
            return self._of_bytes[name](args)
        return self._of_texts[name]([*map(text_argument, args)])

    def _ping(self, args: Sequence[bytes]) -> bytes:
        if len(args) > 1:
            raise wrong_number_of_arguments("ping")
        return replies.bulk(args[0]) if args else replies.simple("PONG")

    def _hello(self, args: Sequence[str]) -> bytes:
        version, name, _ = self._hello_options(args)
        self._name, self.dialect = name, Dialect(version)
        return self.dialect.mapping(
            (
                ("server", replies.bulk(b"pfsb")),
                ("version", replies.bulk_text(__version__)),
                ("proto", replies.integer(self.dialect.protocol)),
                ("id", replies.integer(self._number)),
                ("mode", replies.bulk(b"standalone")),
                ("role", replies.bulk(b"master")),
                ("modules", replies.array(())),
            )
        )

    def _hello_options(self, args: Sequence[str]) -> tuple[int, str, tuple[str, str] | None]:
        """The version of the protocol, the name of the connection, and the user and the password that a HELLO has;
        None: it has none. Raises `BadRequest`, whose text never repeats a password."""
        version, *options = args or (str(self.dialect.protocol),)
        if version not in ("2", "3"):
            raise BadRequest(f"RESP 2 and 3 are spoken here, not {quoted(version)}", "NOPROTO")
        name, shown = self._name, None
        while options:
            option = options.pop(0).upper()
            if option == "SETNAME" and options:
                name = _client_name(options.pop(0))
            elif option == "AUTH" and len(options) >= 2:
                shown, options = (options[0], options[1]), options[2:]
            else:
                known = option if option in ("SETNAME", "AUTH") else "another word"
                raise BadRequest(f"HELLO takes 2 or 3, AUTH user token and SETNAME name, and {known} is wrong here")
        return int(version), name, shown

    def token_of(self, name: str, args: Sequence[bytes]) -> str | None:
        """The token that a command shows: AUTH, or HELLO with AUTH; None for all others. Raises `BadRequest`.

        Redis has users beside passwords. Here the user is `default`, or the name in the token.
        """
        shown: tuple[str, str] | None = None
        if name == "AUTH":
            words = [*map(text_argument, args)]
            if len(words) > 2:
                raise BadRequest("AUTH takes a token, and perhaps a user before it")
            shown = ("default" if len(words) == 1 else words[0], words[-1])
        elif name == "HELLO":
            _, _, shown = self._hello_options([*map(text_argument, args)])
        if shown is None:
            return None
        user, token = shown
        return token if user in ("default", name_of(token)) else ""

    def _client(self, args: Sequence[str]) -> bytes:
        match (args[0].upper(), *args[1:]):
            case ("SETNAME", name):
                self._name = _client_name(name)
            case ("GETNAME",):
                return replies.bulk_text(self._name) if self._name else self.dialect.nil
            case ("ID",):
                return replies.integer(self._number)
            case ("INFO",):
                return self._client_info()
            case ("SETINFO", attribute, value):
                if attribute.lower() not in self._library:
                    raise BadRequest(f"CLIENT SETINFO takes LIB-NAME or LIB-VER, not {quoted(attribute)}")
                self._library[attribute.lower()] = _client_name(value, attribute.lower())
            case ("NO-EVICT" | "NO-TOUCH", _):
                pass  # accepted without effect: this server evicts no client, and treats all client libraries alike
            case _:
                raise BadRequest(f"CLIENT {quoted(' '.join(args))} is not known here, but {', '.join(_CLIENT)} are")
        return replies.OK

    def _client_info(self) -> bytes:
        """The line about this connection in the reply to CLIENT INFO: those facts of Redis's line that exist here."""
        facts: dict[str, object] = {
            "id": self._number,
            **self._addresses,
            "name": self._name,
            "age": int(self._seconds() - self._since),
            "idle": 0,
            "flags": "N",
            "db": 0,
            "sub": 0,
            "psub": 0,
            "multi": -1,
            "user": "default",
            "resp": self.dialect.protocol,
            **self._library,
        }
        return self.dialect.text(" ".join([f"{name}={value}" for name, value in facts.items()]) + "\n")

    def _command(self, args: Sequence[str]) -> bytes:
        names = [name.lower() for name in args[1:]]
        match args[0].upper() if args else "INFO":
            case "COUNT" if not names:
                return replies.integer(len(COMMANDS))
            case "LIST" if not names:
                return replies.array([*map(replies.bulk_text, _EVERY)])
            case "INFO":
                wanted = names or [name.lower() for name in COMMANDS]
                return replies.array([self._entry(name) for name in wanted])
            case "DOCS":
                wanted = names or [name.lower() for name in COMMANDS]
                known = {name: _EVERY[name] for name in wanted if name in _EVERY}
                return self.dialect.mapping((name, page_of(name, each, self.dialect)) for name, each in known.items())
        raise BadRequest(f"COMMAND {quoted(' '.join(args))} is not known here, but {', '.join(_COMMAND)} are")

    def _entry(self, name: str) -> bytes:
        return entry_of(name, _EVERY[name], self.dialect) if name in _EVERY else self.dialect.nil

    def _config(self, args: Sequence[str]) -> bytes:
        if args[0].upper() != "GET" or len(args) < 2:
            raise BadRequest("CONFIG knows GET name; what a server does is in its configuration file")
        return self.dialect.mapping(
            (name, replies.bulk_text(_CONFIG[name])) for name in map(str.lower, args[1:]) if name in _CONFIG
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
        return self.dialect.text("\r\n".join(_section(name, sections[name]) for name in shown))

    def _select(self, args: Sequence[str]) -> bytes:
        if args[0] != "0":
            raise BadRequest(f"there is one database here, 0, and no {quoted(args[0])}")
        return replies.OK

    def _quit(self, args: Sequence[str]) -> bytes:
        self.quits = True
        return replies.OK


def _section(name: str, values: Mapping[str, Any]) -> str:
    return "".join((f"# {name}\r\n", *(f"{key}:{value}\r\n" for key, value in values.items())))


def _client_name(name: str, what: str = "connection's name") -> str:
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable() or " " in name:
        raise BadRequest(f"a {what} has up to {NAME_CHARACTERS_MAX} printable characters and no space")
    return name
