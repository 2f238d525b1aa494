"""A reader with a fault that only one input in four thousand million reaches by chance."""

from __future__ import annotations


def read(data: bytes) -> int:
    """Read four bytes, one after the other. Raises AssertionError for one value of the four."""
    if len(data) < 4:
        return 0
    if data[0] != 0x4E:
        return 1
    if data[1] != 0x45:
        return 2
    if data[2] != 0x45:
        return 3
    if data[3] != 0x44:
        return 4
    raise AssertionError("the needle")
