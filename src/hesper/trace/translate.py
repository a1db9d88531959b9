"""What another driver calls otherwise than the one that was recorded.

Object ids are the guest's and stay.  Memory types, queue families and device addresses are found
by what both drivers have answered, and put into commands' fields.  What a guest has written of
them elsewhere (memory, push constants, descriptor data) is not found.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, NamedTuple

from hesper.trace.decoded import UNREADABLE, Decoded, answered, codec
from hesper.trace.queues import Family, Queues
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    VK_SHARING_MODE_CONCURRENT,
    VK_SHARING_MODE_EXCLUSIVE,
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
_NAMES_QUEUE = frozenset({"vkGetDeviceQueue", "vkGetDeviceQueue2"})
DEDICATED = "VkMemoryDedicatedAllocateInfo"
MAKES_QUEUES = _NAMES_QUEUE | {"vkCreateDevice"}
"""Commands that say which queues there are to be."""


class Wants(NamedTuple):
    """What an allocation has to be here."""

    is_mapped: bool
    types: int
    """Mask of memory types that all can be bound to that will be."""
    size: int
    """Bytes that those need."""
    is_dedicated: bool = True
    """Whether it is still for that alone which it was for."""


class Translation:
    """From the recording's driver to this one."""

    def __init__(self) -> None:
        """Nothing is known to differ."""
        self.types_then: list[int] = []
        """Property flags of the recording's memory types."""
        self.types_now: list[int] = []
        self.is_other = False
        """Whether this is known to be another driver."""
        self.allocations = 0
        """How many were made otherwise."""
        self.queues = Queues()
        self.sizes: dict[int, int] = {}
        """Bytes of buffers by their ids."""
        self._starts: list[int] = []
        self._ranges: dict[int, tuple[int, int]] = {}
        """From an address of the recording: bytes, address here."""

    @property
    def is_needed(self) -> bool:
        """Whether commands have to be looked at as a whole."""
        return bool(self.queues.differ or self._starts)

    def learn(self, then: Decoded, reply: bytes) -> None:
        """Take note of what was answered then, and is now."""
        found = answered(then, reply)
        if found is None or then.parameters is None:
            return
        result, outputs = found
        if then.name in _TYPES:
            self.types_then, self.types_now = _types(then.outputs), _types(outputs)
            self.is_other |= self.types_then != self.types_now
        elif then.name in _FAMILIES:
            self.queues.learn(_families(then.outputs), _families(outputs))
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

    def apply(self, then: Decoded, wants: Wants | None = None) -> bytes | None:
        """The command's bytes for this driver; None: it is not to be told.

        wants: of a vkAllocateMemory.
        """
        if then.parameters is None:
            return then.data
        changed = False
        if then.name == "vkAllocateMemory" and wants is not None:
            changed = self._allocate(then.parameters.get("pAllocateInfo") or {}, wants)
        elif then.name == "vkCreateDevice":
            changed = self.queues.create(then.parameters)
        elif then.name in _NAMES_QUEUE:
            named = self.queues.name(then.parameters)
            if named is None:
                return None
            changed = named
        if self.is_needed and then.name not in MAKES_QUEUES:
            changed |= _walk(then.parameters, codec().model.commands[then.name].fields, self._place)
        return again(then) if changed else then.data

    def _allocate(self, info: dict[str, Any], wants: Wants) -> bool:
        """Choose type and size; whether they are others."""
        index, size = info.get("memoryTypeIndex", 0), info.get("allocationSize", 0)
        flags = self.types_then[index] if index < len(self.types_then) else 0
        # What is not mapped need not be visible.
        wanted = flags if wants.is_mapped else flags & ~_HOST_FLAGS
        info["memoryTypeIndex"] = self.choose(wanted, wants, index)
        info["allocationSize"] = max(size, wants.size)
        chain = info.get("pNext") or []
        if not wants.is_dedicated:
            info["pNext"] = [each for each in chain if each[0] != DEDICATED]
        elif wants.size and not wants.is_mapped and any(map(_is_for_one, chain)):
            # No more either: VUID-VkMemoryDedicatedAllocateInfo-image-02964 and -buffer-02965.
            info["allocationSize"] = wants.size
        changed = (info["memoryTypeIndex"], info["allocationSize"]) != (index, size)
        changed |= len(info.get("pNext") or []) != len(chain)
        self.allocations += changed
        return changed

    def choose(self, wanted: int, wants: Wants, index: int) -> int:
        """The memory type for property flags: `index`, unless another fits better."""
        fitting = [
            i
            for i, each in enumerate(self.types_now)
            if wants.types >> i & 1 and (not wants.is_mapped or each & _HOST_VISIBLE)
        ]
        # As little as can be is missing, and then as little as can be is too much.
        return min(
            fitting,
            key=lambda i: (
                (wanted & ~self.types_now[i]).bit_count(),
                (self.types_now[i] & ~wanted).bit_count(),
                i != index,
            ),
            default=index,
        )

    def _place(self, field: Any, value: int) -> int:
        if field.type in ("VkDeviceAddress", "VkDeviceOrHostAddressConstKHR"):
            return self.address(value)
        if field.type == "VkQueue":
            return self.queues.renamed.get(value, value)
        if field.name in _FAMILY_FIELDS:
            return self.queues.family(value)
        return value


def _is_for_one(chained: tuple[str, dict[str, Any]]) -> bool:
    """Whether a struct says that memory is for one image or buffer alone."""
    name, values = chained
    return name == DEDICATED and bool(values.get("image") or values.get("buffer"))


def again(then: Decoded) -> bytes:
    """A command's bytes, made of its parameters."""
    flags = int.from_bytes(then.data[4:8], "little")
    try:
        return codec().encode(then.name, then.parameters or {}, reply=bool(flags & 1))
    except UNREADABLE:
        return then.data


def _walk(values: dict[str, Any], fields: Any, place: Callable[[Any, int], int]) -> bool:
    """Put other numbers into decoded values; whether there were any."""
    changed = False
    for field in fields:
        value = values.get(field.name)
        if value is None:
            continue
        if field.type == "VkQueue" or (field.kind == "scalar" and not field.is_float):
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
        if field.name == "pQueueFamilyIndices" and values[field.name] != value:
            _name_once(values)
    return bool(values[field.name] != value)


def _name_once(values: dict[str, Any]) -> None:
    """Have who shares something among families name each once, as several may be one here."""
    families = sorted(set(values["pQueueFamilyIndices"]))
    if len(families) == 1 and values.get("sharingMode") == VK_SHARING_MODE_CONCURRENT:
        values["sharingMode"] = VK_SHARING_MODE_EXCLUSIVE
        families = []
    values["pQueueFamilyIndices"] = families or None
    values["queueFamilyIndexCount"] = len(families)


def _types(outputs: dict[str, Any]) -> list[int]:
    """The property flags of memory types."""
    found = outputs.get("pMemoryProperties") or {}
    found = found.get("memoryProperties") or found
    count = found.get("memoryTypeCount", 0)
    return [each["propertyFlags"] for each in (found.get("memoryTypes") or [])[:count]]


def _families(outputs: dict[str, Any]) -> list[Family]:
    found = outputs.get("pQueueFamilyProperties") or []
    told = [each.get("queueFamilyProperties") or each for each in found if isinstance(each, dict)]
    return [Family(each.get("queueFlags", 0), each.get("queueCount", 0)) for each in told]
