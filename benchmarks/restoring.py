"""How long a server stands still while it takes the state of sessions from a snapshot, step by step.

A step takes as many bytes as `SnapshotFetcher` takes in one turn. The last steps end the state and put it in place. The
garbage collector runs as in a server; `--no-freeze` leaves out what the server does about it after each step.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

from benchmarks.snapshots import Calls
from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import Done
from pfsb.applications.key_value import KeyValue
from pfsb.paxos.snapshot import Piece
from pfsb.paxos.snapshot_fetching import LOAD_BYTES
from pfsb.service.service import GARBAGE_THRESHOLDS
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.reply_cache import ReplyCache
from pfsb.sessions.session import Session
from pfsb.sessions.state_machine import SessionStateMachine

SETTINGS = ClusterSettings((0,), (("kv", 1),), cluster_identity=b"identity")


def machine(sessions: int, results: int) -> SessionStateMachine:
    """A state machine with this number of open sessions, each of which keeps so many results, with a value each."""
    made = SessionStateMachine(0, Catalogue([KeyValue()]), SETTINGS)
    for number in range(sessions):
        client_id = f"client-{number:07d}"
        answers = ReplyCache(SETTINGS.session_window, 0, SETTINGS.reply_cache_bytes, made.kept_replies, client_id)
        made.sessions[client_id] = Session(client_id, number + 1, 0, 60_000, answers, results, {}, number)
        for each in range(1, results + 1):
            answers.keep(each, Done((("revision", number + each), ("value", b"value %d" % each))))
    return made


def portions(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces, as many at a time as the server takes in one turn."""
    portion: list[Piece] = []
    for piece in pieces:
        portion.append(piece)
        if sum(len(each.data) for each in portion) >= LOAD_BYTES:
            yield portion
            portion = []
    yield portion


def measure(sessions: int, results: int, after_step: Callable[[], None]) -> None:
    pieces = [*machine(sessions, results).freeze()]
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    size = sum(len(piece.data) for piece in pieces)
    target = SessionStateMachine(0, Catalogue([KeyValue()]))
    restorer, steps, ending, adopting = target.restorer(), Calls(), Calls(), Calls()
    number = count()

    def take(portion: list[Piece]) -> None:
        for piece in portion:
            restorer.take(piece)
        after_step()

    for portion in portions(pieces):
        steps.time(partial(take, portion))
        next(number)
    ended: list[bool] = []
    while not any(ended):
        ending.time(lambda: ended.append(restorer.end()))
        after_step()
    adopting.time(restorer.adopt)
    print(f"{sessions} sessions with {results} results each, {size / 1_048_576:.1f} MiB in {next(number)} steps:")
    print(f"  {steps.total:.2f} s, {steps.cpu:.2f} s CPU; longest step {steps}; of the end {ending}; adopt {adopting}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps in which the state of sessions is restored.")
    parser.add_argument("--no-freeze", action="store_true", help="leave the garbage collector as it is")
    options = parser.parse_args()
    for sessions, results in ((100_000, 1), (20_000, 128)):
        measure(sessions, results, (lambda: None) if options.no_freeze else gc.freeze)


if __name__ == "__main__":
    main()
