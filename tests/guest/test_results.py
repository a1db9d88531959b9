"""Answers whose size the guest chooses, and what is remembered to check it."""

from __future__ import annotations

from typing import Any

import pytest
from guest_client import DEVICE, QUEUE, Guest

from hesper.guest.facts import Facts
from hesper.guest.results import QueryPool, query_result_size, values_of_query
from hesper.kernel.errors import ProtocolError

VK_ERROR_UNKNOWN = -13
VK_NOT_READY = 1
OCCLUSION, STATISTICS, TIMESTAMP, TRANSFORM_FEEDBACK = 0, 1, 2, 1000028004
BITS_64, WAIT, WITH_AVAILABILITY, PARTIAL, WITH_STATUS = 1, 2, 4, 8, 16


@pytest.mark.parametrize(
    ("type_", "statistics", "values"),
    [(OCCLUSION, 0, 1), (TIMESTAMP, 0, 1), (TRANSFORM_FEEDBACK, 0, 2), (STATISTICS, 0x7FF, 11)],
)
def test_how_many_numbers_a_query_results_in(type_: int, statistics: int, values: int) -> None:
    assert values_of_query(type_, statistics) == values


def test_how_large_results_are() -> None:
    pool = QueryPool(queries=8, values=2, is_struct=True)
    assert query_result_size(pool, 1, 0, 0) == 8
    assert query_result_size(pool, 1, 0, BITS_64) == 16
    assert query_result_size(pool, 3, 100, BITS_64 | WITH_AVAILABILITY) == 224
    assert query_result_size(pool, 1, 0, BITS_64 | WITH_AVAILABILITY | WITH_STATUS) == 32
    assert query_result_size(pool, 1 << 32, 1 << 63, 0) > 1 << 94


def read(guest: Guest, pool: int, **other: int) -> int:
    """Read results; return the VkResult."""
    question: dict[str, Any] = {
        "device": DEVICE,
        "queryPool": pool,
        "firstQuery": 0,
        "queryCount": 4,
        "dataSize": 32,
        "stride": 8,
        "flags": BITS_64,
    } | other
    return guest.call("vkGetQueryPoolResults", **question, pData=question["dataSize"])[0]


def test_results_that_fit_are_read(guest: Guest) -> None:
    pool = guest.create("QueryPool", {"queryType": TIMESTAMP, "queryCount": 4})
    commands = guest.create("CommandPool", {})
    buffer = guest.new_id()
    info = {"commandPool": commands, "commandBufferCount": 1}
    guest.ask(
        "vkAllocateCommandBuffers", device=DEVICE, pAllocateInfo=info, pCommandBuffers=[buffer]
    )
    guest.ask("vkBeginCommandBuffer", commandBuffer=buffer, pBeginInfo={})
    guest.send(
        "vkCmdResetQueryPool", commandBuffer=buffer, queryPool=pool, firstQuery=0, queryCount=4
    )
    for query in range(4):
        guest.send(
            "vkCmdWriteTimestamp",
            commandBuffer=buffer,
            pipelineStage=0x2000,
            queryPool=pool,
            query=query,
        )
    guest.ask("vkEndCommandBuffer", commandBuffer=buffer)
    batch = {"commandBufferCount": 1, "pCommandBuffers": [buffer]}
    guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[batch], fence=0)
    guest.wait_for_queue()
    assert read(guest, pool) == 0
    assert read(guest, pool, firstQuery=3, queryCount=1, dataSize=8) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"dataSize": 31},
        {"stride": 9},
        {"stride": 1 << 63},
        {"flags": BITS_64 | WITH_AVAILABILITY},
        {"flags": BITS_64 | WITH_AVAILABILITY | WITH_STATUS, "stride": 16, "dataSize": 64},
        {"firstQuery": 1},
        {"firstQuery": (1 << 32) - 1, "queryCount": 2},
        {"queryCount": 0},
    ],
)
def test_results_that_do_not_fit_are_refused(guest: Guest, other: dict[str, int]) -> None:
    pool = guest.create("QueryPool", {"queryType": TIMESTAMP, "queryCount": 4})
    assert read(guest, pool, **other) == VK_ERROR_UNKNOWN
    assert not guest.fatal


