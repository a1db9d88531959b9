"""Dead objects: what the guest takes for objects, and the driver has not made."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.kernel.handlers import Call
from hesper.protocol.codec import Codec, Reader
from kernel.conftest import BUFFER, COMMAND_BUFFER, Host, compile_library

QUEUE, REPLIES, SET = 7, 8, 9
NO_MEMORY, NO_HOST_MEMORY, LOST = -2, -1, -4
NEW, OTHER = 100, 101
CODEC = Codec()
IMAGE = {
    "extent": {"width": 1, "height": 1, "depth": 1},
    "mipLevels": 1,
    "arrayLayers": 1,
    "samples": 1,
}

CREATIONS: dict[str, dict[str, Any]] = {
    "vkAllocateMemory": {"pAllocateInfo": {"allocationSize": 4096}, "pMemory": NEW},
    "vkCreateBuffer": {"pCreateInfo": {"size": 4}, "pBuffer": NEW},
    "vkCreateImage": {"pCreateInfo": IMAGE, "pImage": NEW},
    "vkCreateFence": {"pCreateInfo": {}, "pFence": NEW},
    "vkCreateSemaphore": {"pCreateInfo": {}, "pSemaphore": NEW},
    "vkCreateEvent": {"pCreateInfo": {}, "pEvent": NEW},
    "vkCreateSampler": {"pCreateInfo": {}, "pSampler": NEW},
    "vkCreateQueryPool": {"pCreateInfo": {}, "pQueryPool": NEW},
    "vkCreateCommandPool": {"pCreateInfo": {}, "pCommandPool": NEW},
    "vkCreateDescriptorPool": {"pCreateInfo": {}, "pDescriptorPool": NEW},
    "vkCreateDescriptorSetLayout": {"pCreateInfo": {}, "pSetLayout": NEW},
    "vkCreatePipelineLayout": {"pCreateInfo": {}, "pPipelineLayout": NEW},
    "vkCreateShaderModule": {
        "pCreateInfo": {"codeSize": 20, "pCode": [0x07230203, 0x10000, 0, 1, 0]},
        "pShaderModule": NEW,
    },
}  # fmt: skip
BEGIN = {"commandBuffer": COMMAND_BUFFER, "pBeginInfo": {}}
END = {"commandBuffer": COMMAND_BUFFER}


def destruction(creation: str) -> tuple[str, str]:
    """The command that destroys what another one makes, and its parameter."""
    if creation == "vkAllocateMemory":
        return "vkFreeMemory", "memory"
    name = "vkDestroy" + creation.removeprefix("vkCreate")
    fields = CODEC.model.commands[name].fields
    return name, fields[1].name


class Failing:
    """An engine whose driver fails when the test says so."""

    def __init__(self, library: Path, **more: Any) -> None:
        self.driver = ctypes.CDLL(str(library))
        self.driver.called.restype = ctypes.c_char_p
        self.fail()
        self.host = Host(library, **more)
        self.engine = self.host.engine
        self.engine.objects.add(QUEUE, "VkQueue", 70, device=3, parent=3)
        self._replies = ctypes.create_string_buffer(4096)
        self.engine.resources.add(REPLIES, ctypes.addressof(self._replies), 4096)
        self.send("vkSetReplyCommandStreamMESA", pStream={"resourceId": REPLIES, "size": 4096})

    def fail(self, creation: int = 0, binding: int = 0, submission: int = 0) -> None:
        self.driver.fail(creation, binding, submission)

    def send(self, name: str, **parameters: Any) -> None:
        self.engine.submit(CODEC.encode(name, parameters))

    def call(self, name: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        seek = CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 0})
        self.engine.submit(seek + CODEC.encode(name, parameters, reply=True))
        _, result, outputs = CODEC.decode_reply(Reader(self._replies.raw), parameters)
        return result, outputs

    def bind(self, buffer: int, memory: int) -> dict[str, Any]:
        return {
            "device": 3, "bindInfoCount": 1,
            "pBindInfos": [{"buffer": buffer, "memory": memory, "memoryOffset": 0}],
        }  # fmt: skip

    def make_dead(self, creation: str = "vkCreateBuffer", result: int = NO_MEMORY) -> None:
        self.fail(result)
        self.send(creation, device=3, **CREATIONS[creation])
        self.fail()

    def fill(self, buffer: int) -> None:
        self.send("vkCmdFillBuffer", commandBuffer=COMMAND_BUFFER, dstBuffer=buffer, size=64)

    def submit(self) -> dict[str, Any]:
        batch = {"commandBufferCount": 1, "pCommandBuffers": [COMMAND_BUFFER]}
        return {"queue": QUEUE, "submitCount": 1, "pSubmits": [batch], "fence": 0}

    @property
    def called(self) -> list[str]:
        """What the driver was called for since it was last told what to do."""
        return [line.split()[0] for line in self.driver.called().decode().splitlines()]

    @property
    def lost(self) -> bool:
        return self.engine.devices.is_lost(3)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver."""
    return compile_library("failing_driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture
def failing(library: Path) -> Failing:
    return Failing(library)


@pytest.mark.parametrize("creation", list(CREATIONS))
def test_what_fails_unheard_is_dead_and_goes_silently(failing: Failing, creation: str) -> None:
    objects = failing.engine.statistics()["objects"]
    failing.make_dead(creation)
    assert failing.engine.objects.failure(NEW) == NO_MEMORY
    assert failing.engine.objects.lookup(NEW) is None
    assert failing.engine.statistics()["objects"] == objects + 1
    name, parameter = destruction(creation)
    failing.send(name, device=3, **{parameter: NEW})
    assert failing.engine.objects.failure(NEW) is None
    assert failing.engine.statistics()["objects"] == objects
    assert failing.host.fatal == []
    assert not failing.lost


@pytest.mark.parametrize("creation", list(CREATIONS))
def test_an_id_whose_failure_the_guest_has_heard_of_can_be_used_again(
    failing: Failing, creation: str
) -> None:
    failing.fail(NO_MEMORY)
    assert failing.call(creation, device=3, **CREATIONS[creation])[0] == NO_MEMORY
    assert failing.engine.objects.failure(NEW) == NO_MEMORY
    failing.fail()
    assert failing.call(creation, device=3, **CREATIONS[creation])[0] == 0
    assert failing.engine.objects.failure(NEW) is None


def test_failures_that_the_guest_hears_of_take_no_room(library: Path) -> None:
    failing = Failing(library, object_limit=200)
    failing.fail(NO_MEMORY)
    for number in range(1000):
        buffer = {"pCreateInfo": {"size": 4}, "pBuffer": NEW + number}
        assert failing.call("vkCreateBuffer", device=3, **buffer)[0] == NO_MEMORY
    assert failing.engine.objects.failure(NEW) is None
    assert failing.engine.objects.failure(NEW + 999) == NO_MEMORY
    failing.send("vkDestroyBuffer", device=3, buffer=NEW + 999)
    assert failing.host.fatal == []


def test_a_handler_that_refuses_leaves_a_dead_object(library: Path) -> None:
    def refuse(call: Call) -> None:
        call.reason = "no more than 5 bytes"
        call.result = NO_HOST_MEMORY

    failing = Failing(library, vkAllocateMemory=refuse)
    for _ in range(3):
        failing.send("vkAllocateMemory", device=3, **CREATIONS["vkAllocateMemory"])
        assert failing.engine.objects.failure(NEW) == NO_HOST_MEMORY
        failing.send("vkFreeMemory", device=3, memory=NEW)
    facts = {
        "command": "vkAllocateMemory", "result": NO_HOST_MEMORY, "reason": "no more than 5 bytes",
        "size": 4096, "memory_type": 0,
    }  # fmt: skip
    assert failing.host.notices == [("command failed", facts)]


def test_binding_dead_memory(failing: Failing) -> None:
    failing.make_dead("vkAllocateMemory")
    assert failing.call("vkBindBufferMemory2", **failing.bind(BUFFER, NEW))[0] == NO_MEMORY
    assert failing.engine.objects.failure(BUFFER) is None
    failing.send("vkBindBufferMemory2", **failing.bind(BUFFER, NEW))
    assert failing.engine.objects.failure(BUFFER) == NO_MEMORY, (
        "the guest believes that it can be used"
    )
    assert failing.called == []


def test_a_buffer_whose_binding_fails_is_dead_and_the_drivers_is_destroyed(
    failing: Failing,
) -> None:
    failing.send("vkAllocateMemory", device=3, **CREATIONS["vkAllocateMemory"])
    failing.fail(binding=NO_HOST_MEMORY)
    failing.send("vkBindBufferMemory2", **failing.bind(BUFFER, NEW))
    assert failing.engine.objects.failure(BUFFER) == NO_HOST_MEMORY
    assert failing.called == ["vkBindBufferMemory2"]
    failing.send("vkDestroyBuffer", device=3, buffer=BUFFER)
    assert failing.driver.called() == b"vkBindBufferMemory2 1\nvkDestroyBuffer 50\n"
    assert failing.engine.objects.failure(BUFFER) is None


def test_what_is_made_of_a_dead_object_is_dead(failing: Failing) -> None:
    failing.make_dead()
    view = {"pCreateInfo": {"buffer": NEW}, "pView": OTHER}
    assert failing.call("vkCreateBufferView", device=3, **view)[0] == NO_MEMORY
    failing.send("vkCreateBufferView", device=3, **view)
    assert failing.engine.objects.failure(OTHER) == NO_MEMORY


def test_a_command_buffer_with_a_dead_object_is_dead_until_it_begins_again(
    failing: Failing,
) -> None:
    failing.make_dead()
    failing.send("vkBeginCommandBuffer", **BEGIN)
    failing.fill(BUFFER)
    failing.fill(NEW)
    failing.fill(BUFFER)
    failing.send("vkCmdDraw", commandBuffer=COMMAND_BUFFER)
    assert failing.call("vkEndCommandBuffer", **END)[0] == NO_MEMORY
    assert failing.called == ["vkBeginCommandBuffer", "vkCmdFillBuffer"]
    assert failing.engine.objects.failure(COMMAND_BUFFER) == NO_MEMORY
    failing.fail()
    assert failing.call("vkBeginCommandBuffer", **BEGIN)[0] == 0
    failing.fill(BUFFER)
    assert failing.call("vkEndCommandBuffer", **END)[0] == 0
    failing.send("vkQueueSubmit", **failing.submit())
    assert failing.called == [
        "vkBeginCommandBuffer", "vkCmdFillBuffer", "vkEndCommandBuffer", "vkQueueSubmit",
    ]  # fmt: skip
    assert not failing.lost


def test_a_submission_of_what_is_dead_loses_the_device(failing: Failing) -> None:
    failing.make_dead()
    failing.send("vkBeginCommandBuffer", **BEGIN)
    failing.fill(NEW)
    failing.send("vkEndCommandBuffer", **END)
    assert failing.call("vkQueueSubmit", **failing.submit())[0] == NO_MEMORY
    assert not failing.lost, "the guest has heard of it"
    failing.send("vkQueueSubmit", **failing.submit())
    assert failing.lost
    assert "vkQueueSubmit" not in failing.called
    assert failing.call("vkDeviceWaitIdle", device=3)[0] == LOST
    assert [event for event, _ in failing.host.notices] == ["command failed", "device lost"]
    assert failing.host.fatal == []


def test_a_submission_that_fails_unheard_loses_the_device(failing: Failing) -> None:
    failing.fail(submission=NO_MEMORY)
    assert failing.call("vkQueueSubmit", **failing.submit())[0] == NO_MEMORY
    assert not failing.lost
    failing.send("vkQueueSubmit", **failing.submit())
    assert failing.lost


def test_an_update_of_descriptors_that_is_left_out_loses_the_device(failing: Failing) -> None:
    failing.engine.objects.add(SET, "VkDescriptorSet", 90, device=3, parent=3)
    failing.make_dead()
    write = {
        "dstSet": SET, "descriptorCount": 1, "descriptorType": 7,
        "pBufferInfo": [{"buffer": NEW, "range": 4}],
    }  # fmt: skip
    failing.send(
        "vkUpdateDescriptorSets", device=3, descriptorWriteCount=1, pDescriptorWrites=[write]
    )
    assert failing.called == []
    assert failing.lost


def test_a_question_about_a_dead_object_is_answered_with_nothing(failing: Failing) -> None:
    failing.make_dead()
    _, outputs = failing.call(
        "vkGetBufferMemoryRequirements2", device=3, pInfo={"buffer": NEW}, pMemoryRequirements={}
    )
    found = outputs["pMemoryRequirements"]["memoryRequirements"]
    assert (found["size"], found["memoryTypeBits"]) == (0, 0)
    assert failing.called == []
    assert not failing.lost


def test_what_comes_of_a_dead_pool_goes_with_it(failing: Failing) -> None:
    objects = failing.engine.statistics()["objects"]
    failing.make_dead("vkCreateCommandPool")
    info = {"commandPool": NEW, "commandBufferCount": 2}
    failing.send(
        "vkAllocateCommandBuffers", device=3, pAllocateInfo=info, pCommandBuffers=[OTHER, OTHER + 1]
    )
    assert failing.engine.objects.failure(OTHER + 1) == NO_MEMORY
    failing.send("vkBeginCommandBuffer", commandBuffer=OTHER, pBeginInfo={})
    failing.send("vkCmdDraw", commandBuffer=OTHER)
    failing.send(
        "vkFreeCommandBuffers", device=3, commandPool=NEW, commandBufferCount=1,
        pCommandBuffers=[OTHER + 1],
    )  # fmt: skip
    assert failing.engine.objects.failure(OTHER + 1) is None
    failing.send("vkDestroyCommandPool", device=3, commandPool=NEW)
    assert failing.engine.objects.failure(OTHER) is None
    assert failing.engine.statistics()["objects"] == objects
    assert failing.called == []
    assert not failing.lost


def test_command_buffers_that_could_not_be_allocated(failing: Failing) -> None:
    failing.send("vkCreateCommandPool", device=3, **CREATIONS["vkCreateCommandPool"])
    failing.fail(NO_HOST_MEMORY)
    info = {"commandPool": NEW, "commandBufferCount": 2}
    failing.send(
        "vkAllocateCommandBuffers", device=3, pAllocateInfo=info, pCommandBuffers=[OTHER, OTHER + 1]
    )
    assert failing.engine.objects.failure(OTHER + 1) == NO_HOST_MEMORY
    failing.send("vkDestroyCommandPool", device=3, commandPool=NEW)
    assert failing.engine.objects.failure(OTHER) is None


def test_a_dead_descriptor_pool_is_reset_without_the_driver(failing: Failing) -> None:
    failing.make_dead("vkCreateDescriptorPool")
    assert failing.call("vkResetDescriptorPool", device=3, descriptorPool=NEW)[0] == 0
    assert failing.called == []


def test_dead_objects_count(library: Path) -> None:
    failing = Failing(library, object_limit=10)
    failing.fail(NO_MEMORY)
    room = 10 - failing.engine.statistics()["objects"]
    for number in range(room):
        failing.send("vkCreateBuffer", device=3, pCreateInfo={"size": 4}, pBuffer=NEW + number)
    with pytest.raises(ProtocolError, match="more than 10 objects"):
        failing.send("vkCreateBuffer", device=3, pCreateInfo={"size": 4}, pBuffer=NEW + room)


def test_a_driver_that_refuses_is_told_of_once(failing: Failing) -> None:
    for _ in range(3):
        failing.make_dead("vkAllocateMemory")
        failing.send("vkFreeMemory", device=3, memory=NEW)
    facts = {
        "command": "vkAllocateMemory", "result": NO_MEMORY, "reason": "the driver said so",
        "size": 4096, "memory_type": 0,
    }  # fmt: skip
    assert failing.host.notices == [("command failed", facts)]


def test_a_type_still_has_to_fit(failing: Failing) -> None:
    failing.make_dead("vkAllocateMemory")
    with pytest.raises(ProtocolError, match=f"object {NEW} is of another type"):
        failing.fill(NEW)
