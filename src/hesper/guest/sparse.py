"""Sparse images under a host profile that takes them away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import handles
from hesper.guest.linear import check_linear
from hesper.guest.physical_device import physical_device
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_IMAGE_CREATE_SPARSE_ALIASED_BIT,
    VK_IMAGE_CREATE_SPARSE_BINDING_BIT,
    VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT,
    VK_IMAGE_TYPE_2D,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.host.profile import Profile
    from hesper.kernel.handlers import Call

_FEATURES = "VkPhysicalDeviceFeatures"


def missing_feature(profile: Profile, flags: int, type_: int, samples: int = 1) -> str:
    """What a sparse image needs and `profile` takes away: a feature's name; empty when nothing.

    flags: VkImageCreateFlags.  type_: a VkImageType.  samples: a VkSampleCountFlagBits.
    """
    needed = []
    if flags & VK_IMAGE_CREATE_SPARSE_BINDING_BIT:
        needed.append("sparseBinding")
    if flags & VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT:
        residency = (
            "sparseResidencyImage2D" if type_ <= VK_IMAGE_TYPE_2D else "sparseResidencyImage3D"
        )
        needed.append(residency if samples == 1 else f"sparseResidency{samples}Samples")
    if flags & VK_IMAGE_CREATE_SPARSE_ALIASED_BIT:
        needed.append("sparseResidencyAliased")
    return next((name for name in needed if profile.feature_off(_FEATURES, name)), "")


def check_question(physical: PhysicalDevice, flags: int, type_: int) -> None:
    """Raise `VulkanError` for a question about a sparse image that there cannot be."""
    missing = missing_feature(physical.profile, flags, type_)
    if missing:
        raise VulkanError(VK_ERROR_FORMAT_NOT_SUPPORTED, f"{_FEATURES}.{missing} is not offered")


@handles("vkGetPhysicalDeviceImageFormatProperties")
def get_image_format_properties(context: Context, call: Call) -> None:
    """What an image can be, as Vulkan 1.0 asks it."""
    physical, args = physical_device(context, call), call.args
    check_question(physical, args.flags, args.type)
    check_linear(
        physical, format_=args.format, tiling=args.tiling, usage=args.usage, flags=args.flags
    )
    call.invoke()


@handles("vkGetPhysicalDeviceSparseImageFormatProperties")
def get_sparse_properties(context: Context, call: Call) -> None:
    """How a sparse image's pages lie, as Vulkan 1.0 asks it."""
    args = call.args
    if _can_reside(physical_device(context, call), args.type, args.samples):
        call.invoke()
    else:
        args.pPropertyCount[0] = 0


@handles("vkGetPhysicalDeviceSparseImageFormatProperties2")
def get_sparse_properties2(context: Context, call: Call) -> None:
    """How a sparse image's pages lie."""
    info = call.args.pFormatInfo
    if _can_reside(physical_device(context, call), info.type, info.samples):
        call.invoke()
    else:
        call.args.pPropertyCount[0] = 0


def _can_reside(physical: PhysicalDevice, type_: int, samples: int) -> bool:
    """Whether images of that VkImageType and so many samples can be resident in part."""
    flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT
    return not missing_feature(physical.profile, flags, type_, samples)
