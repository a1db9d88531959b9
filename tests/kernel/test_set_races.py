"""Rings that make, write, bind and drop layouts and descriptor sets at the same time.

`scripts/race` runs what is legal for longer, under the thread sanitizer.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hesper.protocol.codec import Codec
from kernel.conftest import Host, wait_for
from kernel.ring_guest import FilledRing, are_over
from kernel.set_messages import STORAGE, UNIFORM_DYNAMIC, binding, copy, layout_info

CODEC = Codec()
SHARED_LAYOUT, SHARED_SET, SHARED_POOL, BUFFER = range(60, 64)
RINGS = 3
ROUNDS = int(os.environ.get("HESPER_STRESS_ROUNDS", "5"))
BINDINGS = [binding(0, UNIFORM_DYNAMIC, 2), binding(1, STORAGE, 2), binding(2, STORAGE, 1)]

Commands = Iterator[tuple[str, dict[str, Any]]]


def write(of: int, number: int, element: int, count: int, type_: int) -> dict[str, Any]:
    info = {"buffer": BUFFER, "offset": 0, "range": 16}
    return {
        "dstSet": of,
        "dstBinding": number,
        "dstArrayElement": element,
        "descriptorCount": count,
        "descriptorType": type_,
        "pBufferInfo": [info] * count,
    }


def update(writes: list[dict[str, Any]], copies: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {"descriptorWriteCount": len(writes), "descriptorCopyCount": len(copies)}
    return counts | {"pDescriptorWrites": writes, "pDescriptorCopies": copies}


def make(layout: int, pipeline: int, pool: int, sets: list[int], shared: int) -> Commands:
    """A layout, a pipeline layout of it and another one, and a set of each."""
    yield "vkCreateDescriptorSetLayout", {
        "pCreateInfo": layout_info(BINDINGS), "pSetLayout": layout,
    }  # fmt: skip
    info: dict[str, Any] = {"setLayoutCount": 2, "pSetLayouts": [shared, layout]}
    info |= {"pushConstantRangeCount": 0}
    yield "vkCreatePipelineLayout", {"pCreateInfo": info, "pPipelineLayout": pipeline}
    info = {"descriptorPool": pool, "descriptorSetCount": 2, "pSetLayouts": [shared, layout]}
    yield "vkAllocateDescriptorSets", {"pAllocateInfo": info, "pDescriptorSets": sets}


def use(pipeline: int, commands: int, sets: list[int], source: int) -> Commands:
    """Writes, over bindings too, copies, and the sets bound with dynamic offsets."""
    writes = [write(sets[0], 0, 0, 2, UNIFORM_DYNAMIC), write(sets[1], 1, 0, 3, STORAGE)]
    copies = [copy((source, 0, 0), (sets[1], 0, 0), 2), copy((source, 1, 1), (sets[0], 1, 1), 2)]
    yield "vkUpdateDescriptorSets", update(writes, copies)
    bound = {"commandBuffer": commands, "pipelineBindPoint": 0, "layout": pipeline, "firstSet": 0}
    bound |= {"descriptorSetCount": 2, "dynamicOffsetCount": 4}
    yield "vkCmdBindDescriptorSets", bound | {"pDescriptorSets": sets, "pDynamicOffsets": [48] * 4}


def drop(layout: int, pipeline: int, pool: int, sets: list[int]) -> Commands:
    """The layout goes before its sets."""
    yield "vkDestroyDescriptorSetLayout", {"descriptorSetLayout": layout}
    yield "vkDestroyPipelineLayout", {"pipelineLayout": pipeline}
    freed = {"descriptorPool": pool, "descriptorSetCount": len(sets), "pDescriptorSets": sets}
    yield "vkFreeDescriptorSets", freed


def encode(commands: Commands) -> list[bytes]:
    return [
        CODEC.encode(name, values if "commandBuffer" in values else {"device": 3} | values)
        for name, values in commands
    ]


@pytest.fixture
def host(sets_driver: Path) -> Host:
    return share(sets_driver)


def share(library: Path) -> Host:
    """An engine with a layout, a set of it that rings copy from, and a pool for each ring."""
    host = Host(library)
    host.engine.objects.add(SHARED_POOL, "VkDescriptorPool", 300, device=3)
    info = {"size": 64, "usage": 3}
    made = {"device": 3, "pCreateInfo": info, "pBuffer": BUFFER}
    host.engine.submit(CODEC.encode("vkCreateBuffer", made))
    layout = {"pCreateInfo": layout_info(BINDINGS), "pSetLayout": SHARED_LAYOUT}
    sets = {"descriptorPool": SHARED_POOL, "descriptorSetCount": 1, "pSetLayouts": [SHARED_LAYOUT]}
    first = write(SHARED_SET, 0, 0, 2, UNIFORM_DYNAMIC)
    commands: list[tuple[str, dict[str, Any]]] = [
        ("vkCreateDescriptorSetLayout", layout),
        ("vkAllocateDescriptorSets", {"pAllocateInfo": sets, "pDescriptorSets": [SHARED_SET]}),
        ("vkUpdateDescriptorSets", update([first], [])),
    ]
    for data in encode(iter(commands)):
        host.engine.submit(data)
    for number in range(RINGS):
        host.engine.objects.add(3001 + number, "VkDescriptorPool", 301 + number, device=3)
        host.engine.objects.add(4001 + number, "VkCommandBuffer", 401 + number, device=3)
    return host


def legal(number: int) -> bytes:
    """What one of several rings does with objects of its own, and those that all look at."""
    layout, pipeline, pool, commands = (base + number for base in (1000, 2000, 3001, 4001))
    sets = [5000 + 2 * number, 5001 + 2 * number]
    once = itertools.chain(
        make(layout, pipeline, pool, sets, SHARED_LAYOUT),
        use(pipeline, commands, sets, SHARED_SET),
        drop(layout, pipeline, pool, sets),
    )
    return b"".join(encode(once)) * (4 * ROUNDS)


def test_rings_that_share_layouts(host: Host) -> None:
    rings = [FilledRing(host, 10 + number, legal(number)) for number in range(RINGS)]
    wait_for(partial(are_over, rings), "the rings to end")
    assert host.fatal == []
    assert host.holds() == {}


def hostile(seed: int) -> bytes:
    """The same under ids that all rings have, in any order."""
    draw = random.Random(seed)
    found: list[bytes] = []
    for _ in range(8):
        layout, pipeline, sets = 1000 + draw.randrange(2), 2000, [5000, 5001]
        parts = [
            *make(layout, pipeline, 3001, sets, SHARED_LAYOUT),
            *use(pipeline, 4001, sets, SHARED_SET),
            *drop(layout, pipeline, 3001, sets),
        ]
        begin = draw.randrange(len(parts))
        found += encode(iter(parts[begin:] if draw.randrange(4) == 0 else parts))
    return b"".join(found)


def test_rings_that_fight_for_layouts_and_sets(sets_driver: Path) -> None:
    """What the sanitizers look at; without them it must end, with everything given back."""
    for context in range(10):
        host = share(sets_driver)
        rings = [FilledRing(host, 10 + n, hostile(RINGS * context + n)) for n in range(RINGS)]
        wait_for(partial(are_over, rings), "the rings to end")
        held = host.holds()
        assert set(held) <= {"decoded"}, held
