"""Push constants lie in those of the pipeline layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from kernel.conftest import COMMAND_BUFFER, LAYOUT, Host

CODEC = Codec()
CB: dict[str, Any] = {"commandBuffer": COMMAND_BUFFER}
PUSHED, NONE = 100, 101


def send(host: Host, name: str, **parameters: Any) -> None:
    host.engine.submit(CODEC.encode(name, parameters))


@pytest.fixture
def host(object_driver: Path) -> Iterator[Host]:
    host = Host(object_driver)
    yield host
    host.engine.stop()


@pytest.fixture
def ranges(host: Host) -> Host:
    """A pipeline layout with push constants to byte 48, and one without."""
    for id_, found in ((PUSHED, [(16, 32, 16), (1, 0, 24)]), (NONE, [])):
        told = [{"stageFlags": s, "offset": o, "size": n} for s, o, n in found]
        info = {"pushConstantRangeCount": len(told), "pPushConstantRanges": told}
        send(host, "vkCreatePipelineLayout", device=3, pCreateInfo=info, pPipelineLayout=id_)
    return host


def push(host: Host, layout: int, offset: int, size: int) -> None:
    values = {"layout": layout, "stageFlags": 1, "offset": offset, "size": size}
    send(host, "vkCmdPushConstants", **CB, **values, pValues=bytes(size))


def push_2(host: Host, layout: int, offset: int, size: int) -> None:
    values = {"layout": layout, "stageFlags": 1, "offset": offset, "size": size}
    send(host, "vkCmdPushConstants2", **CB, pPushConstantsInfo=values | {"pValues": bytes(size)})


@pytest.mark.parametrize("command", [push, push_2])
def test_push_constants_that_the_layout_has(ranges: Host, command: Callable[..., None]) -> None:
    command(ranges, PUSHED, 0, 48)
    command(ranges, PUSHED, 44, 4)
    command(ranges, LAYOUT, 4000, 4)  # nobody knows what it has
    assert ranges.fatal == []


@pytest.mark.parametrize("command", [push, push_2])
@pytest.mark.parametrize(
    ("layout", "offset", "size"),
    [(PUSHED, 0, 52), (PUSHED, 48, 4), (PUSHED, 0xFFFFFFFC, 8), (NONE, 0, 4)],
)
def test_push_constants_beyond_the_layout(
    ranges: Host, command: Callable[..., None], layout: int, offset: int, size: int
) -> None:
    with pytest.raises(ProtocolError, match=f"offset: {size} from {offset} on, where there are"):
        command(ranges, layout, offset, size)


def test_push_constants_of_no_layout(ranges: Host) -> None:
    push_2(ranges, 0, 0, 16)
    with pytest.raises(ProtocolError, match="null is not allowed"):
        push(ranges, 0, 0, 16)
