------------------------------ MODULE Epoch ------------------------------
(* Departure 60, which no command makes yet (G29): one change of membership as a stop sign in the log. Views are packed: 1..V are of epoch 0, V+1..2V of epoch 1.
   No draining: the leader may propose above the change. Preinstall votes are not promises: any server may attempt
   any view that it leads, at any time (more behaviours than the code has). *)
EXTENDS Naturals, Sequences, FiniteSets, TLC
CONSTANTS Old, New, First, Slots, Crashes, Reads, Defect, V
Servers == Old \cup New
NoV == <<0, <<0,0,9>>>>
C == <<0,0,0>>
Ep(v) == IF v <= V THEN 0 ELSE 1
Conf(e) == IF e = 0 THEN Old ELSE New
K == 1..Slots
Views == 1..(2*V)
\* order of succession: epoch 0 ascending, epoch 1 ascending, beginning with First
RECURSIVE SortSeq2(_)
SortSeq2(S) == IF S = {} THEN <<>> ELSE LET m == CHOOSE x \in S : \A y \in S : x <= y IN <<m>> \o SortSeq2(S \ {m})
Rank(S, x) == Cardinality({y \in S : y < x})
LeaderOf(v) == IF Ep(v) = 0 THEN SortSeq2(Old)[((v-1) % Cardinality(Old)) + 1]
               ELSE SortSeq2(New)[((Rank(New, First) + v - V - 1) % Cardinality(New)) + 1]
IsMaj(S, e) == IF Defect = "countall" THEN 2 * Cardinality(S) > Cardinality(Conf(e))
               ELSE 2 * Cardinality(S \cap Conf(e)) > Cardinality(Conf(e))
VARIABLES ep, inst, acc, log, dur, lead, cand, did, base, props, votes, proms, crashes, old, rd
vars == <<ep, inst, acc, log, dur, lead, cand, did, base, props, votes, proms, crashes, old, rd>>
EmptyAcc == [k \in K |-> NoV]
Init ==
  /\ ep = [i \in Servers |-> 0]
  /\ inst = [i \in Servers |-> IF i \in Old THEN 1 ELSE 0]
  /\ acc = [i \in Servers |-> EmptyAcc]
  /\ log = [i \in Servers |-> <<>>]
  /\ dur = [i \in Servers |-> 0]
  /\ lead = [i \in Servers |-> IF i = LeaderOf(1) THEN 1 ELSE 0]
  /\ cand = [i \in Servers |-> 0]
  /\ did = [i \in Servers |-> {}]
  /\ base = [v \in Views |-> EmptyAcc]
  /\ props = {} /\ votes = {} /\ proms = {} /\ crashes = 0
  /\ old = [i \in Servers |-> inst[i]]
  /\ rd = [st |-> "no", at |-> 0, must |-> 0, v |-> 0, idx |-> 0, conf |-> {}]
MayVote(i, e) == i \in Conf(e) \/ Defect = "countall"
Snapshot(i) == [k \in K |-> IF k <= Len(log[i]) THEN <<99, log[i][k]>> ELSE acc[i][k]]
\* Figure 7 A: the leader of a view installs it. Preinstall votes are left out.
Attempt(i) == \E v \in Views :
  /\ LeaderOf(v) = i /\ Ep(v) = ep[i] /\ inst[i] < v
  /\ i \in Conf(ep[i])
  /\ inst' = [inst EXCEPT ![i] = v] /\ cand' = [cand EXCEPT ![i] = v]
  /\ lead' = [lead EXCEPT ![i] = 0] /\ did' = [did EXCEPT ![i] = {}]
  /\ proms' = proms \cup {[i |-> i, v |-> v, l |-> Snapshot(i)]}
  /\ old' = IF ep[i] = 0 THEN [old EXCEPT ![i] = v] ELSE old
  /\ UNCHANGED <<ep, acc, log, dur, base, props, votes, crashes, rd>>
\* Figure 7 B: promise to follow the leader of a view of one's own epoch.
Promise(i) == \E v \in Views :
  /\ \E p \in proms : p.v = v /\ p.i = LeaderOf(v)
  /\ inst[i] < v /\ MayVote(i, Ep(v))
  /\ Ep(v) = ep[i] \/ (Defect = "early" /\ Ep(v) >= ep[i])
  /\ inst' = [inst EXCEPT ![i] = v]
  /\ lead' = [lead EXCEPT ![i] = 0] /\ cand' = [cand EXCEPT ![i] = 0] /\ did' = [did EXCEPT ![i] = {}]
  /\ proms' = proms \cup {[i |-> i, v |-> v, l |-> Snapshot(i)]}
  /\ old' = IF ep[i] = 0 THEN [old EXCEPT ![i] = v] ELSE old
  /\ UNCHANGED <<ep, acc, log, dur, base, props, votes, crashes, rd>>
