"""Common parts of the tests of real servers over HTTP, which use curl as people do."""

from __future__ import annotations

import json
import shutil
from typing import Any

from attrs import frozen
from twisted.internet.utils import getProcessOutputAndValue

from pfsb.config.addresses import listens_at
from pfsb.demo.processes import ProcessCluster
from tests.integration.case import HEAR_SECONDS, ClusterCase, reactor

CURL = shutil.which("curl")


@frozen
class Answer:
    status: int
    headers: dict[str, str]
    """Headers by name in lower case."""
    content: dict[str, Any]


def port(cluster: ProcessCluster, server_id: int) -> int:
    endpoint = cluster.config.server(server_id).http
    assert endpoint is not None
    address = listens_at(endpoint)
    assert address is not None
    return address[1]


def url(cluster: ProcessCluster, server_id: int) -> str:
    return f"http://127.0.0.1:{port(cluster, server_id)}"


async def run(*command: str, seconds: float = HEAR_SECONDS, **more: Any) -> tuple[str, int]:
    """Run a program. Returns standard output followed by standard error, and the exit status."""
    out, err, status = await getProcessOutputAndValue(command[0], command[1:], **more).addTimeout(seconds, reactor)
    return (out + err).decode(), status


class HTTPClusterCase(ClusterCase):
    if CURL is None:
        skip = "curl is not installed"

    async def curl(
        self, cluster: ProcessCluster, server_id: int, method: str, path: str, body: object = None, **headers: str
    ) -> Answer:
        """Send a request. `headers` have _ for -. Fails if there is no answer at all."""
        assert CURL is not None
        command = [CURL, "-sSi", "-m", str(HEAR_SECONDS), "-X", method]
        for name, value in headers.items():
            command += ["-H", f"{name.replace('_', '-')}: {value}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        out, status = await run(*command, url(cluster, server_id) + path)
        if status:
            raise ConnectionError(out)
        head, _, content = out.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.splitlines()
        found = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Answer(int(first.split(" ")[1]), found, json.loads(content))
