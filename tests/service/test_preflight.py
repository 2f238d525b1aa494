from __future__ import annotations

import socket
from pathlib import Path
from threading import Event
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.config.config import Config, load
from pfsb.service import preflight
from pfsb.service.preflight import PortInUse, refuse_used_ports


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class PreflightTests(SynchronousTestCase):
    def config(self, entry: str) -> Config:
        path = Path(self.mktemp())
        server = f'{{{entry}, client: "tcp:{free_port()}:interface=127.0.0.1"}}'
        path.write_text(f"cluster: one\nservers:\n  0: {server}\n", encoding="utf-8")
        return load(path)

    def name_is(self, *rows: tuple[Any, ...]) -> None:
        """Let every name have these answers of `getaddrinfo`; without any, no name is known."""
        look_up = socket.getaddrinfo

        def fake(host: str, port: int, **kwargs: Any) -> list[Any]:
            if host != "db0":
                return list(look_up(host, port, **kwargs))
            if not rows:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(*row, (host, port)) for *row, host in rows]

        self.patch(preflight.socket, "getaddrinfo", fake)

    def test_used_port_is_refused_by_its_place_in_the_file(self) -> None:
        """The error for a port that is in use names its place in the configuration file: the key `listen`, if there is
        one."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            for entry, key in (
                (f'peer: "127.0.0.1:{port}"', "peer"),
                (f'peer: "192.0.2.1:7400", listen: "127.0.0.1:{port}"', "listen"),
            ):
                error = self.assertRaises(PortInUse, refuse_used_ports, self.config(entry), 0)
                self.assertIn(f"servers.0.{key}: cannot listen at 127.0.0.1:{port}: Address already in use", str(error))

    def test_address_of_another_machine_is_refused_with_advice(self) -> None:
        """An own address that belongs to another machine is refused with advice, since an address that is written down
        will not come later."""
        error = self.assertRaises(PortInUse, refuse_used_ports, self.config('peer: "192.0.2.77:7400"'), 0)
        self.assertIn('listen: "0.0.0.0:7400" beside peer', str(error))
        refuse_used_ports(self.config(f'peer: "192.0.2.77:7400", listen: "0.0.0.0:{free_port()}"'), 0)

    def test_own_name_that_is_not_there_yet_is_not_refused(self) -> None:
        """A server whose own name has no address of this machine yet is not refused: it looks the name up until there
        is one."""
        config = self.config('peer: "db0:7400"')
        self.name_is()
        refuse_used_ports(config, 0)
        self.name_is((socket.AF_INET, socket.SOCK_DGRAM, 17, "", "192.0.2.77"))
        refuse_used_ports(config, 0)

    def test_name_server_that_does_not_answer_delays_the_start_a_little(self) -> None:
        """A name server that does not answer delays the start a little, since a machine may boot before its name server
        does."""
        go_on = Event()
        self.addCleanup(go_on.set)
        self.patch(preflight, "LOOK_UP_SECONDS", 0.05)
        self.patch(preflight.socket, "getaddrinfo", lambda *args, **kwargs: go_on.wait(30))
        config = self.config('peer: "db0:7400"')
        # The name of the client port is not found, either.
        error = self.assertRaises(PortInUse, refuse_used_ports, config, 0)
        self.assertIn("servers.0.client: 127.0.0.1 cannot be found: no answer for 0.05 s", str(error))

    def test_ipv6_addresses_are_tried_like_others(self) -> None:
        """A port at an IPv6 address that is taken is refused, and shown with brackets."""
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
            taken.bind(("::1", 0))
            port = taken.getsockname()[1]
            error = self.assertRaises(PortInUse, refuse_used_ports, self.config(f'peer: "[::1]:{port}"'), 0)
        self.assertIn(f"servers.0.peer: cannot listen at [::1]:{port}", str(error))
