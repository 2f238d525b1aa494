"""The contents of a cluster as JSON lines, for programs that know nothing of snapshots: one object a line.

The first line says where the others come from. Each other one holds a key (`kv`), a line of the chat (`chat`) or a lock
that is held (`lock`). A text that is not UTF-8 stands as base64, in a member whose name ends in `_base64`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen

from pfsb.backups.backup_file import BackupState
from pfsb.support.limits import CLIENT_ID_CHARACTERS_MAX

FORMAT: Final = 1
"""Number of the form of the lines."""
KINDS: Final = ("kv", "chat", "lock")


class WrongLine(Exception):
    """Raised for a line that no export has written; the text says what would be right."""


@frozen
class KeyLine:
    """A key with its value."""

    key: bytes
    value: bytes


@frozen
class ChatLine:
    """A line of the chat, and the client that has said it."""

    client: str
    text: str


def lines_of(state: BackupState, kinds: tuple[str, ...] = KINDS) -> Iterator[str]:
    """The lines of a state: keys in the order of their bytes, then the chat, then locks by name."""
    yield _line(
        {
            "pfsb": FORMAT,
            "slot": state.history.seq,
            "revision": state.machine.revision,
            "time_ms": state.history.time_ms,
            "cluster": state.cluster_identity.hex(),
        }
    )
    kv, chat, lock = (state.application(name) if name in kinds else None for name in KINDS)
    if kv is not None:
        for key in sorted(kv.entries):
            value, revision, *_ = kv.entries[key]
            yield _line({"kv": {**_text("key", key), **_text("value", value), "revision": revision}})
    if chat is not None:
        for index, (client, text) in enumerate(chat.lines, start=1):
            yield _line({"chat": {"index": index, "client": client, "text": text}})
    if lock is not None:
        for name, held in sorted(lock.locks.items()):
            yield _line({"lock": {"name": name, "holder": held.holder, "token": held.token, "waiting": [*held.places]}})


def read_line(data: bytes) -> KeyLine | ChatLine | None:
    """The content of a line of an export; None for a line from which nothing is made: the first one, or a lock, which
    belongs to a session. Raises `WrongLine`."""
    try:
        found = json.loads(data.decode())
    except UnicodeDecodeError:
        raise WrongLine("no JSON lines: it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise WrongLine(f"no JSON: {error}") from None
    match found:
        case {"kv": dict(fields)}:
            return KeyLine(_bytes(fields, "key"), _bytes(fields, "value"))
        case {"chat": {"client": str(client), "text": str(said)}}:
            if not is_reserved(client) and not _is_name(client):
                raise WrongLine(
                    f"no client can have the name {client!r:.80}: it has at most {CLIENT_ID_CHARACTERS_MAX} printable "
                    "characters and no space"
                )
            if not _is_encodable(said):
                raise WrongLine("the text has half of a surrogate pair, which is no character")
            return ChatLine(client, said)
        case {"lock": {}}:
            return None
        case {"pfsb": int(version)}:
            if version != FORMAT:
                raise WrongLine(f"lines of form {version}, and this version of pfsb reads form {FORMAT}")
            return None
    raise WrongLine('neither "kv" with key and value, nor "chat" with client and text, nor "lock"')


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False)


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def is_reserved(client: str) -> bool:
    """Whether no client can have this name, because it is that of an anonymous session or of a server, or empty."""
    return not client or client[0] in "~!"


def _is_name(client: str) -> bool:
    return len(client) <= CLIENT_ID_CHARACTERS_MAX and client.isprintable() and " " not in client


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes(fields: dict[str, Any], name: str) -> bytes:
    text, encoded = fields.get(name), fields.get(f"{name}_base64")
    if isinstance(text, str) and encoded is None:
        return text.encode(errors="surrogatepass")
    if isinstance(encoded, str) and text is None:
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            raise WrongLine(f"{name}_base64 is no base64") from None
    raise WrongLine(f'a line with "kv" has either {name} or {name}_base64, which is a text')
