"""Disks that hang or are full (real processes; Departures 44 and 45)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from unittest import SkipTest, mock

from pfsb.client.core.replies import Reply
from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase

DISK_SECONDS = 2.0
HOLD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>
static void *held(const char *name) {
    const char *file = getenv("PFSB_TEST_HOLD");
    while (file && access(file, F_OK) == 0) usleep(20000);
    return dlsym(RTLD_NEXT, name);
}
int fsync(int fd) { return ((int (*)(int)) held("fsync"))(fd); }
int fdatasync(int fd) { return ((int (*)(int)) held("fdatasync"))(fd); }
typedef ssize_t (*writing)(int, const struct iovec *, int, off64_t, int);
ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t at, int flags) {
    return ((writing) held("pwritev2"))(fd, pieces, count, at, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *pieces, int count, off64_t at, int flags) {
    return ((writing) held("pwritev64v2"))(fd, pieces, count, at, flags);
}
"""
"""Source of a library that holds up every sync of a process, those included that are part of a write, as long as a
certain file is there."""


class DiskTroubleCase(ClusterCase):
    async def trouble(self, cluster: ProcessCluster, server_id: int) -> object:
        return (await cluster.status(server_id))["disk"]["trouble"]

    async def wait_trouble(self, cluster: ProcessCluster, server_id: int, trouble: str | None) -> None:
        async def look() -> bool:
            return await self.trouble(cluster, server_id) == trouble

        await cluster.wait_for(f"trouble {trouble} of server {server_id}", look, 60)

    def assertSays(self, reply: Reply, code: str, fate: str) -> None:
        self.assertEqual((reply.code, reply.fate), (code, fate), reply.line)


