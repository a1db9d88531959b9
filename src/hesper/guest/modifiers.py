"""Linear DRM format modifiers over shared memory (VK_EXT_image_drm_format_modifier).

What a guest can share is plain memory, so the one layout that both sides of a share understand is
the linear one: DRM_FORMAT_MOD_LINEAR, an image of VK_IMAGE_TILING_LINEAR on the host.  No other
modifier is offered, whatever the host's driver knows.  (The kernel does the rest: it answers
questions about the layout of a memory plane for the colour.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from hesper.guest.errors import VulkanError
from hesper.guest.formats import texel_block
from hesper.guest.handlers import handles
from hesper.guest.physical_device import physical_device
from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT,
    VK_FORMAT_FEATURE_TRANSFER_DST_BIT,
    VK_FORMAT_FEATURE_TRANSFER_SRC_BIT,
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
    VK_IMAGE_TILING_LINEAR,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.handlers import Call
    from hesper.kernel.views import View

LINEAR: Final = 0
"""DRM_FORMAT_MOD_LINEAR."""

_TRANSFERS = VK_FORMAT_FEATURE_TRANSFER_SRC_BIT | VK_FORMAT_FEATURE_TRANSFER_DST_BIT

_LISTS = ("VkDrmFormatModifierPropertiesListEXT", "VkDrmFormatModifierPropertiesList2EXT")
_WIDE = "VkFormatProperties3"


@contextlib.contextmanager
def unlinked(head: View, struct: str) -> Iterator[View | None]:
    """Take the struct of that name off the pNext chain of `head`, and put it back in the end.

    For output structs: the driver must not see it, the guest wants it back in its place.
    """
    before = head
    for each in list(head.chain_()):
        if each.struct_ != struct:
            before = each
            continue
        behind = each.pNext
        before.pNext = behind
        try:
            yield each
        finally:
            before.pNext = each.address_
            each.pNext = behind
        return
    yield None


@handles("vkGetPhysicalDeviceFormatProperties2")
def get_format_properties2(context: Context, call: Call) -> None:
    """What a format can do, and with which modifiers."""
    physical = physical_device(context, call)
    args = call.args
    answer = args.pFormatProperties
    with unlinked(answer, _LISTS[0]) as first, unlinked(answer, _LISTS[1]) as second:
        # The list's flags have 64 bits, those of VkFormatProperties 32.
        wide = answer.find_(_WIDE)
        is_ours = second is not None and wide is None and physical.has_wide_format_features
        if is_ours:
            wide = answer.push_(_WIDE)
        call.invoke()
        _mask_formats(physical, answer.formatProperties)
        if wide is not None:
            _mask_formats(physical, wide)
        if is_ours:
            answer.remove_(_WIDE)
    is_plain = texel_block(args.format, VK_IMAGE_ASPECT_COLOR_BIT) is not None
    if first is not None:
        _fill_list(first, _features(physical, answer.formatProperties) if is_plain else 0)
    if second is not None:
        has_wide = wide is not None and physical.has_wide_format_features
        source = wide if has_wide else answer.formatProperties
        _fill_list(second, _features(physical, source) if is_plain else 0)


def _features(physical: PhysicalDevice, properties: View) -> int:
    """What images with the linear modifier can be used for.

    properties: VkFormatProperties, or VkFormatProperties3.  Where linear images are no attachments,
    tiled ones stand in for them (`staging`).
    """
    linear, tiled = properties.linearTilingFeatures, properties.optimalTilingFeatures
    if physical.seen.linear_attachments or tiled & _TRANSFERS != _TRANSFERS:
        return int(linear)
    return int(linear | tiled)


@handles("vkGetPhysicalDeviceFormatProperties")
def get_format_properties(context: Context, call: Call) -> None:
    """What a format can do, as Vulkan 1.0 asks it."""
    physical = physical_device(context, call)
    call.invoke()
    _mask_formats(physical, call.args.pFormatProperties)


def _mask_formats(physical: PhysicalDevice, features: View) -> None:
    """Take away what the host profile does: of VkFormatProperties or VkFormatProperties3."""
    off = physical.profile.format_features_off
    if off:
        features.linearTilingFeatures &= ~off
        features.optimalTilingFeatures &= ~off
        features.bufferFeatures &= ~off


def _fill_list(list_: View, features: int) -> None:
    """List the linear modifier, unless linear images can do nothing."""
    count = 1 if features else 0
    modifiers = list_.pDrmFormatModifierProperties
    if modifiers is None:
        list_.drmFormatModifierCount = count
        return
    count = min(count, list_.drmFormatModifierCount)
    for index in range(count):
        modifiers[index].drmFormatModifier = LINEAR
        modifiers[index].drmFormatModifierPlaneCount = 1
        modifiers[index].drmFormatModifierTilingFeatures = features
    list_.drmFormatModifierCount = count


def translate_question(info: View) -> None:
    """Make a VkPhysicalDeviceImageFormatInfo2 about modifiers one about linear images.

    Raises `VulkanError` for another modifier.
    """
    modifier = info.remove_("VkPhysicalDeviceImageDrmFormatModifierInfoEXT")
    if info.tiling != VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT:
        return
    if modifier is None or modifier.drmFormatModifier != LINEAR:
        raise VulkanError(VK_ERROR_FORMAT_NOT_SUPPORTED, "only the linear modifier is offered")
    info.tiling = VK_IMAGE_TILING_LINEAR


def translate_image(info: View) -> View | None:
    """Make a VkImageCreateInfo with a modifier one of a linear image.

    Returns the VkSubresourceLayout that the guest insists on, if it does; see `lies_as`.
    Raises `VulkanError` when the linear modifier is not among those the guest can take.
    """
    list_ = info.remove_("VkImageDrmFormatModifierListCreateInfoEXT")
    explicit = info.remove_("VkImageDrmFormatModifierExplicitCreateInfoEXT")
    if info.tiling != VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT:
        return None
    info.tiling = VK_IMAGE_TILING_LINEAR
    if explicit is not None and explicit.drmFormatModifier == LINEAR:
        layouts = explicit.pPlaneLayouts
        if layouts is None or len(layouts) != 1:
            raise VulkanError(
                VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT,
                "a linear image has one plane",
            )
        return layouts[0]  # type: ignore[no-any-return]
    if list_ is not None and LINEAR in list(list_.pDrmFormatModifiers or ()):
        return None
    raise VulkanError(VK_ERROR_FORMAT_NOT_SUPPORTED, "only the linear modifier is offered")


def lies_as(device: Device, info: View, wanted: View) -> bool:
    """Whether the linear image of a VkImageCreateInfo lies in memory as a guest wants it.

    wanted: VkSubresourceLayout.  Vulkan leaves the row pitch of linear images to the driver.
    """
    scratch = Scratch()
    made = scratch.array("VkImage", 1)
    if device.table.call("vkCreateImage", device.handle, info, None, made) != VK_SUCCESS:
        return False
    place = scratch.new("VkImageSubresource", aspectMask=VK_IMAGE_ASPECT_COLOR_BIT)
    layout = scratch.new("VkSubresourceLayout")
    device.table.call("vkGetImageSubresourceLayout", device.handle, made[0], place, layout)
    device.table.call("vkDestroyImage", device.handle, made[0], None)
    return (wanted.offset, wanted.rowPitch) == (layout.offset, layout.rowPitch)


@handles("vkGetImageDrmFormatModifierPropertiesEXT")
def get_image_modifier(context: Context, call: Call) -> None:  # noqa: ARG001  a handler
    """There is one modifier only."""
    call.args.pProperties.drmFormatModifier = LINEAR
