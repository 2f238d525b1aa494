"""Makes data directories for a new cluster that begins with the state of another one.

A new cluster must not take the word of a former one for its own:

* It has an identity of its own (`ClusterSettings.cluster_identity`), which every frame carries: servers of the former
  cluster cannot join, and their late messages are refused.
* Revisions are tokens of locks and epochs of sessions. The former cluster may have given out higher ones than the
  backup has. So the revision is lifted by `JUMP`, or above a number that an operator knows: a token from before the
  restore is lower than every later one, and a resource that is fenced by tokens refuses its holder.
* Sessions end, and so locks are free: their clients may hold what they were granted afterwards. The last command number
  of each session is kept, as that of any closed session, so that a number from before the backup does not run again.
  HELLO answers `forgotten`: numbers that were used after the backup are not known (docs/operating.rst).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgpack
from attrs import evolve

from pfsb.backups.backup_file import BackupState
from pfsb.paxos.frozen_history import History
from pfsb.paxos.members import Members
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import DIGEST_BYTES
from pfsb.paxos.snapshot import SnapshotEncoder, SnapshotName
from pfsb.sessions.state_machine import EXPIRE
from pfsb.storage.directory import sync_directory
from pfsb.support.limits import IDENTITY_BYTES

JUMP: Final = 10**12
"""Number of revisions that a new cluster leaves out, unless an operator says more: at 100,000 commands a second, as
many as a cluster executes in 115 days. Nine thousand restores keep revisions below 2**53."""
REVISION_MAX: Final = 2**62
"""Highest revision with which a cluster may begin: as many again are left for its commands."""
_PERSON: Final = b"pfsb restored"


_TOKEN_PERSON: Final = b"pfsb new cluster"
TOKEN_BYTES: Final = IDENTITY_BYTES + 4
"""Size of the token of a new cluster: its identity, and the first bytes of a hash of what its state is made of."""


class CannotBegin(Exception):
    """Raised if no cluster can begin in this way; the text is for a person."""


def begin_anew(state: BackupState, members: Sequence[int], identity: bytes, revision: int | None = None) -> BackupState:
    """Turn the state of a former cluster into that with which a new one of these members begins. Changes `state`.

    `revision` is the highest revision that the former cluster may have given out, as far as an operator knows; None:
    `JUMP` above that of the state. Raises `CannotBegin`.
    """
    machine = state.machine
    known = machine.revision + JUMP if revision is None else max(revision, machine.revision)
    if known >= REVISION_MAX:
        raise CannotBegin(f"the revision would be {known}, and at most {REVISION_MAX} can be; name a lower --revision")
    machine.revision = known + 1
    for client_id, session in [*machine.sessions.items()]:
        machine.end_session(client_id, session.epoch, EXPIRE)
    machine.forgotten = machine.revision
    machine.outcomes.clear()
    machine.heard_in.clear()
    settings = machine.settings
    settings.put(settings.values, {})
    settings.adopt(evolve(settings.values, members=tuple(sorted(members)), cluster_identity=identity))
    before = state.history
    digest = blake2b(before.digest + identity, digest_size=DIGEST_BYTES, person=_PERSON).digest()
    history = History(before.seq, digest, before.time_ms, before.oldest_valid, OrderedDict())
    return BackupState(state.name, identity, history, machine)


def token_of(new: BackupState) -> bytes:
    """The token of a new cluster (`begin_anew`): two of its servers that begin with one token begin with one state.

    It holds the identity of the cluster, and a hash of the backup, the first revision and the members.
    """
    name, values = new.name, new.machine.settings.values
    made_of = [values.cluster_identity, name.seq, name.size, name.digest, new.machine.revision, [*values.members]]
    content = msgpack.packb(made_of)
    check = blake2b(content, digest_size=TOKEN_BYTES - IDENTITY_BYTES, person=_TOKEN_PERSON).digest()
    return values.cluster_identity + check


def answering(members: Sequence[int]) -> str:
    """A line that says how many servers of a new cluster must be started before it answers: a storage that is new takes
    part once so many others know it (Departure 12)."""
    n = len(members)
    awaited = Membership(members[0], Members(members)).acquaintances + 1
    servers = "all of its servers have" if awaited == n else f"{awaited} of its {n} servers have"
    return f"start the servers: the new cluster answers only when {servers} been started, and have met\n"


def write(state: BackupState, file: Path) -> SnapshotName:
    """Write a state as a snapshot into a new file, which is on disk when this returns. Raises OSError."""
    encoder = SnapshotEncoder(state.history.seq, state.cluster_identity)
    with file.open("xb") as out:
        out.write(encoder.head())
        for pieces in (state.history.pieces(), state.machine.freeze()):
            for piece in pieces:
                out.write(encoder.piece(piece))
        out.write(encoder.end())
        out.flush()
        os.fsync(out.fileno())
    sync_directory(file.parent)
    return encoder.name
