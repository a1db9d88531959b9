"""What is put into query pools is what they have results of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from hesper.vk.enumerants import (
    VK_QUERY_TYPE_ACCELERATION_STRUCTURE_COMPACTED_SIZE_KHR as COMPACTED,
)
from hesper.vk.enumerants import (
    VK_QUERY_TYPE_ACCELERATION_STRUCTURE_SIZE_KHR as SIZE,
)
from hesper.vk.enumerants import (
    VK_QUERY_TYPE_OCCLUSION,
    VK_QUERY_TYPE_PERFORMANCE_QUERY_KHR,
    VK_QUERY_TYPE_PIPELINE_STATISTICS,
    VK_QUERY_TYPE_TIMESTAMP,
    VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT,
)
from kernel.conftest import COMMAND_BUFFER, Host

CODEC = Codec()
POOLS = {
    VK_QUERY_TYPE_OCCLUSION: 300,
    VK_QUERY_TYPE_PIPELINE_STATISTICS: 301,
    VK_QUERY_TYPE_TIMESTAMP: 302,
    VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT: 303,
    COMPACTED: 304,
    SIZE: 305,
}
STRUCTURE, UNKNOWN = 310, 311
BEGUN = {
    VK_QUERY_TYPE_OCCLUSION,
    VK_QUERY_TYPE_PIPELINE_STATISTICS,
    VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT,
}
COMMANDS: list[tuple[str, dict[str, Any], set[int]]] = [
    ("vkCmdWriteTimestamp", {"pipelineStage": 1}, {VK_QUERY_TYPE_TIMESTAMP}),
    ("vkCmdWriteTimestamp2", {"stage": 1}, {VK_QUERY_TYPE_TIMESTAMP}),
    ("vkCmdBeginQuery", {}, BEGUN),
    ("vkCmdEndQuery", {}, BEGUN),
    ("vkCmdBeginQueryIndexedEXT", {"index": 0}, BEGUN),
    ("vkCmdEndQueryIndexedEXT", {"index": 0}, BEGUN),
]


@pytest.fixture
def host(object_driver: Path) -> Iterator[Host]:
    """A pool of each kind."""
    host = Host(object_driver)
    for kind, pool in POOLS.items():
        make(host, kind, pool)
    host.engine.objects.add(STRUCTURE, "VkAccelerationStructureKHR", 70, device=3)
    host.engine.objects.add(UNKNOWN, "VkQueryPool", 71, device=3)
    yield host
    host.engine.stop()


def send(host: Host, name: str, **parameters: Any) -> None:
    host.engine.submit(CODEC.encode(name, parameters))


def make(host: Host, kind: int, pool: int, statistics: int = 0) -> None:
    info = {"queryType": kind, "queryCount": 4, "pipelineStatistics": statistics}
    send(host, "vkCreateQueryPool", device=3, pCreateInfo=info, pQueryPool=pool)


@pytest.mark.parametrize(("name", "values", "kinds"), COMMANDS, ids=[c[0] for c in COMMANDS])
@pytest.mark.parametrize("kind", POOLS)
def test_queries_are_of_the_kind_of_their_pool(
    host: Host, name: str, values: dict[str, Any], kinds: set[int], kind: int
) -> None:
    values = values | {"commandBuffer": COMMAND_BUFFER, "query": 1}
    send(host, name, **values, queryPool=UNKNOWN)
    if kind in kinds:
        send(host, name, **values, queryPool=POOLS[kind])
        assert host.fatal == []
    else:
        with pytest.raises(ProtocolError, match=f"{name} at byte .* where there are 0"):
            send(host, name, **values, queryPool=POOLS[kind])


@pytest.mark.parametrize("kind", [COMPACTED, VK_QUERY_TYPE_TIMESTAMP])
def test_properties_of_structures_are_those_that_a_pool_is_for(host: Host, kind: int) -> None:
    values: dict[str, Any] = {"commandBuffer": COMMAND_BUFFER, "queryType": COMPACTED}
    values |= {"firstQuery": 3}
    values |= {"accelerationStructureCount": 1, "pAccelerationStructures": [STRUCTURE]}
    name = "vkCmdWriteAccelerationStructuresPropertiesKHR"
    send(host, name, **values, queryPool=POOLS[COMPACTED])
    for wrong in ({"queryType": kind, "queryPool": POOLS[SIZE]},):
        with pytest.raises(ProtocolError, match=f"{name} at byte .* where there are 0"):
            send(host, name, **values | wrong)


@pytest.mark.parametrize(
    ("kind", "statistics"),
    [
        (VK_QUERY_TYPE_PIPELINE_STATISTICS, 0x2000),
        (VK_QUERY_TYPE_PIPELINE_STATISTICS, 0x80000000),
        (VK_QUERY_TYPE_PERFORMANCE_QUERY_KHR, 0),
        (77, 0),
    ],
)
def test_there_are_no_pools_of_what_drivers_have_not(
    host: Host, kind: int, statistics: int
) -> None:
    make(host, VK_QUERY_TYPE_OCCLUSION, 400, 0xFFFFFFFF)
    with pytest.raises(ProtocolError, match="breaks the relation"):
        make(host, kind, 401, statistics)
