"""`pfsb why`: why a cluster has no leader, or makes no progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, TextIO

import click
from attrs import define, frozen
from twisted.internet.defer import Deferred

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.outage import servers_text
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.options import ConfigOptions, config_argument
from pfsb.commands.survey import Status, Survey, ask_all, ask_status
from pfsb.support.command_line import subcommand
from pfsb.support.views import number_of, packed, shown

CLOCK_SECONDS: Final = 1.0
"""Difference, in seconds, between the clocks of a server and of this machine, above which it is told: the times at
which sessions expire and waits end are then wrong by as much."""
_REFUSED: Final = {
    "cluster": "frames of another cluster come to its port",
    "tag": "another server has another secret_file, or none",
    "certificate": "a server sends in the name of another one than its certificate names",
    "address": "a server sends from an address that its peer name does not have",
    "passes": "another server passes other slots (pfsb pass)",
    "version": "another server runs another version of pfsb",
    "checksum": "datagrams are damaged on their way",
}
"""Reason for which a server refuses frames, as STATUS names it -> a likely cause, as a text for people."""


@define
class Options(ConfigOptions):
    """Command line of `pfsb why`."""

    json: bool


@subcommand("why")
@config_argument()
@click.option("--json", is_flag=True, help="Show the same as one JSON object.")
def command(**given: Any) -> Options:
    """Ask all servers, and say why there is no leader or no progress.

    Who is up, who votes for which view and which votes are missing, who does not hear whom, whose disk, clock or
    settings are in the way. The exit status is 1 if the cluster cannot take commands.
    """
    return Options(**given)


@frozen
class ClockReading:
    """A range in which the difference between a server's clock and that of this machine lies, in seconds: from `least`
    to `most`. A positive difference means that the server's clock is ahead."""

    least: float
    most: float


async def run(reactor: Any, options: Options) -> None:
    """Ask all servers at once, and print what keeps the cluster from working. Raises `SystemExit` with status 1 if it
    cannot take commands."""
    if not await explain(reactor, options.addresses, sys.stdout, as_json=options.json):
        raise SystemExit(ExitStatus.REFUSED)


async def explain(reactor: Any, addresses: Sequence[ServerAddress], out: TextIO, *, as_json: bool = False) -> bool:
    """Ask all servers, and write to `out` what each of them does, and what keeps the cluster from working. Returns
    whether the cluster can take commands."""
    clocks: dict[int, ClockReading] = {}

    def asked(address: ServerAddress) -> Deferred[Status | str]:
        began = reactor.seconds()

        def heard(answer: Status | str) -> Status | str:
            if isinstance(answer, dict) and isinstance(answer.get("time"), int | float):
                clocks[address.id] = ClockReading(answer["time"] - reactor.seconds(), answer["time"] - began)
            return answer

        return ask_status(reactor, address).addCallback(heard)

    found = await ask_all(addresses, asked)
    lines = findings(found, clocks)
    if as_json:
        plain = {"summary": found.summary, "can_take_commands": can_take_commands(found), "servers": [*servers(found)]}
        out.write(json.dumps({**plain, "findings": lines}) + "\n")
    else:
        out.write("".join(f"{line}\n" for line in (found.summary, *servers(found), *lines)))
    return can_take_commands(found)


def can_take_commands(found: Survey) -> bool:
    """Whether a majority of the servers names one leader, and no server refuses changes because servers have
    diverged."""
    return found.leader is not None and not any(status.get("diverged") for status in found.up.values())


def servers(found: Survey) -> Iterator[str]:
    """Yield a line of text for each server: whether it is up, whether it leads, follows or seeks a leader, and how far
    it has executed."""
    for address in found.addresses:
        status = found.up.get(address.id)
        doing = f"down, {found.down[address.id]}" if status is None else _doing(status)
        yield f"server {address.id} ({address.shown}): {doing}"


