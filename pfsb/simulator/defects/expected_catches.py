"""The run or schedule that catches each planted defect, and the violation that it finds.

Written by `docs/make_broken_table.py --hunt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.runs.defect_hunt import Catch

CAUGHT: Final[Mapping[str, Catch]] = {
    "accept-early": Catch(
        "mixed",
        0,
        "Violation: server N votes in view N at N, with None on disk",
    ),
    "proposal-not-forced": Catch(
        "mixed",
        0,
        "Violation: server N votes in view N at N, with None on disk",
    ),
    "prepare-ok-early": Catch(
        "mixed",
        0,
        "Violation: server N has view N on disk, but sends PrepareOK",
    ),
    "prepare-early": Catch(
        "mixed",
        0,
        "Violation: server N has view N on disk, but sends Prepare",
    ),
    "proposal-early": Catch(
        "mixed",
        8,
        "Violation: server N has view N on disk, but sends Proposal",
    ),
    "vc-proof-volatile": Catch(
        "mixed",
        0,
        "Violation: server N has view N on disk, but sends VCProof",
    ),
    "alive-volatile": Catch(
        "mixed",
        0,
        "Violation: server N has view N on disk, but sends Alive",
    ),
    "view-not-written": Catch(
        "mixed",
        0,
        "Violation: server N has view N on disk, but sends Prepare",
    ),
    "reply-early": Catch(
        "mixed",
        0,
        "Violation: X is answered from slot N, which is only on the disks of",
    ),
    "sync-not-awaited": Catch(
        "mixed",
        0,
        "Violation: server N has view N on disk, but sends Prepare",
    ),
    "write-error-ignored": Catch(
        "mixed",
        5,
        "Violation: server N has view N on disk, but sends Prepare",
    ),
    "torn-tail-kept": Catch(
        "mixed",
        8,
        "ValueError: Unpack failed: incomplete input",
    ),
    "replayed-backwards": Catch(
        "mixed",
        0,
        "Violation: server N has N on disk, but sends Alive",
    ),
    "aru-ahead": Catch(
        "mixed",
        0,
        "StorageRefused: memory: slot N is missing from the history, which should hold ev",
    ),
    "catch-up-left-out": Catch(
        "paper",
        34,
        "InvariantViolated: server N: N: slot N is ordered, and not executed",
    ),
    "digest-gap": Catch(
        "mixed",
        0,
        "Violation: after slot N server N has another digest than others",
    ),
    "lost-disk-unnoticed": Catch(
        "mixed",
        0,
        "Violation: a stranger's frame has changed server N:",
    ),
    "newcomer-votes": Catch(
        "heirs",
        0,
        "Violation: S1: slot N is ordered as",
    ),
    "order-more-than-majority": Catch(
        "mixed",
        0,
        "Violation: somebody is not served within N s",
    ),
    "order-less-than-majority": Catch(
        "mixed",
        0,
        "Violation: X is answered from slot N, which is only on the disks of",
    ),
    "prepare-more-than-majority": Catch(
        "mixed",
        0,
        "Violation: somebody is not served within N s",
    ),
    "prepare-less-than-majority": Catch(
        "mixed",
        2,
        "Violation: S1: slot N is",
    ),
    "preinstall-more-than-majority": Catch(
        "mixed",
        0,
        "Violation: somebody is not served within N s",
    ),
    "followers-more-than-majority": Catch(
        "mixed",
        0,
        "Violation: view N worked, and now it is view N, though only nothing has happened",
    ),
    "half-is-enough": Catch(
        "mixed",
        0,
        "Violation: X is answered from slot N, which is only on the disks of",
    ),
    "lazy-vote-lost": Catch(
        "mixed",
        1,
        "Violation: in vain for N s, server N was asked, and all should have executed tha",
    ),
    "lazy-vote-before-disk": Catch(
        "mixed",
        0,
        "AssertionError: server N votes for what nobody proposed: view N, slot N",
    ),
    "vote-counted-twice": Catch(
        "mixed",
        5,
        "Violation: slot N: N disks hold what was chosen",
    ),
    "votes-of-all-views": Catch(
        "mixed",
        31,
        "Violation: S1: slot N is",
    ),
    "proposal-counts-as-vote": Catch(
        "mixed",
        1,
        "Violation: X is answered from slot N, which is only on the disks of",
    ),
    "prepare-phase-skipped": Catch(
        "mixed",
        2,
        "Violation: S1: slot N is",
    ),
    "promise-stale": Catch(
        "mixed",
        5,
        "Violation: server N keeps quiet about its vote at N in PrepareOK",
    ),
    "data-list-without-ordered": Catch(
        "mixed",
        15,
        "Violation: server N keeps quiet about its vote at N in PrepareOK",
    ),
    "data-list-cut-short": Catch(
        "mixed",
        0,
        "Violation: server N keeps quiet about its vote at N in PrepareOK",
    ),
    "promise-below-floor": Catch(
        "mixed",
        15,
        "Violation: S1: slot N is",
    ),
    "promise-in-part": Catch(
        "crashes",
        97,
        "Violation: S1: slot N is",
    ),
    "editions-mixed": Catch(
        "promises",
        84,
        "Violation: S1: slot N is",
    ),
    "older-view-accepted": Catch(
        "calm",
        8,
        "Violation: S1: slot N is",
    ),
    "older-proposal-replaces": Catch(
        "paper",
        709,
        "Violation: S1: slot N is",
    ),
    "constraint-ignored": Catch(
        "mixed",
        23,
        "Violation: S1: slot N is",
    ),
    "send-proposal-falls-through": Catch(
        "mixed",
        23,
        "AssertionError: a leader proposes once a view and slot, and only what is not ord",
    ),
    "window-ignored": Catch(
        "mixed",
        0,
        "InvariantViolated: server N: N: Last_Proposed is N, Local_Aru N, the window N",
    ),
    "leads-again": Catch(
        "mixed",
        0,
        "AssertionError: a leader proposes once a view and slot, and only what is not ord",
    ),
    "executed-twice": Catch(
        "paper",
        32,
        "Violation: S3: server N ran X at N and again at N",
    ),
    "learned-not-executed": Catch(
        "mixed",
        24,
        "InvariantViolated: server N: N: slot N is ordered, and not executed",
    ),
    "proposals-told-as-ordered": Catch(
        "mixed",
        3,
        "Violation: slot N: N disks hold what was chosen",
    ),
    "time-goes-back": Catch(
        "mixed",
        57,
        "InvariantViolated: server N: N: the state machine's time went back from N to N",
    ),
    "horizon-ignored": Catch(
        "echoes",
        4,
        "Violation: S3: server N ran X at N and again at N",
    ),
    "executes-out-of-order": Catch(
        "mixed",
        0,
        "Violation: server N has N on disk, but sends Alive",
    ),
    "view-joined-without-timer": Catch(
        "mixed",
        0,
        "InvariantViolated: server N: N: REG_NONLEADER without a Progress_Timer",
    ),
    "timer-without-cap": Catch(
        "mixed",
        6,
        "Violation: server N: its Progress_Timer is N s, of N s to N s",
    ),
    "timer-never-back": Catch(
        "mixed",
        0,
        "Violation: all is well, and the Progress_Timer of server N stays at N s",
    ),
    "idle-elections": Catch(
        "mixed",
        0,
        "Violation: all is well, and server N thinks that an update waits",
    ),
    "prepare-not-answered": Catch(
        "late-prepare",
        1,
        "Violation: somebody is not served within N s",
    ),
    "no-way-back": Catch(
        "mixed",
        2,
        "Violation: in vain for N s, server N is here again",
    ),
    "back-too-easily": Catch(
        "mixed",
        1,
        "Violation: somebody is not served within N s",
    ),
    "votes-interrupt": Catch(
        "mixed",
        2,
        "Violation: view N worked, and now it is view N, though only server N was away",
    ),
    "proof-ignored": Catch(
        "mixed",
        1,
        "Violation: all is well, and server N does not follow server N in view N",
    ),
    "alone-and-leading": Catch(
        "mixed",
        5,
        "Violation: the servers are not equal within N s",
    ),
    "holes-left": Catch(
        "mixed",
        15,
        "Violation: somebody is not served within N s",
    ),
    "holes-filled-fresh": Catch(
        "mixed",
        23,
        "Violation: G15: the leader of view N proposes an update at N and at N: X",
    ),
    "own-vote-not-counted": Catch(
        "mixed",
        0,
        "Violation: somebody is not served within N s",
    ),
    "early-votes-dropped": Catch(
        "overtaking",
        0,
        "Violation: somebody is not served within N s",
    ),
    "proposals-not-repeated": Catch(
        "mixed",
        7,
        "Violation: in vain for N s, nothing arrived for N s: server N waits for an answe",
    ),
    "accept-not-repeated": Catch(
        "mixed",
        7,
        "Violation: in vain for N s, nothing arrived for N s: server N waits for an answe",
    ),
    "never-reconciles": Catch(
        "mixed",
        0,
        "Violation: somebody is not served within N s",
    ),
    "enqueued-not-rebuilt": Catch(
        "mixed",
        23,
        "Violation: G15: the leader of view N proposes an update at N and at N: X",
    ),
    "pending-not-dropped": Catch(
        "paper",
        0,
        "InvariantViolated: server N: N: update N of client-N is pending, but has run",
    ),
    "updates-not-repeated": Catch(
        "mixed",
        3,
        "Violation: all is well, and server N does not follow server N in view N",
    ),
    "relayed-in-circles": Catch(
        "mixed",
        3,
        "Violation: server N has relayed N copies of N at most: X",
    ),
    "relay-left-out": Catch(
        "mixed",
        5,
        "Violation: view N worked, and now it is view N, though only server N did not rea",
    ),
    "replies-lost": Catch(
        "mixed",
        2,
        "Violation: server N has another table of sessions than server N:",
    ),
    "epoch-not-fenced": Catch(
        "mixed",
        15,
        "Violation: X ran in slot N for a connection of epoch N, after the session was op",
    ),
    "numbers-not-filtered": Catch(
        "mixed",
        15,
        "Violation: X ran in slot N for a connection of epoch N, after the session was op",
    ),
    "revision-not-counted": Catch(
        "mixed",
        0,
        'Violation: not linearizable: key "na": no order explains the answer OK value="N"',
    ),
    "revision-not-the-same": Catch(
        "mixed",
        0,
        "Violation: slot N came to Slot",
    ),
    "closed-number-forgotten": Catch(
        "mixed",
        55,
        "Violation: S3: X ran in slot N, after number N in slot N",
    ),
    "fate-none-for-unknown": Catch(
        "mixed",
        3,
        "Violation: X is told Refused",
    ),
    "reply-before-execution": Catch(
        "mixed",
        0,
        "Violation: X is answered Done",
    ),
    "results-mixed-up": Catch(
        "mixed",
        0,
        "AssertionError: each entry of a bundle has its result",
    ),
    "expiry-left-out": Catch(
        "mixed",
        8,
        "Violation: somebody is not served within N s",
    ),
    "lock-not-fair": Catch(
        "mixed",
        3,
        "Violation: lock lock0 goes to X, but user-N has waited longer",
    ),
    "lock-not-released": Catch(
        "mixed",
        0,
        "Violation: the session ~N.N is over, and waits for lock lock1",
    ),
    "lock-line-lost": Catch(
        "mixed",
        3,
        "KeyError: 'user-N'",
    ),
    "lock-token-again": Catch(
        "mixed",
        2,
        "Violation: lock lock0 had the token N, and now N",
    ),
    "lock-waits-for-ever": Catch(
        "mixed",
        3,
        "Violation: their time has come, and they wait for lock lock0 still:",
    ),
    "read-not-confirmed": Catch(
        "keyholes",
        8,
        'Violation: not linearizable: key "na": no order explains the answer OK value="N"',
    ),
    "read-confirmed-by-anyone": Catch(
        "keyholes",
        26,
        'Violation: not linearizable: key "a": no order explains the answer OK value="v13',
    ),
    "read-index-too-low": Catch(
        "readers",
        2,
        'Violation: not linearizable: key "a": no order explains the answer OK value="v90',
    ),
    "read-not-awaited": Catch(
        "readers",
        2,
        'Violation: not linearizable: key "a": no order explains the answer OK value="v90',
    ),
    "read-joins-request": Catch(
        "readers",
        128,
        'Violation: not linearizable: key "a": no order explains the answer OK value="v2x',
    ),
    "read-joins-round": Catch(
        "late-answers",
        79,
        'Violation: not linearizable: key "na": no order explains the answer OK value="N"',
    ),
    "read-of-former-life": Catch(
        "late-answers",
        84,
        'Violation: not linearizable: key "ha": no order explains the answer OK value="N"',
    ),
}

DIRECTED: Final[Mapping[str, Catch]] = {
    "catch-up-left-out": Catch(
        "torn-while-learning",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "lost-disk-unnoticed": Catch(
        "disk-is-lost",
        0,
        "Violation: slot N is answered, and only on the disks of",
    ),
    "newcomer-votes": Catch(
        "disk-is-lost-unheard",
        0,
        "Violation: S1: slot N is",
    ),
    "promise-in-part": Catch(
        "torn-while-learning",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "editions-mixed": Catch(
        "torn-while-learning",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "older-view-accepted": Catch(
        "torn-while-learning",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "older-proposal-replaces": Catch(
        "torn-while-learning",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "executed-twice": Catch(
        "torn-while-learning",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "horizon-ignored": Catch(
        "late-duplicate",
        0,
        "Violation: S3: server N ran X at N and again at N",
    ),
    "timer-without-cap": Catch(
        "long-outage",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "timer-never-back": Catch(
        "calm-after-storm",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "prepare-not-answered": Catch(
        "prepare-is-overtaken",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "no-way-back": Catch(
        "everyone-comes-back",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "votes-interrupt": Catch(
        "everyone-comes-back",
        0,
        "AssertionError: nobody leads, though all is well",
    ),
    "proof-ignored": Catch(
        "everyone-comes-back",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "holes-left": Catch(
        "hole-without-clients",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "holes-filled-fresh": Catch(
        "bound-and-sent-again",
        0,
        "Violation: G15: the leader of view N proposes an update at N and at N: X",
    ),
    "early-votes-dropped": Catch(
        "votes-overtake",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "proposals-not-repeated": Catch(
        "proposal-is-lost",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "accept-not-repeated": Catch(
        "proposal-is-lost",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "enqueued-not-rebuilt": Catch(
        "bound-and-sent-again",
        0,
        "Violation: G15: the leader of view N proposes an update at N and at N: X",
    ),
    "pending-not-dropped": Catch(
        "everyone-comes-back",
        0,
        "InvariantViolated: server N: N: update N of client-N is pending, but has run",
    ),
    "updates-not-repeated": Catch(
        "update-is-lost",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "relayed-in-circles": Catch(
        "everyone-comes-back",
        0,
        "Violation: server N has relayed N copies of N at most: X",
    ),
    "relay-left-out": Catch(
        "path-to-leader-is-cut",
        0,
        "Violation: view N worked, and now it is view N",
    ),
    "epoch-not-fenced": Catch(
        "old-connection",
        0,
        "Violation: X ran in slot N for a connection of epoch N, after the session was op",
    ),
    "lock-waits-for-ever": Catch(
        "lock-is-not-free-in-time",
        0,
        "AssertionError: in vain for N s; now it is N s",
    ),
    "read-not-confirmed": Catch(
        "leader-hears-only-confirmations",
        0,
        "Violation: a read that was asked after a write had been answered does not see it",
    ),
    "read-confirmed-by-anyone": Catch(
        "leader-hears-only-confirmations",
        0,
        "Violation: a read that was asked after a write had been answered does not see it",
    ),
    "read-not-awaited": Catch(
        "round-is-under-way",
        0,
        "Violation: a read that was asked after a write had been answered does not see it",
    ),
    "read-joins-request": Catch(
        "request-is-on-its-way",
        0,
        "Violation: a read that was asked after a write had been answered does not see it",
    ),
    "read-joins-round": Catch(
        "round-is-under-way",
        0,
        "Violation: a read that was asked after a write had been answered does not see it",
    ),
    "read-of-former-life": Catch(
        "answer-to-a-former-life",
        0,
        "Violation: a read that was asked after a write had been answered does not see it",
    ),
}
"""Defects that a schedule catches, too: the ones that random runs catch rarely."""
