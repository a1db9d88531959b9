"""The memory types that a guest gets to see: Hesper's own, not the driver's.

What a guest sees as host-visible can be mapped and shared, always: it lies in shared memory, in the
way that the device's `backing.Strategy` has.  What it cannot map is the driver's own memory.  A
driver's type that is shown as host-visible, but cannot hold everything that lies in it natively
(KosmicKrisp's only type takes no tiled images when it is imported), is shown twice: once to be
mapped and once private.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hesper.vk.enumerants import (
    VK_MAX_MEMORY_TYPES,
    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
)

COHERENT = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
_HOST_FLAGS = COHERENT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT


@dataclass(frozen=True)
class HostType:
    """A memory type of the driver, after the host profile."""

    flags: int
    """VkMemoryPropertyFlags."""
    heap: int


@dataclass(frozen=True)
class GuestType:
    """A memory type of the guest."""

    host: int
    """The driver's memory type that it is allocated from."""
    flags: int
    """VkMemoryPropertyFlags, as the guest sees them."""
    heap: int
    is_shared: bool
    """Whether it lies in shared memory, for the guest to map and to share."""


class MemoryTypes:
    """The guest's memory types.  Masks have a bit for each of them, by its index."""

    def __init__(self, host: Sequence[HostType], *, shared: int, doubled: int) -> None:
        """Make them of the driver's types.

        shared: a mask of the driver's types that lie in shared memory for the guest.
        doubled: those of them that are shown as private ones, too.
        """
        found = [
            GuestType(index, each.flags & ~_HOST_FLAGS, each.heap, is_shared=False)
            for index, each in enumerate(host)
            if not shared >> index & 1 or doubled >> index & 1
        ]
        found += [
            GuestType(index, each.flags, each.heap, is_shared=True)
            for index, each in enumerate(host)
            if shared >> index & 1
        ]
        found.sort(key=lambda each: each.host)
        self.ordinary = tuple(_ordered(found))[: VK_MAX_MEMORY_TYPES - 1]
        """Those that anything may be bound to; the others are for pictures only."""
        pictures = _for_pictures(self.ordinary)
        self.types: tuple[GuestType, ...] = self.ordinary + pictures
        """All of them."""
        self.all = (1 << len(self.ordinary)) - 1
        """The ordinary ones."""
        self.shared = sum(1 << i for i, each in enumerate(self.ordinary) if each.is_shared)
        """Of them, those in shared memory."""
        self.native = self.all & ~self.shared
        """Of them, those that are the driver's own memory."""
        self.pictures = self.shared | (len(pictures) << len(self.ordinary))
        """What images that are to be shared can be bound to."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.types)

    def __getitem__(self, index: int) -> GuestType:
        """The type of that index.  Raises `IndexError`."""
        return self.types[index]

    def shown(self, host: int, allowed: int) -> int:
        """The guest's types for what can lie in the driver's types `host`, a mask.

        allowed: those that it may be bound to.  Something that fits none of them gets all that the
        driver names: better memory that is not made for it than none.
        """
        found = sum(1 << i for i, each in enumerate(self.types) if host >> each.host & 1)
        return found & allowed or found & self.all

    def heap_is_shared(self, heap: int) -> bool:
        """Whether some of a heap's memory is for the guest to map."""
        return any(each.heap == heap and each.is_shared for each in self.ordinary)


def _for_pictures(types: tuple[GuestType, ...]) -> tuple[GuestType, ...]:
    """One type more, device-local, where none that can be shared is; none where one is.

    Mesa puts the images of swapchains into device-local memory, and looks for it among the types of
    an image without end.  What is shared with others lies in system memory on such hosts all the
    same, so nothing but images that are shared is offered it: programs take memory with both
    properties for the GPU's own.
    """
    shared = [each for each in types if each.is_shared]
    local = [each for each in types if each.flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT]
    if not shared or not local or any(each in local for each in shared):
        return ()
    first = shared[0]
    flags = first.flags | VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
    return (GuestType(first.host, flags, local[0].heap, is_shared=True),)


def _ordered(types: list[GuestType]) -> list[GuestType]:
    """Put no type behind one that has all its flags and more, and leave the order otherwise.

    Applications take the first that fits: see "Device Memory Properties" in Vulkan's
    specification, on the order of memoryTypes.
    """
    left, ordered = list(types), []
    while left:
        first = next(
            each
            for each in left
            if not any(o.flags != each.flags and o.flags & each.flags == o.flags for o in left)
        )
        left.remove(first)
        ordered.append(first)
    return ordered
