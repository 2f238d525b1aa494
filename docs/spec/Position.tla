------------------------------ MODULE Position ------------------------------
(***************************************************************************)
(* Departure 43 alone, for any number of servers: an older copy of a       *)
(* storage is put back, or the end of its log is cut off.                  *)
(* Each frame tells the incarnation of its sender's storage and how many   *)
(* groups of records it holds.  A server that counts a vote notes the      *)
(* highest such number, and refuses a storage that starts below it.        *)
(* One server, the victim, goes back to an older state once.  `Cut' is     *)
(* what it came back with.  A vote that rests on a group above Cut is      *)
(* forgotten: a server that has counted it must not count a vote of the    *)
(* second life, since that one may contradict it.                          *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, TLC

CONSTANTS
    Server,
    Groups,     \* how many groups the victim writes
    Rule,       \* "Departure43"; "identity": a storage is known by its identity alone, as before
    Notes,      \* "forced": what is noted is on disk before a vote is counted; "lazy": it comes to disk some time
    LateFrames  \* "refused": once a second life is known, frames of the first are dropped; "counted": they are not
VARIABLES victim, groups, cut, noted, life, written, counted
\* groups[l]: groups on the victim's disk at the end (so far) of its life l; cut: those that life 2 began with
\* noted[r]: the highest number of groups that r has heard of; life[r]: the latest life that r has heard
\* written[r]: <<noted, life>> as r's disk has them
\* counted[r]: the votes that r has counted: <<life, group that the vote rests on>>
vars == <<victim, groups, cut, noted, life, written, counted>>

Symmetry == Permutations(Server)
Others == Server \ {victim}
Lives == {1} \cup (IF groups[2] > 0 THEN {2} ELSE {})
Max(a, b) == IF a > b THEN a ELSE b

Init ==
    /\ victim \in Server /\ groups = <<1, 0>> /\ cut = 0
    /\ noted = [r \in Server |-> 0] /\ life = [r \in Server |-> 0] /\ counted = [r \in Server |-> {}]
    /\ written = [r \in Server |-> <<0, 0>>]

(* Section 5.8: one more group is on the victim's disk, so that the votes of its turns may leave. *)
Write ==
    /\ LET l == IF groups[2] > 0 THEN 2 ELSE 1 IN
        groups[l] < Groups /\ groups' = [groups EXCEPT ![l] = @ + 1]
    /\ UNCHANGED <<victim, cut, noted, life, written, counted>>

(* Departure 43: the victim starts again with fewer groups than it had. *)
GoBack ==
    /\ groups[2] = 0
    /\ \E c \in 1..(groups[1] - 1) : cut' = c /\ groups' = [groups EXCEPT ![2] = c]
    /\ UNCHANGED <<victim, noted, life, written, counted>>

Refused(r, l) ==
    \/ Rule = "Departure43" /\ l = 2 /\ noted[r] > cut /\ life[r] /= 2
    \/ LateFrames = "refused" /\ l < life[r]

(* Departure 43: a frame of life l comes, sent when p groups were on disk; it may carry a vote that rests on group g. *)
Hear(r, l) ==
    /\ r \in Others /\ ~Refused(r, l)
    /\ \E p \in (IF l = 1 THEN 1 ELSE cut)..groups[l] :
        /\ noted' = [noted EXCEPT ![r] = Max(@, p)] /\ life' = [life EXCEPT ![r] = Max(@, l)]
        /\ \E g \in 0..p : counted' = [counted EXCEPT ![r] = IF g = 0 THEN @ ELSE @ \cup {<<l, g>>}]
    /\ written' = IF Notes = "forced" THEN [written EXCEPT ![r] = <<noted'[r], life'[r]>>] ELSE written
    /\ UNCHANGED <<victim, groups, cut>>

(* Departure 43: the note comes to disk with other records. *)
WriteNote(r) ==
    /\ Notes = "lazy" /\ written[r] /= <<noted[r], life[r]>> /\ written' = [written EXCEPT ![r] = <<noted[r], life[r]>>]
    /\ UNCHANGED <<victim, groups, cut, noted, life, counted>>

(* Figure 14: r starts again from its disk.  What it has counted has had its effect. *)
Restart(r) ==
    /\ written[r] /= <<noted[r], life[r]>>
    /\ noted' = [noted EXCEPT ![r] = written[r][1]] /\ life' = [life EXCEPT ![r] = written[r][2]]
    /\ UNCHANGED <<victim, groups, cut, written, counted>>

Next == Write \/ GoBack \/ \E r \in Server : WriteNote(r) \/ Restart(r) \/ \E l \in Lives : Hear(r, l)
Spec == Init /\ [][Next]_vars

(* ------------------------------------------------------------ what must hold *)
Forgotten(r) == groups[2] > 0 /\ \E g \in (cut + 1)..Groups : <<1, g>> \in counted[r]
New(r) == \E g \in (cut + 1)..Groups : <<2, g>> \in counted[r]
NotBothAtOne == \A r \in Others : ~(Forgotten(r) /\ New(r))
(* Does not hold: one server may have counted what was forgotten, and another one have heard nothing since the copy. *)
NotBoth == \A r, q \in Others : ~(Forgotten(r) /\ New(q))
(* It holds if all others have heard of more groups than were put back, before they hear of the second life. *)
AllHadHeard == groups[2] > 0 /\ (\A r \in Others : noted[r] > cut /\ life[r] = 1) => \A r \in Others : ~ENABLED Hear(r, 2)
=============================================================================
