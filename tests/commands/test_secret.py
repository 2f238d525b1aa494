"""`pfsb secret`, and the steps by which a secret is changed."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.commands.secret import change
from pfsb.config.config import ConfigError
from pfsb.config.secret_file import read_secrets


class SecretTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())

    def held(self) -> list[bytes]:
        return read_secrets(str(self.file), "the file")

    def test_new_secret_is_random_and_private(self) -> None:
        """Two calls make two secrets of 32 bytes, in hexadecimal digits."""
        change(self.file, None)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        [secret] = self.held()
        other = Path(self.mktemp())
        change(other, None)
        self.assertEqual(len(bytes.fromhex(secret.decode())), 32)
        self.assertNotEqual(other.read_bytes(), self.file.read_bytes())

    def test_file_that_is_there_is_not_written_over(self) -> None:
        """`pfsb secret` does not write over a file that is there: with another secret the cluster would come apart."""
        change(self.file, None)
        before = self.file.read_bytes()
        error = self.assertRaises(ConfigError, change, self.file, None)
        self.assertIn("is there already; --add puts another secret into it", str(error))
        self.assertEqual(self.file.read_bytes(), before)

    def test_three_steps_replace_a_secret(self) -> None:
        """In three steps, of which each leaves every server with all secrets by which another one still sends, a secret
        is replaced."""
        change(self.file, None)
        [former] = self.held()
        change(self.file, "add")
        first, new = self.held()
        self.assertEqual(first, former)
        change(self.file, "swap")
        self.assertEqual(self.held(), [new, former])
        change(self.file, "drop")
        self.assertEqual(self.held(), [new])

    def test_steps_in_a_wrong_order_are_refused(self) -> None:
        """Steps in a wrong order are refused, and each refusal names a step that fits."""
        change(self.file, None)
        for step in ("swap", "drop"):
            self.assertIn("--add", str(self.assertRaises(ConfigError, change, self.file, step)))
        change(self.file, "add")
        self.assertIn("--swap or --drop", str(self.assertRaises(ConfigError, change, self.file, "add")))
        self.file.chmod(0o644)
        self.assertIn("chmod 600", str(self.assertRaises(ConfigError, change, self.file, "swap")))