def _doing(status: Status) -> str:
    view, attempted = status.get("view"), status.get("attempted")
    role = status.get("role", "voter")
    doing = _OUTSIDE.get(role) or {
        "REG_LEADER": f"leads view {view}",
        "REG_NONLEADER": f"follows server {status.get('leader')} in view {view}",
        "LEADER_ELECTION": f"seeks a leader, and votes for view {attempted}",
    }.get(str(status.get("state")), str(status.get("state")))
    return f"{doing}; has executed {status.get('aru')}, of {status.get('last_ordered')} ordered"


def findings(found: Survey, clocks: dict[int, ClockReading]) -> list[str]:
    """A line for each cause that keeps the cluster from having a leader or making progress; if there is none, one line
    says so. `clocks` has a reading of each server's clock by the server's id."""
    parts = (_majority, _admission, _snapshots, _votes, _hearing, _disks, _divergence, _progress, _settings, _frames)
    lines = [line for part in parts for line in part(found)]
    lines += _clocks(clocks)
    return lines or ["nothing is in the way of commands, as far as the servers know"]


_ROLES: Final = {
    "removed": (
        "was removed from the cluster and takes no part: it can be stopped, and its data deleted together with its "
        "configuration"
    ),
    "joining": "is no member of the cluster yet: pfsb servers FILE add ID ADDRESS brings it in",
    "learner": "learns what the others have executed, and votes by itself when it keeps up",
    "permanent-learner": "learns for good what the others have executed, and never votes",
}
"""Role of a server that does not vote -> what that means, behind "server ID"."""


_OUTSIDE: Final = {
    "removed": "was removed",
    "joining": "waits to be added",
    "learner": "learns",
    "permanent-learner": "learns for good",
}
"""Role of a server that does not vote -> what it does, in place of what its state would say of one that votes."""


def _majority(found: Survey) -> Iterator[str]:
    missing = found.quorum - len(found.voting)
    if missing > 0:
        down = servers_text(found.addresses, found.down)
        yield f"no majority: {found.count}; start {missing} more at least ({down})"


def _admission(found: Survey) -> Iterator[str]:
    for server_id, status in found.up.items():
        waits = ", ".join(map(str, status.get("not_acquainted", [])))
        role = status.get("role", "voter")
        if _is_left_behind(found, server_id):
            yield (
                f"server {server_id} is no member since epoch {found.epoch} at the latest, and does not know it: it "
                "was removed, and is cut off or has lost its data; stop it, and delete its configuration"
            )
        elif role in _ROLES:
            yield f"server {server_id} {_ROLES[role]}"
        elif status.get("admitted") is False and waits:
            yield f"server {server_id} does not vote yet: its storage is not known to servers {waits}, which must be up"


def _is_left_behind(found: Survey, server_id: int) -> bool:
    """Whether a server believes that it votes, and is none of those that vote in the latest epoch."""
    return found.up[server_id].get("role", "voter") == "voter" and server_id not in found.voters


def _snapshots(found: Survey) -> Iterator[str]:
    for server_id, status in found.up.items():
        lost = (status.get("snapshots") or {}).get("lost")
        if lost is not None and status.get("admitted") is False:
            yield (
                f"server {server_id} does not vote: its snapshot of slot {lost} is lost, and it fetches one from the "
                "others; if all have lost theirs, make a new cluster of a backup (pfsb restore)"
            )
        elif lost is not None:
            yield f"the snapshot of slot {lost} on the disk of server {server_id} is lost; it takes a new one"


def _votes(found: Survey) -> Iterator[str]:
    """Yield a line for each view that servers vote for, with the votes that it has and the servers whose votes are
    missing; none if there is a leader, or too few servers are up."""
    if found.leader is not None or len(found.voting) < found.quorum:
        return
    ids = found.voters
    views: dict[int, list[int]] = {}
    for server_id, status in found.voting.items():
        views.setdefault(packed(status.get("attempted") or 0), []).append(server_id)
    for view, voters in sorted(views.items(), reverse=True):
        led_by = f" (server {ids[(number_of(view) - 1) % len(ids)]} would lead it)" if view else ""
        missing = [i for i in ids if i not in voters]
        yield (
            f"view {shown(view)}{led_by} has the votes of servers {', '.join(map(str, voters))}, "
            f"{found.quorum} needed; "
            f"missing: {', '.join(_missing_vote(found, i) for i in missing) or 'none, it is being installed'}"
        )


