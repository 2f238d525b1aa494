"""The five lines of Python in the README do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

from twisted.internet.threads import deferToThread

import pfsb
from tests.client.cluster import LoopbackTestCase
from tests.commands.test_client import config_file

README = Path(pfsb.__file__).resolve().parents[1] / "README.rst"


class HeardEnough(Exception):
    """Raised to end the program of the README, which would listen for ever."""


class ReadmeTests(LoopbackTestCase):
    def program(self) -> str:
        """The block of code under "Five lines of Python"."""
        text = README.read_text(encoding="utf-8").split("Five lines of Python\n")[1]
        found = re.search(r"::\n\n((?:    .*\n)+)", text)
        assert found is not None
        return dedent(found[1])

    async def test_five_lines_take_a_lock_write_a_key_and_listen(self) -> None:
        ports = [member.port.getHost().port for member in self.cluster.members]
        file = config_file(self.mktemp(), [f"tcp:{port}:interface=127.0.0.1" for port in ports])
        program = self.program()
        self.assertEqual((len(program.splitlines()), program.count("etc/four.yaml")), (5, 1))
        await self.client(client_id="bob").command("SAY hello")
        heard: list[Any] = []

        def show(*what: Any) -> None:
            heard.append(what)
            raise HeardEnough

        code = compile(program.replace("etc/four.yaml", file), "README.rst", "exec")
        await self.assertFailure(deferToThread(exec, code, {"print": show}), HeardEnough)
        self.assertEqual(heard, [("bob", "hello")])
        did = [command[:2] for _, _, command in self.cluster.shared.executed]
        self.assertEqual(did, [("SAY", "hello"), ("LOCK", "printer"), ("PUT", b"owner"), ("UNLOCK", "printer")])
