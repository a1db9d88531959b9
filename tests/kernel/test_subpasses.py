"""Subpasses: there is another one where one is begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hesper.kernel.errors import ProtocolError
from kernel.conftest import Host
from kernel.image_messages import (
    FRAME,
    VIEW,
    Command,
    area,
    attachment,
    begin,
    make_images,
    render_pass,
    rendering,
    send,
)

POOL, PRIMARY, SECONDARY, UNKNOWN = 300, 301, 302, 303
TWO, FOREIGN = 310, 311
NEXT: list[Command] = [
    ("vkCmdNextSubpass", {"contents": 0}),
    ("vkCmdNextSubpass2", {"pSubpassBeginInfo": {"contents": 0}, "pSubpassEndInfo": {}}),
]
WHERE = area(0, 0, 64, 40)


@pytest.fixture
def host(object_driver: Path) -> Iterator[Host]:
    """Command buffers that are begun, and a render pass of two subpasses."""
    host = Host(object_driver)
    make_images(host)
    info = render_pass([0, 1])
    info |= {"subpassCount": 2, "pSubpasses": info["pSubpasses"] * 2}
    send(host, "vkCreateRenderPass2", device=3, pCreateInfo=info, pRenderPass=TWO)
    host.engine.objects.add(FOREIGN, "VkRenderPass", 71, device=3)
    send(host, "vkCreateCommandPool", device=3, pCreateInfo={"flags": 2}, pCommandPool=POOL)
    for level, id_ in ((0, PRIMARY), (1, SECONDARY)):
        made = {"commandPool": POOL, "level": level, "commandBufferCount": 1}
        send(host, "vkAllocateCommandBuffers", device=3, pAllocateInfo=made, pCommandBuffers=[id_])
    host.engine.objects.add(UNKNOWN, "VkCommandBuffer", 70, device=3)
    for id_ in (PRIMARY, SECONDARY, UNKNOWN):
        send(host, "vkBeginCommandBuffer", commandBuffer=id_, pBeginInfo={"flags": 0})
    yield host
    host.engine.stop()


def render(host: Host, of: int = TWO, on: int = PRIMARY) -> None:
    name, values = begin(WHERE, of, FRAME)
    send(host, name, **values | {"commandBuffer": on})


def go_on(host: Host, command: Command = NEXT[0], on: int = PRIMARY) -> None:
    name, values = command
    send(host, name, **values | {"commandBuffer": on})


@pytest.mark.parametrize("command", NEXT, ids=str)
def test_a_pass_has_as_many_as_it_was_made_with(host: Host, command: Command) -> None:
    for _ in range(2):
        render(host)
        go_on(host, command)
    with pytest.raises(ProtocolError, match=rf"{command[0]} at byte .*: 1 from 0 on, where .* 0$"):
        go_on(host, command)


def test_there_is_none_outside_of_a_pass(host: Host) -> None:
    with pytest.raises(ProtocolError, match="vkCmdNextSubpass"):
        go_on(host)


def test_there_is_none_of_what_is_rendered_without_a_pass(host: Host) -> None:
    render(host)
    name, values = rendering(WHERE, attachment(VIEW))
    send(host, name, **values | {"commandBuffer": PRIMARY})
    with pytest.raises(ProtocolError, match="vkCmdNextSubpass"):
        go_on(host)


def test_there_is_none_in_a_secondary_that_continues_a_pass(host: Host) -> None:
    render(host)
    with pytest.raises(ProtocolError, match="vkCmdNextSubpass"):
        go_on(host, on=SECONDARY)


def test_a_command_buffer_that_is_begun_again_is_in_no_pass(host: Host) -> None:
    render(host)
    send(host, "vkBeginCommandBuffer", commandBuffer=PRIMARY, pBeginInfo={"flags": 0})
    with pytest.raises(ProtocolError, match="vkCmdNextSubpass"):
        go_on(host)


def test_what_nobody_knows_bounds_nothing(host: Host) -> None:
    render(host, on=UNKNOWN)
    render(host, FOREIGN)
    for on in (UNKNOWN, PRIMARY):
        for _ in range(3):
            go_on(host, on=on)
    assert host.fatal == []
