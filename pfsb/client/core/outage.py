"""Texts for people about the servers of a cluster that do not serve a client: each of these servers is named, with the
reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from pfsb.client.core.addresses import ServerAddress


@frozen
class Trouble:
    """The reason `why` a client has left a server, or could not reach it."""

    why: str
    is_unreachable: bool
    """True if the server accepted no connection; False if it did, and was left for another reason."""


def servers_text(addresses: Sequence[ServerAddress], reasons: Mapping[int, str]) -> str:
    """One line of text with the servers for which `reasons` (server -> reason) has an entry, each by its id and
    address: "servers 0 (127.0.0.1:9400), 1 (127.0.0.1:9401): connection refused". Servers that follow each other in
    `addresses` and have the same reason are named together; groups are separated by semicolons."""
    groups: list[tuple[str, list[str]]] = []
    for address in addresses:
        reason = reasons.get(address.id)
        if reason is not None:
            if not groups or groups[-1][0] != reason:
                groups.append((reason, []))
            groups[-1][1].append(f"{address.id} ({address.shown})")
    return "; ".join(f"server{'s' * (len(names) > 1)} {', '.join(names)}: {reason}" for reason, names in groups)


def outage_text(addresses: Sequence[ServerAddress], troubles: Mapping[int, Trouble]) -> str:
    """One line of text: how many of the servers can be reached, and for each server in `troubles` (server -> the
    trouble that a client had with it) the reason why it does not serve."""
    if not troubles:
        return "no server was tried yet"
    unreachable = [address.id for address in addresses if _is_unreachable(troubles.get(address.id))]
    reasons = servers_text(addresses, {server_id: trouble.why for server_id, trouble in troubles.items()})
    if len(unreachable) == len(addresses):
        return f"no server can be reached: {reasons}"
    if not unreachable:
        return reasons
    reached = [address.id for address in addresses if address.id not in unreachable]
    return f"{len(reached)} of {len(addresses)} servers can be reached ({', '.join(map(str, reached))}); {reasons}"


def _is_unreachable(trouble: Trouble | None) -> bool:
    return trouble is not None and trouble.is_unreachable


def short_reason(why: str) -> str:
    """The text `why`, as an operating system or Twisted gives it, cut to its first line; "connection refused" for all
    texts that say so, and "unknown" for an empty one."""
    text = why.strip().rstrip(".")
    if "refused" in text.lower() and not text.startswith("ERR"):
        return "connection refused"
    return text.splitlines()[0] if text else "unknown"
