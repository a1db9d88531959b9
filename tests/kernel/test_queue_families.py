"""Queue families that barriers name are the device's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from kernel.conftest import BUFFER, COMMAND_BUFFER, Host

CODEC = Codec()
CB: dict[str, Any] = {"commandBuffer": COMMAND_BUFFER}
IMAGE = 90
IGNORED, EXTERNAL, FOREIGN = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def barrier(name: str, source: int, target: int) -> dict[str, Any]:
    """A barrier of a buffer or an image, and the parameters of the command that it is for."""
    owners = {"srcQueueFamilyIndex": source, "dstQueueFamilyIndex": target}
    parts = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
    one: dict[str, Any] = owners | {"buffer": BUFFER, "size": 4}
    if "Image" in name:
        one = owners | {"image": IMAGE, "subresourceRange": parts}
    kind = "Image" if "Image" in name else "Buffer"
    counted = {
        f"{kind[0].lower()}{kind[1:]}MemoryBarrierCount": 1,
        f"p{kind}MemoryBarriers": [one],
    }
    return {"pDependencyInfo": counted} if name.endswith("2") else counted


@pytest.mark.parametrize(
    "name", [f"Vk{kind}MemoryBarrier{end}" for kind in ("Buffer", "Image") for end in ("", "2")]
)
@pytest.mark.parametrize(
    ("source", "target", "wrong"),
    [
        (0, 2, None),
        (2, FOREIGN, None),
        (EXTERNAL, 1, None),
        (IGNORED, IGNORED, None),
        (77, 77, None),  # nobody's affair: nothing changes hands
        (0, 3, 3),
        (3, 0, 3),
        (IGNORED, 0xFFFFFFFC, 0xFFFFFFFC),
    ],
)
def test_queue_families_of_barriers(
    host: Host, know: Callable[..., None], name: str, source: int, target: int, wrong: int | None
) -> None:
    know(host, queueFamilyCount=3)
    host.engine.objects.add(IMAGE, "VkImage", 900, device=3)
    command = "vkCmdPipelineBarrier2" if name.endswith("2") else "vkCmdPipelineBarrier"
    parameters = CB | barrier(name, source, target)
    if wrong is None:
        host.engine.submit(CODEC.encode(command, parameters))
        return
    with pytest.raises(ProtocolError, match=f"{name}.srcQueue.*: 1 from {wrong} on, .* are 3"):
        host.engine.submit(CODEC.encode(command, parameters))
