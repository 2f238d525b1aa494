"""Where each deliberate defect is noticed first, and by which check. Written by `docs/make_broken_table.py --hunt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.hunt import Catch

CAUGHT: Final[Mapping[str, Catch]] = {}
