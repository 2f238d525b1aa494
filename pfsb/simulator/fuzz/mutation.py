"""Changes of bytes and of msgpack values, drawn from random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack
from attrs import define

NUMBERS: Final = (0, 1, 2, 7, 15, 16, 127, 128, 255, 256, 1_000, 32_767, 65_535, 65_536, 10**6, 2**31 - 1, 2**31, 2**32)
"""Small numbers that are often the limit of a range, or next to one. Larger ones, and negative ones, are in `_HUGE`."""
_HUGE: Final = (2**40, 2**53, 2**62, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -128, -(2**31), -(2**63))
_TEXTS: Final = (
    "",
    "a",
    "0",
    "\x00",
    "é",
    "世界",
    "\ud7ff",
    "x" * 300,
    "x" * 301,
    "!",
    "~",
    "~0.1.1",
    "OPEN",
    "EXPIRE",
)
_NESTED_DEEPLY: Final = 600
INPUT_BYTES_MAX: Final = 60_000
"""Maximum size, in bytes, of a changed input; a longer one is cut to this size."""


@define
class Mutation:
    """Changes bytes and msgpack values, each in a way that it draws from `dice`."""

    dice: random.Random
    words: Sequence[bytes] = ()
    """Bytes that mean something to the target, and are put into inputs."""
    landmarks: Sequence[int] = ()
    """Numbers that mean something in the present state of the target."""

    # ------------------------------------------------------------------ bytes

    def changed(self, data: bytes, other: bytes) -> bytes:
        """A changed copy of `data`, which may take parts from `other`: one change, and sometimes a few more."""
        for _ in range(self.dice.choice((1, 1, 1, 2, 3, 5))):
            data = self.dice.choice(_BYTE_CHANGES)(self, data, other)
        return data[:INPUT_BYTES_MAX]

    def flip(self, data: bytes, _other: bytes) -> bytes:
        """Flip one to five bits, as a damaged memory or cable does."""
        if not data:
            return data
        out = bytearray(data)
        for _ in range(self.dice.randint(1, 5)):
            bit = self.dice.randrange(len(out) * 8)
            out[bit // 8] ^= 1 << bit % 8
        return bytes(out)

    def cut_off(self, data: bytes, _other: bytes) -> bytes:
        return data[: self.dice.randint(0, len(data))]

    def cut_out(self, data: bytes, _other: bytes) -> bytes:
        start, end = self._range(data)
        return data[:start] + data[end:]

    def repeat(self, data: bytes, _other: bytes) -> bytes:
        start, end = self._range(data)
        return data[:end] + data[start:end] * self.dice.choice((1, 1, 2, 20)) + data[end:]

    def put_in(self, data: bytes, _other: bytes) -> bytes:
        place = self.dice.randint(0, len(data))
        return data[:place] + self._new_bytes() + data[place:]

    def put_over(self, data: bytes, _other: bytes) -> bytes:
        """Overwrite bytes by as many others: random bytes, a word of the target, a special byte, or a binary number."""
        new = self._new_bytes()
        place = self.dice.randint(0, max(0, len(data) - len(new)))
        return data[:place] + new + data[place + len(new) :]

    def splice(self, data: bytes, other: bytes) -> bytes:
        """The beginning of `data`, followed by the end of `other`."""
        return data[: self.dice.randint(0, len(data))] + other[self.dice.randint(0, len(other)) :]

    def take_from(self, data: bytes, other: bytes) -> bytes:
        start, end = self._range(other)
        place = self.dice.randint(0, len(data))
        return data[:place] + other[start:end] + data[place:]

    def change_digits(self, data: bytes, _other: bytes) -> bytes:
        """Replace a run of decimal digits, such as a length in RESP or HTTP, by another number."""
        places = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
        if not places:
            return self.flip(data, b"")
        start = self.dice.choice(places)
        end = start
        while end < len(data) and 0x30 <= data[end] <= 0x39:
            end += 1
        return data[:start] + str(self.number(0)).encode() + data[end:]

    def _range(self, data: bytes) -> tuple[int, int]:
        start = self.dice.randint(0, len(data))
        longest = self.dice.choice((1, 4, 16, 256, len(data)))
        return start, self.dice.randint(start, min(len(data), start + longest))

    def _new_bytes(self) -> bytes:
        kind = self.dice.randrange(4)
        if kind == 0:
            return self.dice.randbytes(self.dice.choice((1, 1, 2, 4, 16)))
        if kind == 1 and self.words:
            return self.dice.choice(self.words)
        if kind == 2:
            return bytes([self.dice.choice((0, 0x0A, 0x0D, 0x20, 0x22, 0x7F, 0x80, 0xFF))])
        size = self.dice.choice((1, 2, 4, 8))
        return (self.number(0) % (1 << 8 * size)).to_bytes(size, "big")

    # ------------------------------------------------------------------ values

    def number(self, before: int) -> int:
        """A number to put in the place of `before`, drawn from those that are likely to make trouble."""
        kind = self.dice.randrange(6)
        if kind <= 1:
            if self.landmarks and self.dice.random() < 0.5:
                before = self.dice.choice(self.landmarks)
            return before + self.dice.choice((-1, 1, 0, -2, 2, 5, 100, -100, 100_000))
        if kind == 2:
            return before ^ (1 << self.dice.randrange(63))
        if kind == 3:
            return self.dice.choice(_HUGE)
        return self.dice.choice(NUMBERS)

    def value(self, before: Any, other: Any = None) -> Any:
        """A changed copy of the msgpack value `before`.

        In a tuple, mostly one element changes; sometimes elements are left out, repeated, added or reversed. A value
        that is no tuple is replaced by one of its own type, or seldom by one of any type, which may be `other`.
        """
        if isinstance(before, tuple) and before and self.dice.random() < 0.85:
            place = self.dice.randrange(len(before))
            return (*before[:place], self.value(before[place], other), *before[place + 1 :])
        match before:
            case bool():
                return self.dice.choice((not before, 0, 1, None))
            case int():
                return self.number(before) if self.dice.random() < 0.95 else self.stranger(other)
            case str():
                return self.dice.choice(_TEXTS) if self.dice.random() < 0.9 else self.stranger(other)
            case bytes():
                return self._changed_blob(before, other)
            case tuple():
                return self._changed_shape(before, other)
        return self.stranger(other)

    def stranger(self, other: Any) -> Any:
        """A msgpack value of a type that is drawn at random; it may be `other` itself."""
        deep: Any = ()
        for _ in range(self.dice.choice((1, 1, 1, _NESTED_DEEPLY))):
            deep = (deep,)
        kinds: tuple[Any, ...] = (
            None,
            True,
            1.5,
            b"",
            b"\x00" * 8,
            (),
            deep,
            {},
            {"a": 1},
            other,
            self.number(0),
            "text",
            b"x" * 2_000,
        )
        return self.dice.choice(kinds)

    def _changed_blob(self, before: bytes, other: Any) -> bytes:
        """A changed copy of the bytes `before`.

        If they hold msgpack, as a batch and a payload do, mostly the value inside is changed (`value`). Parts of
        `other` may be put in.
        """
        inner = unpacked(before)
        if isinstance(inner, tuple) and self.dice.random() < 0.75:
            return packed(self.value(inner, other)) or before
        return self.changed(before, other if isinstance(other, bytes) else before)

    def _changed_shape(self, before: tuple[Any, ...], other: Any) -> tuple[Any, ...]:
        place = self.dice.randint(0, len(before))
        kind = self.dice.randrange(5)
        if kind == 0:
            return before[:place] + before[place + 1 :]
        if kind == 1:
            return (*before[:place], *before[max(0, place - 1) : place] * self.dice.choice((1, 2, 30)), *before[place:])
        if kind == 2:
            return (*before[:place], self.stranger(other), *before[place:])
        if kind == 3:
            return before[::-1]
        return ()


_ByteChange = Callable[[Mutation, bytes, bytes], bytes]

_BYTE_CHANGES: Final[tuple[_ByteChange, ...]] = (
    Mutation.flip,
    Mutation.flip,
    Mutation.cut_off,
    Mutation.cut_out,
    Mutation.repeat,
    Mutation.put_in,
    Mutation.put_over,
    Mutation.splice,
    Mutation.take_from,
    Mutation.change_digits,
)


def unpacked(data: bytes) -> Any:
    """The msgpack value in `data`; None if there is none."""
    try:
        return msgpack.unpackb(data, use_list=False, strict_map_key=False)
    except Exception:  # msgpack documents no complete list of its exceptions
        return None


def packed(value: Any) -> bytes:
    """The value as msgpack; b"" for a value that msgpack cannot write."""
    try:
        data: bytes = msgpack.packb(value)
    except (ValueError, OverflowError, TypeError, RecursionError):
        return b""
    return data
