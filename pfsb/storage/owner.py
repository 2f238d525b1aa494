"""The server of a cluster that a storage was made for."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from pfsb.paxos.interfaces import StorageRefused


@frozen
class StorageOwner:
    """One server of one cluster: a storage is made for it, and no other server may use that storage."""

    cluster_name: str
    cluster_digest: bytes
    """Stands for the cluster's name and founding membership (docs/internals/formats.rst)."""
    members: tuple[int, ...]
    """Ids of the founding servers, ascending; shown to people."""
    server_id: int

    def refuse_storage_of(self, other: StorageOwner, path: Path) -> None:
        """Raise `StorageRefused` unless the file `path`, which was made for `other`, is this server's (G20, G29).

        A file of another server holds that server's votes and promises, and lacks those of this server.
        """
        if other.cluster_digest != self.cluster_digest:
            raise StorageRefused(
                f"{path}: made for {other._cluster()}, not for {self._cluster()}; "
                "name, members and directory must match"
            )
        if other.server_id != self.server_id:
            raise StorageRefused(
                f"{path}: made for server {other.server_id}, not for server {self.server_id}; "
                "each server needs a directory of its own"
            )

    def _cluster(self) -> str:
        members = " ".join(map(str, self.members)) or "unknown"
        return f'cluster "{self.cluster_name}" with servers {members} (digest {self.cluster_digest.hex()[:8]})'
