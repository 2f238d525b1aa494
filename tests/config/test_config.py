"""A correct configuration is read whole; for any other, one line tells what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.config.config import Config, ConfigError, Limits, ServerConfig, Timers, load
from pfsb.paxos.settings import Settings
from tests.examples import examples

ETC = Path(pfsb.__file__).parent.parent / "etc"


def four() -> dict[str, Any]:
    """The configuration of docs/operating.rst, for a test to spoil."""
    found: dict[str, Any] = yaml.safe_load((ETC / "four.yaml").read_text())
    return found


class ConfigTestCase(SynchronousTestCase):
    def file(self, text: str | bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def load(self, content: object) -> Config:
        return load(self.file(yaml.safe_dump(content)))

    def refusal(self, text: str | bytes) -> str:
        """The error message for this text, without the name of the file with which it must begin."""
        path = self.file(text)
        error = self.assertRaises(ConfigError, load, path)
        named, _, rest = str(error).partition(": ")
        self.assertEqual(named, path)
        self.assertNotIn("\n", rest)
        return rest

    def assertRefused(self, content: object, rest: str) -> None:
        self.assertEqual(self.refusal(yaml.safe_dump(content)), rest)


class ReadingTests(ConfigTestCase):
    def test_the_example_of_the_documentation_is_read_whole(self) -> None:
        """The example in docs/operating.rst is read, and each of its values is in the configuration."""
        config = load(ETC / "four.yaml")
        self.assertEqual(
            (config.cluster, config.f, config.transport, config.apps, config.storage, config.secret_file),
            ("four", 1, "udp", ("chat", "lock", "kv"), "var/four", None),
        )
        self.assertEqual(config.timers, Timers(progress=1.0, update=0.5, alive=0.2))
        self.assertEqual(config.limits, Limits(32_768, 10_000, 128, 10.0))
        self.assertEqual((config.window, config.snapshot_every, config.faults), (16, 10_000, False))
        self.assertEqual(
            config.server(2),
            ServerConfig(2, ("127.0.0.1", 7402), "tcp:9402:interface=127.0.0.1", "tcp:8402:interface=127.0.0.1"),
        )

    def test_each_file_of_etc_has_the_servers_of_its_name_and_ports_of_its_own(self) -> None:
        """Each file in etc/ has as many servers as its name says, and ports of its own, so that all clusters can run on
        one machine."""
        configs = [load(ETC / f"{name}.yaml") for name in ("one", "three", "four", "five")]
        self.assertEqual([(config.n, config.f) for config in configs], [(1, 0), (3, 1), (4, 1), (5, 2)])
        peers = [server.peer for config in configs for server in config.servers.values()]
        ports = [
            port for config in configs for server in config.servers.values() for port in (server.client, server.http)
        ]
        self.assertEqual(len(set(peers)), 13)
        self.assertEqual(len(set(ports)), 26)

    def test_only_the_name_and_the_servers_are_needed(self) -> None:
        """If only the name and the servers are given, all other values have the defaults of docs/operating.rst, and f
        is the largest that the number of servers allows."""
        whole = four()
        config = self.load({"cluster": "four", "servers": whole["servers"]})
        example = load(ETC / "four.yaml")
        self.assertEqual(config.servers, example.servers)
        for name in ("f", "transport", "apps", "storage", "timers", "limits", "window", "snapshot_every", "faults"):
            self.assertEqual(getattr(config, name), getattr(example, name), name)

    def test_a_key_without_a_value_is_as_good_as_none(self) -> None:
        """A key without a value, as in `secret_file:` and `http: null`, is as good as none."""
        text = (ETC / "four.yaml").read_text() + "secret_file:\n"
        config = load(self.file(text.replace('http: "tcp:8400:interface=127.0.0.1"', "http: null")))
        self.assertIsNone(config.secret_file)
        self.assertIsNone(config.server(0).http)

    def test_what_yaml_takes_for_something_else_is_read_as_it_is_written(self) -> None:
        """Values that YAML takes for something else are read as they are written: a cluster may be called `no`, which
        YAML 1.1 takes for False."""
        config = load(self.file((ETC / "four.yaml").read_text().replace("cluster: four", "cluster: no")))
        self.assertEqual(config.cluster, "no")

    def test_ids_are_ascending_whatever_their_order_in_the_file(self) -> None:
        """The ids of the servers are ascending, whatever their order in the file: they give the leader of a view
        (Departure 26)."""
        server = '{id}: {{peer: "127.0.0.1:74{id:02}", client: "tcp:94{id:02}"}}'
        ids = ", ".join(server.format(id=id) for id in (10, 2, 7))
        self.assertEqual(load(self.file(f"{{cluster: x, servers: {{{ids}}}}}")).ids, (2, 7, 10))

    def test_archive(self) -> None:
        """With the key `archive` each server has a directory of its own there; without the key there is no archive."""
        self.assertIsNone(self.load(four()).archive_directory(2))
        self.assertEqual(self.load({**four(), "archive": "old/four"}).archive_directory(2), Path("old/four/2"))

    def test_archive_that_makes_no_sense_is_refused(self) -> None:
        """An archive with `storage: memory`, which has no files, or inside of the directory of the storage, is
        refused."""
        memory = {**four(), "archive": "old", "storage": "memory"}
        self.assertRefused(memory, "archive: storage: memory writes nothing that could be kept there")
        same = {**four(), "archive": "./var/four"}
        self.assertRefused(same, "archive: is the directory of storage, and must be another one")

    def test_priority(self) -> None:
        """The key `priority` has ids of servers, each once, for the protocol; without the key no server is
        preferred."""
        self.assertEqual(self.load(four()).settings().priority, ())
        self.assertEqual(self.load({**four(), "priority": [2, 0]}).settings().priority, (2, 0))
        self.assertRefused({**four(), "priority": [2, 7]}, "priority: there is no server 7; known are 0, 1, 2, 3")
        self.assertRefused({**four(), "priority": [2, 2]}, "priority: server 2 is there twice")
        self.assertRefused({**four(), "priority": 2}, "priority: must be a list, not 2")

    def test_port_for_redis(self) -> None:
        content = four()
        content["servers"][2]["redis"] = "tcp:6379"
        config = self.load(content)
        self.assertEqual([config.server(i).redis for i in (0, 2)], [None, "tcp:6379"])
        self.assertEqual([*config.server(2).endpoints], ["client", "http", "redis"])
        content["servers"][2]["redis"] = content["servers"][2]["http"]
        self.assertRaises(ConfigError, self.load, content)

    def test_names_for_http(self) -> None:
        self.assertEqual(self.load(four()).http_names, ())
        self.assertEqual(self.load({**four(), "http_names": ["pfsb.example.com", "db"]}).http_names[1], "db")

    def test_peers_may_be_names_and_ipv6_addresses(self) -> None:
        """The host of a peer may be a name, or an IPv6 address in brackets; it goes to the transport without the
        brackets."""
        content = four()
        content["servers"][0]["peer"] = "[::1]:7400"
        content["servers"][1]["peer"] = "node-1.example.org:7400"
        config = self.load(content)
        self.assertEqual(config.server(0).peer, ("::1", 7400))
        self.assertEqual(config.server(1).peer, ("node-1.example.org", 7400))

    def test_a_server_may_listen_elsewhere_than_it_is_reached(self) -> None:
        """A server may listen at a wildcard, behind an address translator, at another port, or by IPv6; without
        `listen` it listens at `peer`."""
        content = four()
        for server_id, listen in enumerate(("0.0.0.0:7400", "[::]:7401", "10.0.0.5:7499")):
            content["servers"][server_id].update(peer=f"db{server_id}:7400", listen=listen)
        config = self.load(content)
        self.assertEqual([config.server(i).listen for i in (0, 1)], [("0.0.0.0", 7400), ("::", 7401)])
        self.assertEqual(config.server(2).receives_at, ("10.0.0.5", 7499))
        self.assertEqual(config.server(3).receives_at, config.server(3).peer)

    def test_servers_at_different_hosts_may_listen_at_equal_addresses(self) -> None:
        """Servers at different hosts may listen at equal addresses, such as wildcards, or behind different translators;
        servers at one host may not."""
        content = four()
        for server_id in range(4):
            content["servers"][server_id].update(peer=f"db{server_id}:7400", listen="10.0.0.5:7400")
        self.load(content)
        for listen in ("0.0.0.0:7500", "10.0.0.5:7500"):
            for server_id in (0, 1):
                content["servers"][server_id].update(peer=f"db0:740{server_id}", listen=listen)
            error = self.assertRaises(ConfigError, self.load, content)
            self.assertIn("servers.1.listen", str(error))
            self.assertIn("is already the address of servers.0.listen", str(error))

    def test_servers_on_two_hosts_may_use_the_same_port(self) -> None:
        """Servers on two hosts may use the same port: all interfaces, or the loopback, of another host are other
        addresses."""
        for client in ("tcp:9400", "tcp:9400:interface=127.0.0.1", "unix:/run/pfsb"):
            content = four()
            for number, server in content["servers"].items():
                server.update(peer=f"10.0.0.{number + 1}:7400", client=client)
            self.assertEqual(self.load(content).server(3).client, client)


class DerivedValueTests(ConfigTestCase):
    def test_a_quorum_is_a_majority(self) -> None:
        """A quorum is floor(N/2) + 1 (section 2 of the paper), for an even number of servers too."""
        quorums = [load(ETC / f"{name}.yaml").quorum for name in ("one", "three", "four", "five")]
        self.assertEqual(quorums, [1, 2, 3, 3])

    def test_settings_have_the_timers_and_the_window_of_the_file(self) -> None:
        """The settings of the protocol have the timers and the window of the file; with doubled timers the derived
        intervals double, too."""
        content = four() | {"timers": {"progress": 2, "update": 0.75, "alive": 0.4}, "window": 20}
        made = self.load(content).settings()
        self.assertEqual((made.progress_seconds, made.update_seconds, made.alive_seconds), (2.0, 0.75, 0.4))
        self.assertEqual((made.resend_seconds, made.reconciliation_seconds, made.window_slots), (0.2, 0.5, 20))

    def test_the_example_gives_the_default_settings(self) -> None:
        """The example of the documentation gives the default settings of the protocol: their proportions are kept."""
        self.assertEqual(load(ETC / "four.yaml").settings(), Settings())

    def test_the_membership_digest_tells_name_and_ids_and_nothing_else(self) -> None:
        """The cluster digest depends on the name and the ids and on nothing else. The digest is stored on disks, so its
        value is fixed for ever (docs/internals/frames.rst)."""
        digest = load(ETC / "four.yaml").membership_digest()
        self.assertEqual(digest.hex(), "249c0eb4b9318ef7")
        self.assertEqual(self.load(four() | {"window": 9}).membership_digest(), digest)
        self.assertNotEqual(self.load(four() | {"cluster": "fore"}).membership_digest(), digest)
        fewer = four()
        del fewer["servers"][3]
        self.assertNotEqual(self.load(fewer).membership_digest(), digest)

    def test_founders_tell_the_cluster_whoever_is_there_now(self) -> None:
        """The founders give the digest of the cluster, whichever servers the file has now; a server of the file that is
        no founder joins."""
        digest = load(ETC / "four.yaml").membership_digest()
        later = four()
        later["servers"][7] = {"peer": "127.0.0.1:7407", "client": "tcp:9407:interface=127.0.0.1"}
        del later["servers"][0]
        config = self.load({**later, "founders": [3, 0, 1, 2]})
        self.assertEqual(
            (config.founding_ids, config.ids, config.membership_digest()), ((0, 1, 2, 3), (1, 2, 3, 7), digest)
        )
        self.assertEqual((config.joining_ids(1), config.joining_ids(7)), ((), (7,)))
        self.assertEqual(load(ETC / "four.yaml").founding_ids, (0, 1, 2, 3))

    def test_wrong_founders_are_refused(self) -> None:
        """`founders` is refused if it is empty, has an id twice, or has a number that is no id."""
        self.assertRefused({**four(), "founders": []}, "founders: is empty (example: [0, 1, 2])")
        self.assertRefused({**four(), "founders": [0, 1, 0]}, "founders: 0 is there twice")
        self.assertRefused({**four(), "founders": [-1]}, "founders.0: must be a whole number from 0 to 65535, not -1")

    def test_each_server_stores_in_a_directory_of_its_own(self) -> None:
        """Each server stores in a directory of its own: storage/id."""
        self.assertEqual(load(ETC / "four.yaml").storage_directory(3), Path("var/four/3"))

    def test_memory_storage_has_no_directory(self) -> None:
        """With `storage: memory` there is no directory, since nothing is kept."""
        self.assertIsNone(self.load(four() | {"storage": "memory"}).storage_directory(3))

    def test_an_unknown_id_is_answered_with_the_known_ones(self) -> None:
        """An unknown server id is refused with one line that has the known ones."""
        config = load(str(ETC / "four.yaml"))
        error = self.assertRaises(ConfigError, config.server, 7)
        self.assertEqual(str(error), f"{ETC / 'four.yaml'}: servers: there is no server 7; known are 0, 1, 2, 3")


class SecretTests(ConfigTestCase):
    def secret(self, content: str | bytes) -> str:
        """Write a file with this secret, which only its owner may read. Returns its path."""
        path = self.file(content)
        Path(path).chmod(0o600)
        return path

    def secrets(self, path: str) -> list[bytes]:
        return self.load(four() | {"secret_file": path}).secrets()

    def assertNoSecret(self, path: str, text: str) -> None:
        config = self.load(four() | {"secret_file": path})
        error = self.assertRaises(ConfigError, config.secrets)
        self.assertEqual(str(error), f'{config.file}: secret_file: "{path}": {text}')

    def test_without_a_secret_file_there_is_no_secret(self) -> None:
        """Without the key `secret_file` the cluster has no secret."""
        self.assertEqual(load(ETC / "four.yaml").secrets(), [])

    def test_the_secret_does_not_hold_the_line_end_of_its_file(self) -> None:
        """The line end of the file is not part of the secret: editors add one, and servers whose files differ only in
        it understand each other."""
        self.assertEqual(self.secrets(self.secret("s3cr3t\r\n")), [b"s3cr3t"])

    def test_two_lines_are_two_secrets(self) -> None:
        """A file with two lines has two secrets: frames are sent by the first, and taken by both; empty lines count for
        nothing."""
        self.assertEqual(self.secrets(self.secret("new\n\nold\n")), [b"new", b"old"])
        self.assertNoSecret(self.secret("1\n2\n3\n"), "has 3 lines; it holds one secret, or two on two lines")

    def test_a_missing_secret_file_is_an_error_only_for_who_reads_it(self) -> None:
        """A missing file of the secret is an error only when the secret is read: clients load the same configuration
        and need no secret."""
        self.assertNoSecret("no/such.secret", "there is no such file")

    def test_an_empty_secret_is_none(self) -> None:
        """A file with an empty secret is refused: an empty key would authenticate nothing."""
        says = "is empty; `pfsb secret FILE` makes one, which must be the same at every server"
        self.assertNoSecret(self.secret("\n"), says)

    def test_a_secret_has_a_size(self) -> None:
        """A secret that is larger than the maximum is refused."""
        self.assertNoSecret(self.secret(b"x" * 65_537), "is too large, 65536 bytes are allowed")

    def test_a_secret_that_others_may_read_is_none(self) -> None:
        """A file of the secret that other users may read is refused: any of them could speak for every server."""
        for mode in (0o640, 0o604, 0o610, 0o602):
            path = self.secret("s3cr3t")
            Path(path).chmod(mode)
            says = f"others than its owner may use it (mode {mode:03o}); chmod 600 would be right"
            self.assertNoSecret(path, says)


class RefusalTests(ConfigTestCase):
    def spoil(self, *path: str | int, value: object, says: str) -> None:
        """Set `value` at the end of the path in a correct configuration, and check that the error message is `says`."""
        content = four()
        inner: Any = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        self.assertRefused(content, f"{'.'.join(map(str, path))}: {says}")

    def test_a_missing_file(self) -> None:
        """The error for a missing file begins with the name of the file, like all others."""
        error = self.assertRaises(ConfigError, load, "etc/nine.yaml")
        self.assertEqual(str(error), "etc/nine.yaml: there is no such file")

    def test_a_directory(self) -> None:
        """The error for a directory in place of the file has the operating system's reason."""
        error = self.assertRaises(ConfigError, load, str(ETC))
        self.assertEqual(str(error), f"{ETC}: cannot be read: Is a directory")

    def test_a_file_name_that_cannot_be(self) -> None:
        """A file name for which Python raises ValueError, and not OSError, gives an error message that can be
        printed."""
        for path in ("etc/\0.yaml", "etc/\ud800.yaml"):
            error = self.assertRaises(ConfigError, load, path)
            self.assertIn("is no name of a file", str(error))
            self.assertTrue(str(error).isprintable())

    def test_what_is_no_yaml_with_its_line(self) -> None:
        """Text that is no YAML is refused with its line and column, since the path of the key is not known yet."""
        self.assertEqual(
            self.refusal("cluster: four\nf: 1: 2\n"), "line 2, column 5: mapping values are not allowed here"
        )

    def test_characters_and_escapes_that_are_no_yaml(self) -> None:
        """A character or an escape that YAML does not have is refused. PyYAML reports the first in a way of its own,
        and raises ValueError for the second."""
        self.assertEqual(self.refusal("cluster: four\nf: \x01"), "line 2: has a character that YAML does not allow")
        self.assertEqual(self.refusal('cluster: "\\UFFFFFFFF"'), "is not YAML")

    def test_what_is_no_text(self) -> None:
        """A file that is not UTF-8 is refused."""
        self.assertEqual(self.refusal(b"cluster: four\nstorage: \xff"), "line 2: is not UTF-8")

    def test_a_file_without_anything(self) -> None:
        """A file with nothing, or only a comment, is refused as empty."""
        self.assertEqual(self.refusal("# later\n"), "is empty (etc/four.yaml is an example)")

    def test_a_file_that_is_no_mapping(self) -> None:
        """A file whose content is no mapping is refused; the error names no key."""
        self.assertEqual(self.refusal("- four\n"), "must be a mapping of keys to values, not a list")

    def test_a_file_that_is_too_large_or_too_deep(self) -> None:
        """A file that is too large, or has values nested too deeply, is refused."""
        self.assertEqual(self.refusal("#" * 1_000_001), "is too large, 1000000 bytes are allowed")
        self.assertEqual(self.refusal("[" * 1_000), "is nested too deeply")

    def test_an_unknown_key_with_the_nearest_known_one(self) -> None:
        """An unknown key, at any level, is refused with the known one that is most like it."""
        self.spoil("widow", value=1, says='unknown key, did you mean "window"?')
        self.spoil("timers", "progres", value=1, says='unknown key, did you mean "progress"?')
        self.spoil("servers", 2, "per", value="x", says='unknown key, did you mean "peer"?')
        self.spoil(
            "limits",
            "zzz",
            value=1,
            says="unknown key, known are command_bytes, connections, session_window, request_seconds, batch_bytes, "
            "opened_sessions, reserve_bytes, address_connections, address_sessions, memory_bytes, unread_bytes, "
            "unread_seconds",
        )

    def test_a_missing_key(self) -> None:
        """A missing key, or one whose value is null, is refused with its path."""
        for path in (("cluster",), ("servers",), ("servers", 2, "peer"), ("servers", 2, "client")):
            self.spoil(*path, value=None, says="is missing")

    def test_a_server_id_that_is_given_twice(self) -> None:
        """A server id that is given twice is refused; PyYAML would silently keep the second one."""
        text = (ETC / "four.yaml").read_text().replace("  3: {", "  2: {")
        self.assertEqual(self.refusal(text), "servers.2: is given twice, on lines 9 and 10")

    def test_any_key_that_is_given_twice(self) -> None:
        """Any key that is given twice is refused."""
        self.assertEqual(self.refusal("cluster: a\ncluster: a\n"), "cluster: is given twice, on lines 1 and 2")

    def test_a_server_id_that_is_no_small_whole_number(self) -> None:
        """A server id must be a whole number of 16 bits, as frames carry it."""
        for written in ("-1", "1.5", "two", "065", "65536"):
            text = (ETC / "four.yaml").read_text().replace("  3: {", f"  {written}: {{")
            step = f'"{written}"' if "." in written else written
            self.assertEqual(
                self.refusal(text), f"servers.{step}: must be a whole number from 0 to 65535, not {written}"
            )

    def test_a_server_id_that_is_a_text(self) -> None:
        """A server id that is a quoted number, and so a text, is refused: numbers are written without quotes
        everywhere."""
        text = (ETC / "four.yaml").read_text().replace("  3: {", '  "3": {')
        self.assertEqual(self.refusal(text), 'servers.3: must be a whole number from 0 to 65535, not the text "3"')

    def test_no_servers(self) -> None:
        """A configuration without servers is refused; one server is enough."""
        self.spoil("servers", value={}, says='is empty (example: 0: {peer: "127.0.0.1:7400", client: "tcp:9400"})')

    def test_fewer_servers_than_the_failures_need(self) -> None:
        """A configuration with fewer than 2f+1 servers is refused."""
        self.spoil("f", value=2, says="2 needs at least 5 servers, 4 are given")

    def test_a_peer_without_a_port(self) -> None:
        """The error for a peer without a port shows the value, and a correct one."""
        for written in ("localhost", "[::1]"):
            self.spoil("servers", 2, "peer", value=written, says=f'"{written}" has no port (example: "127.0.0.1:7402")')

    def test_a_peer_that_is_no_address(self) -> None:
        """The error for a peer that is no address says what is wrong with it."""
        for written, wrong in (
            ("127.0.0.1:0", "has no port from 1 to 65535"),
            ("127.0.0.1:65536", "has no port from 1 to 65535"),
            ("127.0.0.1:", "has no port from 1 to 65535"),
            ("::1:7402", "is no address"),
            ("[::x]:7402", "names no host"),
            (":7402", "names no host"),
            ("127.0.0.256:7402", "names no host"),
            ("two words:7402", "names no host"),
            ("0.0.0.0:7402", "is nowhere that the other servers could send to"),
            ("[::]:7402", "is nowhere that the other servers could send to"),
        ):
            self.spoil("servers", 2, "peer", value=written, says=f'"{written}" {wrong} (example: "127.0.0.1:7402")')

    def test_an_endpoint_that_twisted_does_not_know(self) -> None:
        """An endpoint that Twisted does not know is refused, without an attempt to listen there."""
        example = '(example: "tcp:9402:interface=127.0.0.1")'
        for written in ("tpc:9402", "tcp", "tcp:http", "tcp:9402:interfaces=127.0.0.1", "9402", "tcp:9402\\"):
            shown = written.replace("\\", "\\\\")
            for key in ("client", "http"):
                self.spoil(
                    "servers", 2, key, value=written, says=f'"{shown}" is no endpoint that Twisted knows {example}'
                )
        for written in ("tcp:0", "tcp:65536", "tcp6:-1"):
            self.spoil("servers", 2, "client", value=written, says=f'"{written}" has no port from 1 to 65535 {example}')

    def test_a_listening_address_is_an_ip_address(self) -> None:
        """`listen` must be an IP address: a name would have to be looked up before the server can receive anything."""
        for written, wrong in (
            ("db0:7400", "has a name where an IP address must be"),
            ("0.0.0.0", "has no port"),
            ("[::]", "has no port"),
            ("300.0.0.1:7400", "names no host"),
        ):
            says = f'"{written}" {wrong} (example: "0.0.0.0:7402")'
            self.spoil("servers", 2, "listen", value=written, says=says)

    def test_two_servers_with_one_peer_address(self) -> None:
        """The second of two servers with one peer address is named as wrong, with the first."""
        self.spoil(
            "servers",
            3,
            "peer",
            value="127.0.0.1:7400",
            says='"127.0.0.1:7400" is already the address of servers.0.peer',
        )

    def test_two_endpoints_at_one_address(self) -> None:
        """Two endpoints at one address are refused, for clients and HTTP alike; an endpoint without an interface takes
        the port on the whole host."""
        for written in ("tcp:9400", "tcp:port=9400:interface=0.0.0.0", "tcp:9400:interface=127.0.0.1:backlog=9"):
            self.spoil(
                "servers", 3, "http", value=written, says='"127.0.0.1:9400" is already the address of servers.0.client'
            )

    def test_one_unix_socket_for_two_servers_of_a_host(self) -> None:
        """One Unix socket for two servers of a host is refused: endpoints that are not TCP are compared as they are
        written."""
        content = four()
        for number in (1, 2):
            content["servers"][number]["client"] = "unix:/run/pfsb"
        self.assertRefused(
            content, 'servers.2.client: "unix:/run/pfsb on 127.0.0.1" is already the address of servers.1.client'
        )

    def test_an_unknown_transport(self) -> None:
        """The error for an unknown transport names the known ones."""
        self.spoil("transport", value="upd", says="must be udp or tcp or tls, not upd")
        self.spoil("transport_before", value="quic", says="must be udp or tcp or tls, not quic")

    def test_the_former_transport_is_another_one(self) -> None:
        """A former transport that is equal to the present one is refused: the key would say nothing, and may have been
        meant otherwise."""
        self.spoil("transport_before", value="udp", says="udp is the transport already; another one is meant")

    def test_peers_that_connect_where_clients_do(self) -> None:
        """The peer port may be equal to a port of clients with UDP, and not with TCP or TLS, since UDP has ports of its
        own."""
        content = four()
        content["servers"][1]["client"] = "tcp:7401:interface=127.0.0.1"
        self.assertEqual(self.load(content).transports, ("udp",))
        content["transport"] = "tcp"
        self.assertRefused(content, 'servers.1.client: "127.0.0.1:7401" is already the address of servers.1.peer')

    def test_numbers_out_of_range(self) -> None:
        """For each number, both ends of its range are allowed, and the numbers next to them are not."""
        for path, low, high in (
            (("window",), 1, 1_000),
            (("snapshot_every",), 0, 1_000_000_000),
            (("limits", "command_bytes"), 256, 49_152),
            (("limits", "connections"), 1, 1_000_000),
            (("limits", "session_window"), 1, 10_000),
            (("limits", "batch_bytes"), 1, 48_000),
            (("limits", "opened_sessions"), 1, 10_000),
            (("limits", "reserve_bytes"), 0, 1_000_000_000_000),
            (("limits", "address_connections"), 1, 1_000_000),
            (("limits", "address_sessions"), 1, 100_000_000),
            (("limits", "memory_bytes"), 67_108_864, 2**50),
            (("limits", "unread_bytes"), 1_048_576, 1_000_000_000_000),
        ):
            for allowed in (low, high):
                content = four()
                (content if len(path) == 1 else content[path[0]])[path[-1]] = allowed
                self.load(content)
            for refused in (low - 1, high + 1):
                says = f"must be a whole number from {low} to {high}, not {refused}"
                self.spoil(*path, value=refused, says=says)

    def test_a_negative_number_of_failures(self) -> None:
        """A negative number of failures is refused; zero is allowed."""
        self.spoil("f", value=-1, says="must be a whole number from 0 to 1000000000, not -1")

    def test_what_is_no_number(self) -> None:
        """A value that only looks like a whole number, or a text, is refused where a number is wanted."""
        kind = "must be a whole number from 1 to 1000, not"
        self.spoil("window", value=1.5, says=f"{kind} 1.5")
        self.spoil("window", value="16", says=f"{kind} the text '16'".replace("'", '"'))
        self.spoil("window", value=True, says=f"{kind} true")
        self.spoil("window", value=[16], says=f"{kind} a list")

    def test_seconds_out_of_range(self) -> None:
        """A time in seconds that is zero, negative, infinite or a word is refused."""
        for refused, shown in ((0, "0"), (-1, "-1"), (3601, "3601"), (float("inf"), ".inf"), (float("nan"), ".nan")):
            for path in (("timers", "update"), ("limits", "request_seconds")):
                self.spoil(*path, value=refused, says=f"must be seconds, from 0.001 to 3600, not {shown}")

    def test_alive_messages_too_rare_for_the_progress_timer(self) -> None:
        """`alive_seconds` must be at most half of the Progress_Timer, so that one ALIVE may get lost before the leader
        is suspected."""
        says = "alive must be less than half of progress, so less than {} seconds, not {}"
        self.spoil("timers", "alive", value=0.5, says=says.format("0.5", "0.5"))
        self.spoil("timers", value={"progress": 0.4}, says=says.format("0.2", "0.2"))

    def test_what_is_neither_true_nor_false(self) -> None:
        """A value that is neither true nor false is refused where one of them is wanted; YAML's yes and no are words
        here."""
        text = (ETC / "four.yaml").read_text().replace("faults: false", "faults: no")
        self.assertEqual(self.refusal(text), "faults: must be true or false, not no")

    def test_a_cluster_name_that_is_no_word(self) -> None:
        """The name of a cluster must be one word: it is part of paths, and stands without quotes in the line
        protocol."""
        for written, shown in (("four servers", '"four servers"'), ("../four", "../four"), ("x" * 65, f'"{"x" * 65}"')):
            self.spoil("cluster", value=written, says=f"must be up to 64 letters, digits and _ . -, not {shown}")

    def test_applications_that_cannot_be_started(self) -> None:
        """`apps` must name at least one application, and each once."""
        self.spoil("apps", value=[], says="is empty (example: [chat, lock, kv])")
        self.spoil("apps", value=["kv", "chat", "kv"], says="kv is there twice")
        self.spoil("apps", value="kv", says="must be a list, not kv")
        self.assertRefused(
            four() | {"apps": ["kv", "a b"]}, 'apps.1: must be up to 64 letters, digits and _ . -, not "a b"'
        )

    def test_names_for_http_that_are_no_hosts(self) -> None:
        self.assertRefused(
            {**four(), "http_names": ["db", "http://db"]},
            'http_names.1: "http://db" is no name of a host (example: "pfsb.example.com")',
        )
        self.assertRefused({**four(), "http_names": "db"}, "http_names: must be a list, not db")

    def test_a_yaml_tag(self) -> None:
        """A YAML tag is refused: it would change the meaning of a value."""
        self.assertEqual(
            self.refusal("cluster: !!int 4\nservers: {}\n"),
            'cluster: has the tag "tag:yaml.org,2002:int"; the plain value would be right',
        )

    def test_a_complaint_is_one_printable_line_whatever_was_written(self) -> None:
        """An error message is one line without control characters, and is cut off if it is long."""
        said = self.refusal(yaml.safe_dump({"cluster": "\ud800\n\x1b[2J" + "x" * 10_000, "servers": {}}))
        self.assertTrue(said.isprintable())
        self.assertLess(len(said), 300)

    def test_a_bomb_of_aliases_is_refused_at_once(self) -> None:
        """Aliases of aliases, which would make ten thousand million values of ten levels, are refused at once."""
        levels = "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 11))
        self.assertEqual(
            self.refusal(f"cluster:\n- &a0 [x]\n{levels}servers: {{}}\n"), "cluster: must be text, not a list"
        )


