"""How long single calls take, one after the other and after 10 ms without any."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hesper.bench.client.loops import BARE
from hesper.bench.client.scene import Workplace
from hesper.bench.client.statistics import latencies

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

IDLE_SECONDS = 0.01
WARM_UP = 200


def measure(device: Device, *, quick: bool) -> dict[str, float]:
    """Microseconds by stage, median and 99th percentile."""
    loops, cache = device.loops, device.cache
    place = Workplace(device)
    image = place.linear_image()
    scene = place.scene()
    loops.record_only(BARE, 0, scene)
    many, few = (500, 20) if quick else (5000, 200)
    loops.round_trips(WARM_UP, cache)
    figures = latencies("round_trip", loops.round_trips(many, cache))
    loops.layouts(WARM_UP, image)
    figures |= latencies("layout", loops.layouts(many // 5, image))
    loops.submits(WARM_UP, 0)
    figures |= _stages("empty", loops.submits(many // 2, 0))
    figures |= _stages("submission", loops.submits(many // 2, scene.submit))
    trips, submitted, signalled = [], [], []
    for _ in range(few):
        time.sleep(IDLE_SECONDS)
        trips += loops.round_trips(1, cache)
        time.sleep(IDLE_SECONDS)
        first, second = loops.submits(1, scene.submit)
        submitted += first
        signalled += second
    figures |= latencies("round_trip_idle", trips)
    figures |= _stages("submission_idle", (submitted, signalled))
    return figures


def _stages(name: str, times: tuple[list[int], list[int]]) -> dict[str, float]:
    """Figures of both together, of the call, and of the fence after it."""
    whole = [call + fence for call, fence in zip(*times, strict=True)]
    return {
        **latencies(name, whole),
        **latencies(f"{name}_call", times[0]),
        **latencies(f"{name}_fence", times[1]),
    }
