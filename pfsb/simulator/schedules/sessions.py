"""Schedules around sessions: the protocol, the sessions and the applications together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from attrs import evolve

from pfsb.applications.arguments import absent
from pfsb.applications.interfaces import Command, Done, IContext, Refused, Result
from pfsb.config.config import Limits
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.faults.plan import DAY_SECONDS
from pfsb.simulator.faults.wrong_messages import VALID_PAYLOAD
from pfsb.simulator.linearizability.texts import ordered_form
from pfsb.simulator.schedules.scenario import Schedule, Servers


def old_connection(seed: int, patch: Plant | None) -> None:
    """A command of an old connection does not run once its session was opened again at another server.

    The answer to HELLO tells the client which command numbers have run. A command of the old connection that is still
    on its way at that time must not make the answer wrong by running later.
    """
    servers = Servers(seed, patch)
    cluster = servers.cluster
    first, second = (i for i in cluster.ids if i != cluster.leader())
    old = servers.hello(first, "user")
    on_the_way = cluster.network.hold(lambda p: p.sender == first and isinstance(p.message, ClientUpdate))
    old.submit(1, ("PUT", "key", "late"), lambda result: None)
    cluster.run(0.05)
    servers.hello(second, "user")
    on_the_way.release()
    cluster.run(2)
    if ("user", 1) in servers.checks.results:
        raise Violation("a command ran after HELLO had said, on another connection, that it did not")


def server_has_not_announced_itself(seed: int, patch: Plant | None) -> None:
    """Departure 34: no setting is changed before each server has announced what it can run. One of three is cut off
    from the moment in which the cluster is born, and the two others have announced themselves."""
    servers = Servers(seed, patch)
    cluster = servers.cluster
    leader = servers.present_leader()
    away = next(i for i in cluster.ids if i != leader)
    cluster.isolate(away)
    user = servers.hello(leader, "user")
    cluster.run(1)
    refused = servers.wait_for(lambda told: user.submit(1, ("SETTINGS SET", "window=8"), told))
    require(isinstance(refused, Refused), f"server {away} has announced nothing, and a setting is changed: {refused}")
    cluster.heal()
    cluster.run_until(lambda: len(cluster.process(leader).server.machine.settings.announced) == len(cluster.ids), 10)
    done = servers.wait_for(lambda told: user.submit(2, ("SETTINGS SET", "window=8"), told))
    require(isinstance(done, Done), f"all servers have announced themselves, and no setting is changed: {done}")


def lock_is_not_free_in_time(seed: int, patch: Plant | None) -> None:
    """A LOCK with a time limit is answered when the limit has passed, even if no other command is sent."""
    servers = Servers(seed, patch)
    holder, other = (servers.hello(server_id, f"user-{server_id}") for server_id in (0, 1))
    servers.wait_for(lambda told: holder.submit(1, ("LOCK", "door", absent), told))
    result = servers.wait_for(lambda told: other.submit(1, ("LOCK", "door", 300), told))
    assert isinstance(result, Refused) and result.code == "TIMEOUT", f"the lock was held all the time: {result}"


def lock_of_an_old_connection(seed: int, patch: Plant | None) -> None:
    """A connection that is fenced off is not told that it has got the lock that the new connection has got.

    Both connections have sent LOCK under number 1; that of the old one is still on its way.
    """
    servers = Servers(seed, patch)
    cluster = servers.cluster
    leader = servers.present_leader()
    first, second = (i for i in cluster.ids if i != leader)
    holder = servers.hello(leader, "holder")
    servers.wait_for(lambda told: holder.submit(1, ("LOCK", "door", absent), told))
    old = servers.hello(first, "user")
    on_the_way = cluster.network.hold(lambda p: p.sender == first and isinstance(p.message, ClientUpdate))
    old.submit(1, ("LOCK", "door", absent), lambda result: None)
    cluster.run(0.05)
    new = servers.hello(second, "user")
    new.submit(1, ("LOCK", "door", absent), lambda result: None)
    cluster.run(0.2)
    servers.wait_for(lambda told: holder.submit(2, ("UNLOCK", "door", absent), told))
    cluster.run(0.5)
    on_the_way.release()
    cluster.run(1)


def goodbye_of_an_old_connection(seed: int, patch: Plant | None) -> None:
    """The BYE of a connection that is fenced off closes nothing."""
    servers = Servers(seed, patch)
    first, second = (i for i in servers.cluster.ids if i != servers.present_leader())
    old = servers.hello(first, "user")
    servers.hello(second, "user")
    servers.cluster.run(0.5)
    answer = servers.wait_for(old.bye)
    if isinstance(answer, Done) or "user" not in servers.sessions(second):
        raise Violation(f"the session was opened anew, and the BYE of the old connection is answered {answer}")


def takeover_at_the_same_server(seed: int, patch: Plant | None) -> None:
    """A session that is opened anew at its own server is taken from the connection that had it."""
    servers = Servers(seed, patch)
    at = servers.cluster.ids[0]
    old = servers.hello(at, "user")
    new = servers.hello(at, "user")
    answer = servers.wait_for(lambda told: old.submit(1, ("PUT", "key", "old"), told))
    if not isinstance(answer, Refused) or answer.code != "REPLACED" or new.epoch <= old.epoch:
        raise Violation(f"two connections have the session at once: the old one is answered {answer}")


def client_is_served_by_relays(seed: int, patch: Plant | None) -> None:
    """Departure 36: the leader does not hear a server whose updates are relayed, and expires none of its sessions."""
    servers = Servers(seed, patch)
    leader = servers.present_leader()
    at = next(i for i in servers.cluster.ids if i != leader)
    user = servers.hello(at, "user", ttl_seconds=3)
    servers.wait_for(lambda told: user.submit(1, ("LOCK", "door", absent), told))
    servers.cluster.cut(at, leader)
    for number in range(2, 14):
        servers.wait_for(lambda told, number=number: user.submit(number, ("PUT", "key", str(number)), told))  # type: ignore[misc]
        servers.cluster.run(0.4)
    if "user" not in servers.sessions(leader):
        raise Violation("the session of a client that was served all the time has expired")


def silent_client_of_an_unheard_server(seed: int, patch: Plant | None) -> None:
    """Departure 36: an idle client keeps its session if its server answers the leader's question through the log.

    The leader does not hear that server, and asks it by the update ASK whether it still serves its clients.
    """
    servers = Servers(seed, patch)
    leader = servers.present_leader()
    at = next(i for i in servers.cluster.ids if i != leader)
    servers.hello(at, "user", ttl_seconds=5)
    servers.cluster.cut(at, leader)
    servers.cluster.run(25)
    if "user" not in servers.sessions(leader):
        raise Violation("the session of a client that is connected has expired")


def expiry_is_overtaken(seed: int, patch: Plant | None) -> None:
    """Departure 36: EXPIRE does nothing if the session's server was heard after the leader had decided to send it.

    EXPIRE names the latest slot with an update of the session's server. Here a later update of that server, a PUT, is
    executed before the EXPIRE, so that the session must stay open.
    """
    servers = Servers(seed, patch)
    leader = servers.present_leader()
    at = next(i for i in servers.cluster.ids if i != leader)
    user = servers.hello(at, "user", ttl_seconds=5)
    machine = servers.cluster.process(leader).server.machine
    stale = ("EXPIRE", "user", machine.sessions["user"].epoch, machine.heard_in[at])
    servers.wait_for(lambda told: user.submit(1, ("PUT", "key", "v"), told))
    servers.wait_for(partial(servers.cluster.process(leader).server.local_clients.submission.submit_operation, stale))
    servers.cluster.run(0.5)
    if "user" not in servers.sessions(leader):
        raise Violation("the session was being served, and has expired")


def expiry_of_a_former_epoch(seed: int, patch: Plant | None) -> None:
    """An expiry is void if the session was opened anew before it."""
    servers = Servers(seed, patch)
    at, other = servers.cluster.ids[:2]
    former = servers.hello(at, "user")
    servers.hello(other, "user")
    submission = servers.cluster.process(at).server.local_clients.submission
    servers.wait_for(partial(submission.submit_operation, ("EXPIRE", "user", former.epoch)))
    servers.cluster.run(0.5)
    if "user" not in servers.sessions(at):
        raise Violation("the session was opened anew, and has expired")


def _replace_execute(cluster: SimulatedCluster, execute: Callable[..., Any]) -> None:
    """Let `execute` run the commands of the key-value store; its first argument is the function that did so before."""
    for server_id in cluster.ids:
        key_value = cluster.process(server_id).applications["kv"]
        key_value.execute = partial(execute, key_value.execute)


def _is_failure(answer: Any) -> bool:
    """Whether an answer tells that an application has failed."""
    return isinstance(answer, Refused) and (answer.code, answer.fate) == ("INTERNAL", "unknown")


def application_has_a_bug(seed: int, patch: Plant | None) -> None:
    """A command that raises after a change is answered INTERNAL fate=unknown, and all servers have equal states."""
    servers = Servers(seed, patch)
    cluster = servers.cluster
    _replace_execute(cluster, _raise_after)
    user = servers.hello(1, "user")
    answer = servers.wait_for(lambda told: user.submit(1, ("PUT", "key", "value"), told))
    if not _is_failure(answer):
        raise Violation(f"a command that failed after it had changed a key is answered {answer}")
    cluster.run(0.5)
    if len({cluster.process(i).applications["kv"].snapshot() for i in cluster.ids}) != 1:
        raise Violation("servers have different states after a command that failed")


def application_breaks_a_line(seed: int, patch: Plant | None) -> None:
    """An answer with a name that would end the line of its reply is answered INTERNAL fate=unknown at every server."""
    servers = Servers(seed, patch)
    cluster = servers.cluster
    _replace_execute(cluster, _misname)
    user = servers.hello(servers.rng.choice(cluster.ids), "user")
    for number in (1, 1, 2):
        told = servers.wait_for(lambda told, number=number: user.submit(number, ("PUT", "key", "value"), told))  # type: ignore[misc]
        if not _is_failure(told):
            raise Violation(f"an answer with a line end in a name is told: {told}")


def _misname(execute: Callable[[Command, IContext], Any], command: Command, context: IContext) -> Done:
    execute(command, context)
    return Done((("line\n#1 OK", context.revision),))


def name_is_used_by_another(seed: int, patch: Plant | None) -> None:
    """Departure 37: an update in a server's name that another server has made answers none of that server's clients.

    The command that a client of that server has under way is refused, as it has not run, and its number may be used
    again.
    """
    servers = Servers(seed, patch)
    cluster = servers.cluster
    leader = servers.present_leader()
    at = next(i for i in cluster.ids if i != leader)
    user = servers.hello(at, "user")
    clients = cluster.process(at).server.local_clients.submission.paxos_clients
    held = cluster.network.hold(lambda p: p.sender == at and isinstance(p.message, ClientUpdate))
    answers: list[Result] = []
    user.submit(1, ("INCR", "n", 1), answers.append)
    cluster.run(0.05)
    ours = held.passages[0].message
    assert isinstance(ours, ClientUpdate) and clients.bundlers_of(ours), "the command is under way"
    forged = evolve(ours, timestamp=ours.timestamp + 1, made_at=cluster.aru(leader), payload=VALID_PAYLOAD)
    cluster.checks.execution.introduce(forged)
    servers.checks.ask(("~wrong", 1), ("SAY", "wrong"))
    disk = cluster.disk(at)
    cluster.replica(leader).receive(at, disk.identity, [forged], disk.start_number, disk.position)
    cluster.run_until(lambda: bool(answers), 5)
    (answer,) = answers
    if not isinstance(answer, Refused) or answer.fate != "none":
        raise Violation(f"a command that has not run, since another update took its place, is answered {answer}")
    held.release()
    again = servers.wait_for(lambda told: user.submit(1, ("INCR", "n", 1), told))
    if not isinstance(again, Done):
        raise Violation(f"a command that has not run is answered {again} when it is repeated")


def all_sessions_are_in_use(seed: int, patch: Plant | None) -> None:
    """The setting `sessions` can be raised by a client without a session when all sessions are in use."""
    servers = Servers(seed, patch)
    operator = servers.hello(0, "operator")
    servers.wait_for(lambda told: operator.submit(1, ("SETTINGS SET", "sessions=1"), told))
    other = servers.connect(1)
    refused = servers.wait_for(lambda told: other.submit(1, ("PUT", "key", "value"), told))
    if not isinstance(refused, Refused) or refused.code != "BUSY":
        raise Violation(f"one session is open, one is allowed, and a command in another one is answered {refused}")
    answer = servers.wait_for(lambda told: servers.connect(2).submit(1, ("SETTINGS SET", "sessions=9"), told))
    if not isinstance(answer, Done):
        raise Violation(f"all sessions are in use, and the number of sessions cannot be raised: {answer}")


def configuration_files_differ(seed: int, patch: Plant | None) -> None:
    """Departure 34: who gets a lock does not depend on `session_window` in the file of a server that was not the first
    leader."""
    servers = Servers(seed, patch, {2: Limits(session_window=1)})
    holder, other = servers.hello(0, "holder"), servers.hello(1, "other")
    for number, name in enumerate(("front", "back"), start=1):
        servers.wait_for(lambda told, n=number, name=name: holder.submit(n, ("LOCK", name, absent), told))  # type: ignore[misc]
        other.submit(number, ("LOCK", name, absent), lambda result: None)
    servers.cluster.run(0.5)
    servers.wait_for(lambda told: holder.submit(3, ("UNLOCK", "back", absent), told))
    servers.cluster.run(0.5)
    answer = servers.wait_for(lambda told: servers.hello(2, "third").submit(1, ("TRYLOCK", "back"), told))
    if not isinstance(answer, Refused) or answer.code != "HELD":
        raise Violation(f"another client waited for this lock and has it now, and TRYLOCK is answered {answer}")


def server_hears_nothing(seed: int, patch: Plant | None) -> None:
    """Departure 36: the sessions of a server that is heard, and learns of nothing, come to an end like others."""
    servers = Servers(seed, patch)
    cluster = servers.cluster
    leader = servers.present_leader()
    at = next(i for i in cluster.ids if i != leader)
    other = servers.hello(next(i for i in cluster.ids if i not in (leader, at)), "other", ttl_seconds=3_000)
    user = servers.hello(at, "user", ttl_seconds=2)
    servers.wait_for(lambda told: user.submit(1, ("LOCK", "door", absent), told))
    for peer in cluster.ids:
        if peer != at:
            cluster.cut(peer, at, one_way=True)
    answers: list[Result] = []
    other.submit(1, ("LOCK", "door", absent), answers.append)
    cluster.run_until(lambda: bool(answers), 120)


def _raise_after(execute: Callable[[Command, IContext], Any], command: Command, context: IContext) -> None:
    execute(command, context)
    raise KeyError(command[1])


def memory_at_one_server(seed: int, patch: Plant | None) -> None:
    """A server that runs out of memory inside a command stops, and executes the command again when it is back."""
    servers = Servers(seed, patch)
    cluster = servers.cluster
    cluster.expected_failures = (MemoryError,)
    at = servers.rng.choice(cluster.ids)
    key_value = cluster.process(at).applications["kv"]
    execute = key_value.execute

    def fails(command: Command, context: IContext) -> None:
        if servers.rng.random() < 0.5:
            execute(command, context)
        raise MemoryError

    key_value.execute = fails
    user = servers.hello(next(i for i in cluster.ids if i != at), "user")
    user.submit(1, ("APPEND", "key", "value"), lambda result: None)
    cluster.run(5)
    if not cluster.is_running(at):
        cluster.restart(at)
    cluster.run(5)
    if len({cluster.process(i).applications["kv"].snapshot() for i in cluster.ids}) != 1:
        raise Violation("servers have different states after one of them ran out of memory")


def clocks_a_day_apart(seed: int, patch: Plant | None) -> None:
    """Departure 35: a new leader whose clock is a day ahead ends no wait early, and neither does one a day behind."""
    servers = Servers(seed, patch)
    cluster = servers.cluster
    servers.hello(0, "first")  # the first slot begins with a clock that is right
    for server_id, days in zip(cluster.ids, servers.rng.sample((-1, 0, 1), 3), strict=True):
        cluster.crash(server_id)
        cluster.servers[server_id].clock_offset = 2 * DAY_SECONDS + days * DAY_SECONDS
        cluster.restart(server_id)
        cluster.run_until(cluster.has_leader)
    holder, user = (servers.hello(servers.present_leader(), name, ttl_seconds=3_000) for name in ("holder", "user"))
    servers.wait_for(lambda told: holder.submit(1, ("LOCK", "door", absent), told))
    user.submit(1, ("LOCK", "door", 600_000), lambda result: None)
    cluster.run(1)
    for _ in range(3):
        former = servers.present_leader()
        cluster.crash(former)
        cluster.run(3)
        cluster.run_until(cluster.has_leader)
        cluster.restart(former)
        cluster.run(2)
    waiting = {i: cluster.process(i).server.waiting("user") for i in cluster.ids}
    if any(numbers != [1] for numbers in waiting.values()):
        raise Violation(f"a LOCK waits for ten minutes, and is over after some seconds: {waiting}")


def idle_hour(seed: int, patch: Plant | None) -> None:
    """Departure 35: an hour in which nothing is ordered ends no wait that begins after it, and delays none."""
    servers = Servers(seed, patch)
    cluster = servers.cluster
    for server_id in cluster.ids:
        cluster.pause(server_id)
    cluster.run(servers.rng.choice((3_600, 5 * 3_600)))
    for server_id in cluster.ids:
        cluster.resume(server_id)
    cluster.run_until(cluster.has_leader)
    holder, user = (servers.hello(servers.present_leader(), name, ttl_seconds=3_000) for name in ("holder", "user"))
    servers.wait_for(lambda told: holder.submit(1, ("LOCK", "door", absent), told))
    answers: list[Result] = []
    user.submit(1, ("LOCK", "door", 20_000), answers.append)
    cluster.run(18)
    if answers:
        raise Violation(f"a LOCK that waits for 20 s is answered {answers[0]} before")
    cluster.run_until(lambda: bool(answers), 5)


def number_after_the_horizon(seed: int, patch: Plant | None) -> None:
    """Departure 33: the field `forgotten` of the answer to HELLO tells a client that its ended session is not known.

    A command of the session has run. More than a horizon of slots after its end, the servers forget the session, and
    answer a HELLO of its client with `last=0`. Unless `forgotten` is higher than the epoch of the session, the client
    must take this to mean that none of its commands has run, and would repeat one that has.
    """
    servers = Servers(seed, patch, horizon_slots=30)
    user = servers.hello(0, "user", ttl_seconds=1)
    servers.wait_for(lambda told: user.submit(1, ("INCR", "n", 1), told))
    former = user.epoch
    user.disconnect()
    servers.cluster.run(3)
    other = servers.hello(1, "other")
    for number in range(1, 50):
        servers.wait_for(lambda told, number=number: other.submit(number, ("PUT", "key", str(number)), told))  # type: ignore[misc]
    fields = dict(servers.greeting(2, "user").fields)
    if fields["last"] == 0 and int(fields.get("forgotten", 0)) <= former:
        raise Violation(f"a command of the client has run, and HELLO says {fields}")


def horizon_grows_again(seed: int, patch: Plant | None) -> None:
    """Departure 34: a late copy of an update that became too old does not run when the horizon has grown since."""
    servers = Servers(seed, patch, horizon_slots=30)
    cluster, leader = servers.cluster, servers.present_leader()
    home = servers.rng.choice([i for i in cluster.ids if i != leader])
    copies: list[Passage] = []

    def copy(passage: Passage) -> bool:
        if isinstance(passage.message, ClientUpdate) and b"INCR" in passage.message.payload:
            copies.append(passage)
        return False

    cluster.network.drop(copy)
    user = servers.connect(home)
    servers.wait_for(lambda told: user.submit(1, ("INCR", "n", 1), told))
    cluster.network.filters.remove(copy)
    other = servers.hello(leader, "other")
    for number in range(1, 50):
        servers.wait_for(lambda told, number=number: other.submit(number, ("PUT", "key", str(number)), told))  # type: ignore[misc]
    change = servers.wait_for(lambda told: other.submit(50, ("SETTINGS SET", "horizon=100000"), told))
    assert isinstance(change, Done), f"the horizon is not changed: {change}"
    cluster.network.inject(copies[0])
    cluster.run(2)


def run_is_ordered_again(seed: int, patch: Plant | None) -> None:
    """Commands that were executed together do not run again when another update brings them once more.

    No correct server sends them again, since a connection answers repeated numbers itself. The sessions do not rely on
    that, as the first update may come from a server that has failed since then.
    """
    servers = Servers(seed, patch)
    cluster, home = servers.cluster, servers.present_leader()
    user = servers.hello(home, "user")
    commands = {number: ("PUT", "key", f"v{number}") for number in (1, 2, 3)}
    answers: list[Result] = []
    for number, command in commands.items():
        user.submit(number, command, answers.append)
    cluster.run_until(lambda: len(answers) == len(commands), 5)
    entries = bundle.encode_entries([(number, ordered_form(command)) for number, command in commands.items()])
    head = bundle.encode_head("user", user.epoch, opens=False)
    payload = bundle.encode([bundle.encode_bundle(head, len(commands), [entries])])
    replica = cluster.replica(home)
    again = ClientUpdate(f"{home}.again", home, 1, replica.data.ordering.local_aru, payload)
    replica.perform(replica.introduce, again)
    cluster.run_until(lambda: replica.data.clients.last_executed.of(again.client_id) == 1, 5)
    cluster.run(1)


SCHEDULES: Final[Sequence[Schedule]] = (
    old_connection,
    lock_is_not_free_in_time,
    lock_of_an_old_connection,
    goodbye_of_an_old_connection,
    takeover_at_the_same_server,
    client_is_served_by_relays,
    silent_client_of_an_unheard_server,
    expiry_is_overtaken,
    expiry_of_a_former_epoch,
    application_has_a_bug,
    application_breaks_a_line,
    name_is_used_by_another,
    all_sessions_are_in_use,
    configuration_files_differ,
    server_hears_nothing,
    memory_at_one_server,
    clocks_a_day_apart,
    idle_hour,
    number_after_the_horizon,
    horizon_grows_again,
    run_is_ordered_again,
    server_has_not_announced_itself,
)
