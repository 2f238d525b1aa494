---------------------------- MODULE Acquaintance ----------------------------
(***************************************************************************)
(* Departures 12 and 42 alone, for every number of servers up to that of   *)
(* Server: who may be admitted.                                            *)
(* A storage takes part when `Needed' others have its identity on disk.    *)
(* One server loses its disk.  If never both its storages are admitted,    *)
(* a lost disk does no harm: the second one never votes.                   *)
(* The first storage may be admitted before anybody but `Needed' others    *)
(* has met it; all others may be silent, or not yet started.               *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, TLC

CONSTANTS
    Server,
    Rule        \* "Departure42", or "QuorumLessOne": the rule before it, under which S1 could break
VARIABLES members, victim, known, lostIt, admitted
\* members: the servers of the cluster, chosen at the start
\* known[r]: which of the victim's storages (1, 2) belongs to it, as r has it on disk; 0: none
vars == <<members, victim, known, lostIt, admitted>>

N == Cardinality(members)
Majority == N \div 2 + 1
Needed == IF Rule = "Departure42" THEN N - Majority + 1 ELSE Majority - 1
Symmetry == Permutations(Server)
Others == members \ {victim}

(* A cluster of one asks no others, and has none: it is left out. *)
Init ==
    /\ members \in {M \in SUBSET Server : Cardinality(M) >= 2} /\ victim \in members
    /\ known = [r \in Server |-> 0] /\ lostIt = FALSE /\ admitted = {}

(* Departure 12: r hears a storage of the victim for the first time, perhaps by a late frame of the lost one. *)
Meet(r, g) == r \in Others /\ known[r] = 0 /\ (g = 2 => lostIt) /\ known' = [known EXCEPT ![r] = g]
              /\ UNCHANGED <<members, victim, lostIt, admitted>>
(* Departure 12: the disk is lost, and the server comes back with an empty one. *)
Lose == ~lostIt /\ lostIt' = TRUE /\ UNCHANGED <<members, victim, known, admitted>>
(* Departure 42: the storage that the victim has now is told by `Needed' others that they know it. *)
Admit(g) ==
    /\ g = (IF lostIt THEN 2 ELSE 1)
    /\ Cardinality({r \in Others : known[r] = g}) >= Needed
    /\ admitted' = admitted \cup {g} /\ UNCHANGED <<members, victim, known, lostIt>>

Next == Lose \/ \E g \in {1, 2} : Admit(g) \/ \E r \in Server : Meet(r, g)
Spec == Init /\ [][Next]_vars

(* ------------------------------------------------------------ what must hold *)
NotBoth == admitted /= {1, 2}
(* What Departure 42 says in two ways: two sets of so many others share a server. *)
MajorityOfOthers == Rule = "Departure42" => Needed = (N - 1) \div 2 + 1
(* Constraint for a counterexample with an odd number of servers, or an even one. *)
Odd == N % 2 = 1
Even == N % 2 = 0
=============================================================================
