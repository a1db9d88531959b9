"""Parts of images lie within them: `facts/bounds.toml`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hesper.kernel.errors import ProtocolError
from kernel.conftest import Host
from kernel.image_messages import (
    BC1,
    COLOR,
    DEEP,
    DEPTH,
    DEPTH_ASPECT,
    FLAT,
    IMAGES,
    LIKE,
    MEMORY,
    MEMORY_PLANE_0,
    ONE,
    PLANE_0,
    PLANE_1,
    PLANE_2,
    PLANES,
    REMAINING,
    RG32,
    STENCIL_ASPECT,
    Command,
    assert_beyond,
    assert_served,
    blit,
    clear,
    copy,
    host_copy,
    layers,
    make_images,
    names,
    offset,
    send,
    size,
    texels,
    tile,
)

TO_DEEP = (layers(count=4), layers())
TO_FLAT = (layers(), layers(count=4))
HALF = (layers(1), layers(1))
CORNER = offset(64, 40, 1)

WITHIN = [
    copy(FLAT, LIKE, size(64, 40)),
    copy(FLAT, LIKE, size(1, 1), at=(offset(63, 39), offset(63, 39))),
    copy(FLAT, LIKE, size(32, 20), start=HALF),
    copy(FLAT, LIKE, size(16, 10), start=(layers(2), layers())),
    copy(FLAT, LIKE, size(64, 40), start=(layers(0, 1, 3), layers(0, 0, 3))),
    copy(FLAT, LIKE, size(64, 40), start=(layers(0, 1, REMAINING), layers(0, 0, 3))),
    copy(FLAT, DEEP, size(64, 40, 4), start=TO_DEEP, at=(offset(), offset(0, 0, 12))),
    copy(DEEP, FLAT, size(64, 40, 4), start=TO_FLAT, at=(offset(0, 0, 12), offset())),
    copy(DEEP, DEEP, size(64, 40, 16)),
    copy(DEEP, DEEP, size(16, 10, 4), start=(layers(2), layers(2))),
    # All of a level whose width, or height, is no multiple of a block's.
    copy(BC1, BC1, size(62, 40)),
    copy(BC1, BC1, size(2, 1), start=(layers(5), layers(5)), at=(offset(), offset())),
    copy(BC1, BC1, size(4, 4), start=(layers(5), layers(5))),
    copy(BC1, RG32, size(62, 40)),
    copy(RG32, BC1, size(16, 10)),
    copy(RG32, BC1, size(1, 1), at=(offset(), offset(60, 36))),
    copy(PLANES, PLANES, size(32, 20), start=(layers(aspect=PLANE_1), layers(aspect=PLANE_2))),
    copy(PLANES, PLANES, size(64, 40), start=(layers(aspect=PLANE_0), layers(aspect=PLANE_0))),
    copy(DEPTH, FLAT, size(64, 40), start=(layers(aspect=DEPTH_ASPECT), layers())),
    copy(ONE, ONE, size(64, 1)),
    copy(FLAT, LIKE, size(64, 40), command="vkCmdCopyImage2"),
    copy(FLAT, LIKE, size(64, 40), command="vkCopyImageToImage"),
    copy(FLAT, LIKE, size(64, 40), command="vkCmdResolveImage"),
    copy(FLAT, LIKE, size(64, 40), command="vkCmdResolveImage2"),
    blit((offset(), CORNER), (offset(64, 40), offset(0, 0, 1))),
    blit((CORNER, offset()), (offset(), offset(1, 1, 1)), again=True),
    blit((offset(), offset(16, 10, 1)), (offset(), CORNER), parts=(layers(2), layers())),
    blit((offset(0, 0, 16), offset(64, 40)), (offset(), offset(64, 40, 1)), images=(DEEP, DEEP)),
    blit(
        (offset(0, 0, 12), offset(64, 40, 16)),
        (offset(), CORNER),
        images=(DEEP, FLAT),
        parts=TO_FLAT,
    ),
    texels(FLAT, layers(1, 0, 4), offset(), size(32, 20)),
    texels(DEEP, layers(1), offset(0, 0, 7), size(32, 20, 1), 1),
    texels(BC1, layers(5), offset(), size(1, 1), 2),
    texels(BC1, layers(), offset(60, 36), size(2, 4), 3),
    texels(PLANES, layers(aspect=PLANE_1), offset(31, 19), size(1, 1)),
    tile(0, 3, offset(), size(64, 40)),
    tile(1, 0, offset(16, 0), size(16, 20)),
    tile(0, 0, offset(), size(64, 40), memory=MEMORY, memoryOffset=3 << 16),
    clear(FLAT, 0, REMAINING),
    clear(FLAT, 3, 1),
    clear(DEEP, 0, 1),
]

BEYOND = [
    copy(FLAT, LIKE, size(65, 40)),
    copy(FLAT, LIKE, size(64, 41)),
    copy(FLAT, LIKE, size(1, 1), at=(offset(64), offset())),
    copy(FLAT, LIKE, size(1, 1), at=(offset(), offset(0, 40))),
    copy(FLAT, LIKE, size(1, 1), at=(offset(-1), offset())),
    copy(FLAT, LIKE, size(8, 8), at=(offset(), offset(0, -8))),
    copy(FLAT, LIKE, size(0xFFFFFFFF, 1), at=(offset(1), offset())),
    copy(FLAT, LIKE, size(33, 20), start=HALF),
    copy(FLAT, LIKE, size(64, 40), start=(layers(), layers(2))),
    copy(FLAT, LIKE, size(1, 1, 5)),
    copy(FLAT, LIKE, size(1, 1), at=(offset(), offset(0, 0, 4))),
    copy(FLAT, LIKE, size(1, 1), start=(layers(0, 0, 3), layers(0, 2, 1))),
    copy(FLAT, LIKE, size(1, 1), start=(layers(0, 0, REMAINING), layers(0, 2, REMAINING))),
    copy(FLAT, DEEP, size(1, 1, 4), start=TO_DEEP, at=(offset(), offset(0, 0, 13))),
    copy(FLAT, DEEP, size(1, 1, 5), start=TO_DEEP),
    copy(DEEP, FLAT, size(1, 1, 5), start=TO_FLAT),
    copy(DEEP, DEEP, size(1, 1, 5), start=(layers(2), layers(2))),
    copy(DEEP, DEEP, size(1, 1, 1), at=(offset(0, 0, -1), offset())),
    copy(BC1, BC1, size(68, 4)),
    copy(BC1, BC1, size(5, 4), start=(layers(5), layers(5))),
    copy(BC1, BC1, size(4, 4), at=(offset(62), offset())),
    copy(RG32, BC1, size(1, 1), at=(offset(), offset(0, 40))),
    copy(RG32, BC1, size(16, 10), at=(offset(), offset(4))),
    copy(BC1, RG32, size(8, 8), at=(offset(), offset(15))),
    copy(PLANES, PLANES, size(33, 20), start=(layers(aspect=PLANE_1), layers(aspect=PLANE_1))),
    copy(PLANES, PLANES, size(64, 40), start=(layers(aspect=PLANE_0), layers(aspect=PLANE_2))),
    # As many bytes on both sides; of several planes, one.
    copy(RG32, FLAT, size(1, 1)),
    copy(FLAT, RG32, size(1, 1), command="vkCmdCopyImage2"),
    copy(BC1, FLAT, size(4, 4), command="vkCopyImageToImage"),
    copy(DEPTH, FLAT, size(1, 1), start=(layers(aspect=STENCIL_ASPECT), layers())),
    copy(PLANES, PLANES, size(1, 1)),
    # Planes that there are not.
    copy(FLAT, LIKE, size(1, 1), start=(layers(aspect=PLANE_1), layers(aspect=PLANE_1))),
    copy(FLAT, LIKE, size(1, 1), start=(layers(), layers(aspect=PLANE_2 | COLOR))),
    blit((offset(), CORNER), (offset(), CORNER), parts=(layers(aspect=PLANE_2), layers())),
    texels(FLAT, layers(aspect=PLANE_1), offset(), size(1, 1)),
    texels(PLANES, layers(aspect=PLANE_2 << 2), offset(), size(1, 1), 1),
    copy(ONE, ONE, size(1, 1), at=(offset(0, 1), offset())),
    copy(FLAT, LIKE, size(65, 40), command="vkCmdCopyImage2"),
    copy(FLAT, LIKE, size(65, 40), command="vkCopyImageToImage"),
    copy(FLAT, LIKE, size(65, 40), command="vkCmdResolveImage"),
    copy(FLAT, LIKE, size(64, 41), command="vkCmdResolveImage2"),
    blit((offset(), offset(65, 40, 1)), (offset(), CORNER)),
    blit((offset(), CORNER), (offset(64, 41), offset(0, 0, 1))),
    blit((offset(-1), CORNER), (offset(), CORNER)),
    blit((offset(), CORNER), (offset(), offset(64, -40, 1)), again=True),
    blit((offset(), offset(64, 40, 2)), (offset(), CORNER)),
    blit((offset(), CORNER), (offset(), CORNER), parts=(layers(1), layers())),
    blit((offset(), CORNER), (offset(), CORNER), parts=(layers(0, 0, 4), layers(0, 1, 1))),
    blit((offset(), offset(64, 40, 17)), (offset(), CORNER), images=(DEEP, DEEP)),
    texels(FLAT, layers(1), offset(1), size(32, 20)),
    texels(FLAT, layers(), offset(), size(1, 1, 5)),
    texels(FLAT, layers(), offset(0, 0, 4), size(1, 1)),
    texels(DEEP, layers(1), offset(0, 0, 8), size(1, 1), 1),
    texels(BC1, layers(5), offset(), size(5, 1), 2),
    texels(BC1, layers(), offset(0, 40), size(1, 1), 3),
    texels(PLANES, layers(aspect=PLANE_1), offset(), size(33, 1)),
    host_copy(layers(1), offset(), size(33, 20)),
    host_copy(layers(), offset(0, 40), size(1, 1)),
    tile(0, 0, offset(64), size(1, 1)),
    tile(1, 0, offset(), size(64, 40)),
    tile(0, 3, offset(0, 0, 1), size(1, 1)),
    tile(0, 0, offset(), size(1, 1), memory=MEMORY, memoryOffset=(3 << 16) + 4),
]


@pytest.fixture
def drawn(host: Host) -> Host:
    make_images(host)
    return host


@pytest.mark.parametrize("command", WITHIN, ids=names(WITHIN))
def test_what_lies_within_is_served(drawn: Host, command: Command) -> None:
    assert_served(drawn, command)


@pytest.mark.parametrize("command", BEYOND, ids=names(BEYOND))
def test_what_lies_beyond_ends_the_context(drawn: Host, command: Command) -> None:
    assert_beyond(drawn, command)


@pytest.mark.parametrize("able", [False, True])
def test_depth_is_copied_to_colours_by_devices_that_can(
    drawn: Host, know: Callable[..., None], able: bool
) -> None:
    know(drawn, copiesDepthAsColor=1 + able)
    both = (layers(aspect=DEPTH_ASPECT), layers(aspect=DEPTH_ASPECT))
    assert_served(drawn, copy(DEPTH, DEPTH, size(64, 40), start=both))
    (assert_served if able else assert_beyond)(
        drawn, copy(DEPTH, FLAT, size(64, 40), start=(layers(aspect=DEPTH_ASPECT), layers()))
    )


def test_a_copy_from_host_memory_within_is_for_python(fake_driver: Path) -> None:
    seen = []
    host = Host(fake_driver, vkCopyMemoryToImageMESA=lambda call: seen.append(call.name))
    send(host, "vkCreateImage", device=3, pCreateInfo=IMAGES[FLAT], pImage=FLAT)
    name, parameters = host_copy(layers(1), offset(), size(32, 20))
    send(host, name, **parameters)
    assert seen == [name]
    host.engine.stop()


def test_an_image_that_nobody_knows_bounds_nothing(host: Host) -> None:
    for id_ in (FLAT, LIKE):
        host.engine.objects.add(id_, "VkImage", 7, device=3)
    name, parameters = copy(FLAT, LIKE, size(9999, 9999), start=(layers(30), layers(30)))
    send(host, name, **parameters)


def planes_message(of: int, aspect: int, kind: str) -> Command:
    if kind == "bind":
        chain = [("VkBindImagePlaneMemoryInfo", {"planeAspect": aspect})]
        info = {"pNext": chain, "image": of, "memory": MEMORY, "memoryOffset": 0}
        return "vkBindImageMemory2", {"device": 3, "bindInfoCount": 1, "pBindInfos": [info]}
    if kind == "ask":
        chain = [("VkImagePlaneMemoryRequirementsInfo", {"planeAspect": aspect})]
        asked = {"pInfo": {"pNext": chain, "image": of}, "pMemoryRequirements": {}}
        return "vkGetImageMemoryRequirements2", {"device": 3} | asked
    info = {"pCreateInfo": IMAGES[of], "planeAspect": aspect}
    asked = {"pInfo": info, "pMemoryRequirements": {}}
    return "vkGetDeviceImageMemoryRequirements", {"device": 3} | asked


@pytest.mark.parametrize("kind", ["bind", "ask", "ask first"])
def test_planes_are_those_of_the_image(drawn: Host, kind: str) -> None:
    for of, aspect in ((PLANES, PLANE_2), (FLAT, PLANE_0), (FLAT, MEMORY_PLANE_0)):
        assert_served(drawn, planes_message(of, aspect, kind))
    name, values = planes_message(FLAT, PLANE_1, kind)
    with pytest.raises(ProtocolError, match="planeAspect < "):
        send(drawn, name, **values)
