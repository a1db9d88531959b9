"""What is cleared of attachments lies in what is being rendered to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from kernel.conftest import Host
from kernel.image_messages import (
    EMPTY,
    MANY,
    PASS,
    SPARING,
    VIEW,
    area,
    attachment,
    attachments,
    begin,
    framebuffer,
    group,
    make_images,
    render_pass,
    rendering,
    send,
)

POOL, PRIMARY, SECONDARY, NESTED, UNKNOWN = 300, 301, 302, 303, 304
VIEWS, DEEP_FRAME = 310, 311
Rect = tuple[dict[str, Any], int, int]


@pytest.fixture
def host(object_driver: Path) -> Iterator[Host]:
    """Command buffers, the first of which renders to 64 by 40 by 4."""
    host = Host(object_driver)
    make_images(host)
    send(host, "vkCreateCommandPool", device=3, pCreateInfo={"flags": 2}, pCommandPool=POOL)
    for level, ids in ((0, [PRIMARY]), (1, [SECONDARY, NESTED])):
        info = {"commandPool": POOL, "level": level, "commandBufferCount": len(ids)}
        send(host, "vkAllocateCommandBuffers", device=3, pAllocateInfo=info, pCommandBuffers=ids)
    host.engine.objects.add(UNKNOWN, "VkCommandBuffer", 70, device=3)
    name, values = framebuffer([VIEW, VIEW], 64, 40, 4)
    send(host, name, **values | {"pFramebuffer": DEEP_FRAME})
    name, values = framebuffer([VIEW, VIEW], 64, 40, of=MANY)
    send(host, name, **values | {"pFramebuffer": VIEWS})
    for each in (PRIMARY, SECONDARY, NESTED):
        begin_recording(host, each)
    render(host)
    yield host
    host.engine.stop()


def begin_recording(host: Host, of: int) -> None:
    send(host, "vkBeginCommandBuffer", commandBuffer=of, pBeginInfo={"flags": 0})


def render(
    host: Host, command: tuple[str, dict[str, Any]] | None = None, of: int = PRIMARY
) -> None:
    name, values = command or begin(area(0, 0, 64, 40), PASS, DEEP_FRAME)
    send(host, name, **values | {"commandBuffer": of})


def clear(host: Host, *rects: Rect, of: int = PRIMARY, color: int = 0) -> None:
    """Rects: an area, its first layer and how many there are."""
    one = {"aspectMask": 1, "colorAttachment": color, "clearValue": (0, (0, [0.0] * 4))}
    told = [{"rect": r, "baseArrayLayer": base, "layerCount": count} for r, base, count in rects]
    send(
        host,
        "vkCmdClearAttachments",
        commandBuffer=of,
        attachmentCount=1,
        pAttachments=[one],
        rectCount=len(told),
        pRects=told,
    )


def execute(host: Host, *ids: int, of: int = PRIMARY) -> None:
    values = {"commandBufferCount": len(ids), "pCommandBuffers": list(ids)}
    send(host, "vkCmdExecuteCommands", commandBuffer=of, **values)


BEYOND: list[Rect] = [
    (area(0, 0, 65, 1), 0, 1),
    (area(0, 0, 1, 41), 0, 1),
    (area(64, 0, 1, 1), 0, 1),
    (area(-1, 0, 1, 1), 0, 1),
    (area(0, -3, 2, 2), 0, 1),
    (area(0, 0, 0xFFFFFFFF, 1), 0, 1),
    (area(2, 0, 0xFFFFFFFF, 1), 0, 1),
    (area(0, 0, 1, 1), 0, 5),
    (area(0, 0, 1, 1), 4, 1),
    (area(0, 0, 1, 1), 0xFFFFFFFF, 1),
]


def test_clears_within_what_is_rendered_to(host: Host) -> None:
    clear(host, (area(0, 0, 64, 40), 0, 4), (area(63, 39, 1, 1), 3, 1))
    assert host.fatal == []


@pytest.mark.parametrize("rect", BEYOND, ids=str)
def test_clears_beyond_what_is_rendered_to(host: Host, rect: Rect) -> None:
    with pytest.raises(ProtocolError, match=r"pRects: \d+ from 0 on, where there are"):
        clear(host, (area(0, 0, 1, 1), 0, 1), rect)


@pytest.mark.parametrize(
    ("command", "last", "beyond"),
    [
        (
            begin(area(8, 4, 24, 16), PASS, DEEP_FRAME),
            (area(31, 19, 1, 1), 0, 4),
            (area(32, 0, 1, 1), 0, 1),
        ),
        (
            begin(area(0, 0, 9, 9), PASS, DEEP_FRAME, group(area(0, 0, 8, 8), area(0, 8, 16, 8))),
            (area(0, 0, 16, 16), 0, 1),
            (area(0, 0, 17, 1), 0, 1),
        ),
        (
            begin(area(0, 0, 48, 20), SPARING, EMPTY, attachments(VIEW, VIEW)),
            (area(0, 0, 48, 20), 0, 1),
            (area(0, 0, 1, 1), 1, 1),
        ),
        (begin(area(0, 0, 8, 8), MANY, VIEWS), (area(0, 0, 8, 8), 0, 1), (area(0, 0, 1, 1), 0, 2)),
        (
            rendering(area(0, 0, 32, 40), attachment(VIEW), deep=3),
            (area(0, 0, 32, 40), 2, 1),
            (area(0, 0, 32, 40), 3, 1),
        ),
        (
            rendering(area(0, 0, 32, 40), attachment(VIEW), deep=3, views=7),
            (area(0, 0, 32, 40), 0, 1),
            (area(0, 0, 32, 40), 0, 2),
        ),
    ],
    ids=["area", "group", "imageless", "views", "rendering", "rendering-views"],
)
def test_each_way_to_render(
    host: Host, command: tuple[str, dict[str, Any]], last: Rect, beyond: Rect
) -> None:
    render(host, command)
    clear(host, last)
    with pytest.raises(ProtocolError, match="pRects"):
        clear(host, beyond)


def test_nothing_is_cleared_before_something_is_rendered_to(host: Host) -> None:
    begin_recording(host, PRIMARY)
    with pytest.raises(ProtocolError, match="pRects"):
        clear(host, (area(0, 0, 1, 1), 0, 1))


@pytest.mark.parametrize("render_first", [False, True])
def test_what_a_secondary_clears_is_held_where_it_is_executed(
    host: Host, render_first: bool
) -> None:
    if render_first:
        # A rendering of its own, which it has begun after that.
        clear(host, (area(0, 0, 64, 40), 0, 4), of=SECONDARY)
        render(host, rendering(area(0, 0, 8, 8), attachment(VIEW)), SECONDARY)
        clear(host, (area(0, 0, 8, 8), 0, 1), of=SECONDARY)
    clear(host, (area(0, 0, 8, 8), 0, 1), of=SECONDARY)
    execute(host, NESTED, SECONDARY)
    render(host, begin(area(0, 0, 8, 7), PASS, DEEP_FRAME))
    execute(host, NESTED)
    with pytest.raises(ProtocolError, match="pCommandBuffers"):
        execute(host, NESTED, SECONDARY)


def test_secondaries_of_secondaries(host: Host) -> None:
    clear(host, (area(0, 0, 1, 1), 0, 5), of=NESTED)
    execute(host, NESTED, of=SECONDARY)
    with pytest.raises(ProtocolError, match="pCommandBuffers"):
        execute(host, SECONDARY)


def test_a_secondary_that_is_begun_again_has_cleared_nothing(host: Host) -> None:
    clear(host, (area(0, 0, 999, 1), 0, 1), of=SECONDARY)
    begin_recording(host, SECONDARY)
    execute(host, SECONDARY)


def test_a_command_buffer_that_nobody_knows_bounds_nothing(host: Host) -> None:
    begin_recording(host, UNKNOWN)
    clear(host, (area(0, 0, 999, 1), 0, 1), of=UNKNOWN)


@pytest.mark.parametrize("past", [False, True])
def test_a_rendering_without_attachments_has_the_limits_of_the_device(
    host: Host, know: Callable[..., None], past: bool
) -> None:
    know(host, maxFramebufferWidth=100, maxFramebufferHeight=50, maxFramebufferLayers=8)
    render(host, rendering(area(0, 0, 100, 50), attachment(0), deep=8))
    clear(host, (area(99, 49, 1, 1), 7, 1))
    for rejected in (
        rendering(area(1, 0, 100, 50), attachment(0)),
        rendering(area(0, 0, 100, 50), attachment(0), deep=9),
    )[past : past + 1]:
        with pytest.raises(ProtocolError, match="renderArea"):
            render(host, rejected)


def test_a_pass_of_a_framebuffer_that_nobody_knows(host: Host) -> None:
    host.engine.objects.add(400, "VkFramebuffer", 9, device=3)
    render(host, begin(area(0, 0, 500, 500), PASS, 400))
    clear(host, (area(0, 0, 500, 500), 0, 9))


ONE: Rect = (area(0, 0, 1, 1), 0, 1)


def passes(counts: list[int]) -> dict[str, Any]:
    """A VkRenderPassCreateInfo2 with a subpass of so many colours each."""
    info = render_pass([0, 1])
    (subpass,) = info["pSubpasses"]
    color = subpass["pColorAttachments"][0]
    subpasses = [
        subpass | {"colorAttachmentCount": count, "pColorAttachments": [color] * count}
        for count in counts
    ]
    return info | {"subpassCount": len(counts), "pSubpasses": subpasses}


@pytest.mark.parametrize(
    "command",
    [
        begin(area(0, 0, 64, 40), PASS, DEEP_FRAME),
        rendering(area(0, 0, 8, 8), *[attachment(VIEW)] * 2),
    ],
    ids=["pass", "rendering"],
)
@pytest.mark.parametrize("beyond", [2, 7, 0xFFFE, 0xFFFFFFFF])
def test_colours_are_those_that_are_rendered_to(
    host: Host, command: tuple[str, dict[str, Any]], beyond: int
) -> None:
    render(host, command)
    clear(host, ONE, color=1)
    with pytest.raises(ProtocolError, match=r"pRects: \d+ from 0 on, where there are 2"):
        clear(host, ONE, color=beyond)


COUNTS = [1, 3, 0, 2, 1, 4, 2, 2, 2, 2, 2, 5, 3, 8, 1, 0, 7, 2, 3, 6, 4]
"""Of colours of subpasses: more of them than what is kept in a number."""


def make_pass(host: Host, number: int, counts: list[int], *, old: bool = False) -> None:
    info = passes(counts)
    if old:
        for each in info["pSubpasses"]:
            for color in each["pColorAttachments"]:
                color.pop("aspectMask", None)
    name = "vkCreateRenderPass" if old else "vkCreateRenderPass2"
    send(host, name, device=3, pCreateInfo=info, pRenderPass=number)


def next_subpass(host: Host, of: int = PRIMARY) -> None:
    send(host, "vkCmdNextSubpass", commandBuffer=of, contents=0)


def has_colors(host: Host, count: int) -> None:
    """The current subpass has so many, and no more; the context has ended then."""
    if count:
        clear(host, ONE, color=count - 1)
    with pytest.raises(ProtocolError, match=f"where there are {count}$"):
        clear(host, ONE, color=count)


@pytest.mark.parametrize("old", [False, True], ids=["2", "1"])
@pytest.mark.parametrize(
    ("of", "last"),
    [(of, last) for of in (1, 10, 11, 12, 13, 21) for last in (0, 1, 5, 10, 11, 20) if last < of],
)
def test_each_subpass_has_its_own(host: Host, of: int, last: int, old: bool) -> None:
    make_pass(host, 320, COUNTS[:of], old=old)
    render(host, begin(area(0, 0, 64, 40), 320, DEEP_FRAME))
    for each in range(last):
        if COUNTS[each]:
            clear(host, ONE, color=COUNTS[each] - 1)
        next_subpass(host)
    has_colors(host, COUNTS[last])


def test_passes_of_many_subpasses_are_begun_one_after_the_other(host: Host) -> None:
    make_pass(host, 320, COUNTS)
    make_pass(host, 321, COUNTS[::-1])
    make_pass(host, 322, [4, 3])
    for number, counts in ((320, COUNTS), (321, COUNTS[::-1]), (322, [4, 3]), (320, COUNTS)):
        for _ in range(2):
            render(host, begin(area(0, 0, 64, 40), number, DEEP_FRAME))
            if counts[0]:
                clear(host, ONE, color=counts[0] - 1)
            next_subpass(host)
            if counts[1]:
                clear(host, ONE, color=counts[1] - 1)
    render(host, rendering(area(0, 0, 8, 8), *[attachment(VIEW)] * 2))
    has_colors(host, 2)


def test_a_pass_that_is_gone_has_its_colours_where_it_is_recorded(host: Host) -> None:
    make_pass(host, 320, COUNTS)
    render(host, begin(area(0, 0, 64, 40), 320, DEEP_FRAME))
    send(host, "vkDestroyRenderPass", device=3, renderPass=320)
    for number in range(321, 330):
        make_pass(host, number, [8] * 21)
    for _ in range(20):
        next_subpass(host)
    has_colors(host, COUNTS[20])


def test_what_is_kept_of_passes_goes_with_who_has_it(host: Host) -> None:
    def kept() -> int:
        return host.engine.ledger.figures()["objects"]

    def record() -> None:
        make_pass(host, 320, COUNTS)
        for _ in range(2):
            render(host, begin(area(0, 0, 64, 40), 320, DEEP_FRAME))
        send(host, "vkDestroyRenderPass", device=3, renderPass=320)

    before = kept()
    record()
    one = kept() - before
    assert one > 0, "the command buffer has it still"
    record()
    record()
    assert kept() - before == one
    send(host, "vkDestroyCommandPool", device=3, commandPool=POOL)
    assert kept() < before


def test_no_colour_is_cleared_before_something_is_rendered_to(host: Host) -> None:
    begin_recording(host, PRIMARY)
    with pytest.raises(ProtocolError, match="1 from 0 on, where there are 0"):
        clear(host, (area(0, 0, 0, 0), 0, 0))


def test_depth_is_no_colour(host: Host) -> None:
    one = {"aspectMask": 2, "colorAttachment": 9, "clearValue": (0, (0, [0.0] * 4))}
    send(
        host,
        "vkCmdClearAttachments",
        commandBuffer=PRIMARY,
        attachmentCount=1,
        pAttachments=[one],
        rectCount=0,
        pRects=[],
    )


def test_colours_that_a_secondary_clears_are_held_where_it_is_executed(host: Host) -> None:
    clear(host, ONE, of=NESTED, color=3)
    execute(host, NESTED, of=SECONDARY)
    render(host, rendering(area(0, 0, 8, 8), *[attachment(VIEW)] * 4))
    execute(host, SECONDARY)
    render(host, rendering(area(0, 0, 8, 8), *[attachment(VIEW)] * 3))
    with pytest.raises(ProtocolError, match="4 from 0 on, where there are 3"):
        execute(host, SECONDARY)


def test_a_pass_that_nobody_knows_has_any_colours(host: Host) -> None:
    host.engine.objects.add(401, "VkRenderPass", 9, device=3)
    render(host, begin(area(0, 0, 64, 40), 401, DEEP_FRAME))
    clear(host, ONE, color=7)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("vkCmdSetRenderingAttachmentLocations", "pLocationInfo"),
        ("vkCmdSetRenderingInputAttachmentIndices", "pInputAttachmentIndexInfo"),
    ],
)
def test_colours_that_are_placed_anew_are_rendered_to(
    host: Host, name: str, parameter: str
) -> None:
    array = "pColorAttachment" + ("Locations" if "Location" in parameter else "InputIndices")
    render(host, rendering(area(0, 0, 8, 8), *[attachment(VIEW)] * 2))
    info = {"colorAttachmentCount": 2, array: [1, 0]}
    send(host, name, commandBuffer=PRIMARY, **{parameter: info})
    send(host, name, commandBuffer=SECONDARY, **{parameter: info})
    info = {"colorAttachmentCount": 3, array: [1, 0, 2]}
    with pytest.raises(ProtocolError, match="3 from 0 on, where there are 2"):
        send(host, name, commandBuffer=PRIMARY, **{parameter: info})