class HangingDiskTests(DiskTroubleCase):
    """A server whose syncs are held by a library that stands before the C library."""

    async def start_with_one_held_disk(self) -> tuple[ProcessCluster, int, Path]:
        """Start a cluster. Returns the cluster, its leader, and the file by which the leader's syncs can be held up."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SkipTest("a C compiler is needed")
        cluster = self.make_cluster(3, timers={"progress": 1.0, "disk": DISK_SECONDS})
        source, library = (cluster.directory.absolute() / name for name in ("hold.c", "hold.so"))
        source.write_text(HOLD)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        files = {server_id: source.with_name(f"HOLD-{server_id}") for server_id in cluster.ids}
        for server_id, hold in files.items():
            with mock.patch.dict(os.environ, {"LD_PRELOAD": str(library), "PFSB_TEST_HOLD": str(hold)}):
                cluster.start(server_id)
        _view, leader = await cluster.start_all()
        for server_id in cluster.ids:
            self.assertTrue((await cluster.ask(server_id, "PUT k 1")).ok)
        return cluster, leader, files[leader]

    async def test_leader_whose_disk_hangs_is_replaced_and_comes_back(self) -> None:
        """A leader whose disk hangs is replaced: clients are told at once, and the others go on. It comes back without
        a restart."""
        cluster, hung, hold = await self.start_with_one_held_disk()
        hold.touch()
        under_way = await cluster.ask(hung, "PUT k 2", seconds=20)
        self.assertSays(under_way, "UNAVAILABLE", "unknown")
        self.assertSays(await cluster.ask(hung, "PUT k 3"), "UNAVAILABLE", "none")
        others = [i for i in cluster.ids if i != hung]
        _view, leader = await cluster.wait_leader(server_ids=others)
        self.assertNotEqual(leader, hung)
        self.assertTrue((await cluster.ask(others[0], "PUT k 4")).ok)
        hold.unlink()
        await self.wait_trouble(cluster, hung, None)
        await cluster.wait_equal(cluster.ids)
        self.assertTrue((await cluster.ask(hung, "PUT k 5")).ok)

    async def test_sigterm_ends_a_server_whose_disk_hangs(self) -> None:
        """SIGTERM ends a server whose disk hangs, although the thread that writes is inside a system call and never
        comes back."""
        cluster, hung, hold = await self.start_with_one_held_disk()
        hold.touch()
        await cluster.ask(hung, "PUT k 2", seconds=20)
        began = time.monotonic()
        self.assertEqual(await cluster.terminate(hung), 0)
        self.assertLess(time.monotonic() - began, 20)
        hold.unlink()
        cluster.start(hung)
        await cluster.wait_up([hung])
        await cluster.wait_equal(cluster.ids)


class FrozenFileSystemTests(DiskTroubleCase):
    """A server whose file system is frozen: every write to it waits, also those of its log and of `chat.log`."""

    def mount(self, cluster: ProcessCluster, server_id: int) -> Path:
        """Give a server a file system of its own, for its data and its log."""
        place, image = cluster.data(server_id).absolute(), cluster.directory.absolute() / "image"
        place.mkdir(parents=True)
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        for command in (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
            if shutil.which(command[0]) is None or subprocess.run(command, capture_output=True).returncode:
                raise SkipTest("making and mounting a file system needs root")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        self.addCleanup(self.thaw, place, check=False)
        cluster.log_file(server_id).symlink_to(place / "text.log")
        return place

    def freeze(self, place: Path) -> None:
        if shutil.which("fsfreeze") is None or subprocess.run(["fsfreeze", "-f", str(place)]).returncode:
            raise SkipTest("freezing a file system needs root")

    def thaw(self, place: Path, check: bool = True) -> None:
        subprocess.run(["fsfreeze", "-u", str(place)], capture_output=True, check=check)

    async def test_server_whose_log_is_on_the_frozen_disk_tells_its_clients(self) -> None:
        """A server whose log is on a frozen disk tells its clients of the trouble: log and chat are written in threads,
        so the reactor does not wait for them."""
        cluster = self.make_cluster(3, timers={"progress": 1.0, "disk": DISK_SECONDS})
        frozen = 0
        place = self.mount(cluster, frozen)
        await cluster.start_all()
        for number in range(20):
            self.assertTrue((await cluster.ask(frozen, f"SAY {number}")).ok)
        self.freeze(place)
        under_way = await cluster.ask(frozen, "SAY more", seconds=20)
        self.assertSays(under_way, "UNAVAILABLE", "unknown")
        await self.wait_trouble(cluster, frozen, "hangs")
        self.assertSays(await cluster.ask(frozen, "SAY more"), "UNAVAILABLE", "none")
        await cluster.wait_leader(server_ids=[1, 2])
        self.assertTrue((await cluster.ask(1, "SAY elsewhere", seconds=20)).ok)
        self.thaw(place)
        await self.wait_trouble(cluster, frozen, None)
        await cluster.wait_equal(cluster.ids)
        self.assertIn("the disk hangs", (place / "text.log").read_text())


class FullDiskTests(DiskTroubleCase):
    async def test_server_whose_disk_fills_goes_on_when_there_is_room(self) -> None:
        """A server whose disk is filled by another program, a small file system in memory, goes on when there is room
        again."""
        cluster = self.make_cluster(3)
        small = cluster.data(0)
        small.mkdir(parents=True)
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(small)], capture_output=True
        ).returncode:
            raise SkipTest("mounting a file system needs root")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(small)], check=True)
        await cluster.start_all()
        self.assertTrue((await cluster.ask(0, "PUT k 1")).ok)
        self.fill(small / "other")
        await self.wait_trouble(cluster, 0, "full")
        self.assertSays(await cluster.ask(0, "PUT k 2"), "READONLY", "none")
        self.assertTrue((await cluster.ask(0, "GET k read=stale")).ok)
        self.assertTrue((await cluster.ask(1, "PUT k 3", seconds=20)).ok)
        (small / "other").unlink()
        await self.wait_trouble(cluster, 0, None)
        self.assertTrue((await cluster.ask(0, "PUT k 4", seconds=20)).ok)
        await cluster.wait_equal(cluster.ids)

    def fill(self, path: Path) -> None:
        with open(path, "wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(bytes(65_536))
