"""A client learns the addresses of the servers of its cluster, and goes on at those."""

from __future__ import annotations

from random import Random

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.addresses import address_from_text
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.known_servers import KnownServers
from pfsb.client.core.server_rotation import ServerRotation
from tests.client.core.script import ADDRESSES, Script

TOLD = '* MEMBERS epoch=2 server1="127.0.0.1:9401" server3="127.0.0.1:9403" server4="127.0.0.1:9404"'


class KnownServersTests(SynchronousTestCase):
    def test_told_servers_come_first_and_given_ones_stay(self) -> None:
        """Addresses that a server tells come first, and the given ones stay behind them. A given address that is told
        keeps its form, and gets the id that was told."""
        token = [evolve(each, token="alice.x") for each in ADDRESSES]
        found = KnownServers(token).with_told({"epoch": 2, "server1": "127.0.0.1:9402", "server5": "[::1]:9405"})
        self.assertEqual([(each.id, each.shown) for each in found][:2], [(1, "127.0.0.1:9402"), (5, "[::1]:9405")])
        self.assertEqual([each.shown for each in found][2:], ["127.0.0.1:9400", "127.0.0.1:9401"])
        self.assertEqual(len({each.id for each in found}), 4)
        self.assertEqual({each.token for each in found}, {"alice.x"})
        self.assertEqual(found[0].endpoint, ADDRESSES[2].endpoint)

    def test_what_is_no_address_is_left_out(self) -> None:
        found = KnownServers(ADDRESSES[:1]).told(
            {"server1": "nowhere", "server2": 5, "serverx": "a:1", "server": "a:1"}
            | {"server3": "a:0", "server4": "b:99999", "server5": "a b:1", "server6": "tls://a:99999"}
        )
        self.assertEqual(found, [])

    def test_client_over_tls_takes_no_others(self) -> None:
        """A client over TLS takes no addresses without TLS: it would show its token to any program there."""
        given = address_from_text(0, "tls://a.example:1", "authority.pem")
        found = KnownServers([given]).told({"server1": "b.example:1", "server2": "tls://c.example:1"})
        self.assertEqual(
            [(each.shown, each.tls, each.authority) for each in found], [("tls://c.example:1", True, "authority.pem")]
        )

    def test_token_that_stayed_on_the_machine_does_not_leave_it_without_tls(self) -> None:
        """The given addresses lead to the client's own machine. Without a token nothing is to be kept."""
        told = {"server0": "127.0.0.1:9400", "server1": "127.0.0.1:9401", "server2": "db2.example:9400"}
        given = ADDRESSES[:1]
        self.assertEqual(len(KnownServers(given).told(told)), 3)
        with_token = [evolve(each, token="alice.x") for each in given]
        self.assertEqual([each.id for each in KnownServers(with_token).told(told)], [0, 1])
        far = [*with_token, evolve(address_from_text(1, "db1.example:9400"), token="alice.x")]
        self.assertEqual(len(KnownServers(far).told(told)), 3)

    def test_client_on_the_machine_of_a_server_learns_nothing_on_the_network(self) -> None:
        """A client that was given paths of sockets takes no addresses on the network, and the other way round."""
        given = address_from_text(0, "/run/pfsb.sock")
        found = KnownServers([given]).told(
            {"server0": "/run/pfsb.sock", "server1": "b:1", "server2": "/run/other.sock"}
        )
        self.assertEqual([each.shown for each in found], ["/run/pfsb.sock", "/run/other.sock"])
        self.assertEqual(KnownServers(ADDRESSES).told({"server1": "/run/pfsb.sock"}), [])

    def test_client_at_the_end_of_a_tunnel_learns_no_addresses_of_its_own_machine(self) -> None:
        """A client whose given address is on its own machine, as at the end of a tunnel, takes no told addresses there,
        since another cluster may run on that machine; once a given address was told, it takes them."""
        known = KnownServers([address_from_text(0, "127.0.0.1:19400")])
        told = {"server0": "127.0.0.1:9400", "server1": "localhost:9401", "server2": "[::1]:9402", "server3": "b:1"}
        self.assertEqual([each.shown for each in known.told(told)], ["b:1"])
        self.assertEqual(len(known.told({**told, "server4": "127.0.0.1:19400"})), 5)
        self.assertEqual(len(known.told(told)), 4)

    def test_ids_differ(self) -> None:
        """The given addresses that are not told get ids that no other one has."""
        given = [evolve(each, id=i) for each, i in zip(ADDRESSES, (0, 1, 3), strict=True)]
        found = KnownServers(given).with_told({"server1": "a:1", "server0": "b:1"})
        self.assertEqual(len({each.id for each in found}), 5)

    def test_place_that_two_servers_tell_is_used_once(self) -> None:
        """An address that two servers advertise, as by a copied configuration, is used once. A client that tried it
        twice would go back from the second time to the first one at each event, and never come to the server behind
        them."""
        told = {"epoch": 1, "server0": "127.0.0.1:9400", "server1": "127.0.0.1:9400", "server2": "127.0.0.1:9402"}
        found = KnownServers(ADDRESSES[:1]).with_told(told)
        self.assertEqual([(each.id, each.shown) for each in found], [(0, "127.0.0.1:9400"), (2, "127.0.0.1:9402")])

    def test_earlier_epoch_takes_no_server_away(self) -> None:
        """An event of an earlier epoch, as from a removed server, takes no server of the latest epoch away; the servers
        that it tells come behind those."""
        known = KnownServers(ADDRESSES[:1])
        known.with_told({"epoch": 7, "server4": "127.0.0.1:9400", "server5": "127.0.0.1:9405"})
        found = known.with_told({"epoch": 2, "server5": "127.0.0.1:9400", "server1": "127.0.0.1:9401"})
        places = [each.shown for each in found]
        self.assertEqual(places, ["127.0.0.1:9400", "127.0.0.1:9405", "127.0.0.1:9401"])
        self.assertEqual(len({each.id for each in found}), 3)
        found = known.with_told({"epoch": 8, "server6": "127.0.0.1:9406", "server4": "127.0.0.1:9400"})
        self.assertEqual([each.shown for each in found], ["127.0.0.1:9406", "127.0.0.1:9400"])

    def test_strange_event_costs_little(self) -> None:
        """An event with ids that are no numbers of servers, and with more servers than a cluster has, costs little."""
        many = {f"server{i}": f"a{i}:1" for i in range(5_000)}
        found = KnownServers(ADDRESSES[:1]).with_told({"server" + "9" * 5_000: "a:1", "serverx": "a:2", **many})
        self.assertEqual(len(found), 257)

    def test_troubles_stay_with_their_servers(self) -> None:
        """A note of trouble stays with its server when an event gives that server another id."""
        rotation = ServerRotation(ADDRESSES, Random(1))
        rotation.note_trouble("refused", is_unreachable=True)
        rotation.replace(KnownServers(ADDRESSES).with_told({"server0": "a:1", "server7": "127.0.0.1:9400"}))
        self.assertEqual((rotation.server.id, [*rotation.troubles]), (7, [7]))


class LearningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.core = ClientCore(ADDRESSES, client_id="alice", dice=Random(1), learns=True)
        self.script = Script(self.core)

    def test_client_asks_on_each_connection(self) -> None:
        """On each connection a client asks for the servers by MEMBERS before it sends anything else."""
        self.script.take()
        self.script.connect()
        self.assertEqual(self.script.take(), ["MEMBERS"])
        self.script.hear("OK epoch=0")
        self.core.submit("PUT a b", self.script.answers.append, self.script.now)
        self.script.take()
        self.script.hang_up()
        self.script.take()
        self.script.connect()
        self.assertEqual([line.split()[0] for line in self.script.take()], ["MEMBERS", "HELLO"])

    def test_server_that_refuses_the_session_tells_the_servers_that_do_not(self) -> None:
        """A client that was only given a server which refuses sessions, since it was removed or only learns, is told
        there of servers that do not, and goes to one."""
        core = ClientCore(ADDRESSES[:1], client_id="bob", dice=Random(1), learns=True)
        script = Script(core)
        core.submit("PUT a b", script.answers.append, script.now)
        script.take()
        script.connect()
        asked = [line.split()[0] for line in script.take()]
        self.assertEqual(asked, ["MEMBERS", "HELLO"])
        told = '* MEMBERS epoch=2 server3="127.0.0.1:9403" server9="127.0.0.1:9400"'
        script.hear("OK epoch=2", told, "ERR UNAVAILABLE fate=none server 9 learns for good: ask server 3")
        reached = set[str]()
        for _ in range(2):
            script.pass_time(2.0)
            reached.add(core.server.shown)
            script.hang_up("refused")
        self.assertIn("127.0.0.1:9403", reached)

    def test_client_goes_on_at_servers_that_it_was_not_given(self) -> None:
        """When all given servers are gone, a client goes on at servers that it was told; a command that was not
        answered is repeated with its number."""
        self.script.connect()
        self.script.hear("OK epoch=0", TOLD)
        self.assertEqual([each.id for each in self.core.addresses][:3], [1, 3, 4])
        self.assertEqual(self.core.server.shown, "127.0.0.1:9400", "the present server stays the present one")
        self.core.submit("PUT a b", self.script.answers.append, self.script.now)
        self.script.note()
        self.script.hear("OK epoch=1 last=0 resumed=no opened=1")
        self.assertIn("#1 PUT a b", self.script.take())
        reached = []
        for _ in range(4):
            self.script.hang_up("refused")
            self.script.pass_time(2.0)
            reached.append(self.core.server.shown)
        self.assertIn("127.0.0.1:9403", reached)
        self.assertIn("127.0.0.1:9404", reached)
        while self.core.server.shown != "127.0.0.1:9403":
            self.script.hang_up("refused")
            self.script.pass_time(2.0)
        self.script.take()
        self.script.connect()
        self.assertEqual([line.split()[0] for line in self.script.take()], ["MEMBERS", "HELLO"])
        self.script.hear("OK epoch=2", TOLD, "OK epoch=1 last=0 resumed=no opened=1")
        self.assertIn("#1 PUT a b", self.script.take())

    def test_removed_server_stays_until_the_client_leaves_it(self) -> None:
        """A client stays at its present server although the servers that are told do not include it."""
        self.script.connect()
        self.script.hear("OK epoch=3", '* MEMBERS epoch=3 server7="127.0.0.1:9407"')
        self.assertEqual(self.core.server.shown, "127.0.0.1:9400")
        self.script.hear("* MEMBERS epoch=4")
        self.assertEqual(self.core.server.shown, "127.0.0.1:9400")
        self.assertEqual(len(self.core.addresses), 3)

    def test_server_of_an_earlier_version_tells_nothing(self) -> None:
        self.script.connect()
        self.script.hear("ERR UNKNOWN fate=none unknown verb MEMBERS")
        self.assertEqual([*self.core.addresses], ADDRESSES)
        self.assertTrue(self.core.is_connected)

    def test_client_that_does_not_learn_passes_the_event_on(self) -> None:
        told: list[str] = []
        core = ClientCore(ADDRESSES, on_event=lambda event: told.append(event.name))
        script = Script(core)
        script.take()
        script.connect()
        self.assertEqual(script.take(), [])
        script.hear(TOLD)
        self.assertEqual((told, core.addresses), (["MEMBERS"], ADDRESSES))
