"""The commands of simulated users: few keys, few locks, and values that are written only once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from pfsb.applications.arguments import absent
from pfsb.applications.interfaces import Command

Writer = Callable[[random.Random, str, int], Command]
"""Function of (random number generator, key, number) that makes one command.

`Vocabulary` calls a `Writer` drawn at random for each new command of a user that is not about locks. The number is
there to make the written value unique: each change gets a number that no other command of the run gets, and a question
gets 0.
"""


def _put(rng: random.Random, key: str, unique: int) -> Command:
    return ("PUT", key, f"v{unique}" + "x" * rng.choice((0, 0, 0, 300)))


def _cas(rng: random.Random, key: str, unique: int) -> Command:
    """Make a CAS command that sets `key` to a value with the number `unique` in it.

    Mostly it expects a value that a command before it may have written, otherwise that the key is absent.
    """
    if rng.random() < 0.4:
        return ("CAS", key, 0, "", f"v{unique}")
    return ("CAS", key, 1, f"v{max(0, unique - rng.randint(1, 8))}", f"v{unique}")


_WRITERS: tuple[Writer, ...] = (
    _put,
    _put,
    _cas,
    lambda rng, key, unique: ("APPEND", key, f"+{unique}"),
    lambda rng, key, unique: ("INCR", f"n{key}", rng.randint(1, 3)),
    lambda rng, key, unique: ("INCR", f"n{key}", 1),
    lambda rng, key, unique: ("PUTHASH", f"h{key}", str(unique)),
    lambda rng, key, unique: ("DEL", key),
    lambda rng, key, unique: ("SAY", f"line {unique}"),
    lambda rng, key, unique: ("SAY", f"line {unique}"),
)

_READERS: tuple[Writer, ...] = (
    lambda rng, key, unique: ("GET", key),
    lambda rng, key, unique: ("GET", f"n{key}"),
    lambda rng, key, unique: ("GET", f"h{key}"),
    lambda rng, key, unique: ("LOG", 1, 1000),
)


@frozen
class Vocabulary:
    """The commands that a user chooses from: the share of each kind of command, and the number of keys and locks."""

    keys: int = 3
    locks: int = 2
    share_of_reads: float = 0.2
    share_of_locks: float = 0.25
    share_of_local_reads: float = 0.15
    """Share of sequential and stale reads in all commands of a user; one server answers them without the log."""

    share_of_puts: float = 0.0
    """Share of the changes that are replaced by a PUT after they were drawn: many PUTs in a row are executed together.
    """
    share_of_lines: float = 0.0
    """Share of the changes, among them those that became a PUT, that are replaced by a SAY, with a text of up to 40
    characters."""
    share_of_conditions: float = 0.0
    """Share of the changes of one key that run only if the key has a certain revision (IF)."""
    long_values_bytes: int = 0
    """Maximum size, in bytes, of the values of PUT; 0: all of them are short."""

    def change(self, rng: random.Random, unique: int) -> Command:
        command = rng.choice(_WRITERS)(rng, self._key(rng), unique)
        if self.share_of_puts and rng.random() < self.share_of_puts:
            command = _put(rng, self._key(rng), unique)
        if self.share_of_lines and rng.random() < self.share_of_lines:
            command = ("SAY", f"line {unique}{'.' * rng.choice((0, 0, 30))}")
        if self.long_values_bytes and command[0] == "PUT":
            return (*command[:2], f"{command[2]}{'y' * rng.randrange(self.long_values_bytes)}")
        return command

    def conditional(self, rng: random.Random, command: Command, seen: Mapping[str, int]) -> Command:
        """The change `command` as it is; or an IF with it, which runs the change only if its key has a certain
        revision, mostly the one that the user has seen last. `seen`: key -> that revision."""
        if not self.share_of_conditions or command[0] == "SAY" or rng.random() >= self.share_of_conditions:
            return command
        revision = rng.choice((0, -1, *[seen.get(command[1], 1)] * 3))
        return ("IF", command[1], revision, *command)

    def question(self, rng: random.Random) -> Command:
        return rng.choice(_READERS)(rng, self._key(rng), 0)

    @property
    def questions_only(self) -> Vocabulary:
        """A copy of this vocabulary from which users draw only linearizable questions, which change nothing."""
        return evolve(self, share_of_reads=1.0, share_of_locks=0.0, share_of_local_reads=0.0)

    def names(self) -> tuple[str, ...]:
        """The name of each key that a command of this vocabulary may read or write."""
        return tuple(f"{prefix}{key}" for key in "abcdefgh"[: self.keys] for prefix in ("", "n", "h"))

    def lock(self, rng: random.Random) -> Command:
        name = f"lock{rng.randrange(self.locks)}"
        if rng.random() < 0.3:
            return ("TRYLOCK", name)
        return ("LOCK", name, rng.choice((absent, absent, 0, 300, 2_000)))

    def _key(self, rng: random.Random) -> str:
        return "abcdefgh"[rng.randrange(self.keys)]


def unlock(name: str) -> Command:
    return ("UNLOCK", name, absent)
