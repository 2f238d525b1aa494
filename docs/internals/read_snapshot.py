import sys
from pathlib import Path
from struct import unpack_from

from msgpack import Unpacker
from xxhash import xxh3_128, xxh3_128_digest


def pieces(data: bytes):
    """Yield (section, data) of each piece of a snapshot or backup. Raises ValueError if it is damaged."""
    if data[:12] != b"pfsbsnap\0\0\0\1" or data[28:44] != xxh3_128_digest(data[:28]):
        raise ValueError("no snapshot of format 1")
    whole, at, count = xxh3_128(data[:28]), 44, 0
    while data[at]:
        name_bytes, size, check = unpack_from(">BI16s", data, at + 1)
        name, start = data[at + 22 : at + 22 + name_bytes], at + 22 + name_bytes
        if check != xxh3_128_digest(data[at + 22 : start + size]):
            raise ValueError(f"piece {count} is damaged")
        whole.update(data[at:start])
        at, count = start + size, count + 1
        yield name.decode(), data[start:at]
    if unpack_from(">Q16s", data, at + 1) != (count, whole.digest()) or len(data) != at + 25:
        raise ValueError("the end does not fit the pieces")


store = Unpacker()
for section, piece in pieces(Path(sys.argv[1]).read_bytes()):
    print(section, len(piece))
    if section == "app kv 1":
        store.feed(piece)
head, *rows, count = [*store] or [None, 0]
for row in rows:
    for key, value, revision in zip(*row, strict=True):
        print(key, value, revision)
