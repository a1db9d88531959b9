"""A guest in the test's own process that is recorded, and what it does."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path

from guest_client import DEVICE, PHYSICAL_DEVICE, QUEUE, Guest
from recordings import ABOUT_NOTHING

from hesper.guest import Limits
from hesper.host.drivers import Driver, choose_driver
from hesper.isolation.driver import OpenDriver
from hesper.isolation.recordings import RecordOptions
from hesper.portable import SharedMemory
from hesper.trace.outcome import Outcome, ReplayOptions
from hesper.trace.plan import Plan
from hesper.trace.recorder import Recorder
from hesper.trace.records import Reader, Record
from hesper.trace.replay import Replay
from hesper.vk.enumerants import (
    VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
)

SIZE = 64 << 10
ALWAYS = RecordOptions(folder="")


@cache
def lavapipe() -> Driver:
    """The software driver, probed once."""
    return choose_driver("lavapipe")


def record_to(path: Path, options: RecordOptions = ALWAYS, *, files: int = 1) -> Recorder:
    """A recorder that writes to `path`, and to others beside it."""
    paths = [path.with_name(path.name + "." * i) for i in range(files)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    return Recorder([os.open(each, flags) for each in paths], ABOUT_NOTHING, options)


class Copier:
    """A recorded guest that copies what it writes into one mapped buffer to another."""

    def __init__(self, recorder: Recorder, size: int = SIZE) -> None:
        """Make its buffers, of `size` bytes each, and record the copy."""
        self.size = size
        self.guest = Guest(lavapipe(), tape=recorder.tape).start()
        asked = {"physicalDevice": PHYSICAL_DEVICE, "pMemoryProperties": {}}
        self.guest.call("vkGetPhysicalDeviceMemoryProperties", **asked)
        usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT
        self.buffers = [self.guest.create("Buffer", {"size": size, "usage": usage}) for _ in "ab"]
        self.blobs = []
        self.resources = []
        for buffer in self.buffers:
            result, memory = self.guest.allocate(size)
            assert result == 0
            self.guest.ask(
                "vkBindBufferMemory", device=DEVICE, buffer=buffer, memory=memory, memoryOffset=0
            )
            resource, blob = self.guest.blob(memory, size)
            self.resources.append(resource)
            self.blobs.append(SharedMemory.from_fd(blob.fd, size))
        pool = self.guest.create("CommandPool", {"queueFamilyIndex": 0})
        self.commands = self.guest.new_id()
        self.guest.ask(
            "vkAllocateCommandBuffers",
            device=DEVICE,
            pAllocateInfo={
                "commandPool": pool,
                "commandBufferCount": 1,
            },
            pCommandBuffers=[self.commands],
        )
        self.guest.ask("vkBeginCommandBuffer", commandBuffer=self.commands, pBeginInfo={})
        self.guest.send(
            "vkCmdCopyBuffer",
            commandBuffer=self.commands,
            srcBuffer=self.buffers[0],
            dstBuffer=self.buffers[1],
            regionCount=1,
            pRegions=[{"size": size}],
        )
        self.guest.ask("vkEndCommandBuffer", commandBuffer=self.commands)

    def copy(self, data: bytes) -> bytes:
        """Write `data` into the one buffer, and wait for what the other holds then."""
        self.blobs[0].view[: len(data)] = data
        submit = {"commandBufferCount": 1, "pCommandBuffers": [self.commands]}
        self.guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[submit], fence=0)
        self.guest.wait_for_queue()
        return bytes(self.blobs[1].view[: len(data)])

    def close(self) -> None:
        """Go away."""
        for resource, blob in zip(self.resources, self.blobs, strict=True):
            blob.close()
            self.guest.context.destroy_resource(resource)
        self.guest.close()


def read_file(path: Path) -> tuple[Reader, list[Record]]:
    """All that is in a file."""
    reader = Reader(io.BytesIO(path.read_bytes()))
    return reader, list(reader)


def replay(path: Path, on: Driver | None = None, **options: object) -> Outcome:
    """What comes of a recording on a driver, mostly lavapipe, in this process."""
    driver = on or lavapipe()
    host = OpenDriver(driver, Limits(), None, None)
    os.environ.update(driver.environment)
    with path.open("rb") as file:
        plan = Plan(Reader(file))
    player = Replay(host, ReplayOptions(**options), lambda *_: None, plan)  # type: ignore[arg-type]
    try:
        with path.open("rb") as file:
            return player.run(Reader(file))
    finally:
        player.close()
