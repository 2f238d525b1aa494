"""The events of a server as JSON lines (docs/operating.rst)."""

from __future__ import annotations

import io
import json
from typing import Any, get_args

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    ClientUpdate,
    GloballyOrderedUpdate,
    HandOver,
    HandOverReason,
    Message,
    Prepare,
    PrepareOK,
    Proposal,
    State,
    Stranger,
)
from pfsb.tracing import JSONTracer, describe, type_name

BATCH = Batch.of(1_000, [ClientUpdate("7 alice", 2, 3, 4, b"payload")])


class NameTests(SynchronousTestCase):
    def test_messages_are_named_as_the_paper_names_them(self) -> None:
        """The types are those of Figure 3, of the messages that the paper describes in prose, and of departures."""
        names = {type_name(object.__new__(kind)) for kind in get_args(Message)}
        self.assertEqual(
            names,
            {
                "CLIENT_UPDATE",
                "VIEW_CHANGE",
                "VC_PROOF",
                "PREPARE",
                "PREPARE_OK",
                "PROPOSAL",
                "ACCEPT",
                "ORDERED",
                "GLOBALLY_ORDERED_UPDATE",
                "ALIVE",
                "RECONCILIATION_REQUEST",
                "RECONCILIATION_REPLY",
                "HEARD",
                "KNOWN_POSITION",
                "SNAPSHOT_OFFER",
                "SNAPSHOT_PART",
                "SNAPSHOT_REQUEST",
                "HAND_OVER",
                "STRANGER",
                "ACQUAINTED",
                "READ_REQUEST",
                "READ_INDEX",
                "CONFIRM",
                "CONFIRMED",
            },
        )


class DescriptionTests(SynchronousTestCase):
    def test_message_is_shown_with_its_fields(self) -> None:
        """A message in the trace is an object such as `{"type":"PROPOSAL","view":3,"seq":812,...}`; of a batch it has
        only the size."""
        self.assertEqual(
            describe(Proposal(0, 3, 812, BATCH)),
            {"type": "PROPOSAL", "server_id": 0, "view": 3, "seq": 812, "batch": {"bytes": len(BATCH.data)}},
        )

    def test_everything_in_it_can_be_written_as_json(self) -> None:
        """States, lists of numbers, bytes, and messages inside messages can all be written as JSON."""
        described = [
            describe(Alive(1, 2, State.REG_LEADER, 5)),
            describe(Accept(1, 2, (7, 8), bytes(32))),
            describe(Stranger(1, b"\x01\xff")),
            describe(ClientUpdate("a", 0, 1, 0, b"x" * 200)),
            describe(PrepareOK(1, 2, (Proposal(0, 1, 5, BATCH), GloballyOrderedUpdate(0, 4, BATCH)))),
            describe(HandOver(1, 2, 3, HandOverReason.STOPS)),
        ]
        alive, accept, stranger, update, promise, hand_over = json.loads(json.dumps(described))
        self.assertEqual((alive["state"], accept["seqs"], stranger["identity"]), ("REG_LEADER", [7, 8], "01ff"))
        self.assertEqual(update["payload"], {"bytes": 200})
        self.assertEqual(hand_over["reason"], "stops")
        self.assertEqual(
            [(entry["type"], entry["seq"]) for entry in promise["data_list"]],
            [("PROPOSAL", 5), ("GLOBALLY_ORDERED_UPDATE", 4)],
        )


class JSONTracerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = io.StringIO()
        self.now = 12.3456789
        self.tracer = JSONTracer(self.file, 2, lambda: self.now)

    def lines(self) -> list[Any]:
        text = self.file.getvalue()
        self.assertTrue(text.endswith("\n"))
        return [json.loads(line) for line in text.splitlines()]

    def test_one_object_a_line_in_the_order_of_occurrence(self) -> None:
        """The trace has one JSON object a line, each with its time, its server and its event."""
        self.tracer.trace("start", view=0, aru=3)
        self.now = 13.0
        self.tracer.trace("stop")
        self.assertEqual(
            self.lines(),
            [
                {"t": 12.345679, "server": 2, "event": "start", "view": 0, "aru": 3},
                {"t": 13.0, "server": 2, "event": "stop"},
            ],
        )

    def test_message_in_an_event_is_described(self) -> None:
        """The message in an event `send` or `receive` is shown as an object."""
        self.tracer.trace("send", to=None, message=Prepare(0, 3, 811))
        (line,) = self.lines()
        self.assertEqual(line["message"], {"type": "PREPARE", "server_id": 0, "view": 3, "local_aru": 811})
        self.assertIsNone(line["to"])

    def test_text_that_is_no_text_is_written_all_the_same(self) -> None:
        """Half a surrogate pair, which UTF-8 does not have, is written escaped: a trace must not stop a server."""
        self.tracer.trace("client", client="\ud800")
        self.assertEqual(self.lines()[0]["client"], "\ud800")

    def test_long_text_is_cut(self) -> None:
        self.tracer.trace("client", client="x" * 500)
        self.assertLess(len(self.file.getvalue()), 200)

    def test_trace_that_cannot_be_written_ends(self) -> None:
        """If the disk of the trace is full, the trace ends and the server goes on."""

        def full() -> None:
            raise OSError(28, "No space left on device")

        self.file.flush = full  # type: ignore[method-assign]
        self.tracer.trace("start")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        written = self.file.getvalue()
        self.tracer.trace("stop")
        self.assertEqual(self.file.getvalue(), written)

    def test_line_is_written_at_once(self) -> None:
        """Each line is written at once, so a server that is killed leaves all lines but half of the last one."""
        flushed: list[str] = []
        self.file.flush = lambda: flushed.append(self.file.getvalue())  # type: ignore[method-assign]
        self.tracer.trace("start")
        self.assertEqual(flushed, [self.file.getvalue()])

    def test_text_of_users_stays_on_one_line(self) -> None:
        """A client id, which the client chooses and which may be long, does not break the line of an event."""
        self.tracer.trace("client", client='a"\n\u2028é')
        self.assertEqual(self.file.getvalue().count("\n"), 1)
        line = json.loads(self.file.getvalue())
        self.assertEqual(line["client"], 'a"\n\u2028é')
