"""The client libraries of Redis for Node.js against real servers: node-redis and ioredis.

`.ci/run` installs them in `tests/integration/node`; by hand, `npm ci` does it there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from twisted.internet.utils import getProcessOutputAndValue

from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase, reactor
from tests.integration.redis_case import client_port

PROGRAM_SECONDS: Final = 60.0
DIRECTORY: Final = Path(__file__).parent / "node"
NODE: Final = shutil.which("node")
MISSING: Final = [name for name in ("redis", "ioredis") if not (DIRECTORY / "node_modules" / name).is_dir()]


def why_skipped() -> str:
    if NODE is None:
        return "node is not installed"
    return f"{' and '.join(MISSING)} are not installed: run npm ci in {DIRECTORY}" if MISSING else ""


class NodeLibraryTests(ClusterCase):
    if why_skipped():
        skip = why_skipped()

    async def run_program(self, cluster: ProcessCluster, server_id: int, program: str, *arguments: str) -> None:
        """Runs a program of `tests/integration/node`, which must come to its end."""
        assert NODE is not None
        command = (str(DIRECTORY / program), str(client_port(cluster, server_id)), *arguments)
        started = getProcessOutputAndValue(NODE, command, env=dict(os.environ), path=str(DIRECTORY), reactor=reactor)
        out, err, status = await started.addTimeout(PROGRAM_SECONDS, reactor)
        self.assertEqual((status, out.decode()), (0, "done\n"), err.decode())

    async def test_node_redis_does_what_it_does_elsewhere(self) -> None:
        """node-redis does the same with pfsb as with Redis, in both versions of the protocol, at different servers."""
        cluster = await self.start_cluster(3)
        await self.run_program(cluster, 0, "redis.mjs", "2")
        await self.run_program(cluster, 2, "redis.mjs", "3")

    async def test_ioredis_does_what_it_does_elsewhere(self) -> None:
        cluster = await self.start_cluster(3)
        await self.run_program(cluster, 1, "ioredis.mjs")
