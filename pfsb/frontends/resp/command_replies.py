"""The replies to COMMAND: what commands there are, in the form of the version of Redis that INFO shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pfsb.frontends.resp import replies
from pfsb.frontends.resp.commands import Keys, RedisCommand
from pfsb.frontends.resp.replies import Dialect

_GROUP_CATEGORIES: Final = {"string": "string", "generic": "keyspace", "connection": "connection"}
"""Group of commands -> the category of Redis's access control to which its commands belong."""
_FLAG_CATEGORIES: Final = {"write": "write", "readonly": "read", "blocking": "blocking", "admin": "admin dangerous"}
"""Flag of a command -> the categories to which commands with this flag belong."""


def every_command(commands: Mapping[str, RedisCommand]) -> Iterator[tuple[str, RedisCommand]]:
    """(name, command) of these commands and all of their subcommands. The names are written as Redis shows them:
    `client|id`."""
    for name, command in commands.items():
        yield name.lower(), command
        yield from _subcommands(name, command)


def entry_of(name: str, command: RedisCommand, dialect: Dialect) -> bytes:
    """The entry for one command in the replies to COMMAND and COMMAND INFO: an array of ten parts."""
    keys = command.keys
    positions = (0, 0, 0) if keys is None else (1, keys.last, keys.step)
    return replies.array(
        (
            replies.bulk_text(name.lower()),
            replies.integer(command.arity),
            _words(command.flags.split(), dialect),
            *map(replies.integer, positions),
            _words([f"@{category}" for category in _categories(command)], dialect),
            dialect.collection(()),  # advice to clients of a Redis cluster, which this server does not need to give
            dialect.collection(() if keys is None else (_key_specification(keys, dialect),)),
            _entries(name, command, dialect),
        )
    )


def page_of(name: str, command: RedisCommand, dialect: Dialect) -> bytes:
    """The help for one command in the reply to COMMAND DOCS, as a map."""
    texts = {"summary": command.help, "since": command.since, "group": command.group}
    page = [(title, replies.bulk_text(text)) for title, text in texts.items()]
    if command.subcommands:
        parts = ((part, page_of(part, each, dialect)) for part, each in _subcommands(name, command))
        page.append(("subcommands", dialect.mapping(parts)))
    return dialect.mapping(page)


def _subcommands(name: str, command: RedisCommand) -> Iterator[tuple[str, RedisCommand]]:
    return ((f"{name}|{part}".lower(), each) for part, each in command.subcommands.items())


def _categories(command: RedisCommand) -> list[str]:
    flags = command.flags.split()
    found = [_GROUP_CATEGORIES.get(command.group, "") if command.categories is None else command.categories]
    found += [_FLAG_CATEGORIES[flag] for flag in flags if flag in _FLAG_CATEGORIES]
    return [*" ".join(found).split(), "fast" if "fast" in flags else "slow"]


def _words(words: Sequence[str], dialect: Dialect) -> bytes:
    return dialect.collection([*map(replies.simple, words)])


def _entries(name: str, command: RedisCommand, dialect: Dialect) -> bytes:
    """The array of the entries (`entry_of`) of all subcommands of a command. If it has none, the result is an empty
    set, as in Redis 7."""
    entries = [entry_of(part, each, dialect) for part, each in _subcommands(name, command)]
    return replies.array(entries) if entries else dialect.collection(())


def _key_specification(keys: Keys, dialect: Dialect) -> bytes:
    """The part of a command's entry that says, in the terms of Redis, which of its words are keys: the first one is at
    index 1, and the last one is given by its distance from the first, or counted from the end if negative."""
    last = keys.last if keys.last < 0 else keys.last - 1
    begin = dialect.mapping((("index", replies.integer(1)),))
    places = (("lastkey", last), ("keystep", keys.step), ("limit", 0))
    find = dialect.mapping((name, replies.integer(number)) for name, number in places)
    return dialect.mapping(
        (
            ("flags", _words(keys.flags.split(), dialect)),
            ("begin_search", dialect.mapping((("type", replies.bulk(b"index")), ("spec", begin)))),
            ("find_keys", dialect.mapping((("type", replies.bulk(b"range")), ("spec", find)))),
        )
    )
