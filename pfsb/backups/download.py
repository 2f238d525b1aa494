"""Brings a snapshot from a server over HTTP into a file, and checks it on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH

from pfsb.config.addresses import EVERY_INTERFACE, listens_at
from pfsb.config.config import Config
from pfsb.paxos.snapshot import SnapshotDecoder, SnapshotName, WrongSnapshot
from pfsb.storage.directory import sync_directory

CONNECT_SECONDS = 5.0
"""How long, in seconds, a server may take to accept the connection."""
SILENCE_SECONDS = 30.0
"""How long, in seconds, a server may send nothing after it has begun to send."""


class NoBackup(Exception):
    """Raised if a server gives no backup; the text says why, in words."""


class Unreachable(NoBackup):
    """Raised if a server cannot be reached at all."""


def url_of(config: Config, server_id: int) -> str | None:
    """The URL of a server's HTTP port; None if its configuration has none that can be reached by TCP."""
    server = config.server(server_id)
    place = None if server.http is None else listens_at(server.http)
    if place is None:
        return None
    interface, port = place
    host = server.peer[0] if interface in EVERY_INTERFACE else interface
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def download(
    reactor: Any,
    url: str,
    target: Path,
    seconds: int,
    progress: Callable[[int, int], None],
    token: str | None = None,
) -> SnapshotName:
    """Have the server at `url` take a snapshot, within `seconds`, and write it to the file `target`.

    The file is there, with all of its bytes on disk, when this returns, and not at all if it raises. `progress(got,
    of)` is called with the bytes that have come. Raises `NoBackup`, or `OSError` if the file cannot be written, or if
    something other than a file has its name: a device would be replaced. `token` is shown to the server; None: none is.
    """
    if target.exists() and not target.is_file():
        raise OSError(errno.EEXIST, "there already, and no regular file", str(target))
    headers = Headers({b"Host": [urlsplit(url).netloc.encode()]})
    if token is not None:
        headers.addRawHeader(b"Authorization", f"Bearer {token}".encode())
    asked = Agent(reactor, connectTimeout=CONNECT_SECONDS).request(
        b"POST", f"{url}/v1/backup?wait={seconds}".encode(), headers
    )
    try:
        response = await asked.addTimeout(seconds + CONNECT_SECONDS, reactor)
    except ConnectError as error:
        raise Unreachable(f"{url} does not answer: {error}") from error
    except Exception as error:
        raise NoBackup(f"{url} has given no answer: {error}") from error
    if response.code != 200:
        text = (await readBody(response)).decode(errors="replace").strip()
        raise NoBackup(f"{url} has answered {response.code}: {text[:500]}")
    if response.length is UNKNOWN_LENGTH:
        response.deliverBody(_Unwanted())
        raise NoBackup(f"{url} has answered without a length, which no server of pfsb does: is something between?")
    unfinished = target.with_name(target.name + ".part")
    try:
        with unfinished.open("wb") as file:
            receiver = _Receiver(reactor, file, int(response.length), progress)
            response.deliverBody(receiver)
            name = await receiver.received
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
        sync_directory(target.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return name


class _Unwanted(Protocol):
    """Ends the connection instead of receiving an answer."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@define(eq=False, slots=False)
class _Receiver(Protocol):
    """Writes what a server sends to a file, and checks that it is a whole snapshot."""

    _reactor: Any
    _file: BinaryIO
    _size: int
    _progress: Callable[[int, int], None]
    received: Deferred[SnapshotName] = field(init=False, factory=Deferred)
    _decoder: SnapshotDecoder = field(init=False, factory=SnapshotDecoder)
    _got: int = field(init=False, default=0)
    _silence: Any = field(init=False, default=None)

    def connectionMade(self) -> None:
        self._silence = self._reactor.callLater(SILENCE_SECONDS, self._is_silent)

    def dataReceived(self, data: bytes) -> None:
        if self.received.called:
            return
        self._silence.reset(SILENCE_SECONDS)
        try:
            for _ in self._decoder.feed(data):
                pass
            self._file.write(data)
        except (WrongSnapshot, OSError) as error:
            self._fail(NoBackup(f"what came is no snapshot: {error}") if isinstance(error, WrongSnapshot) else error)
            return
        self._got += len(data)
        self._progress(self._got, self._size)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._silence.active():
            self._silence.cancel()
        if self.received.called:
            return
        if self._decoder.is_complete:
            self.received.callback(self._decoder.name)
        elif reason.check(ResponseDone):
            self._fail(NoBackup(f"only {self._got} of {self._size} bytes have come: the server has ended the answer"))
        else:
            self._fail(NoBackup(f"only {self._got} of {self._size} bytes have come: {reason.getErrorMessage()}"))

    def _is_silent(self) -> None:
        self._fail(NoBackup(f"the server has sent nothing for {SILENCE_SECONDS:g} s"))

    def _fail(self, error: Exception) -> None:
        if not self.received.called:
            self.received.errback(Failure(error))
        if self.transport is not None:
            self.transport.loseConnection()
