-------------------------------- MODULE Pfsb --------------------------------
(***************************************************************************)
(* The protocol of Kirsch & Amir, "Paxos for System Builders", as pfsb     *)
(* implements it: with the repairs of docs/paper-map.rst and the           *)
(* departures of docs/departures.rst.  Only safety.  Names are the         *)
(* paper's.  docs/spec/index.rst says what was explored.                   *)
(*                                                                         *)
(* What is exact                                                           *)
(*  - Departure 1: a turn runs in memory, its record is appended to `log', *)
(*    and what it says is released when that record and all before it are  *)
(*    on disk.  A crash loses the log.  A server counts its own vote in    *)
(*    the turn that makes it.                                              *)
(*  - Departure 2: PROPOSAL leaves before the leader's disk has it, and is *)
(*    no vote.  All votes are explicit ACCEPTs behind the door.            *)
(*  - Departure 5: votes are counted by (slot, view).                      *)
(*  - what is ordered is learned from any server (section 5.6), is put on  *)
(*    disk lazily, and holes are filled with no-ops (G11).                 *)
(*  - a PROPOSAL for a slot that is ordered already is answered with an    *)
(*    ACCEPT and nothing is written (G18, proposal.py).                    *)
(*  - Departure 12: identities of storages, newcomers, a lost disk.        *)
(*    Departure 42 is the value of Acquaintances.                          *)
(*  - Departure 39: a vote names its batch, and counts for no other one;   *)
(*    a server may accept a batch that was damaged on the way.             *)
(*                                                                         *)
(* What is more liberal than the code, so that it covers it                *)
(*  - The network: `msgs' holds all that was ever sent; anything in it may *)
(*    be received at any time, again and again, or never.  A late, lazy or *)
(*    gathered vote (Departure 25) is a vote that is received late.        *)
(*  - Timers: anybody suspects at any time, so LEADER_ELECTION and         *)
(*    REG_NONLEADER are one state here: "other".  Last_Attempted is not    *)
(*    kept: an attempt is no promise.  So rejoining one's own view (G9),   *)
(*    for whatever reason, is always allowed, but for its leader.          *)
(*  - Elections: unless ExplicitVotes, any server may prepare a view that  *)
(*    it leads and that is above its Last_Installed, without VIEW_CHANGEs. *)
(*  - VC_PROOF goes out whenever a view is on some disk; an answer to a    *)
(*    client and a reconciliation reply are one message GOU.               *)
(*  - A batch is one value.  Windows, flow control: anything goes.         *)
(*  - A storage is remembered when any sign of it comes, in whichever life *)
(*    of it; the code asks for a sign that its server hears back (HEARD).  *)
(*  - Of what is ordered, any part may come to disk lazily.                *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Server,         \* the servers
    Leaders,        \* Leaders[v] leads view v
    Value,          \* what clients want; {}: the leader of view v proposes v (enough, since values are never compared but for equality)
    NoOp, None,
    Junk,           \* what a damaged batch turns into
    Slots,          \* slots 1..Slots
    MaxCrashes,     \* crashes, over all servers
    MaxLost,        \* lost disks, over all servers
    MaxDamaged,     \* PROPOSALs that a server takes with another batch than was sent, over all servers
    MaxLog,         \* records of a server that are under way to its disk
    ExplicitVotes,  \* TRUE: a view is prepared after a majority of VIEW_CHANGEs
    Proofs,         \* TRUE: VC_PROOF is sent
    Parts,          \* TRUE: of a data list single entries may arrive before (or without) the promise being complete
    LazyDisk,       \* TRUE: what is ordered may come to disk (AruRecord, OrderedRecord)
    Forgets,        \* TRUE: executed slots may be out of memory when a PROPOSAL for them comes
    Identities,     \* TRUE: Departure 12; servers start without having met
    Acquaintances,  \* how many others must know a newcomer (Departure 42: a majority of the others)
    Mutation        \* "none", or the name of a fault that is put in on purpose

VARIABLES
    installed, role, oks, acc, ord,     \* memory: Last_Installed, State, Prepare_OK, Global_History
    dView, dAcc, dOrd, gen, known,      \* disk: Last_Installed, Global_History, its identity, others' identities
    log,                                \* records that are appended and not synced, with what waits for each
    msgs,
    crashes,                            \* how often each server is still to crash; chosen at the start
    lost,
    damaged

memory == <<installed, role, oks, acc, ord>>
disk == <<dView, dAcc, dOrd, gen, known>>
bounds == <<crashes, lost>>
vars == <<memory, disk, log, msgs, bounds, damaged>>

Views == 1..Len(Leaders)
Slot == 1..Slots
Top == Len(Leaders) + 1                 \* "ordered" is higher than any view
TrueQuorum == Cardinality(Server) \div 2 + 1
Quorum == IF Mutation = "SmallQuorum" THEN TrueQuorum - 1 ELSE TrueQuorum
Majorities == {Q \in SUBSET Server : Cardinality(Q) = TrueQuorum}
RECURSIVE Total(_, _)
Total(f, S) == IF S = {} THEN 0 ELSE LET s == CHOOSE s \in S : TRUE IN f[s] + Total(f, S \ {s})
Max(S) == CHOOSE x \in S : \A y \in S : y <= x

(* One slot of Global_History: the latest accepted proposal, and whether this life of the server has voted for it. *)
NoProposal == [view |-> 0, val |-> None, mine |-> FALSE]
OnDisk(v, x) == [view |-> v, val |-> x]
Nothing == OnDisk(0, None)

(* ------------------------------------------------------------ messages *)
ViewChange(s, v) == [type |-> "VIEW_CHANGE", from |-> s, gen |-> gen[s], view |-> v]
VCProof(v) == IF Proofs THEN {[type |-> "VC_PROOF", view |-> v]} ELSE {}
Prepare(s, v, a) == [type |-> "PREPARE", from |-> s, gen |-> gen[s], view |-> v, aru |-> a]
PrepareOK(s, v, l) == [type |-> "PREPARE_OK", from |-> s, gen |-> gen[s], view |-> v, list |-> l]
Proposal(s, v, n, x) == [type |-> "PROPOSAL", from |-> s, gen |-> gen[s], view |-> v, seq |-> n, val |-> x]
Accept(s, v, n, x) == [type |-> "ACCEPT", from |-> s, gen |-> gen[s], view |-> v, seq |-> n, val |-> x]
GOU(n, x) == [type |-> "GOU", seq |-> n, val |-> x]     \* an answer, or a reconciliation reply
Acquainted(r, s, g) == [type |-> "ACQUAINTED", from |-> r, to |-> s, gen |-> g]

Sent(t) == {m \in msgs : m.type = t}
Known(r, m) == m.from = r \/ known[r][m.from] = m.gen   \* r counts what this storage says

(* Departures 12 and 42: a storage that has installed no view takes part when enough others know it. *)
TakesPart(s) ==
    \/ ~Identities
    \/ installed[s] > 0
    \/ Cardinality({r \in Server \ {s} : Acquainted(r, s, gen[s]) \in msgs}) >= Acquaintances

(* ------------------------------------------------------------ the door *)
(* Say ms when all that is under way to the disk is there.  Nothing new is written. *)
Door(s, ms) ==
    IF log[s] = <<>> THEN msgs' = msgs \cup ms /\ UNCHANGED log
    ELSE log' = [log EXCEPT ![s][Len(log[s])].out = @ \cup ms] /\ UNCHANGED msgs

(* What a record does to the disk. *)
Write(s, rec) ==
    /\ dView' = IF rec.kind = "view" THEN [dView EXCEPT ![s] = rec.view] ELSE dView
    /\ dAcc' = IF rec.kind = "prop" THEN [dAcc EXCEPT ![s][rec.seq] = OnDisk(rec.view, rec.val)]
               ELSE IF rec.kind = "ord"
               THEN [dAcc EXCEPT ![s] = [n \in Slot |-> IF rec.ord[n] /= None THEN Nothing ELSE @[n]]]
               ELSE dAcc
    /\ dOrd' = IF rec.kind = "ord"
               THEN [dOrd EXCEPT ![s] = [n \in Slot |-> IF rec.ord[n] /= None THEN rec.ord[n] ELSE @[n]]]
               ELSE dOrd

(* Append a record; say ms when it is on disk, and `early' at once.  The disk of a server that will not crash any
   more is at once there: what is late on such a disk is only a message that is late. *)
Force(s, rec, ms, early) ==
    IF crashes[s] = 0
    THEN /\ Write(s, rec) /\ msgs' = msgs \cup early \cup ms /\ UNCHANGED log
    ELSE /\ Len(log[s]) < MaxLog
         /\ log' = [log EXCEPT ![s] = Append(@, [rec |-> rec, out |-> ms])]
         /\ msgs' = msgs \cup early
         /\ UNCHANGED <<dView, dAcc, dOrd>>

ViewRec(v) == [kind |-> "view", view |-> v]
PropRec(n, v, x) == [kind |-> "prop", seq |-> n, view |-> v, val |-> x]
OrdRec(o) == [kind |-> "ord", ord |-> o]

(* ------------------------------------------------------------ helpers *)
Aru(o) == Max({k \in 0..Slots : \A n \in 1..k : o[n] /= None})
Executes(o, o2) == {GOU(n, o2[n]) : n \in (Aru(o) + 1)..Aru(o2)}

(* Figure 8 A: for every slot above the leader's aru what is ordered there, else what was accepted. *)
DataList(s, aru) ==
    [n \in Slot |->
        IF n <= aru THEN Nothing
        ELSE IF ord[s][n] /= None
             THEN IF Mutation = "ListWithoutOrdered" THEN Nothing ELSE OnDisk(Top, ord[s][n])
             ELSE IF Mutation = "ListWithoutAccepted" THEN Nothing ELSE OnDisk(acc[s][n].view, acc[s][n].val)]

(* Figure 5 C, D, F: a data list is applied entry by entry. *)
MergedOrd(s, l) == [n \in Slot |-> IF ord[s][n] = None /\ l[n].view = Top THEN l[n].val ELSE ord[s][n]]
MergedAcc(s, l) ==
    [n \in Slot |->
        IF ord[s][n] /= None \/ l[n].view = Top THEN NoProposal
        ELSE IF l[n].view > acc[s][n].view /\ (Mutation = "FirstInList" => acc[s][n].view = 0)
             THEN [view |-> l[n].view, val |-> l[n].val, mine |-> FALSE]
             ELSE acc[s][n]]

(* ------------------------------------------------------------ start, disk, crash *)
Init ==
    /\ installed = [s \in Server |-> 0] /\ role = [s \in Server |-> "other"] /\ oks = [s \in Server |-> {}]
    /\ acc = [s \in Server |-> [n \in Slot |-> NoProposal]] /\ ord = [s \in Server |-> [n \in Slot |-> None]]
    /\ dView = [s \in Server |-> 0] /\ dAcc = [s \in Server |-> [n \in Slot |-> Nothing]]
    /\ dOrd = [s \in Server |-> [n \in Slot |-> None]]
    /\ gen = [s \in Server |-> 1]
    /\ known = [s \in Server |-> [t \in Server |-> IF Identities THEN 0 ELSE 1]]
    /\ log = [s \in Server |-> <<>>] /\ msgs = {} /\ lost = 0 /\ damaged = 0
    /\ crashes \in {f \in [Server -> 0..MaxCrashes] : Total(f, Server) = MaxCrashes}

(* Departure 1: the oldest record comes to disk; what waited for it leaves. *)
Sync(s) ==
    /\ log[s] /= <<>>
    /\ Write(s, Head(log[s]).rec)
    /\ msgs' = msgs \cup Head(log[s]).out
    /\ log' = [log EXCEPT ![s] = Tail(@)]
    /\ UNCHANGED <<memory, gen, known, bounds>>

(* Section 5.8: lazy records (OrderedRecord, AruRecord) of some of the ordered slots are handed to the disk. *)
Flush(s) ==
    /\ LazyDisk
    /\ \E some \in (SUBSET {n \in Slot : ord[s][n] /= None /\ dOrd[s][n] = None}) \ {{}} :
        LET rec == OrdRec([n \in Slot |-> IF n \in some THEN ord[s][n] ELSE None]) IN
        /\ ~\E i \in 1..Len(log[s]) : log[s][i].rec = rec
        /\ Force(s, rec, {}, {})
    /\ UNCHANGED <<memory, gen, known, bounds>>

(* What Figure 14 finds on disk. *)
Restart(s, view, a, o) ==
    /\ installed' = [installed EXCEPT ![s] = view]
    /\ role' = [role EXCEPT ![s] = IF Mutation = "LeadsAgain" /\ view > 0 /\ Leaders[view] = s /\ role[s] = "leader"
                                   THEN "leader" ELSE "other"]
    /\ oks' = [oks EXCEPT ![s] = {}]
    /\ acc' = [acc EXCEPT ![s] = [n \in Slot |-> [view |-> a[n].view, val |-> a[n].val, mine |-> FALSE]]]
    /\ ord' = [ord EXCEPT ![s] = o]
    /\ log' = [log EXCEPT ![s] = <<>>]

(* A crash and Figure 14 in one step: a server that is down is one that does nothing. *)
Crash(s) ==
    /\ crashes[s] > 0 /\ crashes' = [crashes EXCEPT ![s] = @ - 1]
    /\ Restart(s, dView[s], dAcc[s], dOrd[s])
    /\ UNCHANGED <<disk, msgs, lost>>

(* Departure 12: a server comes back with an empty storage, which has an identity of its own. *)
LoseDisk(s) ==
    /\ lost < MaxLost /\ lost' = lost + 1
    /\ LET nothing == [n \in Slot |-> Nothing]   none == [n \in Slot |-> None] IN
        /\ Restart(s, 0, nothing, none)
        /\ dView' = [dView EXCEPT ![s] = 0] /\ dAcc' = [dAcc EXCEPT ![s] = nothing]
        /\ dOrd' = [dOrd EXCEPT ![s] = none]
    /\ gen' = [gen EXCEPT ![s] = @ + 1]
    /\ known' = [known EXCEPT ![s] = [t \in Server |-> 0]]
    /\ UNCHANGED <<msgs, crashes>>

(* Departure 12: r hears t for the first time, in its present or a former life; it is on disk before r says so. *)
Meet(r, t) ==
    /\ Identities /\ r /= t /\ known[r][t] = 0 /\ log[r] = <<>>
    /\ \E g \in 1..gen[t] :
        /\ known' = [known EXCEPT ![r][t] = g]
        /\ msgs' = msgs \cup {Acquainted(r, t, g)}
    /\ UNCHANGED <<memory, dView, dAcc, dOrd, gen, log, bounds>>

(* ------------------------------------------------------------ Figures 6, 7: views *)
(* Figure 6 E: a vote is no promise, so there is nothing to write. *)
Vote(s, v) ==
    /\ ExplicitVotes /\ v > installed[s] /\ TakesPart(s) /\ ViewChange(s, v) \notin msgs
    /\ Door(s, {ViewChange(s, v)})
    /\ UNCHANGED <<memory, disk, bounds>>

Preinstalled(s, v) ==
    \/ ~ExplicitVotes
    \/ Cardinality({s} \cup {m.from : m \in {k \in Sent("VIEW_CHANGE") : k.view = v /\ Known(s, k)}}) >= Quorum

(* Figure 6 B and Figure 7 A: the leader installs the view for good, then asks. *)
ShiftToPreparePhase(s, v) ==
    /\ Leaders[v] = s /\ v > installed[s] /\ TakesPart(s) /\ Preinstalled(s, v)
    /\ installed' = [installed EXCEPT ![s] = v]
    /\ role' = [role EXCEPT ![s] = "preparing"]
    /\ oks' = [oks EXCEPT ![s] = {s}]
    /\ LET ask == {Prepare(s, v, Aru(ord[s]))} IN
        IF Mutation \in {"PrepareBeforeSync", "NeitherWaits"}
        THEN Force(s, ViewRec(v), VCProof(v), ask) ELSE Force(s, ViewRec(v), ask \cup VCProof(v), {})
    /\ UNCHANGED <<acc, ord, gen, known, bounds>>

(* Section 5.9: the PREPARE is repeated, with the present Local_Aru. *)
ResendPrepare(s) ==
    /\ role[s] = "preparing" /\ Aru(ord[s]) > 0
    /\ Prepare(s, installed[s], Aru(ord[s])) \notin msgs
    /\ Door(s, {Prepare(s, installed[s], Aru(ord[s]))})
    /\ UNCHANGED <<memory, disk, bounds>>

(* Figure 6 C: join a view that another server has on disk. *)
OnVCProof(s, m) ==
    /\ m.view > installed[s] /\ Leaders[m.view] /= s /\ TakesPart(s)
    /\ installed' = [installed EXCEPT ![s] = m.view]
    /\ role' = [role EXCEPT ![s] = "other"] /\ oks' = [oks EXCEPT ![s] = {}]
    /\ Force(s, ViewRec(m.view), VCProof(m.view), {})
    /\ UNCHANGED <<acc, ord, gen, known, bounds>>

(* Figure 7 B: promise.  If the view is installed already (G7), answer all the same. *)
OnPrepare(s, m) ==
    /\ m.from /= s /\ Known(s, m) /\ TakesPart(s)
    /\ LET ok == PrepareOK(s, m.view, DataList(s, m.aru)) IN
        \/ /\ m.view > installed[s]
           /\ installed' = [installed EXCEPT ![s] = m.view]
           /\ role' = [role EXCEPT ![s] = "other"] /\ oks' = [oks EXCEPT ![s] = {}]
           /\ IF Mutation = "PromiseBeforeSync"
              THEN Force(s, ViewRec(m.view), VCProof(m.view), {ok})
              ELSE Force(s, ViewRec(m.view), VCProof(m.view) \cup {ok}, {})
           /\ UNCHANGED <<acc, ord, gen, known, bounds>>
        \/ /\ m.view = installed[s]
           \* only to leave out what no server would count (Figure 4 D2, D4), and repetitions:
           /\ role[m.from] = "preparing" /\ installed[m.from] = m.view /\ s \notin oks[m.from]
           /\ IF Mutation = "PromisesAgain" THEN ok \notin msgs
              ELSE ~\E k \in Sent("PREPARE_OK") : k.from = s /\ k.view = m.view
           /\ ~\E i \in 1..Len(log[s]) : \E k \in log[s][i].out : k.type = "PREPARE_OK" /\ k.view = m.view
           /\ Door(s, {ok})
           /\ UNCHANGED <<memory, disk, bounds>>

(* Figure 7 C and Figure 9 A: with the promises of a majority the leader leads. *)
OnPrepareOK(s, m) ==
    /\ role[s] = "preparing" /\ m.view = installed[s] /\ m.from \notin oks[s] /\ Known(s, m)
    /\ oks' = [oks EXCEPT ![s] = @ \cup {m.from}]
    /\ acc' = [acc EXCEPT ![s] = MergedAcc(s, m.list)]
    /\ ord' = [ord EXCEPT ![s] = MergedOrd(s, m.list)]
    /\ role' = [role EXCEPT ![s] = IF Cardinality(oks'[s]) >= Quorum THEN "leader" ELSE @]
    /\ Door(s, Executes(ord[s], ord'[s]))
    /\ UNCHANGED <<installed, disk, bounds>>

(* Departure 6: one part of a promise has come; it is applied, and the promise does not count yet. *)
OnPart(s, m, n) ==
    /\ Parts /\ role[s] = "preparing" /\ m.view = installed[s] /\ m.from \notin oks[s] /\ Known(s, m)
    /\ LET one == [k \in Slot |-> IF k = n THEN m.list[n] ELSE Nothing] IN
        /\ acc' = [acc EXCEPT ![s] = MergedAcc(s, one)]
        /\ ord' = [ord EXCEPT ![s] = MergedOrd(s, one)]
    /\ <<acc, ord>>' /= <<acc, ord>>
    /\ Door(s, Executes(ord[s], ord'[s]))
    /\ UNCHANGED <<installed, role, oks, disk, bounds>>

(* ------------------------------------------------------------ Figures 10, 11: ordering *)
IsProposedHere(s, n) == acc[s][n].view = installed[s]

(* Figure 11 A: what an older view left, a no-op below such a slot (G11), or what a client wants; in order. *)
BatchFor(s, n) ==
    LET above == \E k \in Slot : k > n /\ (ord[s][k] /= None \/ acc[s][k].view > 0) IN
    IF acc[s][n].view > 0 /\ ~(Mutation = "NoOpOverAccepted" /\ above) THEN {acc[s][n].val}
    ELSE IF above THEN {NoOp} ELSE IF Value = {} THEN {installed[s]} ELSE Value

(* Figure 11 A and Departure 2: the PROPOSAL may leave before this server's disk has it; the vote may not. *)
SendProposal(s, n) ==
    /\ role[s] = "leader" /\ ord[s][n] = None /\ ~IsProposedHere(s, n)
    /\ \A k \in 1..(n - 1) : ord[s][k] /= None \/ IsProposedHere(s, k)
    /\ \E x \in BatchFor(s, n) :
        LET v == installed[s] IN
        /\ acc' = [acc EXCEPT ![s][n] = [view |-> v, val |-> x, mine |-> TRUE]]
        /\ IF Mutation = "VoteBeforeSync"
           THEN Force(s, PropRec(n, v, x), {}, {Proposal(s, v, n, x), Accept(s, v, n, x)})
           ELSE IF dView[s] < v /\ Mutation \notin {"EarlyProposal", "NeitherWaits"}  \* Turn.send_proposal_early
           THEN Force(s, PropRec(n, v, x), {Proposal(s, v, n, x), Accept(s, v, n, x)}, {})
           ELSE Force(s, PropRec(n, v, x), {Accept(s, v, n, x)}, {Proposal(s, v, n, x)})
    /\ UNCHANGED <<installed, role, oks, ord, gen, known, bounds>>

(* Figure 10 B: accept what the leader of the installed view proposes. *)
OnProposal(s, m) ==
    /\ (m.from /= s \/ (Mutation = "FollowsItself" /\ role[s] = "other")) /\ Known(s, m)
    /\ IF Mutation = "AcceptsOlderViews" THEN m.view <= installed[s]
       ELSE IF Mutation = "AcceptsNewerViews" THEN m.view >= installed[s] ELSE m.view = installed[s]
    /\ LET n == m.seq   vote == Accept(s, m.view, m.seq, m.val) IN
        \/ /\ ord[s][n] /= None /\ vote \notin msgs                 \* ordered here: help the leader (G18)
           /\ m.val = ord[s][n] \/ (Forgets /\ n <= Aru(ord[s]))
           /\ Door(s, {vote})
           /\ UNCHANGED <<memory, disk, bounds>>
        \/ /\ ord[s][n] = None /\ (acc[s][n].view < m.view \/ Mutation = "AcceptsOlderViews") /\ acc[s][n].view /= m.view
           /\ acc' = [acc EXCEPT ![s][n] = [view |-> m.view, val |-> m.val, mine |-> TRUE]]
           /\ IF Mutation = "VoteBeforeSync"
              THEN Force(s, PropRec(n, m.view, m.val), {}, {vote})
              ELSE Force(s, PropRec(n, m.view, m.val), {vote}, {})
           /\ UNCHANGED <<installed, role, oks, ord, gen, known, bounds>>
        \/ /\ ord[s][n] = None /\ acc[s][n].view = m.view /\ ~acc[s][n].mine     \* known from before a crash
           /\ acc' = [acc EXCEPT ![s][n].mine = TRUE]
           /\ Door(s, {Accept(s, m.view, n, acc[s][n].val)})
           /\ UNCHANGED <<installed, role, oks, ord, disk, bounds>>

(* Departure 39: a PROPOSAL is damaged in a way that no checksum finds, or in this server's memory. *)
OnDamagedProposal(s, m) ==
    /\ damaged < MaxDamaged /\ damaged' = damaged + 1
    /\ OnProposal(s, [m EXCEPT !.val = Junk])

(* Departures 5 and 39: votes count by slot, view and batch. *)
Voters(s, n) ==
    LET v == acc[s][n].view IN
    {m.from : m \in {k \in Sent("ACCEPT") : k.from /= s /\ k.seq = n /\ Known(s, k)
                                             /\ (k.view = v \/ Mutation = "VotesOfAnyView")
                                             /\ (k.val = acc[s][n].val \/ Mutation \in {"VotesWithoutBatch", "VotesOfAnyView"})}}
    \cup (IF acc[s][n].mine THEN {s} ELSE {})
    \cup (IF Mutation = "ProposalIsVote" THEN {Leaders[v]} ELSE {})

(* Figure 11 B: a majority has accepted the proposal that this server holds: its own vote counts in memory. *)
Order(s, n) ==
    /\ ord[s][n] = None /\ acc[s][n].view > 0
    /\ Cardinality(Voters(s, n)) >= Quorum
    /\ ord' = [ord EXCEPT ![s][n] = acc[s][n].val]
    /\ acc' = [acc EXCEPT ![s][n] = NoProposal]
    /\ IF Mutation = "AnswerBeforeSync"
       THEN msgs' = msgs \cup Executes(ord[s], ord'[s]) /\ UNCHANGED log
       ELSE Door(s, Executes(ord[s], ord'[s]))
    /\ UNCHANGED <<installed, role, oks, disk, bounds>>

(* Section 5.6: what is ordered is learned from anybody. *)
Learn(s, m) ==
    /\ ord[s][m.seq] = None
    /\ ord' = [ord EXCEPT ![s][m.seq] = m.val]
    /\ acc' = [acc EXCEPT ![s][m.seq] = NoProposal]
    /\ Door(s, Executes(ord[s], ord'[s]))
    /\ UNCHANGED <<installed, role, oks, disk, bounds>>

Regular ==
    \/ \E s \in Server :
        \/ Sync(s) \/ Flush(s) \/ Crash(s) \/ LoseDisk(s) \/ ResendPrepare(s)
        \/ \E t \in Server : Meet(s, t)
        \/ \E v \in Views : Vote(s, v) \/ ShiftToPreparePhase(s, v)
        \/ \E m \in Sent("VC_PROOF") : OnVCProof(s, m)
        \/ \E m \in Sent("PREPARE") : OnPrepare(s, m)
        \/ \E m \in Sent("PREPARE_OK") : OnPrepareOK(s, m) \/ \E n \in Slot : OnPart(s, m, n)
        \/ \E m \in Sent("PROPOSAL") : OnProposal(s, m)
        \/ \E m \in Sent("GOU") : Learn(s, m)
        \/ \E n \in Slot : SendProposal(s, n) \/ Order(s, n)

Next ==
    \/ Regular /\ UNCHANGED damaged
    \/ \E s \in Server : \E m \in Sent("PROPOSAL") : OnDamagedProposal(s, m)

Spec == Init /\ [][Next]_vars

(* ------------------------------------------------------------ what must hold *)
(* S1: one value a slot, at every server that has executed it, in memory, on disk or in what was answered. *)
OrderedAt(n) == {ord[s][n] : s \in Server} \cup {dOrd[s][n] : s \in Server} \cup {m.val : m \in {k \in Sent("GOU") : k.seq = n}}
S1 == \A n \in Slot : Cardinality(OrderedAt(n) \ {None}) <= 1

(* What was answered is on the disks of a majority, and stays there. *)
HoldsOnDisk(s, n, x) == dAcc[s][n].val = x \/ dOrd[s][n] = x
DurableMajority ==
    \A m \in Sent("GOU") : Cardinality({s \in Server : HoldsOnDisk(s, m.seq, m.val)}) >= TrueQuorum

(* Whatever majority of disks a later leader reads, it finds what was answered as the latest. *)
Rank(s, n) == IF dOrd[s][n] /= None THEN Top ELSE dAcc[s][n].view
Held(s, n) == IF dOrd[s][n] /= None THEN dOrd[s][n] ELSE dAcc[s][n].val
AnsweredSurvives ==
    \A m \in Sent("GOU") : \A Q \in Majorities :
        LET best == Max({Rank(s, m.seq) : s \in Q}) IN
        \A s \in Q : Rank(s, m.seq) = best => Held(s, m.seq) = m.val

(* A server that has said anything in a view has that view on disk: views never go back for a server that heard of them. *)
PromisesAreDurable ==
    \A m \in msgs : m.type \in {"PREPARE", "PREPARE_OK", "PROPOSAL", "ACCEPT"} /\ m.gen = gen[m.from] =>
        dView[m.from] >= m.view
InstalledAboveDisk == \A s \in Server : dView[s] <= installed[s]
(* What proposal.py asserts: no slot holds a proposal of a later view than is installed (G18). *)
NoLaterProposal == \A s \in Server : \A n \in Slot : acc[s][n].view <= installed[s] /\ dAcc[s][n].view <= dView[s]
ViewsAreMonotone == [][\A s \in Server : gen'[s] = gen[s] => dView'[s] >= dView[s]]_vars

(* (view, seq) names one proposal: an ACCEPT needs no value. *)
OneProposal ==
    \A m, k \in Sent("PROPOSAL") : m.view = k.view /\ m.seq = k.seq => m.val = k.val
=============================================================================
