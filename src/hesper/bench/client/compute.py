"""A program that computes: work that is the device's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.bench.client.scene import GROUP_SIZE, Workplace
from hesper.bench.client.statistics import median

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

GROUPS = 4096
OPERATIONS = 32
"""Floating-point operations of one step of one invocation: four fma of four numbers each."""
LONG_NS = 50_000_000
REPEATS = 7


def measure(device: Device, *, quick: bool) -> dict[str, float]:
    """Floating-point operations a second."""
    place = Workplace(device)
    pipeline = place.arithmetic_pipeline()
    steps = 1
    # As many steps as keep the device busy for long beside what a submission costs.
    while _run(device, place, pipeline, steps) < LONG_NS // (10 if quick else 1):
        steps *= 2
    times = [_run(device, place, pipeline, steps) for _ in range(REPEATS)]
    return {"compute": GROUPS * GROUP_SIZE * OPERATIONS * steps / median(times) * 1e9}


def _run(device: Device, place: Workplace, pipeline: int, steps: int) -> int:
    place.record_arithmetic(pipeline, GROUPS, steps)
    return device.loops.run(place.submit_info)
