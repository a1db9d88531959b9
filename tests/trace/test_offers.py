"""A device is made without what this driver does not offer."""

from __future__ import annotations

from typing import Any

from hesper.protocol.codec import Codec, Reader
from hesper.trace.offers import limit

CODEC = Codec()

HERE: dict[str, Any] = {
    "extensions": [b"VK_KHR_maintenance5"],
    "features": {"samplerAnisotropy": 1, "geometryShader": 0},
    "VkPhysicalDeviceVulkan12Features": {"timelineSemaphore": 1, "shaderFloat16": 0},
}


def ask(name: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the driver answers."""
    assert CODEC.decode(Reader(CODEC.encode(name, asked, reply=True)))[0].name == name
    if name == "vkEnumerateDeviceExtensionProperties":
        names = [each.ljust(256, b"\0") for each in HERE["extensions"]]
        return 0, {"pProperties": [{"extensionName": name} for name in names]}
    chain = [(name, HERE[name]) for name, _ in asked["pFeatures"]["pNext"]]
    return 0, {"pFeatures": {"pNext": chain, "features": HERE["features"]}}


def test_what_there_is_stays_and_all_else_is_named() -> None:
    info: dict[str, Any] = {
        "enabledExtensionCount": 2,
        "ppEnabledExtensionNames": [b"VK_KHR_maintenance5", b"VK_NV_mesh_shader"],
        "pNext": [
            ("VkDevicePrivateDataCreateInfo", {"privateDataSlotRequestCount": 1}),
            (
                "VkPhysicalDeviceVulkan12Features",
                {"timelineSemaphore": 1, "shaderFloat16": 1, "shaderInt8": 0},
            ),
            (
                "VkPhysicalDeviceFeatures2",
                {"features": {"samplerAnisotropy": 1, "geometryShader": 1}},
            ),
        ],
    }
    left_out = limit({"physicalDevice": 2, "pCreateInfo": info}, ask)
    assert left_out == ["VK_NV_mesh_shader", "shaderFloat16", "geometryShader"]
    assert info["ppEnabledExtensionNames"] == [b"VK_KHR_maintenance5"]
    assert info["enabledExtensionCount"] == 1
    chain = dict(info["pNext"])
    assert chain["VkDevicePrivateDataCreateInfo"] == {"privateDataSlotRequestCount": 1}
    assert chain["VkPhysicalDeviceVulkan12Features"]["timelineSemaphore"] == 1
    assert chain["VkPhysicalDeviceVulkan12Features"]["shaderFloat16"] == 0
    core = chain["VkPhysicalDeviceFeatures2"]["features"]
    assert core == {"samplerAnisotropy": 1, "geometryShader": 0}


def test_features_of_the_first_vulkan_count_too() -> None:
    info: dict[str, Any] = {"pEnabledFeatures": {"samplerAnisotropy": 1, "geometryShader": 1}}
    assert limit({"physicalDevice": 2, "pCreateInfo": info}, ask) == ["geometryShader"]
    assert info["pEnabledFeatures"] == {"samplerAnisotropy": 1, "geometryShader": 0}
