from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.transports.frames import OVERHEAD_BYTES
from pfsb.transports.notices import (
    RANGES_MAX,
    TYPE_ECHO,
    TYPE_OF,
    TYPE_PART,
    TYPE_PROBE,
    TYPE_REPORT,
    Echo,
    Notice,
    Part,
    Probe,
    Report,
    decode_notice,
)
from pfsb.transports.path_size import FLOOR_BYTES
from pfsb.transports.wire import Malformed
from tests.examples import examples

TAG = bytes(range(16))


class NoticeTests(SynchronousTestCase):
    def test_notices_come_out_as_they_went_in(self) -> None:
        """Each kind of notice is the same after encoding and decoding, and has a frame type of its own."""
        notices: list[Notice] = [
            Part(TAG, 50_000, 1_095, 0, b"piece"),
            Part(TAG, 5, 0, 254, b"piece"),
            Report(TAG, 0, ()),
            Report(TAG, 254, ((0, 7), (1_095, 2_190))),
            Probe(1_111),
            Echo(TAG),
        ]
        for notice in notices:
            self.assertEqual(decode_notice(TYPE_OF[type(notice)], notice.body()), notice)

    def test_longest_report_fits_the_smallest_datagram(self) -> None:
        """The longest report fits the smallest datagram, since a report must get through where hardly anything else
        does."""
        body = Report(TAG, 1, tuple((2 * i, 2 * i + 1) for i in range(RANGES_MAX))).body()
        self.assertLessEqual(OVERHEAD_BYTES + len(body), FLOOR_BYTES)

    def test_malformed_notices_are_refused(self) -> None:
        """Notices with impossible sizes, places or ranges are refused."""
        part = Part(TAG, 10, 5, 0, b"piece").body()
        cases = [
            (TYPE_PART, b""),
            (TYPE_PART, part[:-5]),
            (TYPE_PART, part + b"x"),
            (TYPE_REPORT, b""),
            (TYPE_REPORT, TAG),
            (TYPE_REPORT, TAG + b"\x00" + bytes(7)),
            (TYPE_REPORT, Report(TAG, 1, ()).body()),
            (TYPE_REPORT, Report(TAG, 0, ((0, 1),)).body()),
            (TYPE_REPORT, Report(TAG, 1, ((1, 1),)).body()),
            (TYPE_REPORT, Report(TAG, 1, ((5, 7), (6, 8))).body()),
            (TYPE_REPORT, Report(TAG, 1, tuple((2 * i, 2 * i + 1) for i in range(RANGES_MAX + 1))).body()),
            (TYPE_ECHO, b""),
            (TYPE_ECHO, TAG + b"x"),
        ]
        for frame_type, body in cases:
            self.assertRaises(Malformed, decode_notice, frame_type, body)

    @examples(100)
    @given(st.sampled_from((TYPE_PART, TYPE_REPORT, TYPE_PROBE, TYPE_ECHO)), st.binary(max_size=80))
    def test_any_bytes_are_a_notice_or_malformed(self, frame_type: int, body: bytes) -> None:
        """Any bytes are decoded as a notice or refused as malformed; a notice encodes to the same bytes (a probe: to as
        many)."""
        try:
            notice = decode_notice(frame_type, body)
        except Malformed:
            return
        self.assertEqual(len(notice.body()), len(body))
        if not isinstance(notice, Probe):
            self.assertEqual(notice.body(), body)
