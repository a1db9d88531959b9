"""What clients do in a second, from what they have done at two moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.observe.wire import Client, Report

WAITING = frozenset(
    {
        "vkDeviceWaitIdle",
        "vkGetQueryPoolResults",
        "vkQueueWaitIdle",
        "vkWaitForFences",
        "vkWaitSemaphores",
    }
)
"""Commands in which the driver waits for the GPU."""
ORDERING = frozenset({"vkWaitRingSeqnoMESA", "vkWaitVirtqueueSeqnoMESA"})
"""Commands in which one stream of a client waits for another."""


@dataclass(frozen=True, slots=True)
class Row:
    """A client, and what it does in a second."""

    client: Client
    commands: float
    submissions: float
    frames: float
    busy: float
    """Share of the time in which one of its queues had work, 0 to 1 for each queue."""
    waits_for: str
    """What its streams wait for, in a few words."""
    gpu: int | None = None
    """Number of the GPU that it is on, where its server has several."""

    @property
    def each(self) -> float:
        """Seconds of a queue's work for each submission; 0 where there was none."""
        return self.busy / self.submissions if self.submissions else 0.0


@dataclass(frozen=True, slots=True)
class ScreenRow:
    """A screen, and its frames in a second."""

    screen: int
    frames: float
    width: int
    height: int


class Rates:
    """Compares the reports of one server, each with the one before."""

    def __init__(self) -> None:
        """Nothing is known yet: all rates are zero."""
        self._last: Report | None = None

    def rows(self, report: Report) -> tuple[list[Row], list[ScreenRow]]:
        """What has happened since the last report."""
        last, self._last = self._last, report
        seconds = report.time - last.time if last is not None else 0.0
        before = {each.context: each for each in last.clients} if last is not None else {}
        frames = {each.screen: each.frames for each in last.screens} if last is not None else {}
        rows = []
        for client in report.clients:
            old = before.get(client.context, client)
            rows.append(
                Row(
                    client,
                    _rate(client.commands - old.commands, seconds),
                    _rate(client.submissions - old.submissions, seconds),
                    _rate(client.frames - old.frames, seconds),
                    _rate((client.busy_ns - old.busy_ns) / 1e9, seconds),
                    waits_for(client.doing),
                    client.gpu if report.gpus else None,
                )
            )
        screens = [
            ScreenRow(
                each.screen,
                _rate(each.frames - frames.get(each.screen, each.frames), seconds),
                each.width,
                each.height,
            )
            for each in report.screens
        ]
        return rows, screens


def _rate(amount: float, seconds: float) -> float:
    return max(0.0, amount) / seconds if seconds > 0 else 0.0


def waits_for(doing: list[tuple[str, str]]) -> str:
    """What a client waits for, by what its streams were doing at one moment.

    A stream at work counts more than one that has nothing to do.
    """
    busy = [(stage, command) for stage, command in doing if stage not in {"asleep", "wait"}]
    for stage, command in busy:
        if stage == "driver" and command in WAITING:
            return f"the GPU ({command})"
    for stage, command in busy:
        if stage == "driver":
            return f"the driver ({command})"
    for _, command in busy:
        if command in ORDERING:
            return f"its own order ({command})"
        return f"Hesper ({command})" if command else "Hesper"
    return "its program"
