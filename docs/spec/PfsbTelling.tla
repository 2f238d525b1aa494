---------------------------- MODULE PfsbTelling ----------------------------
(***************************************************************************)
(* Departure 55: the leader counts the votes, and tells what is ordered.   *)
(* A server that holds the proposal that is told, by view and value,       *)
(* orders it.                                                              *)
(*                                                                         *)
(* The number of servers that makes pfsb do so plays no part: with three   *)
(* servers there are fewer states.  In the code a server that has left its *)
(* own view may still count late votes for it; so it may here.             *)
(***************************************************************************)
EXTENDS MC

Ordered(s, v, n, x) == [type |-> "ORDERED", from |-> s, gen |-> gen[s], view |-> v, seq |-> n, val |-> x]

(* Say `early' at once, and ms when all that is under way to the disk is there. *)
Say(s, ms, early) ==
    IF log[s] = <<>> THEN msgs' = msgs \cup ms \cup early /\ UNCHANGED log
    ELSE /\ log' = [log EXCEPT ![s][Len(log[s])].out = @ \cup ms]
         /\ msgs' = msgs \cup early

(* Say ms when all that is under way to the disk is there, and `told' when record i of it is. *)
SayBehind(s, i, ms, told) ==
    /\ log' = [log EXCEPT ![s] = [k \in 1..Len(@) |->
           [@[k] EXCEPT !.out = @ \cup (IF k = i THEN told ELSE {}) \cup (IF k = Len(log[s]) THEN ms ELSE {})]]]
    /\ UNCHANGED msgs

(* Departure 55: the other servers that have voted. *)
OtherVoters(s, v, n, x) ==
    {m.from : m \in {k \in Sent("ACCEPT") : k.from /= s /\ k.view = v /\ k.seq = n /\ k.val = x /\ Known(s, k)}}

(* Departure 55: with their votes nothing need be on the disk of the leader. *)
EnoughWithout(s, v, n, x) ==
    Cardinality(OtherVoters(s, v, n, x) \cup (IF Mutation = "OwnVoteUnwritten" THEN {s} ELSE {})) >= Quorum

(* Figure 11 B at the leader of the proposal's view, and Departure 55: the ORDERED leaves early if the leader's own
   vote is on disk or the others are a majority without it; else it leaves with the record of that vote. *)
CountAndTell(s, n) ==
    LET v == acc[s][n].view   x == acc[s][n].val   told == {Ordered(s, v, n, x)}
        answers == Executes(ord[s], [ord[s] EXCEPT ![n] = x])
        isEarly == dAcc[s][n] = OnDisk(v, x) \/ EnoughWithout(s, v, n, x) \/ Mutation = "ToldBeforeSync"
        own == {i \in 1..Len(log[s]) : log[s][i].rec = PropRec(n, v, x)} IN
    /\ ord[s][n] = None /\ v > 0 /\ Leaders[v] = s
    /\ Cardinality(Voters(s, n)) >= Quorum
    /\ ord' = [ord EXCEPT ![s][n] = x]
    /\ acc' = [acc EXCEPT ![s][n] = NoProposal]
    /\ IF role[s] /= "leader" \/ installed[s] /= v THEN Say(s, answers, {})
       ELSE IF isEarly THEN Say(s, answers, told) ELSE SayBehind(s, Max(own), answers, told)
    /\ UNCHANGED <<installed, role, oks, disk, bounds>>

(* Departure 55: an ORDERED waits for the leader's own vote, and meanwhile others have become a majority without it. *)
TellLate(s) ==
    \E i \in 1..Len(log[s]) : \E m \in log[s][i].out :
        /\ m.type = "ORDERED" /\ EnoughWithout(s, m.view, m.seq, m.val)
        /\ msgs' = msgs \cup {m}
        /\ log' = [log EXCEPT ![s][i].out = @ \ {m}]
        /\ UNCHANGED <<memory, disk, bounds>>

(* Departure 55: a follower holds exactly the proposal that is told. *)
OnOrdered(s, m) ==
    /\ s /= m.from /\ Known(s, m) /\ ord[s][m.seq] = None /\ acc[s][m.seq].view > 0
    /\ m.view >= installed[s]
    /\ acc[s][m.seq].view = m.view \/ Mutation = "ToldOfAnyView"
    /\ acc[s][m.seq].val = m.val \/ Mutation \in {"ToldOfAnyView", "ToldWithoutBatch"}
    /\ ord' = [ord EXCEPT ![s][m.seq] = acc[s][m.seq].val]
    /\ acc' = [acc EXCEPT ![s][m.seq] = NoProposal]
    /\ Say(s, Executes(ord[s], ord'[s]), {})
    /\ UNCHANGED <<installed, role, oks, disk, bounds>>

(* `Regular' of Pfsb, with counting and telling in the place of Order. *)
TellingRegular ==
    \/ \E s \in Server :
        \/ Sync(s) \/ Flush(s) \/ Crash(s) \/ LoseDisk(s) \/ ResendPrepare(s)
        \/ \E t \in Server : Meet(s, t)
        \/ \E v \in Views : Vote(s, v) \/ ShiftToPreparePhase(s, v)
        \/ \E m \in Sent("VC_PROOF") : OnVCProof(s, m)
        \/ \E m \in Sent("PREPARE") : OnPrepare(s, m)
        \/ \E m \in Sent("PREPARE_OK") : OnPrepareOK(s, m) \/ \E n \in Slot : OnPart(s, m, n)
        \/ \E m \in Sent("PROPOSAL") : OnProposal(s, m)
        \/ \E m \in Sent("GOU") : Learn(s, m)
        \/ \E m \in Sent("ORDERED") : OnOrdered(s, m)
        \/ \E n \in Slot : SendProposal(s, n) \/ CountAndTell(s, n)
        \/ TellLate(s)

TellingNext ==
    \/ TellingRegular /\ UNCHANGED damaged
    \/ \E s \in Server : \E m \in Sent("PROPOSAL") : OnDamagedProposal(s, m)

TellingSpec == Init /\ [][TellingNext]_vars

(* What is told is on the disks of a majority when it is told, and stays there. *)
ToldIsDurable ==
    \A m \in Sent("ORDERED") : Cardinality({s \in Server : HoldsOnDisk(s, m.seq, m.val)}) >= TrueQuorum
=============================================================================
