"""What becomes of memory and images in a recording: read ahead of a replay on another driver.

Where a guest's driver has one type of memory for everything, another has one for what is mapped and
one for images; which of them an allocation wants is seen only later.  So it is with the places of
pixels in an image for others: the driver has chosen them, and the guest has asked where they are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hesper.trace.decoded import decode, name_of
from hesper.trace.records import BLOB_BODY, Kind, Reader, Record, command_of
from hesper.vk.enumerants import (
    VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
    VK_IMAGE_TILING_OPTIMAL,
)

BINDS = {
    "vkBindBufferMemory": "buffer",
    "vkBindBufferMemory2": "buffer",
    "vkBindImageMemory": "image",
    "vkBindImageMemory2": "image",
}
"""Commands that bind memory, and the field that says to what."""
_MAKES = {"vkCreateBuffer": "pBuffer", "vkCreateImage": "pImage"}
_PLACES = frozenset({"vkGetImageSubresourceLayout", "vkGetImageSubresourceLayout2"})
"""Commands that are answered how an image lies in memory."""
LOOKED_AT = frozenset({*BINDS, *_MAKES, *_PLACES, "vkAllocateMemory"})


class Bound(msgspec.Struct):
    """A buffer or image that is bound to an allocation, and was there before it."""

    id: int
    offset: int
    is_image: bool
    device: int
    is_tiled: bool = False
    """Whether it is an image whose bytes nobody sees."""


class Allocation(msgspec.Struct):
    """What becomes of one."""

    is_mapped: bool = False
    """Whether the guest makes a resource of it."""
    bound: list[Bound] = []
    starts: set[int] = set()
    """Where anything is bound, at any time."""


class Plan:
    """What becomes of a recording's allocations and images, by the numbers of their commands."""

    def __init__(self, reader: Reader) -> None:
        """Read all of it.  Raises `RecordingError`."""
        self.allocations: dict[int, Allocation] = {}
        self.layouts: dict[int, tuple[int, int]] = {}
        """Of images with a modifier that the driver has chosen: bytes before the first row, and
        from row to row."""
        self._live: dict[int, tuple[int, Allocation]] = {}
        self._made: dict[int, int] = {}
        self._tiled: set[int] = set()
        self._modified: dict[int, int] = {}
        """Images with a modifier, and their commands' numbers."""
        self._number = -1
        for record in reader:
            if record.kind == Kind.BLOB:
                memory = BLOB_BODY.unpack_from(record.body)[2]
                if memory in self._live:
                    self._live[memory][1].is_mapped = True
            elif record.kind == Kind.COMMAND:
                self._look(record)

    def _look(self, record: Record) -> None:
        self._number += 1
        name = name_of(command_of(record).data)
        if name not in LOOKED_AT:
            return
        then = decode(self._number, record)
        parameters = then.parameters or {}
        if name == "vkAllocateMemory":
            found = Allocation()
            self.allocations[self._number] = found
            self._live[parameters.get("pMemory") or 0] = (self._number, found)
        elif name in _MAKES:
            of = parameters.get(_MAKES[name]) or 0
            self._made[of] = self._number
            if is_tiled(name, parameters):
                self._tiled.add(of)
            self._modified.pop(of, None)
            if is_modified(name, parameters):
                self._modified[of] = self._number
        elif name in _PLACES:
            self._place(parameters, then.outputs.get("pLayout") or {})
        else:
            for info in parameters.get("pBindInfos") or [parameters]:
                self._bind(info, parameters.get("device") or 0)

    def _place(self, parameters: dict[str, Any], layout: dict[str, Any]) -> None:
        number = self._modified.get(parameters.get("image") or 0)
        layout = layout.get("subresourceLayout") or layout
        if number is not None and layout.get("rowPitch"):
            self.layouts.setdefault(number, (layout.get("offset") or 0, layout["rowPitch"]))

    def _bind(self, info: dict[str, Any], device: int) -> None:
        of = info.get("image") or info.get("buffer") or 0
        since, found = self._live.get(info.get("memory") or 0, (0, None))
        if found is not None:
            found.starts.add(info.get("memoryOffset") or 0)
        # What was made after the memory cannot be asked about when that is allocated.
        if found is not None and self._made.get(of, since) < since:
            offset = info.get("memoryOffset") or 0
            bound = Bound(of, offset, bool(info.get("image")), device, of in self._tiled)
            found.bound.append(bound)


def is_tiled(name: str, parameters: dict[str, Any]) -> bool:
    """Whether a command makes an image that lies in memory as only its driver knows."""
    info = parameters.get("pCreateInfo") or {}
    return name == "vkCreateImage" and info.get("tiling", 0) == VK_IMAGE_TILING_OPTIMAL


def is_modified(name: str, parameters: dict[str, Any]) -> bool:
    """Whether a command makes an image that lies as its modifier says."""
    info = parameters.get("pCreateInfo") or {}
    return (
        name == "vkCreateImage" and info.get("tiling", 0) == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT
    )
