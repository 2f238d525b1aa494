"""Rows of text as lines with aligned columns, as the tables of several subcommands of `pfsb` have them."""

from __future__ import annotations

from collections.abc import Sequence


def in_columns(rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None) -> str:
    """A line for each row, with its cells in columns aligned to the left, two spaces apart. `widths` are the widths of
    the columns, in characters; None: each is as wide as its widest cell, and all rows have as many cells.
    """
    if widths is None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() + "\n" for row in rows
    )
