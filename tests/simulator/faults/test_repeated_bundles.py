"""RepeatedBundles: a fault that has bundles ordered a second time."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.simulator.faults.repeated_bundles import encoded


class EncodedTests(SynchronousTestCase):
    def test_bundle_is_the_same_after_decoding(self) -> None:
        """A bundle is the same after decoding: its commands, which are ordered again, have their numbers and their
        epoch."""
        content = Bundle("user", 7, False, ((3, ("PUT", b"a", b"b")), (4, ("INCR", b"n", 1))))
        self.assertEqual(bundle.decode(bundle.encode([encoded(content)])), [content])
