"""Lost devices: the guest hears of it wherever it waits, submits or looks."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hesper.guest import regions
from hesper.kernel.timelines import Timeline
from hesper.protocol.codec import Codec, Reader
from kernel.conftest import BOUND, COMMAND_BUFFER, Host, happens, wait_for

QUEUE, RING_IDX, OTHER_DEVICE, OTHER_QUEUE = 7, 5, 30, 31
FENCE, SEMAPHORE, EVENT, QUERIES, MEMORY, FEEDBACK, SOURCE = range(40, 47)
REPLIES = 8
NOT_READY, DEVICE_LOST = 1, -4
SIZE = 8192
AT = 4096
"""Where in the memory the buffer for feedback lies."""
LOOKOUT_NS = 20_000_000
CODEC = Codec()

SUBMIT = {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": 0}
ANSWERED: dict[str, dict[str, Any]] = {
    "vkQueueSubmit": SUBMIT,
    "vkQueueSubmit2": SUBMIT,
    "vkQueueBindSparse": {"queue": QUEUE, "bindInfoCount": 0, "pBindInfo": None, "fence": 0},
    "vkQueueWaitIdle": {"queue": QUEUE},
    "vkDeviceWaitIdle": {"device": 3},
    "vkGetFenceStatus": {"device": 3, "fence": FENCE},
    "vkWaitForFences": {
        "device": 3, "fenceCount": 1, "pFences": [FENCE], "waitAll": 1, "timeout": 2**64 - 1,
    },
    "vkGetEventStatus": {"device": 3, "event": EVENT},
    "vkGetSemaphoreCounterValue": {"device": 3, "semaphore": SEMAPHORE, "pValue": 0},
    "vkWaitSemaphores": {
        "device": 3, "timeout": 2**64 - 1,
        "pWaitInfo": {"semaphoreCount": 1, "pSemaphores": [SEMAPHORE], "pValues": [1]},
    },
    "vkSignalSemaphore": {"device": 3, "pSignalInfo": {"semaphore": SEMAPHORE, "value": 1}},
    "vkGetQueryPoolResults": {
        "device": 3, "queryPool": QUERIES, "firstQuery": 0, "queryCount": 1, "dataSize": 8,
        "pData": bytes(8), "stride": 8, "flags": 0,
    },
}  # fmt: skip


class Lossy:
    """An engine whose queue's driver says what the test wants."""

    def __init__(self, library: Path) -> None:
        self.driver = ctypes.CDLL(str(library))
        self.driver.reset()
        self.host = Host(library)
        self.engine = self.host.engine
        for guest_id, kind in (
            (FENCE, "VkFence"), (SEMAPHORE, "VkSemaphore"), (EVENT, "VkEvent"),
            (QUERIES, "VkQueryPool"), (SOURCE, "VkBuffer"),
        ):  # fmt: skip
            self.engine.objects.add(guest_id, kind, guest_id, device=3, parent=3)
        self.engine.objects.add(QUEUE, "VkQueue", 70, device=3, parent=3)
        self.timeline: Timeline = self.engine.timelines.bind(RING_IDX, QUEUE, lambda _: None)
        self.region = regions.create(self.engine.pool, SIZE, "hesper-test")
        self.engine.objects.add(
            MEMORY, "VkDeviceMemory", MEMORY, device=3, parent=3, region=self.region.share()
        )
        self.memory = (ctypes.c_uint8 * SIZE).from_address(self.region.address)
        self._replies = ctypes.create_string_buffer(4096)
        self.engine.resources.add(REPLIES, ctypes.addressof(self._replies), 4096)
        self.send("vkSetReplyCommandStreamMESA", pStream={"resourceId": REPLIES, "size": 4096})

    def send(self, name: str, **parameters: Any) -> None:
        self.engine.submit(CODEC.encode(name, parameters))

    def result(self, name: str, parameters: dict[str, Any]) -> int:
        seek = CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 0})
        self.engine.submit(seek + CODEC.encode(name, parameters, reply=True))
        return CODEC.decode_reply(Reader(self._replies.raw), parameters)[1]

    def make_feedback(self) -> None:
        """Make the buffer for feedback as Mesa does, and record commands that write to it."""
        info = {"size": SIZE - AT, "usage": 3}
        self.send("vkCreateBuffer", device=3, pCreateInfo=info, pBuffer=FEEDBACK)
        bind = {"buffer": FEEDBACK, "memory": MEMORY, "memoryOffset": AT}
        self.send("vkBindBufferMemory2", device=3, bindInfoCount=1, pBindInfos=[bind])
        fill = {"commandBuffer": COMMAND_BUFFER, "dstBuffer": FEEDBACK, "size": 4}
        self.send("vkCmdFillBuffer", **fill, dstOffset=64, data=0)
        self.send("vkCmdFillBuffer", **fill, dstOffset=68, data=0)
        self.send("vkCmdFillBuffer", **fill, dstOffset=128, data=3)
        copy = {"srcOffset": 0, "dstOffset": 256, "size": 8}
        self.send(
            "vkCmdCopyBuffer", commandBuffer=COMMAND_BUFFER, srcBuffer=SOURCE, dstBuffer=FEEDBACK,
            regionCount=1, pRegions=[copy],
        )  # fmt: skip
        self.send(
            "vkCmdCopyQueryPoolResults", commandBuffer=COMMAND_BUFFER, queryPool=QUERIES,
            firstQuery=0, queryCount=2, dstBuffer=FEEDBACK, dstOffset=512, stride=24, flags=5,
        )  # fmt: skip

    def word(self, offset: int) -> int:
        return int(struct.unpack_from("<i", self.memory, AT + offset)[0])

    def put(self, offset: int, value: int) -> None:
        struct.pack_into("<i", self.memory, AT + offset, value)

    def lose(self) -> None:
        """The driver says so, once."""
        self.driver.refuse(DEVICE_LOST)
        assert self.result("vkQueueSubmit", SUBMIT) == DEVICE_LOST
        self.driver.refuse(0)


