"""Tokens by which clients show their rights, and the lines of a token file, which hold only salted hashes of them.

A token is `NAME.SECRET`: a name, by which the server finds the line of the token, and 256 random bits. A line has the
name, the role, and `scrypt:LOG2_N:R:P:SALT:CHECK:HASH`, the last three in hexadecimal digits. HASH is made by scrypt, a
function that needs much time and memory on purpose. CHECK is 16 bits of a quick hash of the same secret: a guess that
does not fit it is refused without scrypt, so that a client who tries thousands of tokens costs the server next to
nothing. A thief of the file learns 16 of the 256 bits by it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from hmac import compare_digest
from typing import Final

from attrs import field, frozen

from pfsb.support.rights import ROLES, Right

SECRET_BYTES: Final = 32
"""Number of random bytes in a token."""
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
CHECK_BYTES: Final = 2
"""Number of bytes of the quick hash that a line of a token file holds."""
LOG2_N: Final = 14
BLOCK_SIZE: Final = 8
PARALLEL: Final = 1
"""Parameters of scrypt (RFC 7914): 16 MiB of memory, and some 50 ms."""
MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Maximum memory, in bytes, that the parameters in a token file may ask for."""
TOKEN_CHARACTERS_MAX: Final = 256
"""Maximum length of a token that a client shows, in characters."""
LINE_FORM: Final = "NAME ROLE scrypt:..., as pfsb token writes it"

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")
_LINE: Final = re.compile(
    r"(?P<name>\S+) +(?P<role>\S+) +scrypt:(?P<n>[0-9]{1,2}):(?P<r>[0-9]{1,2}):(?P<p>[0-9]{1,2})"
    rf":(?P<salt>[0-9a-f]{{{2 * SALT_BYTES}}}):(?P<check>[0-9a-f]{{{2 * CHECK_BYTES}}})"
    rf":(?P<hash>[0-9a-f]{{{2 * HASH_BYTES}}})"
)


class WrongLine(ValueError):
    """Raised for a line of a token file that cannot be used; the text says why, and repeats none of its hashes."""


def is_token_name(name: str) -> bool:
    """Whether a text can be the name of a token: 1 to 32 letters, digits, hyphens and underscores."""
    return _NAME.fullmatch(name) is not None


def is_token(text: str) -> bool:
    """Whether a text can be a token, whether or not a server knows it: characters that every protocol takes as they
    are, with a name before the first dot."""
    name, dot, secret = text.partition(".")
    fits = len(text) <= TOKEN_CHARACTERS_MAX and _TOKEN.fullmatch(text) is not None
    return fits and bool(dot and secret) and is_token_name(name)


def name_of(token: str) -> str:
    """The name in a token."""
    return token.partition(".")[0]


@frozen
class KnownToken:
    """A token as a server knows it: its name, its right, and hashes of its secret."""

    name: str
    right: Right
    salt: bytes = field(repr=False)
    check: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    log2_n: int = LOG2_N
    block_size: int = BLOCK_SIZE
    parallel: int = PARALLEL

    @classmethod
    def parse(cls, line: str) -> KnownToken:
        """Parse a line of a token file. Raises `WrongLine`."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise WrongLine(f"has not the form {LINE_FORM}")
        if not is_token_name(found["name"]):
            raise WrongLine("begins with no name of a token: 1 to 32 letters, digits, hyphens and underscores")
        if found["role"] not in ROLES:
            raise WrongLine(f"has a role that is none: {', '.join(ROLES)} are right")
        log2_n, block_size, parallel = int(found["n"]), int(found["r"]), int(found["p"])
        memory = 128 * 2**log2_n * block_size
        if not (log2_n and block_size and parallel == 1 and memory <= MEMORY_BYTES_MAX):
            raise WrongLine(f"asks for a scrypt that is not allowed here: P is 1, and {MEMORY_BYTES_MAX} bytes suffice")
        salt, check, made = (bytes.fromhex(found[part]) for part in ("salt", "check", "hash"))
        return cls(found["name"], ROLES[found["role"]], salt, check, made, log2_n, block_size, parallel)

    @property
    def line(self) -> str:
        """The line of the token file."""
        parts = (self.log2_n, self.block_size, self.parallel, self.salt.hex(), self.check.hex(), self.hash.hex())
        return f"{self.name} {self.right.word} scrypt:{':'.join(map(str, parts))}"

    def may_be(self, token: str) -> bool:
        """Whether a token fits the quick hash, which one wrong token of 65,536 does."""
        return compare_digest(_check(token, self.salt), self.check)

    def is_of(self, token: str) -> bool:
        """Whether a token is this one. Takes some 50 ms and 16 MiB, without holding the interpreter's lock: called in
        a thread."""
        made = _scrypt(token, self.salt, self.log2_n, self.block_size, self.parallel)
        return compare_digest(made, self.hash)


def make_token(name: str, right: Right, log2_n: int = LOG2_N) -> tuple[str, KnownToken]:
    """Make a token; returns the text that its owner shows, and the form in which servers know it.

    A lower `log2_n` makes its checks cheaper, which is only good for tests.
    """
    token = f"{name}.{secrets.token_urlsafe(SECRET_BYTES)}"
    salt = secrets.token_bytes(SALT_BYTES)
    made = _scrypt(token, salt, log2_n, BLOCK_SIZE, PARALLEL)
    return token, KnownToken(name, right, salt, _check(token, salt), made, log2_n)


def _check(token: str, salt: bytes) -> bytes:
    return hashlib.blake2b(token.encode(), key=salt, digest_size=CHECK_BYTES).digest()


def _scrypt(token: str, salt: bytes, log2_n: int, block_size: int, parallel: int) -> bytes:
    most = 128 * block_size * (2**log2_n + parallel + 2) + 1_048_576
    return hashlib.scrypt(
        token.encode(), salt=salt, n=2**log2_n, r=block_size, p=parallel, maxmem=most, dklen=HASH_BYTES
    )
