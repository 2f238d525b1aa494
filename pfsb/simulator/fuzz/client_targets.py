"""Targets that read what a server sends to its clients."""

from __future__ import annotations

from random import Random
from typing import Final

from pfsb.client.clerks import calls
from pfsb.client.clerks.errors import ClerkError
from pfsb.client.core.actions import Connect, HangUp
from pfsb.client.core.addresses import tcp_address
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.connection import LineConnection
from pfsb.client.core.replies import EventLine, Reply, read_reply
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.fuzz.target import Target

ADDRESSES: Final = (tcp_address(0, "127.0.0.1", "9400"), tcp_address(1, "127.0.0.1", "9401"))
WORDS: Final = (
    b"\n", b" ", b"OK", b"ERR ", b"#1 ", b"#2 ", b"* ", b"+", b"=", b'"', b'"\\ud800"', b"fate=none ", b"last=",
    b"opened=", b"revision=", b"token=", b"index=", b"NOSESSION ", b"REPLACED ", b"BUSY ", b"1" * 5_000,
)  # fmt: skip
TALKS: Final = (
    b"* WELCOME cluster=four server=1 view=3 leader=1 help=HELP\n"
    b"OK client=alice last=0 opened=4 resumed=no ttl=10 revision=4\n"
    b"#1 OK revision=5\n#2 ERR LOCKED fate=none another session holds it\n",
    b'+ {"key": 1}\n+ key="a b" value="\\n\xc3\xa9" revision=7\n#3 OK count=2\n* CHAT index=3 client="bob" text="hi"\n',
    b"* SESSION state=replaced\n#1 ERR REPLACED fate=none opened elsewhere\n* SESSION state=expired\n",
    b"ERR BUSY fate=none this server is full\n",
    b"OK client=alice last=9 opened=4 resumed=yes\n"
    b"#10 OK name=door token=17\nOK from=5\n#11 ERR NOSESSION fate=unknown x\n",
)
"""Bytes that servers send to clients in the form of docs/protocol.rst; each item has the bytes that one connection
gets."""


def _in_pieces(data: bytes) -> list[bytes]:
    """The bytes as a network may deliver them: cut at places that the bytes themselves decide."""
    dice = Random(data)
    first, second = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
    return [data[:first], data[first:second], data[second:]]


class ReplyTarget(Target):
    """Gives a client's connection any bytes as if from a server, and checks that the fields of all replies and events
    can be read."""

    name = "replies"
    help = "replies and events of a server"
    guided_by = ("pfsb/client/core/connection.py", "pfsb/client/core/replies.py")
    words = WORDS

    def seeds(self) -> list[bytes]:
        return list(TALKS)

    def run(self, data: bytes) -> None:
        heard: list[Reply | EventLine] = []
        connection = LineConnection(heard.append, lambda why: None)
        for number in (1, 2, 3, None, None):
            connection.request(number, "PING", heard.append)
        for piece in _in_pieces(data):
            connection.receive(piece)
        for each in heard:
            require(isinstance(each.fields, dict), "fields are no dict")
            if isinstance(each, Reply):
                each.lines()


class ClientTarget(Target):
    """Checks that a client can connect again, and can be stopped, whatever bytes its server has sent."""

    name = "clients"
    help = "whole clients, told anything by their server"
    guided_by = ("pfsb/client/core/",)
    words = WORDS

    def seeds(self) -> list[bytes]:
        return list(TALKS)

    def run(self, data: bytes) -> None:
        client = ClientCore(ADDRESSES, "alice", dice=Random(1))
        client.start(0.0)
        client.take_actions()
        client.connected(0.1)
        for line in (
            "PUT colour blue",
            "LOCK door",
            "TRYLOCK gate",
            "GET colour",
            "LISTEN from=1",
            "UNLOCK door",
            "PING",
        ):
            client.submit(line, lambda reply: None, 0.2)
        now = 0.3
        for piece in _in_pieces(data):
            client.received(piece, now)
            now += 0.1
            self._carry_out(client, now)
        client.stop(now)
        client.lost("the connection was closed", now + 2)
        require(client.stopped, "the client does not stop")

    def _carry_out(self, client: ClientCore, now: float) -> None:
        """Carry out the actions of the client: when the client asks for a connection, it gets one; when the client has
        hung up, it is woken at the time for which it has asked."""
        for action in client.take_actions():
            if isinstance(action, Connect):
                client.connected(now)
            elif isinstance(action, HangUp) and client.wake_at is not None:
                client.woken(client.wake_at)


class CallTarget(Target):
    """Checks that each call of a clerk reads a result from any reply, or raises a `ClerkError`."""

    name = "calls"
    help = "replies to the calls of a clerk"
    guided_by = ("pfsb/client/",)
    words = WORDS

    def seeds(self) -> list[bytes]:
        lines = [
            line.split(b" ", 1)[1] for talk in TALKS for line in talk.splitlines() if line.startswith((b"#", b"+"))
        ]
        return [b'key="a" value="b" revision=4\n' + line for line in lines]

    def run(self, data: bytes) -> None:
        *rows, last = data.decode("utf-8", "replace").split("\n")
        reply = read_reply(last, tuple(rows))
        if reply is None:
            return
        for call in (
            calls.get("k"),
            calls.entry("k"),
            calls.put("k", "v"),
            calls.delete("k"),
            calls.cas("k", None, "v"),
            calls.append("k", "v"),
            calls.range_(),
            calls.keys(),
            calls.lock("door"),
            calls.listen(1),
        ):
            try:
                call.read(reply)
            except ClerkError as error:
                require(error.fate in ("none", "done", "unknown"), f"no such fate: {error.fate}")
