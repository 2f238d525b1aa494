"""The locks of clients that die are free soon, whatever the server is doing with their connections (real processes)."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from pfsb.demo.processes import ProcessCluster
from pfsb.frontends.stream.hang_ups import SILENCE_MS_MAX
from tests.integration.case import Visitor, reactor
from tests.integration.hostile.case import FREE_SECONDS, REQUEST, TTL_SECONDS, HostileCase
from tests.integration.small_network import NoNamespaces, SmallNetwork
from tests.long import longest

WINDOW = 8
VANISHED_SECONDS = TTL_SECONDS + 30.0
RESP_LOCK = b"*2\r\n$4\r\nLOCK\r\n$%d\r\n%s\r\n"
RESP_PING = b"*1\r\n$4\r\nPING\r\n"

CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
f = s.makefile("rb")
f.readline()
for line in ("HELLO vanished ttl=%s" % sys.argv[3], "LOCK printer", "LISTEN"):
    s.sendall(line.encode() + b"\\n")
    assert f.readline().startswith(b"OK")
print("ready", flush=True)
time.sleep(300)
"""
"""A program that takes a lock and listens to the chat."""


TALKER = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
f = s.makefile("rb")
f.readline()
s.sendall(b"SAY are you there?\\n")
assert f.readline().startswith(b"OK")
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    s.sendall(b"TRYLOCK printer\\n")
    if f.readline().startswith(b"OK"):
        print("free")
        break
    time.sleep(0.2)
"""
"""A program that says something in the chat, and then asks for the lock until it is free."""


class DeadClientTests(HostileCase):
    async def require_free(self, visitor: Visitor, name: str, seconds: float = FREE_SECONDS) -> None:
        """Wait until a lock is free that is held at first."""
        self.assertIn(f'name="{name}"', "".join(await self.locks(visitor)))

        async def free() -> bool:
            return f'name="{name}"' not in "".join(await self.locks(visitor))

        await self.wait_until(f"the lock {name} of the dead client to be free", free, seconds)

    async def locks(self, visitor: Visitor) -> list[str]:
        visitor.send(b"LOCKS\r\n")
        rows = []
        while not (line := await visitor.hear()).startswith("OK"):
            rows.append(line)
        return rows

    async def holder(self, cluster: ProcessCluster) -> Visitor:
        """Connect a client that holds the lock "busy" as long as the test runs."""
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("LOCK busy")).startswith("OK"))
        return visitor

    async def die_with_full_window(self, cluster: ProcessCluster) -> None:
        """Kill a client of the line protocol that waits for as many locks as it may, and for one more."""
        client = await self.intrude(cluster, 0)
        client.send(b"HELLO dead ttl=%d\nLOCK printer\n" % TTL_SECONDS)
        await self.wait_until("the lock", lambda: self.heard(client, b'name="printer"'))
        client.send(b"LOCK busy\n" * (WINDOW + 1))
        await self.pause(0.5)
        await client.hang_up()

    async def test_lines(self) -> None:
        cluster = await self.start_cluster(1, limits={"session_window": WINDOW})
        visitor = await self.holder(cluster)
        await self.die_with_full_window(cluster)
        await self.require_free(visitor, "printer")

    async def test_lines_over_a_unix_socket(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="pfsb-"))
        self.addCleanup(shutil.rmtree, directory)
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            peer = f"127.0.0.1:{probe.getsockname()[1]}"
        servers = {0: {"peer": peer, "client": f"unix:{directory}/client"}}
        cluster = await self.start_cluster(1, servers=servers, limits={"session_window": WINDOW})
        visitor = await self.holder(cluster)
        await self.die_with_full_window(cluster)
        await self.require_free(visitor, "printer")

    async def test_redis(self) -> None:
        """The lock of a client of Redis that dies is free soon, although it waits for another lock with more commands
        behind it than the server takes meanwhile."""
        cluster = await self.start_cluster(1, limits={"session_window": WINDOW})
        visitor = await self.holder(cluster)
        client = await self.intrude(cluster, 0)
        client.send(RESP_LOCK % (7, b"printer"))
        await self.wait_until("the lock", lambda: self.heard(client, b":"))
        client.send(RESP_LOCK % (4, b"busy") + RESP_PING * 20_000)
        await self.pause(0.5)
        await client.hang_up()
        await self.require_free(visitor, "printer")

    async def test_http(self) -> None:
        """The lock of an HTTP client that dies is free soon, although it waits an hour for another lock with more
        requests behind it than Twisted reads meanwhile."""
        cluster = await self.start_cluster(1)
        visitor = await self.holder(cluster)
        client = await self.wait_by_http(cluster, "dead")
        await self.pause(0.2)
        status = REQUEST.format(method="GET", path="/v1/status", more="", body="", client="dead", ttl=TTL_SECONDS)
        client.send(status.encode() * 1_000)
        await self.pause(0.5)
        await client.hang_up()
        await self.require_free(visitor, "printer")


@longest
class VanishedMachineTests(HostileCase):
    async def test_machine_that_vanishes_with_data_under_way(self) -> None:
        """The lock of a client whose machine vanishes is free soon, although the server has sent chat lines that are
        never acknowledged, so that no keep-alive is sent."""
        self.assertLess(SILENCE_MS_MAX / 1_000, 30)
        if not sys.platform.startswith("linux"):
            raise SkipTest("network namespaces are a part of Linux")
        network = SmallNetwork(2)
        try:
            await deferToThread(network.start)
        except NoNamespaces as error:
            raise SkipTest(f"no network namespaces here: {error}") from error
        self.addCleanup(deferToThread, network.stop)
        directory = Path(tempfile.mkdtemp(prefix="pfsb-"))
        self.addCleanup(shutil.rmtree, directory)
        servers = {0: {"peer": f"{network.address(0)}:7400", "client": "tcp:9400"}}
        prefixes = {0: ("ip", "netns", "exec", network.namespace(0))}
        cluster = ProcessCluster(reactor, directory, 1, changes={"servers": servers}, prefixes=prefixes)
        self.addCleanup(cluster.stop)
        cluster.start(0)
        command = ("ip", "netns", "exec", network.namespace(1), sys.executable, "-c", CLIENT)
        client = await self.start_client(command, network)
        silent = ("ip", "-n", network.namespace(1), "link", "set", "eth0", "down")
        await deferToThread(subprocess.run, silent, check=True, timeout=20)
        started = reactor.seconds()
        inside = ("ip", "netns", "exec", network.namespace(0), sys.executable, "-c", TALKER, network.address(0), "9400")
        said = await deferToThread(
            subprocess.run, [*inside, str(VANISHED_SECONDS + 5)], capture_output=True, timeout=90
        )
        seconds = reactor.seconds() - started
        client.send_signal(signal.SIGKILL)
        client.wait(20)
        self.assertEqual(said.stdout.strip(), b"free", said)
        self.assertLess(seconds, VANISHED_SECONDS + 5, "the time of a busy machine is included")

    async def start_client(self, command: tuple[str, ...], network: SmallNetwork) -> subprocess.Popen[bytes]:
        """Start `CLIENT`, again and again until the server is there, and wait until it has the lock."""
        for _ in range(60):
            client = subprocess.Popen(
                [*command, network.address(0), "9400", str(TTL_SECONDS)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self.addCleanup(client.kill)
            assert client.stdout is not None
            if await deferToThread(client.stdout.readline) == b"ready\n":
                return client
            client.wait(20)
            await self.pause(0.5)
        raise AssertionError("the client has not got its lock")
