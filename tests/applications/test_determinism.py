"""Tests of determinism: equal commands in equal order give equal answers and states, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tests
from tests.applications.history import digest
from tests.long import long

root = Path(tests.__file__).resolve().parents[1]


def digest_elsewhere(hash_seed: str, seed: int, commands: int) -> str:
    """`digest` in a process of its own, where sets and dicts of text are laid out after `hash_seed`."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    program = [sys.executable, "-m", "tests.applications.history", str(seed), str(commands)]
    return subprocess.run(program, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


class DeterminismTest(SynchronousTestCase):
    """Tests that `execute` is deterministic."""

    @long
    def test_processes_with_different_hash_seeds_agree(self) -> None:
        """With any hash seed of Python, answers, their order and snapshots are the same: none depends on the order of a
        set."""
        digests = {digest_elsewhere(hash_seed, seed=7, commands=3_000) for hash_seed in ("0", "1", "2")}
        self.assertEqual(digests, {digest(seed=7, commands=3_000)})

    def test_different_histories_differ(self) -> None:
        """Different histories have different digests; otherwise the comparison of processes would prove nothing."""
        self.assertNotEqual(digest(seed=7, commands=100), digest(seed=8, commands=100))
