"""What the log says of errors that a guest's commands are answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.kernel.engine import Call, View

RESULTS = {
    -1: "VK_ERROR_OUT_OF_HOST_MEMORY",
    -2: "VK_ERROR_OUT_OF_DEVICE_MEMORY",
    -3: "VK_ERROR_INITIALIZATION_FAILED",
    -4: "VK_ERROR_DEVICE_LOST",
    -5: "VK_ERROR_MEMORY_MAP_FAILED",
    -6: "VK_ERROR_LAYER_NOT_PRESENT",
    -7: "VK_ERROR_EXTENSION_NOT_PRESENT",
    -8: "VK_ERROR_FEATURE_NOT_PRESENT",
    -9: "VK_ERROR_INCOMPATIBLE_DRIVER",
    -10: "VK_ERROR_TOO_MANY_OBJECTS",
    -11: "VK_ERROR_FORMAT_NOT_SUPPORTED",
    -12: "VK_ERROR_FRAGMENTED_POOL",
    -13: "VK_ERROR_UNKNOWN",
    -1000023000: "VK_ERROR_IMAGE_USAGE_NOT_SUPPORTED_KHR",
    -1000023001: "VK_ERROR_VIDEO_PICTURE_LAYOUT_NOT_SUPPORTED_KHR",
    -1000023002: "VK_ERROR_VIDEO_PROFILE_OPERATION_NOT_SUPPORTED_KHR",
    -1000023003: "VK_ERROR_VIDEO_PROFILE_FORMAT_NOT_SUPPORTED_KHR",
    -1000023004: "VK_ERROR_VIDEO_PROFILE_CODEC_NOT_SUPPORTED_KHR",
    -1000023005: "VK_ERROR_VIDEO_STD_VERSION_NOT_SUPPORTED_KHR",
    -1000069000: "VK_ERROR_OUT_OF_POOL_MEMORY",
    -1000072003: "VK_ERROR_INVALID_EXTERNAL_HANDLE",
    -1000158000: "VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT",
    -1000161000: "VK_ERROR_FRAGMENTATION",
    -1000174001: "VK_ERROR_NOT_PERMITTED_KHR",
    -1000257000: "VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS",
    -1000338000: "VK_ERROR_COMPRESSION_EXHAUSTED_EXT",
}
"""VkResult by number: those a driver without windows may answer with."""


def result_name(result: int) -> str:
    """What Vulkan calls `result`."""
    return RESULTS.get(result, f"VkResult {result}")


def device_asked_for(call: Call) -> str:
    """What a vkCreateDevice asks for: it may be why the driver refuses."""
    info = call.args.pCreateInfo
    features = [name for struct in info.chain_() for name in _enabled(struct)]
    if info.pEnabledFeatures is not None:
        features += _enabled(info.pEnabledFeatures)
    extensions = list(info.ppEnabledExtensionNames or ())
    return f"extensions {' '.join(extensions) or 'none'}; features {' '.join(features) or 'none'}"


def _enabled(struct: View) -> list[str]:
    """Names of the features that a struct enables."""
    if struct.struct_ == "VkPhysicalDeviceFeatures2":
        struct = struct.features
    if "Features" not in struct.struct_:
        return []
    names = [name for name in struct.fields_() if name not in {"sType", "pNext"}]
    return [name for name in names if getattr(struct, name)]
