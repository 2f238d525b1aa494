"""Every target passes a short campaign, and finds a fault that is planted in the code that it tests."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from json import JSONDecoder
from pathlib import Path
from typing import Any, get_args

import click
import msgpack
import yaml
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pfsb.applications import pieces
from pfsb.client.clerks import calls
from pfsb.client.core import client_core, replies
from pfsb.config import yaml_file
from pfsb.frontends.http import protocol as http_protocol
from pfsb.frontends.line.splitter import LineSplitter
from pfsb.frontends.resp.parser import CommandParser
from pfsb.paxos import validity
from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Alive, ClientUpdate, Message
from pfsb.paxos.snapshot import Piece, SnapshotDecoder
from pfsb.paxos.snapshot_rows import RowReader
from pfsb.service.chat_log import ChatLog
from pfsb.sessions import bundle
from pfsb.simulator.fuzz.all_targets import TARGETS
from pfsb.simulator.fuzz.campaign import Campaign, attempt
from pfsb.simulator.fuzz.cluster_targets import PayloadTarget
from pfsb.simulator.fuzz.finding import Finding
from pfsb.simulator.fuzz.frame_targets import EXAMPLES
from pfsb.simulator.fuzz.fuzz_command import FuzzTool, Options, command, run
from pfsb.storage import position_note
from pfsb.storage.log import scan
from pfsb.storage.log.groups import HEAD_BYTES, Group, size_at
from pfsb.support.command_line import parse
from pfsb.transports import notices, wire
from pfsb.transports.frames import FrameCodec
from pfsb.transports.wire import encode
from tests.long import long

FOREVER = float("inf")
INPUTS = {
    "payloads": 30,
    "messages": 40,
    "lies": 30,
    "lines": 40,
    "redis": 40,
    "http": 40,
    "logs": 40,
    "snapshots": 40,
    "pieces": 40,
}
"""Number of inputs of a short round, for targets that take milliseconds for each."""


def short_campaign(name: str, rounds: int, *, until_found: bool = False) -> list[Finding]:
    """Run some rounds of a target with one seed; returns the findings."""
    found: list[Finding] = []
    target = TARGETS[name]()
    target.inputs_per_round = INPUTS.get(name, 300)
    campaign = Campaign(1, [target], lambda: 0.0, found.append)
    for _ in range(rounds):
        campaign.run_round(campaign.records[0], FOREVER)
        if found and until_found:
            break
    return found


class ExampleTests(SynchronousTestCase):
    def test_every_kind_of_message_has_an_example(self) -> None:
        """Every kind of message has a made example: captured frames lack the rare kinds."""
        self.assertEqual({type(message) for message in EXAMPLES}, set(get_args(Message)))


@long
class SoundTests(SynchronousTestCase):
    def test_every_target_bears_a_short_campaign(self) -> None:
        """Every target passes a short campaign; `make fuzz` runs the same for hours, with other seeds."""
        for name in TARGETS:
            with self.subTest(name):
                self.assertEqual([finding.failure for finding in short_campaign(name, 2)], [])

    def test_unchanged_files_are_recovered(self) -> None:
        """The files of the storage target are recovered before they are changed; otherwise a server would refuse each
        changed file, too."""

        def refused(*_arguments: object) -> None:
            raise AssertionError("refused")

        self.patch(StorageRefused, "__init__", refused)
        for name in ("logs", "position-notes", "snapshots"):
            target = TARGETS[name]()
            target.begin(name)
            self.addCleanup(target.end)
            for seed in target.seeds():
                target.run(seed)

    def test_every_target_says_what_it_is(self) -> None:
        """Every target has a text for the list of `pfsb fuzz --list`."""
        for name, make in TARGETS.items():
            target = make()
            self.assertEqual((target.name, bool(target.help), bool(target.seeds())), (name, True, True))


def _trusting(*_arguments: object) -> Any:
    """In the place of a function that checks: check nothing."""


def _feed_by_halves(self: LineSplitter, data: bytes) -> list[bytes]:
    """In the place of the parser of telnet: take telnet's commands for text."""
    return [line.decode().encode() for line in data.split(b"\n")[:-1]]


def _length_at_face_value(self: CommandParser, data: bytes, position: int, kind: bytes) -> tuple[int, int]:
    end = data.index(b"\r\n", position)
    return int(data[position + 1 : end]), end + 2


def _group_of_any_checksum(data: bytes, at: int, salt: bytes) -> Group | None:
    """In the place of the reader of groups: believe the head, and do not compare the checksum."""
    size = size_at(data, at, salt)
    if size is None or size == HEAD_BYTES or at + size > len(data):
        return None
    before, number = data[at + 24 : at + 32], int.from_bytes(data[at + 32 : at + 40], "big")
    return number, before, data[at + 8 : at + 16], at + HEAD_BYTES, at + size


