"""A client that has little for the GPU to do, now and then: how long it waits for that."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from hesper.bench.client.share import QUICK_SECONDS, SECONDS, job
from hesper.bench.client.statistics import latencies

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

JOB_NS = 500_000
REST_SECONDS = 0.015


def measure(device: Device, *, quick: bool) -> dict[str, float]:
    """Microseconds from vkQueueSubmit to the fence, median and 99th percentile."""
    place, _ = job(device, JOB_NS)
    print("ready", flush=True)
    sys.stdin.readline()
    # Those beside it work for longer than it does.
    end = time.perf_counter() + 0.8 * (QUICK_SECONDS if quick else SECONDS)
    times = []
    while time.perf_counter() < end:
        time.sleep(REST_SECONDS)
        times.append(device.loops.run(place.submit_info))
    return latencies("light", times)
