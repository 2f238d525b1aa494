from __future__ import annotations

from tests.transports import every_transport
from tests.transports.transport_case import FakeNames


class DeliveryTests(every_transport.DeliveryTests):
    kinds = ("tls",)


class RefusalTests(every_transport.RefusalTests):
    absent = frozenset({2})
    kinds = ("tls",)


class SourceTests(every_transport.SourceTests):
    kinds = ("tls",)


class NameTests(every_transport.NameTests):
    kinds = ("tls",)

    async def test_without_a_secret_the_new_address_counts_only_when_the_name_has_it(self) -> None:
        """Not so with TLS: the certificate proves more than the address, so the new address counts at once."""
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        await b[0].stop()
        self.names = FakeNames(**{**self.names.hosts, "db1": "127.0.0.7"})
        await self.exchange(a, self.start(1))
        self.assertEqual(a[0].counters.addresses[1], f"127.0.0.7:{self.addresses[1][1]}")


class StartAndStopTests(every_transport.StartAndStopTests):
    kinds = ("tls",)
