"""A core for tests of drivers: its actions are given by the test, and its calls are recorded."""

from __future__ import annotations

from attrs import define, field

from pfsb.client.core.actions import Action


@define(eq=False)
class ScriptedCore:
    """A core with the methods of `Driven`. `events` has the names of the methods that were called, without the
    times."""

    actions: list[Action] = field(factory=list)
    events: list[str | bytes] = field(factory=list)
    wake_at: float | None = None
    stopped: bool = False

    def start(self, now: float) -> None:
        self.events.append("start")

    def stop(self, now: float) -> None:
        self.events.append("stop")
        self.stopped = True

    def connected(self, now: float) -> None:
        self.events.append("connected")

    def received(self, data: bytes, now: float) -> None:
        self.events.append(data)

    def lost(self, why: str, now: float) -> None:
        self.events.append(f"lost: {why}")

    def woken(self, now: float) -> None:
        self.events.append("woken")
        self.wake_at = None

    def take_actions(self) -> list[Action]:
        actions, self.actions = self.actions, []
        return actions
