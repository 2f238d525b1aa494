"""Targets that read what clients send: the line protocol, the Redis protocol and HTTP."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pfsb.frontends.client_port import ClientPortFactory
from pfsb.frontends.http.protocol import HTTPSite
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.fuzz.small_cluster import COMMANDS, NEAR, SmallCluster
from pfsb.simulator.fuzz.target import Target

SECONDS: Final = 0.02
"""How many simulated seconds pass after each of the two pieces in which an input comes."""


class PortTarget(Target):
    """One server, which gets each input on a new connection; it must go on serving."""

    inputs_per_round = 100

    def begin(self, name: str) -> None:
        self.cluster = SmallCluster(name, 1)
        self.cluster.run_until_led()
        self.server = self.cluster.servers[0]
        self.factory = self.make_factory()

    def make_factory(self) -> Any:
        """The factory whose connections get the inputs."""
        raise NotImplementedError

    def run(self, data: bytes) -> None:
        protocol = self.factory.buildProtocol(None)
        transport = StringTransport(peerAddress=NEAR)
        protocol.makeConnection(transport)
        dice = Random(data)
        place = dice.randint(0, len(data))
        for piece in (data[:place], data[place:]):
            if not transport.disconnecting:
                protocol.dataReceived(piece)
            self.cluster.run(SECONDS)
        self.look_at(transport.value())
        protocol.connectionLost(Failure(ConnectionDone()))
        self.cluster.run(0)

    def look_at(self, answer: bytes) -> None:
        """Raises `Violation` if these bytes are no answers of the protocol."""

    def end(self) -> None:
        self.cluster.require_service()
        self.cluster.close()

    def drop(self) -> None:
        self.cluster.close()


_LINE = re.compile(rb"(#[0-9]+ )?(OK( .*)?|\+.*|ERR [A-Z]+ fate=(none|unknown|done) .*)|\* [A-Z]+( .*)?")

_TELNET_REFUSAL = re.compile(rb"\xff[\xfc\xfe].", re.DOTALL)


class LineTarget(PortTarget):
    """Sends any bytes to the client port, and checks that all answers are lines of the line protocol.

    The answers are not checked if the first byte sent is that of a command of Redis, which the same port understands.
    """

    name = "lines"
    help = "requests of the line protocol"
    guided_by = (
        "pfsb/frontends/line/",
        "pfsb/frontends/stream/",
        "pfsb/frontends/client_port.py",
        "pfsb/applications/",
    )
    words = (b"\n", b"\r\n", b"#1 ", b"#9223372036854775807 ", b'"', b'"\\ud800"', b"\xff\xfd\x01", b"\xff\xfa",
             b"\xff\xf0", b"HELLO alice ttl=5\n", b"BYE\n", b"QUIT\n", b"wait=0", b"wait=1e9", b"limit=", b"if=",
             b"read=stale", b"\t", b"POST / HTTP/1.1\r\n", b"Host: x\r\n", b"*2\r\n$3\r\n",
             b'"\\udcff"', b'"\\u0000"')  # fmt: skip

    def seeds(self) -> list[bytes]:
        more = ("HELLO alice ttl=10", "STATUS", "SERVERS", "DIGEST", "DIGEST seq=1", "HELP", "HELP PUT", "QUIT",
                "LISTEN from=1", "UNLISTEN", "FAULT HEAL", "MPUT a 1 b 2", "MGET a b", "RANGE a z limit=2", "KEYS",
                "IF a 0 PUT a 1", "IF a any DEL a", "BYE")  # fmt: skip
        lines = [line.encode() for line in (*COMMANDS, *more)]
        talk = b"HELLO bob ttl=5\n" + b"".join(b"#%d %s\n" % (i, line) for i, line in enumerate(lines[:10], start=1))
        return [*(line + b"\n" for line in lines), *(b"#7 " + line + b"\r\n" for line in lines), talk]

    def make_factory(self) -> ClientPortFactory:
        return ClientPortFactory(self.server, self.cluster.clock)

    def look_at(self, answer: bytes) -> None:
        answer = _TELNET_REFUSAL.sub(b"", answer)
        if answer[:1] not in b"#O+E*":
            return  # the first byte was that of a command of Redis
        *lines, rest = answer.split(b"\n")
        require(not rest, f"an answer ends in the middle of a line: {rest!r}")
        for line in lines:
            require(_LINE.fullmatch(line) is not None, f"no line of the protocol: {line!r}")
            line.decode()


class RespTarget(PortTarget):
    """Sends any bytes on a connection of the Redis protocol, and checks that all answers are replies of that
    protocol."""

    name = "redis"
    help = "commands of the Redis protocol"
    guided_by = ("pfsb/frontends/resp/", "pfsb/frontends/line/conversation.py", "pfsb/frontends/stream/")
    words = (
        b"\r\n",
        b"*1\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"$536870912\r\n",
        b"*1048576\r\n",
        b"$1\r\nx\r\n",
        b"$1\r\n\xff\r\n",
        b"*-10\r\n",
        b"*01\r\n",
        b"$02\r\n",
        b"PING\r\n",
        b"INFO\r\n",
    )

    def seeds(self) -> list[bytes]:
        commands = (
            "PING", "ECHO hello", "SET k v", "SET k v EX 10", "GET k", "DEL k", "INCR n", "INCRBY n 5", "APPEND k w",
            "MSET a 1 b 2", "MGET a b", "SCAN 0", "KEYS *", "EXISTS k", "HELLO 3", "HELLO 2", "CLIENT ID", "COMMAND",
            "CONFIG GET *", "INFO", "SELECT 0", "STRLEN k", "GETSET k v", "SETNX k v", "TYPE k", "QUIT", "LOCK door",
            "UNLOCK door", "DBSIZE", "COMMAND INFO get client|id x", "COMMAND DOCS client", "COMMAND LIST",
            "CLIENT INFO", "CLIENT SETINFO LIB-NAME x", "SCAN 0 TYPE hash", "SCAN 0 MATCH k* COUNT 2", "SET k v NX NX",
            "MULTI", "EXEC",
        )  # fmt: skip
        encoded = [resp_command(*command.split(" ")) for command in commands]
        return [*encoded, b"".join(encoded[:8])]

    def make_factory(self) -> Any:
        return ClientPortFactory(self.server, self.cluster.clock).redis

    def look_at(self, answer: bytes) -> None:
        end = 0
        while end < len(answer):
            end = _end_of_reply(answer, end)


def resp_command(*words: str) -> bytes:
    """A command as a client of Redis sends it."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def _end_of_reply(data: bytes, start: int) -> int:
    """Where the reply that begins at `start` ends. Raises `Violation` if there is no whole reply."""
    end = data.find(b"\r\n", start)
    kind, text = data[start : start + 1], data[start + 1 : end]
    require(
        end >= 0 and kind in (b"+", b"-", b":", b"$", b"*", b"%", b"_", b",", b"#", b"=", b"~", b">"),
        f"no reply: {data[start:]!r}",
    )
    position = end + 2
    if kind in (b"$", b"=") and text != b"-1":
        position += int(text) + 2
        require(data[position - 2 : position] == b"\r\n", "a bulk string has another length than it says")
    elif kind in (b"*", b"%", b"~", b">") and text != b"-1":
        for _ in range(int(text) * (2 if kind == b"%" else 1)):
            position = _end_of_reply(data, position)
    return position


