"""Reads YAML so that every value knows its place in the file, and an error message about it can name that place.

A value gets the type that is expected at its place, and not the type that YAML 1.1 guesses: YAML takes `no` for False,
`010` for 8 and `12:30` for 750. So this module uses the graph of nodes that PyYAML composes, and lets PyYAML construct
no Python objects from it. Whatever is in a file, this module raises nothing but `ConfigError`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import BinaryIO, Final

import yaml
from attrs import frozen

from pfsb.support.private_files import OTHERS, open_regular
from pfsb.support.spelling import nearest

FILE_BYTES_MAX: Final = 1_000_000
SECONDS_MIN: Final = 0.001
SECONDS_MAX: Final = 3_600.0


class ConfigError(Exception):
    """Raised if the configuration cannot be used; the text is one line for a person."""


def read(path: str, bytes_max: int, named: str) -> bytes:
    """Read a file of at most `bytes_max` bytes; returns its content. Raises `ConfigError`.

    `named` is the beginning of the error's text: the name of the file or, for a file whose path stands in the
    configuration, the place there with the path.
    """
    return _read(lambda: open(path, "rb"), bytes_max, named)


def read_private(path: str, bytes_max: int, named: str, *, may_be_pipe: bool = False) -> bytes:
    """As `read`, for a file with a secret. Raises `ConfigError` also if others than its owner may use the file, and
    unless it is a regular file or `may_be_pipe`."""
    return _read(lambda: open(path, "rb") if may_be_pipe else open_regular(path), bytes_max, named, is_private=True)


def _read(opened: Callable[[], BinaryIO], bytes_max: int, named: str, *, is_private: bool = False) -> bytes:
    try:
        with opened() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if is_private and mode & OTHERS:
                wrong = f"others than its owner may use it (mode {mode:03o}); chmod 600 would be right"
                raise ConfigError(f"{named}: {wrong}")
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise ConfigError(f"{named}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{named}: cannot be read: {error.strerror}") from None
    except ValueError:  # the path has a NUL, or half of a surrogate pair
        raise ConfigError(f"{named}: is no name of a file") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{named}: is too large, {bytes_max} bytes are allowed")
    return data


def open_file(path: str) -> Place:
    """Read a YAML file; returns its top-level value."""
    named = path if path.isprintable() else quoted(path)
    data = read(path, FILE_BYTES_MAX, named)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{named}: line {line}: is not UTF-8") from None
    node = compose(named, text)
    if node is None:
        raise ConfigError(f"{named}: is empty (etc/four.yaml is an example)")
    return Place(named, (), node)


def compose(named: str, text: str) -> yaml.Node | None:
    """Read text as YAML; returns its top-level node, or None if the text is empty.

    Raises `ConfigError`, with the name of the file (`named`) and the place in it, if the text is not YAML.
    """
    try:
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{named}: {line}{_first_line(error.problem)}") from None
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{named}: line {line_number}: has a character that YAML does not allow") from None
    except RecursionError:
        raise ConfigError(f"{named}: is nested too deeply") from None
    except (ValueError, OverflowError):  # for example for "\UFFFFFFFF", which gets past PyYAML's own checks
        raise ConfigError(f"{named}: is not YAML") from None


def _first_line(problem: str | None) -> str:
    lines = (problem or "").splitlines() or ["is not YAML"]
    return lines[0] if lines[0].isprintable() else quoted(lines[0])


def quoted(text: str) -> str:
    """Put text in double quotes, on one line, printable on any terminal, and cut off if it is long."""
    short = text if len(text) <= 100 else text[:97] + "..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


_NULLS: Final = ("", "~", "null", "Null", "NULL")
_UNTAGGED: Final = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


@frozen
class Place:
    """A value in a YAML file, with the keys that lead to it."""

    file: str
    path: tuple[str, ...]
    node: yaml.Node

    def wrong(self, text: str) -> ConfigError:
        """Make a `ConfigError` about this place, for the caller to raise; `text` tells what would be right."""
        where = f"{self.file}: {'.'.join(self.path)}" if self.path else self.file
        return ConfigError(f"{where}: {text}")

    def is_null(self) -> bool:
        """Whether the value is left out or is null without quotes: then the key is treated as if it were not there."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.style is None and self.node.value in _NULLS

    def keys(self, known: Collection[str], required: Sequence[str] = ()) -> dict[str, Place]:
        """The values of a mapping by their keys, without those that are null.

        Raises `ConfigError` for a key that is not in `known`, and for one of `required` that is missing.
        """
        found: dict[str, Place] = {}
        for key, value in self.entries():
            name = key.text()
            if name not in known:
                raise value.wrong(f"unknown key, {nearest(name, known)}")
            if not value.is_null():
                found[name] = value
        for name in required:
            if name not in found:
                raise self._at(name).wrong("is missing")
        return found

    def entries(self) -> Iterator[tuple[Place, Place]]:
        """The keys and values of a mapping. A key that occurs twice is refused; PyYAML would keep the last value."""
        if not isinstance(self._untagged(), yaml.MappingNode):
            raise self.wrong(f"must be a mapping of keys to values, not {self.shown()}")
        lines: dict[str, int] = {}
        for key_node, value_node in self.node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.wrong("has a key that is no single word")
            line = key_node.start_mark.line + 1
            here = self._at(key_node.value)
            if key_node.value in lines:
                raise here.wrong(f"is given twice, on lines {lines[key_node.value]} and {line}")
            lines[key_node.value] = line
            yield Place(here.file, here.path, key_node), Place(here.file, here.path, value_node)

    def items(self) -> list[Place]:
        """The items of a list."""
        if not isinstance(self._untagged(), yaml.SequenceNode):
            raise self.wrong(f"must be a list, not {self.shown()}")
        return [Place(self.file, (*self.path, str(number)), node) for number, node in enumerate(self.node.value)]

    def text(self) -> str:
        """The value as a text, which must be printable and not empty."""
        found = str(self._scalar("text").value)
        if not found or self.is_null():
            raise self.wrong("is empty")
        if not found.isprintable():
            raise self.wrong(f"{quoted(found)} has characters that cannot be printed")
        return found

    def word(self) -> str:
        """The value as a word: 1 to 64 letters, digits, underscores, dots and hyphens, where the first is no dot or
        hyphen.

        A word can be part of a file name, and needs no quotes in the line protocol. Raises `ConfigError` for any other
        value.
        """
        found = self.text()
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", found):
            raise self.wrong(f"must be up to 64 letters, digits and _ . -, not {self.shown()}")
        return found

    def integer(self, low: int, high: int) -> int:
        """The value as a whole number from `low` to `high`, both included."""
        kind = f"a whole number from {low} to {high}"
        found = self._plain(kind)
        if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", found) or not low <= int(found) <= high:
            raise self.wrong(f"must be {kind}, not {self.shown()}")
        return int(found)

    def seconds(self) -> float:
        kind = f"seconds, from {SECONDS_MIN:g} to {SECONDS_MAX:g}"
        found = self._plain(kind)
        if not re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", found):
            raise self.wrong(f"must be {kind}, not {self.shown()}")
        if not SECONDS_MIN <= float(found) <= SECONDS_MAX:
            raise self.wrong(f"must be {kind}, not {self.shown()}")
        return float(found)

    def boolean(self) -> bool:
        found = self._plain("true or false").lower()
        if found not in ("true", "false"):
            raise self.wrong(f"must be true or false, not {self.shown()}")
        return found == "true"

    def shown(self) -> str:
        """The value as error messages show it: a scalar as it is written in the file, on one line, else its kind."""
        if not isinstance(self.node, yaml.ScalarNode):
            return "a list" if isinstance(self.node, yaml.SequenceNode) else "a mapping"
        if self.node.style is None and re.fullmatch(r"[!-~]{1,60}", self.node.value):
            return str(self.node.value)
        return quoted(self.node.value)

    def _plain(self, kind: str) -> str:
        node = self._scalar(kind)
        if node.style is not None:
            raise self.wrong(f"must be {kind}, not the text {self.shown()}")
        return str(node.value)

    def _scalar(self, kind: str) -> yaml.ScalarNode:
        node = self._untagged()
        if not isinstance(node, yaml.ScalarNode):
            raise self.wrong(f"must be {kind}, not {self.shown()}")
        return node

    def _untagged(self) -> yaml.Node:
        if self.node.tag not in _UNTAGGED:
            raise self.wrong(f"has the tag {quoted(self.node.tag)}; the plain value would be right")
        return self.node

    def _at(self, key: str) -> Place:
        step = key if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key) else quoted(key)
        return Place(self.file, (*self.path, step), self.node)
