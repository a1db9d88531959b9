"""Images are as large as the driver has them, and have as many samples."""

from __future__ import annotations

from typing import Any

import pytest
from guest_client import DEVICE, PHYSICAL_DEVICE, Guest

from hesper.kernel.errors import ProtocolError

IMAGE: dict[str, Any] = {
    "imageType": 1,
    "format": 37,
    "extent": {"width": 16, "height": 16, "depth": 1},
    "mipLevels": 1,
    "arrayLayers": 1,
    "samples": 1,
    "tiling": 0,
    "usage": 0x17,  # transfers, sampled, attachment
    "initialLayout": 0,
}
FLAT, DEEP = {"imageType": 1}, {"imageType": 2, "usage": 7}
LINEAR = {"tiling": 1, "usage": 7}
VK_ERROR_UNKNOWN = -13


def create(guest: Guest, info: dict[str, Any]) -> int:
    command = {"device": DEVICE, "pCreateInfo": IMAGE | info, "pImage": guest.new_id()}
    return guest.call("vkCreateImage", **command)[0]


def most(guest: Guest, info: dict[str, Any]) -> dict[str, Any]:
    """The VkImageFormatProperties of images of that kind."""
    image = IMAGE | info
    question = {name: image[name] for name in ("format", "tiling", "usage")}
    found = guest.ask(
        "vkGetPhysicalDeviceImageFormatProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        pImageFormatInfo=question | {"type": image["imageType"], "flags": 0},
        pImageFormatProperties={},
    )
    properties: dict[str, Any] = found["pImageFormatProperties"]["imageFormatProperties"]
    return properties


def extent(width: int, height: int = 1, depth: int = 1) -> dict[str, Any]:
    return {"extent": {"width": width, "height": height, "depth": depth}}


def test_as_large_as_the_driver_has_them(guest: Guest) -> None:
    limits = most(guest, FLAT)
    assert create(guest, extent(limits["maxExtent"]["width"])) == 0
    assert create(guest, extent(1, limits["maxExtent"]["height"])) == 0
    assert create(guest, extent(1) | {"arrayLayers": limits["maxArrayLayers"]}) == 0
    assert create(guest, DEEP | extent(1, 1, most(guest, DEEP)["maxExtent"]["depth"])) == 0


def test_larger_than_the_driver_has_any(guest: Guest) -> None:
    limits = most(guest, FLAT)
    for info in (
        extent(limits["maxExtent"]["width"] + 1),
        extent(1, limits["maxExtent"]["height"] + 1),
        extent(1) | {"arrayLayers": limits["maxArrayLayers"] + 1},
        DEEP | extent(1, 1, most(guest, DEEP)["maxExtent"]["depth"] + 1),
        extent(0xFFFFFFFF, 0xFFFFFFFF),
        LINEAR | {"arrayLayers": most(guest, LINEAR)["maxArrayLayers"] + 1},
    ):
        assert create(guest, info) == VK_ERROR_UNKNOWN


def test_samples(guest: Guest) -> None:
    counts = most(guest, FLAT)["sampleCounts"]
    assert counts & 4
    for samples in (1, 2, 4, 8, 16, 32, 64):
        assert create(guest, {"samples": samples}) == (0 if counts & samples else VK_ERROR_UNKNOWN)


def test_the_same_of_images_that_are_only_asked_about(guest: Guest) -> None:
    command = {"device": DEVICE, "pMemoryRequirements": {}}
    good = guest.ask(
        "vkGetDeviceImageMemoryRequirements",
        pInfo={"pCreateInfo": IMAGE, "planeAspect": 0},
        **command,
    )
    assert good["pMemoryRequirements"]["memoryRequirements"]["size"] >= 1024
    bad = {"pCreateInfo": IMAGE | {"samples": 64}, "planeAspect": 0}
    with pytest.raises(ProtocolError, match="64 samples, where the device has at most"):
        guest.call("vkGetDeviceImageMemoryRequirements", pInfo=bad, **command)