def _missing_vote(found: Survey, server_id: int) -> str:
    status = found.up.get(server_id)
    return f"{server_id} (down)" if status is None else f"{server_id} (votes for view {status.get('attempted')})"


def _hearing(found: Survey) -> Iterator[str]:
    for server_id, status in found.up.items():
        peers = status.get("peers", {})
        deaf = [int(i) for i, peer in peers.items() if peer.get("alive") is False and int(i) in found.up]
        outside = status.get("role") in ("joining", "removed") or _is_left_behind(found, server_id)
        if deaf and not outside:
            names = ", ".join(map(str, sorted(deaf)))
            yield (
                f"server {server_id} does not hear servers {names}, which are up: the network between them, "
                "a firewall, or FAULT CUT"
            )


def _disks(found: Survey) -> Iterator[str]:
    for server_id, status in found.up.items():
        disk = status.get("disk") or {}
        if disk.get("trouble") == "hangs":
            yield f"the disk of server {server_id} hangs for {float(disk.get('seconds') or 0):.0f} s: it cannot vote"
        elif disk.get("trouble"):
            yield f"the disk of server {server_id} is full: it cannot vote, and refuses changes"


def _divergence(found: Survey) -> Iterator[str]:
    for server_id, status in found.up.items():
        others = [i for i, peer in status.get("peers", {}).items() if peer.get("differs_at") is not None]
        if status.get("diverged") or others:
            yield f"server {server_id} has executed something otherwise than servers {', '.join(others) or 'others'}"


def _progress(found: Survey) -> Iterator[str]:
    furthest = max((int(status.get("last_ordered") or 0) for status in found.up.values()), default=0)
    for server_id, status in found.up.items():
        if status.get("role") in ("joining", "removed") or _is_left_behind(found, server_id):
            continue
        aru = int(status.get("aru") or 0)
        if aru < int(status.get("last_ordered") or 0):
            yield f"server {server_id} waits for number {aru + 1}, and knows that {status['last_ordered']} is ordered"
        elif aru < furthest and found.leader is not None:
            yield f"server {server_id} is behind: it has executed {aru} of {furthest}"
        if status.get("pending"):
            yield f"server {server_id} has {status['pending']} updates of clients that are not executed yet"


def _settings(found: Survey) -> Iterator[str]:
    for server_id, status in found.up.items():
        differ = status.get("settings_differ")
        if differ:
            yield (
                f"the configuration of server {server_id} differs from the cluster's settings in {', '.join(differ)}; "
                "the settings rule"
            )
    versions = {server_id: status.get("version") for server_id, status in found.up.items()}
    if len(set(versions.values())) > 1:
        yield "versions differ: " + ", ".join(f"server {i}: {version}" for i, version in versions.items())


def _frames(found: Survey) -> Iterator[str]:
    for server_id, status in found.up.items():
        refused = (status.get("frames") or {}).get("refused") or {}
        for reason, count in refused.items():
            if count and reason in _REFUSED:
                yield f"server {server_id} has refused {count} frames since its start ({reason}): {_REFUSED[reason]}"


def _clocks(clocks: dict[int, ClockReading]) -> Iterator[str]:
    """Yield a line for each server whose clock certainly differs by more than `CLOCK_SECONDS` from that of this
    machine."""
    for server_id, reading in sorted(clocks.items()):
        if reading.least > CLOCK_SECONDS:
            yield f"the clock of server {server_id} is {reading.least:.1f} s ahead of that of this machine"
        elif reading.most < -CLOCK_SECONDS:
            yield f"the clock of server {server_id} is {-reading.most:.1f} s behind that of this machine"
