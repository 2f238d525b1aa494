"""`twistd pfsb`, as far as it can be tested without a process of its own; see also tests/integration."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from twisted.internet.error import ReactorNotRunning
from twisted.trial.unittest import SynchronousTestCase

from pfsb.service import service
from pfsb.service.service import steady_seconds


class SteadySecondsTests(SynchronousTestCase):
    def test_wall_clock_that_is_set_back_stops_no_timer(self) -> None:
        """When the wall clock is set back, no timer stops; with the wall clock, Twisted's timers would all wait until
        it has caught up."""
        seconds = steady_seconds()
        before = seconds()
        self.assertLess(abs(before - time.time()), 5.0)
        self.patch(time, "time", lambda: 0.0)
        self.assertGreaterEqual(seconds(), before)


class StoppingReactor:
    """A reactor that is about to stop."""

    def stop(self) -> None:
        raise ReactorNotRunning

    def callWhenRunning(self, function: Callable[[], None]) -> None:
        function()


class StopTests(SynchronousTestCase):
    def test_second_sigterm_changes_nothing(self) -> None:
        """A second SIGTERM changes nothing: the reactor is stopping already, while the server waits for its disk."""
        self.patch(service, "reactor", StoppingReactor())
        service.stop_reactor()


class StartTests(SynchronousTestCase):
    def test_what_no_server_needs_at_once_is_not_loaded_at_its_start(self) -> None:
        """Modules that no server needs at once are not loaded at its start, whose time counts towards fail-over."""
        look = (
            "import sys, pfsb.service.service; "
            "late = ('pfsb.frontends.http.', 'pfsb.frontends.resp.protocol.', 'pfsb.storage.memory.', 'twisted.web.', "
            "'sqlite3.'); "
            "print([name for name in sys.modules if (name + '.').startswith(late)])"
        )
        loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual(loaded.stdout.strip(), "[]")
