"""Findings: inputs that failed, as files that repeat the failure."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from attrs import frozen


@frozen
class Finding:
    """Inputs that, one after the other in a new state, end in a failure."""

    target: str
    round_name: str
    """The argument with which `Target.begin` makes the same state again."""
    inputs: tuple[bytes, ...]
    failure: str
    """Kind and text of the exception."""
    place: str
    """File and line where the exception was raised; findings with the same place are most likely the same fault."""

    @property
    def file_name(self) -> str:
        content = blake2b(b"".join(self.inputs) + self.place.encode(), digest_size=6)
        return f"{self.target}-{content.hexdigest()}.json"

    def write(self, directory: Path) -> Path:
        """Write the file; returns its path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.file_name
        content = {
            "target": self.target,
            "round": self.round_name,
            "failure": self.failure,
            "place": self.place,
            "inputs": [data.hex() for data in self.inputs],
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Finding:
        """Read a file that `write` has written. Raises OSError, ValueError or KeyError for any other file."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            content["target"],
            content["round"],
            tuple(map(bytes.fromhex, content["inputs"])),
            content["failure"],
            content["place"],
        )
