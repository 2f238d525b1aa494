"""Tokens of clients, and the lines of a token file."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.support.rights import Right
from pfsb.support.tokens import (
    BLOCK_SIZE,
    LOG2_N,
    TOKEN_CHARACTERS_MAX,
    KnownToken,
    WrongLine,
    is_token,
    make_token,
    name_of,
)


class TokenTests(SynchronousTestCase):
    def test_line_recognises_its_own_token_and_no_other(self) -> None:
        """The line that is made with a token, read again from a file, recognises this token and no other."""
        token, made = make_token("alice", Right.WRITE)
        known = KnownToken.parse(made.line)
        self.assertEqual(known, made)
        self.assertTrue(known.may_be(token) and known.is_of(token))
        self.assertFalse(known.is_of(token + "x"))
        self.assertEqual((known.name, known.right, name_of(token)), ("alice", Right.WRITE, "alice"))

    def test_scrypt_has_the_cost_that_the_pages_name(self) -> None:
        """A check of a token takes 16 MiB, which a thief of the token file pays for each guess."""
        _, made = make_token("alice", Right.READ)
        self.assertEqual(128 * 2**made.log2_n * made.block_size, 16 * 2**20)
        self.assertEqual((made.log2_n, made.block_size), (LOG2_N, BLOCK_SIZE))

    def test_line_and_texts_hold_nothing_of_the_token(self) -> None:
        """Neither a line of the token file nor the text of the object, as in a log, holds the secret of the token."""
        token, made = make_token("alice", Right.READ, log2_n=2)
        secret = token.partition(".")[2]
        for text in (made.line, repr(made), str(made)):
            self.assertNotIn(secret, text)
        self.assertNotIn(made.hash.hex(), repr(made))

    def test_two_tokens_of_one_name_differ(self) -> None:
        self.assertNotEqual(make_token("a", Right.READ, 2), make_token("a", Right.READ, 2))

    def test_few_wrong_tokens_fit_the_quick_hash(self) -> None:
        """A share of 2^-16 of all wrong tokens fits the quick hash: of 2,000 guesses, one in thirty runs of this test,
        and never five."""
        _, made = make_token("alice", Right.READ, log2_n=2)
        guesses = (f"alice.{number:043}" for number in range(2_000))
        self.assertLess(sum(map(made.may_be, guesses)), 5)

    def test_texts_that_are_no_tokens(self) -> None:
        """A text that is no token is told from one by its form, without a hash."""
        right = "alice.x"
        self.assertTrue(is_token(right))
        for text in ("", "alice", "alice.", ".x", "al ice.x", "alice.x y", "alice.\u00e9", 'alice."', "a/b.x"):
            self.assertFalse(is_token(text), text)
        self.assertFalse(is_token("a." + TOKEN_CHARACTERS_MAX * "x"))
        self.assertFalse(is_token(f"{33 * 'a'}.x"))

    def test_wrong_lines_are_refused_without_being_repeated(self) -> None:
        """The error for a wrong line does not repeat the line: an error may come into a log, which more people read
        than the file."""
        line = make_token("alice", Right.READ, log2_n=2)[1].line
        name, role, rest = line.split(" ")
        hashes = rest.split(":", 4)[4]
        for wrong in (
            f"{name} {role}",
            f"{name} owner {rest}",
            f"al.ice {role} {rest}",
            line[:-1],
            f"{line} more",
            line.replace("scrypt:", "md5:"),
            line.replace("scrypt:2:8:1", "scrypt:30:8:1"),
            line.replace("scrypt:2:8:1", "scrypt:2:8:9"),
            line.replace("scrypt:2:8:1", "scrypt:0:8:1"),
        ):
            error = self.assertRaises(WrongLine, KnownToken.parse, wrong)
            self.assertNotIn(hashes[:20], str(error), wrong)
