------------------------------- MODULE MC -------------------------------
(* Bounds and symmetry for TLC. *)
EXTENDS Pfsb
CONSTANTS s1, s2, s3, s4, s5
Three == {s1, s2, s3}
Four == {s1, s2, s3, s4}
OneView == <<s1>>
TwoViews == <<s1, s2>>
ThreeViews == <<s1, s2, s3>>
FourViews == <<s1, s2, s3, s1>>
ValueSymmetry == Permutations(Value)
FourSymmetry == Permutations({s3, s4})
ThreeSymmetry == Permutations(Value)
(* Constraints that lead TLC to a long counterexample, or leave out what is not meant. *)
GuideOldAndNew == installed[s2] /= 1 /\ installed[s3] /= 2 /\ installed[s1] /= 3
GuideLostDisk == known[s1][s3] = 0 /\ known[s3][s1] = 0 /\ gen[s1] = 1 /\ gen[s3] = 1
OneLostDisk == gen[s1] = 1 /\ gen[s3] = 1    \* it is s2 that loses its disk
=============================================================================
