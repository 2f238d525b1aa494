"""Texts for people about servers that do not serve: none of them is blamed alone, and all that are known are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from pfsb.client.core.addresses import ServerAddress


@frozen
class Trouble:
    """Why a client has left a server, or could not reach it."""

    why: str
    is_unreachable: bool
    """Whether the server did not even accept a connection."""


def servers_text(addresses: Sequence[ServerAddress], reasons: Mapping[int, str]) -> str:
    """The servers with a reason, each by its id and address; neighbours with the same reason share it."""
    groups: list[tuple[str, list[str]]] = []
    for address in addresses:
        reason = reasons.get(address.id)
        if reason is not None:
            if not groups or groups[-1][0] != reason:
                groups.append((reason, []))
            groups[-1][1].append(f"{address.id} ({address.shown})")
    return "; ".join(f"server{'s' * (len(names) > 1)} {', '.join(names)}: {reason}" for reason, names in groups)


def outage_text(addresses: Sequence[ServerAddress], troubles: Mapping[int, Trouble]) -> str:
    """How it stands with the servers, as a client has found them."""
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
    """The reason of an operating system or of Twisted, as a few words."""
    text = why.strip().rstrip(".")
    if "refused" in text.lower() and not text.startswith("ERR"):
        return "connection refused"
    return text.splitlines()[0] if text else "unknown"
