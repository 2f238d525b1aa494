"""AsyncioDriver, over sockets of the file system."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.actions import Connect, HangUp, Send
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.drivers.asyncio import AsyncioDriver
from tests.client.drivers.core import ScriptedCore

SECONDS = 10.0
"""How long, in seconds, a test waits for an event at most."""


@define(eq=False)
class Stage:
    """A driver with its core, and a listening socket that takes its connections."""

    driver: AsyncioDriver
    core: ScriptedCore
    listening: socket.socket
    address: ServerAddress
    loop: asyncio.AbstractEventLoop
    connections: list[socket.socket] = field(factory=list)

    def do(self, *actions: Any) -> None:
        self.core.actions += actions
        self.driver.act()

    async def accept(self) -> socket.socket:
        """The next connection of the driver, once the driver knows that it is made."""
        known = self.core.events.count("connected")
        connection, _ = await asyncio.wait_for(self.loop.sock_accept(self.listening), SECONDS)
        self.connections.append(connection)
        await self.until(lambda: self.core.events.count("connected") > known)
        return connection

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not happened():
                await asyncio.sleep(0.001)


class AsyncioDriverTests(SynchronousTestCase):
    def play(self, script: Callable[[Stage], Awaitable[None]]) -> ScriptedCore:
        """Run a test with a driver that has been told to connect. Returns the core."""

        async def run(directory: str) -> ScriptedCore:
            place = str(Path(directory) / "server")
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(place)
                listening.listen()
                listening.setblocking(False)
                address = ServerAddress(0, f"unix:{place}", place)
                core, loop = ScriptedCore(actions=[Connect(address)]), asyncio.get_running_loop()
                stage = Stage(AsyncioDriver(core, loop), core, listening, address, loop)
                stage.driver.start()
                await script(stage)
                await stage.driver.stop()
                stage.do(HangUp(at_once=True))
                for connection in stage.connections:
                    connection.close()
            return core

        with TemporaryDirectory() as directory:
            return asyncio.run(run(directory))

    def test_events_of_a_connection_reach_the_core_in_order(self) -> None:
        async def script(stage: Stage) -> None:
            connection = await stage.accept()
            connection.sendall(b"* HELLO\n")
            await stage.until(lambda: b"* HELLO\n" in stage.core.events)
            connection.close()
            await stage.until(lambda: len(stage.core.events) > 3)

        self.assertEqual(
            self.play(script).events,
            ["start", "connected", b"* HELLO\n", "lost: the server has closed the connection", "stop"],
        )

    def test_server_that_takes_no_connection_is_lost(self) -> None:
        async def script(stage: Stage) -> None:
            await stage.accept()
            stage.listening.close()
            stage.do(HangUp(at_once=True), Connect(stage.address))
            await stage.until(lambda: len(stage.core.events) > 2)

        self.assertIn("refused", str(self.play(script).events[2]))

    def test_what_is_sent_arrives(self) -> None:
        async def script(stage: Stage) -> None:
            connection = await stage.accept()
            stage.do(Send(b"GET a\n"), Send(b"GET b\n"))
            arrived = b""
            while len(arrived) < 12:
                arrived += await asyncio.wait_for(stage.loop.sock_recv(connection, 100), SECONDS)
            self.assertEqual(arrived, b"GET a\nGET b\n")

        self.play(script)

    def test_connection_that_the_core_has_left_is_not_heard_any_more(self) -> None:
        """Bytes of a connection that the core has left are not passed to the core: they would be taken for those of the
        next connection."""

        async def script(stage: Stage) -> None:
            connection = await stage.accept()
            connection.sendall(b"late\n")
            stage.do(HangUp(at_once=False), Connect(stage.address))
            await stage.accept()

        self.assertEqual(self.play(script).events, ["start", "connected", "connected", "stop"])

    def test_attempt_that_was_given_up_tells_nothing(self) -> None:
        """The end of an attempt that the core has given up is not told to it: the core has gone to another server by
        then."""

        async def script(stage: Stage) -> None:
            stage.do(HangUp(at_once=True), Connect(stage.address))
            await stage.accept()
            await asyncio.sleep(0.01)

        self.assertEqual(self.play(script).events, ["start", "connected", "stop"])

    def test_core_is_woken_at_its_time_and_not_again(self) -> None:
        async def script(stage: Stage) -> None:
            await stage.accept()
            began = stage.core.wake_at = stage.driver.now + 0.02
            stage.driver.act()
            await stage.until(lambda: "woken" in stage.core.events)
            self.assertGreaterEqual(stage.driver.now, began)
            await asyncio.sleep(0.05)

        self.assertEqual(self.play(script).events.count("woken"), 1)

    def test_earlier_time_moves_the_timer(self) -> None:
        """The timer is moved if the core's next time has become earlier. If it has become later, the core is woken for
        nothing, which is cheaper than a new timer."""

        async def script(stage: Stage) -> None:
            for seconds in (2 * SECONDS, 0.01):
                stage.core.wake_at = stage.driver.now + seconds
                stage.driver.act()
            await stage.until(lambda: "woken" in stage.core.events)

        self.play(script)
