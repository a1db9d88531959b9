"""C types: sizes on a 64-bit host, widths on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vulkan_object.vulkan_object import VulkanObject

POINTER_SIZE = 8


@dataclass(frozen=True)
class Scalar:
    """A scalar type: bytes in C, bytes on the wire."""

    size: int
    wire: int
    is_float: bool = False
    is_signed: bool = False


BASE_TYPES = {
    "int8_t": Scalar(1, 4, is_signed=True),
    "uint8_t": Scalar(1, 4),
    "int16_t": Scalar(2, 4, is_signed=True),
    "uint16_t": Scalar(2, 4),
    "int32_t": Scalar(4, 4, is_signed=True),
    "int": Scalar(4, 4, is_signed=True),
    "uint32_t": Scalar(4, 4),
    "int64_t": Scalar(8, 8, is_signed=True),
    "uint64_t": Scalar(8, 8),
    "size_t": Scalar(8, 8),
    "float": Scalar(4, 4, is_float=True),
    "double": Scalar(8, 8, is_float=True),
    "VkBool32": Scalar(4, 4),
    "VkSampleMask": Scalar(4, 4),
    "VkFlags": Scalar(4, 4),
    "VkFlags64": Scalar(8, 8),
    "VkDeviceSize": Scalar(8, 8),
    "VkDeviceAddress": Scalar(8, 8),
}


class ScalarTypes:
    """Resolves the registry's scalar type names."""

    def __init__(self, vk: VulkanObject) -> None:
        self._vk = vk

    def find(self, name: str) -> Scalar | None:
        """The scalar behind `name`, None when it is no scalar."""
        if name in BASE_TYPES:
            return BASE_TYPES[name]
        if name in self._vk.enums:
            return BASE_TYPES["int32_t"]
        for group in (self._vk.bitmasks, self._vk.flags):
            if name in group:
                size = group[name].bitWidth // 8
                return Scalar(size, size)
        return None
