"""Numbers of views: a view is a pair, the epoch of the membership and a number in that epoch, packed into one number.

Packed views are compared as numbers, which compares the pairs: each view of an epoch is above all views of earlier
epochs. In epoch 0, that of the founding servers, the packed view is the number itself.
"""

from __future__ import annotations

from typing import Final

from pfsb.support.limits import VIEW_MAX

_BITS: Final = 32
assert VIEW_MAX < 1 << _BITS, "the number of a view fits its bits"


def view_of(epoch: int, number: int) -> int:
    """The packed view with this number in this epoch."""
    return (epoch << _BITS) + number


def epoch_of(view: int) -> int:
    """The epoch of a packed view."""
    return view >> _BITS


def number_of(view: int) -> int:
    """The number of a packed view in its epoch."""
    return view & VIEW_MAX


def shown(view: int) -> int | str:
    """A packed view as people and programs see it: its number in epoch 0, and in later epochs a text such as "2.5", the
    epoch and the number."""
    epoch = epoch_of(view)
    return f"{epoch}.{number_of(view)}" if epoch else view


def packed(view: int | str) -> int:
    """The packed view that `shown` has shown as `view`. Raises ValueError if that is no view."""
    if isinstance(view, int):
        return view
    epoch, _, number = view.partition(".")
    return view_of(int(epoch), int(number))
