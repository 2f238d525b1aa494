"""A client that goes on at another server: each command runs once, under the same number."""

from __future__ import annotations

from typing import Any

from pfsb.applications.interfaces import Refused
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.command import verb_of
from pfsb.client.core.replies import EventLine
from pfsb.commands.line_client import ClientStopped, LineClient
from tests.client.cluster import LoopbackTestCase, reactor


class FailoverTests(LoopbackTestCase):
    async def test_command_is_numbered_and_answered(self) -> None:
        client = self.client(client_id="alice")
        reply = await client.command("PUT colour blue")
        self.assertEqual(
            (reply.line, self.cluster.shared.executed), ("OK revision=2", [("alice", 1, ("PUT", b"colour", b"blue"))])
        )

    async def test_unanswered_commands_are_repeated_elsewhere_with_the_same_numbers(self) -> None:
        """Unanswered commands are repeated at another server with the same numbers, so that each runs at most once
        (docs/internals/sessions.rst)."""
        client = self.client(client_id="alice")
        first = self.cluster.members[0]
        await client.command("PUT a 0")
        first.server.local_clients.silent = True
        answers = [client.command(f"PUT a {n}") for n in range(1, 11)]
        await self.until(lambda: first.server.local_clients.connections[-1].submitted == 11)
        await first.crash()
        for answer in answers:
            self.assertTrue((await answer).ok)
        self.assertEqual([number for _, number, _ in self.cluster.shared.executed], list(range(1, 12)))
        self.assertEqual((client.core.server.id, client.core.retries), (1, 10))

    async def test_answer_lost_on_the_way_is_given_again_and_not_run_again(self) -> None:
        client = self.client()
        local_clients = self.cluster.members[0].server.local_clients
        await client.command("INCR n")
        local_clients.hold = True
        again = client.command("INCR n")
        await self.until(lambda: local_clients.held)
        connection = next(iter(self.cluster.members[0].factory.connections))
        connection.replies.close()
        local_clients.release()
        await self.cluster.members[0].crash()
        self.assertEqual((await again).fields["value"], "2")
        self.assertEqual(len(self.cluster.shared.executed), 2)

    async def test_stopping_server_is_left_for_the_next(self) -> None:
        client = self.client()
        await client.command("PUT a 1")
        self.cluster.members[0].server.local_clients.draining = True
        self.assertTrue((await client.command("PUT a 2")).ok)
        self.assertEqual(client.core.server.id, 1)

    async def test_unavailable_server_is_left_for_the_next(self) -> None:
        client = self.client()
        await client.command("PUT a 1")
        self.cluster.members[0].server.local_clients.refuse = Refused("UNAVAILABLE", "no majority", "unknown")
        self.assertTrue((await client.command("PUT a 2")).ok)
        self.assertEqual((client.core.server.id, [n for _, n, _ in self.cluster.shared.executed]), (1, [1, 2]))

    async def test_server_that_keeps_silent_is_left_when_patience_ends(self) -> None:
        client = self.client(response_seconds=0.1)
        await client.command("PUT a 1")
        self.cluster.members[0].server.local_clients.silent = True
        self.assertTrue((await client.command("PUT a 2")).ok)
        self.assertIn("no answer for 0.1 s", client.core.last_trouble)

    async def test_waiting_for_a_lock_is_not_taken_for_silence(self) -> None:
        holder, waiter = self.client(), self.client(response_seconds=0.05)
        await holder.command("LOCK x")
        granted = waiter.command("LOCK x")
        await self.until(lambda: self.cluster.shared.waiting)
        await self.pause(0.2)
        await holder.command("UNLOCK x")
        self.assertTrue((await granted).ok)
        self.assertEqual(waiter.core.retries, 0)

    async def test_dead_servers_are_passed_over(self) -> None:
        await self.cluster.members[0].crash()
        await self.cluster.members[1].crash()
        client = self.client()
        self.assertTrue((await client.command("PUT a 1")).ok)
        self.assertEqual(client.core.server.id, 2)

    async def test_full_server_is_passed_over(self) -> None:
        self.cluster.members[0].factory.admit = lambda connection: Refused("BUSY", "full")  # type: ignore[method-assign]
        client = self.client()
        self.assertTrue((await client.command("PUT a 1")).ok)
        self.assertEqual(client.core.server.id, 1)

    async def test_known_client_goes_on_above_its_last_number(self) -> None:
        first = self.client(client_id="alice")
        await first.command("PUT a 1")
        await first.stop()
        second = self.client(client_id="alice")
        self.assertEqual((await second.command("PUT a 2")).line, "OK revision=4")

    async def test_session_taken_by_an_own_hello_that_came_late_is_opened_again(self) -> None:
        """A session that an own HELLO has taken, which a server had not answered in time and which was ordered after
        the one at the next server, is opened again."""
        first, second, _third = self.cluster.members
        first.server.local_clients.silent = True
        client = self.client(response_seconds=0.1)
        await client.command("PUT a 1")
        self.assertEqual(client.core.server.id, 1)
        second.server.local_clients.refuse = Refused("REPLACED", "the session was opened anew at 0")
        self.assertTrue((await client.command("PUT a 2")).ok)
        self.assertEqual((client.core.server.id, [n for _, n, _ in self.cluster.shared.executed]), (2, [1, 2]))
        await first.crash()

    async def test_session_taken_by_another_program_is_not_taken_back(self) -> None:
        """A session that another program has opened is not taken back: two programs under one name would take it from
        each other for ever."""
        client = self.client()
        await client.command("PUT a 1")
        self.cluster.members[0].server.local_clients.refuse = Refused("REPLACED", "the session was opened anew at 2")
        self.assertEqual((await client.command("PUT a 2")).code, "REPLACED")

    async def test_refused_client_id_is_the_answer_to_its_commands(self) -> None:
        client = self.client(client_id="~reserved")
        self.assertEqual((await client.command("PUT a 1")).code, "BADREQUEST")

    async def test_window_bounds_what_is_under_way(self) -> None:
        client = self.client(window=4)
        await client.command("PUT a 0")
        local_clients = self.cluster.members[0].server.local_clients
        local_clients.hold = True
        answers = [client.command(f"PUT a {n}") for n in range(20)]
        await self.until(lambda: len(local_clients.held) == 4)
        await self.pause(0.05)
        self.assertEqual(len(local_clients.held), 4)
        local_clients.hold = False
        local_clients.release()
        for answer in answers:
            self.assertTrue((await answer).ok)

    async def test_question_to_one_server_needs_no_session(self) -> None:
        """A question about one server, such as STATUS, needs no session, so that it is answered without a majority."""
        self.cluster.members[0].server.local_clients.silent = True
        reply = await self.client().command("STATUS")
        self.assertIn('"server": 0', reply.rows[0])

    async def test_fault_is_never_repeated_at_another_server(self) -> None:
        member = self.cluster.members[0]
        client = self.client()
        await client.command("PUT a 0")
        member.server.local_clients.hold = True
        waiting = client.command("PUT a 1")
        fault = client.command("FAULT LOSS 0.5")
        await self.until(lambda: member.server.local_clients.held)
        crashed = member.crash()
        self.assertEqual((await fault).fate, "unknown")
        await waiting
        await crashed
        self.assertEqual([each.server.faults.loss for each in self.cluster.members], [0.0, 0.0, 0.0])

    async def test_chat_is_followed_across_servers_without_gap_or_repeat(self) -> None:
        """The chat is followed across servers without gap or repeat: LISTEN tells lines from an index on
        (docs/protocol.rst)."""
        heard: list[EventLine] = []
        listener, speaker = self.client(on_event=heard.append), self.client(index=2)
        await listener.command("LISTEN from=1")
        await speaker.command("SAY 1")
        await self.until(lambda: len(heard) == 2)
        crashed = self.cluster.members[0].crash()
        for n in range(2, 6):
            await speaker.command(f"SAY {n}")
        await crashed
        await self.until(lambda: len([each for each in heard if each.name == "CHAT"]) >= 5)
        await self.pause(0.05)
        self.assertEqual([each.fields["index"] for each in heard if each.name == "CHAT"], [1, 2, 3, 4, 5])

    async def test_stopping_says_bye_and_fails_what_is_unanswered(self) -> None:
        client = self.client()
        await client.command("PUT a 1")
        local_clients = self.cluster.members[0].server.local_clients
        local_clients.hold = True
        unanswered = client.command("PUT a 2")
        await self.until(lambda: local_clients.held)
        local_clients.hold = False
        stopped = client.stop()
        await self.assertFailure(unanswered, ClientStopped)
        local_clients.release()
        await stopped
        self.assertIn("bye", local_clients.connections[0].calls)

    async def test_stopping_ends_while_no_server_answers(self) -> None:
        for member in self.cluster.members:
            await member.crash()
        client = self.client()
        unanswered = client.command("PUT a 1")
        await self.pause(0.05)
        await client.stop()
        await self.assertFailure(unanswered, ClientStopped)

    async def pause(self, seconds: float) -> None:
        due: list[Any] = []
        reactor.callLater(seconds, due.append, 1)
        await self.until(lambda: due)


class NobodyTests(LoopbackTestCase):
    servers = 0

    async def test_local_questions_are_known_by_their_verb(self) -> None:
        self.assertEqual([verb_of(line) for line in ("put a 1", " Status", "")], ["PUT", "STATUS", ""])
        self.assertIs(LineClient(reactor, ClientCore([])).core.is_connected, False)
