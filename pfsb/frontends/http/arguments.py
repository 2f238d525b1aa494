"""Parses the path, the query, the headers and the body of a request. Raises `BadRequest` if one of them is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

from attrs import define, field
from twisted.web.http_headers import Headers

from pfsb.applications.arguments import Data, Option, Quoted, argument_of, parse_integer, quoted, text_of
from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.http.answers import RAW_TYPE
from pfsb.frontends.line.arguments import (
    READ_LEVELS,
    TTL_SECONDS_DEFAULT,
    check_client_id,
)
from pfsb.support.limits import NUMBER_MAX, TTL_SECONDS_MAX
from pfsb.support.spelling import nearest

PARAMETERS_MAX: Final = 10_000


def path_segments(uri: bytes) -> list[Quoted]:
    """Split the path of a URI at its slashes and decode the parts: `/v1/kv/a%2Fb` gives v1, kv, a/b. A part that is not
    UTF-8 is `Data`.

    Raises `BadRequest`.
    """
    path = uri.partition(b"?")[0]
    if whole := _WHOLE_URI.match(path):
        path = path[whole.end() :] or b"/"
    if not path.startswith(b"/") and path != b"*":  # the request `OPTIONS *` names no resource
        shown = quoted(path.decode("latin-1"))
        raise BadRequest(f"the path begins with a slash, as in /v1/kv/colour, and not as {shown} does")
    _refuse_wrong_escapes(path)
    return [_argument(unquote_to_bytes(segment)) for segment in path[1:].split(b"/")]


def authority_of(uri: bytes) -> list[bytes]:
    """The host of a URI, with its port, in a list; an empty list if the URI is a path, as in almost every request."""
    whole = _WHOLE_URI.match(uri)
    return [whole[1]] if whole else []


_WHOLE_URI: Final = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)
"""Beginning of a whole URI, which a request may have in place of a path (RFC 9112, section 3.2.2)."""
_OF_PROXIES: Final = frozenset({b"forwarded", b"via", b"x-real-ip"})
"""Headers by which a proxy says for whom it asks, besides those that begin with X-Forwarded-; in lower case."""
_WRONG_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def _refuse_wrong_escapes(text: bytes) -> None:
    if found := _WRONG_ESCAPE.search(text):
        shown = quoted(text[found.start() : found.start() + 3].decode("latin-1"))
        raise BadRequest(f"two hexadecimal digits follow a %, as in %2F for a slash and %25 for a %, and not {shown}")


def _argument(data: bytes) -> Quoted:
    return argument_of(text_of(data))


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{what} is not UTF-8; percent-encode the UTF-8 bytes, as in caf%C3%A9 for café") from None


def shown(argument: Quoted) -> str:
    """An argument as JSON shows it: the text that it is, or that stands for its bytes (`text_of`)."""
    return text_of(argument.data) if isinstance(argument, Data) else str(argument)


def prefers_raw(headers: Headers) -> bool:
    """Whether a client would rather have the bare bytes of a value than JSON, as its headers `Accept` say (RFC 9110,
    section 12.5.1). A client that says nothing, or likes both alike, gets JSON."""
    qualities: dict[str, float] = {}
    for part in b",".join(headers.getRawHeaders(b"Accept") or []).decode("latin-1").lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        given = [each[2:] for each in parameters if each.startswith("q=")]
        qualities[kind] = float(given[0]) if given and _QUALITY.fullmatch(given[0]) else 1.0
    raw, json_ = (_quality_of(kind, qualities) for kind in (RAW_TYPE, "application/json"))
    return raw > json_


_QUALITY: Final = re.compile(r"[01](\.[0-9]{0,3})?")


def _quality_of(kind: str, qualities: Mapping[str, float]) -> float:
    for pattern in (kind, "application/*", "*/*"):
        if pattern in qualities:
            return qualities[pattern]
    return 0.0


@define
class Query:
    """The parameters after a URI's question mark. Handlers take those that they know; `refuse_more` refuses others."""

    _values: dict[str, list[str]]
    """Name of a parameter -> its values, in which bytes that are not UTF-8 are written as `text_of` writes them."""

    @classmethod
    def parse(cls, uri: bytes) -> Query:
        """Parse a URI's query. Raises `BadRequest` if it is not percent-encoded UTF-8, or has too many parameters."""
        query = uri.partition(b"?")[2]
        _refuse_wrong_escapes(query)
        text = _decoded(query, "the query")
        values: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=PARAMETERS_MAX)
        except ValueError:
            raise BadRequest(f"the query has more than {PARAMETERS_MAX} parameters") from None
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        return cls(values)

    def take(self, name: str) -> str | None:
        """The value of a parameter that is text; None if it is not given. Raises `BadRequest` if it is given more than
        once, or is not UTF-8."""
        value = self.take_data(name)
        if isinstance(value, Data):
            _decoded(value.data, f"{name}=")
        return value

    def take_data(self, name: str) -> Quoted | None:
        """The value of a parameter that may have any bytes; None if it is not given. Raises `BadRequest` if it is given
        more than once."""
        values = self.take_all(name)
        if len(values) > 1:
            raise BadRequest(f"{name}= is given {len(values)} times, once is right")
        return values[0] if values else None

    def take_all(self, name: str) -> list[Quoted]:
        """All values of a parameter that may have any bytes, in the order of the query; an empty list if it is not
        given."""
        return [argument_of(value) for value in self._values.pop(name, [])]

    def take_read_level(self) -> str:
        level = self.take("read")
        if level is None:
            return READ_LEVELS[0]
        if level not in READ_LEVELS:
            raise BadRequest(f"read= is one of {', '.join(READ_LEVELS)}, not {quoted(level)}")
        return level

    def take_whole(self, name: str) -> int | None:
        """The value of a parameter that is a whole number; None if it is not given. Raises `BadRequest` for anything
        else."""
        text = self.take(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise BadRequest(f"{name}= takes a whole number, as in ?{name}=812")
        return int(text)

    def options(self, *names: str) -> list[str]:
        """Return those of the named parameters that are given, in the form that the applications' commands take:
        `limit=10`."""
        found = [(name, self.take(name)) for name in names]
        return [f"{name}={value}" for name, value in found if value is not None]

    def refuse_more(self) -> None:
        if self._values:
            raise BadRequest(f"{quoted(next(iter(self._values)))} is no parameter of this resource")


@define
class ClientHeaders:
    """The headers of a request that begin with `Pfsb-`: client id, command number, ttl and revision."""

    client_id: str | None = None
    number: int | None = None
    ttl_seconds: int = TTL_SECONDS_DEFAULT
    revision: int = 0
    """The highest revision that the client says it has seen; 0: none. A sequential read waits until this server has
    executed that revision."""

    @classmethod
    def parse(cls, headers: Headers) -> ClientHeaders:
        """Parse the headers of a request. Raises `BadRequest` if one of these headers has a wrong value."""
        client_id = _header(headers, "Pfsb-Client")
        if client_id is not None:
            check_client_id(client_id, "Pfsb-Client: alice")
        number = _whole_header(headers, "Pfsb-Number", 1, NUMBER_MAX)
        if number is not None and client_id is None:
            raise BadRequest("Pfsb-Number counts the commands of a client: say which one with Pfsb-Client")
        ttl = _whole_header(headers, "Pfsb-Ttl", 1, TTL_SECONDS_MAX)
        revision = _whole_header(headers, "Pfsb-Revision", 0, NUMBER_MAX)
        return cls(client_id, number, TTL_SECONDS_DEFAULT if ttl is None else ttl, revision or 0)


def bearer_token(headers: Headers) -> str | None:
    """The token in the header Authorization; None: there is no such header. Raises `BadRequest`, whose text repeats no
    part of the header."""
    values = headers.getRawHeaders(b"Authorization") or []
    if not values:
        return None
    if len(values) > 1:
        raise BadRequest(f"header Authorization is given {len(values)} times, once is right")
    scheme, _, token = values[0].decode("latin-1").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise BadRequest("header Authorization has another form than Authorization: Bearer TOKEN", "NOAUTH")
    return token.strip()


def is_forwarded(headers: Headers) -> bool:
    """Whether a proxy says that it sends this request for another client. No proxy is believed when it says for whom;
    but the client is then not the one at the other end of the connection."""
    names = [name.lower() for name, _ in headers.getAllRawHeaders()]
    return any(name in _OF_PROXIES or name.startswith(b"x-forwarded-") for name in names)


def _header(headers: Headers, name: str) -> str | None:
    values = headers.getRawHeaders(name.encode())
    if not values:
        return None
    if len(values) > 1:
        raise BadRequest(f"header {name} is given {len(values)} times, once is right")
    return _decoded(values[0], f"header {name}")


def _whole_header(headers: Headers, name: str, least: int, most: int) -> int | None:
    text = _header(headers, name)
    if text is None:
        return None
    number = parse_integer(text)
    if number is None or not least <= number <= most:
        raise BadRequest(f"header {name} is a whole number from {least} to {most}, not {quoted(text)}")
    return number


@define
class Body:
    """A request's body, a JSON object. A handler takes the members that it knows; `refuse_more` refuses the others."""

    _members: dict[str, Any]
    _known: list[str] = field(factory=list)

    @classmethod
    def parse(cls, data: bytes) -> Body:
        """Parse a body. A request without a body is treated as if it had an empty object. Raises `BadRequest`."""
        if not data:
            return cls({})
        try:
            content = json.loads(data.decode(), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
        except BadRequest:
            raise
        except UnicodeDecodeError:
            raise BadRequest("the body is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {_first_line(error)}") from None
        if not isinstance(content, dict):
            raise BadRequest(f"the body is a JSON {_kind(content)}; it should be an object, as in {{...}}")
        return cls(content)

    def text(self, name: str) -> str:
        found: str = self._take(name, str, "a string")
        return found

    def data(self, name: str) -> Quoted:
        """The value of a member that must be there, a string that may stand for any bytes (`argument_of`)."""
        return _written(name, self.text(name))

    def data_or_null(self, name: str) -> Quoted | None:
        """The value of a member that must be there: a string that may stand for any bytes, or None for `null`."""
        if name in self._members and self._members[name] is None:
            self._known.append(name)
            del self._members[name]
            return None
        return _written(name, self._take(name, str, "a string or null"))

    def integer(self, name: str, default: int | None = None) -> int:
        """The value of a member that is an integer; `default` if it is not there. None: it must be there."""
        if default is not None and self._is_absent(name):
            return default
        value = self._members.get(name)
        if isinstance(value, float) and value.is_integer():
            self._members[name] = int(value)  # in JSON 1.0 is the integer 1
        found: int = self._take(name, int, "an integer")
        return found

    def integer_or_none(self, name: str) -> int | None:
        """The value of a member that is an integer; None if it is not there."""
        return None if self._is_absent(name) else self.integer(name)

    def flag(self, name: str) -> bool:
        """The value of a member that is true or false; False if it is not there."""
        if self._is_absent(name):
            return False
        value = self._members.pop(name)
        self._known.append(name)
        if not isinstance(value, bool):
            raise BadRequest(f"{quoted(name)} is a JSON {_kind(value)}; it should be true or false")
        return value

    def number(self, name: str) -> float | None:
        """The value of a member that is a number; None if the body has no such member."""
        if self._is_absent(name):
            return None
        try:
            return float(self._take(name, (int, float), "a number"))
        except OverflowError:
            raise BadRequest(f"{quoted(name)} is too large") from None

    def entries(self, name: str) -> list[Quoted]:
        """The value of a member that must be there, an object whose values are strings: each key, and its value. Both
        may stand for any bytes."""
        found: Mapping[str, Any] = self._take(name, dict, "an object")
        for key, value in found.items():
            if not isinstance(value, str):
                raise BadRequest(f"{quoted(name)}: {quoted(key)}: must be a string, not {_kind(value)}")
        return [_written(name, text) for entry in found.items() for text in entry]

    def texts_or_integers(self, name: str) -> Mapping[str, str | int]:
        """The value of a member that must be there, an object whose values are strings or integers."""
        found: dict[str, Any] = dict(self._take(name, dict, "an object"))
        for key, value in found.items():
            if isinstance(value, float) and value.is_integer():
                found[key] = int(value)  # in JSON 1.0 is the integer 1
            elif isinstance(value, bool) or not isinstance(value, str | int):
                raise BadRequest(f"{quoted(name)}: {quoted(key)}: must be a string or an integer, not {_kind(value)}")
        return found

    def text_list(self, name: str) -> list[str]:
        found: list[Any] = self._take(name, list, "a list")
        for value in found:
            if not isinstance(value, str):
                raise BadRequest(f"{quoted(name)}: must hold strings only, not {_kind(value)}")
        return found

    def words(self, name: str) -> list[str]:
        """The arguments of a command, from a member that is a list; empty if the body has no such member. A string is a
        value, which is never taken for an option; an integer is a number; null is the word `nil`."""
        if self._is_absent(name):
            return []
        found: list[Any] = self._take(name, list, "a list")
        return [self._word(name, value) for value in found]

    def options(self, name: str) -> list[str]:
        """The options of a command, `name=value` each, from a member that is an object; empty if the body has no such
        member."""
        if self._is_absent(name):
            return []
        found: Mapping[str, Any] = self._take(name, dict, "an object")
        for option, value in found.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise BadRequest(f"{quoted(name)}: {quoted(option)}: must be a string or a number, not {_kind(value)}")
        return [Option(f"{option}={value}") for option, value in found.items()]

    @staticmethod
    def _word(name: str, value: Any) -> str:
        if isinstance(value, str):
            return Quoted(value)
        if value is None:
            return "nil"
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadRequest(f"{quoted(name)}: must hold strings, integers and null only, not {_kind(value)}")
        return str(value)

    def refuse_more(self) -> None:
        for name in self._members:
            right = nearest(name, self._known) if self._known else "it should be empty"
            raise BadRequest(f"{quoted(name)} has no place in this body; {right}")

    def _is_absent(self, name: str) -> bool:
        self._known.append(name)
        return name not in self._members

    def _take(self, name: str, kind: Any, what: str) -> Any:
        if self._is_absent(name):
            raise BadRequest(f"{quoted(name)} is missing in the body; it is {what}")
        value = self._members.pop(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadRequest(f"{quoted(name)} must be {what}, not {_kind(value)}")
        return value


def _written(name: str, text: str) -> Quoted:
    try:
        return argument_of(text)
    except UnicodeEncodeError:
        raise BadRequest(
            f"{quoted(name)} holds half of a surrogate pair; write both halves, or \\udc80 to \\udcff for a byte that "
            "is not UTF-8"
        ) from None


_KINDS: Final[Collection[tuple[Any, str]]] = (
    (type(None), "null"),
    (bool, "true or false"),
    (int | float, "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
)


def _kind(value: object) -> str:
    return next(name for kind, name in _KINDS if isinstance(value, kind))


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadRequest(f"the body has {quoted(key)} twice")
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise BadRequest(f"the body is not JSON: it has no {name}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["it is nested too deeply"])[0].lower()
