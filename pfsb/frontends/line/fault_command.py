"""FAULT: a server disturbs its own links, so that its cluster can be watched while it copes (docs/protocol.rst)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from pfsb.applications.interfaces import BadRequest

if TYPE_CHECKING:
    from pfsb.server import Server

_N = TypeVar("_N", int, float)

USAGE: Final = "FAULT LOSS 0.1, FAULT DELAY 50, FAULT CUT 1,3, FAULT HEAL or FAULT SKIP 812"


def apply_fault(server: Server, args: tuple[str, ...]) -> None:
    """Applies the fault that the arguments of FAULT describe. Raises `BadRequest`."""
    match [args[0].upper(), *args[1:]] if args else []:
        case ["LOSS", probability]:
            server.faults.lose(_number(probability, float, "LOSS takes a probability, as in FAULT LOSS 0.3"))
        case ["DELAY", milliseconds]:
            server.faults.delay(_number(milliseconds, int, "DELAY takes whole milliseconds, as in FAULT DELAY 50"))
        case ["CUT", *ids] if ids:
            server.faults.cut(_others(server, ",".join(ids)))
        case ["HEAL"]:
            server.faults.heal()
        case ["SKIP", seq]:
            server.skip.add(_seq(seq))
        case _:
            raise BadRequest(f"FAULT goes like this: {USAGE}")


def _number(text: str, kind: type[_N], right: str) -> _N:
    """Reads the number in `text` as a `kind` (int or float), whatever its size: `LinkFaults` checks the range. Raises
    `BadRequest`, with `right` in its text, if it is no number."""
    try:
        return kind(text)
    except ValueError:
        raise BadRequest(f"{right}, not {text}") from None


def _others(server: Server, text: str) -> set[int]:
    others = {str(each): each for each in server.others}
    ids = [each for each in text.split(",") if each]
    wrong = [each for each in ids if each not in others]
    if wrong or not ids:
        raise BadRequest(f"CUT takes ids of other servers ({','.join(others)}), not {wrong[0] if wrong else text}")
    return {others[each] for each in ids}


def _seq(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 18 or int(text) < 1:
        raise BadRequest(f"SKIP takes a sequence number from 1 on, not {text}")
    return int(text)
