"""Queues of a recording on a driver that has others."""

from __future__ import annotations

from typing import Any

import pytest
from recordings import command, file_of, read

from hesper.protocol.codec import Codec
from hesper.protocol.codec import Reader as WireReader
from hesper.trace.decoded import Decoded, decode
from hesper.trace.queues import Family, match
from hesper.trace.translate import Translation
from hesper.vk.enumerants import (
    VK_QUEUE_COMPUTE_BIT,
    VK_QUEUE_GRAPHICS_BIT,
    VK_QUEUE_SPARSE_BINDING_BIT,
    VK_QUEUE_TRANSFER_BIT,
    VK_QUEUE_VIDEO_DECODE_BIT_KHR,
    VK_SHARING_MODE_CONCURRENT,
    VK_SHARING_MODE_EXCLUSIVE,
)

CODEC = Codec()
COPY = VK_QUEUE_TRANSFER_BIT
COMPUTE = VK_QUEUE_COMPUTE_BIT | COPY
ALL = VK_QUEUE_GRAPHICS_BIT | COMPUTE
SPARSE = VK_QUEUE_SPARSE_BINDING_BIT
VIDEO = VK_QUEUE_VIDEO_DECODE_BIT_KHR
DISCRETE = [Family(ALL | SPARSE, 16), Family(COPY | SPARSE, 2), Family(COMPUTE | SPARSE, 8)]
SOFTWARE = [Family(ALL, 1)]


def decoded(name: str, **parameters: Any) -> Decoded:
    """A command of a recording."""
    _, records = read(file_of(command(CODEC.encode(name, parameters))))
    return decode(0, records[0])


def again(data: bytes | None) -> dict[str, Any]:
    """The parameters in a command's bytes."""
    assert data is not None
    return CODEC.decode(WireReader(data))[2]


@pytest.mark.parametrize(
    ("then", "now", "found"),
    [
        (SOFTWARE, DISCRETE, {}),
        (DISCRETE, SOFTWARE, {1: 0, 2: 0}),
        (DISCRETE, DISCRETE, {}),
        ([Family(ALL, 1), Family(COPY, 1)], DISCRETE, {}),
        ([Family(COPY, 1), Family(COMPUTE, 1)], DISCRETE, {0: 1, 1: 2}),
        # Nobody can do it here: it is the driver that says so.
        ([Family(ALL, 1), Family(VIDEO, 1)], SOFTWARE, {1: 0}),
        (DISCRETE, [], {}),
    ],
)
def test_a_family_is_the_one_that_can_do_most_of_it(
    then: list[Family], now: list[Family], found: dict[int, int]
) -> None:
    assert match(then, now) == found


def made_on_software(*families: tuple[int, int]) -> tuple[Translation, dict[str, Any]]:
    """A device with so many queues of each family, made where there is one queue."""
    translation = Translation()
    translation.queues.learn(DISCRETE, SOFTWARE)
    infos = [
        {
            "queueFamilyIndex": family,
            "queueCount": count,
            "pQueuePriorities": [0.25 * (i + 1) for i in range(count)],
        }
        for family, count in families
    ]
    info = {"queueCreateInfoCount": len(infos), "pQueueCreateInfos": infos}
    then = decoded("vkCreateDevice", physicalDevice=2, pCreateInfo=info, pDevice=3)
    return translation, again(translation.apply(then))["pCreateInfo"]


def named(translation: Translation, family: int, number: int, queue: int) -> bytes | None:
    info = {"queueFamilyIndex": family, "queueIndex": number}
    then = decoded("vkGetDeviceQueue2", device=3, pQueueInfo=info, pQueue=queue)
    return translation.apply(then)


def test_a_device_asks_for_no_more_queues_than_there_are() -> None:
    _, info = made_on_software((0, 2), (2, 1))
    assert info["queueCreateInfoCount"] == 1
    (queues,) = info["pQueueCreateInfos"]
    assert (queues["queueFamilyIndex"], queues["queueCount"]) == (0, 1)
    assert queues["pQueuePriorities"] == [0.25]


def test_several_queues_share_one_by_the_first_ones_name() -> None:
    translation, _ = made_on_software((0, 2), (2, 1))
    first = again(named(translation, 0, 0, 10))["pQueueInfo"]
    assert (first["queueFamilyIndex"], first["queueIndex"]) == (0, 0)
    assert named(translation, 0, 1, 11) is None
    assert named(translation, 2, 0, 12) is None
    for queue in (10, 11, 12):
        wait = decoded("vkQueueWaitIdle", queue=queue)
        assert again(translation.apply(wait))["queue"] == 10


def test_queues_of_their_own_where_there_are_enough() -> None:
    translation = Translation()
    translation.queues.learn([Family(COMPUTE, 1), Family(COPY, 2)], DISCRETE)
    infos = [
        {"queueFamilyIndex": 0, "queueCount": 1, "pQueuePriorities": [1.0]},
        {"queueFamilyIndex": 1, "queueCount": 2, "pQueuePriorities": [1.0, 0.5]},
    ]
    info = {"queueCreateInfoCount": 2, "pQueueCreateInfos": infos}
    then = decoded("vkCreateDevice", physicalDevice=2, pCreateInfo=info, pDevice=3)
    here = again(translation.apply(then))["pCreateInfo"]["pQueueCreateInfos"]
    assert [(each["queueFamilyIndex"], each["queueCount"]) for each in here] == [(2, 1), (1, 2)]
    last = again(named(translation, 1, 1, 10))["pQueueInfo"]
    assert (last["queueFamilyIndex"], last["queueIndex"]) == (1, 1)
    assert again(named(translation, 0, 0, 11))["pQueueInfo"]["queueFamilyIndex"] == 2
    assert translation.queues.renamed == {}


@pytest.mark.parametrize("families", [[0, 2], [0, 1, 2]])
def test_who_shares_with_itself_alone_shares_nothing(families: list[int]) -> None:
    translation, _ = made_on_software((0, 1), (2, 1))
    info = {
        "size": 64,
        "usage": 1,
        "sharingMode": VK_SHARING_MODE_CONCURRENT,
        "queueFamilyIndexCount": len(families),
        "pQueueFamilyIndices": families,
    }
    then = decoded("vkCreateBuffer", device=3, pCreateInfo=info, pBuffer=9)
    here = again(translation.apply(then))["pCreateInfo"]
    assert here["sharingMode"] == VK_SHARING_MODE_EXCLUSIVE
    assert here["queueFamilyIndexCount"] == 0
    assert here["pQueueFamilyIndices"] is None
