"""Where device memory comes from that the guest can map.

The guest maps device memory through a blob, so it must lie in memory that can be shared.  How
that is done is a strategy, chosen for each physical device by what its driver was seen to do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hesper.guest import regions
from hesper.guest.errors import VulkanError
from hesper.kernel.views import Scratch
from hesper.portable import page_size
from hesper.vk.enumerants import (
    VK_ERROR_INVALID_EXTERNAL_HANDLE,
    VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT,
    VK_MEMORY_ALLOCATE_ZERO_INITIALIZE_BIT_EXT,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.host.seen import MemorySeen
    from hesper.kernel.handlers import Call
    from hesper.kernel.shm import Pool, Region
    from hesper.kernel.views import View
    from hesper.kernel.vulkan import ProcTable

REGION_GRANULE = 64 << 10
"""Regions for device memory come in multiples of this, in bytes.

A guest rounds a blob up to its own page, which may be larger than the host's.  The memory is
sparse: what nobody touches costs nothing.
"""


@dataclass(frozen=True)
class Order:
    """An allocation that is to lie in shared memory."""

    call: Call
    """vkAllocateMemory; its `pAllocateInfo` names the driver's memory type already."""
    info: View
    """VkMemoryAllocateInfo."""
    table: ProcTable
    device: int
    """Host handle."""
    pool: Pool
    heap: int
    name: str
    """For what the system shows of the memory."""


