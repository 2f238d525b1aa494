"""The process that tells a server what keys were at earlier revisions: `python -m pfsb.backups.past_child DIR...`.

A question is a line of JSON on standard input, with `id`, `key` in base64, and `revision`. Its answer is a line on
standard output, with the same `id`, and either `value` in base64 and `revision`, or `error`, the code of a refusal, and
`text`. The process ends when its standard input does.
"""

from __future__ import annotations

import base64
import json
import os
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from attrs import define, field

from pfsb.applications.arguments import quoted
from pfsb.applications.frozen_keys import Entry
from pfsb.applications.interfaces import Refused
from pfsb.backups.past import Change, NotKept, NotReached, Past, Replay, Target, Watch
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.snapshot import WrongSnapshot
from pfsb.sessions.state_machine import CannotRun
from pfsb.storage.log.past import Missing

NICENESS: Final = 5
"""How much less of the processor the process gets than its server, if both want it."""
READ_BYTES: Final = 65_536


@define(eq=False)
class PastValues:
    """Tells values of keys at earlier revisions. The last state that was built is kept, so that a somewhat later one is
    built without a snapshot."""

    _places: Sequence[Path]
    _past: Past | None = field(default=None, init=False)
    _replay: Replay | None = field(default=None, init=False)
    """The last state that was built: that after the slot in which the revision of the last question lies."""
    _begin: int = field(default=0, init=False)
    """The revision before the slot that `_replay` has executed last; if it has executed none, that of its snapshot."""
    _changes: list[Change] = field(factory=list, init=False)
    """The commands about keys in the slot that `_replay` has executed last."""

    def find(self, key: bytes, revision: int) -> tuple[bytes, int] | Refused:
        """(value, revision at which it was written) of a key, as it was behind a revision; or why there is none."""
        try:
            found = self._find_anew(key, revision)
        except Missing as error:
            found = Refused(
                "COMPACTED",
                f"this server does not have slots {error.first} to {error.last}, which it has skipped, or whose files "
                "are gone or damaged: ask another server",
            )
        except NotKept as error:
            found = Refused("COMPACTED", str(error))
        except NotReached as error:
            found = Refused("UNAVAILABLE", f"{error}, on the disk of this server: ask again")
        except (StorageRefused, WrongSnapshot, CannotRun, OSError) as error:
            sys.stderr.write(f"{error}\n")
            found = Refused("UNAVAILABLE", "the state of that revision cannot be built here; the server's log says why")
        return found

    def _find_anew(self, key: bytes, revision: int) -> tuple[bytes, int] | Refused:
        """Find the value of a key behind a revision, as `find` returns it. If slots or snapshots are missing, look for
        the files once more: the server may have begun its archive."""
        if self._past is not None:
            try:
                return self._find(key, revision)
            except (Missing, NotKept):
                self._past = None
        return self._find(key, revision)

    def _find(self, key: bytes, revision: int) -> tuple[bytes, int] | Refused:
        replay, self._replay = self._replay, None
        if self._past is None:
            self._past = Past.of([place for place in self._places if place.is_dir()])
        elif replay is None or not self._begin <= revision <= replay.machine.revision:
            self._past.look()
        if replay is None or revision < self._begin or not self._is_nearest(replay, revision):
            replay = self._past.begin(Target(revision))
            self._begin, self._changes = replay.machine.revision, []
        while replay.machine.revision < revision:
            self._begin, watch = replay.machine.revision, Watch()
            if not replay.step(watch, revision):
                raise NotReached(replay.machine.revision)
            self._changes = watch.take()
        self._replay = replay
        entry = self._entry(replay, key, revision)
        if entry is None:
            return Refused("NOTFOUND", f"there was no key {quoted(key)} at revision {revision}")
        return entry[0], entry[1]

    def _entry(self, replay: Replay, key: bytes, revision: int) -> Entry | None:
        """The entry of a key behind a revision that lies in the slot which `replay` has executed last."""
        changes = [each for each in self._changes if each.key == key and each.has_changed]
        done = [each for each in changes if each.revision <= revision]
        if done:
            return done[-1].after
        return changes[0].before if changes else replay.machine.entry(key)

    def _is_nearest(self, replay: Replay, revision: int) -> bool:
        """Whether there is no snapshot between the state of `replay` and a revision."""
        assert self._past is not None, "it was looked for before"
        return not any(replay.machine.revision < each.revision <= revision for each in self._past.snapshots)


def questions(source: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    """The questions that come, as many as are there at once, by ascending revision; until the end of the input."""
    rest = b""
    while data := os.read(source.fileno(), READ_BYTES):
        rest += data
        while select.select([source], [], [], 0)[0] and (more := os.read(source.fileno(), READ_BYTES)):
            rest += more
        *lines, rest = rest.split(b"\n")
        yield sorted(map(json.loads, lines), key=lambda each: int(each["revision"]))


def main(places: Sequence[str]) -> None:
    os.nice(NICENESS)
    values = PastValues([Path(place) for place in places])
    for asked in questions(sys.stdin.buffer):
        for each in asked:
            found = values.find(base64.b64decode(each["key"]), each["revision"])
            answer: dict[str, str | int]
            if isinstance(found, Refused):
                answer = {"error": found.code, "text": found.text}
            else:
                answer = {"value": base64.b64encode(found[0]).decode(), "revision": found[1]}
            sys.stdout.write(json.dumps({"id": each["id"], **answer}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