@pytest.fixture
def lossy(queue_driver: Path) -> Iterator[Lossy]:
    lossy = Lossy(queue_driver)
    yield lossy
    lossy.driver.answer_fences(0)
    lossy.driver.finish(lossy.driver.submissions())
    lossy.timeline.stop(BOUND)
    del lossy.memory
    lossy.region.release()


@pytest.mark.parametrize("name", list(ANSWERED))
def test_all_that_waits_or_submits_is_told(lossy: Lossy, name: str) -> None:
    assert lossy.result(name, ANSWERED[name] | {"timeout": 0}) in (0, NOT_READY, 2)
    submitted = lossy.driver.submissions()
    lossy.lose()
    assert lossy.result(name, ANSWERED[name]) == DEVICE_LOST
    assert lossy.driver.submissions() == submitted
    assert lossy.host.notices == [("device lost", {"device": 3, "command": "vkQueueSubmit"})]
    assert lossy.host.fatal == []


def test_other_devices_live(lossy: Lossy) -> None:
    lossy.engine.objects.add(OTHER_DEVICE, "VkDevice", 9, table=lossy.host.device_table)
    lossy.engine.objects.add(OTHER_QUEUE, "VkQueue", 90, device=OTHER_DEVICE, parent=OTHER_DEVICE)
    lossy.lose()
    assert lossy.engine.devices.is_lost(3)
    assert not lossy.engine.devices.is_lost(OTHER_DEVICE)
    assert lossy.result("vkDeviceWaitIdle", {"device": OTHER_DEVICE}) == 0
    assert lossy.result("vkQueueSubmit", SUBMIT | {"queue": OTHER_QUEUE}) == 0


def test_what_the_guest_looks_at_is_written(lossy: Lossy) -> None:
    lossy.make_feedback()
    lossy.memory[:] = [0x55] * SIZE
    lossy.put(64, NOT_READY)
    lossy.put(68, 0)  # a fence that was signalled before
    lossy.lose()
    expected = bytearray(b"\x55" * SIZE)
    struct.pack_into("<i", expected, AT + 64, DEVICE_LOST)
    struct.pack_into("<i", expected, AT + 68, 0)
    struct.pack_into("<i", expected, AT + 128, DEVICE_LOST)
    for counter in (256, 512 + 16, 512 + 40):
        struct.pack_into("<Q", expected, AT + counter, 2**64 - 1)
    assert bytes(lossy.memory) == bytes(expected)


