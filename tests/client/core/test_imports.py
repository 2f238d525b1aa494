"""The client's core belongs to no event loop: an import of it brings neither Twisted nor asyncio."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from pkgutil import iter_modules

from twisted.trial.unittest import SynchronousTestCase

import pfsb
import pfsb.client
from pfsb.client import core

SHOW_EVENT_LOOPS = """
import sys
from importlib import import_module

for name in sys.argv[1:]:
    import_module(name)
print(*sorted({"twisted", "asyncio"} & {name.split(".")[0] for name in sys.modules}))
"""
"""A program that imports the modules in its arguments and prints which event loops have come with them."""


def event_loops_after_import(*names: str) -> list[str]:
    """The event loops that a fresh interpreter has imported after it has imported these modules."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pfsb.__file__).resolve().parents[1])}
    program = [sys.executable, "-c", SHOW_EVENT_LOOPS, *names]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


class ImportTests(SynchronousTestCase):
    def test_core_imports_no_event_loop(self) -> None:
        names = [f"{core.__name__}.{module.name}" for module in iter_modules(core.__path__)]
        self.assertIn("pfsb.client.core.client_core", names)
        self.assertEqual(event_loops_after_import(*names), [])

    def test_core_of_the_clerks_imports_no_event_loop(self) -> None:
        names = ("pfsb.client.clerks.clerk_core", "pfsb.client.clerks.chat_lines")
        self.assertEqual(event_loops_after_import(*names), [])

    def test_driver_imports_its_event_loop(self) -> None:
        """A driver imports its event loop, which shows that the check of the core's imports can find one."""
        self.assertEqual(event_loops_after_import("pfsb.client.drivers.asyncio"), ["asyncio"])
        self.assertIn("twisted", event_loops_after_import("pfsb.client.drivers.twisted"))

    def test_every_public_name_can_be_imported_from_the_package(self) -> None:
        for name in pfsb.client.__all__:
            self.assertIsNotNone(getattr(pfsb.client, name))
            self.assertIn(name, dir(pfsb.client))
        self.assertRaises(AttributeError, getattr, pfsb.client, "Sexton")
