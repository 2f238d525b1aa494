"""docs/applications.rst: the code and the dialogues of the page, exactly as they stand there, on real servers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any
from unittest import SkipTest

from twisted.internet.threads import deferToThread

import pfsb
from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase, Visitor
from tests.integration.http_case import port, run

ROOT = Path(pfsb.__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "applications.rst").read_text(encoding="utf-8")
BLOCK = re.compile(r"^\.\. code-block:: \w+\n    :caption: (.+)\n\n((?:    .*\n|\n)+)", re.MULTILINE)
LITERAL = re.compile(r"^::\n\n((?:    .*\n|\n)+)", re.MULTILINE)


def blocks() -> dict[str, str]:
    """The code and the dialogues of the page, by their captions."""
    return {caption: dedent(text).rstrip("\n") + "\n" for caption, text in BLOCK.findall(PAGE)}


def programs() -> list[tuple[str, str]]:
    """The (command, output) pairs of the page that are in no block with a caption."""
    found = [dedent(text).strip().split("\n", 1) for text in LITERAL.findall(PAGE)]
    return [(command.removeprefix("$ "), output) for command, output in found]


class PageTests(ClusterCase):
    timeout = 240

    def write_files(self) -> Path:
        folder = self.directory().absolute()
        for caption, text in blocks().items():
            if caption.endswith((".py", ".yaml")):
                path = folder / caption
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        return folder

    async def test_everything_on_the_page_is_so(self) -> None:
        folder = self.write_files()
        path = os.pathsep.join(filter(None, [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": path})
        test, client = programs()
        await self.run_tests(folder, *test)
        cluster, ports = await self.start_servers(folder)
        await self.type_lines(cluster, blocks()["the line protocol"])
        await self.ask_with_curl(ports, blocks()["HTTP"])
        await self.ask_with_resp(ports, blocks()["RESP"])
        await self.run_client(folder, *client)

    async def run_tests(self, folder: Path, command: str, output: str) -> None:
        program, *arguments = shlex.split(command)
        self.assertEqual(program, "python")
        said, status = await run(sys.executable, *arguments, path=str(folder), env=dict(os.environ), seconds=120)
        self.assertEqual((status, output in said), (0, True), said)

    async def start_servers(self, folder: Path) -> tuple[ProcessCluster, dict[str, str]]:
        """Start the servers of todo.yaml at free ports. Returns the cluster, and for each port of the page the port
        that stands for it."""
        cluster = self.make_cluster(3)
        ports = {}
        for server in cluster.config.servers.values():
            ports[f"746{server.id}"] = str(server.peer[1])
            ports[f"846{server.id}"] = str(port(cluster, server.id))
            ports[f"946{server.id}"] = cluster.address(server.id).shown.rpartition(":")[2]
        for file in (folder / "todo.yaml", cluster.directory / "cluster.yaml"):
            file.write_text(in_place(blocks()["todo.yaml"], ports))
        await cluster.start_all()
        return cluster, ports

    async def type_lines(self, cluster: ProcessCluster, dialogue: str) -> None:
        visitor = await self.visit(cluster, 0)
        lines = dialogue.splitlines()
        while lines:
            visitor.send(lines.pop(0).encode() + b"\r\n")
            await self.hear_reply(visitor, lines)

    async def hear_reply(self, visitor: Visitor, lines: list[str]) -> None:
        while True:
            wanted = lines.pop(0)
            self.assertEqual((await visitor.hear()).rstrip(), wanted)
            if not wanted.startswith("+"):
                return

    async def ask_with_curl(self, ports: dict[str, str], dialogue: str) -> None:
        if shutil.which("curl") is None:
            raise SkipTest("curl is not installed")
        lines = dialogue.splitlines()
        for command, answer in zip(lines[::2], lines[1::2], strict=True):
            said, status = await run(*shlex.split(in_place(command.removeprefix("$ "), ports)))
            self.assertEqual((said.strip(), status), (answer, 0))

    async def ask_with_resp(self, ports: dict[str, str], dialogue: str) -> None:
        """Send what redis-cli would send, and print the reply as redis-cli would print it, since few machines have that
        program."""
        command, *shown = dialogue.splitlines()
        program, option, on_page, *words = shlex.split(command.removeprefix("$ "))
        self.assertEqual((program, option), ("redis-cli", "-p"))
        reply = await deferToThread(ask_redis, int(ports[on_page]), words)
        self.assertEqual([f"{n}) {item}" for n, item in enumerate(reply, 1)], shown)

    async def run_client(self, folder: Path, command: str, output: str) -> None:
        program, *arguments = shlex.split(command)
        self.assertEqual(program, "python")
        said, status = await run(sys.executable, *arguments, path=str(folder), env=dict(os.environ))
        self.assertEqual((said.strip(), status), (output, 0))


def in_place(text: str, instead: dict[str, str]) -> str:
    """The text, with the ports of the page replaced by those in use."""
    return re.sub(r"\b[789]46[0-2]\b", lambda found: instead[found[0]], text)


def ask_redis(port: int, words: list[str]) -> list[str]:
    """The items of an array that answers a command, in the form of redis-cli."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, connection.makefile("rb") as replies:
        connection.sendall(request.encode())
        head = replies.readline()
        assert head.startswith(b"*"), head
        return [_item(replies) for _ in range(int(head[1:]))]


