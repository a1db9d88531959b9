#!/usr/bin/env python3
"""Measure how long a guest's requests to the GPU take, from its queue to the answer.

    python bench/gpu_requests_latency.py [--rounds 2000] [--driver NAME]

The guest is this process, with a VMM of the tests' around the device; contexts run in a worker, on
the host's driver.  Each figure is a median (and the 90th percentile) in microseconds:

    commands      SUBMIT_3D with a fence on the CPU's timeline
    queue         SUBMIT_3D of an empty vkQueueSubmit, with a fence on the queue's timeline
    memory        vkAllocateMemory, its blob, the map, a touch of every page, and all that undone
    blob          of these, RESOURCE_CREATE_BLOB alone
"""

from __future__ import annotations

import argparse
import json
import mmap
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "gpu"))

from gpu_requests import create_blob, create_context, map_blob, submit, unmap_blob, unref
from in_process_guest import InProcessGuest, InProcessVmm

from hesper.display.scanout import Size
from hesper.gpu.runner import GpuOptions, GpuRunner
from hesper.gpu.wire import Response
from hesper.protocol.codec import Codec

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop
    from hesper.gpu.device import GpuDevice

CODEC = Codec()
CONTEXT, REPLIES = 1, 7
REPLY_SIZE = 1 << 20
INSTANCE, PHYSICAL_DEVICE, DEVICE, QUEUE, MEMORY = 1, 2, 3, 4, 5
RING_IDX = 1
MEMORY_SIZE = 64 << 10
WINDOW_AT = REPLY_SIZE
FIRST_RESOURCE = 100


class Program:
    """A program in the guest, with a device and a queue."""

    def __init__(self, guest: InProcessGuest) -> None:
        """Make them."""
        self.guest = guest
        self.heap = 0
        self._fence = 0
        self.ask(create_context(CONTEXT, b"bench"))
        self.ask(create_blob(REPLIES, REPLY_SIZE, ctx_id=CONTEXT))
        stream = {"resourceId": REPLIES, "offset": 0, "size": REPLY_SIZE}
        self.run("vkSetReplyCommandStreamMESA", pStream=stream)
        application = {"pApplicationInfo": {"apiVersion": 1 << 22 | 3 << 12}}
        self.run("vkCreateInstance", pCreateInfo=application, pInstance=INSTANCE)
        self.run(
            "vkEnumeratePhysicalDevices",
            instance=INSTANCE,
            pPhysicalDeviceCount=1,
            pPhysicalDevices=[PHYSICAL_DEVICE],
        )
        queues = [{"queueFamilyIndex": 0, "queueCount": 1, "pQueuePriorities": [1.0]}]
        info = {"queueCreateInfoCount": 1, "pQueueCreateInfos": queues}
        self.run("vkCreateDevice", physicalDevice=PHYSICAL_DEVICE, pCreateInfo=info, pDevice=DEVICE)
        timeline = ("VkDeviceQueueTimelineInfoMESA", {"ringIdx": RING_IDX})
        named = {"pNext": [timeline], "queueIndex": 0}
        self.run("vkGetDeviceQueue2", device=DEVICE, pQueueInfo=named, pQueue=QUEUE)
        self.heap = guest.heap

    def ask(self, request: bytes) -> int:
        """Send a request and return the answer's type."""
        if self.heap:
            self.guest.heap = self.heap
        response: int = self.guest.send(request).type
        if response not in {Response.OK_NODATA, Response.OK_MAP_INFO}:
            raise RuntimeError(f"the device answers {response:#x}")
        return response

    def run(self, name: str, **parameters: Any) -> None:
        """Run a command, and wait until the CPU's timeline is through with it."""
        self.submit(CODEC.encode(name, parameters, reply=name.startswith("vkCreate")), 0)

    def submit(self, commands: bytes, ring_idx: int) -> None:
        """Submit commands with a fence, and wait for it."""
        self._fence += 1
        self.ask(submit(CONTEXT, commands, fence_id=self._fence, ring_idx=ring_idx))


def microseconds(rounds: int, call: Callable[[], None]) -> tuple[float, float]:
    """Median and 90th percentile of a call."""
    for _ in range(rounds // 10):
        call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(times), statistics.quantiles(times, n=10)[-1]


def measure(program: Program, rounds: int) -> dict[str, tuple[float, float]]:
    """Return every figure."""
    nothing = {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": 0}
    queue_submit = CODEC.encode("vkQueueSubmit", nothing)
    info = {"allocationSize": MEMORY_SIZE, "memoryTypeIndex": 0}
    allocate = CODEC.encode(
        "vkAllocateMemory", {"device": DEVICE, "pAllocateInfo": info, "pMemory": MEMORY}
    )
    free = CODEC.encode("vkFreeMemory", {"device": DEVICE, "memory": MEMORY})
    version = CODEC.encode("vkEnumerateInstanceVersion", {"pApiVersion": 0})
    resource = FIRST_RESOURCE
    blobs: list[float] = []

    def memory() -> None:
        nonlocal resource
        resource += 1
        program.submit(allocate, 0)
        start = time.perf_counter_ns()
        program.ask(create_blob(resource, MEMORY_SIZE, ctx_id=CONTEXT, blob_id=MEMORY))
        blobs.append((time.perf_counter_ns() - start) / 1000)
        program.ask(map_blob(resource, WINDOW_AT))
        with mmap.mmap(program.guest.mapped_fds[WINDOW_AT], MEMORY_SIZE) as seen:
            for at in range(0, MEMORY_SIZE, mmap.PAGESIZE):
                seen[at] = 1
        program.ask(unmap_blob(resource))
        program.ask(unref(resource))
        program.submit(free, 0)

    figures = {
        "commands": microseconds(rounds, lambda: program.submit(version, 0)),
        "queue": microseconds(rounds, lambda: program.submit(queue_submit, RING_IDX)),
        "memory": microseconds(rounds // 4, memory),
    }
    figures["blob"] = (statistics.median(blobs), statistics.quantiles(blobs, n=10)[-1])
    return figures


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--driver", default="")
    arguments = parser.parse_args()
    vmm = InProcessVmm(InProcessGuest.make_memory())
    loops: list[EventLoop] = []

    def attach(device: GpuDevice, loop: EventLoop) -> InProcessVmm:
        loops.append(loop)
        return vmm.attach(device, loop)

    worker = {"driver": arguments.driver} if arguments.driver else {}
    runner = GpuRunner(GpuOptions(size=Size(64, 48), worker=worker), lambda: None)
    runner.start(attach)
    try:
        guest = InProcessGuest(vmm, loops[0])
        guest.start()
        figures = measure(Program(guest), arguments.rounds)
    finally:
        runner.stop()
    rounded = {name: [round(value, 1) for value in both] for name, both in figures.items()}
    print(json.dumps({"driver": runner.about.get("driver"), **rounded}))


if __name__ == "__main__":
    main()
