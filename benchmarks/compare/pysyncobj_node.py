"""The program of one server (node) of PySyncObj, which answers the comparison in lines of JSON on a TCP port.

PySyncObj has no client protocol: its caller is inside a node. Therefore the load is made in the node, from the
call-backs of earlier calls, and the CPU time of the servers includes that of the client.

    python pysyncobj_node.py '{"me": "127.0.0.1:1", "others": [...], "control": 2}'
"""

from __future__ import annotations

import json
import random
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.batteries import ReplLockManager

from pfsb.bench.histogram import Histogram

LOCK_SECONDS = 30.0
BATCHING_FROM = 1_024
"""Number of operations under way from which on batches make PySyncObj faster.

With fewer, a batch would only make the operations wait for the next heartbeat, up to 0.1 s.
"""


class Store(SyncObj):  # type: ignore[misc]
    """Keys and values. Reads are replicated, since PySyncObj has no other linearizable reads."""

    def __init__(self, me: str, others: list[str], locks: ReplLockManager) -> None:
        self.values: dict[str, str] = {}
        # With the default of 5 s between attempts to connect, measured restarts would take about as long as that.
        self.settings = SyncObjConf(connectionRetryTime=0.2, appendEntriesUseBatch=False)
        super().__init__(me, others, self.settings, consumers=[locks])

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: str, value: str) -> None:
        self.values[key] = value

    @replicated  # type: ignore[untyped-decorator]
    def ordered_get(self, key: str) -> str | None:
        return self.values.get(key)


class Run:
    """One load, a closed loop of operations. All but the first begin in call-backs, in PySyncObj's own thread."""

    def __init__(self, store: Store, locks: Any, spec: dict[str, Any]) -> None:
        self._store = store
        self._locks = locks._ReplLockManager__lockImpl  # the public class waits for another thread at each call
        self._kind: str = spec["kind"]
        self._under_way: int = spec["under_way"]
        self._count: int = spec["count"]
        self._seconds: float = spec["seconds"]
        self._warmup: float = spec["warmup"]
        self._keys: int = spec["keys"]
        self._value = "v" * int(spec["value_bytes"])
        self._dice = random.Random()
        self._issued = 0
        self._left = self._under_way
        self._measuring = False
        self._stopping = False
        self._done = threading.Event()
        self.histogram = Histogram()
        self.errors = 0
        self.first_error = ""

    def run(self, say: Callable[[str], None]) -> dict[str, Any]:
        self._store.settings.appendEntriesUseBatch = self._under_way >= BATCHING_FROM
        if not self._count:
            self._start()
            time.sleep(self._warmup)
        say("begin")
        self._measuring = True
        begun = time.perf_counter()
        if self._count:
            self._start()
            self._done.wait()
        else:
            time.sleep(self._seconds)
        self._measuring = False
        seconds = time.perf_counter() - begun
        say("end")
        self._stopping = True
        self._done.wait(5)
        return {
            "client": "python inside the leader",
            "operations": self.histogram.total,
            "errors": self.errors,
            "first_error": self.first_error,
            "seconds": seconds,
            "cpu_seconds": 0.0,  # the CPU time of the servers includes that of the client
            "histogram": self.histogram.counts(),
        }

    def _start(self) -> None:
        for worker in range(self._under_way):
            self._next(worker)

    def _next(self, worker: int) -> None:
        if self._stopping or (self._count and self._issued >= self._count):
            self._left -= 1
            if not self._left:
                self._done.set()
            return
        self._issued += 1
        begun = time.perf_counter_ns()
        key = f"key-{self._dice.randrange(self._keys):08}"

        def answered(_result: Any, error: int) -> None:
            self._answered(worker, begun, error)

        if self._kind == "put":
            self._store.put(key, self._value, callback=answered)
        elif self._kind == "get":
            self._store.ordered_get(key, callback=answered)
        else:
            self._acquire("one" if self._kind == "lockone" else f"lock-{worker}", worker, begun)

    def _acquire(self, name: str, worker: int, begun: int) -> None:
        def acquired(granted: Any, error: int) -> None:
            if error == FAIL_REASON.SUCCESS and granted:
                self._locks.release(name, worker, callback=released)
            elif self._stopping:
                self._next(worker)
            else:
                self._acquire(name, worker, begun)

        def released(_result: Any, error: int) -> None:
            self._answered(worker, begun, error)

        self._locks.acquire(name, worker, time.time(), callback=acquired)

    def _answered(self, worker: int, begun: int, error: int) -> None:
        if self._measuring and error == FAIL_REASON.SUCCESS:
            self.histogram.add(time.perf_counter_ns() - begun)
        elif self._measuring:
            self.errors += 1
            self.first_error = f"PySyncObj's error {error}"
        self._next(worker)


class Control(socketserver.StreamRequestHandler):
    """One connection from the comparison: each line is a request that is answered by one line; a load, by several."""

    store: Store
    locks: Any

    def handle(self) -> None:
        for line in self.rfile:
            self._say(json.dumps(self._answer(json.loads(line))))

    def _answer(self, asked: dict[str, Any]) -> Any:
        if asked["ask"] == "load":
            return Run(self.store, self.locks, asked).run(self._say)
        if asked["ask"] == "put":
            return self._put(asked["key"], asked["value"], asked["seconds"])
        leader = self.store._getLeader()
        return {
            "leader": None if leader is None else leader.address,
            "ready": self.store.isReady(),
            "applied": self.store.getStatus()["last_applied"],
            "mark": self.store.values.get("written"),
        }

    def _put(self, key: str, value: str, seconds: float) -> bool:
        done = threading.Event()
        errors: list[int] = []

        def answered(_result: Any, error: int) -> None:
            errors.append(error)
            done.set()

        self.store.put(key, value, callback=answered)
        return done.wait(seconds) and errors == [FAIL_REASON.SUCCESS]

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main() -> None:
    spec = json.loads(sys.argv[1])
    Control.locks = ReplLockManager(LOCK_SECONDS)
    Control.store = Store(spec["me"], spec["others"], Control.locks)
    Server(("127.0.0.1", spec["control"]), Control).serve_forever()


if __name__ == "__main__":
    main()