KEYS = st.sampled_from([*four(), "secret_file", "peer", "client", "http", "progress", "alive", "connections", 0, 3])
STRINGS = st.sampled_from(["tcp:9400", "[::1]:74", "localhost:7400", "unix:x", "memory", "udp", "kv"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


class AnyTextTests(ConfigTestCase):
    def outcome(self, text: str) -> None:
        """Load the text; only a `ConfigError` of one printable line may be raised."""
        path = self.file(text)
        try:
            load(path)
        except ConfigError as error:
            self.assertTrue(str(error).startswith(f"{path}: "))
            self.assertTrue(str(error).isprintable(), str(error))
        finally:
            Path(path).unlink()

    @examples(150, database=None)
    @given(st.dictionaries(KEYS | st.text(), VALUES, max_size=6))
    def test_no_mapping_raises_anything_but_a_config_error(self, mapping: dict[object, object]) -> None:
        """Any wrong configuration is refused with one line."""
        self.outcome(yaml.safe_dump(mapping))

    @examples(150, database=None)
    @given(st.lists(KEYS, min_size=1, max_size=3), VALUES)
    def test_one_wrong_value_in_a_right_file_raises_nothing_else(self, path: list[object], value: object) -> None:
        """A wrong value in a file that is otherwise correct is refused with one line."""
        content: Any = four()
        inner = content
        for key in path[:-1]:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else {}
        if isinstance(inner, dict):
            inner[path[-1]] = value
        self.outcome(yaml.safe_dump(content))

    @examples(150, database=None)
    @given(
        st.text(alphabet=st.sampled_from("ab0:-,[]{}&*!|>'\"%@`#?\\Ux~<\n\t \ud800\x85")).map(
            lambda t: t.encode("utf-8", "replace").decode()
        )
    )
    def test_no_text_raises_anything_but_a_config_error(self, text: str) -> None:
        """Text that is not even YAML is refused with one line."""
        self.outcome(text)
