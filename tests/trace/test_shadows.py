"""Buffers in memory that the guest has mapped, at places that only the recorded driver allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_drivers import make_driver
from guest_client import DEVICE, PHYSICAL_DEVICE, QUEUE, Guest
from recorded_guest import lavapipe, record_to, replay

from hesper.host.drivers import choose_driver
from hesper.portable import SharedMemory
from hesper.trace.memory import PAGE, ReplayedMemory, Shadow
from hesper.vk.enumerants import (
    VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
)

SIZE, ROOM = 3 * PAGE + 16, 1 << 18
USAGE = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT


class Packer:
    """A guest that puts its buffers into one mapped memory, as near to each other as it may."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        asked = {"physicalDevice": PHYSICAL_DEVICE, "pMemoryProperties": {}}
        _, outputs = guest.call("vkGetPhysicalDeviceMemoryProperties", **asked)
        types = outputs["pMemoryProperties"]["memoryTypes"]
        visible = [
            i
            for i, each in enumerate(types)
            if each["propertyFlags"] & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
        ]
        result, self.memory = guest.allocate(ROOM, type_=visible[0])
        assert result == 0
        resource, blob = guest.blob(self.memory, ROOM)
        self.resource = resource
        self.blob = SharedMemory.from_fd(blob.fd, ROOM)
        pool = guest.create("CommandPool", {"queueFamilyIndex": 0})
        self.commands = guest.new_id()
        info = {"commandPool": pool, "commandBufferCount": 1}
        guest.ask(
            "vkAllocateCommandBuffers",
            device=DEVICE,
            pAllocateInfo=info,
            pCommandBuffers=[self.commands],
        )

    def buffer(self, at: int) -> int:
        """One of `SIZE` bytes."""
        made = self.guest.create("Buffer", {"size": SIZE, "usage": USAGE})
        bind = {"device": DEVICE, "buffer": made, "memory": self.memory, "memoryOffset": at}
        self.guest.ask("vkBindBufferMemory", **bind)
        return made

    def copy(self, source: int, target: int) -> None:
        """Have the device copy one to another, and wait for it."""
        commands = {"commandBuffer": self.commands}
        self.guest.ask("vkBeginCommandBuffer", **commands, pBeginInfo={})
        region = {"size": SIZE}
        self.guest.send(
            "vkCmdCopyBuffer",
            **commands,
            srcBuffer=source,
            dstBuffer=target,
            regionCount=1,
            pRegions=[region],
        )
        self.guest.ask("vkEndCommandBuffer", **commands)
        submit = {"commandBufferCount": 1, "pCommandBuffers": [self.commands]}
        self.guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[submit], fence=0)
        self.guest.wait_for_queue()

    def holds(self, at: int) -> bytes:
        """What the guest sees there."""
        return bytes(self.blob.view[at : at + SIZE])


def test_what_a_buffer_holds_is_where_the_guest_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lavapipe()  # while it can be seen
    driver = choose_driver(
        str(make_driver(tmp_path / "driver", "discrete", places=(16, 16)).manifest)
    )
    for name, value in driver.environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "packed.hesper"
    recorder = record_to(path)
    packer = Packer(Guest(driver, tape=recorder.tape).start())
    first, second, third = 16, 16 + SIZE, 16 + 2 * SIZE
    packer.blob.view[first : first + SIZE] = b"\1" * SIZE
    one, two = packer.buffer(first), packer.buffer(second)
    packer.copy(one, two)
    assert packer.holds(second) == b"\1" * SIZE
    # The guest writes into both, where a page is of both.
    packer.blob.view[second - 32 : second + 32] = b"\2" * 64
    packer.copy(two, packer.buffer(third))
    assert packer.holds(third) == b"\2" * 32 + b"\1" * (SIZE - 32)
    # What the device has written stays when the buffer goes, and is the next one's there.
    packer.guest.send("vkDestroyBuffer", device=DEVICE, buffer=two)
    again = packer.buffer(second)
    packer.copy(again, one)
    assert packer.holds(first) == b"\2" * 32 + b"\1" * (SIZE - 32)
    packer.blob.close()
    packer.guest.context.destroy_resource(packer.resource)
    packer.guest.close()
    recorder.close()
    outcome = replay(path, verify=True)
    assert (outcome.fatal, outcome.submissions) == ("", 3)
    assert outcome.translated["buffers and images moved"] == 4
    assert (outcome.pages_other, outcome.results_other, outcome.differences) == (0, 0, [])
    assert outcome.pages_same == (third + SIZE + PAGE - 1) // PAGE


def test_memory_is_made_of_its_parts(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.write_bytes(bytes(3 * PAGE))
    part.write_bytes(bytes(PAGE))
    with whole.open("r+b") as file, part.open("r+b") as other:
        memory = ReplayedMemory(file.fileno(), 3 * PAGE)
        memory.write(0, b"\1" * 3 * PAGE)
        shadow = Shadow(other.fileno(), 2 * PAGE - 8, 16)
        memory.copy_to(shadow)
        assert shadow.memory[:] == b"\1" * 16
        memory.add(shadow)
        memory.write(PAGE, b"\2" * 2 * PAGE)
        assert shadow.memory[:] == b"\2" * 16
        # The device writes there: that is what the guest's memory holds.
        shadow.memory[4:12] = b"\3" * 8
        assert memory.write(PAGE, b"\2" * (PAGE - 4) + b"\3" * 4) == (1, 0)
        memory.expect(PAGE, b"\2" * (PAGE - 4) + b"\3" * 4)
        memory.expect(2 * PAGE, b"\3" * 4 + b"\2" * (PAGE - 4))
        assert memory.differing() == (3, [], 0)
        memory.take(shadow)
        shadow.close()
        assert memory.differing() == (3, [], 0)
        memory.close()
    assert whole.read_bytes()[2 * PAGE - 4 : 2 * PAGE + 8] == b"\3" * 8 + b"\2" * 4


def test_a_part_beyond_the_end_is_cut(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.write_bytes(bytes(PAGE))
    part.write_bytes(b"\1" * PAGE)
    with whole.open("r+b") as file, part.open("r+b") as other:
        memory = ReplayedMemory(file.fileno(), PAGE)
        for start in (PAGE - 4, 2 * PAGE):
            shadow = Shadow(other.fileno(), start, PAGE)
            memory.add(shadow)
            memory.copy_to(shadow)
            memory.take(shadow)
            shadow.close()
        memory.close()
    assert whole.read_bytes() == bytes(PAGE - 4) + b"\1" * 4
