"""What the log says of errors that a guest's commands are answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.vk.enumerants import RESULTS

if TYPE_CHECKING:
    from hesper.kernel.handlers import Call
    from hesper.kernel.views import View


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
