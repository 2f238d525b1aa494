"""A server that stops because a majority has executed something otherwise (Departure 40) must be right about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pfsb.simulator.checkers.violation import require

_LINE: Final = re.compile(
    r"server (\d+) has executed slots (\d+) to (\d+) otherwise than servers ([\d, ]+), which are a majority: .*"
    r"Start it again: executing anew heals an error of memory\."
)
_STATE_LINE: Final = re.compile(
    r"server (\d+) has another state after slot \d+ than servers ([\d, ]+), which are a majority, .*"
    r"Start it again: executing anew heals an error of memory\."
)
"""The line if no result has differed, but the snapshots."""


def check_stop(
    server_id: int,
    text: str,
    ids: Sequence[int],
    own: Callable[[int], bytes | None],
    known: Mapping[int, bytes],
    is_exact: bool,
) -> None:
    """Check the line with which a server stops: it names the server, a majority of other servers, and slots of which
    the last one shows the difference. If `is_exact`, the slot before the first one does not show it. Raises `Violation`
    otherwise.

    `own` gives this server's digest after a slot, or None if it is not kept; `known` has those of correct servers.
    """
    if (state := _STATE_LINE.match(text)) is not None:
        _check_majority(server_id, int(state[1]), state[2], ids, text)
        return
    found = _LINE.match(text)
    require(found is not None, f"server {server_id} stops, and its line does not say why: {text}")
    assert found is not None
    first, last = int(found[2]), int(found[3])
    _check_majority(server_id, int(found[1]), found[4], ids, text)
    before = own(first - 1)
    differs = own(last) is None or own(last) != known.get(last)
    agrees = first == 1 or before is None or known.get(first - 1) in (None, before)
    require(first <= last and differs, f"server {server_id} stops, and agrees with others up to slot {last}: {text}")
    require(agrees or not is_exact, f"server {server_id} stops, and differs before the slots that it names: {text}")


def _check_majority(server_id: int, named: int, others: str, ids: Sequence[int], text: str) -> None:
    told = {*map(int, others.split(", "))}
    is_majority = 2 * len(told) > len(ids) and told <= {*ids} - {server_id}
    require(named == server_id and is_majority, f"server {server_id} stops for no majority of other servers: {text}")
