"""Guards against web pages of third parties: a request must be for this server, and from no foreign page.

A browser on a machine that reaches a server sends it whatever a page asks for, and tells two things that no page can
change. `Origin` names the site of the page. `Host` names the host of the URL: a site may let its own name lead to the
address of this server (DNS rebinding), and is then of the same origin for the browser; but the name is still that of
the site. An address in `Host` is always right: a browser that was led astray would have a name there.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final

from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import BadRequest

_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|(?:[a-z0-9._~!$&'()*+,;=-]|%[0-9a-f]{2})+)(?::[0-9]*)?")
"""Regular expression of `host`, `host:port` or `[IPv6 address]:port`, in lower case; the group is the host."""
_ORIGIN: Final = re.compile(r"https?://(.+)")
PROBES: Final = (b"/healthz", b"/readyz")
"""The resources that tell no more than that a server is there. They may be asked for under any `Host`, by programs that
check the health of servers."""


def refuse_wrong_host(hosts: Sequence[bytes], is_needed: bool) -> None:
    """Raises `BadRequest` if a request has several headers `Host`, one that names no host, or none although `is_needed`
    says that it must have one, as in HTTP/1.1 (RFC 9112, section 3.2). `hosts` are the values."""
    if len(hosts) > 1:
        raise BadRequest(f"header Host is given {len(hosts)} times, once is right")
    if not hosts and is_needed:
        raise BadRequest("header Host is missing: a request of HTTP/1.1 says which host it asks, as in Host: localhost")
    for host in hosts:
        text = host.decode("latin-1").lower()
        found = _host(text)
        if found is None or (found.startswith("[") and not _is_address(found)):
            raise BadRequest(f"header Host is a name or an address, and perhaps a port, and not {quoted(text)}")


class OwnNames:
    """The names under which clients may reach the HTTP port of a server, and the check of a request's headers.

    They are all IP addresses, `localhost`, the name of the machine, the hosts of all servers of the configuration, and
    its key `http_names`.
    """

    def __init__(self, configured: Iterable[str], hosts: Iterable[str]) -> None:
        """`configured` is `http_names` of the configuration, and `hosts` are the hosts of all servers."""
        self._configured = frozenset(map(_normal, configured))
        self._names = self._configured | {"localhost", *map(_normal, (socket.gethostname(), *hosts))}

    def check(self, hosts: Sequence[bytes], origins: Iterable[bytes]) -> None:
        """Raises `BadRequest`, DENIED, if a value of the headers `Host` or `Origin` is not this server's.

        `hosts` has the host of the request line as well, if there is one. A request without the header passes: a
        browser always sends `Host`, and `Origin` where a page asks for more than to show something.
        """
        authorities = [host.decode("latin-1").lower() for host in hosts]
        for authority in authorities:
            if not self._is_own(authority):
                raise BadRequest(
                    f"this server does not answer as {quoted(authority)}; if it is one of its names, "
                    "add it to http_names in the configuration",
                    "DENIED",
                )
        for origin in origins:
            found = _ORIGIN.fullmatch(origin.decode("latin-1").lower())
            if found is None or (found[1] not in authorities and _host(found[1]) not in self._configured):
                shown = quoted(origin.decode("latin-1"))
                raise BadRequest(f"a web page of {shown} asks for this, which is not a page of this server", "DENIED")

    def _is_own(self, authority: str) -> bool:
        host = _host(authority)
        return host is not None and (host in self._names or _is_address(host))


def _host(authority: str) -> str | None:
    """The host of a text `host:port`, in normal form; None if `authority` is no such text."""
    found = _AUTHORITY.fullmatch(authority)
    return None if found is None else _normal(found[1])


def _normal(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
