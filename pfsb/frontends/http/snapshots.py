"""Resources about snapshots: take one, and read one as a stream, which is a backup of the whole cluster."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from pfsb.applications.interfaces import BadRequest, Refused
from pfsb.frontends.http.answers import RAW_TYPE
from pfsb.frontends.http.request import PfsbRequest
from pfsb.paxos.snapshot import SnapshotName
from pfsb.support.limits import SNAPSHOT_SECONDS_MAX

READ_BYTES: Final = 262_144
"""Number of bytes of a snapshot that are read at once. Each such portion is written to the client when it has taken the
one before."""


def take_snapshot(request: PfsbRequest) -> None:
    """Have a snapshot taken, and answer with its slot, size and digest when it is on disk."""
    seconds = _seconds(request)
    request.query.refuse_more()
    request.refuse_body()
    request.site.server.snapshots.answer(seconds, request.answer_with())


def send_backup(request: PfsbRequest) -> None:
    """Have a snapshot taken, and send the whole of it, as one stream: the state of the cluster after one slot.

    The request is a POST, since the server works and writes to its disk for it: a web page of a third party could have
    a browser send a GET.
    """
    seconds = _seconds(request)
    request.query.refuse_more()
    request.refuse_body()

    def taken(found: SnapshotName | Refused) -> None:
        if isinstance(found, Refused):
            request.refuse(found)
        elif request.is_unanswered:
            _Backup(request, found).start()

    request.site.server.snapshots.take(seconds, taken)


def _seconds(request: PfsbRequest) -> float:
    wait = request.query.take("wait")
    if wait is None:
        return request.site.server.config.limits.request_seconds
    if not (wait.isascii() and wait.isdigit() and len(wait) <= 6 and 1 <= int(wait) <= SNAPSHOT_SECONDS_MAX):
        raise BadRequest(f"wait= is in seconds, from 1 to {SNAPSHOT_SECONDS_MAX}, as in ?wait=60")
    return float(wait)


@implementer(IPushProducer)
class _Backup:
    """Sends a snapshot to one client, as fast as the client reads it."""

    def __init__(self, request: PfsbRequest, name: SnapshotName) -> None:
        self._request = request
        self._name = name
        self._sent = 0
        self._paused = False
        self._reads = False
        self._over = False

    def start(self) -> None:
        request, name = self._request, self._name
        request.setHeader("Content-Length", str(name.size))
        request.setHeader("Content-Disposition", f'attachment; filename="pfsb-{name.seq}.snapshot"')
        request.setHeader("Pfsb-Snapshot", f"seq={name.seq} digest={name.digest.hex()}")
        request.begin_stream(RAW_TYPE, self, self.stopProducing)
        request.site.streams[request.end_stream] = None
        self._read()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._read()

    def stopProducing(self) -> None:
        self._over = True
        self._request.site.streams.pop(self._request.end_stream, None)

    def _read(self) -> None:
        if not (self._paused or self._reads or self._over):
            self._reads = True
            self._request.site.server.read_snapshot(self._name, self._sent, READ_BYTES, self._found)

    def _found(self, data: bytes) -> None:
        self._reads = False
        if self._over:
            return
        self._sent += len(data)
        if data:
            self._request.write(data)
        if self._sent >= self._name.size:
            self._request.site.server.snapshots.note_backup(self._name)
            self._request.end_stream()
        elif not data:
            # The file of the snapshot is gone. Without an end of the connection, the client would take the next reply
            # for bytes of the snapshot.
            self._request.break_off()
        else:
            self._read()
