"""What a recording of the last seconds begins with: what makes again all that lives."""

from __future__ import annotations

from typing import Any

import pytest
from recordings import command

from hesper.protocol.codec import Codec
from hesper.trace.decoded import Decoded, decode
from hesper.trace.journal import Journal
from hesper.trace.records import BLOB_BODY, EARLIER, HEAD, Kind, Record, join, put, split
from hesper.vk.enumerants import (
    VK_FENCE_CREATE_SIGNALED_BIT,
    VK_SEMAPHORE_TYPE_TIMELINE,
)

CODEC = Codec()
DEVICE, QUEUE, POOL, BUFFERS = 3, 4, 5, 6


class Story:
    """A guest's commands, and what lives in the end."""

    def __init__(self) -> None:
        """It has a device, a queue, a command pool and a command buffer."""
        self.journal = Journal()
        self.do("vkCreateInstance", pCreateInfo={}, pInstance=1)
        self.do(
            "vkEnumeratePhysicalDevices",
            instance=1,
            pPhysicalDeviceCount=1,
            pPhysicalDevices=[2],
        )
        self.do("vkCreateDevice", physicalDevice=2, pCreateInfo={}, pDevice=DEVICE)
        self.do("vkGetDeviceQueue2", device=DEVICE, pQueueInfo={}, pQueue=QUEUE)
        self.create("CommandPool", POOL)
        self.do(
            "vkAllocateCommandBuffers",
            device=DEVICE,
            pAllocateInfo={"commandPool": POOL, "commandBufferCount": 1},
            pCommandBuffers=[BUFFERS],
        )
        self.begun = len(self.told())

    def feed(self, data: bytes) -> None:
        assert self.journal.feed(data) == -1

    def do(self, name: str, **parameters: Any) -> None:
        self.feed(command(CODEC.encode(name, parameters)))

    def create(self, kind: str, id_: int, **info: Any) -> None:
        made = {f"p{kind.removeprefix('Image')}" if kind == "ImageView" else f"p{kind}": id_}
        self.do(f"vkCreate{kind}", device=DEVICE, pCreateInfo=info, **made)

    def destroy(self, kind: str, id_: int) -> None:
        name = kind[0].lower() + kind[1:]
        self.do(f"vkDestroy{kind}", device=DEVICE, **{name: id_})

    def update(self, set_: int, binding: int, view: int) -> None:
        image = [{"imageView": view}]
        write = {"dstSet": set_, "dstBinding": binding, "descriptorCount": 1, "pImageInfo": image}
        self.do(
            "vkUpdateDescriptorSets",
            device=DEVICE,
            descriptorWriteCount=1,
            pDescriptorWrites=[write],
        )

    def submit(self, **info: Any) -> None:
        fence = info.pop("fence", 0)
        self.do("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[info], fence=fence)

    def told(self) -> list[Record]:
        """All that makes again what lives, in its order."""
        pieces: dict[tuple[int, int], list[bytes]] = {}
        found = []
        for data in self.journal.records():
            for piece in split(data, 0):
                assert piece.flags & EARLIER
                whole = join(pieces, piece)
                if whole is not None:
                    found.append(whole)
        return found

    def lives(self) -> list[Decoded]:
        """The same behind what every story begins with."""
        return [decode(i, each) for i, each in enumerate(self.told())][self.begun :]

    def names(self) -> list[str]:
        return [each.name for each in self.lives()]


@pytest.fixture
def story() -> Story:
    return Story()


def test_what_is_gone_is_not_made_again(story: Story) -> None:
    story.create("Buffer", 17, size=64)
    story.create("Buffer", 18, size=32)
    story.destroy("Buffer", 17)
    (found,) = story.lives()
    assert found.parameters is not None
    assert found.parameters["pBuffer"] == 18


def test_what_something_was_made_of_is_made_again_and_destroyed(story: Story) -> None:
    story.create("ShaderModule", 18, codeSize=4, pCode=[0])
    stage = {"module": 18, "pName": b"main"}
    story.do(
        "vkCreateComputePipelines",
        device=DEVICE,
        createInfoCount=1,
        pCreateInfos=[{"stage": stage}],
        pPipelines=[19],
    )
    story.destroy("ShaderModule", 18)
    wanted = ["vkCreateShaderModule", "vkCreateComputePipelines", "vkDestroyShaderModule"]
    assert story.names() == wanted
    story.destroy("Pipeline", 19)
    assert story.names() == []


def test_an_id_that_comes_again_is_another_object(story: Story) -> None:
    story.create("ImageView", 17, image=16)
    story.create("Framebuffer", 30, renderPass=15, attachmentCount=1, pAttachments=[17])
    story.destroy("ImageView", 17)
    story.create("ImageView", 17, image=16)
    assert story.names() == [
        "vkCreateImageView",
        "vkCreateFramebuffer",
        "vkDestroyImageView",
        "vkCreateImageView",
    ]


def test_the_last_of_what_changes_a_place_is_done_again(story: Story) -> None:
    story.create("DescriptorPool", 20, maxSets=2)
    story.do(
        "vkAllocateDescriptorSets",
        device=DEVICE,
        pAllocateInfo={"descriptorPool": 20, "descriptorSetCount": 2, "pSetLayouts": [8, 9]},
        pDescriptorSets=[21, 22],
    )
    for view in (31, 32, 33):
        story.create("ImageView", view, image=16)
        story.update(21, 0, view)
    story.update(21, 1, 33)
    story.destroy("ImageView", 31)
    updated = [each for each in story.lives() if each.name == "vkUpdateDescriptorSets"]
    writes = [(each.parameters or {})["pDescriptorWrites"][0] for each in updated]
    assert [(each["dstBinding"], each["pImageInfo"][0]["imageView"]) for each in writes] == [
        (0, 33),
        (1, 33),
    ]
    story.do("vkResetDescriptorPool", device=DEVICE, descriptorPool=20, flags=0)
    assert "vkAllocateDescriptorSets" not in story.names()
    assert "vkCreateDescriptorPool" in story.names()


def test_memory_is_bound_and_shared_again(story: Story) -> None:
    story.create("Buffer", 17, size=64)
    info = {"allocationSize": 64}
    story.do("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=18)
    story.do("vkBindBufferMemory", device=DEVICE, buffer=17, memory=18, memoryOffset=0)
    story.feed(put(Kind.BLOB, BLOB_BODY.pack(7, 1, 18, 64)))
    assert [each.kind for each in story.told()[story.begun :]] == [
        *(Kind.COMMAND, Kind.COMMAND, Kind.COMMAND),
        Kind.BLOB,
    ]
    story.feed(put(Kind.GONE, (7).to_bytes(4, "little")))
    story.destroy("Buffer", 17)
    assert story.names() == ["vkAllocateMemory"]


def record_draw(story: Story, buffer: int, flags: int = 0) -> None:
    story.do("vkBeginCommandBuffer", commandBuffer=BUFFERS, pBeginInfo={"flags": flags})
    story.do(
        "vkCmdBindVertexBuffers",
        commandBuffer=BUFFERS,
        bindingCount=1,
        pBuffers=[buffer],
        pOffsets=[0],
    )
    story.do("vkEndCommandBuffer", commandBuffer=BUFFERS)


RECORDED = ["vkBeginCommandBuffer", "vkCmdBindVertexBuffers", "vkEndCommandBuffer"]


def test_what_was_recorded_last_is_recorded_again(story: Story) -> None:
    story.create("Buffer", 17, size=64)
    record_draw(story, 17)
    record_draw(story, 17)
    story.submit(commandBufferCount=1, pCommandBuffers=[BUFFERS])
    assert story.names() == ["vkCreateBuffer", *RECORDED]
    story.do("vkResetCommandPool", device=DEVICE, commandPool=POOL, flags=0)
    assert story.names() == ["vkCreateBuffer"]


def test_what_cannot_be_submitted_any_more_is_not_recorded_again(story: Story) -> None:
    story.create("Buffer", 17, size=64)
    record_draw(story, 17, flags=1)
    assert story.names() == ["vkCreateBuffer", *RECORDED]
    story.submit(commandBufferCount=1, pCommandBuffers=[BUFFERS])
    assert story.names() == ["vkCreateBuffer"], "it was for one submission"
    record_draw(story, 17)
    story.destroy("Buffer", 17)
    assert story.names() == [], "what it names is gone"


def test_what_belongs_to_something_ends_with_it(story: Story) -> None:
    story.create("Buffer", 17, size=64)
    record_draw(story, 17)
    story.do("vkDestroyDevice", device=DEVICE)
    assert [decode(0, each).name for each in story.told()] == [
        "vkCreateInstance",
        "vkEnumeratePhysicalDevices",
    ]


def test_fences_stand_as_they_stood(story: Story) -> None:
    story.create("Fence", 31)
    story.create("Fence", 32, flags=VK_FENCE_CREATE_SIGNALED_BIT)
    story.create("Fence", 33)
    assert story.names() == ["vkCreateFence"] * 3
    story.submit(fence=31)
    story.do("vkResetFences", device=DEVICE, fenceCount=1, pFences=[32])
    story.submit(fence=33)
    story.do("vkResetFences", device=DEVICE, fenceCount=1, pFences=[33])
    *_, signalled, unsignalled = story.lives()
    assert signalled.name == "vkQueueSubmit"
    assert signalled.parameters is not None
    assert (signalled.parameters["submitCount"], signalled.parameters["fence"]) == (0, 31)
    assert unsignalled.name == "vkResetFences"
    assert unsignalled.parameters is not None
    assert unsignalled.parameters["pFences"] == [32]
    assert len(story.names()) == 5


def test_semaphores_stand_as_they_stood(story: Story) -> None:
    kind = {"semaphoreType": VK_SEMAPHORE_TYPE_TIMELINE, "initialValue": 5}
    story.create("Semaphore", 31, pNext=[("VkSemaphoreTypeCreateInfo", kind)])
    story.create("Semaphore", 32)
    story.create("Semaphore", 33)
    values = {"signalSemaphoreValueCount": 3, "pSignalSemaphoreValues": [9, 0, 0]}
    story.submit(
        pNext=[("VkTimelineSemaphoreSubmitInfo", values)],
        signalSemaphoreCount=3,
        pSignalSemaphores=[31, 32, 33],
    )
    story.submit(waitSemaphoreCount=1, pWaitSemaphores=[33], pWaitDstStageMask=[1])
    *_, timeline, binary = story.lives()
    assert timeline.parameters is not None
    assert binary.parameters is not None
    assert timeline.parameters["pSignalInfo"]["value"] == 9
    assert binary.parameters["pSubmits"][0]["pSignalSemaphores"] == [32]
    assert len(story.names()) == 5


def test_what_failed_is_not_done_again(story: Story) -> None:
    data = CODEC.encode(
        "vkCreateBuffer", {"device": DEVICE, "pCreateInfo": {}, "pBuffer": 17}, reply=True
    )
    reply = data[:4] + (-2).to_bytes(4, "little", signed=True) + (0).to_bytes(8, "little")
    story.feed(command(data, reply))
    assert story.names() == []


def test_it_stops_where_memory_is_noted_as_a_whole(story: Story) -> None:
    data = CODEC.encode("vkCreateBuffer", {"device": DEVICE, "pCreateInfo": {}, "pBuffer": 17})
    first = command(data)
    cut = len(first)
    assert story.journal.feed(first + put(Kind.WHOLE, b"") + first) == cut
    assert len(story.names()) == 1


def test_a_record_of_which_a_part_has_come_is_not_lost(story: Story) -> None:
    whole = command(
        CODEC.encode("vkCreateBuffer", {"device": DEVICE, "pCreateInfo": {}, "pBuffer": 9})
    )
    body = whole[HEAD.size :]
    piece = put(Kind.COMMAND, body[:20], flags=1)
    story.feed(piece)
    assert story.journal.begun() == piece
