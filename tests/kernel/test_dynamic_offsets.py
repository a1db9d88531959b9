"""Dynamic offsets lie within the buffers behind their descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from kernel.conftest import Host
from kernel.set_messages import (
    BUFFER,
    OTHER_LAYOUT,
    OTHER_SET,
    PIPELINE_LAYOUT,
    POOL,
    SET,
    SET_LAYOUT,
    STORAGE,
    STORAGE_DYNAMIC,
    UNIFORM_DYNAMIC,
    bind,
    bind_2,
    binding,
    copy,
    make_layout,
    make_pipeline,
    make_sets,
    send,
    sets_host,
    update,
)

SMALL = 170
WHOLE = (1 << 64) - 1
SIZE, SMALL_SIZE = 4096, 1000


@pytest.fixture
def host(sets_driver: Path) -> Iterator[Host]:
    """Two sets of five dynamic descriptors, numbered across what is not dynamic."""
    for host in sets_host(sets_driver):
        info = {"size": SMALL_SIZE, "usage": 3}
        send(host, "vkCreateBuffer", device=3, pCreateInfo=info, pBuffer=SMALL)
        bindings = [
            binding(6, STORAGE_DYNAMIC, 1),
            binding(0, STORAGE, 3),
            binding(1, UNIFORM_DYNAMIC, 2),
            binding(3, UNIFORM_DYNAMIC, 0),
            binding(4, UNIFORM_DYNAMIC, 2),
        ]
        make_layout(host, SET_LAYOUT, *bindings)
        make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, SET_LAYOUT])
        make_pipeline(host, PIPELINE_LAYOUT, SET_LAYOUT, SET_LAYOUT)
        yield host


def dynamic(
    number: int, element: int, *parts: tuple[int, int, int], of: int = SET, type_: int = 0
) -> dict[str, Any]:
    """A VkWriteDescriptorSet of parts of buffers: (buffer, offset, range)s."""
    infos = [{"buffer": part[0], "offset": part[1], "range": part[2]} for part in parts]
    return {
        "dstSet": of,
        "dstBinding": number,
        "dstArrayElement": element,
        "descriptorCount": len(parts),
        "descriptorType": type_ or UNIFORM_DYNAMIC,
        "pBufferInfo": infos,
    }


@pytest.mark.parametrize("command", [bind, bind_2])
def test_an_offset_to_the_end_of_the_buffer(host: Host, command: Callable[..., None]) -> None:
    update(host, [dynamic(1, 0, (BUFFER, 256, 64))])
    command(host, [SET], 0, [SIZE - 256 - 64, 0, 0, 0, 0])
    with pytest.raises(
        ProtocolError, match=r"a dynamic offset of 3777, where .* part of the buffer there are 3776"
    ):
        command(host, [SET], 0, [SIZE - 256 - 64 + 1, 0, 0, 0, 0])


def test_each_descriptor_has_its_own(host: Host) -> None:
    parts = [(BUFFER, 0, 96), (SMALL, 0, 200), (BUFFER, 96, 4000)]
    update(host, [dynamic(1, 1, *parts), dynamic(6, 0, (SMALL, 0, 1), type_=STORAGE_DYNAMIC)])
    most = [0xFFFFFFFF, 4000, 800, 0, 999]
    bind(host, [SET], 0, most)
    bind(host, [OTHER_SET, SET], 0, [0xFFFFFFFF] * 5 + most)


@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_the_offset_that_leads_beyond(host: Host, place: int) -> None:
    parts = [(BUFFER, 0, 96), (SMALL, 0, 200), (BUFFER, 96, 4000)]
    update(host, [dynamic(1, 1, *parts), dynamic(6, 0, (SMALL, 0, 1), type_=STORAGE_DYNAMIC)])
    most = [0, 4000, 800, 0, 999]
    most[place] += 1
    with pytest.raises(ProtocolError, match=f"a dynamic offset of {most[place]}"):
        bind(host, [OTHER_SET, SET], 0, [0] * 5 + most)


def test_all_of_a_buffer_cannot_be_moved(host: Host) -> None:
    update(host, [dynamic(1, 0, (BUFFER, 64, WHOLE))])
    bind(host, [SET], 0, [0] * 5)
    with pytest.raises(ProtocolError, match="a dynamic offset of 16"):
        bind(host, [SET], 0, [16, 0, 0, 0, 0])


def test_null_can_be_moved(host: Host) -> None:
    update(host, [dynamic(1, 0, (BUFFER, 0, SIZE), (0, 0, WHOLE))])
    update(host, [dynamic(1, 0, (0, 0, WHOLE))])
    bind(host, [SET], 0, [4096, 4096, 0, 0, 0])


def test_what_is_copied_takes_its_reach_along(host: Host) -> None:
    update(host, [dynamic(1, 1, (SMALL, 0, 100), (BUFFER, 0, 96), of=OTHER_SET)])
    update(host, [], [copy((OTHER_SET, 1, 1), (SET, 1, 0), 3)])
    bind(host, [SET], 0, [900, 4000, 0xFFFFFFFF, 0, 0])
    with pytest.raises(ProtocolError, match="a dynamic offset of 4001"):
        bind(host, [SET], 0, [900, 4001, 0, 0, 0])


def test_what_is_copied_within_an_update_comes_after_what_is_written(host: Host) -> None:
    update(host, [dynamic(1, 0, (SMALL, 0, 100))], [copy((SET, 1, 0), (OTHER_SET, 4, 1), 1)])
    with pytest.raises(ProtocolError, match="a dynamic offset of 901"):
        bind(host, [OTHER_SET], 0, [0, 0, 0, 901, 0])


def test_a_new_set_of_that_id_knows_nothing_of_the_old_one(host: Host) -> None:
    update(host, [dynamic(1, 0, (SMALL, 0, SMALL_SIZE))])
    free = {"device": 3, "descriptorPool": POOL, "descriptorSetCount": 1}
    send(host, "vkFreeDescriptorSets", **free, pDescriptorSets=[SET])
    make_sets(host, [SET], [SET_LAYOUT])
    bind(host, [SET], 0, [64, 0, 0, 0, 0])


def test_what_is_kept_is_charged_and_given_back(host: Host) -> None:
    make_layout(host, OTHER_LAYOUT, binding(0, UNIFORM_DYNAMIC, 10000))
    before = host.engine.ledger.figures()["objects"]
    make_sets(host, [180], [OTHER_LAYOUT])
    assert host.engine.ledger.figures()["objects"] >= before + 80000
    send(host, "vkDestroyDescriptorSetLayout", device=3, descriptorSetLayout=OTHER_LAYOUT)
    send(host, "vkResetDescriptorPool", device=3, descriptorPool=POOL, flags=0)
    assert host.engine.ledger.figures()["objects"] < before
