"""The table of all targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pfsb.simulator.fuzz.client_targets import CallTarget, ClientTarget, ReplyTarget
from pfsb.simulator.fuzz.cluster_targets import LieTarget, MessageTarget, PayloadTarget
from pfsb.simulator.fuzz.file_targets import (
    ChatLogTarget,
    ConfigurationTarget,
    LogTarget,
    PositionNoteTarget,
    SnapshotTarget,
)
from pfsb.simulator.fuzz.frame_targets import (
    SECRET,
    BatchTarget,
    BodyTarget,
    FrameTarget,
    HeaderTarget,
    NoticeTarget,
)
from pfsb.simulator.fuzz.port_targets import HTTPTarget, LineTarget, RespTarget
from pfsb.simulator.fuzz.snapshot_targets import PieceTarget, SnapshotBytesTarget
from pfsb.simulator.fuzz.stream_targets import StreamTarget
from pfsb.simulator.fuzz.target import Target

TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "frames": lambda: FrameTarget("frames", None),
    "keyed-frames": lambda: FrameTarget("keyed-frames", SECRET),
    "headers": HeaderTarget,
    "bodies": BodyTarget,
    "notices": NoticeTarget,
    "streams": StreamTarget,
    "batches": BatchTarget,
    "payloads": PayloadTarget,
    "messages": MessageTarget,
    "lies": LieTarget,
    "logs": LogTarget,
    "position-notes": PositionNoteTarget,
    "snapshots": SnapshotTarget,
    "snapshot-bytes": SnapshotBytesTarget,
    "pieces": PieceTarget,
    "chat-logs": ChatLogTarget,
    "configurations": ConfigurationTarget,
    "lines": LineTarget,
    "redis": RespTarget,
    "http": HTTPTarget,
    "replies": ReplyTarget,
    "clients": ClientTarget,
    "calls": CallTarget,
}
"""Name -> a function that makes the target."""
