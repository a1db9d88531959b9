"""A client that has a device and does nothing, so that others can look at what that costs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

IDLE_SECONDS = 0.01


def hold(device: Device) -> None:
    """Make a round trip and say so, 10 ms later, for every line that comes in."""
    for _ in sys.stdin:
        device.loops.round_trips(1, device.cache)
        time.sleep(IDLE_SECONDS)
        print("idle", flush=True)
