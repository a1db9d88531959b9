"""Answers whose size the guest chooses.

A driver writes as much as there is to write, whatever room the guest has left for it; that there
is enough is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import handles
from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ERROR_UNKNOWN,
    VK_NOT_READY,
    VK_QUERY_RESULT_64_BIT,
    VK_QUERY_RESULT_PARTIAL_BIT,
    VK_QUERY_RESULT_WITH_AVAILABILITY_BIT,
    VK_QUERY_RESULT_WITH_STATUS_BIT_KHR,
    VK_QUERY_TYPE_PIPELINE_STATISTICS,
    VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.handlers import Call

_RAY_TRACING = "VkPhysicalDeviceRayTracingPipelinePropertiesKHR"
_HEAP = "VkPhysicalDeviceDescriptorHeapPropertiesEXT"


_STRUCTS = (VK_QUERY_TYPE_PIPELINE_STATISTICS, VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT)


@dataclass(frozen=True)
class QueryPool:
    """What reading results needs to know of a pool."""

    queries: int
    values: int
    """Numbers a query results in."""
    is_struct: bool
    """Whether a driver keeps several of them, though it may be asked for one alone."""


def values_of_query(type_: int, statistics: int) -> int:
    """Numbers that a query of a VkQueryType results in.

    statistics: VkQueryPipelineStatisticFlags of the pool.
    """
    if type_ == VK_QUERY_TYPE_PIPELINE_STATISTICS:
        return statistics.bit_count()
    return 2 if type_ == VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT else 1


@handles("vkCreateQueryPool")
def create_query_pool(context: Context, call: Call) -> None:
    """Make a query pool."""
    device = context.device(call.id("device"))
    info = call.args.pCreateInfo
    if call.run() == VK_SUCCESS:
        (handle,) = call.new_handles
        values = values_of_query(info.queryType, info.pipelineStatistics)
        pool = QueryPool(info.queryCount, values, info.queryType in _STRUCTS)
        device.query_pools.add(handle, pool)


@handles("vkGetQueryPoolResults")
def get_query_pool_results(context: Context, call: Call) -> None:
    """Read results that fit."""
    args = call.args
    pool = context.device(call.id("device")).query_pools.get(args.queryPool)
    if pool is None or args.firstQuery + args.queryCount > pool.queries or not args.queryCount:
        raise VulkanError(
            VK_ERROR_UNKNOWN, f"queries {args.firstQuery} and {args.queryCount - 1} more"
        )
    needed = query_result_size(pool, args.queryCount, args.stride, args.flags)
    if needed > args.dataSize:
        raise VulkanError(VK_ERROR_UNKNOWN, f"{args.dataSize} bytes for results of {needed}")
    partial = args.flags & VK_QUERY_RESULT_PARTIAL_BIT
    if not (partial and pool.is_struct):
        call.invoke()
        return
    # Of a query that was never begun, lavapipe has but the first number, and tells what lies behind
    # it. No result at all leaves the zeros that are there, which is as much as there has to be.
    args.flags &= ~partial
    if call.invoke() == VK_NOT_READY:
        call.result = VK_SUCCESS


def query_result_size(pool: QueryPool, count: int, stride: int, flags: int) -> int:
    """Bytes from the first result to the end of the last.

    flags: VkQueryResultFlags.  stride: bytes from one query's results to the next one's.
    """
    extra = flags & (VK_QUERY_RESULT_WITH_AVAILABILITY_BIT | VK_QUERY_RESULT_WITH_STATUS_BIT_KHR)
    size = 8 if flags & VK_QUERY_RESULT_64_BIT else 4
    return (count - 1) * stride + (pool.values + extra.bit_count()) * size


@handles(
    "vkGetRayTracingShaderGroupHandlesKHR", "vkGetRayTracingCaptureReplayShaderGroupHandlesKHR"
)
def get_shader_group_handles(context: Context, call: Call) -> None:
    """Read shader group handles that fit."""
    device = context.device(call.id("device"))
    field = "shaderGroupHandleSize"
    if "CaptureReplay" in call.name:
        field = "shaderGroupHandleCaptureReplaySize"
    needed = call.args.groupCount * _property(device, _RAY_TRACING, field)
    if needed > call.args.dataSize:
        raise VulkanError(VK_ERROR_UNKNOWN, f"{call.args.dataSize} bytes for {needed}")
    call.invoke()


@handles("vkGetImageOpaqueCaptureDataEXT")
def get_image_opaque_capture_data(context: Context, call: Call) -> None:
    """Read capture data that fit."""
    device = context.device(call.id("device"))
    needed = _property(device, _HEAP, "imageCaptureReplayOpaqueDataSize")
    for target in call.args.pDatas or ():
        if needed > target.size:
            raise VulkanError(VK_ERROR_UNKNOWN, f"{target.size} bytes for {needed}")
    call.invoke()


def _property(device: Device, struct: str, field: str) -> int:
    """A property of the host's physical device."""
    physical = device.physical
    properties = Scratch().new("VkPhysicalDeviceProperties2")
    asked = properties.push_(struct)
    physical.table.call("vkGetPhysicalDeviceProperties2", physical.handle, properties)
    return int(getattr(asked, field))
