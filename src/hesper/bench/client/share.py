"""One of several clients that share the GPU's time: always has something for it to do."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from hesper.bench.client.scene import Workplace

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

GROUPS = 1024
JOB_NS = 8_000_000
"""What one submission is to take where nobody else is at work."""
SECONDS, QUICK_SECONDS = 8.0, 3.0


def job(device: Device, nanoseconds: int) -> tuple[Workplace, int]:
    """Record a dispatch that takes about so long; what it has to be submitted, and its steps."""
    place = Workplace(device)
    pipeline = place.arithmetic_pipeline()
    steps = 1
    while True:
        place.record_arithmetic(pipeline, GROUPS, steps)
        took = min(device.loops.run(place.submit_info) for _ in range(3))
        if took >= nanoseconds:
            return place, steps
        # At most twice as long as it should be.
        steps *= 2


def measure(device: Device, *, quick: bool, job_ns: int = JOB_NS) -> dict[str, float]:
    """Steps of arithmetic a second of this client's."""
    place, steps = job(device, job_ns)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    end = start + (QUICK_SECONDS if quick else SECONDS)
    done = 0
    while (now := time.perf_counter()) < end:
        device.loops.run(place.submit_info)
        done += steps
    return {"steps": done / (now - start)}