def _agrees_by_its_size(self: ChatLog, data: bytes) -> int:
    return min(len(data), self.path.stat().st_size)


def _positions_of_any_line(lines: bytes) -> list[tuple[str, int]]:
    words = lines[: position_note.LINE_BYTES].decode("ascii").split()
    return [(words[2], int(words[1]))]


def _believes_its_end(self: SnapshotDecoder, data: bytes) -> Iterator[Piece]:
    """In the place of the reader of pieces: take the digest at the end for that of the pieces, without comparing."""
    self.seq, self.size, self.digest = int.from_bytes(data[12:20], "big"), len(data), data[-16:]
    return iter(())


def _rows_of_any_bytes(_self: RowReader, data: bytes) -> list[Any]:
    """In the place of the reader of rows: let exceptions of msgpack out."""
    unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False, unicode_errors="surrogatepass")
    unpacker.feed(data)
    return [*unpacker]


def _report_of_any_length(body: bytes) -> notices.Report:
    return notices.Report(body[:16], body[16], tuple(struct.iter_unpack(">II", body[17:])))


_on_alive = AliveHandler.on_alive


def _small_numbers_only(self: AliveHandler, message: Alive) -> None:
    assert message.local_aru < 1_000, "a number of three digits"
    _on_alive(self, message)


FAULTS: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "frames": (FrameCodec, "check_tag", _trusting),
    "keyed-frames": (FrameCodec, "check_tag", _trusting),
    "headers": (FrameCodec, "check_shared", _trusting),
    "bodies": (wire, "checked_number", lambda name, value, least=0, most=0: value),
    "notices": (notices, "decode_report", _report_of_any_length),
    "batches": (wire, "are_updates", lambda found: True),
    "messages": (AliveHandler, "on_alive", _small_numbers_only),
    "lies": (AliveHandler, "on_alive", _small_numbers_only),
    "position-notes": (position_note, "positions_in", _positions_of_any_line),
    "snapshots": (SnapshotDecoder, "feed", _believes_its_end),
    "snapshot-bytes": (SnapshotDecoder, "feed", _believes_its_end),
    "pieces": (RowReader, "rows", _rows_of_any_bytes),
    "logs": (scan, "group_at", _group_of_any_checksum),
    "chat-logs": (ChatLog, "agreeing_bytes", _agrees_by_its_size),
    "configurations": (yaml_file, "compose", lambda named, text: yaml.compose(text, Loader=yaml.BaseLoader)),
    "lines": (LineSplitter, "feed", _feed_by_halves),
    "redis": (CommandParser, "read_header", _length_at_face_value),
    "http": (http_protocol, "path_segments", lambda uri: uri.decode().split("/")[1:]),
    "replies": (replies, "read_string", JSONDecoder().raw_decode),
    "clients": (client_core, "check_reply", _trusting),
    "calls": (calls, "ServerFault", lambda *arguments: KeyError(*arguments)),
}
"""Target -> (class, name of a function, careless function in its place)."""


@long
class FaultTests(SynchronousTestCase):
    def test_planted_faults_are_found(self) -> None:
        """Each target finds the fault that is planted in the code that it tests."""
        for name, (place, attribute, fault) in FAULTS.items():
            with self.subTest(name):
                patch = self.patch(place, attribute, fault)
                self.assertTrue(short_campaign(name, 60, until_found=True), name)
                patch.restore()
                self.flushLoggedErrors()

    def test_row_of_an_application_that_has_only_begun_is_found(self) -> None:
        self.patch(pieces, "refuse_cut_row", lambda unpacker, name: None)
        self.assertTrue(short_campaign("pieces", 60, until_found=True))
        self.flushLoggedErrors()

    def test_payload_that_kills_is_found(self) -> None:
        """A payload that is executed without checks kills the server, and is found."""
        from pfsb.sessions.state_machine import SessionStateMachine

        def execute(self: SessionStateMachine, seq: int, time_ms: int, updates: Any) -> None:
            for update in updates:
                update.payload.decode("ascii")

        self.patch(SessionStateMachine, "execute", execute)
        self.assertTrue(short_campaign("payloads", 5, until_found=True))
        self.flushLoggedErrors()


