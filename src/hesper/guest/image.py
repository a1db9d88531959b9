"""Images: external memory, and what host copies need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import asleep, handles
from hesper.guest.image_limits import check_image
from hesper.guest.linear import check_linear
from hesper.guest.modifiers import lies_as, translate_image
from hesper.guest.sparse import missing_feature
from hesper.guest.staging import fill_layout, fill_needs, plan_stage, stage_image
from hesper.vk.enumerants import (
    VK_ERROR_FEATURE_NOT_PRESENT,
    VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT,
    VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
    VK_IMAGE_USAGE_HOST_TRANSFER_BIT,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.guest.staging import Plan
    from hesper.kernel.handlers import Call
    from hesper.kernel.views import View


@dataclass(frozen=True)
class HostImage:
    """What a host copy needs to know of an image."""

    format: int
    """VkFormat."""
    layers: int


@dataclass(frozen=True)
class Adapted:
    """What was decided about an image."""

    types: int
    """The guest's memory types that it can be bound to, a mask."""
    plan: Plan | None
    """How it is to be staged, if it is."""


def adapt_image(device: Device, info: View) -> Adapted:
    """Make the VkImageCreateInfo `info` fit the host and the memory that it will be bound to.

    Raises `VulkanError`.
    """
    is_modified = info.tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT
    external = info.find_("VkExternalMemoryImageCreateInfo")
    is_for_others = external is not None and external.handleTypes != 0
    layout = translate_image(info)
    check_image(device.physical, info)
    if not (is_modified or is_for_others):
        # Others have a tiled one to stand in.
        check_linear(
            device.physical,
            format_=info.format,
            tiling=info.tiling,
            usage=info.usage,
            flags=info.flags,
        )
    try:
        types = device.placements.place(info, is_shared=is_modified)
    except VulkanError:
        plan = None
        if is_modified or is_for_others:
            plan = plan_stage(device.physical, info, layout)
        if plan is None:
            raise
        return Adapted(device.physical.memory_types.pictures, plan)
    if layout is None or lies_as(device, info, layout):
        return Adapted(types, None)
    plan = plan_stage(device.physical, info, layout)
    if plan is None:
        raise VulkanError(
            VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT,
            f"no image with offset {layout.offset} and row pitch {layout.rowPitch}",
        )
    return Adapted(device.physical.memory_types.pictures, plan)


@handles("vkCreateImage")
def create_image(context: Context, call: Call) -> None:
    """Make an image."""
    device = context.device(call.id("device"))
    info = call.args.pCreateInfo
    profile = device.physical.profile
    missing = missing_feature(profile, info.flags, info.imageType, info.samples)
    if missing:
        raise VulkanError(VK_ERROR_FEATURE_NOT_PRESENT, f"{missing} is not offered")
    layout = info.initialLayout
    adapted = adapt_image(device, info)
    if info.initialLayout != layout:
        context.engine.change_layouts()
    stage = None
    if adapted.plan is not None:
        stage = stage_image(device, context.pool, call, info, adapted.plan)
    else:
        call.invoke()
    if call.result != VK_SUCCESS:
        return
    (handle,) = call.new_handles
    if stage is not None:
        device.stages[handle] = stage
        context.engine.wake(asleep())
    call.finish()
    if stage is not None:
        context.engine.objects.mark_staged(call.new_ids[0])
    device.image_types.add(handle, adapted.types)
    usage = info.usage
    stencil = info.find_("VkImageStencilUsageCreateInfo")
    if stencil is not None:
        usage |= stencil.stencilUsage
    if usage & VK_IMAGE_USAGE_HOST_TRANSFER_BIT:
        image = HostImage(info.format, info.arrayLayers)
        device.host_images.add(handle, image)
    else:
        device.host_images.discard(handle)


@handles("vkGetImageMemoryRequirements")
def get_image_memory_requirements(context: Context, call: Call) -> None:
    """What memory an image needs, of what there is to the guest."""
    device = context.device(call.id("device"))
    call.invoke()
    _show_needs(device, call.args.image, call.args.pMemoryRequirements)


@handles("vkGetImageMemoryRequirements2")
def get_image_memory_requirements2(context: Context, call: Call) -> None:
    """The same, with more to it."""
    device = context.device(call.id("device"))
    call.invoke()
    needs = call.args.pMemoryRequirements.memoryRequirements
    _show_needs(device, call.args.pInfo.image, needs)


def _show_needs(device: Device, image: int, needs: View) -> None:
    """Name the guest's memory types in a VkMemoryRequirements of a host VkImage."""
    types = device.physical.memory_types
    stage = device.stages.get(image)
    if stage is not None:
        fill_needs(device, stage.plan, needs)
        return
    allowed = device.image_types.get(image)
    needs.memoryTypeBits = types.shown(
        needs.memoryTypeBits, types.all if allowed is None else allowed
    )


@handles("vkGetDeviceImageMemoryRequirements")
def get_device_image_memory_requirements(context: Context, call: Call) -> None:
    """What memory an image would need."""
    device = context.device(call.id("device"))
    adapted = adapt_image(device, call.args.pInfo.pCreateInfo)
    needs = call.args.pMemoryRequirements.memoryRequirements
    if adapted.plan is not None:
        fill_needs(device, adapted.plan, needs)
        return
    call.invoke()
    needs.memoryTypeBits = device.physical.memory_types.shown(needs.memoryTypeBits, adapted.types)


@handles("vkGetDeviceImageSubresourceLayout")
def get_device_image_subresource_layout(context: Context, call: Call) -> None:
    """How an image would lie in memory."""
    device = context.device(call.id("device"))
    adapted = adapt_image(device, call.args.pInfo.pCreateInfo)
    if adapted.plan is not None:
        fill_layout(adapted.plan, call.args.pLayout.subresourceLayout)
    else:
        call.invoke()


@handles("vkGetDeviceImageSparseMemoryRequirements")
def get_device_image_sparse_memory_requirements(context: Context, call: Call) -> None:
    """What a sparse image would need."""
    device = context.device(call.id("device"))
    if adapt_image(device, call.args.pInfo.pCreateInfo).plan is None:
        call.invoke()
    else:
        call.args.pSparseMemoryRequirementCount[0] = 0
