"""A long history on all applications, from one seed; run as a program it prints its digest."""

from __future__ import annotations

import hashlib
import random
import sys

from pfsb.applications.arguments import Quoted
from pfsb.applications.chat import Chat
from pfsb.applications.instances import Instances
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from tests.applications.context import Machine

clients = [f"client{number}" for number in range(8)]
keys = [f"key{number}" for number in range(12)]


def digest(seed: int, commands: int) -> str:
    """SHA-256 over every answer, every completion, in order, and the snapshots at the end."""
    dice = random.Random(seed)
    machines = {
        "chat": Machine(Chat()),
        "lock": Machine(Lock()),
        "kv": Machine(KeyValue()),
        "instances": Machine(Instances()),
    }
    said = hashlib.sha256()
    for _ in range(commands):
        application, command = _command(dice)
        machine = machines[application]
        said.update(repr(machine.run(dice.choice(clients), *command)).encode())
        if dice.random() < 0.05:
            machines["lock"].end(*dice.sample(clients, 3))
        machine.pass_time(dice.choice([0, 0, 500]))
        said.update(repr(machine.take_completed()).encode())
    said.update(repr(machines["lock"].take_completed()).encode())
    for machine in machines.values():
        said.update(machine.application.snapshot())
    return said.hexdigest()


def _command(dice: random.Random) -> tuple[str, tuple[str, ...]]:
    key, value = dice.choice(keys), Quoted(dice.choice(["1", "two", "\u00e9"]))
    return dice.choice(
        [
            ("chat", ("SAY", value)),
            ("lock", ("LOCK", key)),
            ("lock", ("LOCK", key, "wait=2")),
            ("lock", ("TRYLOCK", key)),
            ("lock", ("UNLOCK", key)),
            ("kv", ("PUT", key, value)),
            ("kv", ("DEL", key)),
            ("kv", ("CAS", key, value, Quoted("swapped"))),
            ("kv", ("INCR", key)),
            ("kv", ("APPEND", key, value)),
            ("kv", ("PUTHASH", key, value)),
            ("instances", ("PROPOSE", str(dice.randrange(40)), dice.choice(["YQ==", "Yg=="]))),
            ("instances", ("PART", str(dice.randrange(40)), dice.choice("012"), "3", "YQ==")),
            ("instances", ("DONE", str(dice.randrange(3)), "3", str(dice.randrange(30)))),
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(digest(seed=int(sys.argv[1]), commands=int(sys.argv[2])))
