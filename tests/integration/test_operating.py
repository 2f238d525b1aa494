"""Servers in the hands of an operator: background, pid files, signals, files that are moved away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from pfsb.demo.processes import ProcessCluster, server_command
from tests.integration.case import ClusterCase

SECONDS = 60.0


def is_running(pid: int) -> bool:
    """Whether the process exists, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def takes_hangup(pid: int) -> bool:
    """Whether the process has a handler for SIGHUP."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught & 1 << signal.SIGHUP - 1)


class OperatingCase(ClusterCase):
    async def run_command(self, directory: Path, *words: str) -> tuple[int, str]:
        """Run a program of this Python, such as `twistd`. Returns its exit status and its standard error."""
        command = [sys.executable, str(Path(sys.executable).with_name(words[0])), *words[1:]]
        found: Any = await deferToThread(
            subprocess.run, command, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        return found.returncode, found.stderr

    async def until(self, cluster: ProcessCluster, what: str, look: Any) -> None:
        async def asynchronously() -> bool:
            return bool(look())

        await cluster.wait_for(what, asynchronously, SECONDS)


class DaemonTests(OperatingCase):
    """`twistd pfsb` without `-n`, which runs the server in the background."""

    async def start_daemon(self, cluster: ProcessCluster, *words: str) -> int:
        """Start server 0 in the background. Returns the id of its process."""
        status, text = await self.run_command(
            cluster.directory, "twistd", "pfsb", "--id", "0", "--config", "cluster.yaml", *words
        )
        self.assertEqual((status, text), (0, ""))
        pid = int((cluster.directory / "pfsb-0.pid").read_text())
        self.addCleanup(self.end, pid)
        return pid

    def end(self, pid: int) -> None:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)

    async def test_start_that_fails_in_the_background_is_told_in_the_terminal(self) -> None:
        """A start that fails in the background is reported in the terminal, by exit status 1 and one line. Nothing is
        left, and the next start works."""
        cluster = self.make_cluster(1)
        status, text = await self.run_command(
            cluster.directory, "twistd", "pfsb", "-i", "0", "-c", "cluster.yaml", "--trace", "nowhere/trace"
        )
        self.assertEqual(status, 1)
        self.assertEqual(text, "pfsb: [Errno 2] No such file or directory: 'nowhere/trace'\n")
        self.assertFalse((cluster.directory / "pfsb-0.pid").exists())
        self.assertIn("nowhere/trace", (cluster.directory / "pfsb-0.log").read_text())
        pid = await self.start_daemon(cluster)
        line, log = f"its data is in {cluster.data(0).absolute()}", cluster.directory / "pfsb-0.log"
        await self.until(cluster, "the line in the log", lambda: line in log.read_text())
        self.assertTrue((await cluster.ask(0, "STATUS")).ok, "the port is open when the command ends")
        os.kill(pid, signal.SIGTERM)
        await self.until(cluster, "the server to stop", lambda: not is_running(pid))
        self.assertFalse((cluster.directory / "pfsb-0.pid").exists())

    async def test_pid_file_of_the_past_is_no_obstacle_and_that_of_a_server_is(self) -> None:
        """The pid file of a server that runs keeps another one from starting. One from the past does not: after a loss
        of power it may be empty, or have the number of another program."""
        cluster = self.make_cluster(1)
        file = cluster.directory / "pfsb-0.pid"
        for content in ("", str(os.getpid())):
            file.write_text(content)
            pid = await self.start_daemon(cluster)
            os.kill(pid, signal.SIGKILL)
            await self.until(cluster, "the server to die", lambda pid=pid: not is_running(pid))
            self.assertTrue(file.exists(), "kill -9 leaves it behind")
        pid = await self.start_daemon(cluster)
        other = self.make_cluster(1)
        (cluster.directory / "other.yaml").write_bytes((other.directory / "cluster.yaml").read_bytes())
        status, _ = await self.run_command(
            cluster.directory, "twistd", "pfsb", "-i", "0", "-c", "other.yaml", "--storage", "other"
        )
        self.assertEqual((status, int(file.read_text())), (1, pid), "it is that of a server of another cluster")

    async def test_signals_reopen_the_log(self) -> None:
        """SIGHUP and SIGUSR1 make a server open its log anew, after the log was moved away."""
        cluster = self.make_cluster(1)
        pid = await self.start_daemon(cluster)
        log = cluster.directory / "pfsb-0.log"
        for number in (signal.SIGHUP, signal.SIGUSR1):
            log.rename(log.with_name(f"moved-{number}"))
            os.kill(pid, number)
            await self.until(cluster, "a new log", log.exists)
            self.assertTrue((await cluster.ask(0, "STATUS")).ok)
        os.kill(pid, signal.SIGTERM)
        await self.until(cluster, "the server to stop", lambda: not is_running(pid))
        self.assertIn("the server has stopped, as it was asked to", log.read_text())

    async def test_signals_reopen_the_log_of_a_server_that_was_started_at_a_terminal(self) -> None:
        """SIGHUP does not stop a server in the background whose command was typed at a terminal, whether that is closed
        or not."""
        cluster = self.make_cluster(1)
        terminal, end = os.openpty()
        command = [
            sys.executable,
            str(Path(sys.executable).with_name("twistd")),
            "pfsb",
            "-i",
            "0",
            "-c",
            "cluster.yaml",
        ]
        started = subprocess.Popen(
            command, cwd=cluster.directory, stdin=end, stdout=end, stderr=end, start_new_session=True
        )
        os.close(end)
        self.addCleanup(os.close, terminal)
        self.assertEqual(await deferToThread(started.wait, SECONDS), 0)
        pid = int((cluster.directory / "pfsb-0.pid").read_text())
        self.addCleanup(self.end, pid)
        log = cluster.directory / "pfsb-0.log"
        log.rename(moved := log.with_name("moved"))
        os.kill(pid, signal.SIGHUP)
        await self.until(cluster, "a new log", log.exists)
        await cluster.pause(0.5)
        self.assertTrue((await cluster.ask(0, "STATUS")).ok)
        os.kill(pid, signal.SIGTERM)
        await self.until(cluster, "the server to stop", lambda: not is_running(pid))
        self.assertNotIn("the server has stopped", moved.read_text())
        self.assertIn("the server has stopped, as it was asked to", log.read_text())

    async def test_other_storage_nearby_is_warned_of(self) -> None:
        """A server that begins with an empty storage, because it is started in another directory, warns of a storage
        nearby that was made for it."""
        cluster = self.make_cluster(1, transport="udp")  # elsewhere there are no certificates
        pid = await self.start_daemon(cluster)
        os.kill(pid, signal.SIGTERM)
        await self.until(cluster, "the server to stop", lambda: not is_running(pid))
        (cluster.directory / "elsewhere").mkdir()
        status, text = await self.run_command(
            cluster.directory / "elsewhere", "twistd", "pfsb", "-i", "0", "-c", "../cluster.yaml", "--trace", "no/trace"
        )
        self.assertEqual(status, 1)
        self.assertIn("pfsb: warning: server 0 begins with an empty storage in", text)
        self.assertIn(f"{cluster.data(0).resolve()} has one that was made for it", text)


class ForegroundTests(OperatingCase):
    async def test_signals_of_log_programs_end_no_server(self) -> None:
        """SIGHUP and SIGUSR1, which programs that move logs away send, end no server with `-n`, whose log is a
        stream."""
        cluster = await self.start_cluster(1)
        for _ in range(3):
            for number in (signal.SIGHUP, signal.SIGUSR1):
                cluster.signal(0, number)
        await cluster.pause(0.5)
        self.assertTrue((await cluster.ask(0, "STATUS")).ok)
        self.assertEqual(await cluster.terminate(0), 0)

    async def test_signals_during_the_start_end_no_server(self) -> None:
        """SIGHUP and SIGUSR1 end neither a server that is about to start, by itself or under `pfsb cluster`, nor delay
        it. Only the interpreter's own start and that of twistd come before."""
        for program in ([*server_command()[:-1]], [sys.executable, "-m", "pfsb.commands.cluster_child", "-n"]):
            cluster = self.make_cluster(1)
            command = [*program, "pfsb", "--id", "0", "--config", "cluster.yaml"]
            started = subprocess.Popen(
                command,
                cwd=cluster.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.addCleanup(started.wait)
            self.addCleanup(started.kill)
            await self.until(cluster, "the process to take SIGHUP", lambda pid=started.pid: takes_hangup(pid))

            async def answers(cluster: ProcessCluster = cluster, started: subprocess.Popen[bytes] = started) -> bool:
                for number in (signal.SIGHUP, signal.SIGUSR1):
                    started.send_signal(number)
                return bool(await cluster.statuses([0]))

            await cluster.wait_for("the server to answer", answers, SECONDS)
            started.terminate()
            self.assertEqual(await deferToThread(started.wait, SECONDS), 0)
            assert started.stdin is not None
            started.stdin.close()

    async def test_server_whose_terminal_is_closed_stops(self) -> None:
        """A server whose terminal is closed stops, since it could not be stopped there any more. A SIGHUP before that
        only reopens the log."""
        cluster = self.make_cluster(1)
        terminal, end = os.openpty()
        command = server_command("--id", "0", "--config", "cluster.yaml")
        # The program takes the terminal as its own, as a shell in a window does.
        take = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        started = subprocess.Popen(
            [sys.executable, "-c", take, *command],
            cwd=cluster.directory,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
        )
        self.addCleanup(started.wait)
        self.addCleanup(started.kill)
        os.close(end)

        async def answers() -> bool:
            os.set_blocking(terminal, False)
            with contextlib.suppress(BlockingIOError):
                os.read(terminal, 65_536)
            return bool(await cluster.statuses([0]))

        await cluster.wait_for("the server to answer", answers, SECONDS)
        started.send_signal(signal.SIGHUP)
        await cluster.pause(0.5)
        self.assertTrue(await answers())
        os.close(terminal)
        self.assertEqual(await deferToThread(started.wait, SECONDS), 0)

    async def test_chat_log_is_made_right_while_the_server_runs_and_at_its_start(self) -> None:
        """A chat.log that was emptied, moved away, or has zeros after a crash is made right, while the server runs or
        at its start: it has the same bytes as at another server."""
        cluster = await self.start_cluster(2)
        visitor = await self.visit(cluster, 0)
        for number in range(50):
            self.assertTrue((await visitor.ask(f"SAY line {number}")).startswith("OK"))
        await cluster.wait_equal()
        right = cluster.chat_log(0)
        self.assertEqual(right.count(b"\n"), 50)
        file = cluster.data(0) / "chat.log"

        async def is_right() -> None:
            await self.until(cluster, "chat.log to be right", lambda: cluster.chat_log(0) == cluster.chat_log(1))

        os.truncate(file, 0)
        await is_right()
        file.rename(file.with_name("chat.log.moved"))
        self.assertTrue((await visitor.ask("SAY more")).startswith("OK"))
        await is_right()
        self.assertEqual(cluster.chat_log(0).count(b"\n"), 51)
        await cluster.kill(0)
        right = cluster.chat_log(1)
        file.write_bytes(right[:100] + bytes(len(right)))
        cluster.start(0)
        await cluster.wait_up([0])
        await is_right()
        self.assertEqual(cluster.chat_log(0), right)


class ClusterCommandTests(OperatingCase):
    """The servers of `pfsb cluster` end with it."""

    def start_command(self, cluster: ProcessCluster, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(sys.executable).with_name("pfsb")), "cluster", "cluster.yaml", *words]
        with (cluster.directory / "out").open("wb") as out:
            started = subprocess.Popen(command, cwd=cluster.directory, stdout=out, stderr=out)
        self.addCleanup(started.wait)
        self.addCleanup(started.kill)
        return started

    async def test_no_server_is_left_behind(self) -> None:
        """When `pfsb cluster` is killed, or its terminal is closed, no server is left behind."""
        for number in (signal.SIGKILL, signal.SIGHUP):
            cluster = self.make_cluster(2)
            started = self.start_command(cluster)

            async def all_answer(cluster: ProcessCluster = cluster) -> bool:
                return len(await cluster.statuses(cluster.ids)) == 2

            await cluster.wait_for("both servers to answer", all_answer, SECONDS)
            servers = [
                int(path.name) for path in Path("/proc").glob("[0-9]*") if parent_of(int(path.name)) == started.pid
            ]
            self.assertEqual(len(servers), 2)
            started.send_signal(number)
            ends = time.monotonic() + SECONDS
            while any(map(is_running, servers)) and time.monotonic() < ends:
                await cluster.pause(0.1)
            self.assertEqual([pid for pid in servers if is_running(pid)], [])
            self.assertEqual(await deferToThread(started.wait, SECONDS), -number if number == signal.SIGKILL else 0)

    async def test_stop_of_all_servers_is_quiet(self) -> None:
        """Ctrl-C stops all servers without a hand-over, an election or a warning: one line for each server says that it
        has stopped."""
        cluster = self.make_cluster(4)
        started = self.start_command(cluster)
        out = cluster.directory / "out"

        def is_led() -> bool:
            said = out.read_text()
            return "leads view 1" in said and said.count("follows server ") == 3

        await self.until(cluster, "the leader", is_led)
        started.send_signal(signal.SIGINT)
        self.assertEqual(await deferToThread(started.wait, SECONDS), 0)
        stopping, *said = out.read_text().partition("pfsb cluster: stop")[2].splitlines()
        self.assertEqual(stopping, "ping all servers")
        self.assertEqual(len(said), 4, said)
        for line in said:
            self.assertIn("] the server has stopped, as it was asked to", line)

    async def test_start_is_told_in_a_few_lines(self) -> None:
        """`pfsb cluster` prints one line for each server that is up, one for the leader, and the address to type at;
        then the commands that are executed."""
        cluster = self.make_cluster(4)
        started = self.start_command(cluster, "--executed")
        out = cluster.directory / "out"
        await self.until(cluster, "the welcome", lambda: "Ctrl-C stops all" in out.read_text())
        *servers, welcome = [line for line in out.read_text().splitlines() if " executed " not in line]
        self.assertLessEqual(len(servers), 8, servers)
        for server_id in cluster.ids:
            place = cluster.address(server_id).shown
            told = f"server {server_id} of cluster demo is up; clients connect to {place};"
            self.assertEqual(sum(told in line for line in servers), 1)
        self.assertRegex(
            welcome, r"In another terminal: (telnet 127\.0\.0\.1 \d+|\S+/pfsb client cluster\.yaml); there: "
        )
        self.assertTrue((await cluster.ask(1, "PUT colour blue")).ok)
        await self.until(cluster, "all to show it", lambda: out.read_text().count(" #1 PUT colour blue\n") == 4)
        started.send_signal(signal.SIGTERM)
        started.send_signal(signal.SIGTERM)
        self.assertEqual(await deferToThread(started.wait, SECONDS), 0)
        self.assertNotIn("Traceback", out.read_text())

    async def test_log_as_json(self) -> None:
        """With the log as JSON, each line of each server is one object."""
        cluster = self.make_cluster(2)
        started = self.start_command(cluster, "--log-format", "json", "--log-level", "debug")
        out = cluster.directory / "out"
        await self.until(cluster, "the leader to be told", lambda: "leads view 1" in out.read_text())
        started.send_signal(signal.SIGINT)
        self.assertEqual(await deferToThread(started.wait, SECONDS), 0)
        told = [json.loads(line) for line in out.read_text().splitlines() if not line.startswith("pfsb cluster: ")]
        self.assertEqual({line["server"] for line in told}, {0, 1})
        self.assertIn("debug", {line["level"] for line in told})
        self.assertIn("leads view 1", {line["text"] for line in told})
