"""Leaders of real clusters hand over: at SIGTERM, by LEAD and by preference (Departure 59)."""

from __future__ import annotations

import json
import re
from urllib.request import Request, urlopen

from twisted.internet.threads import deferToThread

from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase

EXPIRIES = re.compile(r"^pfsb_progress_timer_expiries_total (\d+)", re.MULTILINE)


class HandOverTests(ClusterCase):
    async def expiries(self, cluster: ProcessCluster, *server_ids: int) -> list[int]:
        """How often the Progress_Timers of these servers have expired since their starts."""
        return [await deferToThread(_expiries_at, _http(cluster, server_id)) for server_id in server_ids]

    async def test_leader_that_is_asked_to_stop_hands_over(self) -> None:
        """Under load another server leads before the leader has stopped, and no Progress_Timer expires."""
        cluster = await self.start_cluster(3)
        load = self.start_load(cluster, 3_000)
        await load.until(500)
        _, leader = await cluster.wait_leader()
        others = [server_id for server_id in cluster.ids if server_id != leader]
        before = await self.expiries(cluster, *others)
        self.assertEqual(await cluster.terminate(leader), 0)
        status = await cluster.status(others[0])
        self.assertIn(status["leader"], others)
        self.assertEqual(status["hand_over"]["followed"], 1)
        await self.finish_with(cluster, leader, load)
        self.assertEqual(await self.expiries(cluster, *others), before)
        self.assertIn("hands view", cluster.log_file(leader).read_text())

    async def finish_with(self, cluster: ProcessCluster, stopped: int, load: object) -> None:
        """Start the server again that was stopped; nothing is lost or doubled, and all servers are equal."""
        cluster.start(stopped)
        await cluster.wait_up([stopped])
        await self.finish(cluster, load)  # type: ignore[arg-type]

    async def test_lead(self) -> None:
        """A client of the leader lets another server lead, over the line protocol and over HTTP; mistakes are told."""
        cluster = await self.start_cluster(3)
        _, leader = await cluster.wait_leader()
        first, second = (server_id for server_id in cluster.ids if server_id != leader)
        before = await self.expiries(cluster, *cluster.ids)
        self.assertEqual((await cluster.ask(leader, f"LEAD {leader}")).fields["changed"], "no")
        self.assertRefused((await cluster.ask(leader, "LEAD 7")).line, "NOTFOUND")
        elsewhere = self.assertRefused((await cluster.ask(first, f"LEAD {second}")).line, "CONFLICT")
        self.assertIn(f"server {leader} leads now", elsewhere.text)
        reply = await cluster.ask(leader, f"LEAD {first}")
        self.assertEqual((reply.fields["leader"], reply.fields["changed"]), (first, "yes"))
        self.assertEqual((await cluster.status(first))["state"], "REG_LEADER")
        done = await deferToThread(_post_leader, _http(cluster, first), second)
        self.assertEqual((done["leader"], done["changed"]), (second, "yes"))
        self.assertEqual(await self.expiries(cluster, *cluster.ids), before)

    async def test_lead_refuses_a_server_that_is_not_heard(self) -> None:
        """LEAD refuses a server that is not heard, and the present leader leads on."""
        cluster = await self.start_cluster(3)
        _, leader = await cluster.wait_leader()
        gone = next(server_id for server_id in cluster.ids if server_id != leader)
        await cluster.kill(gone)
        await cluster.pause(1.5)
        said = self.assertRefused((await cluster.ask(leader, f"LEAD {gone}")).line, "UNAVAILABLE")
        self.assertIn(f"server {gone} is not heard; server {leader} leads on", said.text)
        self.assertEqual((await cluster.status(leader))["state"], "REG_LEADER")

    async def test_preferred_server_leads_again(self) -> None:
        """A preferred server that was stopped and is back leads within some seconds, once, and leads on."""
        cluster = await self.start_cluster(3, priority=[2])

        async def leads() -> bool:
            return (await cluster.wait_leader())[1] == 2

        await cluster.wait_for("the preferred server to lead", leads, 30)
        self.assertEqual(await cluster.terminate(2), 0)
        cluster.start(2)
        await cluster.wait_up([2])
        await cluster.wait_for("the preferred server to lead again", leads, 30)
        view = (await cluster.status(2))["view"]
        await cluster.pause(5)
        self.assertEqual((await cluster.status(2))["view"], view)

    async def test_rolling_restart_under_load(self) -> None:
        """All servers are stopped and started, one after the other, while clients work: nothing is lost or doubled, and
        no Progress_Timer of another server expires."""
        cluster = await self.start_cluster(3)
        load = self.start_load(cluster, 12_000, clients=40)
        await load.until(500)
        for server_id in cluster.ids:
            others = [each for each in cluster.ids if each != server_id]
            before = await self.expiries(cluster, *others)
            self.assertEqual(await cluster.terminate(server_id), 0)
            self.assertEqual(await self.expiries(cluster, *others), before)
            cluster.start(server_id)
            await cluster.wait_up([server_id])
            await cluster.wait_leader()
        await self.finish(cluster, load)


def _http(cluster: ProcessCluster, server_id: int) -> str:
    endpoint = cluster.config.server(server_id).http
    assert endpoint is not None, "each server of these clusters has a port for HTTP"
    return f"http://127.0.0.1:{endpoint.split(':')[1]}"


def _expiries_at(url: str) -> int:
    with urlopen(f"{url}/metrics", timeout=10) as answer:
        found = EXPIRIES.search(answer.read().decode())
    assert found is not None, "the metric is there"
    return int(found[1])


def _post_leader(url: str, server_id: int) -> dict[str, object]:
    body = json.dumps({"server": server_id}).encode()
    request = Request(f"{url}/v1/leader", body, {"Content-Type": "application/json"}, method="POST")
    with urlopen(request, timeout=10) as answer:
        done: dict[str, object] = json.loads(answer.read())
    return done
