"""Servers in network namespaces of their own, with a network between them that drops what an Ethernet cannot carry.

The namespaces are joined by pairs of virtual interfaces with an MTU of 1,500 bytes. Between them, a thread of the test
is the switch: it forwards Ethernet frames, but drops IP fragments, as most clouds do, and packets that are larger than
it is told. Linux only; making namespaces needs the rights of root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from attrs import define, field

CLONE_NEWNET: Final = 0x40000000
ETH_P_ALL: Final = 0x0003
SIOCETHTOOL: Final = 0x8946
ETHTOOL_STXCSUM: Final = 0x17
ETHERNET_HEADER_BYTES: Final = 14
PACKET_OUTGOING: Final = 4


class NoNamespaces(Exception):
    """Raised if this machine does not let the test make network namespaces."""


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoNamespaces(f"{' '.join(command)}: {error} {getattr(error, 'stderr', b'')!r}") from error


def _enter(namespace: str) -> None:
    """Move the calling thread, and no other, to this network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open("rb") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")


def is_fragment(frame: bytes) -> bool:
    """Whether an Ethernet frame holds a fragment of an IP packet."""
    ethernet_type = frame[12:14]
    if ethernet_type == b"\x08\x00":
        return bool(struct.unpack_from(">H", frame, ETHERNET_HEADER_BYTES + 6)[0] & 0x3FFF)
    return ethernet_type == b"\x86\xdd" and frame[ETHERNET_HEADER_BYTES + 6] == 44


@define(eq=False)
class SmallNetwork:
    """One network namespace for each server, and one in the middle, where the relay is. `stop` takes all of them
    away."""

    servers: int
    packet_bytes: int = 1_500
    """Size, in bytes, above which the relay drops IP packets. It may be changed at any time."""
    narrow: dict[int, int] = field(factory=dict)
    """Server -> size, in bytes, above which the relay drops the packets to and from this server alone."""
    dropped: Counter[str] = field(factory=Counter)
    """Reason, "fragment", "large" or "full" -> number of packets that the relay has dropped for it."""
    forwarded: int = 0
    largest: int = 0
    """Size, in bytes, of the largest packet that the relay has forwarded."""
    _name: str = field(init=False, factory=lambda: f"pfsb-{os.getpid()}-{os.urandom(2).hex()}")
    _thread: threading.Thread | None = field(init=False, default=None)
    _stopping: threading.Event = field(init=False, factory=threading.Event)
    _failed: list[Exception] = field(init=False, factory=list)
    _places: dict[bytes, socket.socket] = field(init=False, factory=dict)
    """Address of an interface -> the port of the relay behind which it was seen."""
    _servers_at: dict[socket.socket, int] = field(init=False, factory=dict)
    """Port of the relay -> the server behind it."""
    _ready: threading.Event = field(init=False, factory=threading.Event)

    def namespace(self, server_id: int) -> str:
        return f"{self._name}-{server_id}"

    def address(self, server_id: int) -> str:
        return f"10.99.0.{server_id + 1}"

    def ipv6_address(self, server_id: int) -> str:
        return f"fd99::{server_id + 1}"

    def start(self) -> None:
        """Make the namespaces and their interfaces, and start the relay. Raises `NoNamespaces`."""
        try:
            self._make()
            self._thread = threading.Thread(target=self._relay, name="relay", daemon=True)
            self._thread.start()
            if not self._ready.wait(10) or self._failed:
                raise NoNamespaces(f"the relay does not run: {self._failed}")
        except NoNamespaces:
            self.stop()
            raise

    def set_mtu(self, server_id: int, packet_bytes: int) -> None:
        """Let a server's interface refuse to send packets above this size, and drop those that come."""
        _run("ip", "-n", self.namespace(server_id), "link", "set", "eth0", "mtu", str(packet_bytes))

    def pause(self, seconds: float) -> None:
        """Wait, in a thread that is not that of the reactor."""
        self._stopping.wait(seconds)

    def stop(self) -> None:
        """Stop the relay, and take away the namespaces."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10)
        for name in (self._middle, *map(self.namespace, range(self.servers))):
            subprocess.run(("ip", "netns", "del", name), capture_output=True, timeout=20, check=False)

    @property
    def _middle(self) -> str:
        return f"{self._name}-m"

    def _make(self) -> None:
        _run("ip", "netns", "add", self._middle)
        for i in range(self.servers):
            name = self.namespace(i)
            _run("ip", "netns", "add", name)
            _run(
                "ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{i}", "netns", self._middle
            )
            _run("ip", "-n", self._middle, "link", "set", f"p{i}", "up")
            _run("ip", "-n", name, "address", "add", f"{self.address(i)}/24", "dev", "eth0")
            _run("ip", "-n", name, "address", "add", f"{self.ipv6_address(i)}/64", "dev", "eth0", "nodad")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")

    def _relay(self) -> None:
        try:
            for i in range(self.servers):
                # The relay cannot finish checksums that an interface leaves to the hardware.
                _enter(self.namespace(i))
                _end_checksum_offload("eth0")
            _enter(self._middle)
            ports = [self._port(f"p{i}") for i in range(self.servers)]
            self._servers_at = {port: i for i, port in enumerate(ports)}
        except OSError as error:
            self._failed.append(error)
            self._ready.set()
            return
        self._ready.set()
        while not self._stopping.is_set():
            for port in select.select(ports, [], [], 0.1)[0]:
                self._forward(port, ports)
        for port in ports:
            port.close()

    def _port(self, interface: str) -> socket.socket:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        port.bind((interface, ETH_P_ALL))
        port.setblocking(False)
        return port

    def _forward(self, port: socket.socket, ports: list[socket.socket]) -> None:
        try:
            frame, where = port.recvfrom(65_536)
        except OSError:
            return
        if where[2] == PACKET_OUTGOING:
            return
        destination, source = frame[:6], frame[6:12]
        self._places[source] = port
        place = self._places.get(destination)
        for other in ports if place is None else [place]:
            if other is not port:
                self._send(port, other, frame)

    def _send(self, port: socket.socket, other: socket.socket, frame: bytes) -> None:
        size = len(frame) - ETHERNET_HEADER_BYTES
        if is_fragment(frame):
            self.dropped["fragment"] += 1
        elif size > min(self._limit(port), self._limit(other)):
            self.dropped["large"] += 1
        else:
            self.forwarded += 1
            self.largest = max(self.largest, size)
            try:
                other.send(frame)
            except OSError:
                # The relay drops a frame for which the next interface has no room, as a full switch does.
                self.dropped["full"] += 1

    def _limit(self, port: socket.socket) -> int:
        return self.narrow.get(self._servers_at[port], self.packet_bytes)


def _end_checksum_offload(interface: str) -> None:
    """Let this machine compute the checksums of what leaves an interface."""
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
