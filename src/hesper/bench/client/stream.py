"""Commands a second: long command buffers, recorded, submitted and waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.bench.client.loops import COPY, DISPATCH, DRAW, MIXED, PUSH
from hesper.bench.client.scene import Workplace
from hesper.bench.client.statistics import median

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

KINDS = {"push": PUSH, "draw": DRAW, "dispatch": DISPATCH, "copy": COPY, "mixed": MIXED}
REPEATS = 5


def measure(device: Device, *, quick: bool) -> dict[str, float]:
    """Commands a second by kind: to the fence, and recorded only."""
    scene = Workplace(device).scene()
    count = 20_000 if quick else 100_000
    figures = {}
    for name, kind in KINDS.items():
        device.loops.stream(kind, count, scene)
        times = [device.loops.stream(kind, count, scene) for _ in range(REPEATS)]
        figures[name] = count / median([whole for _, whole in times]) * 1e9
        figures[f"{name}_record"] = count / median([record for record, _ in times]) * 1e9
    return figures
