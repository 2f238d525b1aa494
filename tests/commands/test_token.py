"""`pfsb token`, and where the other subcommands have their token from."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import click
from twisted.trial.unittest import SynchronousTestCase

from pfsb.commands import own_token, token
from pfsb.commands.line_refusals import refusal_of_line
from pfsb.config.config import ConfigError
from pfsb.config.token_file import read_tokens
from pfsb.support.command_line import parse
from pfsb.support.rights import Right


class TokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())

    def test_tokens_are_added_to_a_private_file(self) -> None:
        alice, bob = token.add(self.file, "alice", "admin"), token.add(self.file, "bob", "read")
        known = read_tokens(str(self.file), "x")
        self.assertEqual({name: each.right for name, each in known.items()}, {"alice": Right.ADMIN, "bob": Right.READ})
        self.assertTrue(known["alice"].is_of(alice) and known["bob"].is_of(bob))
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertNotIn(alice.partition(".")[2], self.file.read_text())

    def test_name_that_is_there_is_not_replaced(self) -> None:
        token.add(self.file, "alice", "admin")
        before = self.file.read_bytes()
        self.assertIn("already", str(self.assertRaises(ConfigError, token.add, self.file, "alice", "read")))
        self.assertEqual(self.file.read_bytes(), before)

    def test_removed_token_is_gone_and_comments_stay(self) -> None:
        token.add(self.file, "alice", "admin")
        token.add(self.file, "bob", "read")
        self.file.write_text(f"# who may do what\n{self.file.read_text()}")
        token.remove(self.file, "alice")
        self.assertEqual([*read_tokens(str(self.file), "x")], ["bob"])
        self.assertTrue(self.file.read_text().startswith("# who may do what\nbob read"))
        self.assertIn("no token alice", str(self.assertRaises(ConfigError, token.remove, self.file, "alice")))
        self.assertIn("only token", str(self.assertRaises(ConfigError, token.remove, self.file, "bob")))

    def test_file_that_others_may_read_is_refused(self) -> None:
        token.add(self.file, "alice", "admin")
        self.file.chmod(0o640)
        self.assertIn("chmod 600", str(self.assertRaises(ConfigError, token.add, self.file, "bob", "read")))

    def test_command_line(self) -> None:
        """A wrong command line of `pfsb token` is refused before a file is written."""
        options = parse(token.command, ["f", "alice", "--role", "write", "--out", "t"])
        self.assertEqual((options.name, options.role, options.out), ("alice", "write", Path("t")))
        for words in (
            ["f", "alice"],
            ["f", "al.ice", "--role", "read"],
            ["f", "--role", "read"],
            ["f", "--remove"],
            ["f", "alice", "--remove", "--role", "read"],
            ["f", "alice", "--role", "owner"],
        ):
            self.assertRaises(click.UsageError, parse, token.command, words)


class OwnTokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text("file.secret\n")
        self.path.chmod(0o600)

    def found(self, file: str | None = None, **environment: str) -> str | None:
        with mock.patch.dict(os.environ, environment):
            return own_token.own_token(file)

    def test_where_a_token_comes_from(self) -> None:
        """The token comes from the file that the command line names, or else the environment; the command line never
        holds a token."""
        path = str(self.path)
        self.assertIsNone(self.found())
        self.assertEqual(self.found(PFSB_TOKEN="env.secret"), "env.secret")
        self.assertEqual(self.found(PFSB_TOKEN="env.secret", PFSB_TOKEN_FILE=path), "file.secret")
        self.assertEqual(self.found(path, PFSB_TOKEN="env.secret"), "file.secret")

    def test_what_cannot_be_used_is_said_without_the_token(self) -> None:
        self.path.chmod(0o644)
        for given in ({"PFSB_TOKEN": "hunter2"}, {"PFSB_TOKEN_FILE": str(self.path)}, {"PFSB_TOKEN_FILE": "gone"}):
            error = self.assertRaises(click.UsageError, self.found, **given)
            self.assertNotIn("hunter2", str(error))
            self.assertNotIn("secret", str(error))

    def test_auth_is_not_typed(self) -> None:
        """A line that is typed is kept in the history."""
        self.assertIn("--token-file", refusal_of_line("auth alice.secret"))