Best(Q, v, k) == LET s == {p.l[k] : p \in {q \in proms : q.v = v /\ q.i \in Q}}
                 IN CHOOSE x \in s : \A y \in s : y[1] <= x[1]
\* Figure 9 A: with the promises of a majority of the view's epoch the leader leads.
BecomeLeader(i) ==
  LET v == cand[i] IN
  /\ v > 0 /\ inst[i] = v /\ Ep(v) = ep[i]
  /\ \E Q \in SUBSET {p.i : p \in {q \in proms : q.v = v}} :
       /\ i \in Q /\ IsMaj(Q, Ep(v))
       /\ base' = [base EXCEPT ![v] = [k \in K |-> Best(Q, v, k)]]
  /\ lead' = [lead EXCEPT ![i] = v] /\ cand' = [cand EXCEPT ![i] = 0] /\ did' = [did EXCEPT ![i] = {}]
  /\ UNCHANGED <<ep, inst, acc, log, dur, props, votes, proms, crashes, old, rd>>
\* Figure 11 A, in order: the slot below was proposed, or is ordered (last_proposed).
Propose(i) == \E k \in K :
  LET v == lead[i] IN
  /\ v > 0 /\ inst[i] = v /\ Ep(v) = ep[i] /\ k > Len(log[i]) /\ k \notin did[i]
  /\ k = 1 \/ k - 1 \in did[i] \/ k - 1 <= Len(log[i])
  /\ Defect = "drainonly" => ~ \E q \in props : q.v = v /\ q.k < k /\ q.k > Len(log[i]) /\ q.x = C
  /\ \E x \in (IF base[v][k][1] > 0 THEN {base[v][k][2]}
               ELSE {<<v, k, IF Defect = "noforce" THEN crashes ELSE 0>>} \cup (IF Ep(v) = 0 /\ (Defect = "drainonly" => \A m \in K : m > k => base[v][m][1] = 0) THEN {C} ELSE {})) :
        props' = props \cup {[v |-> v, k |-> k, x |-> x]}
  /\ did' = [did EXCEPT ![i] = @ \cup {k}]
  /\ UNCHANGED <<ep, inst, acc, log, dur, lead, cand, base, votes, proms, crashes, old, rd>>
\* Figure 10 B: vote, if the view is installed, and of one's own epoch.
Accept(i) == \E p \in props :
  /\ p.v = inst[i] /\ MayVote(i, Ep(p.v)) /\ p.k > Len(log[i])
  /\ Ep(p.v) = ep[i] \/ (Defect = "early" /\ Ep(p.v) >= ep[i])
  /\ acc[i][p.k][1] < p.v
  /\ acc' = [acc EXCEPT ![i][p.k] = <<p.v, p.x>>]
  /\ votes' = votes \cup {<<i, p.v, p.k>>}
  /\ UNCHANGED <<ep, inst, log, dur, lead, cand, did, base, props, proms, crashes, old, rd>>
Apply(i, x) ==
  LET n == Len(log[i]) + 1 IN
  /\ log' = [log EXCEPT ![i] = Append(@, x)]
  /\ IF x = C /\ ep[i] = 0
     THEN /\ ep' = [ep EXCEPT ![i] = 1]
          /\ inst' = [inst EXCEPT ![i] = IF Defect = "early" THEN (IF @ > V THEN @ ELSE V + 1) ELSE V + 1]
          /\ acc' = [acc EXCEPT ![i] = [k \in K |-> IF acc[i][k][1] <= V /\ Defect # "nowipe" THEN NoV ELSE acc[i][k]]]
          /\ dur' = [dur EXCEPT ![i] = IF Defect = "noforce" THEN @ ELSE n]
          /\ lead' = [lead EXCEPT ![i] = IF i = First /\ (Defect # "early" \/ inst[i] <= V) THEN V + 1 ELSE 0]
          /\ cand' = [cand EXCEPT ![i] = 0]
          /\ did' = [did EXCEPT ![i] = {}]
     ELSE UNCHANGED <<ep, inst, acc, dur, lead, cand, did>>
\* Figure 11 B and Figure 11 C: order and execute the next slot with a majority of the view's epoch.
Exec(i) == \E p \in props :
  /\ p.k = Len(log[i]) + 1
  /\ Ep(p.v) = ep[i] \/ (Defect \in {"novoid", "drainonly"} /\ Ep(p.v) <= ep[i])
  /\ IsMaj({s \in Servers : \E w \in Views : <<s, w, p.k>> \in votes
            /\ (w = p.v \/ (Defect = "unpacked" /\ (w - 1) % V = (p.v - 1) % V))}, Ep(p.v))
  /\ acc[i][p.k] = <<p.v, p.x>> \/ i \notin Conf(Ep(p.v)) \/ Defect \in {"novoid", "drainonly"}
  /\ Apply(i, p.x)
  /\ UNCHANGED <<base, props, votes, proms, crashes, old, rd>>
