"""The addresses of a cluster's servers: their names are looked up at the start, on a schedule, and when a server is
silent.

An `AddressBook` never blocks and never gives up. A name that has no address yet keeps nothing else from working: the
server runs, and sends to that peer as soon as a look-up gives an address. A server that comes back at another address
is found by the next look-up, without a restart of the others. docs/operating.rst says what an operator sees of this.

The book looks names up by a function that it is given (`LookUp`): that of real servers is made by
`pfsb.support.hosts.look_up_in_threads`, and a simulated network has another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.support.hosts import LookUp, SocketAddress, canonical, is_far, is_near, literal, loopback_warning

TICK_SECONDS: Final = 1.0
"""Time, in seconds, between two ticks: each notes which peers were heard since the last one, and begins the look-ups
that are due."""
SCHEDULE_SECONDS: Final = 60.0
"""Time, in seconds, between two look-ups of the name of a server that is heard."""
SEARCH_SECONDS: Final = 2.0
"""Time, in seconds, between two look-ups of a name that has no address, or of a server that is silent."""
DOUBT_SECONDS: Final = 1.0
"""Minimum time, in seconds, between two look-ups of one name, whatever the reason for them."""
ANSWER_SECONDS: Final = 10.0
"""How long, in seconds, a look-up may take until another look-up of the same name begins beside it."""
WAITING_DOUBLINGS_MAX: Final = 6
"""How often `ANSWER_SECONDS` doubles, at most, while one look-up after the other is not answered.

