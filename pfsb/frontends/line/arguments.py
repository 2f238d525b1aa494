"""Parses arguments behind a verb: the options of the line protocol itself, and limits that all front ends share.

The functions raise `BadRequest`, with a sentence for the client, if an argument is wrong.
"""

from __future__ import annotations

from typing import Final

from pfsb.applications.arguments import Data, Quoted
from pfsb.applications.interfaces import BadRequest, CommandDescription
from pfsb.frontends.line.grammar import Request, split_options
from pfsb.support.limits import CLIENT_ID_CHARACTERS_MAX, TTL_SECONDS_MAX, server_id_of

TTL_SECONDS_DEFAULT: Final = 10
"""How long, in seconds, a session lives on without its client, unless the client asks for another ttl."""
READ_LEVELS: Final = ("linearizable", "sequential", "stale")
"""The levels that a question may name with `read=`; without `read=`, the first one holds."""


def parts_of(description: CommandDescription, request: Request) -> tuple[str, ...]:
    """The verb and the arguments of a request, as the application's `check` wants them."""
    if description.rest_of_line:
        text = request.text
        return (request.verb,) if text is None else (request.verb, text)
    return (request.verb, *request.args)


def read_level(parts: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Takes the option `read=LEVEL` out of a question. Returns the other parts, and the level.

    The option may stand anywhere. In quotes, the same text is no option but an argument.
    """
    levels = [part for part in parts if part[:5] == "read=" and not isinstance(part, Quoted)]
    if not levels:
        return parts, READ_LEVELS[0]
    level = levels[0].removeprefix("read=")
    if len(levels) > 1 or level not in READ_LEVELS:
        raise BadRequest(f"read= is one of {', '.join(READ_LEVELS)}, as in: {parts[0]} colour read=sequential")
    return tuple([part for part in parts if part is not levels[0]]), level


def past_revision(parts: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """Takes the option `at=REVISION` out of a GET. Returns the other parts, and the revision; None: there is no such
    option. In quotes, the same text is no option but a key."""
    given = [part for part in parts if part[:3] == "at=" and not isinstance(part, Quoted)]
    if not given:
        return parts, None
    if len(given) > 1:
        raise BadRequest("at= is given twice, once is right, as in: GET colour at=812")
    return tuple([part for part in parts if part is not given[0]]), whole(given[0].removeprefix("at="), "at")


def check_client_id(client_id: str, usage: str) -> None:
    """Raises `BadRequest` for a text that cannot be a client id.

    `usage`, a part of the error's text, shows how a client id is given at this front end.
    """
    length = len(client_id)
    if (
        not 1 <= length <= CLIENT_ID_CHARACTERS_MAX
        or not client_id.isprintable()
        or " " in client_id
        or isinstance(client_id, Data)
    ):
        raise BadRequest(f"a client id has 1 to {CLIENT_ID_CHARACTERS_MAX} printable characters and no space: {usage}")
    if client_id[0] in "~!":
        raise BadRequest("client ids that begin with ~ or ! are reserved for the servers; leave that character out")


def hello_arguments(request: Request) -> tuple[str, int]:
    """The client id of a HELLO, and its ttl in seconds."""
    usage = "HELLO client-id [ttl=SECONDS], as in: HELLO alice ttl=30"
    args = request.args
    if not args:
        raise BadRequest(f"HELLO needs a client id: {usage}")
    client_id = args[0]
    words, options = split_options(args[1:])
    ttl = options.pop("ttl", None)
    refuse_more(words, options, usage)
    check_client_id(client_id, usage)
    if ttl is None:
        return client_id, TTL_SECONDS_DEFAULT
    seconds = whole(ttl, "ttl")
    if not 1 <= seconds <= TTL_SECONDS_MAX:
        raise BadRequest(f"ttl is in seconds, from 1 to {TTL_SECONDS_MAX}: {usage}")
    return client_id, seconds


def auth_argument(request: Request) -> str:
    """The token of an AUTH. The errors repeat no part of it."""
    args = request.args
    if len(args) != 1:
        raise BadRequest("AUTH takes one token, as pfsb token has written it: AUTH token")
    return args[0]


def without_arguments(request: Request) -> None:
    """Raises `BadRequest` if a verb is followed by anything."""
    if request.rest:
        raise BadRequest(f"{request.verb} takes nothing after it")


def refuse_more(words: tuple[str, ...], options: dict[str, str], usage: str) -> None:
    """Raises `BadRequest` if any words or options are left over, after the caller has taken out all that it knows."""
    left = [*words, *options]
    if left:
        raise BadRequest(f"{left[0]} is one too many: {usage}")


def server_id(text: str, refusal: str) -> int:
    """The id of a server, as clients give it. Raises `BadRequest` with the text `refusal` if `text` is no id."""
    found = server_id_of(text)
    if found is None:
        raise BadRequest(refusal)
    return found


def whole(text: str, name: str) -> int:
    """The value of an option as a number. Raises `BadRequest` if it is no whole number that 64 bits hold."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest(f"{name}= takes a whole number, as in: {name}=10")
    return int(text)
