"""All kinds of work, round after round, so that others can see whether memory grows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hesper.bench.client.work import WORKS, prepare, repeat

if TYPE_CHECKING:
    from hesper.bench.client.device import Device


def soak(device: Device, *, quick: bool) -> None:
    """Do a round for each line that comes in, and say when it is done."""
    works = [prepare(device, name) for name in WORKS]
    print("ready", flush=True)
    for _ in sys.stdin:
        for once in works:
            repeat(once, quick=quick)
        device.loops.round_trips(1, device.cache)
        print("done", flush=True)
