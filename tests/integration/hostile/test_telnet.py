"""A person at telnet sees what the server says, also after Ctrl-C (real processes)."""

from __future__ import annotations

from tests.integration.hostile.case import GROWTH_BYTES_MAX, HostileCase

INTERRUPT = b"\xff\xf4\xff\xfd\x06"
"""The bytes that telnet sends for Ctrl-C: "interrupt process", and the wish for a timing mark. Until the server has
answered the wish, telnet throws away all that the server writes."""
WONT_TIMING_MARK = b"\xff\xfc\x06"


class TelnetTests(HostileCase):
    async def test_interrupt_is_answered_and_commands_around_it_run(self) -> None:
        """Ctrl-C of telnet is answered, and the commands before and after it run, with the Enter key of character
        mode."""
        cluster = await self.start_cluster(1)
        client = await self.intrude(cluster, 0)
        client.send(b"PUT colour blue\r\0" + INTERRUPT + b"GET colour\r\0")

        async def answered() -> bool:
            return WONT_TIMING_MARK in client.received and b'OK value="blue"' in client.received

        await self.wait_until("the answers", answered)

    async def test_negotiation_without_end_costs_a_bounded_sum(self) -> None:
        """A telnet client that sends megabytes of wishes and does not read costs a bounded sum, and does not hold up
        others for long."""
        cluster = await self.start_cluster(1)
        quiet = await self.quiet_p99(cluster)
        before = self.memory(cluster, 0)
        client = await self.intrude(cluster, 0)
        client.stop_reading()
        client.send(b"".join(b"\xff\xfd%c\xff\xfb%c" % (i % 255, i % 255) for i in range(1_000_000)))
        await self.require_in_time(cluster, quiet)
        self.assertLess(self.memory(cluster, 0) - before, GROWTH_BYTES_MAX)
