"""The interface between the campaign and its targets."""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.simulator.fuzz.mutation import Mutation


class Target:
    """One part of pfsb that reads bytes, and a way to give it inputs.

    An exception out of `begin`, `run` or `end` is a finding.
    """

    name: str = ""
    help: str = ""
    """Words that say what is changed, shown behind the target's name by `pfsb fuzz`."""
    inputs_per_round: int = 1_000
    """Number of inputs, at most, that share one state."""
    guided_by: Sequence[str] = ()
    """Parts of paths: an input that reaches new lines in a file whose path has such a part is kept, and is changed into
    further inputs later. Empty: only real input is changed.
    """
    words: Sequence[bytes] = ()
    """Bytes that mean something to the target, such as its keywords, for `Mutation` to put into inputs."""

    def seeds(self) -> list[bytes]:
        """Real input, to be changed. Called once in a campaign."""
        raise NotImplementedError

    def begin(self, name: str) -> None:
        """Make a new state for the inputs of a round. Calls with equal `name` make equal states."""

    def fresh(self) -> list[bytes]:
        """Real input that has come up in the present state, to be changed like seeds."""
        return []

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        """Make an input: a changed copy of `data`, which may take parts from `other`.

        Both are real input or earlier inputs.
        """
        return mutation.changed(data, other)

    def run(self, data: bytes) -> None:
        """Read one input."""
        raise NotImplementedError

    def end(self) -> None:
        """Check that the target still works after all inputs of a round, and give its state up.

        Called after the last input of a round; raises an exception if something is wrong.
        """

    def drop(self) -> None:
        """Give the state up without a check, after a finding."""
