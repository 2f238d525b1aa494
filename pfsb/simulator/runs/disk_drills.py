"""Liveness drills with disks that hang or are full (Departures 44 and 45), for profiles that have such disks."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from pfsb.applications.interfaces import Refused
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.simulator.faults.server_faults import RESERVE_RECORDS
from pfsb.simulator.runs.client_drills import REFUSALS, ClientDrills, DrillClient
from pfsb.simulator.runs.liveness_drills import ROUND_SECONDS, LivenessDrills


@define(eq=False)
class DiskDrills(ClientDrills):
    """All liveness drills, and three more with disks in trouble. Raises `Violation`."""

    def possible_drills(self) -> list[Callable[[], None]]:
        drills = [*LivenessDrills.possible_drills(self), self.hanging_disk, self.full_disks]
        return [*drills, self.full_disk_of_leader] if len(self.cluster.ids) > 2 else drills

    # ------------------------------------------------------------------ drills

    def hanging_disk(self) -> None:
        """Departure 44: clients of a leader whose disk hangs are refused, another server leads, and all is well again
        soon after the disk answers."""
        leader, times = self.cluster.required_leader(), self.times
        view, client = self._view(), self._connect(leader)
        self.cluster.storage(leader).hang()
        client.change()
        noticed = times.longest(self.cluster.settings.disk_seconds) + 3 * times.alive + ROUND_SECONDS
        self._refused(client, "unknown", noticed, "its command is under way")
        client.change()
        self._refused(client, "none", ROUND_SECONDS, "the disk is known to hang")
        if len(self.cluster.ids) > 2:
            self._wait(lambda: self._is_led_beyond(view), self._election(), f"the disk of leader {leader} hangs")
        self.cluster.storage(leader).go_on()
        self._served_again(client, "the disk answers again")

    def full_disks(self) -> None:
        """Departure 45: servers whose disks are full refuse changes, answer questions, and go on when there is room."""
        clients = [self._connect(server_id) for server_id in self.cluster.ids]
        self._wait(lambda: not self._unequal(), self.times.update + self._election(), "some clients have connected")
        for server_id in self.cluster.ids:
            self._fill(server_id)
        self.cluster.run(3 * self.times.alive + ROUND_SECONDS)
        for client in clients:
            self._only_reads(client)
        for server_id in self.cluster.ids:
            self._empty(server_id)
        for client in clients:
            self._served_again(client, "there is room again")

    def full_disk_of_leader(self) -> None:
        """Departure 45: if the disk of the leader alone is full, another server leads as soon as an update waits."""
        leader = self.cluster.required_leader()
        client = self._connect(self._follower())
        self._fill(leader)
        self.cluster.run(3 * self.times.alive + ROUND_SECONDS)
        self._served_again(client, f"the disk of leader {leader} is full")
        self._empty(leader)
        self._served_again(self._connect(leader), "there is room again")

    # ------------------------------------------------------------------ requirements

    def _only_reads(self, client: DrillClient) -> None:
        """Require that a change is refused, and that a question is answered if the server has executed all slots that
        others have.

        The question is not asked at another server: one that notices that its own disk is full sooner than the others
        notice theirs may miss a slot that they order meanwhile.
        """
        client.change()
        self._refused(client, "none", ROUND_SECONDS, "all disks are full")
        if self.cluster.aru(client.connection.server_id) < max(self.cluster.aru(i) for i in self.cluster.ids):
            return
        client.ask()
        self._wait(lambda: client.is_served, self.times.resend + ROUND_SECONDS, "disks are full, and a question waits")

    def _election(self) -> float:
        """Maximum time, in simulated seconds, in which servers suspect a leader and elect another leader; see
        `failover`.
        """
        times = self.times
        return 2 * times.alive + times.progress + 2 * times.resend + times.catching_up + 5 * ROUND_SECONDS

    def _is_led_beyond(self, view: int) -> bool:
        return max(self.cluster.checks.messages.leaders) > view

    def _refused(self, client: DrillClient, fate: str, seconds: float, why: str) -> None:
        """Require that the client is refused, with this fate, within this number of seconds.

        `why` says, in the text of a violation, in which situation the client asks.
        """
        server_id = client.connection.server_id
        self._wait(lambda: client.result is not None, seconds, f"{why}: a client of server {server_id} is told nothing")
        result = client.result
        is_right = isinstance(result, Refused) and result.code in REFUSALS and result.fate == fate
        require(is_right, f"{why}, and server {server_id} tells a client {result}")

    def _served_again(self, client: DrillClient, why: str) -> None:
        """Require that a command of the client is served soon; after each refusal the client sends another command.

        `why` says, in the text of a violation, why the server must be able to serve.
        """
        client.change()
        until = self.cluster.now + 2 * self.times.update + 3 * self._election()
        while not client.is_served:
            if self.cluster.now > until:
                raise Violation(
                    f"{why}, and server {client.connection.server_id} serves no client: {client.result}\n"
                    f"{self.cluster.picture()}"
                )
            if client.is_refused:
                client.change()
            self.cluster.run(ROUND_SECONDS)

    # ------------------------------------------------------------------ disks and clients

    def _fill(self, server_id: int) -> None:
        disk = self.cluster.disk(server_id)
        disk.free_records = disk.reserve_records = RESERVE_RECORDS

    def _empty(self, server_id: int) -> None:
        self.cluster.disk(server_id).free_records = None
