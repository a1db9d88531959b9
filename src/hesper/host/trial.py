"""Try what a physical device can do with memory that others can see.

Part of the probe's process (`hesper.host.describe`); the results are `hesper.host.seen`.  Each step
is named before it is tried, so that whoever started the process knows which one a driver has not
survived, and can leave it out the next time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import partial

from hesper.host.trial_device import (
    ATTACHMENT,
    BUFFER_SIZE,
    DMA_BUF,
    HOST_POINTER,
    LINEAR,
    OPAQUE_FD,
    OPTIMAL,
    R8G8B8A8,
    SAMPLED,
    SUCCESS,
    TRANSFERS,
    TrialDevice,
)
from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import Scratch
from hesper.portable import SharedMemory, page_size
from hesper.vk.enumerants import (
    VK_BUFFER_CREATE_SPARSE_BINDING_BIT,
    VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT,
    VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_COHERENT = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
_HOST_FLAGS = _COHERENT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT
_PATTERN = 0x5A17E57A

EXTENSIONS = (
    "VK_EXT_external_memory_host",
    "VK_KHR_external_memory_fd",
    "VK_EXT_external_memory_dma_buf",
    "VK_KHR_portability_subset",
)
"""What a `TrialDevice` for this wants, as far as it is there."""


class Trial:
    """All steps on one device.  Life: construct, `run`, once."""

    def __init__(
        self, device: TrialDevice, *, leave_out: frozenset[str], begin: Callable[[str], None]
    ) -> None:
        """leave_out: steps that count as failed.  begin: is told the name of each step."""
        self._device = device
        self._leave_out = leave_out
        self._begin = begin
        self._types = device.memory_types()

    def run(self) -> dict[str, Any]:
        """Try everything; the keys are the fields of `seen.MemorySeen`."""
        return self._importing() | self._exporting()

    def _step(self, name: str, attempt: Callable[[], int]) -> int:
        """Try something unless it is to be left out; 0 when it fails."""
        if name in self._leave_out:
            return 0
        self._begin(name)
        try:
            return attempt()
        except (KeyError, OSError, ProtocolError, RuntimeError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 0

    # Imported pointers.

    def _importing(self) -> dict[str, Any]:
        """All that is about pointers to shared memory."""
        device = self._device
        with device.image(0, OPTIMAL) as (_, (_, _, native)):
            answer: dict[str, Any] = {"native_images": native}
        alignment = 0
        if "VK_EXT_external_memory_host" in device.extensions:
            alignment = self._alignment()
        if alignment < 1 or alignment & (alignment - 1):
            return answer | dict.fromkeys(_ABOUT_IMPORTS, 0)
        size = max(page_size(), alignment, 2 * BUFFER_SIZE)
        with SharedMemory.create(size, "trial") as self._memory:
            types = self._step("import", self._importable)
            if not types:
                return answer | dict.fromkeys(_ABOUT_IMPORTS, 0)
            stated = device.states_buffers(HOST_POINTER)
            return answer | {
                "alignment": alignment,
                "imported": types,
                "buffers": self._step("buffer", lambda: self._buffers(types, stated)),
                "states_buffers": stated and self._stated_buffers_are_free(types),
                "linear_images": self._stated_images(types, "linear image", LINEAR),
                "tiled_images": self._stated_images(types, "tiled image", OPTIMAL),
                "unstated_images": self._unstated_images(types, native),
                "sparse": bool(self._step("sparse", lambda: self._sparse(types, stated))),
                "linear_attachments": bool(
                    self._step("linear attachment", self._linear_attachments)
                ),
            }

    def _alignment(self) -> int:
        """The device's minImportedHostPointerAlignment."""
        properties = Scratch().new("VkPhysicalDeviceProperties2")
        host = properties.push_("VkPhysicalDeviceExternalMemoryHostPropertiesEXT")
        self._device.ask("vkGetPhysicalDeviceProperties2", properties)
        return int(host.minImportedHostPointerAlignment)

    def _importable(self) -> int:
        """Coherent types that really take the memory."""
        device = self._device
        answer = Scratch().new("VkMemoryHostPointerPropertiesEXT")
        arguments = (device.handle, HOST_POINTER, self._memory.address, answer)
        if device.table.call("vkGetMemoryHostPointerPropertiesEXT", *arguments) != SUCCESS:
            return 0
        found = 0
        for index, (flags, _) in enumerate(self._types):
            if answer.memoryTypeBits >> index & 1 and flags & _COHERENT == _COHERENT:
                with device.imported(self._memory, index) as made:
                    found |= bool(made) << index
        return found

    def _buffers(self, types: int, stated: bool) -> int:
        """Types of imported memory that a buffer can be bound to."""
        found = 0
        for index in bits(types):
            with self._device.buffer(HOST_POINTER if stated else 0) as (buffer, needs):
                found |= self._binds("vkBindBufferMemory", buffer, needs, index) << index
        return found

    def _stated_buffers_are_free(self, imported: int) -> bool:
        """Whether a stated buffer is as good as any other.

        A driver may offer less memory for it, and the guest may never need it.  NVIDIA's leaves out
        the GPU's memory that is mapped, which is to guests no other than what is not.
        """
        with self._device.buffer(0) as (_, plain), self._device.buffer(HOST_POINTER) as (_, stated):
            kept = {self._shown(index, imported) for index in bits(stated[2])}
            lost = bits(plain[2] & ~stated[2])
            return plain[:2] == stated[:2] and all(
                self._shown(index, imported) in kept for index in lost
            )

    def _shown(self, index: int, imported: int) -> tuple[int, int]:
        """Flags and heap of a memory type, of which only imported ones are for the guest to map."""
        flags, heap = self._types[index]
        return (flags if imported >> index & 1 else flags & ~_HOST_FLAGS), heap

    def _stated_images(self, types: int, step: str, tiling: int) -> int:
        """Types that stated images can be bound to, if the driver says that there can be some."""
        if not self._device.states_images(HOST_POINTER, tiling, TRANSFERS | SAMPLED):
            return 0
        return self._step(step, lambda: self._images(types, tiling, HOST_POINTER))

    def _unstated_images(self, types: int, native: int) -> int:
        """Types that images can be bound to that are not stated.

        Not tried where such images have other memory: nobody needs it there.
        """
        if native & ~types:
            return 0
        return self._step("unstated image", lambda: self._images(types, OPTIMAL, 0))

    def _images(self, types: int, tiling: int, handle_type: int) -> int:
        found = 0
        for index in bits(types):
            with self._device.image(handle_type, tiling) as (image, needs):
                lands = partial(self._lands, image)
                found |= self._binds("vkBindImageMemory", image, needs, index, lands) << index
        return found

    def _lands(self, image: int) -> bool:
        """Whether what is drawn to an image comes into its memory.

        MoltenVK binds tiled images to imported memory, and has them somewhere else.
        """
        memory = self._memory
        memory.view[:] = bytes(memory.size)
        return self._device.clear(image) and any(memory.view)

    def _binds(
        self,
        command: str,
        made: int,
        needs: tuple[int, int, int],
        type_: int,
        works: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Whether what was just made can be bound to the memory, imported as a memory type.

        works: asked then.
        """
        size, _, types = needs
        if not types >> type_ & 1 or size > self._memory.size:
            return False
        device = self._device
        with device.imported(self._memory, type_) as place:
            if not place or device.table.call(command, device.handle, made, place, 0) != SUCCESS:
                return False
            return works()

    def _linear_attachments(self) -> int:
        """Whether linear images can be colour attachments, in imported memory."""
        device = self._device
        answer = Scratch().new("VkFormatProperties")
        device.ask("vkGetPhysicalDeviceFormatProperties", R8G8B8A8, answer)
        usage = TRANSFERS | SAMPLED | ATTACHMENT
        if not answer.linearTilingFeatures & VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT:
            return 0
        if not device.states_images(HOST_POINTER, LINEAR, usage):
            return 0
        with device.image(HOST_POINTER, LINEAR, usage):
            return 1

    # Sparse buffers.

    def _sparse(self, types: int, stated: bool) -> int:
        """Whether a sparse buffer bound to imported memory is that memory."""
        device = self._device
        if device.sparse_family < 0:
            return 0
        handle_type = HOST_POINTER if stated else 0
        with device.buffer(handle_type, VK_BUFFER_CREATE_SPARSE_BINDING_BIT) as (
            buffer,
            (size, alignment, wanted),
        ):
            index = next(bits(wanted & types), None)
            if index is None:
                return 0
            room = max(size, alignment, page_size())
            with (
                SharedMemory.create(room, "trial") as memory,
                device.imported(memory, index) as made,
            ):
                if not made or not self._fills(buffer, size, made):
                    return 0
                return int(memory.view[:4] == _PATTERN.to_bytes(4, sys.byteorder))

    def _fills(self, buffer: int, size: int, made: int) -> bool:
        """Bind all pages of a sparse buffer to the start of some memory, and fill it."""
        device, scratch = self._device, Scratch()
        queue = device.queue(device.sparse_family)
        bind = scratch.new("VkBindSparseInfo")
        pages = scratch.array("VkSparseBufferMemoryBindInfo", 1)
        piece = scratch.array("VkSparseMemoryBind", 1)
        piece[0].size, piece[0].memory = size, made
        pages[0].buffer, pages[0].pBinds, pages[0].bindCount = buffer, piece, 1
        bind.pBufferBinds, bind.bufferBindCount = pages, 1
        with device.fence() as bound:
            return (
                device.table.call("vkQueueBindSparse", queue, 1, bind, bound) == SUCCESS
                and device.is_signalled(bound)
                and device.fill(device.sparse_family, buffer, _PATTERN)
            )

    # Exported memory.

    def _exporting(self) -> dict[str, Any]:
        """Descriptors that the driver exports, and that map its memory."""
        device = self._device
        ways = {
            "VK_EXT_external_memory_dma_buf": ("export dma-buf", DMA_BUF),
            "VK_KHR_external_memory_fd": ("export fd", OPAQUE_FD),
        }
        found: list[dict[str, int]] = []
        for extension, (name, handle_type) in ways.items():
            if not {extension, "VK_KHR_external_memory_fd"} <= set(device.extensions):
                continue
            types = self._step(name, partial(self._exportable, handle_type))
            if types:
                found.append(
                    {
                        "handle_type": handle_type,
                        "types": types,
                        "linear_images": types & self._exportable_images(handle_type, LINEAR),
                        "tiled_images": types & self._exportable_images(handle_type, OPTIMAL),
                    }
                )
        return {"exports": found}

    def _exportable_images(self, handle_type: int, tiling: int) -> int:
        """Types that a stated image can be bound to."""
        if not self._device.states_images(handle_type, tiling, TRANSFERS | SAMPLED):
            return 0
        with self._device.image(handle_type, tiling) as (_, (_, _, types)):
            return types

    def _exportable(self, handle_type: int) -> int:
        found = 0
        for index, (flags, _) in enumerate(self._types):
            if flags & _COHERENT == _COHERENT:
                found |= self._shows_its_memory(handle_type, index) << index
        return found

    def _shows_its_memory(self, handle_type: int, index: int) -> bool:
        """Whether what the driver maps is what the exported descriptor maps, from its start."""
        device = self._device
        scratch = Scratch()
        info = scratch.new(
            "VkMemoryAllocateInfo", allocationSize=BUFFER_SIZE, memoryTypeIndex=index
        )
        info.push_("VkExportMemoryAllocateInfo", handleTypes=handle_type)
        with device.buffer(handle_type) as (_, (_, _, types)), device.allocated(info) as made:
            if not made or not types >> index & 1:
                return False
            wanted = scratch.new("VkMemoryGetFdInfoKHR", memory=made, handleType=handle_type)
            fd = scratch.array("int32_t", 1)
            if device.table.call("vkGetMemoryFdKHR", device.handle, wanted, fd) != SUCCESS:
                return False
            try:
                with SharedMemory.from_fd(fd[0], BUFFER_SIZE) as memory:
                    return self._maps_alike(made, memory)
            finally:
                os.close(fd[0])

    def _maps_alike(self, made: int, memory: SharedMemory) -> bool:
        """Whether bytes written where the driver maps memory appear in `memory`."""
        device = self._device
        place = Scratch().array("uint64_t", 1)
        arguments = (device.handle, made, 0, BUFFER_SIZE, 0, place)
        if device.table.call("vkMapMemory", *arguments) != SUCCESS:
            return False
        pattern = _PATTERN.to_bytes(4, sys.byteorder)
        ends = (0, BUFFER_SIZE - len(pattern))
        for offset in ends:
            ctypes.memmove(place[0] + offset, pattern, len(pattern))
        same = all(memory.view[at : at + len(pattern)] == pattern for at in ends)
        device.table.call("vkUnmapMemory", device.handle, made)
        return same


_ABOUT_IMPORTS = (
    "alignment",
    "imported",
    "buffers",
    "states_buffers",
    "linear_images",
    "tiled_images",
    "unstated_images",
    "sparse",
    "linear_attachments",
)


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
