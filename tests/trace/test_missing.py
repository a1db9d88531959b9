"""A replay goes on without what its driver has no command for, or does not make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded_guest import replay
from recordings import command, file_of, read

from hesper.protocol.codec import Codec
from hesper.trace.decoded import Decoded, decode
from hesper.trace.missing import Missing
from hesper.vk.enumerants import (
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
)

CODEC = Codec()
INSTANCE, PHYSICAL, DEVICE = 1, 2, 3


def told(name: str, result: int | None = None, **parameters: Any) -> bytes:
    """A command, with the result that it was answered, if it was."""
    data = CODEC.encode(name, parameters, reply=result is not None)
    answer = b"" if result is None else data[:4] + result.to_bytes(4, "little", signed=True)
    return command(data, answer)


def start() -> list[bytes]:
    """An instance and a device."""
    queues = [{"queueFamilyIndex": 0, "queueCount": 1, "pQueuePriorities": [1.0]}]
    return [
        told("vkCreateInstance", 0, pCreateInfo={}, pInstance=INSTANCE),
        told(
            "vkEnumeratePhysicalDevices",
            0,
            instance=INSTANCE,
            pPhysicalDeviceCount=1,
            pPhysicalDevices=[PHYSICAL],
        ),
        told(
            "vkCreateDevice",
            0,
            physicalDevice=PHYSICAL,
            pCreateInfo={"queueCreateInfoCount": 1, "pQueueCreateInfos": queues},
            pDevice=DEVICE,
        ),
    ]


def test_questions_that_this_driver_has_not_are_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "asked.hesper"
    asked = told(
        "vkGetPhysicalDeviceFragmentShadingRatesKHR",
        0,
        physicalDevice=PHYSICAL,
        pFragmentShadingRateCount=0,
        pFragmentShadingRates=None,
    )
    path.write_bytes(file_of(b"".join([*start(), asked])))
    outcome = replay(path)
    assert outcome.fatal == ""
    assert (outcome.commands, outcome.left_out, outcome.answers_other) == (3, 1, 1)
    assert outcome.results_other == 0


@pytest.mark.parametrize("result", [0, None])
def test_what_is_not_made_here_is_not_named(result: int | None, tmp_path: Path) -> None:
    path = tmp_path / "made.hesper"
    large = {"size": 1 << 40, "usage": 4}
    plain = {"size": 1 << 16, "usage": 4}
    records = [
        *start(),
        told("vkCreateBuffer", result, device=DEVICE, pCreateInfo=large, pBuffer=7),
        told("vkCreateBuffer", result, device=DEVICE, pCreateInfo=plain, pBuffer=8),
        # A view of it is not made either.
        told(
            "vkCreateBufferView",
            result,
            device=DEVICE,
            pCreateInfo={"buffer": 7, "format": 98, "range": 64},
            pView=9,
        ),
        told("vkDestroyBufferView", device=DEVICE, bufferView=9),
        told("vkDestroyBuffer", device=DEVICE, buffer=7),
        told("vkDestroyBuffer", device=DEVICE, buffer=8),
        # The id is another's then.
        told("vkCreateBuffer", result, device=DEVICE, pCreateInfo=plain, pBuffer=7),
        told("vkDestroyBuffer", device=DEVICE, buffer=7),
    ]
    path.write_bytes(file_of(b"".join(records)))
    outcome = replay(path)
    assert outcome.fatal == ""
    assert (outcome.without, outcome.commands) == (3, len(records) - 3)
    if result is not None:
        assert outcome.results_other == 1
        assert f"VkResult {VK_ERROR_OUT_OF_DEVICE_MEMORY}" in outcome.differences[0]


def decoded(name: str, **parameters: Any) -> Decoded:
    _, records = read(file_of(command(CODEC.encode(name, parameters))))
    return decode(0, records[0])


def test_what_is_made_of_what_is_missing_is_missing() -> None:
    missing = Missing()
    pool = decoded("vkCreateCommandPool", device=3, pCreateInfo={}, pCommandPool=10)
    assert not missing.lacks(pool)
    missing.made(pool, is_here=False)
    info = {"commandPool": 10, "commandBufferCount": 2}
    buffers = decoded(
        "vkAllocateCommandBuffers", device=3, pAllocateInfo=info, pCommandBuffers=[11, 12]
    )
    assert missing.lacks(buffers)
    submit = {"commandBufferCount": 2, "pCommandBuffers": [12, 20]}
    then = decoded("vkQueueSubmit", queue=5, submitCount=1, pSubmits=[submit], fence=6)
    assert missing.thin(then)
    assert not missing.lacks(then)
    ((info,), fence) = (then.parameters or {})["pSubmits"], (then.parameters or {})["fence"]
    assert (info["commandBufferCount"], info["pCommandBuffers"], fence) == (1, [20], 6)
    infos = [{"commandBuffer": 20}, {"commandBuffer": 11}]
    submit = {"commandBufferInfoCount": 2, "pCommandBufferInfos": infos}
    then = decoded("vkQueueSubmit2", queue=5, submitCount=1, pSubmits=[submit], fence=0)
    assert missing.thin(then)
    assert not missing.thin(then)
    assert not missing.lacks(decoded("vkQueueWaitIdle", queue=5))
    missing.made(buffers, is_here=True)
    assert missing
    missing.made(pool, is_here=True)
    assert not missing


def test_what_lacks_a_part_is_not_used() -> None:
    missing = Missing()
    info = {"allocationSize": 64}
    memory = decoded("vkAllocateMemory", device=3, pAllocateInfo=info, pMemory=10)
    missing.made(memory, is_here=False)
    bind = [{"buffer": 20, "memory": 9}, {"buffer": 21, "memory": 10}]
    assert missing.lacks(decoded("vkBindBufferMemory2", device=3, bindInfoCount=2, pBindInfos=bind))
    write = {
        "dstSet": 30,
        "descriptorCount": 1,
        "descriptorType": 7,
        "pBufferInfo": [{"buffer": 21}],
    }
    assert missing.lacks(
        decoded(
            "vkUpdateDescriptorSets",
            device=3,
            descriptorWriteCount=1,
            pDescriptorWrites=[write],
            descriptorCopyCount=0,
        )
    )
    sets = {"layout": 31, "descriptorSetCount": 1, "pDescriptorSets": [30]}
    bound = decoded("vkCmdBindDescriptorSets", commandBuffer=40, **sets, dynamicOffsetCount=0)
    assert missing.lacks(bound)
    assert missing.has(40)
    assert not missing.has(31)


def test_a_command_buffer_that_is_begun_again_is_whole_again() -> None:
    missing = Missing()
    missing.lose({20})
    copy = {"srcBuffer": 20, "dstBuffer": 21, "regionCount": 1, "pRegions": [{"size": 4}]}
    begin = decoded("vkBeginCommandBuffer", commandBuffer=40, pBeginInfo={})
    end = decoded("vkEndCommandBuffer", commandBuffer=40)
    assert not missing.lacks(begin)
    assert missing.lacks(decoded("vkCmdCopyBuffer", commandBuffer=40, **copy))
    assert missing.lacks(end)
    assert not missing.lacks(begin)
    assert not missing.lacks(end)
    # One that was not made stays so.
    missing.lose({41})
    assert missing.lacks(decoded("vkCmdCopyBuffer", commandBuffer=41, **copy))
    assert missing.lacks(decoded("vkBeginCommandBuffer", commandBuffer=41, pBeginInfo={}))
