import sys
from pathlib import Path
from struct import unpack_from

from xxhash import xxh3_128_digest

SIZES = {1: 9, 2: 17, 3: 9, 4: 27, 5: 17, 6: 21, 7: 49, 8: 5}  # kind of item -> size in bytes


def groups(directory: Path):
    """Yield (number, [(slot, view, batch), ...]) of each group of a log."""
    chain, last = bytes(8), 0
    for path in sorted(directory.glob("*.log")):
        data, number = path.read_bytes(), int(path.stem)
        if data[24:32] == bytes(8):
            continue  # the first segment was dropped
        chain, last = chain if number == last + 1 else None, number
        (at,) = unpack_from(">I", data, 12)
        salt = data[40:56]
        while data[at : at + 8] == salt[:8]:
            check, before, number, length = unpack_from(">16s8sQI", data, at + 8)
            end = at + 44 + length
            if (chain and before != chain) or check != xxh3_128_digest(salt + data[at + 24 : end]):
                return  # torn, or damaged
            chain, at, slots = check[:8], at + 44, []
            while at < end:
                kind, size = data[at], SIZES[data[at]]
                if kind == 6:
                    slot, view, batch = unpack_from(">QQI", data, at + 1)
                    slots.append((slot, view, data[at + size : at + size + batch]))
                    size += batch
                elif kind == 8:
                    size += unpack_from(">I", data, at + 1)[0]
                at += size
            yield number, slots


for number, slots in groups(Path(sys.argv[1])):
    print(number, *(f"{slot}:{view}:{len(batch)}" for slot, view, batch in slots))
