"""The last picture of a recording that the guest could see, out of memory that it had mapped.

That is what was copied from an image into a buffer last, as programs do that show or save what
they have drawn; else an image of its own that lies in such memory, row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from hesper.vk.enumerants import (
    VK_FORMAT_B8G8R8A8_SRGB,
    VK_FORMAT_B8G8R8A8_UNORM,
    VK_FORMAT_R8G8B8A8_SRGB,
    VK_FORMAT_R8G8B8A8_UNORM,
)

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded

_ORDERS = {
    VK_FORMAT_R8G8B8A8_UNORM: "RGBA",
    VK_FORMAT_R8G8B8A8_SRGB: "RGBA",
    VK_FORMAT_B8G8R8A8_UNORM: "BGRA",
    VK_FORMAT_B8G8R8A8_SRGB: "BGRA",
}
PIXEL = 4
MOST_PIXELS = 1 << 26

WANTS = frozenset(
    {
        "vkCreateImage",
        "vkBindBufferMemory",
        "vkBindBufferMemory2",
        "vkBindImageMemory",
        "vkBindImageMemory2",
        "vkCmdCopyImageToBuffer",
        "vkCmdCopyImageToBuffer2",
        "vkGetImageSubresourceLayout",
        "vkGetImageSubresourceLayout2",
    }
)
"""Commands that are to be noted."""


class Picture(msgspec.Struct):
    """Pixels, row by row without gaps."""

    width: int
    height: int
    order: str
    """`RGBA` or `BGRA`, a byte each."""
    pixels: bytes


class _Image(NamedTuple):
    order: str
    width: int
    height: int


class Place(NamedTuple):
    """Where a picture lies."""

    memory: int
    """Id of the VkDeviceMemory."""
    offset: int
    pitch: int
    """Bytes from row to row."""
    image: _Image


class Pictures:
    """Where pictures lie, by what a guest has asked for."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._images: dict[int, _Image] = {}
        self._bound: dict[int, tuple[int, int]] = {}
        self._pitches: dict[int, tuple[int, int]] = {}
        self._copied: tuple[int, int, int, _Image] | None = None

    def note(self, found: Decoded) -> None:
        """Take note of a command."""
        parameters = found.parameters or {}
        if found.name == "vkCreateImage":
            self._create(parameters)
        elif found.name.startswith("vkBind"):
            infos = parameters.get("pBindInfos") or [parameters]
            for info in infos:
                of = info.get("buffer") or info.get("image") or 0
                self._bound[of] = (info.get("memory") or 0, info.get("memoryOffset") or 0)
        elif found.name.startswith("vkCmdCopy"):
            self._copy(parameters.get("pCopyImageToBufferInfo") or parameters)
        elif found.outputs:
            layout = found.outputs.get("pLayout") or {}
            layout = layout.get("subresourceLayout") or layout
            pitch = (layout.get("offset", 0), layout.get("rowPitch", 0))
            self._pitches[parameters.get("image") or 0] = pitch

    def _create(self, parameters: dict[str, Any]) -> None:
        info = parameters.get("pCreateInfo") or {}
        extent = info.get("extent") or {}
        order = _ORDERS.get(info.get("format") or 0)
        width, height = extent.get("width", 0), extent.get("height", 0)
        if order is not None and 0 < width * height <= MOST_PIXELS:
            self._images[parameters.get("pImage") or 0] = _Image(order, width, height)

    def _copy(self, info: dict[str, Any]) -> None:
        image = self._images.get(info.get("srcImage") or 0)
        regions = info.get("pRegions") or []
        if image is None or not regions:
            return
        region = regions[0]
        extent = region.get("imageExtent") or {}
        width, height = extent.get("width", 0), extent.get("height", 0)
        row = region.get("bufferRowLength") or width
        if 0 < width <= row and height > 0 and row * height <= MOST_PIXELS:
            part = _Image(image.order, width, height)
            at = region.get("bufferOffset") or 0
            self._copied = (info.get("dstBuffer") or 0, at, row * PIXEL, part)

    def places(self, memory: int) -> list[Place]:
        """Pictures in a VkDeviceMemory, the best first."""
        found = []
        if self._copied is not None:
            buffer, at, pitch, image = self._copied
            if self._bound.get(buffer, (0, 0))[0] == memory:
                found.append(Place(memory, self._bound[buffer][1] + at, pitch, image))
        for id_, (owner, offset) in self._bound.items():
            if owner == memory and id_ in self._images and id_ in self._pitches:
                at, pitch = self._pitches[id_]
                found.append(Place(memory, offset + at, pitch, self._images[id_]))
        return found

    def is_copied_to(self, place: Place) -> bool:
        """Whether it is where an image was copied to last."""
        return self._copied is not None and self._copied[3] is place.image


def error(one: Picture, other: Picture) -> float | None:
    """The mean squared error of two pictures' colours, 0 to 255²; None where they have no size."""
    if (one.width, one.height, one.order) != (other.width, other.height, other.order):
        return None
    row = one.width * PIXEL
    total = 0
    for at in range(0, len(one.pixels), row):
        ours, theirs = one.pixels[at : at + row], other.pixels[at : at + row]
        if ours != theirs:
            # The fourth byte is no colour.
            for i in range(PIXEL - 1):
                pairs = zip(ours[i::PIXEL], theirs[i::PIXEL], strict=True)
                total += sum((a - b) ** 2 for a, b in pairs)
    return total / (one.width * one.height * (PIXEL - 1))


def cut_out(memory: Any, size: int, place: Place) -> Picture | None:
    """The picture at a place in `size` bytes of memory; None where it does not lie in there."""
    image = place.image
    row = image.width * PIXEL
    end = place.offset + place.pitch * (image.height - 1) + row
    if place.pitch < row or end > size:
        return None
    rows = [
        bytes(memory[start : start + row])
        for start in range(place.offset, place.offset + place.pitch * image.height, place.pitch)
    ]
    return Picture(image.width, image.height, image.order, b"".join(rows))
