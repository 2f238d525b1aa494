"""Several calls that are carried out together: the check of the calls before they are sent, and the list of their
results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pfsb.client.clerks.calls import Call
from pfsb.client.clerks.errors import BadCall, ClerkError
from pfsb.client.core.replies import Reply

T = TypeVar("T")


def checked_calls(wanted: Iterable[Call[T]]) -> list[Call[T]]:
    """The calls as a list, before any of them is sent. Raises `BadCall` if one of them is no call."""
    try:
        asked: list[Any] = list(wanted)
    except TypeError:
        raise _no_call(wanted) from None
    for call in asked:
        if not isinstance(call, Call):
            raise _no_call(call)
    return asked


def read_all(wanted: Sequence[Call[T]], replies: Sequence[Reply], return_exceptions: bool) -> list[Any]:
    """The results in the replies, in the order of the calls, with a `ClerkError` in the place of each that failed.

    Unless `return_exceptions`, raises the first of these errors, whose `results` is that list.
    """
    results: list[Any] = [_result_or_error(call, reply) for call, reply in zip(wanted, replies, strict=True)]
    error = next((each for each in results if isinstance(each, ClerkError)), None)
    if error is not None and not return_exceptions:
        error.results = results
        raise error
    return results


def _result_or_error(call: Call[Any], reply: Reply) -> Any:
    try:
        return call.read(reply)
    except ClerkError as error:
        return error


def _no_call(value: object) -> BadCall:
    text = f"{value!r:.80} is no call; pfsb.client.calls makes them, as in run_all([calls.incr('n')])"
    return BadCall(text, "BADREQUEST", "none")
