"""Faults of names: servers that get other addresses, and name servers that do not know it yet, or do not answer."""

from __future__ import annotations

from pfsb.simulator.cluster.names import PROMPTLY, NameServers, SimulatedNames
from pfsb.simulator.faults.foreign_frames import frame_of_an_impostor, part_of_an_impostor, require_no_change
from pfsb.simulator.faults.parameters import draw_path_limits
from pfsb.simulator.faults.plan import between
from pfsb.simulator.faults.server_faults import ServerFaults


class NameFaults(ServerFaults):
    """Faults of names and addresses. The name of a method is the kind of the fault.

    Runs without names (`SimulatedNetwork.names`) have none of these faults.
    """

    def move(self) -> None:
        """Crash a server, and restart it at another address. Name servers tell the new address at once or much later,
        before or after the restart."""
        server_id = self._rng.choice(self._cluster.ids)
        if self._cluster.is_running(server_id):
            self._crash(server_id)
        self._move(server_id)

    def move_alive(self) -> None:
        """Give the machine of a server another address. The server is not crashed for this, but may be down."""
        self._move(self._rng.choice(self._cluster.ids))

    def exchange_addresses(self) -> None:
        """Crash two servers, let them exchange their addresses, and restart them.

        Until name servers tell the new addresses, frames for one of them go to the other.
        """
        names = self._names
        if len(self._cluster.ids) > 1:
            pair = self._rng.sample(self._cluster.ids, 2)
            for server_id in pair:
                if self._cluster.is_running(server_id):
                    self._crash(server_id)
            names.exchange(*pair)
            for server_id in pair:
                self._later(self._lag(), names.tell, server_id)

    def name_servers(self) -> None:
        """For a while, let look-ups either fail, or be answered late, or stay without an answer."""
        longest = between(self._rng, 0.1, 20)
        self._names.name_servers = self._rng.choice(
            (
                NameServers(failure=self._rng.choice((0.3, 1.0))),
                NameServers(silence=self._rng.choice((0.3, 1.0))),
                NameServers(answer_seconds=(longest / 4, longest)),
            )
        )
        self._later(between(self._rng, 1, 10), self._end_trouble_of_name_servers)

    def _end_trouble_of_name_servers(self) -> None:
        self._names.name_servers = NameServers(PROMPTLY)

    def forget_name(self) -> None:
        """For a while, let the name of a server be unknown. Servers that start meanwhile do not find it."""
        server_id = self._rng.choice(self._cluster.ids)
        self._names.forget(server_id)
        self._later(between(self._rng, 1, 10), self._names.tell, server_id)

    def impostor(self) -> None:
        """Deliver a frame in the name of a server, from an address that no server has.

        It is well-formed and has the storage identity of that server. Only its source, or the missing key, shows that
        it is forged. Where large frames travel in parts, it may be a part of one.
        """
        server_id = self._any_server()
        if server_id is not None and len(self._cluster.ids) > 1:
            is_part = self._parameters.path_limits is not None and self._rng.random() < 0.5
            make = part_of_an_impostor if is_part else frame_of_an_impostor
            require_no_change(self._cluster, server_id, make(self._cluster, server_id, self._rng))

    def _move(self, server_id: int) -> None:
        """Give a server an address that is new, or that some server had before, and let name servers tell it later."""
        names = self._names
        vacated = [each for each in names.vacated if each not in names.addresses.values()]
        is_reused = bool(vacated) and self._rng.random() < 0.4
        names.move(server_id, self._rng.choice(vacated) if is_reused else None)
        if self._parameters.path_limits is not None:
            self._find_other_paths(server_id)
        self._later(self._lag(), names.tell, server_id)

    def _find_other_paths(self, server_id: int) -> None:
        """Let all links to and from a server that has moved carry other datagrams, as in another part of the
        network."""
        others = [i for i in self._cluster.ids if i != server_id]
        links = [link for other in others for link in ((server_id, other), (other, server_id))]
        self._cluster.network.set_limits(draw_path_limits(self._rng), links)

    def _lag(self) -> float:
        """Draw how long, in seconds, name servers go on telling an old address: 0, or 0.1 to 20."""
        return self._rng.choice((0.0, between(self._rng, 0.1, 20)))

    @property
    def _names(self) -> SimulatedNames:
        names = self._cluster.network.names
        assert names is not None, "only runs with names have these faults"
        return names
