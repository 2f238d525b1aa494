"""A server that would begin with an empty storage says so when its former storage is nearby."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.commands.check import notes, summary
from pfsb.config.config import Config, load
from pfsb.service.nearby import data_place, storages_elsewhere, warnings_of_start
from pfsb.storage.log.segments import SegmentHead, make_segment
from pfsb.storage.owner import StorageOwner


class NearbyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp()).absolute()
        (self.top / "etc").mkdir(parents=True)
        (self.top / "etc" / "one.yaml").write_text(
            'cluster: one\nstorage: var/one\nservers:\n  0: {peer: "127.0.0.1:7400", client: "tcp:9400"}\n'
        )
        self.addCleanup(os.chdir, Path.cwd())

    def go(self, *names: str) -> Config:
        """Change to a directory below the top, and load the configuration from there."""
        os.chdir(self.top.joinpath(*names))
        return load(str(self.top / "etc" / "one.yaml"))

    def make_storage(self, directory: Path, config: Config, server_id: int = 0) -> None:
        (directory / "log").mkdir(parents=True)
        owner = StorageOwner(config.cluster, config.membership_digest(), config.ids, server_id)
        make_segment(directory / "log", SegmentHead(1, 8_192, b"identity", bytes(16), owner))

    def warned(self, config: Config) -> list[str]:
        directory = config.storage_directory(0)
        assert directory is not None
        return list(warnings_of_start(config, 0, directory))

    def test_start_in_another_directory_is_warned_of(self) -> None:
        """A start in another directory, above, below or beside that of the configuration, warns of the former
        storage."""
        config = self.go()
        self.make_storage(self.top / "var" / "one" / "0", config)
        self.assertEqual(self.warned(config), [])
        for names in (("etc",), ("var",), ("var", "one")):
            (told,) = self.warned(self.go(*names))
            self.assertIn(f"an empty storage in {self.top.joinpath(*names)}/var/one/0", told)
            self.assertIn(f"{self.top}/var/one/0 has one that was made for it", told)
        os.chdir(self.top.parent)
        self.assertEqual(len(self.warned(load(str(self.top / "etc" / "one.yaml")))), 1)

    def test_renamed_directory_is_found(self) -> None:
        """A directory that the operator has put aside under another name is found when a new storage begins in its
        place."""
        config = self.go()
        self.make_storage(self.top / "var" / "one" / "0.old", config)
        self.assertEqual(storages_elsewhere(config, 0, Path("var/one/0")), [self.top / "var" / "one" / "0.old"])
        self.assertEqual(len(self.warned(config)), 1)

    def test_storage_of_another_server_or_of_nobody_is_not_meant(self) -> None:
        """The storage of another server is not warned of, nor a file that only looks like a storage, nor a directory
        that cannot be read as one."""
        config = self.go("etc")
        self.make_storage(self.top / "var" / "one" / "0", config, 1)
        (self.top / "etc" / "x" / "log").mkdir(parents=True)
        (self.top / "etc" / "x" / "log" / "0000000001.log").write_bytes(b"nonsense")
        self.assertEqual(self.warned(config), [])

    def test_check_names_the_absolute_path_and_other_storages(self) -> None:
        """`pfsb check` names the absolute path where a start in this directory would keep the data, and other storages
        nearby."""
        config = self.go("etc")
        self.assertIn(f"keeps its data in {self.top}/etc/var/one/ID\n", summary(config))
        self.make_storage(self.top / "var" / "one" / "0", config)
        said = notes(config, {0: ()})
        self.assertIn(f"warning: {self.top}/var/one/0 holds a storage of server 0, and a start in this", said)
        self.assertIn("uses an empty one", said)
        self.make_storage(self.top / "etc" / "var" / "one" / "0", config)
        self.assertIn("uses another one", notes(config, {0: ()}))

    def test_place_is_absolute(self) -> None:
        self.go("etc")
        self.assertEqual(data_place(Path("var/0")), f"its data is in {self.top}/etc/var/0")
        self.assertEqual(data_place(None), "its data is only in memory")