\* Section 5.6: take the next slot from any server.
Recon(i) == \E j \in Servers :
  /\ Len(log[j]) > Len(log[i])
  /\ Apply(i, log[j][Len(log[i]) + 1])
  /\ UNCHANGED <<base, props, votes, proms, crashes, old, rd>>
\* Figure 14: slots that are executed and not forced are forgotten, and with them the change.
Crash(i) ==
  /\ crashes < Crashes /\ crashes' = crashes + 1
  /\ \E n \in dur[i]..Len(log[i]) :
       LET switched == ep[i] = 1
           stays == switched /\ \E k \in 1..n : log[i][k] = C IN
       /\ log' = [log EXCEPT ![i] = SubSeq(@, 1, n)]
       /\ ep' = [ep EXCEPT ![i] = IF stays THEN 1 ELSE 0]
       /\ inst' = [inst EXCEPT ![i] = IF switched /\ ~stays THEN old[i] ELSE @]
  /\ lead' = [lead EXCEPT ![i] = 0] /\ cand' = [cand EXCEPT ![i] = 0] /\ did' = [did EXCEPT ![i] = {}]
  /\ UNCHANGED <<acc, dur, base, props, votes, proms, old, rd>>
\* ---- one linearizable read
Max(S) == IF S = {} THEN 0 ELSE CHOOSE x \in S : \A y \in S : y <= x
\* Departure 24: a client asks.
Ask(i) == /\ Reads /\ rd.st = "no" /\ \E j \in Servers : Len(log[j]) >= 2
          /\ rd' = [st |-> "asked", at |-> i, must |-> Max({Len(log[j]) : j \in Servers}), v |-> 0, idx |-> 0, conf |-> {}]
\* Departure 24: the leader notes the highest number, and asks who follows it.
Round(i) == /\ rd.st = "asked" /\ lead[i] > 0 /\ inst[i] = lead[i]
            /\ rd' = [rd EXCEPT !.st = "round", !.v = lead[i], !.conf = {i},
                !.idx = Max({Len(log[i])} \cup did[i] \cup {k \in K : base[lead[i]][k][1] > 0})]
\* Departure 24: only who has installed the view, in its epoch, says so.
Confirm(i) == /\ rd.st = "round" /\ inst[i] = rd.v /\ ep[i] = Ep(rd.v) /\ MayVote(i, ep[i]) /\ i \notin rd.conf
              /\ rd' = [rd EXCEPT !.conf = @ \cup {i}]
SlotOfC(i) == Max({k \in 1..Len(log[i]) : log[i][k] = C})
\* Departure 24: with a majority of the view's epoch, below the change or in the same epoch.
Answer == /\ rd.st = "round" /\ IsMaj(rd.conf, Ep(rd.v)) /\ Len(log[rd.at]) >= rd.idx
          /\ \/ Defect = "readats"
             \/ Ep(rd.v) = ep[rd.at]
             \/ Ep(rd.v) = 0 /\ ep[rd.at] = 1 /\ rd.idx < SlotOfC(rd.at)
          /\ rd' = [rd EXCEPT !.st = IF Len(log[rd.at]) < rd.must THEN "stale" ELSE "done"]
Reading == /\ (Answer \/ \E i \in Servers : Ask(i) \/ Round(i) \/ Confirm(i))
           /\ UNCHANGED <<ep, inst, acc, log, dur, lead, cand, did, base, props, votes, proms, crashes, old>>
Next == \/ \E i \in Servers : Attempt(i) \/ Promise(i) \/ BecomeLeader(i) \/ Propose(i) \/ Accept(i) \/ Exec(i) \/ Recon(i) \/ Crash(i)
        \/ Reading
Spec == Init /\ [][Next]_vars
S1 == \A i, j \in Servers : \A k \in 1..(IF Len(log[i]) < Len(log[j]) THEN Len(log[i]) ELSE Len(log[j])) : log[i][k] = log[j][k]
OneName == Defect = "noforce" \/ \A p, q \in props : (p.v = q.v /\ p.k = q.k) => p.x = q.x
Linear == rd.st # "stale"
\* an executed slot stands on more than half of its epoch's disks or in executed durable logs (answered is durable)
EpochAfterC == \A i \in Servers : (ep[i] = 1) = (\E k \in 1..Len(log[i]) : log[i][k] = C)
Guide == /\ \A i \in Servers : inst[i] <= V + 1
         /\ \A p \in props : /\ p.v = 1 => (p.k = 1 /\ p.x = C)
                             /\ p.v = 2 => p.x # C
                             /\ p.v = 3 => p.k = 1
         /\ \A w \in votes : w[2] = 1 => w[1] = 1
         /\ \A w \in votes : w[2] = 2 => (w[1] # 1 /\ w[3] = 2)
NotReached == ~(\E i \in Servers : Len(log[i]) = Slots /\ ep[i] = 1 /\ log[i][Slots] # C)
==========================================================================
