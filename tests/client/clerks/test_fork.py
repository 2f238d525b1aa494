"""A clerk in a child of `fork`: every call fails at once, and the parent's session is left alone (real processes)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

import pfsb
from tests.client.cluster import LoopbackTestCase

BLOCKING = """
import os, sys
from pfsb.client import BadCall, Clerk

with Clerk(sys.argv[1:]) as clerk:
    with clerk.lock("door") as held:
        child = os.fork()
        if child == 0:
            try:
                for call in (lambda: clerk.incr("n"), lambda: next(iter(clerk.listen())), lambda: clerk.run_all([])):
                    try:
                        call()
                    except BadCall as error:
                        assert (error.code, error.fate) == ("FORKED", "none"), error
                        assert str(os.getppid()) in error.text, error
                    else:
                        os._exit(1)
                clerk.close()
                with Clerk(sys.argv[1:]) as own:
                    own.incr("n")
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(2)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        held.check()
    print(status, clerk.incr("n"))
"""
POOL = """
import multiprocessing, sys
from pfsb.client import BadCall, Clerk

def call(_n):
    try:
        return clerk.incr("n")
    except BadCall as error:
        return error.code

if __name__ == "__main__":
    with Clerk(sys.argv[1:]) as clerk:
        clerk.incr("n")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(*pool.map(call, range(4)), clerk.incr("n"))
"""
ASYNCIO = """
import asyncio, os, sys
from pfsb.client import AsyncClerk, BadCall

async def call(clerk):
    return await clerk.incr("n")

clerk = AsyncClerk(sys.argv[1:])
child = os.fork()
if child == 0:
    try:
        asyncio.run(call(clerk))
    except BadCall as error:
        print(error.code, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(asyncio.run(call(clerk)))
try:
    asyncio.run(call(clerk))
except BadCall as error:
    print(error.code, error.fate)
"""
SAME_LOOP = """
import asyncio, os, sys
from pfsb.client import AsyncClerk, BadCall

loop = asyncio.new_event_loop()

async def call(clerk):
    return await asyncio.wait_for(clerk.incr("n"), 5)

async def make():
    return AsyncClerk(sys.argv[1:])

clerk = loop.run_until_complete(make())
loop.run_until_complete(call(clerk))
child = os.fork()
if child == 0:
    try:
        loop.run_until_complete(call(clerk))
    except BadCall as error:
        print(error.code, error.fate, flush=True)
    except BaseException as error:
        print(repr(error), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(loop.run_until_complete(call(clerk)))
loop.run_until_complete(clerk.close())
"""
OUTLIVED = """
import os, signal, sys, time
from pfsb.client import Clerk

clerk = Clerk(sys.argv[1:])
with clerk.lock("door"):
    child = os.fork()
    if child == 0:
        os.close(1)
        os.close(2)
        time.sleep(30)
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


class ForkTests(LoopbackTestCase):
    timeout = 60

    def run_program(self, program: str) -> Deferred[Any]:
        environment = {**os.environ, "PYTHONPATH": str(Path(pfsb.__file__).resolve().parents[1])}
        command = [sys.executable, "-c", program, *[address.shown for address in self.cluster.addresses]]

        def run() -> str:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
            return done.stdout + done.stderr

        return deferToThread(run)

    async def test_calls_of_a_child_fail_at_once_and_the_parent_goes_on(self) -> None:
        """Calls of a blocking clerk in a child of `fork` fail at once, and the clerk of the parent goes on. The child
        once waited for ever for a thread that only the parent has. A new clerk works in the child."""
        self.assertEqual(await self.run_program(BLOCKING), "0 2\n")

    async def test_calls_of_a_pool_of_processes_fail_at_once(self) -> None:
        self.assertEqual(await self.run_program(POOL), "FORKED FORKED FORKED FORKED 2\n")

    async def test_asyncio_clerk_belongs_to_its_process_and_to_its_loop(self) -> None:
        """An asyncio clerk fails in another process and in another loop: two children with one client id would take the
        session from each other."""
        self.assertEqual(await self.run_program(ASYNCIO), "FORKED\n1\nOTHERLOOP none\n")

    async def test_asyncio_clerk_fails_in_a_child_that_goes_on_with_the_same_loop(self) -> None:
        """An asyncio clerk fails in a child that goes on with the same loop: the child's copy of the connection leads
        to the null device."""
        self.assertEqual(await self.run_program(SAME_LOOP), "FORKED none\n2\n")

    async def test_child_does_not_keep_the_connection_of_a_parent_that_was_killed(self) -> None:
        """When a parent was killed, its child does not keep the connection open: otherwise the servers would see the
        client as long as the child lives, and its locks would stay held."""
        child = int((await self.run_program(OUTLIVED)).split()[0])
        try:
            await self.until(lambda: not any(member.factory.connections for member in self.cluster.members))
            os.kill(child, 0)  # raises an exception unless the child lives
        finally:
            os.kill(child, 9)
