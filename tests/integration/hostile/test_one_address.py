"""The clients of one address have a bounded share of a server's connections and sessions (real processes)."""

from __future__ import annotations

from random import Random

from pfsb.demo.processes import free_ports
from tests.integration.hostile.case import HostileCase
from tests.integration.http_case import port


class OneAddressTests(HostileCase):
    async def test_connections_of_one_address_at_all_doors(self) -> None:
        """The clients of one address have a maximum number of connections at all doors together. Another address still
        gets in, and so does the first one when it has closed a connection."""
        peer, client, http = free_ports(3, Random())
        servers = {
            0: {"peer": f"127.0.0.1:{peer}", "client": f"tcp:{client}", "http": f"tcp:{http}:interface=127.0.0.1"}
        }
        cluster = await self.start_cluster(1, servers=servers, limits={"address_connections": 6})
        inside = await self.connect_many(cluster, 5, f"tcp:127.0.0.1:{client}")
        inside.append(await self.connect(f"tcp:127.0.0.1:{port(cluster, 0)}"))
        await self.pause(0.5)
        for endpoint in (f"tcp:127.0.0.1:{client}", f"tcp:127.0.0.1:{http}"):
            refused = await self.connect(endpoint)
            self.assertRegex(await self.require_closed(refused), "BUSY.*address")
        other = await self.connect(f"tcp:127.0.0.1:{client}:bindAddress=127.0.0.2")

        async def greeted() -> bool:
            return other.received.startswith(b"* WELCOME ")

        await self.wait_until("the greeting", greeted)
        await inside[0].hang_up()
        again = await self.connect(f"tcp:127.0.0.1:{client}")
        await self.pause(0.5)
        self.assertFalse(again.is_gone)

    async def test_sessions_of_one_address(self) -> None:
        """The clients of one address have a maximum number of sessions. Closed ones do not count, and an open one may
        be taken over."""
        cluster = await self.start_cluster(1, limits={"address_sessions": 3, "opened_sessions": 100})
        first, second = await self.visit(cluster, 0), await self.visit(cluster, 0)
        for name in ("a", "b"):
            self.assertTrue((await first.ask(f"HELLO {name} ttl=60")).startswith("OK"))
        self.assertTrue((await second.ask("HELLO c ttl=60")).startswith("OK"))
        self.assertRefused(await first.ask("HELLO d ttl=60"), "BUSY")
        self.assertTrue((await first.ask("HELLO a ttl=60")).startswith("OK"))
        self.assertEqual(await second.ask("BYE"), "OK")
        await self.pause(1.2)
        self.assertTrue((await first.ask("HELLO d ttl=60")).startswith("OK"))
