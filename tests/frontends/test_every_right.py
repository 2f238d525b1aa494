"""Every command of every door, with the right that it needs: asked for with each role, and without a token."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.chat import Chat
from pfsb.applications.instances import Instances
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.frontends.http.protocol import HTTPSite
from pfsb.frontends.http.routes import COMMANDS as RESOURCES
from pfsb.frontends.http.routes import ROUTES
from pfsb.frontends.line.help import ALWAYS
from pfsb.frontends.line.protocol import LineFactory
from pfsb.frontends.resp.commands import TRANSLATED
from pfsb.frontends.resp.connection_commands import OWN
from pfsb.frontends.resp.protocol import RespFactory
from pfsb.sessions.ordered_settings import OrderedSettings
from pfsb.support.rights import ROLES, Right
from tests.frontends.fake_server import FakeServer, fake_config
from tests.frontends.http.http_client import Connection
from tests.frontends.line.test_protocol import Transport
from tests.frontends.resp.test_parser import encoded
from tests.frontends.tokens import TOKENS, TokenFile, with_tokens

LINES = {
    Right.NONE: ("AUTH x.y", "HELP", "PING", "QUIT", "BYE"),
    Right.READ: (
        "STATUS",
        "SERVERS",
        "MEMBERS",
        "DIGEST",
        "SETTINGS",
        "LISTEN",
        "UNLISTEN",
        "LOG",
        "LOCKS",
        "GET a",
        "GET a read=stale",
        "GET a read=sequential",
        "GET a at=1",
        "MGET a b",
        "RANGE a b",
        "KEYS",
        "DECIDED 1",
        "INSTANCES",
    ),
    Right.WRITE: (
        "HELLO alice",
        "SAY hello",
        "LOCK a wait=0.1",
        "TRYLOCK a",
        "UNLOCK a",
        "PUT a b",
        "#1 PUT a b",
        'PUT "a" b',
        "DEL a",
        "CAS a b c",
        "INCR a",
        "APPEND a b",
        "PUTHASH a b",
        "MPUT a b",
        "IF a any PUT a b",
        "PROPOSE 1 YQ==",
        "PART 1 0 1 YQ==",
        "DONE 0 1 1",
    ),
    Right.ADMIN: (
        "SETTINGS SET window=8",
        "SNAPSHOT",
        "LEAD 1",
        "FAULT HEAL",
        "FAULT SKIP 812",
        "SERVERS ADD 4 127.0.0.1:7404",
    ),
}
"""Right -> lines that need it. A command that is in no line makes the first test fail: a new one is entered here with
its right."""
RESOURCE_RIGHTS = {
    Right.NONE: ("GET /", "GET /v1/openapi.json", "GET /healthz", "GET /readyz"),
    Right.READ: (
        "GET /v1/kv",
        "GET /v1/kv/{key}",
        "GET /v1/locks",
        "GET /v1/chat",
        "GET /v1/events",
        "POST /v1/commands",
        "GET /v1/status",
        "GET /v1/servers",
        "GET /v1/settings",
        "GET /v1/digest",
        "GET /metrics",
    ),
    Right.WRITE: (
        "POST /v1/kv",
        "PUT /v1/kv/{key}",
        "DELETE /v1/kv/{key}",
        "PATCH /v1/kv/{key}",
        "POST /v1/locks/{name}",
        "DELETE /v1/locks/{name}",
        "POST /v1/session",
        "DELETE /v1/session",
        "POST /v1/chat",
    ),
    Right.ADMIN: (
        "PATCH /v1/settings",
        "POST /v1/snapshot",
        "POST /v1/backup",
        "POST /v1/leader",
        "POST /v1/faults",
        "POST /v1/servers",
        "PATCH /v1/servers/{id}",
        "DELETE /v1/servers/{id}",
    ),
}
"""Right -> the requests of HTTP that need it. POST /v1/commands needs that of its command as well."""
REDIS = {
    Right.NONE: ("AUTH x.y", "QUIT"),
    Right.READ: (
        "HELLO",
        "PING",
        "ECHO a",
        "CLIENT ID",
        "COMMAND COUNT",
        "CONFIG GET save",
        "INFO",
        "SELECT 0",
        "GET a",
        "EXISTS a",
        "STRLEN a",
        "GETAT a 1",
        "MGET a b",
        "KEYS *",
        "SCAN 0",
        "LOCKS",
        "STATUS",
        "SETTINGS",
    ),
    Right.WRITE: (
        "SET a b",
        "SET a b NX",
        "SETNX a b",
        "DEL a",
        "UNLINK a",
        "APPEND a b",
        "INCR a",
        "INCRBY a 2",
        "DECR a",
        "DECRBY a 2",
        "MSET a b",
        "LOCK a wait=0.1",
        "TRYLOCK a",
        "UNLOCK a",
        "SAY hello",
        "CAS a b c",
        "IF a any PUT a b",
    ),
    Right.ADMIN: ("SETTINGS SET window=8",),
}
LEVELS = {None: Right.NONE, **ROLES}
"""Role -> what it permits; None: no token was shown."""
REFUSED = {"NOAUTH", "DENIED", "NOPERM"}


class DoorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(fake_config())
        self.shared = with_tokens(self.server, self.clock, TokenFile())


class EveryVerbTests(DoorCase):
    def test_every_verb_has_its_line(self) -> None:
        """Each verb of applications, of the settings and of a server has a line in this module, with the right that it
        needs."""
        applications = (Chat(), Instances(), KeyValue(), Lock(), OrderedSettings())
        rights = {each.verb: each.right for each in ALWAYS}
        rights |= {each.verb: each.right for application in applications for each in application.commands}
        others = {f"{each.verb} ...": each.right_with_arguments for each in ALWAYS}
        rights |= {verb: right for verb, right in others.items() if right is not None}
        stated = {}
        for right, lines in LINES.items():
            for line in lines:
                words = [word for word in line.split(" ") if not word.startswith("#")]
                verb = "SETTINGS SET" if words[:2] == ["SETTINGS", "SET"] else words[0]
                stated[f"{verb} ..." if len(words) > 1 and f"{verb} ..." in rights else verb] = right
        self.assertEqual(stated, rights)

    def test_every_line_with_every_role(self) -> None:
        """A line is refused for each role that lacks its right, with NOAUTH or DENIED, whether it is a plain one or
        not."""
        factory = LineFactory(self.server, self.clock, self.shared)  # type: ignore[arg-type]
        for right, lines in LINES.items():
            for line in lines:
                if line.split(" ")[0] in ("PROPOSE", "PART", "DECIDED", "INSTANCES", "DONE"):
                    continue
                for role, level in LEVELS.items():
                    protocol, transport = factory.buildProtocol(None), Transport()
                    protocol.makeConnection(transport)
                    if role is not None:
                        protocol.dataReceived(f"AUTH {TOKENS[role]}\n".encode())
                        self.assertIn(f"role={role}\n", transport.value().decode())
                    transport.clear()
                    # Two at once, so that the lines of a plain verb are recognised together.
                    protocol.dataReceived(f"{line}\n{line}\n".encode())
                    self.clock.advance(0)
                    said = transport.value().decode()
                    codes = [each.split("ERR ")[1].split(" ")[0] for each in said.splitlines() if "ERR " in each]
                    is_refused = bool(REFUSED & set(codes))
                    self.assertEqual(is_refused, level < right, (line, role, said))
                    if is_refused:
                        self.assertEqual(codes, 2 * ["NOAUTH" if role is None else "DENIED"], said)
                        self.assertEqual(said.count("fate=none"), 2)


class EveryResourceTests(DoorCase):
    def test_resource_may_have_the_right_of_a_command_with_arguments(self) -> None:
        """A resource that changes which servers there are has the right of SERVERS with arguments."""
        site = HTTPSite(self.server, self.clock, bytes, self.shared)  # type: ignore[arg-type]
        self.assertEqual((site.right_of("SERVERS"), site.right_of("SERVERS ...")), (Right.READ, Right.ADMIN))

    def test_every_resource_has_its_right(self) -> None:
        """The table of the resources names a command for each, and a command of the line protocol has the right."""
        site = HTTPSite(self.server, self.clock, bytes, self.shared)  # type: ignore[arg-type]
        found = {
            f"{method} {path}": site.right_of(RESOURCES[handler])
            for path, methods in ROUTES.items()
            for method, handler in methods.items()
        }
        stated = {request: right for right, requests in RESOURCE_RIGHTS.items() for request in requests}
        self.assertEqual(found, stated)

    def test_every_resource_with_every_role(self) -> None:
        site = HTTPSite(self.server, self.clock, bytes, self.shared)  # type: ignore[arg-type]
        for right, requests in RESOURCE_RIGHTS.items():
            for request in requests:
                method, path = request.split(" ")
                for role, level in LEVELS.items():
                    client = Connection(site, self.clock)
                    headers = {} if role is None else {"Authorization": f"Bearer {TOKENS[role]}"}
                    client.request(method, path.replace("{key}", "a").replace("{name}", "a"), **headers)
                    said = client.heard()
                    is_refused = b'"error":"NOAUTH"' in said or b"needs the right" in said
                    self.assertEqual(is_refused, level < right, (request, role, said))
                    if is_refused:
                        self.assertTrue(said.startswith(b"HTTP/1.1 401" if role is None else b"HTTP/1.1 403"), said)


class EveryRedisCommandTests(DoorCase):
    def test_every_command_has_its_line(self) -> None:
        """Each command of Redis that is known here has a line in this module; the others are verbs of the line
        protocol."""
        stated = {line.split(" ")[0] for lines in REDIS.values() for line in lines}
        self.assertLessEqual({*OWN, *TRANSLATED}, stated)

    def test_every_command_with_every_role(self) -> None:
        """A command of Redis is refused for each role that lacks its right; HELLO needs AUTH or a token that was shown
        before."""
        lines = LineFactory(self.server, self.clock, self.shared)  # type: ignore[arg-type]
        factory = RespFactory(self.server, self.clock, lines.verbs, lines)  # type: ignore[arg-type]
        for right, commands in REDIS.items():
            for line in commands:
                for role, level in LEVELS.items():
                    protocol, transport = factory.buildProtocol(None), Transport()
                    protocol.makeConnection(transport)
                    if role is not None:
                        protocol.dataReceived(encoded(b"AUTH", TOKENS[role].encode()))
                        self.assertEqual(transport.value(), b"+OK\r\n")
                    transport.clear()
                    protocol.dataReceived(2 * encoded(*line.encode().split(b" ")))
                    self.clock.advance(0)
                    said = transport.value()
                    codes = {each.split(b" ")[0].decode()[1:] for each in said.split(b"\r\n") if each[:1] == b"-"}
                    is_refused = bool(REFUSED & codes)
                    self.assertEqual(is_refused, level < right, (line, role, said))
                    if is_refused:
                        self.assertEqual(codes, {"NOAUTH" if role is None else "NOPERM"}, said)
