"""Support for tests of the paper's situations: a cluster, and messages that are held back, lost or counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import ClientUpdate, Message, Proposal, State
from pfsb.paxos.settings import Settings
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.network import Passage

ONE_UPDATE_A_SLOT = Settings(batch_bytes_max=1)


def passing(
    *kinds: type[Any], sender: int | None = None, receiver: int | None = None, **fields: Any
) -> Callable[[Passage], bool]:
    """A function that is true for messages of these kinds, between these servers, with these field values (a tuple: any
    of its values)."""

    def matches(passage: Passage) -> bool:
        message = passage.message
        return (
            isinstance(message, kinds)
            and sender in (None, passage.sender)
            and receiver in (None, passage.receiver)
            and all(
                getattr(message, name) in (wanted if isinstance(wanted, tuple) else (wanted,))
                for name, wanted in fields.items()
            )
        )

    return matches


class ScenarioTestCase(SynchronousTestCase):
    """A test case with a cluster of its own, whose seed is the test's name; every run is checked after every event."""

    cluster: SimulatedCluster

    def begin(self, servers: int = 3, *, settings: Settings | None = None, start: bool = True) -> SimulatedCluster:
        """A new cluster, in which server 0 leads view 1 (unless it is not to be started yet).

        Servers send each ACCEPT to all servers at once, as in Figure 10, since Departure 25 has its own tests.
        """
        drawn = evolve(settings or Settings(), lazy_seconds=0.0)
        self.cluster = SimulatedCluster(self.id(), servers, settings=drawn, start=start)
        self.sent: list[tuple[int, int | None, Message]] = []
        self.cluster.network.observers.append(self._note)
        if start:
            self.until_led_by(0)
            self.cluster.run(0.3)  # servers that meet for the first time may have missed the first PREPARE
        return self.cluster

    def _note(self, sender: int, receiver: int | None, messages: Any) -> None:
        self.sent.extend((sender, receiver, message) for message in messages)

    def hand_over(self, sender: int, receiver: int, messages: Sequence[Message]) -> None:
        """Let a server receive a frame, which no network has seen, from the present storage of another server."""
        self.cluster.hand_over(sender, receiver, messages)

    # ------------------------------------------------------------------ what is seen

    def sent_by(self, server_id: int, kind: type[Any]) -> list[Any]:
        return [message for sender, _, message in self.sent if sender == server_id and isinstance(message, kind)]

    def state(self, server_id: int) -> State:
        return self.cluster.replica(server_id).data.server.state

    def view(self, server_id: int) -> int:
        """Last_Installed of a server."""
        return self.cluster.replica(server_id).data.views.last_installed

    def held_on_disk(self, server_id: int, seq: int) -> list[str]:
        """The clients whose updates are on this server's disk in that slot."""
        slot = self.cluster.disk(server_id).contents.slots.get(seq)
        return [] if slot is None else [update.client_id for update in slot.batch.open()[1]]

    def proposed(self, view: int) -> dict[int, list[str]]:
        """The clients of the updates that were proposed in a view, by sequence number, as far as a PROPOSAL was
        sent."""
        return {
            message.seq: [update.client_id for update in message.batch.open()[1]]
            for _, _, message in self.sent
            if isinstance(message, Proposal) and message.view == view
        }

    def clients_executed(self, server_id: int) -> list[str]:
        """The clients whose updates a server has executed, in the order of execution."""
        return [client_id for _, client_id, _, _ in self.cluster.executed(server_id)]

    def answered(self, *clients: str) -> Callable[[], bool]:
        """A function that returns whether the first update of each of these clients is answered."""
        return lambda: all((client, 1) in self.cluster.answers for client in clients)

    # ------------------------------------------------------------------ what is awaited

    def until_led_by(self, server_id: int, seconds: float = 30.0) -> None:
        self.cluster.run_until(lambda: self.cluster.has_leader() and self.cluster.leader() == server_id, seconds)

    def until_executed(self, clients: list[str], *servers: int, seconds: float = 10.0) -> None:
        """Assert that servers (default: all that run) have executed the updates of these clients, in this order."""
        cluster = self.cluster
        cluster.run_until(
            lambda: all(self.clients_executed(i) == clients for i in servers or cluster.running_ids), seconds
        )

    def until_on_disk(self, server_id: int, seq: int, client: str) -> None:
        self.cluster.run_until(lambda: self.held_on_disk(server_id, seq) == [client])

    def no_more_filters(self) -> None:
        self.cluster.network.filters.clear()


def carries(client: str) -> Callable[[Passage], bool]:
    """A function that is true for CLIENT_UPDATEs of this client."""
    return passing(ClientUpdate, client_id=client)
