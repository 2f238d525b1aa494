"""The bytes of frames, messages, batches, bundles and records are those of docs/internals/formats.rst, for good."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import msgpack
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.paxos.messages import Batch
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.records import Accepted, AruRecord, OrderedRecord, PeerRecord, ProposalRecord, ViewRecord
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.bundle import decode as decode_bundles
from pfsb.storage import database
from pfsb.storage.position_note import PositionNote
from pfsb.storage.rows import row_hash
from pfsb.transports import frames
from pfsb.transports.notices import TYPE_OF
from pfsb.transports.wire import MessageKind, content_of, decode, encode_any
from tests import formats
from tests.formats import (
    DATA,
    IDENTITY,
    OWNER,
    SENDER,
    codec,
    encoded_frame,
    encoded_payload,
    from_plain,
    notice_from_plain,
    sealed_notice,
    to_plain,
)
from tests.storage.support import Server

PAGE = Path(pfsb.__file__).resolve().parents[1] / "docs" / "internals" / "formats.rst"


def read(file_name: str) -> list[tuple[str, bytes, Any]]:
    """The vectors of a file: name, bytes, meaning as JSON."""
    content = json.loads((DATA / file_name).read_text(encoding="utf-8"))
    return [(each["name"], bytes.fromhex(each["hex"]), each["meaning"]) for each in content]


class VectorTests(SynchronousTestCase):
    """A test that fails here says that the format has changed: see `tests/formats.py` before renewing anything."""

    def test_vectors_are_complete_and_renewed(self) -> None:
        """The files hold what the generator writes today, no more and no less."""
        written = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in DATA.glob("*.json")}
        self.assertEqual(written, formats.vectors())

    def test_messages(self) -> None:
        """Encoding gives these bytes, and decoding gives these values."""
        for name, data, meaning in read("messages.json"):
            with self.subTest(name):
                message = from_plain(meaning)
                self.assertEqual(encode_any(message), data)
                self.assertEqual(decode(SENDER, msgpack.unpackb(data, use_list=False)), message)

    def test_every_kind_of_message_has_a_vector(self) -> None:
        """A kind without one could change unseen."""
        kinds = {value for name, value in vars(MessageKind).items() if name.isupper()}
        self.assertEqual({msgpack.unpackb(data)[0] for _, data, _ in read("messages.json")}, kinds)

    def test_batches(self) -> None:
        """The bytes of a batch are on every disk, and are what servers agree on."""
        for name, data, meaning in read("batches.json"):
            with self.subTest(name):
                self.assertEqual(from_plain(meaning).data, data)
                self.assertEqual(to_plain(Batch(data)), meaning)
                self.assertIsNotNone(content_of(data))

    def test_bundles(self) -> None:
        """The payload of an update."""
        for name, data, meaning in read("bundles.json"):
            with self.subTest(name):
                bundles = [Bundle(**from_plain(each)) for each in meaning]
                self.assertEqual(encoded_payload(bundles), data)
                self.assertEqual(decode_bundles(data), bundles)

    def test_frames(self) -> None:
        """With and without a secret, every field with a value of its own."""
        for name, data, meaning in read("frames.json"):
            with self.subTest(name):
                frame = from_plain(meaning)
                self.assertEqual(encoded_frame(frame), data)
                opened = codec(frame, server_id=1).open(data)
                self.assertEqual(
                    (opened.sender, opened.identity, opened.incarnation, opened.position, tuple(opened.messages)),
                    (SENDER, frame["identity"], frame["incarnation"], frame["position"], frame["messages"]),
                )

    def test_notices(self) -> None:
        """The frames of the transport itself; every type that is not that of messages has a vector."""
        for name, data, meaning in read("notices.json"):
            with self.subTest(name):
                notice = notice_from_plain(meaning)
                self.assertEqual(sealed_notice(notice), data)
                self.assertEqual(codec(from_plain(read("frames.json")[0][2]), server_id=1).open(data).notice, notice)
        self.assertEqual({data[5] for _, data, _ in read("notices.json")}, set(TYPE_OF.values()))

    def test_every_flag_of_frames_has_a_vector(self) -> None:
        """Keyed and not."""
        self.assertEqual({data[6] for _, data, _ in read("frames.json")}, {0, frames.FLAG_KEYED})


class RecordTests(SynchronousTestCase):
    """The rows of a data directory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        for _, data, meaning in read("records.json"):
            self.rows.setdefault(meaning["table"], []).append((*from_plain(meaning["columns"]), data))

    def server(self) -> Server:
        server = Server(
            self.directory,
            cluster_name=OWNER.cluster_name,
            cluster_digest=OWNER.cluster_digest,
            members=OWNER.members,
            server_id=SENDER,
            random_bytes=lambda count: b"disk-003",
        )
        self.addCleanup(server.storage.close)
        return server

    def test_hash_of_each_row(self) -> None:
        """The hash covers the name of the table and all columns."""
        for table, rows in self.rows.items():
            for *columns, stored in rows:
                self.assertEqual(row_hash(table, *columns), stored)

    def test_storage_writes_these_rows(self) -> None:
        """Five starts and four groups give exactly the rows of the vectors."""
        for _ in range(4):
            server = self.server()
            server.storage.recover()
            server.storage.close()
        server = self.server()
        server.storage.recover()
        ordered, accepted = (Batch(row[2]) for row in self.rows["history"])
        server.write(ViewRecord(9, 7))
        server.write(OrderedRecord(1, ordered), ProposalRecord(2, 7, accepted))
        server.write(PeerRecord(0, b"disk-000"), PeerRecord(1, b"disk-001", 12, 34_567))
        server.write(AruRecord(1))
        server.storage.close()
        server.storage.add_pass(2, batch_digest(accepted.data), unseen=False)
        connection = sqlite3.connect(self.directory / "pfsb.sqlite3")
        self.addCleanup(connection.close)
        written = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in self.rows}
        self.assertEqual(written, self.rows)

    def test_storage_reads_these_rows(self) -> None:
        """A data directory that holds the rows of the vectors is recovered as they say."""
        self.directory.mkdir()
        database.create(self.directory / "pfsb.sqlite3", IDENTITY)
        connection = sqlite3.connect(self.directory / "pfsb.sqlite3")
        with connection:
            for table, rows in self.rows.items():
                connection.execute(f"DELETE FROM {table}")
                for row in rows:
                    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        connection.close()
        PositionNote(self.directory / "pfsb.position", b"disk-003", lambda: 0.0).create(9)
        server = self.server()
        found = server.storage.recover()
        ordered, accepted = (Batch(row[2]) for row in self.rows["history"])
        self.assertEqual((found.identity, found.incarnation, server.storage.position), (b"disk-003", 6, 10))
        self.assertEqual((found.last_attempted, found.last_installed, found.local_aru), (9, 7, 1))
        self.assertEqual(list(found.ordered), [(1, ordered)])
        self.assertEqual(found.accepted, [Accepted(2, 7, accepted)])
        self.assertEqual(found.peers, {0: PeerRecord(0, b"disk-000"), 1: PeerRecord(1, b"disk-001", 12, 34_567)})
        self.assertEqual(found.passes, {2: batch_digest(accepted.data)})

    def test_every_table_has_a_vector(self) -> None:
        """A table without one could change unseen."""
        tables = {line.split()[2] for line in database.TABLES.splitlines() if line.startswith("CREATE TABLE")}
        self.assertEqual(set(self.rows), tables)


class PageTests(SynchronousTestCase):
    """docs/internals/formats.rst names what the code has."""

    def test_page_has_every_kind_of_message_with_its_number(self) -> None:
        """The table of messages in the document."""
        text = PAGE.read_text(encoding="utf-8")
        for name, number in vars(MessageKind).items():
            if name.isupper():
                self.assertRegex(text, rf"(?m)^{number} +{name} ", name)

    def test_page_has_every_column_of_every_table(self) -> None:
        """The tables of a data directory."""
        text = PAGE.read_text(encoding="utf-8")
        columns = {line.split()[0] for line in database.TABLES.splitlines() if line.startswith(" ")}
        self.assertGreater(len(columns), 10)
        self.assertEqual([column for column in sorted(columns) if f"``{column}``" not in text], [])

    def test_page_gives_the_sizes_of_the_code(self) -> None:
        """Versions, and the bytes around the body."""
        text = PAGE.read_text(encoding="utf-8")
        self.assertIn(f"format version, {frames.VERSION}\n", text.replace("  ", "\n"))
        self.assertIn(f"format {database.FORMAT_VERSION} ", text)
        self.assertIn(f"{frames.OVERHEAD_BYTES} bytes", text)
