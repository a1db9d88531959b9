"""Views lie within their images, and what is rendered to is large enough: `facts/bounds.toml`."""

from __future__ import annotations

import pytest

from kernel.conftest import Host
from kernel.image_messages import (
    BC1,
    CUBE,
    DEEP,
    DEPTH,
    DEPTH_ASPECT,
    EMPTY,
    FLAT,
    FRAME,
    LEVEL,
    MANY,
    OTHER,
    PASS,
    PLANE_1,
    PLANES,
    REMAINING,
    RG32,
    SMALL,
    SPARING,
    THIN,
    VIEW,
    Command,
    area,
    assert_beyond,
    assert_served,
    attachment,
    attachments,
    begin,
    framebuffer,
    group,
    make_images,
    names,
    rendering,
    send,
    sliced,
    view,
)

WITHIN = [
    view(FLAT, 5, levelCount=REMAINING, layerCount=REMAINING),
    view(FLAT, 5, baseMipLevel=2, baseArrayLayer=3),
    view(FLAT, 1, format_=50),
    view(DEEP, 2, levelCount=3),
    view(DEEP, 5, baseMipLevel=1, layerCount=8),
    view(DEEP, 5, levelCount=2, layerCount=8),
    view(DEEP, 5, levelCount=REMAINING, layerCount=4),
    sliced(view(DEEP, 2), 12, 4),
    sliced(view(DEEP, 2, baseMipLevel=2), 3, REMAINING),
    view(DEEP, 5, baseMipLevel=1, baseArrayLayer=7, layerCount=REMAINING),
    view(CUBE, 3, layerCount=6, baseArrayLayer=7),
    view(CUBE, 6, layerCount=12),
    view(CUBE, 6, baseArrayLayer=1, layerCount=REMAINING),
    view(BC1, 1, format_=103),
    view(BC1, 1, format_=132),
    view(PLANES, 1, format_=9, aspectMask=PLANE_1),
    view(PLANES, 1, format_=1000156002),
    view(DEPTH, 1, format_=129, aspectMask=DEPTH_ASPECT),
    framebuffer([VIEW, OTHER], 64, 40, 4),
    framebuffer([VIEW, SMALL], 64, 40, of=SPARING),
    framebuffer([VIEW, SMALL], 32, 20),
    framebuffer([VIEW, OTHER], 64, 40, of=MANY),
    begin(area(0, 0, 64, 40)),
    begin(area(63, 39, 1, 1)),
    begin(area(0, 0, 64, 40), SPARING, LEVEL),
    begin(area(0, 0, 999, 999), chain=group(area(0, 0, 64, 40))),
    begin(area(0, 0, 48, 20), PASS, EMPTY, attachments(VIEW, OTHER)),
    begin(area(0, 0, 48, 20), SPARING, EMPTY, attachments(VIEW, SMALL)),
    rendering(area(0, 0, 64, 40), attachment(VIEW), attachment(OTHER), deep=4),
    rendering(area(0, 0, 64, 40), attachment(VIEW, SMALL, 0)),
    rendering(area(0, 0, 64, 40), attachment(VIEW), views=0xF),
    rendering(area(32, 0, 32, 40), attachment(0), attachment(VIEW)),
    rendering(area(0, 0, 9999, 9999), attachment(0), deep=99),
    rendering(area(0, 0, 999, 40), attachment(VIEW), pNext=group(area(0, 0, 64, 40))),
]

BEYOND = [
    view(DEEP, 5, baseMipLevel=1, layerCount=9),
    view(DEEP, 5, levelCount=2, layerCount=9),
    view(DEEP, 5, levelCount=REMAINING, baseArrayLayer=4, layerCount=1),
    sliced(view(DEEP, 2), 12, 5),
    sliced(view(DEEP, 2), 0xFFFFFFFE, 3),
    sliced(view(DEEP, 2, baseMipLevel=2), 4, REMAINING),
    view(DEEP, 5, baseMipLevel=2, baseArrayLayer=4, layerCount=REMAINING),
    view(FLAT, 2),
    view(FLAT, 3, layerCount=4),
    view(CUBE, 3, layerCount=6, baseArrayLayer=8),
    view(CUBE, 6, baseArrayLayer=8, layerCount=REMAINING),
    view(CUBE, 6, layerCount=13),
    view(FLAT, 1, format_=103),
    view(FLAT, 1, format_=131),
    view(BC1, 1, format_=37),
    view(RG32, 1, format_=131),
    view(PLANES, 1, format_=16, aspectMask=PLANE_1),
    view(DEPTH, 1, format_=37),
    framebuffer([VIEW, SMALL], 64, 40),
    framebuffer([VIEW, OTHER], 65, 40),
    framebuffer([VIEW, OTHER], 64, 41),
    framebuffer([VIEW, OTHER], 64, 40, 5),
    framebuffer([VIEW, THIN], 64, 40, of=MANY),
    begin(area(0, 0, 65, 40)),
    begin(area(1, 0, 64, 40)),
    begin(area(-1, 0, 4, 4)),
    begin(area(0, 0, 4, 0xFFFFFFFF)),
    begin(area(0, 0, 1, 1), chain=group(area(0, 0, 1, 1), area(0, 0, 65, 1))),
    begin(area(0, 0, 1, 1), PASS, LEVEL),
    begin(area(0, 0, 1, 1), MANY, FRAME),
    begin(area(0, 0, 1, 1), PASS, EMPTY, attachments(VIEW, SMALL)),
    rendering(area(0, 0, 65, 40), attachment(VIEW)),
    rendering(area(0, 0, 33, 1), attachment(VIEW), attachment(SMALL)),
    rendering(area(0, 0, 33, 1), attachment(VIEW), pStencilAttachment=attachment(SMALL)),
    rendering(area(0, 0, 33, 1), attachment(VIEW, SMALL, 1)),
    rendering(area(0, 0, 1, 1), attachment(VIEW), deep=5),
    rendering(area(0, 0, 1, 1), attachment(THIN), views=0x2),
    rendering(area(0, -1, 1, 1), attachment(VIEW)),
    rendering(area(0, 0, 1, 1), attachment(VIEW), pNext=group(area(0, 0, 64, 41))),
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


def test_the_smallest_of_one_rendering_is_not_that_of_the_next(drawn: Host) -> None:
    for of, width in ((SMALL, 32), (VIEW, 64)):
        name, parameters = rendering(area(0, 0, width, 20), attachment(of))
        send(drawn, name, **parameters)