class Strategy(Protocol):
    """Backs device memory with shared memory."""

    @property
    def types(self) -> int:
        """The driver's memory types that can be backed, a bit each."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """Device extensions it needs."""

    @property
    def handle_type(self) -> int:
        """VkExternalMemoryHandleTypeFlagBits that the memory has on the host."""

    @property
    def states_buffers(self) -> bool:
        """Whether every buffer should be created for that handle type."""

    @property
    def linear_images(self) -> int:
        """Of `types`, those that linear images can be bound to."""

    @property
    def tiled_images(self) -> int:
        """Of `types`, those that tiled images can be bound to."""

    @property
    def takes_dedicated(self) -> bool:
        """Whether allocations may be dedicated to an image or buffer."""

    def allocate(self, order: Order) -> Region | None:
        """Have the driver allocate it; None when it has refused (see `Call.result`).

        Raises `OutOfMemoryError`, `VulkanError`.
        """

    def import_region(self, order: Order, region: Region) -> bool:
        """The same in a region that is there, and that is as large; False when it has refused.

        Raises `VulkanError`.
        """

    def importing_types(self, table: ProcTable, device: int, region: Region) -> int:
        """The driver's memory types, a bit each, that can lie in `region`.

        device: host handle.  Raises `VulkanError`.
        """


@dataclass(frozen=True)
class HostPointer:
    """Imports mapped shared memory with `VK_EXT_external_memory_host`: works nearly everywhere."""

    types: int
    alignment: int
    """minImportedHostPointerAlignment."""
    states_buffers: bool
    linear_images: int
    tiled_images: int

    takes_dedicated = False
    extensions = ("VK_EXT_external_memory_host",)
    handle_type = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT

    @property
    def granule(self) -> int:
        """What the size of its shared memory is rounded up to, in bytes; a power of two."""
        return max(page_size(), self.alignment, REGION_GRANULE)

    def allocate(self, order: Order) -> Region | None:
        """Make shared memory and import it."""
        size = order.info.allocationSize
        wanted = round_up(size, self.granule)
        region = regions.create(order.pool, wanted, order.name, heap=order.heap, reusable=True)
        try:
            if self.import_region(order, region):
                return region
        except BaseException:
            region.release()
            raise
        region.release()
        return None

    def import_region(self, order: Order, region: Region) -> bool:
        """Import shared memory by its address."""
        info = order.info
        _refuse_captured_address(info)
        _leave_clearing(info)
        # VUID-VkMemoryAllocateInfo-pNext-02806; nothing is offered such memory that insists on it.
        info.remove_("VkMemoryDedicatedAllocateInfo")
        size = round_up(info.allocationSize, self.alignment)
        if size > region.size:
            raise VulkanError(
                VK_ERROR_INVALID_EXTERNAL_HANDLE,
                f"an import of {size} bytes does not fit into {region.size}",
            )
        info.allocationSize = size
        info.push_(
            "VkImportMemoryHostPointerInfoEXT",
            handleType=self.handle_type,
            pHostPointer=region.address,
        )
        return order.call.invoke() == VK_SUCCESS

    def importing_types(self, table: ProcTable, device: int, region: Region) -> int:
        """Memory types that take the address of `region`."""
        answer = Scratch().new("VkMemoryHostPointerPropertiesEXT")
        command = "vkGetMemoryHostPointerPropertiesEXT"
        result = table.call(command, device, self.handle_type, region.address, answer)
        if result != VK_SUCCESS:
            raise VulkanError(VK_ERROR_INVALID_EXTERNAL_HANDLE, f"{command}: VkResult {result}")
        return int(answer.memoryTypeBits) & self.types


@dataclass(frozen=True)
class Exported:
    """Maps what the driver exports, for drivers that import no pointers."""

    types: int
    handle_type: int
    """What is exported: a dma-buf, or an opaque descriptor that can be mapped all the same."""
    linear_images: int
    tiled_images: int

    states_buffers = True
    takes_dedicated = True

    @property
    def extensions(self) -> tuple[str, ...]:
        """What exporting needs."""
        if self.handle_type == VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT:
            return ("VK_KHR_external_memory_fd", "VK_EXT_external_memory_dma_buf")
        return ("VK_KHR_external_memory_fd",)

    def allocate(self, order: Order) -> Region | None:
        """Allocate, export, and map the descriptor."""
        info, size = order.info, order.info.allocationSize
        _refuse_captured_address(info)
        regions.check(order.pool, size)
        if info.find_("VkMemoryDedicatedAllocateInfo") is None:
            # What is mapped is whole pages; a dedicated allocation has its object's size.
            info.allocationSize = round_up(size, page_size())
        info.push_("VkExportMemoryAllocateInfo", handleTypes=self.handle_type)
        if order.call.invoke() != VK_SUCCESS:
            return None
        (memory,) = order.call.new_handles
        try:
            fd = self._export(order, memory)
            try:
                return regions.adopt(
                    order.pool, fd, info.allocationSize, charged=size, heap=order.heap
                )
            finally:
                os.close(fd)
        except BaseException:
            order.table.call("vkFreeMemory", order.device, memory, None)
            order.call.set_new_handles([0])
            raise

    def _export(self, order: Order, memory: int) -> int:
        """The descriptor of a host VkDeviceMemory.  Raises `VulkanError`."""
        scratch = Scratch()
        info = scratch.new("VkMemoryGetFdInfoKHR", memory=memory, handleType=self.handle_type)
        fd = scratch.array("int32_t", 1)
        result = order.table.call("vkGetMemoryFdKHR", order.device, info, fd)
        if result != VK_SUCCESS:
            raise VulkanError(result, "vkGetMemoryFdKHR failed")
        return int(fd[0])

    def import_region(self, order: Order, region: Region) -> bool:
        """Import what a driver has exported by its descriptor."""
        _refuse_captured_address(order.info)
        _leave_clearing(order.info)
        order.info.allocationSize = region.size
        fd = os.dup(region.fd)
        order.info.push_("VkImportMemoryFdInfoKHR", handleType=self.handle_type, fd=fd)
        if order.call.invoke() == VK_SUCCESS:
            return True  # the driver has taken the descriptor over
        os.close(fd)
        return False

    def importing_types(self, table: ProcTable, device: int, region: Region) -> int:
        """Memory types that take the descriptor of `region`."""
        if self.handle_type != VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT:
            return self.types  # nothing can be asked about an opaque one
        answer = Scratch().new("VkMemoryFdPropertiesKHR")
        command = "vkGetMemoryFdPropertiesKHR"
        result = table.call(command, device, self.handle_type, region.fd, answer)
        if result != VK_SUCCESS:
            raise VulkanError(VK_ERROR_INVALID_EXTERNAL_HANDLE, f"{command}: VkResult {result}")
        return int(answer.memoryTypeBits) & self.types


def _refuse_captured_address(info: View) -> None:
    """Shared memory lies where it lies.  Raises `VulkanError` for a captured address."""
    capture = info.find_("VkMemoryOpaqueCaptureAddressAllocateInfo")
    if capture is not None and capture.opaqueCaptureAddress:
        raise VulkanError(
            VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS,
            "host-visible memory cannot be placed at a captured address",
        )
    flags = info.find_("VkMemoryAllocateFlagsInfo")
    if flags is not None:
        # Imports may not have it; buffers that ask for it are not offered such memory.
        flags.flags &= ~VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT


def _leave_clearing(info: View) -> None:
    """Have the driver not clear what is imported: it may not, and new shared memory is zero.

    VUID-VkMemoryAllocateFlagsInfo-flags-10760.
    """
    flags = info.find_("VkMemoryAllocateFlagsInfo")
    if flags is not None:
        flags.flags &= ~VK_MEMORY_ALLOCATE_ZERO_INITIALIZE_BIT_EXT


def choose_strategy(seen: MemorySeen, coherent: int, handle_types: int) -> Strategy | None:
    """The way to share this device's memory, or None.

    coherent: a mask of the types that are host-visible and coherent after the host profile.
    handle_types: VkExternalMemoryHandleTypeFlags that the profile leaves.
    """
    types = seen.buffers & coherent
    if types and handle_types & HostPointer.handle_type:
        return HostPointer(
            types,
            seen.alignment,
            seen.states_buffers,
            linear_images=seen.linear_images & types,
            tiled_images=seen.tiled_images & types,
        )
    for export in seen.exports:
        types = export.types & coherent
        if types and handle_types & export.handle_type:
            return Exported(
                types,
                export.handle_type,
                linear_images=export.linear_images & types,
                tiled_images=export.tiled_images & types,
            )
    return None


def round_up(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`, a power of two."""
    return (size + alignment - 1) & ~(alignment - 1)