def _item(replies: Any) -> str:
    head: bytes = replies.readline().strip()
    if head.startswith(b":"):
        return f"(integer) {int(head[1:])}"
    assert head.startswith(b"$"), head
    text: str = replies.read(int(head[1:]) + 2)[:-2].decode()
    return f'"{text}"'


WRONG = {
    'return Done((("number", self.last), ("revision", context.revision)))': (
        'return {"number": self.last}',
        "TODO is answered with {'number': 1}: ",
    ),
    "return msgpack.packb((self.last, list(self.entries.items())))": (
        "return str((self.last, self.entries))",
        "snapshot() returns a str; the whole state must be bytes",
    ),
    'lambda asked: ("TODOS", *asked.words(0, 0))': (
        'lambda asked: ["TODOS"]',
        "check has returned ['TODOS']; a command is a tuple that begins with a verb",
    ),
    "self.entries = dict(entries)": (
        "pass",
        "restore(snapshot) gives another state",
    ),
    "def todo(self, command, context):": (
        "def todo(self, command, context, more):",
        "the function of TODO must take (command, context)",
    ),
}
"""Line of the code of the page -> (a line with a mistake in its place, the text with which a server refuses the
application)."""


class RefusalTests(ClusterCase):
    timeout = 120

    async def test_wrong_application_is_refused_before_it_runs(self) -> None:
        """Each of these mistakes in an application is found before it runs; each once came to light at the first
        client."""
        for right, (wrong, told) in WRONG.items():
            code = blocks()["todo.py"]
            self.assertEqual(code.count(right), 1, right)
            folder = self.directory().absolute()
            (folder / "twisted" / "plugins").mkdir(parents=True)
            (folder / "twisted" / "plugins" / "todo_plugin.py").write_text(blocks()["twisted/plugins/todo_plugin.py"])
            (folder / "todo.py").write_text(code.replace(right, wrong))
            (folder / "todo.yaml").write_text(blocks()["todo.yaml"].replace("todo, chat", "todo"))
            path = os.pathsep.join(filter(None, [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]))
            environment = {**os.environ, "PYTHONPATH": path}
            program = (sys.executable, "-c", "from pfsb.cli import main; main()", "check", "todo.yaml")
            said, status = await run(*program, path=str(folder), env=environment)
            self.assertNotEqual(status, 0, said)
            self.assertIn('the application "todo" cannot run: ', said)
            self.assertIn(told, said)
            self.assertEqual(said.count("\n"), 1, said)