class HTTPTarget(PortTarget):
    """Sends any bytes to the HTTP port, and checks that all answers are HTTP, and that none has the status 500."""

    name = "http"
    help = "requests of HTTP"
    guided_by = ("pfsb/frontends/http/",)
    words = (b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n",
             b"5\r\nhello\r\n", b"GET ", b"PUT ", b"POST ", b"/v1/kv/", b"?limit=", b"%2F", b"%00", b"%ff",
             b"Expect: 100-continue\r\n",
             b'{"value": "x"}', b"[]", b"null", b"1e999", b'"\\ud800"', b"HTTP/1.0", b"Connection: close\r\n",
             b"Pfsb-Client: ", b"Pfsb-Number: ", b"Pfsb-Revision: ", b"Pfsb-Ttl: ", b"?read=stale",
             b"?client=", b"Origin: http://evil\r\n", b'If-Match: "3"\r\n', b"If-None-Match: *\r\n", b"%zz",
             b'"\\udcff"', b"Accept: application/octet-stream\r\n", b"Content-Encoding: gzip\r\n")  # fmt: skip

    def seeds(self) -> list[bytes]:
        requests: tuple[tuple[str, str, object], ...] = (
            ("GET", "/v1/kv/colour", None),
            ("PUT", "/v1/kv/colour", {"value": "blue"}),
            ("PATCH", "/v1/kv/n", {"op": "incr", "by": 2}),
            ("DELETE", "/v1/kv/colour", None),
            ("POST", "/v1/kv", {"put": {"a": "1", "b": "2"}}),
            ("GET", "/v1/kv?from=a&to=z&limit=2&values=no", None),
            ("POST", "/v1/chat", {"text": "hello"}),
            ("GET", "/v1/chat?from=1&limit=2", None),
            ("GET", "/v1/events?from=1&client=alice", None),
            ("GET", "/v1/locks", None),
            ("POST", "/v1/locks/door", {"wait": 0}),
            ("DELETE", "/v1/locks/door?token=3", None),
            ("POST", "/v1/session", None),
            ("DELETE", "/v1/session", None),
            ("GET", "/v1/status", None),
            ("GET", "/v1/servers", None),
            ("GET", "/v1/digest?seq=2", None),
            ("POST", "/v1/faults", {"fault": "heal"}),
            ("GET", "/v1/openapi.json", None),
            ("HEAD", "/", None),
            ("GET", "/healthz", None),
            ("GET", "/readyz", None),
            ("GET", "/metrics", None),
        )
        plain = [http_request(*request) for request in requests]
        of_session = [http_request(*request, "Pfsb-Client: alice\r\nPfsb-Number: 1\r\n") for request in requests]
        waiting = [http_request(*request, "Pfsb-Revision: 3\r\nPfsb-Ttl: 5\r\n") for request in requests[:6]]
        raw = "Accept: application/octet-stream\r\n"
        conditional = [
            http_request(*requests[0], f'If-None-Match: "3"\r\n{raw}'),
            http_request(*requests[1], "If-None-Match: *\r\n"),
            *[http_request(*request, 'If-Match: "3-raw"\r\n') for request in requests[1:4]],
            http_request(*requests[1]).replace(b"application/json", b"application/octet-stream"),
        ]
        return [*plain, *of_session, *waiting, b"".join(plain[:5]), *conditional]

    def make_factory(self) -> HTTPSite:
        return HTTPSite(self.server, self.cluster.clock, lambda: b"pfsb_turns_total 1\n")

    def look_at(self, answer: bytes) -> None:
        require(answer[:9] in (b"", b"HTTP/1.1 ", b"HTTP/1.0 "), f"no answer of HTTP: {answer[:40]!r}")
        require(b" 500 " not in answer[:20], f"the server has failed: {answer[:400]!r}")


def http_request(method: str, path: str, body: object, headers: str = "") -> bytes:
    """A request as a client of HTTP sends it; `body` becomes JSON, `headers` are whole lines."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}\r\n".encode() + data
