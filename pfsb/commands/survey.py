"""Asks all servers of a cluster for their STATUS at once, and says in one line how it stands with the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.known_servers import KnownServers
from pfsb.client.core.outage import servers_text, short_reason
from pfsb.client.core.replies import Reply
from pfsb.commands.one_question import ask
from pfsb.support.views import packed

STATUS_SECONDS: Final = 2.0
"""How long, in seconds, a server may take to answer STATUS; it answers without asking other servers."""

SURVEY_SECONDS: Final = 1.0
"""How long, in seconds, the servers may take to tell their state when a command has had no answer."""

Status = dict[str, Any]
"""The JSON object of a STATUS reply; docs/operating.rst describes it."""


def ask_status(reactor: Any, address: ServerAddress, seconds: float = STATUS_SECONDS) -> Deferred[Status | str]:
    """Get a server's STATUS, or else a text with the reason why there is none.

    The Deferred never fails.
    """

    def heard(reply: Reply) -> Status | str:
        if reply.ok and reply.rows:
            status: Status = json.loads(reply.rows[0])
            return status
        return reply.line

    return ask(reactor, address, "STATUS", seconds).addCallbacks(heard, _why)


def is_token_wanted(answer: str) -> bool:
    """Whether a server has answered that this user has not the right to know its state: the server is up then."""
    return answer.startswith(("ERR NOAUTH ", "ERR BADTOKEN ", "ERR DENIED "))


def _why(reason: Failure) -> str:
    return "unreachable: " + reason.getErrorMessage().rstrip(".").splitlines()[0]


@define
class Survey:
    """The answers of all servers of a cluster to STATUS, in the order of their addresses."""

    addresses: Sequence[ServerAddress]
    answers: Sequence[Status | str]

    @property
    def up(self) -> dict[int, Status]:
        """Server -> its STATUS, for the servers that answer."""
        pairs = zip(self.addresses, self.answers, strict=True)
        return {address.id: answer for address, answer in pairs if isinstance(answer, dict)}

    @property
    def down(self) -> dict[int, str]:
        """Server -> why it does not answer."""
        pairs = zip(self.addresses, self.answers, strict=True)
        return {address.id: _bare(answer) for address, answer in pairs if isinstance(answer, str)}

    @property
    def latest(self) -> dict[int, Status]:
        """Server -> its STATUS, for the servers that are in the latest epoch of the membership of which one tells."""
        return {i: status for i, status in self.up.items() if _epoch(status) == self.epoch}

    @property
    def epoch(self) -> int:
        """The latest epoch of the membership of which a server tells."""
        return max((_epoch(status) for status in self.up.values()), default=0)

    @property
    def voters(self) -> list[int]:
        """Ids of the servers that vote, ascending: as those in the latest epoch say, or else all that were asked."""
        said = [status["voters"] for status in self.latest.values() if isinstance(status.get("voters"), list)]
        return sorted(said[0] if said else (address.id for address in self.addresses))

    @property
    def voting(self) -> dict[int, Status]:
        """Server -> its STATUS, for the servers that vote and answer."""
        voters = self.voters
        return {i: status for i, status in self.up.items() if i in voters}

    @property
    def quorum(self) -> int:
        """How many servers are a majority: as those in the latest epoch say, or, if none answers, of the number of
        addresses."""
        said = [status["quorum"] for status in self.latest.values() if isinstance(status.get("quorum"), int)]
        return max(said, default=len(self.addresses) // 2 + 1)

    def further(self) -> list[ServerAddress]:
        """The addresses of servers of the latest epoch that were not asked, as far as the servers tell them. A client
        that asks over TLS takes no others."""
        known = KnownServers(self.addresses)
        told = [status["clients"] for status in self.latest.values() if isinstance(status.get("clients"), dict)]
        fields = {f"server{i}": place for clients in told for i, place in clients.items()}
        asked = {address.id for address in self.addresses} | {address.shown for address in self.addresses}
        return [each for each in known.told(fields) if each.id not in asked and each.shown not in asked]

    @property
    def leader(self) -> int | None:
        """The id of the leader: the server that a majority of the servers names as the leader of the same view. None:
        there is none."""
        following: dict[tuple[int, int], int] = {}
        for status in self.voting.values():
            if isinstance(status.get("leader"), int) and isinstance(status.get("view"), (int, str)):
                place = (packed(status["view"]), status["leader"])
                following[place] = following.get(place, 0) + 1
        leading = [(view, leader) for (view, leader), count in following.items() if count >= self.quorum]
        return max(leading)[1] if leading else None

    @property
    def count(self) -> str:
        """A text that says how many servers are up, which if not all are, and how many are needed if these are no
        majority: "2 of 4 servers up (0, 3), 3 needed"."""
        if not self.up:
            return "no server can be reached"
        up, voters = self.voting, self.voters
        text = f"{len(up)} of {len(voters)} servers up"
        if len(up) < len(voters):
            text += f" ({', '.join(map(str, up))})"
        return text if len(up) >= self.quorum else f"{text}, {self.quorum} needed"

    @property
    def outage(self) -> str:
        """A text with all that may keep the cluster from answering: how many servers are up, that there is no leader,
        and why servers do not answer."""
        text = self.count
        if len(self.voting) >= self.quorum and self.leader is None:
            text += ", and no leader"
        return f"{text}; {servers_text(self.addresses, self.down)}" if self.down else text

    @property
    def summary(self) -> str:
        """One line of text: who leads, how many servers are up, and how many more may fail before there is no
        majority."""
        more = len(self.voting) - self.quorum
        if more < 0:
            return f"leads: none, {self.count}"
        leader = "none" if self.leader is None else str(self.leader)
        return f"leads: {leader}, {len(self.voting)} of {len(self.voters)} up, tolerates {more} more"


async def survey(reactor: Any, addresses: Sequence[ServerAddress], seconds: float = STATUS_SECONDS) -> Survey:
    """Ask all servers for their STATUS at once, and then those of which they tell. Never fails, and takes no longer
    than `seconds`."""
    until = reactor.seconds() + seconds
    return await ask_all(addresses, lambda address: ask_status(reactor, address, max(0.01, until - reactor.seconds())))


async def ask_all(
    addresses: Sequence[ServerAddress], asked: Callable[[ServerAddress], Deferred[Status | str]]
) -> Survey:
    """Ask all servers at once by `asked`, which never fails, and then those that were added to the cluster and of which
    the first ones tell."""
    found = Survey(addresses, await gatherResults([asked(address) for address in addresses]))
    further = found.further()
    if not further:
        return found
    answers = await gatherResults([asked(address) for address in further])
    return Survey([*addresses, *further], [*found.answers, *answers])


class NoAnswer(Exception):
    """Raised for a command that was not answered in time; `found` is the survey of the servers that was made then."""

    def __init__(self, found: Survey) -> None:
        super().__init__(found.outage)
        self.found = found


async def in_time(reactor: Any, addresses: Sequence[ServerAddress], answered: Deferred[Reply], seconds: float) -> Reply:
    """Wait for the reply that `answered` brings, `seconds` in all. Shortly before this time is over, the servers are
    asked for their state.

    Raises `NoAnswer` if there is no reply in time, after `answered` was cancelled. If `answered` fails, raises its
    exception.
    """
    spare = min(SURVEY_SECONDS, seconds / 2)
    found: Deferred[Survey] | None = None

    def look() -> None:
        nonlocal found
        found = Deferred.fromCoroutine(survey(reactor, addresses, spare))
        timers.append(reactor.callLater(spare, answered.cancel))

    timers: list[IDelayedCall] = [reactor.callLater(seconds - spare, look)]
    try:
        return await answered
    except CancelledError:
        if found is None:
            raise
        raise NoAnswer(await found) from None
    finally:
        if timers[-1].active():
            timers[-1].cancel()
        if found is not None and not found.called:
            found.addErrback(lambda _: None).cancel()


def _epoch(status: Status) -> int:
    epoch = status.get("epoch")
    return epoch if isinstance(epoch, int) else 0


def _bare(answer: str) -> str:
    return short_reason(answer.removeprefix("unreachable: "))
