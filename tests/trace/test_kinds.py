"""Images of kinds that this driver has not are not made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_drivers import make_driver
from guest_client import DEVICE, PHYSICAL_DEVICE, Guest
from recorded_guest import lavapipe, record_to, replay
from recordings import command, file_of, read

from hesper.host.drivers import choose_driver
from hesper.protocol.codec import Codec, CodecError, Reader
from hesper.trace.decoded import Decoded, decode
from hesper.trace.kinds import Kinds
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
    VK_IMAGE_TILING_LINEAR,
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
)

CODEC = Codec()
DMA_BUF = 0x200
IMAGE: dict[str, Any] = {
    "imageType": 1,
    "format": 37,
    "extent": {"width": 64, "height": 32, "depth": 1},
    "mipLevels": 1,
    "arrayLayers": 1,
    "samples": 1,
    "usage": 3,
}
MOST: dict[str, Any] = {
    "maxExtent": {"width": 64, "height": 64, "depth": 1},
    "maxMipLevels": 4,
    "maxArrayLayers": 2,
    "sampleCounts": 5,
}


class Here:
    """A driver that has images of one kind, and notes what it is asked."""

    def __init__(self, result: int = 0) -> None:
        self.result = result
        self.asked: list[dict[str, Any]] = []

    def __call__(self, name: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert CODEC.decode(Reader(CODEC.encode(name, asked, reply=True)))[0].name == name
        self.asked.append(asked)
        most = {} if self.result else MOST
        return self.result, {"pImageFormatProperties": {"imageFormatProperties": most}}


def image(**info: Any) -> Decoded:
    """A vkCreateImage of a recording."""
    asked = {"device": DEVICE, "pCreateInfo": IMAGE | info, "pImage": 7}
    _, records = read(file_of(command(CODEC.encode("vkCreateImage", asked))))
    return decode(0, records[0])


def kinds(here: Any) -> Kinds:
    found = Kinds(here)
    found.device({"physicalDevice": PHYSICAL_DEVICE, "pDevice": DEVICE})
    return found


@pytest.mark.parametrize(
    ("info", "is_there"),
    [
        ({}, True),
        ({"mipLevels": 5}, False),
        ({"arrayLayers": 3}, False),
        ({"samples": 4}, True),
        ({"samples": 2}, False),
        ({"extent": {"width": 65, "height": 32, "depth": 1}}, False),
        ({"extent": {"width": 64, "height": 32, "depth": 2}}, False),
    ],
)
def test_what_is_larger_than_any_is_not_there(info: dict[str, Any], *, is_there: bool) -> None:
    assert kinds(Here()).has(image(**info)) == is_there


def test_what_the_driver_says_counts() -> None:
    assert not kinds(Here(VK_ERROR_FORMAT_NOT_SUPPORTED)).has(image())
    assert kinds(Here(-1)).has(image()), "it is out of memory, which says nothing of the image"
    assert Kinds(Here(VK_ERROR_FORMAT_NOT_SUPPORTED)).has(image()), "of no device that is known"

    def unreadable(*_: Any) -> Any:
        raise CodecError("nothing")

    assert kinds(unreadable).has(image())


def test_it_is_asked_about_all_that_matters() -> None:
    here = Here()
    stencil = ("VkImageStencilUsageCreateInfo", {"stencilUsage": 32})
    modifiers = {"drmFormatModifierCount": 1, "pDrmFormatModifiers": [0]}
    chain = [
        ("VkExternalMemoryImageCreateInfo", {"handleTypes": DMA_BUF}),
        ("VkImageDrmFormatModifierListCreateInfoEXT", modifiers),
        stencil,
    ]
    tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT
    assert kinds(here).has(image(pNext=chain, tiling=tiling, flags=8))
    (asked,) = here.asked
    info = asked["pImageFormatInfo"]
    assert asked["physicalDevice"] == PHYSICAL_DEVICE
    assert (info["type"], info["format"], info["usage"], info["flags"]) == (1, 37, 3, 8)
    assert info["tiling"] == tiling
    assert dict(info["pNext"]) == {
        stencil[0]: stencil[1],
        "VkPhysicalDeviceExternalImageFormatInfo": {"handleType": DMA_BUF},
        "VkPhysicalDeviceImageDrmFormatModifierInfoEXT": {"drmFormatModifier": 0},
    }


@pytest.mark.programs
def test_a_replay_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "linear.hesper"
    recorder = record_to(path)
    guest = Guest(lavapipe(), tape=recorder.tape).start()
    asked = {"physicalDevice": PHYSICAL_DEVICE, "pMemoryProperties": {}}
    guest.ask("vkGetPhysicalDeviceMemoryProperties", **asked)
    usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT
    made = guest.create("Image", IMAGE | {"tiling": VK_IMAGE_TILING_LINEAR, "usage": usage})
    guest.send("vkDestroyImage", device=DEVICE, image=made)
    guest.close()
    recorder.close()
    assert (replay(path).without, replay(path).differences) == (0, [])
    driver = choose_driver(str(make_driver(tmp_path / "driver", "discrete").manifest))
    for name, value in driver.environment.items():
        monkeypatch.setenv(name, value)
    outcome = replay(path, on=driver)
    assert (outcome.fatal, outcome.without, outcome.results_other) == ("", 2, 0)
    (said,) = outcome.differences
    assert "vkCreateImage: there are no such images" in said
