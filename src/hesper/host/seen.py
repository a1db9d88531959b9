"""What a physical device was seen to be able to do with memory that others can see.

Drivers promise little of it and keep less, so all of it is tried (`hesper.host.trial`), in a
process of its own: a driver that does not survive a step is one that cannot do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ExportSeen:
    """A kind of descriptor that maps what the driver maps."""

    handle_type: int
    """VkExternalMemoryHandleTypeFlagBits."""
    types: int
    """Host-visible, coherent types whose memory can be exported so."""
    linear_images: int
    """Of them, those that stated linear images can be bound to."""
    tiled_images: int
    """Of them, those that stated tiled images can be bound to."""


@dataclass(frozen=True)
class MemorySeen:
    """Results of a trial.  Sets of memory types are masks, a bit each; they are the driver's own.

    "Stated" is a buffer or image that was made with the handle type of the memory it is bound to
    in its `VkExternalMemoryBufferCreateInfo` or `VkExternalMemoryImageCreateInfo`, as Vulkan wants
    it (VUID-vkBindBufferMemory-memory-02985, VUID-VkBindImageMemoryInfo-memory-02989).
    """

    alignment: int = 0
    """minImportedHostPointerAlignment; 0 where pointers cannot be imported."""
    imported: int = 0
    """Host-visible, coherent types that take a pointer to shared memory."""
    buffers: int = 0
    """Of them, those that buffers can be bound to."""
    states_buffers: bool = False
    """Whether any buffer can be stated for it at no cost."""
    linear_images: int = 0
    """Of them, those that stated linear images can be bound to."""
    tiled_images: int = 0
    """Of them, those that stated tiled images can be bound to."""
    unstated_images: int = 0
    """Of them, those that images can be bound to that are not stated."""
    native_images: int = 0
    """Types that an ordinary tiled image can be bound to."""
    sparse: bool = False
    """Whether sparse buffers can be bound to imported memory, and what is written comes there."""
    exports: tuple[ExportSeen, ...] = ()
    """Descriptors by which memory of the driver's own can be mapped, the best first."""
    linear_attachments: bool = False
    """Whether linear images in shared memory can be colour attachments."""
    not_survived: tuple[str, ...] = ()
    """Steps that the driver has crashed in."""

    @property
    def can_be_shared(self) -> bool:
        """Whether there is a way to let a guest map some of it."""
        return bool(self.buffers or self.exports)

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], lost: tuple[str, ...]) -> MemorySeen:
        """What a trial has printed.  lost: steps that were left out.  Raises `KeyError`."""
        names = {field.name for field in fields(cls)} - {"exports", "not_survived"}
        exports = tuple(ExportSeen(**each) for each in answer["exports"])
        return cls(**{name: answer[name] for name in names}, exports=exports, not_survived=lost)
