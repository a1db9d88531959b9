"""Instances with a device: opened and closed, and many at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hesper.bench.client.device import Device
from hesper.bench.client.statistics import latencies

if TYPE_CHECKING:
    from collections.abc import Callable

CROWDS = (4, 32)
"""Numbers of instances at once."""


def measure(device: Device, *, quick: bool) -> dict[str, float]:
    """Microseconds for one after the other, milliseconds for many at once."""
    del device  # it has loaded the driver
    cycles = [_timed(_cycle) for _ in range(10 if quick else 50)]
    figures = latencies("cycle", cycles)
    for count in CROWDS[:1] if quick else CROWDS:
        start = time.perf_counter_ns()
        several = [Device() for _ in range(count)]
        figures[f"together_{count}"] = (time.perf_counter_ns() - start) / 1e6
        for each in several:
            each.close()
    return figures


def _cycle() -> None:
    Device().close()


def _timed(action: Callable[[], object]) -> int:
    """Nanoseconds that `action` takes."""
    start = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - start