Each look-up without an answer keeps a thread. So a resolver that never answers costs one more thread every ten minutes,
and one that answers late is still heard.
"""
SILENT_TICKS: Final = 2
"""Number of ticks without a frame after which a peer counts as silent."""
LEARNED_TICKS: Final = 10
"""Number of ticks without a frame of a peer after which its learned address (`ServerName.learned`) is forgotten."""
NEVER: Final = float("-inf")


@define(eq=False)
class ServerName:
    """The host of one server, as the configuration names it, and what is known about its addresses."""

    server_id: int
    host: str
    port: int
    is_literal: bool = False
    """Whether the host is written as an IP address, so that there is nothing to look up."""
    addresses: tuple[SocketAddress, ...] = ()
    """The addresses of the latest look-up that gave any."""
    chosen: SocketAddress | None = None
    """The one of `addresses` to which frames are sent; None: there is none."""
    learned: SocketAddress | None = None
    """Another address, from which authenticated frames of this server come; frames are sent there as well. None: there
    is none."""
    source: str = ""
    """The IP address, as the network writes it, of the latest frame that was taken. Frames from it are taken without
    any further check, until the addresses change."""
    silent_ticks: int = 0
    began_at: float = NEVER
    begun: int = 0
    """Number of look-ups that have begun."""
    answered: int = 0
    """Number of the look-up whose answer counts: an earlier one that answers later is out of date."""
    waiting: int = 0
    """Number of look-ups that have not been answered yet."""
    is_failing: bool = False
    """Whether the latest answer was that there is no address, or is overdue."""

    @property
    def is_found(self) -> bool:
        return bool(self.addresses)

    def has_host(self, host: str) -> bool:
        """Whether `host`, an IP address as `canonical` writes it, is one of the `addresses`, or one of these is a
        wildcard and so stands for any."""
        return any(each.host == host or each.is_wildcard for each in self.addresses)


@define(eq=False)
class AddressBook:
    """Knows where each server of the cluster is, this one included.

    `hosts` maps the id of each server to the (host, port) in the configuration. `changed` is called with the id of a
    server whenever `where` or `copies_to` gives another answer for it. `believes_frames` says whether frames are
    authenticated: then a frame is taken wherever it comes from, and shows where its sender is. Otherwise a frame counts
    only if it comes from an address of its sender's host, and only a look-up can find another address.
    """

    log = Logger()

    _clock: IReactorTime
    _own_id: int
    _hosts: Mapping[int, tuple[str, int]]
    _look_up: LookUp
    _changed: Callable[[int], None]
    _believes_frames: bool = False
    _names: dict[int, ServerName] = field(init=False)
    _heard: set[int] = field(init=False, factory=set)
    """Ids of the peers of whom a frame was taken since the last tick."""
    _tick_call: IDelayedCall | None = field(init=False, default=None)
    _is_stopped: bool = field(init=False, default=False)
    _has_warned: bool = field(init=False, default=False)
    _is_started: bool = field(init=False, default=False)

    @_names.default
    def _make_names(self) -> dict[int, ServerName]:
        return {server_id: _name(server_id, *where) for server_id, where in sorted(self._hosts.items())}

    def start(self) -> None:
        """Begin to look up all names, each by itself. IP addresses are known at once, without a call of `changed`."""
        self._is_started = True
        self._warn_of_loopback()
        if self._believes_frames or not all(name.is_literal for name in self._names.values()):
            self._tick()

    def place(self, server_id: int, host: str, port: int) -> None:
        """Take this (host, port) for another server from now on. Has no effect if the book has it already."""
        former = self._names.get(server_id)
        if former is not None and (former.host, former.port) == (host, port):
            return
        name = self._names[server_id] = _name(server_id, host, port)
        if not self._is_started or self._is_stopped:
            return
        if self._tick_call is None and not name.is_literal:
            self._tick()
        else:
            self._look_after(name)
        self._changed(server_id)

    def stop(self) -> None:
        """Look up nothing more; answers that are still to come have no effect."""
        self._is_stopped = True
        if self._tick_call is not None and self._tick_call.active():
            self._tick_call.cancel()

    # ------------------------------------------------------------------ asking

    def where(self, server_id: int) -> SocketAddress | None:
        """The address to which frames for a server go; None while no address is known."""
        name = self._names.get(server_id)
        return None if name is None else name.chosen

    def host_of(self, server_id: int) -> tuple[str, int] | None:
        """The (host, port) of a server; None: the book has none."""
        name = self._names.get(server_id)
        return None if name is None else (name.host, name.port)

    def copies_to(self, server_id: int) -> SocketAddress | None:
        """A second address to which each frame for a server goes; None: there is none.

        An authenticated frame shows where its sender is, but an attacker who sees frames may send one on from
        elsewhere. So a learned address is used beside the one that the name has, and not in its place.
        """
        name = self._names.get(server_id)
        return None if name is None else name.learned

    def shown(self) -> Iterator[tuple[int, str | None]]:
        """Pairs (id, address as a person writes it, None if there is none) of all servers.

        Of two addresses of a server, the learned one is shown, from which its frames come.
        """
        for name in self._names.values():
            address = name.learned or name.chosen
            yield name.server_id, None if address is None else address.shown

    def accepts(self, peer: int, source: object) -> bool:
        """Whether to take a frame of server `peer` that came from `source`, the address that a socket gives with a
        datagram.

        The frame has passed all other checks. Called for each frame.
        """
        name = self._names.get(peer)
        if name is None:
            return self._believes_frames  # nothing tells where that server is
        host = source[0] if isinstance(source, tuple) else ""
        if host != name.source and not self.accepts_source(name, host):
            return False
        self._heard.add(peer)
        return True

    def accepts_source(self, name: ServerName, host: str) -> bool:
        """Whether a frame of the server with this name may come from `host`, an IP address as the network writes it.

        Called if the last frame of that server came from another address. An address that the name does not have is
        learned, and the frame accepted, if frames are authenticated; otherwise the frame is refused, and the name is
        looked up again soon.
        """
        try:
            written = canonical(host)
        except ValueError:
            return False
        if name.has_host(written):
            self._prefer(name, written)
        elif self._believes_frames:
            self._learn(name, written if "." in written else host)
        else:
            self.doubt(name.server_id)
            return False
        name.source = host
        return True

    def _prefer(self, name: ServerName, host: str) -> None:
        """Send to the address from which a server's frames come: the server listens there."""
        found = next((each for each in name.addresses if each.host == host), name.chosen)
        self._note(name, found, None)

    def _learn(self, name: ServerName, host: str) -> None:
        """Note an address from which authenticated frames come, and which the name does not have (yet).

        Frames may come from any port of that address. The server is assumed to listen there at its configured port.
        """
        learned = literal(host, name.port)
        if learned != name.learned:
            self.log.warn(
                'frames of server {peer} come from {source}, which is not an address of "{host}"; its frames go there '
                "as well",
                peer=name.server_id,
                source=host,
                host=name.host,
            )
        self._note(name, name.chosen, learned)
        self.doubt(name.server_id)

    def _note(self, name: ServerName, chosen: SocketAddress | None, learned: SocketAddress | None) -> None:
        if (chosen, learned) != (name.chosen, name.learned):
            name.chosen, name.learned = chosen, learned
            self._changed(name.server_id)

    def doubt(self, server_id: int) -> None:
        """Look a name up again soon, since its address seems to be wrong.

        Called when a peer sends from an address that its name does not have (yet), or when this server cannot listen at
        its own address.
        """
        name = self._names[server_id]
        if not name.is_literal and self._clock.seconds() - name.began_at >= DOUBT_SECONDS:
            self.begin_unless_waiting(name)

    # ------------------------------------------------------------------ the schedule

    def _tick(self) -> None:
        heard, self._heard = self._heard, set()
        if heard or len(self._names) == 1:
            # The book looks its own server's name up, too: peers may not find this server when that name has another
            # address.
            heard.add(self._own_id)
        for name in [*self._names.values()]:
            name.silent_ticks = 0 if name.server_id in heard else name.silent_ticks + 1
            self._look_after(name)
        self._tick_call = self._clock.callLater(TICK_SECONDS, self._tick)

    def _look_after(self, name: ServerName) -> None:
        is_silent = name.silent_ticks >= SILENT_TICKS
        if is_silent and name.silent_ticks % SILENT_TICKS == 0:
            self._note(name, _after(name.chosen, name.addresses), name.learned)
        if name.learned is not None and name.silent_ticks >= LEARNED_TICKS:
            name.source = ""
            self._note(name, name.chosen, None)
        interval = SCHEDULE_SECONDS if name.is_found and not is_silent else SEARCH_SECONDS
        if not name.is_literal and self._clock.seconds() - name.began_at >= interval:
            self.begin_unless_waiting(name)

    def begin_unless_waiting(self, name: ServerName) -> None:
        """Begin a look-up, unless the last one of this name may still be answered in time (`ANSWER_SECONDS`)."""
        if name.waiting:
            patience = ANSWER_SECONDS * 2 ** min(name.waiting - 1, WAITING_DOUBLINGS_MAX)
            if self._clock.seconds() - name.began_at < patience:
                return
            self._note_failure(name, f"no answer for {patience:g} s")
        self.begin_look_up(name)

    # ------------------------------------------------------------------ looking up

    def begin_look_up(self, name: ServerName) -> None:
        """Begin a look-up of a name. Its answer comes later, by the clock or from a thread."""
        name.began_at = self._clock.seconds()
        name.begun += 1
        name.waiting += 1
        asked = self._look_up(name.host, name.port)
        asked.addBoth(self._answered, name, name.begun)
        asked.addErrback(lambda failure: self.log.failure("looking up {host}", failure, host=name.host))

    def _answered(self, answer: tuple[SocketAddress, ...] | Failure, name: ServerName, number: int) -> None:
        name.waiting -= 1
        if self._is_stopped or number < name.answered:
            return
        name.answered = number
        if isinstance(answer, Failure):
            self._note_failure(name, answer.getErrorMessage())
        elif not answer:
            self._note_failure(name, "no addresses")
        else:
            self._found(name, answer)

    def _note_failure(self, name: ServerName, why: str) -> None:
        """Note that a name has no address now, for the reason `why`. The addresses that it had stay in use: nothing
        better is known."""
        if not name.is_failing:
            name.is_failing = True
            former = name.chosen.shown if name.chosen is not None else "none so far"
            self.log.warn(
                'server {peer}: the host "{host}" has no address: {why}; it is looked up again and again '
                "(address in use: {former})",
                peer=name.server_id,
                host=name.host,
                why=why,
                former=former,
            )

    def _found(self, name: ServerName, addresses: tuple[SocketAddress, ...]) -> None:
        is_news = name.is_failing or name.is_found
        name.is_failing = False
        if set(addresses) == set(name.addresses):
            return  # the chosen address is still there: resolvers give the addresses of a name in changing order
        name.addresses = self._in_order(name, addresses)
        name.source = ""
        if is_news:
            shown_addresses = ", ".join(each.shown for each in name.addresses)
            self.log.info(
                'server {peer}: the host "{host}" is now {addresses}',
                peer=name.server_id,
                host=name.host,
                addresses=shown_addresses,
            )
        chosen = name.chosen if name.chosen in name.addresses else name.addresses[0]
        learned = name.learned if name.learned is not None and not name.has_host(name.learned.host) else None
        self._note(name, chosen, learned)
        self._warn_of_loopback()

    def _in_order(self, name: ServerName, addresses: tuple[SocketAddress, ...]) -> tuple[SocketAddress, ...]:
        """Sort the addresses of a server: those that can be used best come first.

        Of a peer, those come first that have the IP version of the address where this server listens: the peer knows
        this server by that address, and may refuse frames from another address. Of this server itself, those come first
        that other machines can reach.
        """
        if name.server_id == self._own_id:
            return tuple(sorted(addresses, key=lambda each: each.is_loopback))
        own = self._names[self._own_id].chosen
        if own is None or own.is_wildcard:
            return addresses
        return tuple(sorted(addresses, key=lambda each: each.family != own.family))

    def _warn_of_loopback(self) -> None:
        """Log a warning, once, if this server's name has addresses of this machine only, which other machines cannot
        reach."""
        own = self._names[self._own_id]
        if self._has_warned or not is_near(own.addresses):
            return
        far = next((name for name in self._names.values() if is_far(name.addresses)), None)
        if far is not None:
            self._has_warned = True
            far_host = f"{far.host} ({far.addresses[0].host})"
            self.log.warn("{text}", text=loopback_warning(own.server_id, (own.host, own.port), far_host))


def _name(server_id: int, host: str, port: int) -> ServerName:
    address = literal(host, port)
    if address is None:
        return ServerName(server_id, host, port)
    return ServerName(server_id, host, port, is_literal=True, addresses=(address,), chosen=address)


def _after(chosen: SocketAddress | None, addresses: tuple[SocketAddress, ...]) -> SocketAddress | None:
    """The address that follows `chosen` in `addresses`; the first one if `chosen` is the last; `chosen` itself, which
    may be None, if it is not among them.
    """
    if chosen not in addresses:
        return chosen
    return addresses[(addresses.index(chosen) + 1) % len(addresses)]
