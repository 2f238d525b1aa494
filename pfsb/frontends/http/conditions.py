"""Conditional requests: ETags of keys, and the headers If-Match and If-None-Match (RFC 9110, section 13).

The ETag of a key is the revision at which the key was last written: "12" for the answer in JSON, and "12-raw" for the
bare value, since two different answers of one resource may not have the same ETag.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen
from twisted.web.http_headers import Headers

from pfsb.applications.arguments import parse_integer, quoted
from pfsb.applications.interfaces import BadRequest, Refused

_TAG: Final = re.compile(rb'[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|$)')
_OWN_TAG: Final = re.compile(r'"(0|[1-9][0-9]{0,18})(?:-raw)?"')
ANY: Final = "*"


def tag_of(revision: int, is_raw: bool) -> str:
    """The ETag of a key that was last written at `revision`, for the answer in JSON or the bare value."""
    return f'"{revision}-raw"' if is_raw else f'"{revision}"'


@frozen
class Conditions:
    """The values of the headers If-Match and If-None-Match in one request. A header that is not given is None; one that
    is `*` is the tuple (`ANY`,); any other one is the tuple of its ETags."""

    match: tuple[str, ...] | None = None
    none_match: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, headers: Headers) -> Conditions:
        """The conditions that the headers have. Raises `BadRequest` for a header that is no list of ETags."""
        return cls(_tags(headers, "If-Match"), _tags(headers, "If-None-Match"))

    @property
    def is_given(self) -> bool:
        return self.match is not None or self.none_match is not None

    def is_fresh(self, tag: str) -> bool:
        """Whether the client has the answer with this ETag already, as If-None-Match says."""
        none_match = self.none_match or ()
        return ANY in none_match or tag in {each.removeprefix("W/") for each in none_match}

    def check_answer(self, tag: str) -> Refused | None:
        """The refusal (PRECONDITION) of a request whose If-Match does not name the ETag `tag` of the present answer.
        None if it names that ETag, is `*`, or is not given."""
        if self.match is None or ANY in self.match or tag in self.match:
            return None
        return Refused("PRECONDITION", f"the ETag is {tag}, which If-Match does not have")

    def revision_needed(self) -> str | None:
        """The revision that the command IF is to ask for, so that it runs a change only under these conditions: the
        revision of the key as a number, 0 if the key must be absent, or `any` if it must be there. None if there are no
        conditions.

        Raises `BadRequest`: PRECONDITION for an ETag that no key can have, and BADREQUEST for conditions that a change
        cannot have.
        """
        if not self.is_given:
            return None
        if self.match is None:
            if self.none_match != (ANY,):
                raise BadRequest("If-None-Match of a change is *, which means that the key must be absent")
            return "0"
        if self.none_match is not None:
            raise BadRequest("a change takes one of If-Match and If-None-Match, not both")
        if self.match == (ANY,):
            return "any"
        if len(self.match) != 1:
            raise BadRequest(f"If-Match of a change has one ETag, not {len(self.match)}")
        own = _OWN_TAG.fullmatch(self.match[0])
        if own is None or parse_integer(own[1]) in (None, 0):
            raise BadRequest(f"no key has the ETag {self.match[0]}: it is a revision in quotes", "PRECONDITION")
        return own[1]


def _tags(headers: Headers, name: str) -> tuple[str, ...] | None:
    values = headers.getRawHeaders(name.encode())
    if values is None:
        return None
    text = b", ".join(values)
    if text.strip() == b"*":
        return (ANY,)
    tags, position = [], 0
    while position < len(text) and (found := _TAG.match(text, position)):
        tags.append(found[1].decode("latin-1"))
        position = found.end()
    if position < len(text) or not tags:
        shown = quoted(text.decode("latin-1"))
        raise BadRequest(f'header {name} is * or has ETags in quotes, as in {name}: "12", and not {shown}')
    return tuple(tags)