def test_a_fence_that_is_reset_and_submitted_again_is_lost_again(lossy: Lossy) -> None:
    lossy.make_feedback()
    lossy.put(64, NOT_READY)
    lossy.lose()
    lossy.put(64, NOT_READY)  # what the guest's vkResetFences does
    lossy.send("vkQueueSubmit", **SUBMIT)
    assert lossy.word(64) == DEVICE_LOST


def test_buffers_and_memory_that_are_gone_are_left_alone(lossy: Lossy) -> None:
    lossy.make_feedback()
    lossy.put(64, NOT_READY)
    lossy.send("vkDestroyBuffer", device=3, buffer=FEEDBACK)
    lossy.lose()
    assert lossy.word(64) == NOT_READY


def test_memory_that_is_freed_first_is_left_alone(lossy: Lossy) -> None:
    lossy.make_feedback()
    lossy.put(64, NOT_READY)
    lossy.send("vkFreeMemory", device=3, memory=MEMORY)
    lossy.lose()
    assert lossy.word(64) == NOT_READY


def test_a_guest_that_asks_nothing_is_told(lossy: Lossy) -> None:
    """It looks at memory, and the driver tells only who asks."""
    lossy.engine.timelines.set_lookout(LOOKOUT_NS)
    lossy.make_feedback()
    lossy.put(64, NOT_READY)
    lossy.send("vkQueueSubmit", **SUBMIT)
    wait_for(lambda: lossy.driver.waits_begun() > 0, "a look at the queue")
    assert lossy.word(64) == NOT_READY
    lossy.driver.answer_fences(DEVICE_LOST)
    wait_for(lambda: lossy.word(64) == DEVICE_LOST, "the fence to say that the device is lost")
    wait_for(lambda: bool(lossy.host.notices), "the notice")
    assert lossy.host.notices == [("device lost", {"device": 3, "command": "vkWaitForFences"})]


def test_a_queue_at_rest_is_not_looked_at(lossy: Lossy) -> None:
    lossy.engine.timelines.set_lookout(LOOKOUT_NS)
    lossy.send("vkQueueSubmit", **SUBMIT)
    wait_for(lambda: lossy.driver.submissions() == 2, "a look at the queue")
    lossy.driver.finish(2)
    done = lossy.driver.submissions()
    wait_for(lambda: lossy.driver.live_fences() == 1, "the fence to be there to be used again")
    lossy.send("vkQueueSubmit", **SUBMIT)
    wait_for(lambda: lossy.driver.submissions() == done + 2, "another look")
    lossy.driver.finish(done + 2)


def test_a_queue_that_has_been_at_rest_is_looked_at_again(lossy: Lossy) -> None:
    lossy.engine.timelines.set_lookout(1_000_000)
    for turn in range(3):
        lossy.send("vkQueueSubmit", **SUBMIT)
        made = 2 * turn + 2

        def submitted(count: int = made) -> bool:
            return bool(lossy.driver.submissions() >= count)

        wait_for(submitted, "a look")
        lossy.driver.finish(made)
        assert not happens(partial(submitted, made + 1))


def test_a_wait_for_what_never_comes_ends(lossy: Lossy) -> None:
    """The driver still says that the fence is not signalled."""
    lossy.engine.timelines.set_lookout(LOOKOUT_NS)
    lossy.send("vkQueueSubmit", **SUBMIT)
    retired: list[int] = []
    lossy.engine.fence(RING_IDX, lambda: retired.append(1))
    lossy.engine.devices.lose(3, "vkCreateFence")
    wait_for(lambda: retired == [1], "the timeline's fence")
    assert lossy.host.notices == [("device lost", {"device": 3, "command": "vkCreateFence"})]
