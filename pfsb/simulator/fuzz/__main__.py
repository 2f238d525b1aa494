"""`python -m pfsb.simulator.fuzz` does the same as `pfsb fuzz`, also without an installation."""

from __future__ import annotations

import sys

from pfsb.cli import main

main(["fuzz", *sys.argv[1:]])
