----------------------------- MODULE PfsbReads -----------------------------
(***************************************************************************)
(* Departure 24: one linearizable read.  The leader notes the highest      *)
(* number it knows of and asks all whether they follow it still; with the  *)
(* word of a majority the number is the read's index.                      *)
(* A server that has executed up to the index may answer, so the read is   *)
(* right exactly if no slot above the index was answered before it was     *)
(* asked.                                                                  *)
(*                                                                         *)
(* The round may begin at any leader at any time after the question: which *)
(* server was asked, and how often, makes no difference.                   *)
(***************************************************************************)
EXTENDS MC

VARIABLE read
(* phase: "none", "asked", "round", "indexed"
   need:  the highest slot that anybody had an answer from when the read was asked
   view, index, confirmed: the leader's round *)

readVars == <<vars, read>>
NoRead == [phase |-> "none", need |-> 0, leader |-> None, view |-> 0, index |-> 0, confirmed |-> {}]

HighestAnswered == Max({0} \cup {m.seq : m \in Sent("GOU")})
HighestKnown(s) == Max({0} \cup {n \in Slot : ord[s][n] /= None \/ acc[s][n].view > 0})
Index(s) == IF Mutation = "IndexIsAru" THEN Aru(ord[s]) ELSE HighestKnown(s)

Confirmed(s, v) == [type |-> "CONFIRMED", from |-> s, gen |-> gen[s], view |-> v]

(* Departure 24: a client asks. *)
Ask ==
    /\ read.phase = (IF Mutation = "RoundBeforeQuestion" THEN "early" ELSE "none")
    /\ IF Mutation = "RoundBeforeQuestion"
       THEN read' = [read EXCEPT !.phase = "round", !.need = HighestAnswered]
       ELSE read' = [NoRead EXCEPT !.phase = "asked", !.need = HighestAnswered]
    /\ UNCHANGED vars

(* Departure 24: the leader of a prepared view begins a round. *)
BeginRound(s) ==
    /\ read.phase = (IF Mutation = "RoundBeforeQuestion" THEN "none" ELSE "asked")
    /\ role[s] = "leader"
    /\ read' = [read EXCEPT !.phase = IF Mutation = "RoundBeforeQuestion" THEN "early" ELSE "round",
                            !.leader = s, !.view = installed[s], !.index = Index(s), !.confirmed = {s}]
    /\ UNCHANGED vars

(* Departure 24: CONFIRM is answered by each server that has installed this view and no later one; behind the door. *)
Confirm(s) ==
    /\ read.phase \in {"round", "early"} /\ s /= read.leader /\ TakesPart(s)
    /\ IF Mutation = "ConfirmedByAnybody" THEN installed[s] >= read.view ELSE installed[s] = read.view
    /\ Confirmed(s, read.view) \notin msgs
    /\ Door(s, {Confirmed(s, read.view)})
    /\ UNCHANGED <<memory, disk, bounds, damaged, read>>

(* Departure 24: each server is counted once. *)
OnConfirmed(m) ==
    /\ read.phase \in {"round", "early"} /\ m.view = read.view /\ m.from \notin read.confirmed
    /\ read' = [read EXCEPT !.confirmed = @ \cup {m.from}]
    /\ UNCHANGED vars

(* Departure 24: still the leader of that view: with a majority the number is the index. *)
EndRound ==
    /\ read.phase = "round"
    /\ role[read.leader] = "leader" /\ installed[read.leader] = read.view
    /\ \/ Cardinality(read.confirmed) >= Quorum
       \/ Mutation = "AnsweredBeforeConfirmation"
    /\ read' = [read EXCEPT !.phase = "indexed"]
    /\ UNCHANGED vars

ReadNext ==
    \/ Next /\ UNCHANGED read
    \/ Ask \/ EndRound
    \/ \E s \in Server : BeginRound(s) \/ Confirm(s)
    \/ \E m \in Sent("CONFIRMED") : OnConfirmed(m)

ReadSpec == Init /\ read = NoRead /\ [][ReadNext]_readVars

(* Every write that was answered before the question lies at or below the index. *)
ReadIsCurrent == read.phase = "indexed" => read.need <= read.index
StillOpen == read.phase /= "indexed"     \* a constraint: nothing of interest comes after
=============================================================================
