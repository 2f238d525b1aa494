"""Tests of `pfsb backup`: what it says of a file that cannot be restored, and of a server that gives none."""

from __future__ import annotations

import io
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from pfsb.applications import catalogue
from pfsb.backups import backup_command
from pfsb.backups.backup_command import Options, back_up, verify
from pfsb.backups.download import NoBackup, download
from pfsb.commands.exit_status import ExitStatus
from pfsb.config.config import Config, ServerConfig
from tests.backups.states import MadeState


class VerifyTests(SynchronousTestCase):
    def test_a_backup_whose_application_is_not_installed_is_refused_in_one_line(self) -> None:
        file = Path(self.mktemp())
        MadeState().backup(file)
        self.patch(catalogue, "getPlugins", lambda interface: [])
        out, err = io.StringIO(), io.StringIO()
        self.assertIs(verify(file, out, err), ExitStatus.REFUSED)
        self.assertIn(
            f"{file} is no backup that could be restored: the settings of the cluster ask for", err.getvalue()
        )
        self.assertEqual((out.getvalue(), err.getvalue().count("\n")), ("", 1))


class _Endless(Resource):
    """A resource that answers in chunks, without a length, and does not end."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.ended = 0

    def render_POST(self, request: Request) -> int:
        request.notifyFinish().addErrback(self._end)
        request.write(b"pfsbsnap")
        return NOT_DONE_YET

    def _end(self, failure: object) -> None:
        self.ended += 1


class DownloadTests(TestCase):
    async def test_an_answer_without_a_length_is_no_backup(self) -> None:
        resource = _Endless()
        port = reactor.listenTCP(0, Site(resource), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        target = Path(self.mktemp())
        try:
            await download(reactor, f"http://127.0.0.1:{port.getHost().port}", target, 5, lambda got, of: None)
        except NoBackup as error:
            self.assertIn("without a length", str(error))
        else:
            self.fail("a file was made of an answer without a length")
        self.assertFalse(target.exists())
        while not resource.ended:
            await deferLater(reactor, 0.01, lambda: None)

    test_an_answer_without_a_length_is_no_backup.timeout = 10  # type: ignore[attr-defined]


class _Waiting(Resource):
    """A resource that answers after a while that there is no backup."""

    isLeaf = True

    def render_POST(self, request: Request) -> int:
        reactor.callLater(0.1, self._refuse, request)  # type: ignore[attr-defined]
        return NOT_DONE_YET

    def _refuse(self, request: Request) -> None:
        request.setResponseCode(503)
        request.write(b"no majority")
        request.finish()


class WaitingTests(TestCase):
    async def test_a_command_that_waits_for_a_majority_says_so(self) -> None:
        """`pfsb backup` says once that it waits for a majority, if nothing has come for a while."""
        port = reactor.listenTCP(0, Site(_Waiting()), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        servers = {0: ServerConfig(0, ("127.0.0.1", 1), "tcp:1", f"tcp:{port.getHost().port}:interface=127.0.0.1")}
        config = Config("file", "demo", servers, 0)
        options = Options(config, Path(self.mktemp()), None, None, None, 1, (0,), 5)
        for seconds, lines in ((0.02, 1), (5.0, 0)):
            self.patch(backup_command, "TELL_SECONDS", seconds)
            err = io.StringIO()
            self.assertIs(await back_up(reactor, options, io.StringIO(), err), ExitStatus.UNAVAILABLE)
            self.assertEqual(err.getvalue().count("server 0 takes a snapshot, which counts when a majority"), lines)
