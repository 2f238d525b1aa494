"""The interface between the campaign and its targets."""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.simulator.fuzz.mutation import Mutation


class Target:
    """One reader of bytes. An exception out of `begin`, `run` or `end` is a finding."""

    name: str = ""
    help: str = ""
    """The rest of a sentence that begins with the name."""
    inputs_per_round: int = 1_000
    """Number of inputs, at most, that share one state."""
    guided_by: Sequence[str] = ()
    """Parts of the paths of files whose lines guide the campaign; none: the seeds are all that is changed."""
    words: Sequence[bytes] = ()
    """Bytes that mean something to the target."""

    def seeds(self) -> list[bytes]:
        """Real input. Called once."""
        raise NotImplementedError

    def begin(self, name: str) -> None:
        """Make a new state, the same whenever it has this name."""

    def fresh(self) -> list[bytes]:
        """Real input that has come up in the present state, to be changed like seeds."""
        return []

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        """Make an input from a seed, and another seed for parts."""
        return mutation.changed(data, other)

    def run(self, data: bytes) -> None:
        """Read one input."""
        raise NotImplementedError

    def end(self) -> None:
        """Look whether the state is as good as ever, and give it up. Called after the last input of a round."""

    def drop(self) -> None:
        """Give the state up without looking, after a finding."""
