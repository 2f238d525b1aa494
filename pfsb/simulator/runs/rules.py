"""The rules that the checks of random runs guard, each in a sentence, found by the text of the check that fails.

A directed schedule says its rule itself, in the first line of its docstring, and an invariant of one server is a
numbered sentence of `pfsb.paxos.invariants`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from pfsb.paxos import invariants

RULES: Final[Sequence[tuple[str, str]]] = (
    # ------------------------------------------------------------------ what may leave a server
    (
        r"votes in view .* at .* with .* on disk",
        "A vote leaves a server only when the proposal that it is for is on that server's disk: after a crash the "
        "server would otherwise have forgotten a vote that others count.",
    ),
    (
        r"has view .* on disk, but sends",
        "A message that says a server has joined a view leaves only when that view is on the server's disk: after "
        "a crash it would otherwise go back to an older view, and break its promise.",
    ),
    (
        r"on disk, but sends ALIVE|on disk, but sends Alive",
        "ALIVE tells only of slots that the server's disk says are executed, so that no other server counts on "
        "more than a crash leaves.",
    ),
    (
        r"keeps quiet about its vote",
        "PREPARE_OK names every vote of its sender that the new leader has to know: a slot that was chosen by a "
        "vote left out could get another batch.",
    ),
    (
        r"promises to follow in view .* was not asked",
        "A server promises to follow in a view only after a PREPARE for that view has come to it in its present life.",
    ),
    (
        r"votes for what was never proposed|tells of what was never proposed",
        "A server votes only for a batch that the leader of that view has proposed for that slot.",
    ),
    (
        r"disks hold what server .* tells as ordered|disks hold what was chosen",
        "A batch counts as ordered only when a majority of the disks holds it: else a crash of some servers loses "
        "it, though clients have been told.",
    ),
    (
        r"votes with .* groups on disk, and tells",
        "The log position that a server tells is never ahead of its disk, so that the others notice when it comes "
        "back with an older disk.",
    ),
    (
        r"a leader proposes once a view and slot|two proposals of view",
        "A leader proposes one batch for a slot of its view, and none for a slot that it knows to be ordered.",
    ),
    (
        r"told of view .* before it crashed",
        "A server that has installed a view never goes back to an earlier one, whatever it installs or executes.",
    ),
    (
        r"^(Violation: )?view .* is led by",
        "A view is led by one server, in one life of that server: a later life does not know what it has proposed.",
    ),
    (
        r"G15: the leader of view",
        "A leader gives an update one slot in its view: in two slots at once it might run twice, or in another "
        "order than its client has sent it.",
    ),
    (
        r"has relayed .* copies|copies of .* updates were sent",
        "A server passes an update on only as often as losses make it necessary, and never in circles.",
    ),
    (
        r"PROPOSALs of .* updates were sent",
        "A leader repeats a PROPOSAL when it was lost, and not when it is on its way.",
    ),
    # ------------------------------------------------------------------ one order of all updates
    (
        r"S1:",
        "S1: a slot is ordered once: all servers that know its batch know the same.",
    ),
    (
        r"S2:",
        "S2: what is executed is what a client has asked for, with the verb and the words that it has sent.",
    ),
    (
        r"S3:|ran .* and again at",
        "S3: a command runs at most once, and the commands of a session run in their order.",
    ),
    (
        r"executes slot .* where .* is next",
        "Slots are executed one after the other, without a gap, so that all servers go through the same states.",
    ),
    (
        r"after slot .* has another digest|came to Slot|StateDiverged|has another .* than server",
        "Servers that have executed the same slots have the same state: a result may depend on nothing but the slots.",
    ),
    (
        r"a server executed otherwise, and goes on",
        "A server that has executed something otherwise than a majority notices it, and stops (Departure 40).",
    ),
    (
        r"server \S+ stops,|differs from all|all other servers contradict",
        "A server that a majority contradicts stops soon, and its line names slots and majority (Departure 40).",
    ),
    (
        r"stops for no majority",
        "A server stops for a difference only if a majority of servers contradicts it (Departure 40).",
    ),
    (
        r"differ, and none of them can be right|no majority agrees with server",
        "While a server differs and those that agree are no majority, all of them refuse changes (Departure 40).",
    ),
    (
        r"a server refuses changes, though all are equal",
        "A server refuses changes because of a difference only as long as there is one.",
    ),
    (
        r"the servers are not equal",
        "When all servers are well and connected, each of them learns and executes every slot soon.",
    ),
    (
        r"the leader counts .* ms between two slots",
        "The time of the state machine passes as the leaders' clocks pass.",
    ),
    # ------------------------------------------------------------------ what clients are told
    (
        r"is answered from slot .* which is only on the disks of",
        "A client is answered only when a majority of the disks holds its command: an answered command is never lost.",
    ),
    (
        r"is answered (Done|Refused)",
        "The answer to a command is the result with which that very command has run.",
    ),
    (
        r"ran in slot .* after its client was told that it never would",
        "A refusal with the fate none is final: a command whose client was told so never runs.",
    ),
    (
        r"not linearizable|does not see it",
        "A question sees all that was answered before it was asked, and nothing that is undone later: there is one "
        "order of all commands that explains every answer.",
    ),
    (
        r"for a connection of epoch",
        "Once another connection has opened a session anew, no command of the former connection runs.",
    ),
    (
        r"other sessions or epochs are open|by the ordered updates",
        "Which sessions are open, in which epoch and at which revision, follows from the ordered updates alone.",
    ),
    (
        r"has expired, and its server .* was not asked before",
        "A session expires only if its server was asked whether its client is gone, and has not said that it lives.",
    ),
    (
        r"the session .* which is connected .* ends",
        "The session of a client that is connected does not expire.",
    ),
    (
        r"kept answers count|kv_bytes are|adds .* bytes beyond a quota",
        "The replicated state counts exactly what it holds, so that all servers refuse the same commands at a quota.",
    ),
    (
        r"a run has left",
        "Commands that are executed together leave what they would leave one by one.",
    ),
    # ------------------------------------------------------------------ locks
    (
        r"lock .* is free, and|wait for lock .* still|goes to .* has waited longer|waits for a lock that is held",
        "A lock that becomes free goes at once to the session that has waited longest, and a wait ends in its time.",
    ),
    (
        r"lock .* had the token",
        "Each time that a lock is granted its token is higher, so that an old holder is found out.",
    ),
    # ------------------------------------------------------------------ storages that were lost or copied
    (
        r"a stranger's frame|a frame that was damaged",
        "A frame that was damaged, or is not of a known server with its known storage, changes nothing.",
    ),
    (
        r"older copy of its disk|StorageWentBack|has lost the last group|has lost a vote|tells the log position",
        "A server whose disk has gone back takes no part: its earlier votes, which others have counted, are not on it.",
    ),
    (
        r"StorageRefused|Unpack failed",
        "After a crash, whatever was on disk before is read again, and a last group that was not written whole is "
        "left out.",
    ),
    # ------------------------------------------------------------------ disks in trouble
    (
        r"from a server whose disk hangs|its command is under way|reads .* as",
        "While a disk hangs, its server refuses its clients soon, and shows nothing that is not on disk (Departure "
        "44).",
    ),
    (
        r"the disk of leader .* hangs",
        "When the disk of a leader hangs, the other servers elect another one.",
    ),
    (
        r"the disk answers again",
        "A server whose disk answers again serves its clients again.",
    ),
    (
        r"disks are full",
        "A server with a full disk refuses changes, and answers the questions that it can (Departure 45).",
    ),
    # ------------------------------------------------------------------ snapshots
    (
        r"notes .*snapshot of slot|has a snapshot of slot .* on disk, and lacks",
        "A record names a snapshot only when all of it is on disk, and only then are slots dropped: a restart finds "
        "the snapshot, and each slot above it.",
    ),
    (
        r"different snapshots of one slot|freezes another state|two servers take snapshots of one slot",
        "All servers that have executed the same slots make the same snapshot, byte for byte.",
    ),
    (
        r"is restored after slot|is restored from a snapshot",
        "A server that is restored from a snapshot is in the same state as one that has executed the slots.",
    ),
    (
        r"goes on from a snapshot of|goes back to a snapshot|does not take the state back",
        "A server installs a snapshot only above what it has executed, and nothing that rests on it leaves before the "
        "record of it is on disk.",
    ),
    (
        r"sends a part of a snapshot|than the snapshot of slot .* has there|wrong snapshot",
        "Parts of one snapshot become a file of just those bytes.",
    ),
    (
        r"has lost its state, and sends",
        "A server that has lost its snapshot votes for nothing, and answers nothing that rests on its state, until it "
        "has another one (Departure 58).",
    ),
    (
        r"takes no snapshot, though all is well",
        "When all is well, every server takes a snapshot in time, so that logs do not grow without bound.",
    ),
    (
        r"for parts of a snapshot from server",
        "A server that fetches a snapshot asks another one when no parts come from its source any more.",
    ),
    # ------------------------------------------------------------------ membership
    (
        r"is in epoch .* on disk, but votes|is no voter of epoch",
        "Only a server that votes in an epoch of the membership, and has the epoch on disk, votes or confirms there "
        "(Departure 60).",
    ),
    (
        r"is answered with epoch|is answered, and only servers|asked for meanwhile, has undone|next change has undone",
        "A change of the membership is answered when it is in force, and is undone by no change that was made for the "
        "same epoch (Departure 60).",
    ),
    (
        r"is admitted by servers that came later",
        "A server that has lost its disk is refused also by servers that have never heard it, since changes of the "
        "membership name the storages (Departure 60).",
    ),
    (
        r"a member does not vote|learns, and does not come to vote|was removed, and does not say so",
        "When all is well, each member comes to the latest epoch and votes, and a server that was removed knows it.",
    ),
    (
        r"Progress_Timers have expired|is refused, though",
        "When all is well, a change of the membership is in force within some round trips, and no Progress_Timer "
        "expires (Departure 60).",
    ),
    # ------------------------------------------------------------------ progress
    (
        r"a former leader, repeats its HAND_OVER",
        "A HAND_OVER has an effect only if it is of the leader of the installed view, at a server that follows that "
        "leader (Departure 59).",
    ),
    (
        r"a client is not served|in vain for|after .* no update was answered|frames lost, .* updates were answered",
        "Whenever a majority is up and connected, every command is answered within a bounded time, whatever the "
        "others do.",
    ),
    (
        r"worked, and now it is view|with writes of .* s, view|elections",
        "A view that works goes on: slow disks, lost frames and servers of a minority start no election.",
    ),
    (
        r"goes on proposing|is handed over twice",
        "A leader that has handed its view over proposes nothing more in it (Departure 59).",
    ),
    (
        r"handed over|hands over|the preferred server|was asked to stop",
        "When all is well, a leader hands over within some round trips, and no Progress_Timer expires (Departure 59).",
    ),
    (
        r"a minority was in a later view",
        "A leader that a majority follows takes the servers in later views along.",
    ),
    (
        r"all is well, and|its Progress_Timer is",
        "When all is well nothing waits: no server suspects the leader, and all servers follow it in its view.",
    ),
)
"""(regular expression, rule): the rule that was broken, if the text of the failure matches the expression. The first
expression that matches counts."""

_INVARIANT = re.compile(r"InvariantViolated: server \S+: (\d+):")


def rule_of(failure: str) -> str:
    """The rule that a random run has broken, found by the text of its failure; "" if no rule is known for this text."""
    line = failure.partition("\n")[0]
    numbered = _INVARIANT.search(line)
    if numbered is not None:
        return f"invariant {numbered[1]}: {INVARIANTS[int(numbered[1])]}"
    return next((rule for pattern, rule in RULES if re.search(pattern, line)), "")


def _numbered(text: str) -> Mapping[int, str]:
    found = re.findall(r"^(\d+)\. (.+?)(?=^\d+\. |^$)", text, re.MULTILINE | re.DOTALL)
    return {int(number): " ".join(sentence.split()) for number, sentence in found}


INVARIANTS: Final = _numbered(invariants.__doc__ or "")
"""Number of an invariant of one server -> its sentence."""
