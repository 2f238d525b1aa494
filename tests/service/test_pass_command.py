"""`pfsb pass`: a slot that no server can execute is left out, by all servers or not at all (Departure 38)."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.config.config import load
from pfsb.paxos.messages import Batch
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.records import AruRecord, OrderedRecord, ProposalRecord, Record
from pfsb.service.pass_command import Options, command, run
from pfsb.storage.log.storage import LogStorage
from pfsb.support.command_line import parse
from tests.storage.support import ThreadedClock

CONFIGURATION = """
cluster: three
servers:
  0: {peer: "127.0.0.1:7400", client: "tcp:7500"}
  1: {peer: "127.0.0.1:7401", client: "tcp:7501"}
  2: {peer: "127.0.0.1:7402", client: "tcp:7502"}
"""
BATCH = Batch.of(7, [])
DIGEST = batch_digest(BATCH.data)


class PassCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.write_text(CONFIGURATION)
        self.directory = Path(self.mktemp())
        self.clock = ThreadedClock()
        self.write(OrderedRecord(1, BATCH), AruRecord(1))

    def write(self, *records: Record) -> None:
        """Write records as a server does, and stop."""
        storage = self.storage()
        storage.recover()
        for record in records:
            storage.append(record)
        written: list[None] = []
        storage.sync(lambda: written.append(None))
        self.clock.run_until(lambda: bool(written))
        storage.close()

    def storage(self) -> LogStorage:
        config = load(str(self.file))
        return LogStorage(
            self.directory,
            config.membership_digest(),
            config.cluster,
            1,
            self.clock,
            lambda count: bytes(count),
            lambda failure: None,
            config.ids,
        )

    def options(self, *arguments: str) -> Options:
        words = [*arguments, "--config", str(self.file), "--id", "1", "--storage", str(self.directory)]
        options: Options = parse(command, words)
        return options

    def run_with(self, *arguments: str) -> str:
        """Run the command. Returns what it has written; an error is written, too, after "status 1: "."""
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        command = run(Clock(), self.options(*arguments))
        try:
            command.send(None)
        except StopIteration:
            return out.getvalue()
        except SystemExit as error:
            return f"status {error.code}: {err.getvalue()}"
        raise AssertionError("the command waits for something")

    def passes(self) -> dict[int, bytes]:
        storage = self.storage()
        found = storage.recover().passes
        storage.close()
        return found

    def test_slot_is_noted_in_the_data_directory(self) -> None:
        """A slot is noted in the data directory, and the next start of the server finds it."""
        said = self.run_with("1", "--digest", DIGEST.hex())
        self.assertIn("server 1 leaves out slot 1 from now on; run the same for servers 0, 2", said)
        self.assertEqual(self.passes(), {1: DIGEST})
        self.assertIn("slot 1 is left out already", self.run_with("1", "--digest", DIGEST.hex()))

    def test_slot_with_another_batch_is_refused(self) -> None:
        """A slot that holds another batch than the digest names is refused."""
        said = self.run_with("1", "--digest", "00" * 8)
        self.assertIn(f"status 1: pfsb: {self.directory}/log: slot 1 holds the batch with digest", said)
        self.assertIn(DIGEST.hex(), said)
        self.assertEqual(self.passes(), {})

    def test_slot_that_is_not_there_is_refused_unless_the_server_was_behind(self) -> None:
        """A slot that the server does not have is refused unless the operator says so: a server that was behind must
        have the same list as the others, or they would refuse it."""
        self.assertIn("slot 2 is not here", self.run_with("2", "--digest", DIGEST.hex()))
        self.assertIn("leaves out slot 2", self.run_with("2", "--digest", DIGEST.hex(), "--unseen"))
        self.assertEqual(self.passes(), {2: DIGEST})

    def test_batch_that_was_only_accepted_may_be_replaced(self) -> None:
        """A batch that was only accepted may be another one than the digest names: the others may have chosen another
        batch since this server stopped."""
        self.directory = Path(self.mktemp())
        self.write(ProposalRecord(1, 3, BATCH))
        other = batch_digest(b"another batch").hex()
        self.assertIn("give --unseen", self.run_with("1", "--digest", other))
        self.assertIn("leaves out slot 1", self.run_with("1", "--digest", DIGEST.hex()))
        self.assertIn("leaves out slot 1", self.run_with("1", "--digest", other, "--unseen"))
        self.assertEqual(self.passes(), {1: bytes.fromhex(other)})

    def test_directory_of_a_server_that_runs_is_refused(self) -> None:
        """The directory of a server that runs is refused, since the list is read at the start only."""
        storage = self.storage()
        storage.recover()
        self.addCleanup(storage.close)
        self.assertIn("in use by another server", self.run_with("1", "--digest", DIGEST.hex()))

    def test_directory_without_a_storage_is_refused_and_stays_empty(self) -> None:
        """A directory without a storage is refused and stays empty."""
        self.directory = Path(self.mktemp())
        self.assertIn("missing", self.run_with("1", "--digest", DIGEST.hex()))
        self.assertFalse(self.directory.exists())

    def test_mistakes_of_the_command_line_are_refused(self) -> None:
        """Each mistake of the command line is refused with one line that says what would be right."""
        for arguments, text in (
            ((), "the number of one slot"),
            (("1", "2", "--digest", DIGEST.hex()), "the number of one slot"),
            (("0", "--digest", DIGEST.hex()), "from 1 to"),
            (("one", "--digest", DIGEST.hex()), "a whole number"),
            (("1",), "--digest is missing"),
            (("1", "--digest", "12"), "16 hexadecimal digits"),
            (("1", "--digest", "xy" * 8), "16 hexadecimal digits"),
        ):
            self.assertIn(text, str(self.assertRaises(click.UsageError, self.options, *arguments)))
        mistake = (*("1", "--digest", DIGEST.hex(), "--config", str(self.file)), "--id", "1", "--storage", "memory")
        self.assertIn("in memory", str(self.assertRaises(click.UsageError, parse, command, mistake)))
