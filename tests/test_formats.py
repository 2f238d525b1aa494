"""The bytes of frames, messages, batches, bundles and records are those of docs/internals/formats.rst, for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted, PeerRecord
from pfsb.paxos.snapshot import SnapshotDecoder
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.bundle import decode as decode_bundles
from pfsb.storage.log import groups, items, segments
from pfsb.storage.log.groups import group_at
from pfsb.storage.log.segments import SegmentHead, segment_path
from pfsb.storage.position_note import PositionNote
from pfsb.transports import frames
from pfsb.transports.notices import TYPE_OF
from pfsb.transports.wire import MessageKind, content_of, decode, encode_any
from tests import formats
from tests.formats import (
    DATA,
    GROUPS,
    OWNER,
    SEGMENT,
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
LOG_PAGE = PAGE.with_name("log.rst")


def read(file_name: str) -> list[tuple[str, bytes, Any]]:
    """The vectors of a file: name, bytes, meaning as JSON."""
    content = json.loads((DATA / file_name).read_text(encoding="utf-8"))
    return [(each["name"], bytes.fromhex(each["hex"]), each["meaning"]) for each in content]


class VectorTests(SynchronousTestCase):
    """Vectors of all formats. A test that fails here says that a format has changed: see `tests/formats.py` before
    renewing vectors."""

    def test_vectors_are_complete_and_renewed(self) -> None:
        """The files hold what the generator writes today, no more and no less."""
        written = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in DATA.glob("*.json")}
        self.assertEqual(written, formats.vectors())

    def test_messages(self) -> None:
        """Encoding each message gives the bytes of its vector, and decoding these bytes gives the message."""
        for name, data, meaning in read("messages.json"):
            with self.subTest(name):
                message = from_plain(meaning)
                self.assertEqual(encode_any(message), data)
                self.assertEqual(decode(SENDER, msgpack.unpackb(data, use_list=False)), message)

    def test_every_kind_of_message_has_a_vector(self) -> None:
        """Each kind of message has a vector: one without a vector could change unseen."""
        kinds = {value for name, value in vars(MessageKind).items() if name.isupper()}
        self.assertEqual({msgpack.unpackb(data)[0] for _, data, _ in read("messages.json")}, kinds)

    def test_batches(self) -> None:
        """Encoding each batch gives the bytes of its vector. These bytes are on every disk, and are what servers agree
        on."""
        for name, data, meaning in read("batches.json"):
            with self.subTest(name):
                self.assertEqual(from_plain(meaning).data, data)
                self.assertEqual(to_plain(Batch(data)), meaning)
                self.assertIsNotNone(content_of(data))

    def test_bundles(self) -> None:
        """The payload of an update with these bundles has the bytes of the vector, and decoding gives the bundles."""
        for name, data, meaning in read("bundles.json"):
            with self.subTest(name):
                bundles = [Bundle(**from_plain(each)) for each in meaning]
                self.assertEqual(encoded_payload(bundles), data)
                self.assertEqual(decode_bundles(data), bundles)

    def test_frames(self) -> None:
        """Frames with and without a secret, in which each field has a value of its own, have the bytes of the
        vectors."""
        for name, data, meaning in read("frames.json"):
            with self.subTest(name):
                frame = from_plain(meaning)
                self.assertEqual(encoded_frame(frame), data)
                opened = codec(frame, server_id=1).open(data)
                self.assertEqual(
                    (opened.sender, opened.identity, opened.start, opened.position, tuple(opened.messages)),
                    (SENDER, frame["identity"], frame["start"], frame["position"], frame["messages"]),
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
        """There are vectors of keyed frames and of frames without a key."""
        self.assertEqual({data[6] for _, data, _ in read("frames.json")}, {0, frames.FLAG_KEYED})


class RecordTests(SynchronousTestCase):
    """Vectors of the log in a data directory, and of a snapshot."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.segment = segment_path(self.directory / "log", 1)
        self.snapshot = self.directory / "snapshots" / "000000000001.snapshot"
        self.vectors = read("log.json")
        self.bytes = b"".join(data for _, data, _ in self.vectors)

    def server(self) -> Server:
        server = Server(
            self.directory,
            cluster_name=OWNER.cluster_name,
            cluster_digest=OWNER.cluster_digest,
            members=OWNER.members,
            server_id=SENDER,
            random_bytes=lambda count: formats.RANDOM[:count],
        )
        self.addCleanup(server.storage.close)
        return server

    def test_head(self) -> None:
        """Encoding the head of a segment gives the bytes of the vector, and decoding them gives its meaning."""
        _, data, meaning = self.vectors[0]
        self.assertEqual(SegmentHead.decode(self.segment, data), SEGMENT)
        self.assertEqual(formats.plain_head(SEGMENT), meaning["head"])

    def test_groups(self) -> None:
        """The vectors of groups: each is found at its place, and decoding gives the meaning beside it."""
        at = len(self.vectors[0][1])
        for name, data, meaning in self.vectors[1:]:
            with self.subTest(name):
                group = group_at(self.bytes, at, formats.RANDOM)
                assert group is not None
                number, before, _, start, end = group
                self.assertEqual((number, end - at), (meaning["number"], len(data)))
                self.assertEqual(before, from_plain(meaning["before"]))
                self.assertEqual(formats.plain_content(items.decode(self.bytes[start:end])), meaning["content"])
                at += len(data)

    def test_storage_writes_these_bytes(self) -> None:
        """A storage that starts, writes groups and leaves out a slot writes the bytes of the vectors, and zeros behind
        them."""
        server = self.server()
        server.storage.recover()
        file = server.storage.write_snapshot(1, formats.CLUSTER)
        for piece in formats.PIECES:
            file.write(piece)
        names: list[object] = []
        file.finish(names.append)
        server.clock.run_until(lambda: bool(names))
        self.assertEqual(names, [formats.SNAPSHOT_NAME])
        for records in GROUPS.values():
            server.write(*records)
        server.storage.close()
        [(seq, digest)] = formats.PASSES.items()
        server.storage.add_pass(seq, digest, unseen=False)
        self.assertEqual(self.segment.read_bytes(), self.bytes.ljust(SEGMENT.room, b"\0"))
        self.assertEqual(self.snapshot.read_bytes(), self.snapshot_bytes())

    def snapshot_bytes(self) -> bytes:
        return b"".join(data for _, data, _ in read("snapshot.json"))

    def test_snapshot(self) -> None:
        """The vectors of snapshots: decoding their bytes gives the pieces and the name beside them."""
        decoder = SnapshotDecoder()
        pieces = list(decoder.feed(self.snapshot_bytes()))
        meanings = [meaning for _, _, meaning in read("snapshot.json")]
        self.assertEqual([to_plain(piece) for piece in pieces], meanings[1:-1])
        self.assertEqual(to_plain(decoder.name), meanings[-1])
        self.assertEqual((decoder.seq, decoder.cluster_identity.hex()), tuple(meanings[0].values()))

    def test_storage_reads_these_bytes(self) -> None:
        """A data directory that holds the bytes of the vectors is recovered as they say."""
        self.segment.parent.mkdir(parents=True)
        self.segment.write_bytes(self.bytes.ljust(SEGMENT.room, b"\0"))
        self.snapshot.parent.mkdir()
        self.snapshot.write_bytes(self.snapshot_bytes())
        PositionNote(self.directory / "pfsb.position", b"disk-003", lambda: 0.0).create(9)
        server = self.server()
        found = server.storage.recover()
        self.assertEqual((found.identity, found.incarnation, server.storage.position), (b"disk-003", 2, 10))
        view = formats.MEMBERS.first_view
        self.assertEqual((found.last_attempted, found.last_installed, found.local_aru), (view, view, 3))
        ordered = [(2, formats.BATCH), (3, formats.FAR_BATCH)]
        self.assertEqual((found.snapshot, list(found.ordered)), (formats.SNAPSHOT_NAME, ordered))
        self.assertEqual(b"".join(found.snapshot_bytes), self.snapshot_bytes())
        self.assertEqual(found.accepted, [Accepted(4, view, formats.BATCH)])
        self.assertEqual(found.members, formats.MEMBERS)
        self.assertEqual(found.peers, {0: PeerRecord(0, b"disk-000", 1, 2), 1: PeerRecord(1, b"disk-001", 12, 34_567)})
        self.assertEqual(found.passes, formats.PASSES)

    def test_every_kind_of_item_has_a_vector(self) -> None:
        """Each kind of item has a vector: one without a vector could change unseen."""
        plain = [meaning["content"] for _, _, meaning in self.vectors[1:]]
        for name in plain[0]:
            self.assertTrue(any(each[name] for each in plain), name)


