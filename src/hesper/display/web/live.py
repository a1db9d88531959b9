"""The figures that the page shows while it is open."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from hesper.display.rfb.service import RfbService


class GpuFigures(msgspec.Struct, frozen=True):
    """What the device knows and the display does not."""

    contexts: int
    """Contexts that are open."""
    commands: int
    """Vulkan commands since the start."""
    memory: int
    """Bytes of device and shared memory that guests hold."""


GpuSource: TypeAlias = Callable[[], GpuFigures]


class ScreenFigures(msgspec.Struct, frozen=True, rename="camel"):
    """One scanout."""

    width: int
    """Pixels; 0 while the guest shows nothing."""
    height: int
    guest_frames_per_second: float
    """Frames the guest finished."""
    sent_frames_per_second: float
    """Updates sent, to all viewers together."""
    sent_bytes_per_second: float
    viewers: int
    latency: float | None
    """Seconds from the guest's flush to the picture in the page or viewer: the median of the last
    five; None while nothing is shown."""
    late: float | None
    """The 99th percentile of it."""
    videos: int
    """Viewers that get a part of the screen as H.264."""


class Live(msgspec.Struct, frozen=True, rename="camel"):
    """One message to the page."""

    screens: list[ScreenFigures]
    contexts: int | None
    """This and the following are None when no device is connected."""
    commands_per_second: float | None
    memory: int | None
    sound: bool = False
    """Whether there is sound to be heard."""


@dataclass(frozen=True, slots=True)
class _Totals:
    when: float
    flushes: list[int]
    updates: list[int]
    sent: list[int]
    commands: int


class LiveSampler:
    """Makes rates out of totals, between one sample and the next; one sampler for each page."""

    def __init__(self, service: RfbService, gpu: GpuSource | None, *, sound: bool = False) -> None:
        """Begin to count now.  sound: whether there is any to be heard."""
        self._service = service
        self._gpu = gpu
        self._sound = sound
        self._last = self._totals(gpu() if gpu is not None else None)

    def sample(self) -> Live:
        """Return the figures since the last sample."""
        gpu = self._gpu() if self._gpu is not None else None
        last, now = self._last, self._totals(gpu)
        self._last = now
        seconds = max(now.when - last.when, 1e-3)
        screens = []
        for index, feed in enumerate(self._service.feeds):
            surface = feed.scanout.surface
            median, late = feed.latencies.percentiles(now.when) or (None, None)
            screens.append(
                ScreenFigures(
                    surface.size.width if surface is not None else 0,
                    surface.size.height if surface is not None else 0,
                    (now.flushes[index] - last.flushes[index]) / seconds,
                    (now.updates[index] - last.updates[index]) / seconds,
                    (now.sent[index] - last.sent[index]) / seconds,
                    len(feed.viewers),
                    median,
                    late,
                    sum(viewer.has_video for viewer in feed.viewers),
                )
            )
        if gpu is None:
            return Live(screens, None, None, None, self._sound)
        # A context that ends takes its commands with it.
        commands = max(now.commands - last.commands, 0) / seconds
        return Live(screens, gpu.contexts, commands, gpu.memory, self._sound)

    def _totals(self, gpu: GpuFigures | None) -> _Totals:
        feeds = self._service.feeds
        return _Totals(
            time.monotonic(),
            [feed.scanout.flushes for feed in feeds],
            [feed.updates for feed in feeds],
            [feed.sent for feed in feeds],
            gpu.commands if gpu is not None else 0,
        )