@pytest.mark.parametrize("flags", [PARTIAL, PARTIAL | WITH_AVAILABILITY, PARTIAL | WAIT])
@pytest.mark.parametrize("statistics", [0x7FF, 1 << 9])
def test_nothing_is_told_of_queries_that_were_never_begun(
    guest: Guest, flags: int, statistics: int
) -> None:
    """Lavapipe tells what lies on its stack."""
    info = {"queryType": STATISTICS, "queryCount": 4, "pipelineStatistics": statistics}
    pool = guest.create("QueryPool", info)
    guest.ask("vkResetQueryPool", device=DEVICE, queryPool=pool, firstQuery=0, queryCount=4)
    question = {"queryPool": pool, "firstQuery": 0, "queryCount": 4, "stride": 128}
    question |= {"flags": BITS_64 | flags, "dataSize": 512, "pData": 512}
    result, found = guest.call("vkGetQueryPoolResults", device=DEVICE, **question)
    assert result == 0
    assert found["pData"] == bytes(512)


def recording(guest: Guest) -> int:
    """A command buffer that is being recorded."""
    pool, buffer = guest.create("CommandPool", {}), guest.new_id()
    info = {"commandPool": pool, "commandBufferCount": 1}
    guest.ask(
        "vkAllocateCommandBuffers", device=DEVICE, pAllocateInfo=info, pCommandBuffers=[buffer]
    )
    guest.ask("vkBeginCommandBuffer", commandBuffer=buffer, pBeginInfo={})
    return buffer


def test_a_time_is_no_statistics(guest: Guest) -> None:
    """Lavapipe tells a dozen numbers, of which it has but one."""
    info = {"queryType": STATISTICS, "queryCount": 1, "pipelineStatistics": 0x7FF}
    pool, buffer = guest.create("QueryPool", info), recording(guest)
    with pytest.raises(ProtocolError, match=r"vkCmdWriteTimestamp .* where there are 0"):
        guest.send(
            "vkCmdWriteTimestamp",
            commandBuffer=buffer, pipelineStage=0x2000, queryPool=pool, query=0,
        )  # fmt: skip


def test_there_are_no_statistics_behind_those_that_drivers_have(guest: Guest) -> None:
    """Lavapipe tells what lies behind them on its stack."""
    info = {"queryType": STATISTICS, "queryCount": 1, "pipelineStatistics": 0x2000}
    with pytest.raises(ProtocolError, match="pipelineStatistics <= 0x1fff"):
        guest.create("QueryPool", info)


def test_a_single_result_is_as_far_from_the_next_as_it_is_large(guest: Guest) -> None:
    """Lavapipe clears all that lies between, be it beyond the buffer, of one that was not begun."""
    pool = guest.create("QueryPool", {"queryType": OCCLUSION, "queryCount": 1})
    target, buffer = guest.create("Buffer", {"size": 64, "usage": 2}), recording(guest)
    _, memory = guest.allocate(4096)
    guest.ask("vkBindBufferMemory", device=DEVICE, buffer=target, memory=memory, memoryOffset=0)
    guest.send(
        "vkCmdCopyQueryPoolResults",
        commandBuffer=buffer, queryPool=pool, firstQuery=0, queryCount=1, dstBuffer=target,
        dstOffset=0, stride=1 << 40, flags=WITH_AVAILABILITY,
    )  # fmt: skip
    guest.ask("vkEndCommandBuffer", commandBuffer=buffer)
    batch = {"commandBufferCount": 1, "pCommandBuffers": [buffer]}
    guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[batch], fence=0)
    guest.wait_for_queue()
    assert not guest.fatal


class Handle:
    """Stands for an object."""

    def __init__(self, handle: int) -> None:
        self.handle = handle


def test_facts_about_objects_that_are_gone_are_forgotten() -> None:
    live: list[Any] = []
    facts: Facts[str] = Facts(lambda: live)
    facts.add(1, "first")
    live.append(Handle(1))
    for handle in range(2, 10000):
        facts.add(handle, "gone")
    assert len(facts) < 1000
    assert facts.get(1) == "first"
    facts.discard(1)
    assert facts.get(1) is None
