"""Views of several planes are written where samplers put as many together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.vk.enumerants import (
    VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE,
    VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM,
    VK_FORMAT_G8_B8R8_2PLANE_420_UNORM,
    VK_FORMAT_R8_UNORM,
    VK_FORMAT_R8G8B8A8_UNORM,
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_ASPECT_PLANE_1_BIT,
    VK_IMAGE_VIEW_TYPE_2D,
)
from kernel.conftest import Host
from kernel.image_messages import image
from kernel.set_messages import (
    OTHER_LAYOUT,
    OTHER_SET,
    PUSH,
    PUSH_LAYOUT,
    PUSH_PIPELINE,
    SET,
    SET_LAYOUT,
    binding,
    copy,
    make_layout,
    make_pipeline,
    make_sets,
    push,
    send,
    sets_host,
    update,
)

COMBINED = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER
THREE, TWO, ONE = (
    VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM,
    VK_FORMAT_G8_B8R8_2PLANE_420_UNORM,
    VK_FORMAT_R8G8B8A8_UNORM,
)
FORMATS = (THREE, TWO, ONE)
IMAGES, VIEWS, CONVERSIONS, SAMPLERS = ((base, base + 1, base + 2) for base in (200, 210, 220, 230))
CHROMA, PLAIN = 240, 241
"""A view of one plane; a sampler without a conversion."""


@pytest.fixture
def host(sets_driver: Path) -> Iterator[Host]:
    for host in sets_host(sets_driver):
        send(host, "vkCreateSampler", device=3, pCreateInfo={}, pSampler=PLAIN)
        for of, view, conversion, sampler, format_ in zip(
            IMAGES, VIEWS, CONVERSIONS, SAMPLERS, FORMATS, strict=True
        ):
            send(host, "vkCreateImage", device=3, pCreateInfo=image(format_, 64, 64), pImage=of)
            see(host, view, of, format_)
            send(
                host,
                "vkCreateSamplerYcbcrConversion",
                device=3,
                pCreateInfo={"format": format_},
                pYcbcrConversion=conversion,
            )
            chain = [("VkSamplerYcbcrConversionInfo", {"conversion": conversion})]
            send(host, "vkCreateSampler", device=3, pCreateInfo={"pNext": chain}, pSampler=sampler)
        see(host, CHROMA, IMAGES[0], VK_FORMAT_R8_UNORM, VK_IMAGE_ASPECT_PLANE_1_BIT)
        make_layout(
            host,
            SET_LAYOUT,
            own(0, SAMPLERS[0]),
            own(1, SAMPLERS[1]),
            own(2, PLAIN),
            binding(3, COMBINED, 2),
            binding(4, VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE, 1),
        )
        make_layout(host, OTHER_LAYOUT, own(0, SAMPLERS[0]), binding(1, COMBINED, 1))
        make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, OTHER_LAYOUT])
        yield host


def see(
    host: Host, view: int, of: int, format_: int, aspect: int = VK_IMAGE_ASPECT_COLOR_BIT
) -> None:
    part = {"aspectMask": aspect, "levelCount": 1, "layerCount": 1}
    info: dict[str, Any] = {"image": of, "viewType": VK_IMAGE_VIEW_TYPE_2D, "format": format_}
    info |= {"subresourceRange": part}
    send(host, "vkCreateImageView", device=3, pCreateInfo=info, pView=view)


def own(number: int, *samplers: int) -> dict[str, Any]:
    """A binding with samplers of its own."""
    return binding(number, COMBINED, len(samplers)) | {"pImmutableSamplers": list(samplers)}


def written(number: int, *views: int, type_: int = COMBINED, set_: int = SET) -> dict[str, Any]:
    one: dict[str, Any] = {"dstSet": set_, "dstBinding": number, "descriptorType": type_}
    infos = [{"sampler": PLAIN, "imageView": view, "imageLayout": 5} for view in views]
    return one | {"descriptorCount": len(views), "pImageInfo": infos}


@pytest.mark.parametrize(
    ("number", "views"),
    [
        (0, [VIEWS[0]]),
        (0, [VIEWS[1]]),
        (1, [VIEWS[1]]),
        (2, [VIEWS[2]]),
        (3, [VIEWS[2], CHROMA]),
    ],
    ids=str,
)
def test_there_is_room_for_as_many_as_samplers_put_together(
    host: Host, number: int, views: list[int]
) -> None:
    update(host, [written(number, *views)])
    assert host.fatal == []


def test_the_most_of_a_write_counts_wherever_it_runs_over(host: Host) -> None:
    with pytest.raises(ProtocolError, match="several planes"):
        update(host, [written(0, VIEWS[0], VIEWS[2], CHROMA)])


@pytest.mark.parametrize(
    ("number", "view", "type_"),
    [
        (1, VIEWS[0], COMBINED),
        (2, VIEWS[1], COMBINED),
        (3, VIEWS[0], COMBINED),
        (4, VIEWS[1], VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE),
    ],
)
def test_others_have_no_room(host: Host, number: int, view: int, type_: int) -> None:
    with pytest.raises(ProtocolError, match=f"element 0 of binding {number} on"):
        update(host, [written(number, view, type_=type_)])


def test_what_is_pushed_is_no_exception(host: Host) -> None:
    make_layout(host, PUSH_LAYOUT, binding(0, COMBINED, 1), layout_flags=PUSH)
    make_pipeline(host, PUSH_PIPELINE, PUSH_LAYOUT)
    push(host, [written(0, VIEWS[2])])
    with pytest.raises(ProtocolError, match="several planes"):
        push(host, [written(0, VIEWS[1])])


def test_copies_go_where_there_is_as_much_room(host: Host) -> None:
    update(host, [], [copy((SET, 0, 0), (OTHER_SET, 0, 0), 1)])
    with pytest.raises(ProtocolError, match="of another type"):
        update(host, [], [copy((SET, 0, 0), (OTHER_SET, 1, 0), 1)])
