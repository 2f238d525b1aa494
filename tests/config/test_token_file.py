"""Token files, and the files in which clients keep their tokens."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.config.config import load
from pfsb.config.secret_file import read_secrets
from pfsb.config.token_file import read_token, read_tokens
from pfsb.config.yaml_file import ConfigError
from pfsb.support.rights import Right
from pfsb.support.tokens import make_token

TOKEN, ALICE = make_token("alice", Right.ADMIN, log2_n=2)
BOB = make_token("bob", Right.READ, log2_n=2)[1]


class TokenFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def write(self, text: str | bytes, mode: int = 0o600) -> str:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.path.chmod(mode)
        return str(self.path)

    def refused(self, text: str | bytes, mode: int = 0o600) -> str:
        path = self.write(text, mode)
        return str(self.assertRaises(ConfigError, read_tokens, path, "four.yaml: token_file"))

    def test_comments_and_blank_lines_are_left_out(self) -> None:
        found = read_tokens(self.write(f"# who\n\n{ALICE.line}\n  {BOB.line}  \n"), "x")
        self.assertEqual(found, {"alice": ALICE, "bob": BOB})

    def test_files_that_are_refused_and_what_is_said(self) -> None:
        """The error for a wrong token file names the place, and says what would be right."""
        self.assertIn("chmod 600", self.refused(ALICE.line, 0o640))
        self.assertIn("chmod 600", self.refused(ALICE.line, 0o604))
        self.assertIn("pfsb token FILE NAME", self.refused("# nothing yet\n"))
        self.assertIn("line 2 has not the form", self.refused(f"{ALICE.line}\nbob read\n"))
        self.assertIn("line 2 has the name alice again", self.refused(f"{ALICE.line}\n{ALICE.line}\n"))
        self.assertIn("is not UTF-8", self.refused(b"\xff\n"))
        missing = self.assertRaises(ConfigError, read_tokens, "gone", "four.yaml: token_file")
        self.assertEqual(str(missing), "four.yaml: token_file: there is no such file")

    def test_file_of_a_server_is_a_regular_one(self) -> None:
        """A server refuses a token file that is a pipe or a device: while it waited for the program at the other end,
        it would answer no client."""
        os.mkfifo(self.path, 0o600)
        for read in (read_tokens, read_secrets):
            error = self.assertRaises(ConfigError, read, str(self.path), "four.yaml: file")
            self.assertEqual(str(error), "four.yaml: file: cannot be read: it is no regular file")
        other = Path(self.mktemp())
        other.symlink_to("/dev/null")
        self.assertIn("is no regular file", str(self.assertRaises(ConfigError, read_tokens, str(other), "x")))

    def test_mark_of_utf_8_at_the_beginning_is_left_out(self) -> None:
        """The mark that some editors write at the beginning of a file in UTF-8 is left out."""
        self.assertEqual(read_tokens(self.write(f"\ufeff{ALICE.line}\n"), "x"), {"alice": ALICE})
        self.assertEqual(read_token(self.write(f"\ufeff{TOKEN}\n")), TOKEN)

    def test_configuration_names_the_file(self) -> None:
        """The key `token_file` names the file with the tokens; without the key there are none, and all clients may read
        and write."""
        config = Path(self.mktemp())
        servers = 'servers: {0: {peer: "127.0.0.1:7400", client: "tcp:9400"}}'
        config.write_text(f"cluster: one\n{servers}\n")
        self.assertIsNone(load(config).tokens())
        config.write_text(f"cluster: one\ntoken_file: {self.write(ALICE.line)}\n{servers}\n")
        self.assertEqual(load(config).tokens(), {"alice": ALICE})
        self.path.chmod(0o644)
        self.assertIn("token_file", str(self.assertRaises(ConfigError, load(config).tokens)))

    def test_file_of_a_client(self) -> None:
        """The file of a client holds one token alone; the errors do not show it."""
        self.assertEqual(read_token(self.write(f"{TOKEN}\n")), TOKEN)
        for text, mode in ((TOKEN, 0o644), (f"{TOKEN}\n{TOKEN}", 0o600), (f"token: {TOKEN}", 0o600), ("", 0o600)):
            error = self.assertRaises(ConfigError, read_token, self.write(text, mode))
            self.assertNotIn(TOKEN.partition(".")[2], str(error))

    def test_client_reads_its_token_from_a_pipe(self) -> None:
        """A client can read its token from a pipe, such as a shell makes of `<(...)`."""
        reads, writes = os.pipe()
        self.addCleanup(os.close, reads)
        with open(writes, "w") as file:
            file.write(f"{TOKEN}\n")
        self.assertEqual(read_token(f"/dev/fd/{reads}"), TOKEN)
