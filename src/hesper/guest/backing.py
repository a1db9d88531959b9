"""Where host-visible device memory comes from.

The guest maps device memory through a blob, so it must lie in memory that can be shared.  How
that is done is a strategy, chosen for each physical device by what a probe finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hesper.guest.errors import VulkanError
from hesper.guest.vk import (
    VK_ERROR_INVALID_EXTERNAL_HANDLE,
    VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    VK_SUCCESS,
)
from hesper.kernel.engine import ProcTable, Region, Scratch, View
from hesper.portable import page_size

REGION_GRANULE = 64 << 10
"""Regions for device memory come in multiples of this, in bytes.

A guest rounds a blob up to its own page, which may be larger than the host's.  The memory is
sparse: what nobody touches costs nothing.
"""


class Strategy(Protocol):
    """Backs device memory with shared memory."""

    @property
    def types(self) -> int:
        """Memory types that can be backed, a bit each."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """Device extensions it needs."""

    @property
    def handle_type(self) -> int:
        """VkExternalMemoryHandleTypeFlagBits that the memory has on the host."""

    @property
    def wants_external_buffers(self) -> bool:
        """Whether every buffer should be created for that handle type."""

    @property
    def wants_external_images(self) -> bool:
        """Whether every image should be, where the driver can."""

    @property
    def alignment(self) -> int:
        """What the size of an allocation is rounded up to, in bytes; a power of two."""

    @property
    def granule(self) -> int:
        """What the size of its shared memory is rounded up to, in bytes; a power of two."""

    def back(self, info: View, region: Region) -> None:
        """Make the VkMemoryAllocateInfo `info` an allocation that lies in `region`.

        Raises `VulkanError` for an allocation that cannot be backed.
        """

    def importing_types(self, table: ProcTable, device: int, region: Region) -> int:
        """Memory types of `device` (a host handle), a bit each, that can lie in `region`.

        Raises `VulkanError`.
        """


@dataclass(frozen=True)
class HostPointer:
    """Imports mapped shared memory with `VK_EXT_external_memory_host`: works everywhere."""

    types: int
    alignment: int
    """minImportedHostPointerAlignment."""
    wants_external_buffers: bool
    wants_external_images: bool

    extensions = ("VK_EXT_external_memory_host",)
    handle_type = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT

    @property
    def granule(self) -> int:
        """What the size of its shared memory is rounded up to, in bytes."""
        return max(page_size(), self.alignment, REGION_GRANULE)

    def back(self, info: View, region: Region) -> None:
        """Make the VkMemoryAllocateInfo `info` an import of `region`."""
        capture = info.find_("VkMemoryOpaqueCaptureAddressAllocateInfo")
        if capture is not None and capture.opaqueCaptureAddress:
            raise VulkanError(
                VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS,
                "host-visible memory cannot be placed at a captured address",
            )
        size = round_up(info.allocationSize, self.alignment)
        if size > region.size:
            raise ValueError(f"an import of {size} bytes does not fit into {region.size}")
        if size != info.allocationSize:
            # A dedicated allocation must have exactly the size of its image or buffer.
            info.remove_("VkMemoryDedicatedAllocateInfo")
            info.allocationSize = size
        info.push_(
            "VkImportMemoryHostPointerInfoEXT",
            handleType=self.handle_type,
            pHostPointer=region.address,
        )

    def importing_types(self, table: ProcTable, device: int, region: Region) -> int:
        """Memory types of `device` that can lie in `region`."""
        answer = Scratch().new("VkMemoryHostPointerPropertiesEXT")
        command = "vkGetMemoryHostPointerPropertiesEXT"
        result = table.call(command, device, self.handle_type, region.address, answer)
        if result != VK_SUCCESS:
            raise VulkanError(VK_ERROR_INVALID_EXTERNAL_HANDLE, f"{command}: VkResult {result}")
        return int(answer.memoryTypeBits) & self.types


def round_up(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`, a power of two."""
    return (size + alignment - 1) & ~(alignment - 1)
