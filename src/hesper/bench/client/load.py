"""One of several clients at once: starts when told, works for a while, counts."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from hesper.bench.client.loops import MIXED
from hesper.bench.client.scene import Workplace

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

COUNT = 20_000


def measure(device: Device, *, quick: bool) -> dict[str, float]:
    """Commands a second, to the fence, of this client."""
    scene = Workplace(device).scene()
    device.loops.stream(MIXED, COUNT, scene)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    end = start + (0.5 if quick else 3.0)
    done = 0
    while (now := time.perf_counter()) < end:
        device.loops.stream(MIXED, COUNT, scene)
        done += COUNT
    return {"commands": done / (now - start)}
