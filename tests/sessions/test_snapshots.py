"""Snapshots of the sessions: a state machine that is restored from one behaves afterwards like one that has executed
all slots."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications import key_value
from pfsb.paxos import snapshot_rows
from pfsb.paxos.snapshot import Piece
from tests.long import long
from tests.sessions.histories import Executor, History

SLOTS = 45
quotas = st.fixed_dictionaries(
    {"session_window": st.integers(1, 20)},
    optional={
        "replies_bytes": st.sampled_from((1, 200, 1_500, 5_000)),
        "reply_cache_bytes": st.sampled_from((1, 100, 700)),
        "kv_bytes": st.sampled_from((40, 400)),
        "sessions": st.integers(2, 6),
        "session_waits": st.integers(1, 3),
    },
)


def restored(
    server_id: int, quotas: dict[str, int], pieces: list[Piece], runs_before: Executor | None = None
) -> Executor:
    """A state machine that begins with a snapshot, or goes on with it, if it ran before."""
    executor = runs_before or Executor(server_id, quotas)
    restorer = executor.machine.restorer()
    for piece in pieces:
        restorer.take(piece)
    restorer.adopt()
    return executor


class SameStateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(key_value, "GROWING_FROM_BYTES", 8)
        self.patch(snapshot_rows, "PIECE_WORK", 30)  # so that sessions have many pieces
        self.seen: dict[str, int] = {}

    @long
    def test_random_histories(self) -> None:
        """Server 0 executes all slots and makes a snapshot meanwhile; server 1 executes all slots, and keeps the same
        results in other forms. Two more servers take the snapshot, one of them after it has executed some slots. All
        four tell and keep the same from then on, and make equal snapshots."""

        @settings(max_examples=160, deadline=None, database=None, derandomize=True)
        @given(st.integers(0, 2**32), quotas)
        def run(seed: int, quotas: dict[str, int]) -> None:
            self._compare(seed, quotas)
            self.flushLoggedErrors()

        run()
        for what in (
            "waiting",
            "growing",
            "shared",
            "unshared",
            "closed",
            "forgotten",
            "numbered again",
            "overdue",
            "answers",
        ):
            self.assertGreater(self.seen.get(what, 0), 0, what)

    def _compare(self, seed: int, quotas: dict[str, int]) -> None:
        dice = random.Random(seed)
        first, other, late = Executor(0, quotas), Executor(1, quotas), Executor(0, quotas)
        history = History(seed, first.machine)
        at, late_from = dice.randrange(8, SLOTS), dice.randrange(5)
        for seq in range(1, at + 1):
            slot = history.slot()
            first.execute(slot)
            other.execute(slot)
            if seq <= late_from:
                late.execute(slot)
        self._note(first)
        whole = [*other.machine.freeze()]
        pieces, slots = first.machine.freeze(), []
        taken: list[Piece] = []
        behind = []
        for _ in range(12):
            taken += self._some(pieces, dice.choice((0, 1, 1, 1, 3)))
            slots.append(history.slot())
            behind.append(first.execute(slots[-1]))
            self.assertEqual(other.execute(slots[-1])[0], behind[-1][0])
        taken += pieces
        self.assertEqual(taken, whole)
        anew, gone_on = restored(0, quotas, taken), restored(0, quotas, taken, late)
        self.assertEqual(gone_on.observer.restored_states, 1)
        for each in (anew, gone_on):
            self.assertEqual([*each.machine.freeze()], taken)
        for slot, told in zip(slots, behind, strict=True):
            self.assertEqual(anew.execute(slot), told)
            self.assertEqual(gone_on.execute(slot), told)
        everyone = first, other, anew, gone_on
        for _ in range(15):
            slot = history.slot()
            told = first.execute(slot)
            self.assertEqual([anew.execute(slot), gone_on.execute(slot)], [told, told])
            self.assertEqual(other.execute(slot)[0], told[0])
        self._require_equal(*everyone)

    def _some(self, pieces: Iterator[Piece], number: int) -> list[Piece]:
        return [piece for _ in range(number) if (piece := next(pieces, None)) is not None]

    def _require_equal(self, first: Executor, *others: Executor) -> None:
        later, machine = [*first.machine.freeze()], first.machine
        for each in others:
            self.assertEqual([*each.machine.freeze()], later)
            self.assertEqual(each.answers(), first.answers())
            self.assertEqual(each.machine.quotas(), machine.quotas())
            self.assertEqual(each.machine.next_deadline(), machine.next_deadline())
            self.assertEqual([*each.machine.sessions], [*machine.sessions])
            self.assertEqual(_pages(each), _pages(first))

    def _note(self, executor: Executor) -> None:
        """Count the situations in which a snapshot was made: the test requires that each has occurred."""
        machine = executor.machine
        kept = machine.kept_replies
        sharing = [each for each in machine.applications if each.name == "kv"]
        shared = [each for each in kept.growing.values() if any(kv.growing_at(each.key) is each for kv in sharing)]
        for what, is_seen in {
            "waiting": any(session.waiting for session in machine.sessions.values()),
            "growing": kept.growing,
            "shared": shared,
            "unshared": len(shared) < len(kept.growing),
            "closed": machine.closed_sessions,
            "forgotten": machine.forgotten,
            "numbered again": any(page.number > 10 for page in kept.pages.values()),
            "overdue": machine.next_deadline() is None and machine.time_ms > 10_000,
            "answers": len(executor.answers()) > 20,
        }.items():
            self.seen[what] = self.seen.get(what, 0) + bool(is_seen)


def _pages(executor: Executor) -> list[Any]:
    kept = executor.machine.kept_replies
    return [
        (number, page.owner.client_id, page.looked_at, page.size, page.shared, len(page), [*page.numbers])
        for number, page in kept.pages.items()
    ]