class PageTests(SynchronousTestCase):
    """docs/internals/formats.rst names the kinds, numbers and sizes that the code has."""

    def test_page_has_every_kind_of_message_with_its_number(self) -> None:
        """The table of messages in docs/internals/formats.rst has every kind of message with its number."""
        text = PAGE.read_text(encoding="utf-8")
        for name, number in vars(MessageKind).items():
            if name.isupper():
                self.assertRegex(text, rf"(?m)^{number} +{name} ", name)

    def test_page_has_every_kind_of_item_with_its_number(self) -> None:
        """The table of items in docs/internals/formats.rst has every kind of item with its number."""
        text = LOG_PAGE.read_text(encoding="utf-8")
        for name in ("START", "VIEWS", "ARU", "PEER", "PASS", "SNAPSHOT", "EPOCH", "SLOT"):
            self.assertRegex(text, rf"(?m)^{getattr(items, name)} +{name} ", name)

    def test_page_gives_the_sizes_of_the_code(self) -> None:
        """docs/internals/formats.rst has the present version numbers, and the number of bytes around the body of a
        frame."""
        text = PAGE.read_text(encoding="utf-8")
        self.assertIn(f"format version, {frames.VERSION}\n", text.replace("  ", "\n"))
        self.assertIn(f"{frames.OVERHEAD_BYTES} bytes", text)
        log_text = LOG_PAGE.read_text(encoding="utf-8")
        self.assertIn(f"format version, {segments.FORMAT_VERSION}\n", log_text.replace("  ", "\n"))
        self.assertRegex(log_text, rf"(?m)^{groups.HEAD_BYTES} +content")
