"""What another driver calls otherwise than the one that was recorded.

Object ids are the guest's and stay.  Memory types, queue families and device addresses are found
by what both drivers have answered, and put into commands' fields.  What a guest has written of
them elsewhere (memory, push constants, descriptor data) is not found.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, NamedTuple

from hesper.protocol.codec import Reader
from hesper.trace.decoded import UNREADABLE, Decoded, codec
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
)

_TYPES = ("vkGetPhysicalDeviceMemoryProperties", "vkGetPhysicalDeviceMemoryProperties2")
_FAMILIES = (
    "vkGetPhysicalDeviceQueueFamilyProperties",
    "vkGetPhysicalDeviceQueueFamilyProperties2",
)
_ADDRESSES = ("vkGetBufferDeviceAddress", "vkGetAccelerationStructureDeviceAddressKHR")
ASKS = frozenset(_TYPES + _FAMILIES + _ADDRESSES)
"""Commands whose answers are looked at."""

_HOST_VISIBLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
_HOST_FLAGS = (
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
    | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
    | VK_MEMORY_PROPERTY_HOST_CACHED_BIT
)

_FAMILY_FIELDS = frozenset(
    {"queueFamilyIndex", "srcQueueFamilyIndex", "dstQueueFamilyIndex", "pQueueFamilyIndices"}
)
_SPECIAL_FAMILIES = 0xFFFFFFFD
"""From here on: VK_QUEUE_FAMILY_FOREIGN_EXT, EXTERNAL and IGNORED."""


class Wants(NamedTuple):
    """What an allocation has to be here."""

    is_mapped: bool
    types: int
    """Mask of memory types that all can be bound to that will be."""
    size: int
    """Bytes that those need."""


class Translation:
    """From the recording's driver to this one."""

    def __init__(self) -> None:
        """Nothing is known to differ."""
        self.types_then: list[int] = []
        """Property flags of the recording's memory types."""
        self.types_now: list[int] = []
        self.allocations = 0
        """How many were made otherwise."""
        self.families: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        """Bytes of buffers by their ids."""
        self._starts: list[int] = []
        self._ranges: dict[int, tuple[int, int]] = {}
        """From an address of the recording: bytes, address here."""

    @property
    def is_needed(self) -> bool:
        """Whether commands have to be looked at as a whole."""
        return bool(self.families or self._starts)

    def learn(self, then: Decoded, reply: bytes) -> None:
        """Take note of what was answered then, and is now."""
        if then.parameters is None:
            return
        try:
            _, result, outputs = codec().decode_reply(Reader(reply), then.parameters)
        except UNREADABLE:
            return
        if then.name in _TYPES:
            self.types_then, self.types_now = _types(then.outputs), _types(outputs)
        elif then.name in _FAMILIES:
            self.families = _match(_families(then.outputs), _families(outputs))
        elif then.result and result and then.result != result:
            info = then.parameters.get("pInfo") or {}
            size = self.sizes.get(info.get("buffer") or 0, 1)
            if then.result not in self._ranges:
                bisect.insort(self._starts, then.result)
            self._ranges[then.result] = (max(size, 1), result)

    def address(self, value: int) -> int:
        """What an address of the recording is here."""
        at = bisect.bisect_right(self._starts, value) - 1
        if at >= 0:
            start = self._starts[at]
            size, here = self._ranges[start]
            if value - start < size:
                return here + value - start
        return value

    def family(self, value: int) -> int:
        """What a queue family of the recording is here."""
        return value if value >= _SPECIAL_FAMILIES else self.families.get(value, value)

    def apply(self, then: Decoded, wants: Wants | None = None) -> bytes:
        """The command's bytes for this driver; wants: of a vkAllocateMemory."""
        if then.parameters is None:
            return then.data
        changed = False
        if then.name == "vkAllocateMemory" and wants is not None:
            changed = self._allocate(then.parameters.get("pAllocateInfo") or {}, wants)
        if self.is_needed:
            changed |= _walk(then.parameters, codec().model.commands[then.name].fields, self._place)
        if not changed:
            return then.data
        flags = int.from_bytes(then.data[4:8], "little")
        try:
            return codec().encode(then.name, then.parameters, reply=bool(flags & 1))
        except UNREADABLE:
            return then.data

    def _allocate(self, info: dict[str, Any], wants: Wants) -> bool:
        """Choose type and size; whether they are others."""
        index, size = info.get("memoryTypeIndex", 0), info.get("allocationSize", 0)
        flags = self.types_then[index] if index < len(self.types_then) else 0
        fitting = [
            i
            for i, each in enumerate(self.types_now)
            if wants.types >> i & 1 and (not wants.is_mapped or each & _HOST_VISIBLE)
        ]
        if fitting:
            # As little as can be is missing, and then as little as can be is too much; what is not
            # mapped need not be visible.
            wanted = flags if wants.is_mapped else flags & ~_HOST_FLAGS
            best = min(
                fitting,
                key=lambda i: (
                    (wanted & ~self.types_now[i]).bit_count(),
                    (self.types_now[i] & ~wanted).bit_count(),
                    i != index,
                ),
            )
            info["memoryTypeIndex"] = best
        info["allocationSize"] = max(size, wants.size)
        changed = (info["memoryTypeIndex"], info["allocationSize"]) != (index, size)
        self.allocations += changed
        return changed

    def _place(self, field: Any, value: int) -> int:
        if field.type in ("VkDeviceAddress", "VkDeviceOrHostAddressConstKHR"):
            return self.address(value)
        if field.name in _FAMILY_FIELDS:
            return self.family(value)
        return value


def _walk(values: dict[str, Any], fields: Any, place: Callable[[Any, int], int]) -> bool:
    """Put other numbers into decoded values; whether there were any."""
    changed = False
    for field in fields:
        value = values.get(field.name)
        if value is None:
            continue
        if field.kind == "scalar" and not field.is_float:
            changed |= _put(values, field, value, place)
        elif field.kind == "struct":
            struct = codec().model.structs[field.type]
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict):
                    changed |= _walk(each, struct.fields, place)
    for name, chained in values.get("pNext") or []:
        changed |= _walk(chained, codec().model.structs[name].fields, place)
    return changed


def _put(values: dict[str, Any], field: Any, value: Any, place: Callable[[Any, int], int]) -> bool:
    if isinstance(value, int):
        values[field.name] = place(field, value)
    elif isinstance(value, list) and all(isinstance(each, int) for each in value):
        values[field.name] = [place(field, each) for each in value]
    return bool(values[field.name] != value)


def _types(outputs: dict[str, Any]) -> list[int]:
    """The property flags of memory types."""
    found = outputs.get("pMemoryProperties") or {}
    found = found.get("memoryProperties") or found
    count = found.get("memoryTypeCount", 0)
    return [each["propertyFlags"] for each in (found.get("memoryTypes") or [])[:count]]


def _families(outputs: dict[str, Any]) -> list[int]:
    """The flags of queue families."""
    found = outputs.get("pQueueFamilyProperties") or []
    return [
        (each.get("queueFamilyProperties") or each).get("queueFlags", 0)
        for each in found
        if isinstance(each, dict)
    ]


def _match(then: list[int], now: list[int]) -> dict[int, int]:
    """For each of `then` the first of `now` that has its flags, and few others."""
    found: dict[int, int] = {}
    for index, flags in enumerate(then):
        if index < len(now) and now[index] == flags:
            continue
        fitting = [i for i, each in enumerate(now) if each & flags == flags]
        if fitting:
            best = min(fitting, key=lambda i: ((now[i] & ~flags).bit_count(), i))
            if best != index:
                found[index] = best
    return found