class LargestPayloadTests(SynchronousTestCase):
    """Updates that fill their CLIENT_UPDATEs, and so do not fit into larger messages."""

    def attempt(self) -> str:
        overhead = len(encode(ClientUpdate("1.9.1", 1, 1, 50, bytes(55_000)))) - 55_000
        room = FrameCodec.message_bytes_max - overhead
        inputs = [bytes([how]) + self.payload(room - less) for less in (0, 1, 2, 5, 9, 12, 15) for how in range(6)]
        return attempt(PayloadTarget(), "large", inputs)

    def payload(self, size: int) -> bytes:
        """A valid payload of `size` bytes."""
        head = bundle.encode_head("~1.9.1", 0, opens=True)
        for value in range(size - 60, size):
            entries = bundle.encode_entries([(1, ("PUT", b"k", bytes(value)))])
            found = bundle.encode([bundle.encode_bundle(head, 1, [entries])])
            if len(found) == size:
                return found
        raise AssertionError(f"no payload of {size} bytes")

    def test_update_that_fills_its_frame_stops_no_cluster(self) -> None:
        self.assertEqual(self.attempt(), "")

    @long
    def test_cluster_that_takes_such_updates_stops(self) -> None:
        """A cluster that accepts updates too large for a proposal stops: no leader can propose them."""
        for name in ("PAYLOAD_BYTES_MAX", "BATCH_BYTES_MAX"):
            self.patch(validity, name, 60_000)
        self.assertNotEqual(self.attempt(), "")
        self.flushLoggedErrors()


class UntilFound:
    """A reactor for a tool whose time is over as soon as the tool has found a failure."""

    tool: Any = None

    def seconds(self) -> float:
        now: float = reactor.seconds()  # type: ignore[attr-defined]
        return now + 3_600 if self.tool is not None and self.tool.has_failed else now

    def callLater(self, *call: Any) -> Any:
        return reactor.callLater(*call)  # type: ignore[attr-defined]


class CommandTests(TestCase):
    timeout = 60

    def options(self, *words: str) -> Options:
        options: Options = parse(command, words)
        return options

    async def test_campaign_ends_with_a_line_that_says_how_to_repeat_it(self) -> None:
        """A campaign ends with a line that has the number of inputs, the time, the seed and the failures."""
        out = io.StringIO()
        tool = FuzzTool(reactor, self.options("--for", "0.3", "--seed", "7", "--target", "calls,batches"), out)
        await ensureDeferred(tool.run_campaign())
        self.assertRegex(out.getvalue(), r"\n[1-9][0-9,]* inputs in 0 s from seed 7 for 2 targets: 0 failures\n$")
        self.assertFalse(tool.has_failed)

    async def test_failure_is_written_to_a_file_and_repeated(self) -> None:
        """A failure is written to a file and repeated from it; the exit status is 1 in both cases."""
        self.patch(wire, "are_updates", lambda found: True)
        directory = self.mktemp()
        words = ("--for", "60", "--seed", "7", "--target", "batches", "--directory", directory)
        clock: Any = UntilFound()
        clock.tool = tool = FuzzTool(clock, self.options(*words), io.StringIO())
        await ensureDeferred(tool.run_campaign())
        self.assertTrue(tool.has_failed)
        path = next(Path(directory).iterdir())
        out = io.StringIO()
        again = self.options("--replay", str(path))
        assert again.finding is not None
        repeated = FuzzTool(reactor, again, out)
        repeated.repeat(again.finding)
        self.assertTrue(repeated.has_failed)
        self.assertIn("FAILED", out.getvalue())

    async def test_mistakes_in_the_command_line_are_one_line(self) -> None:
        """Unknown targets, and files that the fuzzer has not written, are answered with one line."""
        self.assertRaises(click.UsageError, self.options, "--target", "everything")
        path = Path(self.mktemp())
        for content in (None, "", "{}", "[]", '{"target": "everything"}'):
            if content is not None:
                path.write_text(content)
            error = self.assertRaises(click.UsageError, self.options, "--replay", str(path))
            self.assertIn(str(path), str(error))

    async def test_list_names_every_target(self) -> None:
        """`pfsb fuzz --list` names every target."""
        out = io.StringIO()
        self.patch(FuzzTool, "say", lambda self, text: out.write(text + "\n"))
        await ensureDeferred(run(reactor, self.options("--list")))
        self.assertEqual([line.split()[0] for line in out.getvalue().splitlines()], list(TARGETS))

    @long
    async def test_several_processes_try_at_the_same_time(self) -> None:
        """Several processes have a seed each; one that finds something makes the whole command fail."""
        out = io.StringIO()
        words = ("--for", "0.2", "--seed", "7", "--target", "chat-logs", "--jobs", "2", "--directory", self.mktemp())
        tool = FuzzTool(reactor, self.options(*words), out)
        await ensureDeferred(tool.run_jobs(2))
        for line in ("s from seed 7 for 1 targets: 0 failures", "s from seed 8 for 1 targets: 0 failures"):
            self.assertIn(line, out.getvalue())
        self.assertTrue(out.getvalue().endswith("\n2 processes with seeds from 7 on: 0 with failures\n"))
        self.assertFalse(tool.has_failed)
