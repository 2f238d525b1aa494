"""Tests of `pfsb export` and `pfsb import`: the contents of a cluster as JSON lines."""

from __future__ import annotations

import io
import json

from attrs import fields
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pfsb.backups import import_command
from pfsb.backups.import_command import TOGETHER, batches_of
from pfsb.backups.json_lines import ChatLine, KeyLine, WrongLine, lines_of, read_line
from pfsb.commands.exit_status import ExitStatus
from tests.backups.states import MadeState


class LinesTests(SynchronousTestCase):
    def test_keys_chat_and_locks_are_lines(self) -> None:
        made = MadeState()
        made.anonymous(("PUT", "grüße".encode(), b"\xff\x00"), ("SAY", "hello"))
        epoch = made.open("alice")["epoch"]
        made.run("alice", epoch, 1, ("LOCK", "printer", -1))
        head, key, chat, lock = map(json.loads, lines_of(made.state()))
        self.assertEqual((head["pfsb"], head["slot"]), (1, made.seq))
        self.assertEqual((key["kv"]["key"], key["kv"]["value_base64"]), ("grüße", "/wA="))
        self.assertEqual((chat["chat"]["index"], chat["chat"]["text"]), (1, "hello"))
        self.assertEqual((lock["lock"]["name"], lock["lock"]["holder"]), ("printer", "alice"))

    def test_only_what_was_asked_for_is_shown(self) -> None:
        made = MadeState()
        made.anonymous(("PUT", b"a", b"b"), ("SAY", "hello"))
        self.assertEqual(len([*lines_of(made.state(), ("chat",))]), 2)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=50), max_size=5))
    def test_every_key_and_value_comes_back(self, entries: dict[bytes, bytes]) -> None:
        made = MadeState()
        if entries:
            made.anonymous(*(("PUT", key, value) for key, value in entries.items()))
        found = [read_line(line.encode()) for line in lines_of(made.state())]
        self.assertEqual({each.key: each.value for each in found if isinstance(each, KeyLine)}, entries)

    def test_lines_that_no_export_has_written_are_refused(self) -> None:
        for text in (
            "",
            "[]",
            "{}",
            '{"kv": {"key": "a"}}',
            '{"kv": {"key": "a", "value": 5}}',
            '{"kv": {"key": "a", "key_base64": "YQ==", "value": "b"}}',
            '{"kv": {"key_base64": "?", "value": "b"}}',
            '{"chat": {"text": "hello"}}',
            '{"pfsb": 2}',
            '{"chat": {"client": "a", "text": "\\ud800"}}',
            '{"chat": {"client": "a b", "text": "hello"}}',
            '{"chat": {"client": "\\ud800", "text": "hello"}}',
            json.dumps({"chat": {"client": 65 * "a", "text": "hello"}}),
            100_000 * "[",
        ):
            self.assertRaises(WrongLine, read_line, text.encode())

    def test_lines_of_anonymous_clients_and_of_names_are_read(self) -> None:
        for client in ("alice", "~0.5", "!2", "", 64 * "a"):
            line = json.dumps({"chat": {"client": client, "text": "grüße"}})
            self.assertEqual(read_line(line.encode()), ChatLine(client, "grüße"))


class BatchesTests(SynchronousTestCase):
    def batches(self, *lines: object) -> list[tuple[int, list[KeyLine | ChatLine]]]:
        return [*batches_of([json.dumps(line).encode() for line in lines])]

    def test_the_order_of_the_chat_stays(self) -> None:
        said = [{"chat": {"client": client, "text": text}} for client, text in ("a1", "a2", "b3", "a4")]
        found = [[each.text for each in batch if isinstance(each, ChatLine)] for _, batch in self.batches(*said)]
        self.assertEqual(found, [["1", "2"], ["3"], ["4"]])

    def test_not_too_many_are_under_way_at_once(self) -> None:
        keys = [{"kv": {"key": str(number), "value": ""}} for number in range(TOGETHER + 1)]
        self.assertEqual([len(batch) for _, batch in self.batches(*keys)], [TOGETHER, 1])

    def test_large_values_go_in_smaller_batches(self) -> None:
        keys = [{"kv": {"key": str(number), "value": "v" * 150_000}} for number in range(4)]
        self.assertEqual([len(batch) for _, batch in self.batches(*keys)], [2, 2])

    def test_what_stands_before_a_wrong_line_is_imported_and_its_number_told(self) -> None:
        for wrong in (b"no", b"\xff\xfe"):
            lines = batches_of(io.BytesIO(b'{"kv": {"key": "a", "value": "b"}}\n' + wrong + b"\n"))
            self.assertEqual(next(lines)[0], 1)
            error = self.assertRaises(WrongLine, next, lines)
            self.assertIn("line 2", str(error))


class ImportTests(TestCase):
    async def test_a_binary_file_is_a_wrong_line(self) -> None:
        options = import_command.Options(**{field.name: None for field in fields(import_command.Options)})
        err = io.StringIO()
        status = await import_command.import_lines(reactor, options, io.BytesIO(b"\n\x00\xff\x80"), err)
        self.assertIs(status, ExitStatus.USAGE)
        self.assertIn("line 2: no JSON lines: it is not UTF-8\n0 keys and 0 lines", err.getvalue())
