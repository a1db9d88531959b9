"""A guest whose rings destroy and make objects of the same ids: legal for none, survived by all."""

from __future__ import annotations

import gc
import itertools
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hesper.guest import regions
from hesper.kernel.errors import ProtocolError
from hesper.portable import page_size
from hesper.protocol.codec import Codec
from kernel.conftest import Host, wait_for
from kernel.ring_guest import SIZE, FilledRing, are_over

CODEC = Codec()
SETS = [201, 202]
CONTEXTS, RINGS, ROUNDS = 20, 3, 12


def test_what_is_named_twice_is_not_destroyed_twice(host: Host) -> None:
    host.engine.objects.add(200, "VkDescriptorPool", 2000, device=3)
    for one in SETS:
        host.engine.objects.add(one, "VkDescriptorSet", 10 * one, device=3, parent=200)
    free = {"device": 3, "descriptorPool": 200, "descriptorSetCount": 3}
    with pytest.raises(ProtocolError, match="no object 202"):
        host.engine.submit(
            CODEC.encode("vkFreeDescriptorSets", {**free, "pDescriptorSets": [*SETS, 202]})
        )


def test_an_object_is_taken_once_and_not_its_successor(host: Host) -> None:
    objects = host.engine.objects
    region = regions.create(host.engine.pool, 1, "hesper-test")
    objects.add(20, "VkDeviceMemory", 200, device=3, region=region)
    old = objects.lookup(20)
    assert old is not None
    taken = objects.take(old)
    assert taken is not None
    assert objects.lookup(20) is None
    assert objects.take(old) is None
    assert host.engine.pool.used == page_size(), "released while the driver may still use it"
    del taken
    assert host.engine.pool.used == 0
    objects.add(20, "VkDeviceMemory", 201, device=3)
    assert objects.take(old) is None
    assert objects.lookup(20) is not None


def test_what_was_taken_may_end_with_its_context(host: Host) -> None:
    """The garbage collector ends both where neither can be reached, in any order."""
    pool = host.engine.pool
    region = regions.create(pool, 1, "hesper-test")
    host.engine.objects.add(20, "VkDeviceMemory", 200, device=3, region=region)
    old = host.engine.objects.lookup(20)
    assert old is not None
    circle: list[object] = [host.engine.objects.take(old)]
    circle.append(circle)
    assert pool.used == page_size()
    del circle
    gc.collect()
    assert pool.used == 0


def test_a_queue_that_is_asked_for_again_takes_no_more_room(host: Host) -> None:
    for queue in range(100):
        host.engine.objects.add(300 + queue, "VkQueue", 70, device=3)
    timeline = host.engine.timelines.bind(5, 300, lambda _: None)
    with pytest.raises(ProtocolError, match="queue 399 has a timeline already"):
        host.engine.timelines.bind(6, 399, lambda _: None)
    host.engine.objects.add(8, "VkQueue", 70, device=3)
    other = host.engine.timelines.bind(6, 8, lambda _: None)
    timeline.stop(1)
    other.stop(1)
    for queue in range(2, 64):
        host.engine.objects.add(1000 + queue, "VkQueue", 1000 + queue, device=3)
    with pytest.raises(ProtocolError, match="more than 64 queues"):
        host.engine.objects.add(2000, "VkQueue", 2000, device=3)


def test_a_queue_needs_its_device(host: Host) -> None:
    host.engine.objects.add(7, "VkQueue", 70, device=3)
    host.engine.objects.remove(3)
    with pytest.raises(KeyError, match="queue 7"):
        host.engine.timelines.bind(5, 7, lambda _: None)


def fights(seed: int) -> bytes:
    """Commands that make and destroy objects of different types under the same few ids."""
    draw = random.Random(seed)
    info = {"commandPool": 30, "level": 0, "commandBufferCount": 1}
    made: dict[str, tuple[str, dict[str, Any], str]] = {
        "buffer": ("vkCreateBuffer", {"pCreateInfo": {"size": 64}}, "pBuffer"),
        "memory": ("vkAllocateMemory", {"pAllocateInfo": {"allocationSize": 4096}}, "pMemory"),
        "commands": ("vkAllocateCommandBuffers", {"pAllocateInfo": info}, "pCommandBuffers"),
        "fence": ("vkCreateFence", {"pCreateInfo": {}}, "pFence"),
    }
    commands = []
    for _, kind in itertools.product(range(ROUNDS), made):
        command, parameters, output = made[kind]
        one = 100 + draw.randrange(2)
        new: int | list[int] = [one] if kind == "commands" else one
        commands.append(CODEC.encode(command, {"device": 3, **parameters, output: new}))
        if kind == "commands":
            gone = {"commandPool": 30, "commandBufferCount": 1, "pCommandBuffers": [one]}
            commands.append(CODEC.encode("vkFreeCommandBuffers", {"device": 3, **gone}))
        else:
            command = {"memory": "vkFreeMemory", "fence": "vkDestroyFence"}.get(
                kind, "vkDestroyBuffer"
            )
            commands.append(CODEC.encode(command, {"device": 3, kind: one}))
    sizes = itertools.accumulate(map(len, commands))
    return b"".join(command for command, end in zip(commands, sizes, strict=True) if end < SIZE)


def test_rings_that_fight_for_ids_end_their_context_alone(queue_driver: Path) -> None:
    """What the sanitizers look at; without them it must end."""
    for context in range(CONTEXTS):
        host = Host(queue_driver)
        host.engine.objects.add(30, "VkCommandPool", 300, device=3)
        rings = [FilledRing(host, n, fights(RINGS * context + n)) for n in range(1, RINGS + 1)]
        wait_for(partial(are_over, rings), "the rings to end")
        host.engine.stop()
