"""Checks, made twice a second at every server, that tables keep their limits and periodic timers stay armed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.server import Server
from pfsb.simulator.checkers.lock_checker import WatchedLock
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.transports.reassembly import KEPT_BYTES_MAX

HEARTBEATS = (
    "Retransmission.resend_due",
    "Retransmission.alive_due",
    "LocalClients.sweep_unanswered",
    "Expiry.look",
)
"""Functions of a server, as Class.method, each of which a delayed call must be about to call at all times."""

OPERATORS_SESSIONS = 16
"""Maximum number of sessions that an operator has open: one for each of its commands that wait for an answer."""
TIMERS_MAX = 16
"""Maximum number of pending delayed calls of one server, without those of its links and client connections."""


def check_bounds(cluster: SimulatedCluster, users: int, changing: Mapping[str, Sequence[Any]]) -> None:
    """Check that no table, session or connection of a running server has grown beyond its limit, and that its periodic
    timers are set. Raises `Violation` for the first that is wrong.

    `users` is the number of users of the cluster. `changing`: name of each setting of the cluster that changes in the
    run -> the values that it may get. A table may exceed a limit that was lowered, by entries that were there before.
    """
    windows, slots = changing.get("session_window", ()), changing.get("window", ())
    horizon = max((cluster.settings.horizon_slots, *changing.get("horizon", ())))
    for server_id in cluster.running_ids:
        server: Server = cluster.process(server_id).server
        for sentence in (
            *_wrong_tables(
                server, users, max((server.replica.window.slots, *slots)), horizon, has_operator=bool(changing)
            ),
            *_wrong_sessions(server, max((server.session_window, *windows)), horizon),
            *_wrong_connections(server),
            *_wrong_waits(server),
            *_wrong_progress_timer(server),
            *_wrong_timers(cluster, server_id),
            *_wrong_parts(cluster, server_id),
        ):
            raise Violation(f"server {server_id}: {sentence}")
        if server_id not in cluster.in_error:
            _check_lock(server)
            cluster.process(server_id).quotas.raise_violation()


def _wrong_tables(server: Server, users: int, window: int, horizon: int, *, has_operator: bool) -> Iterator[str]:
    data, settings = server.replica.data, server.replica.settings
    ordering, clients = data.ordering, data.clients
    aru, slots = ordering.local_aru, len(ordering.global_history.slots)
    if slots > settings.history_slots_kept + 8 * window + _ordered_above(server):
        yield f"{slots} slots are in memory, with {settings.history_slots_kept} to be kept"
    oldest = min((touched for _, touched in clients.last_executed.timestamps.values()), default=aru)
    if oldest < aru - horizon:
        yield f"Last_Executed has an entry of slot {oldest}, and the horizon is {horizon} below {aru}"
    # Each session has at most one bundle under way, and so has the server's own session.
    bundles = server.config.limits.connections + 2 * users + OPERATORS_SESSIONS * has_operator + 1
    if len(clients.pending_updates) > bundles:
        yield f"{len(clients.pending_updates)} updates are pending for {users} users"


def _ordered_above(server: Server) -> int:
    ordering = server.replica.data.ordering
    return sum(slot.ordered is not None for _, slot in ordering.global_history.above(ordering.local_aru))


def _wrong_sessions(server: Server, window: int, horizon: int) -> Iterator[str]:
    machine = server.machine
    for session in machine.sessions.values():
        if len(session.answers) > window + window // 4 + 1:
            yield f"session {session.client_id} keeps {len(session.answers)} answers of a window of {window}"
        if len(session.waiting) > window:
            yield f"session {session.client_id} waits for {len(session.waiting)} answers, {window} are allowed"

    # At the end of each slot, `SessionStateMachine` forgets the sessions that ended more than a horizon before it.
    aru = server.replica.data.ordering.local_aru
    oldest = min((ended_at for _, ended_at, _ in machine.closed_sessions.values()), default=aru)
    if oldest < aru - horizon:
        yield f"a session that ended in slot {oldest} is not forgotten, and the horizon is {horizon} below {aru}"


def _wrong_connections(server: Server) -> Iterator[str]:
    """A sentence for each connection whose session is over and whose client waits for answers that will never come."""
    if not server.replica.turn.idle:
        return  # answers may still wait at the durability gate
    for unaccounted in server.local_clients.unaccounted_answers():
        if unaccounted:
            yield f"a connection whose session is over owes its client {unaccounted} answers"


def _wrong_waits(server: Server) -> Iterator[str]:
    """A sentence for each client that waits for an answer from a server whose disk hangs (Departure 44).

    Such a server must have refused all commands that wait.
    """
    if server.replica.turn.trouble is DiskTrouble.HANGS:
        for count in server.local_clients.answers_in_wait():
            if count:
                yield f"a client waits for {count} answers from a server whose disk hangs"


def _wrong_progress_timer(server: Server) -> Iterator[str]:
    """A sentence if the value of the Progress_Timer is below its default or above its cap.

    The value doubles from the default up to the cap, and comes down to the default (Departures 28 and 48).
    """
    settings, value = server.replica.settings, server.replica.data.timers.progress_seconds
    longest = settings.progress_seconds * 2**settings.progress_doublings_max
    if not settings.progress_seconds <= value <= longest:
        yield f"its Progress_Timer is {value:g} s, of {settings.progress_seconds:g} s to {longest:g} s"


def _wrong_timers(cluster: SimulatedCluster, server_id: int) -> Iterator[str]:
    running = cluster.servers[server_id].running
    assert running is not None
    if running.process.replica.turn.stopped:
        return  # the disk of this server has failed, and the server is about to end
    # Requests and visits of clients pile up at a server that is paused, and are no calls of the server.
    names = [call.name for call in running.server_clock.calls if not call.is_of_the_simulator]
    for heartbeat in HEARTBEATS:
        if heartbeat not in names:
            yield f"{heartbeat} has stopped"
    timers = [name for name in names if not name.startswith(("Links.", "Path."))]
    if len(timers) > TIMERS_MAX:
        yield f"{len(timers)} calls wait: {sorted(timers)}"


def _wrong_parts(cluster: SimulatedCluster, server_id: int) -> Iterator[str]:
    for peer in cluster.links(server_id).membership.peers:
        kept = cluster.links(server_id).path(peer).kept_bytes
        if kept > KEPT_BYTES_MAX:
            yield f"{kept} bytes of incomplete frames of server {peer} are kept"


def _check_lock(server: Server) -> None:
    for application in server.catalogue.applications:
        if isinstance(application, WatchedLock):
            application.raise_violation()
