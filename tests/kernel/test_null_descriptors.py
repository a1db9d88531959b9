"""Null descriptors, vertices and indices: by a feature alone, and what stands in for them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.vk import enumerants as vk
from kernel.conftest import COMMAND_BUFFER, Host, compile_library
from kernel.set_messages import (
    PIPELINE_LAYOUT,
    PUSH,
    PUSH_LAYOUT,
    PUSH_PIPELINE,
    SET,
    SET_LAYOUT,
    STRUCTURE,
    bind,
    binding,
    make_layout,
    make_pipeline,
    make_sets,
    push,
    push_2,
    send,
    sets_host,
    update,
    write,
)

ZEROS, SINK, ZERO_TEXELS, SINK_TEXELS, ZERO_IMAGE, SINK_IMAGE = range(0x7001, 0x7007)
SIZE, RANGE, SINK_RANGE, WHOLE = 1 << 20, 1 << 16, 256, (1 << 64) - 1
DEAD = 300
STAND_INS = {
    "zeros": ZEROS,
    "zeros_size": SIZE,
    "uniform_range": RANGE,
    "sink": SINK,
    "zero_texels": ZERO_TEXELS,
    "sink_texels": SINK_TEXELS,
    "zero_image": ZERO_IMAGE,
    "sink_image": SINK_IMAGE,
}
GENERAL, READ_ONLY = vk.VK_IMAGE_LAYOUT_GENERAL, vk.VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL

BUFFERS = {
    vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER: (ZEROS, RANGE),
    vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER: (SINK, SINK_RANGE),
    vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC: (ZEROS, RANGE),
    vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC: (SINK, SINK_RANGE),
}
TEXELS = {
    vk.VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER: ZERO_TEXELS,
    vk.VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER: SINK_TEXELS,
}
IMAGES = {
    vk.VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER: ZERO_IMAGE,
    vk.VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE: ZERO_IMAGE,
    vk.VK_DESCRIPTOR_TYPE_STORAGE_IMAGE: SINK_IMAGE,
    vk.VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT: ZERO_IMAGE,
}
SAMPLER = vk.VK_DESCRIPTOR_TYPE_SAMPLER
TYPES = (*BUFFERS, *TEXELS, *IMAGES)
DYNAMIC = (
    vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC,
    vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC,
)

Noted = Callable[[], list[int]]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library("null_driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture
def noted(driver: Path) -> Noted:
    """What the driver was told last."""
    library = ctypes.CDLL(str(driver))
    library.noted.restype = ctypes.POINTER(ctypes.c_uint64)

    def words() -> list[int]:
        count = ctypes.c_ulong()
        found = library.noted(ctypes.byref(count))
        return list(found[: count.value])

    return words


@pytest.fixture
def host(driver: Path) -> Iterator[Host]:
    """A binding of each type, by its number, of two descriptors; so a set, and what is pushed."""
    for host in sets_host(driver):
        every = [binding(type_, type_, 2) for type_ in (*TYPES, SAMPLER)]
        pushed = [binding(type_, type_, 2) for type_ in TYPES if type_ not in DYNAMIC]
        make_layout(host, SET_LAYOUT, *every)
        make_layout(host, PUSH_LAYOUT, *pushed, layout_flags=PUSH)
        make_sets(host, [SET], [SET_LAYOUT])
        make_pipeline(host, PIPELINE_LAYOUT, SET_LAYOUT)
        make_pipeline(host, PUSH_PIPELINE, PUSH_LAYOUT)
        yield host


@pytest.fixture
def supplied(host: Host) -> Host:
    """The same, where the driver has no nullDescriptor."""
    host.engine.devices.describe_nulls(3, descriptors=True, indices=True, stand_ins=STAND_INS)
    return host


def null(type_: int, count: int = 2) -> dict[str, Any]:
    """A VkWriteDescriptorSet of nothing."""
    one: dict[str, Any] = {
        "dstSet": SET,
        "dstBinding": type_,
        "dstArrayElement": 0,
        "descriptorCount": count,
        "descriptorType": type_,
    }
    if type_ in BUFFERS:
        one["pBufferInfo"] = [{"buffer": 0, "offset": 0, "range": WHOLE}] * count
    elif type_ in TEXELS:
        one["pTexelBufferView"] = [0] * count
    else:
        one["pImageInfo"] = [{"sampler": 0, "imageView": 0, "imageLayout": READ_ONLY}] * count
    return one


def stand_in(type_: int) -> list[int]:
    """What the driver hears of one descriptor."""
    if type_ in BUFFERS:
        buffer, range_ = BUFFERS[type_]
        return [buffer, 0, range_]
    return [TEXELS[type_]] if type_ in TEXELS else [IMAGES[type_], GENERAL]


def vertices(host: Host, *, sizes: list[int] | None = None, second: bool = False) -> None:
    more = {"pSizes": sizes, "pStrides": None} if second else {}
    send(
        host,
        "vkCmdBindVertexBuffers2" if second else "vkCmdBindVertexBuffers",
        commandBuffer=COMMAND_BUFFER,
        firstBinding=0,
        bindingCount=2,
        pBuffers=[0, 5],
        pOffsets=[0, 12],
        **more,
    )


def indices(host: Host, *, second: bool = False) -> None:
    more = {"size": WHOLE} if second else {}
    send(
        host,
        "vkCmdBindIndexBuffer2" if second else "vkCmdBindIndexBuffer",
        commandBuffer=COMMAND_BUFFER,
        buffer=0,
        offset=0,
        indexType=0,
        **more,
    )


@pytest.mark.parametrize("type_", TYPES)
def test_a_driver_that_takes_null_gets_it(host: Host, noted: Noted, type_: int) -> None:
    update(host, [null(type_)])
    one = [0, 0, WHOLE] if type_ in BUFFERS else [0] if type_ in TEXELS else [0, READ_ONLY]
    assert noted() == [type_, *one, *one]


@pytest.mark.parametrize("type_", TYPES)
def test_without_the_feature_null_ends_the_context(host: Host, type_: int) -> None:
    host.engine.devices.describe_nulls(3, descriptors=False, indices=True)
    with pytest.raises(ProtocolError, match="null is not allowed"):
        update(host, [null(type_)])


@pytest.mark.parametrize("push_it", [push, push_2])
@pytest.mark.parametrize("type_", [each for each in TYPES if each not in DYNAMIC])
def test_nor_can_it_be_pushed(host: Host, push_it: Callable[..., None], type_: int) -> None:
    host.engine.devices.describe_nulls(3, descriptors=False, indices=True)
    with pytest.raises(ProtocolError, match="null is not allowed"):
        push_it(host, [null(type_)])


def test_a_sampler_has_no_view(host: Host, noted: Noted) -> None:
    host.engine.devices.describe_nulls(3, descriptors=False, indices=False)
    update(host, [null(SAMPLER)])
    assert noted() == [SAMPLER, 0, READ_ONLY, 0, READ_ONLY]


@pytest.mark.parametrize("type_", TYPES)
def test_stand_ins(supplied: Host, noted: Noted, type_: int) -> None:
    update(supplied, [null(type_)])
    assert noted() == [type_, *stand_in(type_), *stand_in(type_)]


@pytest.mark.parametrize("push_it", [push, push_2])
def test_stand_ins_of_what_is_pushed(
    supplied: Host, noted: Noted, push_it: Callable[..., None]
) -> None:
    types = [each for each in TYPES if each not in DYNAMIC]
    push_it(supplied, [null(type_) for type_ in types])
    expected: list[int] = []
    for type_ in types:
        expected += [type_, *stand_in(type_), *stand_in(type_)]
    assert noted() == expected


def test_what_is_not_null_stays(supplied: Host, noted: Noted) -> None:
    uniform = vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER
    both = write(uniform, 0, 2, uniform)
    both["pBufferInfo"][0]["buffer"] = 0
    update(supplied, [both])
    _, buffer, offset, range_, other, *rest = noted()
    assert (buffer, offset, range_) == (ZEROS, 0, RANGE)
    assert other not in (0, ZEROS)
    assert rest == [1, 1]
    update(supplied, [write(uniform, 0, 2, uniform)])
    assert noted() == [uniform, other, 0, 1, other, 1, 1]


def test_what_runs_over_bindings_has_stand_ins(supplied: Host, noted: Noted) -> None:
    make_layout(supplied, 200, binding(0, 6, 1), binding(1, 6, 2))
    make_sets(supplied, [201], [200])
    update(supplied, [null(6, 3) | {"dstSet": 201, "dstBinding": 0}])
    assert noted() == [6, *stand_in(6), 6, *stand_in(6), *stand_in(6)]


@pytest.mark.parametrize("type_", DYNAMIC)
def test_dynamic_offsets_of_nothing(supplied: Host, noted: Noted, type_: int) -> None:
    """They count for nothing; those beside them stay."""
    other = next(each for each in DYNAMIC if each != type_)
    update(supplied, [null(type_), write(other, 0, 2, other)])
    far = (1 << 32) - 256
    offsets = {type_: [far, 256], other: [256, 0]}
    bind(supplied, [SET], 0, offsets[DYNAMIC[0]] + offsets[DYNAMIC[1]])
    heard = {type_: [0, 0], other: [256, 0]}
    assert noted() == heard[DYNAMIC[0]] + heard[DYNAMIC[1]]


def test_a_dynamic_offset_beyond_a_buffer_is_none_of_nothing(supplied: Host) -> None:
    update(supplied, [null(DYNAMIC[0], 1), write(DYNAMIC[1], 0, 2, DYNAMIC[1])])
    with pytest.raises(ProtocolError, match="a dynamic offset of"):
        bind(supplied, [SET], 0, [1 << 31, 1 << 31, 1 << 31, 0])


@pytest.mark.parametrize("second", [False, True])
def test_vertices(supplied: Host, noted: Noted, second: bool) -> None:
    vertices(supplied, second=second)
    assert noted() == [ZEROS, 0, 50, 12]


def test_sizes_of_vertices(supplied: Host, noted: Noted) -> None:
    vertices(supplied, second=True, sizes=[16, 24])
    assert noted() == [ZEROS, 0, SIZE, 50, 12, 24]


@pytest.mark.parametrize("second", [False, True])
def test_indices(supplied: Host, noted: Noted, second: bool) -> None:
    indices(supplied, second=second)
    assert noted() == [ZEROS, 0, *([SIZE] if second else [])]


@pytest.mark.parametrize("second", [False, True])
def test_a_driver_that_takes_null_buffers_gets_them(host: Host, noted: Noted, second: bool) -> None:
    vertices(host, second=second)
    assert noted() == [0, 0, 50, 12]
    indices(host, second=second)
    assert noted() == [0, 0, *([WHOLE] if second else [])]


@pytest.mark.parametrize("second", [False, True])
def test_vertices_want_one_feature_and_indices_another(host: Host, second: bool) -> None:
    host.engine.devices.describe_nulls(3, descriptors=True, indices=False)
    vertices(host, second=second)
    with pytest.raises(ProtocolError, match="null is not allowed without the feature"):
        indices(host, second=second)


@pytest.mark.parametrize("second", [False, True])
def test_nor_the_other_way_round(host: Host, second: bool) -> None:
    host.engine.devices.describe_nulls(3, descriptors=False, indices=True)
    indices(host, second=second)
    with pytest.raises(ProtocolError, match="null is not allowed without the feature"):
        vertices(host, second=second)


def test_nothing_stands_in_for_acceleration_structures(supplied: Host) -> None:
    make_layout(supplied, 200, binding(0, STRUCTURE, 1))
    make_sets(supplied, [201], [200])
    with pytest.raises(ProtocolError, match="null is not allowed"):
        update(supplied, [write(0, 0, 1, STRUCTURE, 201)])


def test_what_was_null_in_a_command_that_was_not_run(supplied: Host, noted: Noted) -> None:
    """A dead object keeps a command from the driver; what it has of null is not the next one's."""
    uniform, sampled = vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER, vk.VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE
    info = {"size": 666, "usage": 16}
    send(supplied, "vkCreateBuffer", device=3, pCreateInfo=info, pBuffer=DEAD)
    dead = write(uniform, 0, 1, uniform)
    dead["pBufferInfo"][0]["buffer"] = DEAD
    update(supplied, [null(sampled), dead])
    parameters = {"commandBuffer": COMMAND_BUFFER, "buffer": 5, "offset": 4, "indexType": 0}
    send(supplied, "vkCmdBindIndexBuffer", **parameters)
    assert noted() == [50, 4]
