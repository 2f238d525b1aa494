"""Messages and exit statuses while servers are down (real processes): `pfsb client`, `pfsb status`, `pfsb why`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from pfsb.client import Clerk
from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase
from tests.integration.http_case import HTTPClusterCase

SECONDS = 60.0


class OutageCase(ClusterCase):
    async def pfsb(self, cluster: ProcessCluster, command: str, *words: str) -> tuple[int, str]:
        """Run `pfsb`. Returns the exit status, and standard output and error together."""
        program = [sys.executable, str(Path(sys.executable).with_name("pfsb")), command, "cluster.yaml", *words]
        found: Any = await deferToThread(
            subprocess.run,
            program,
            cwd=cluster.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return found.returncode, found.stdout


class OutageTests(OutageCase):
    async def test_one_of_three_servers_is_left_and_then_none(self) -> None:
        """With one of three servers left, and then with none, each command says which servers are up and how many are
        needed, with an exit status of its own."""
        cluster = await self.start_cluster(3)
        self.assertEqual((await self.pfsb(cluster, "client", "PUT", "a", "1"))[0], 0)
        self.assertEqual((await self.pfsb(cluster, "client", "GET", "nothing"))[0], 1)
        self.assertEqual((await self.pfsb(cluster, "client", "--id", "7"))[0], 2)
        status, text = await self.pfsb(cluster, "why")
        self.assertEqual(status, 0, text)
        self.assertIn("3 of 3 up, tolerates 1 more", text)
        await cluster.wait_equal()
        left, *others = cluster.ids
        await cluster.kill(*others)

        for level in ("stale", "sequential"):
            status, text = await self.pfsb(cluster, "client", "GET", "a", f"read={level}")
            self.assertEqual(status, 0, text)
            self.assertIn('OK value="1"', text)

        up = f"1 of 3 servers up ({left}), 2 needed"
        down = "servers " + ", ".join(f"{i} ({cluster.address(i).shown})" for i in others) + ": connection refused"
        status, text = await self.pfsb(cluster, "client", "--timeout", "3", "GET", "a")
        self.assertEqual(
            (status, text),
            (3, f"pfsb client: GET a: no answer within 3 s; {up}; {down}; fate=none: it did not happen\n"),
        )
        status, text = await self.pfsb(cluster, "client", "--timeout", "3", "PUT", "a", "2")
        self.assertEqual(status, 3, text)
        self.assertIn(f"no answer within 3 s; {up}; {down}; fate=", text)

        status, text = await self.pfsb(cluster, "status")
        self.assertEqual((status, text.splitlines()[-1]), (1, f"leads: none, {up}"))
        status, text = await self.pfsb(cluster, "status", "--json")
        found = json.loads(text)
        self.assertEqual((status, found["up"], found["down"], found["quorum"]), (1, [left], others, 2))
        status, text = await self.pfsb(cluster, "why")
        self.assertEqual(status, 1)
        self.assertIn(f"no majority: {up}; start 1 more at least ({down})\n", text)

        await cluster.kill(left)
        began = time.monotonic()
        status, text = await self.pfsb(cluster, "client", "PUT", "a", "2")
        self.assertLess(time.monotonic() - began, 20, "at once: the time limit is 30 s")
        self.assertEqual(status, 4, text)
        self.assertIn("no server can be reached: servers 0 (", text)
        self.assertIn("fate=none: it did not happen", text)

    async def test_command_that_was_sent_and_is_not_answered_may_have_happened(self) -> None:
        """When the majority is lost after the session was opened, a command that was sent has the fate unknown; further
        reads are answered by one server."""
        cluster = await self.start_cluster(3)
        clerk = await deferToThread(Clerk, [cluster.address(0).shown], timeout_seconds=5.0)
        self.addCleanup(deferToThread, clerk.close)
        await deferToThread(clerk.put, "a", "1")
        await cluster.kill(1, 2)
        self.assertEqual(await deferToThread(clerk.get, "a", read="stale"), "1")
        found = await self.failure(deferToThread(clerk.put, "a", "2"))
        self.assertEqual((found.code, found.fate), ("UNAVAILABLE", "unknown"))
        found = await self.failure(deferToThread(clerk.get, "a"))
        self.assertEqual((found.code, found.fate), ("UNAVAILABLE", "none"))

    async def failure(self, call: Any) -> Any:
        try:
            await call
        except Exception as error:
            return error
        raise AssertionError("the call was answered")


class TerminalTests(OutageCase):
    async def test_person_at_a_terminal_is_told_why_there_is_no_answer(self) -> None:
        """A person at a terminal is told why a command gets no answer. The command goes on, and its answer comes when
        there is a majority again."""
        cluster = await self.start_cluster(3)
        self.assertTrue((await cluster.ask(0, "PUT b 1")).ok)
        # A server that is killed before that is a newcomer again, which waits for both others.
        await cluster.wait_equal()
        await cluster.kill(1, 2)
        terminal, end = os.openpty()
        self.addCleanup(os.close, terminal)
        program = [sys.executable, str(Path(sys.executable).with_name("pfsb")), "client", "cluster.yaml"]
        home = {**os.environ, "HOME": str(self.directory().absolute()), "TERM": "dumb"}
        started = subprocess.Popen(program, cwd=cluster.directory, stdin=end, stdout=end, stderr=end, env=home)
        self.addCleanup(started.wait)
        self.addCleanup(started.kill)
        os.close(end)
        os.set_blocking(terminal, False)
        said = bytearray()

        async def says(text: str) -> None:
            async def look() -> bool:
                with contextlib.suppress(BlockingIOError):
                    said.extend(os.read(terminal, 65_536))
                return text.encode() in said

            await cluster.wait_for(f"the terminal to say {text}", look, SECONDS)

        await says("server 0> ")
        os.write(terminal, b"PUT a 1\n")
        await says("PUT a 1: no answer yet; 1 of 3 servers up (0), 2 needed; servers 1 (127.0.0.1:")
        cluster.start(1)
        await says("OK revision=")
        os.write(terminal, b"QUIT\n")
        self.assertEqual(await deferToThread(started.wait, SECONDS), 0)


class DoorTests(HTTPClusterCase):
    async def test_single_server_answers_what_it_knows_at_every_door(self) -> None:
        """A single server answers questions with read=stale and read=sequential at every door. A linearizable one is
        refused with fate=none."""
        cluster = await self.start_cluster(3, limits={"request_seconds": 2.0})
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("PUT a 1")).startswith("OK"))
        await cluster.wait_equal()
        await cluster.kill(1, 2)
        for level in ("stale", "sequential"):
            self.assertIn('value="1"', await visitor.ask(f"GET a read={level}"))
            answer = await self.curl(cluster, 0, "GET", f"/v1/kv/a?read={level}")
            self.assertEqual((answer.status, answer.content["value"]), (200, "1"))
        answer = await self.curl(cluster, 0, "GET", "/v1/kv/a")
        self.assertEqual((answer.status, answer.content["error"], answer.content["fate"]), (503, "UNAVAILABLE", "none"))
        answer = await self.curl(cluster, 0, "GET", "/v1/kv/a", Pfsb_Client="bob", Pfsb_Number="7")
        self.assertEqual((answer.status, answer.content["fate"]), (503, "none"))
        self.assertTrue((await visitor.ask("GET a")).startswith("ERR UNAVAILABLE fate=none "))
        other = await self.visit(cluster, 0)
        other.send(b"PUT a 2\r\nGET a\r\n")
        self.assertTrue((await other.reply()).startswith("ERR UNAVAILABLE fate=unknown "))
        self.assertTrue((await other.reply()).startswith("ERR UNAVAILABLE fate=none "))


class WhyTests(OutageCase):
    async def test_links_that_are_cut_are_told(self) -> None:
        """If links are cut so that no server leads, though all are up, `pfsb why` tells which servers do not hear each
        other, and which votes are missing."""
        cluster = await self.start_cluster(3, faults=True)
        for server_id in cluster.ids:
            others = ",".join(str(other) for other in cluster.ids if other != server_id)
            self.assertTrue((await cluster.ask(server_id, f"FAULT CUT {others}")).ok)

        async def none_leads() -> bool:
            states = [status["state"] for status in (await cluster.statuses()).values()]
            return states == ["LEADER_ELECTION"] * 3

        await cluster.wait_for("all to seek a leader", none_leads, SECONDS)
        await cluster.pause(1.5)
        status, text = await self.pfsb(cluster, "why")
        self.assertEqual(status, 1)
        self.assertIn("leads: none, 3 of 3 up", text)
        for server_id in cluster.ids:
            others = ", ".join(str(other) for other in cluster.ids if other != server_id)
            self.assertIn(f"server {server_id} does not hear servers {others}, which are up", text)
        self.assertRegex(
            text, r"view \d+ \(server \d would lead it\) has the votes of servers [\d, ]+ 2 needed; missing: "
        )
