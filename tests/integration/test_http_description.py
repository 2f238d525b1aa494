"""The OpenAPI description against a running server, by a tester that makes requests of it (schemathesis).

It sends what the description allows, and what it forbids, and looks whether the answers are those that it names.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pfsb.frontends.http.server_info import description
from tests.integration.http_case import HTTPClusterCase, run, url
from tests.long import IS_LONG

PHASES = "coverage,fuzzing" if IS_LONG else "coverage"
"""The phases of the tester: it tries all limits of all schemas, and with `make test-all` values at random as well."""
EXAMPLES: int = 5
"""Number of examples for each operation and kind."""
CPU_SECONDS = 150
"""Maximum CPU time of the tester, in seconds, which takes about 25. It ends a tester that does not come to an end,
however busy the machine is."""
REQUEST_SECONDS = 30
"""How long, in seconds, the tester waits for an answer before it fails."""
TEST_SECONDS = 900.0
"""Maximum time of the tester, in seconds: enough on a machine that gives it a thirtieth of a core."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", 503]
"""
"""Settings of the tester: the status 503 says that the cluster cannot do something just now, and is no failure of the
server."""


def with_clients_of(operation: str, parameter: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """A parameter of an operation; if it is the name of a client, the name begins with that of the operation."""
    found = known[parameter["$ref"].rpartition("/")[2]]
    if found["name"] != "Pfsb-Client":
        return parameter
    return {**found, "schema": {"type": "string", "pattern": f"^{operation}[A-Za-z0-9_.-]{{0,40}}$"}}


class DescriptionTests(HTTPClusterCase):
    if find_spec("schemathesis") is None:
        skip = "schemathesis is not installed (pip install 'pfsb[test]')"
    timeout = TEST_SECONDS + 60.0

    async def test_no_answer_that_is_not_described(self) -> None:
        """No request of the tester makes the server fail, and every answer is one that the description has."""
        cluster = await self.start_cluster(1, limits={"request_seconds": 0.5})
        self.write_description(cluster.directory)
        (cluster.directory / "settings.toml").write_text(SETTINGS)
        arguments = ["--config-file", "settings.toml", "run", "description.json", "--url", url(cluster, 0)]
        arguments += ["--phases", PHASES, "--max-examples", str(EXAMPLES), "--seed", "1", "--no-shrink"]
        arguments += ["--checks", ",".join(CHECKS), "--request-timeout", str(REQUEST_SECONDS)]
        # The shell stays as the parent, and turns the signal at the end of the CPU time into an exit status.
        within = ("sh", "-c", f'ulimit -t {CPU_SECONDS}; "$@"; exit $?', "sh")
        command = (*within, sys.executable, "-m", "schemathesis.cli", *arguments)
        out, status = await run(*command, seconds=TEST_SECONDS, path=str(cluster.directory))
        self.assertEqual(status, 0, out[-4_000:])
        self.assertIn("Coverage", out)
        self.assertNotIn("Traceback", cluster.log_file(0).read_text())

    def write_description(self, directory: Path) -> None:
        """The description without streams of events and without long waits for locks, which would not end in time.

        Each operation has clients of its own. Otherwise two operations could send one command number of one client, and
        the second would rightly be given the answer of the first, which its description does not have.
        """
        content = json.loads(json.dumps(description()))
        del content["paths"]["/v1/events"]
        for operation in (each for methods in content["paths"].values() for each in methods.values()):
            operation["parameters"] = [
                with_clients_of(operation["operationId"], parameter, content["components"]["parameters"])
                for parameter in operation.get("parameters", ())
            ]
        content["components"]["schemas"]["Lock"]["properties"]["wait"]["maximum"] = 0.2
        (directory / "description.json").write_text(json.dumps(content))
