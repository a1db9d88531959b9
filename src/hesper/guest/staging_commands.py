"""Commands about staged images (`staging`).

They sleep, and the kernel serves these commands by itself, until a context makes such an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.barriers import HandOver
from hesper.guest.handlers import handles
from hesper.guest.staging import fill_layout
from hesper.vk.enumerants import (
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.handlers import Call
    from hesper.kernel.views import View


@handles("vkDestroyImage", asleep=True)
def destroy_image(context: Context, call: Call) -> None:
    """Destroy an image and what was made for it."""
    stage = context.device(call.id("device")).stages.pop(call.args.image, None)
    call.run()
    if stage is not None:
        stage.destroy()


@handles("vkBindImageMemory", asleep=True)
def bind_image_memory(context: Context, call: Call) -> None:
    """Bind an image, or the buffer beside it."""
    args = call.args
    stage = context.device(call.id("device")).stages.get(args.image)
    if stage is None:
        call.invoke()
    else:
        size = _memory_size(context, call, args.memory)
        call.result = stage.bind(args.memory, args.memoryOffset, size)


@handles("vkBindImageMemory2", asleep=True)
def bind_image_memory2(context: Context, call: Call) -> None:
    """Bind images, or the buffers beside them."""
    device = context.device(call.id("device"))
    infos = list(call.args.pBindInfos or ())
    staged = [info for info in infos if info.image in device.stages]
    if not staged:
        call.invoke()
        return
    results = [
        device.stages[info.image].bind(
            info.memory, info.memoryOffset, _memory_size(context, call, info.memory)
        )
        for info in staged
    ]
    results += [_bind(device, info) for info in infos if info.image not in device.stages]
    call.result = next((result for result in results if result != VK_SUCCESS), VK_SUCCESS)


def _memory_size(context: Context, call: Call, memory: int) -> int:
    """Bytes of a host VkDeviceMemory."""
    return context.engine.objects.size_of("VkDeviceMemory", memory, call.device)


def _bind(device: Device, info: View) -> int:
    """Bind an image that is not staged by its VkBindImageMemoryInfo."""
    return device.table.call("vkBindImageMemory2", device.handle, 1, info)


@handles("vkGetImageSubresourceLayout", asleep=True)
def get_image_subresource_layout(context: Context, call: Call) -> None:
    """How an image lies in memory."""
    args = call.args
    _answer_layout(context, call, args.pSubresource, args.pLayout)


@handles("vkGetImageSubresourceLayout2", asleep=True)
def get_image_subresource_layout2(context: Context, call: Call) -> None:
    """The same, with more to it."""
    args = call.args
    _answer_layout(
        context, call, args.pSubresource.imageSubresource, args.pLayout.subresourceLayout
    )


def _answer_layout(context: Context, call: Call, place: View, layout: View) -> None:
    stage = context.device(call.id("device")).stages.get(call.args.image)
    if stage is not None:
        fill_layout(stage.plan, layout)
        return
    if place.aspectMask == VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT:
        # What the kernel does while this handler sleeps; see `modifiers`.
        place.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
    call.invoke()


@handles("vkCmdPipelineBarrier", asleep=True)
def pipeline_barrier(context: Context, call: Call) -> None:
    """Copy staged images that change hands."""
    args = call.args
    hand_over = HandOver(context.device(call.device), args.commandBuffer)
    for barrier in args.pImageMemoryBarriers or ():
        hand_over.add(barrier)
    args.srcStageMask |= hand_over.source_stages
    args.dstStageMask |= hand_over.target_stages
    hand_over.load()
    call.invoke()
    hand_over.store()


@handles("vkCmdPipelineBarrier2", asleep=True)
def pipeline_barrier2(context: Context, call: Call) -> None:
    """The same, with stages for each barrier."""
    args = call.args
    hand_over = HandOver(context.device(call.device), args.commandBuffer)
    for barrier in args.pDependencyInfo.pImageMemoryBarriers or ():
        source, target = hand_over.add(barrier)
        barrier.srcStageMask |= source
        barrier.dstStageMask |= target
    hand_over.load()
    call.invoke()
    hand_over.store()
