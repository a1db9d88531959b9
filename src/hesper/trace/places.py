"""Where buffers and images lie on a driver that needs more room for them, or other memory.

A guest divides its memory by itself, by what its driver has said.  What does not lie well where
the guest has put it, here, gets memory of its own.  If that is a buffer in memory that the guest
has mapped, its own is mapped, too, and what the guest sees there is what the buffer holds.  Images
that lie row by row in such memory cannot be elsewhere: what does not fit there is left out.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hesper.trace.decoded import UNREADABLE, Decoded
from hesper.trace.translate import DEDICATED, Translation, Wants, again
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
)

if TYPE_CHECKING:
    from hesper.trace.plan import Allocation, Bound

FIRST_OWN = 1 << 63
"""Ids of memory that no guest has asked for begin here: no guest counts so far."""
FREES = {
    "vkFreeMemory": "memory",
    "vkDestroyBuffer": "buffer",
    "vkDestroyImage": "image",
}
"""Commands after which memory of its own is not needed, and the field that says whose."""
_FLAGS = "VkMemoryAllocateFlagsInfo"
_PLANE = "VkBindImagePlaneMemoryInfo"
_SWAPCHAIN = "VkBindImageMemorySwapchainInfoKHR"

Ask = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]
"""Tells a command, and returns its result and outputs."""


class Shadows(Protocol):
    """Shows memory of their own of buffers in the guest's."""

    def shadow(self, memory: int, at: int, size: int, own: int) -> None:
        """Show `size` bytes of `own` at `at` of `memory`, with what is there."""

    def unshadow(self, own: int) -> None:
        """Leave what it holds where the guest had it, if it was shown."""


class _Own(NamedTuple):
    """Memory of its own of a buffer or image."""

    memory: int
    """The guest's, in which it lay."""
    id: int


class _Memory(NamedTuple):
    """An allocation as it is here."""

    device: int
    type: int
    size: int
    is_mapped: bool
    chain: list[tuple[str, dict[str, Any]]]
    """What memory of their own is to have, too."""
    starts: list[int]
    """Where buffers and images begin, at any time."""

    def room(self, at: int) -> int:
        """Bytes from there to what comes next."""
        after = bisect.bisect_right(self.starts, at)
        return (self.starts[after] if after < len(self.starts) else self.size) - at


class Places:
    """Knows allocations, and moves what does not fit."""

    def __init__(self, translation: Translation, ask: Ask, shadows: Shadows) -> None:
        """Nothing is allocated."""
        self._translation = translation
        self._ask = ask
        self._shadows = shadows
        self._memories: dict[int, _Memory] = {}
        self._own: dict[int, list[_Own]] = {}
        """By buffers and images; several of those that a broken recording binds again."""
        self._starts: dict[int, dict[int, bool]] = {}
        """By memory, where buffers and images begin, and whether they were moved."""
        self._next = FIRST_OWN
        self.moved = 0

    @property
    def is_needed(self) -> bool:
        """Whether memory may be another than it was."""
        return self._translation.is_other

    def wants(self, found: Allocation | None) -> Wants | None:
        """What an allocation has to be here; None: what it was."""
        if found is None or not self.is_needed:
            return None
        wants = self._for_all(found, found.bound)
        visible = sum(
            1 << i
            for i, flags in enumerate(self._translation.types_now)
            if flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
        )
        if found.is_mapped and not wants.types & visible:
            seen = [each for each in found.bound if not each.is_tiled]
            return self._for_all(found, seen)._replace(is_dedicated=False)
        return wants

    def _for_all(self, found: Allocation, bound: list[Bound]) -> Wants:
        types, size = (1 << 32) - 1, 0
        for each in bound:
            needs = self._needs(each.device, each.id, is_image=each.is_image)
            types &= needs.get("memoryTypeBits", types)
            size = max(size, each.offset + needs.get("size", 0))
        return Wants(found.is_mapped, types, size)

    def allocated(self, then: Decoded, found: Allocation | None) -> None:
        """Take note of an allocation, as it is made here."""
        parameters = then.parameters or {}
        info = parameters.get("pAllocateInfo") or {}
        memory = parameters.get("pMemory") or 0
        self._starts.pop(memory, None)
        self._memories[memory] = _Memory(
            parameters.get("device") or 0,
            info.get("memoryTypeIndex", 0),
            info.get("allocationSize", 0),
            found is not None and found.is_mapped,
            [each for each in info.get("pNext") or [] if each[0] == _FLAGS],
            sorted(found.starts) if found is not None else [],
        )

    def freed(self, then: Decoded) -> None:
        """Free what one of `FREES` leaves without use, beside the guest's memory."""
        parameters = then.parameters or {}
        of = parameters.get(FREES[then.name]) or 0
        if then.name == "vkFreeMemory":
            self._memories.pop(of, None)
            every = [own for each in self._own.values() for own in each if own.memory == of]
            for user, owned in self._own.items():
                self._own[user] = [own for own in owned if own.memory != of]
        else:
            every = self._own.pop(of, [])
        for own in every:
            self._shadows.unshadow(own.id)
            self._ask("vkFreeMemory", {"device": parameters.get("device"), "memory": own.id})

    def bind(self, then: Decoded, tiled: set[int]) -> tuple[bytes | None, set[int]]:
        """The bytes of one of `plan.BINDS`, to where there is room; None: nothing is left of it.

        tiled: images whose bytes nobody sees.
        Also returns the ids of those for which there is no room anywhere.
        """
        parameters = then.parameters or {}
        infos = parameters.get("pBindInfos") or [parameters]
        moved, kept, lost = self.moved, [], set()
        for info in infos:
            is_whole = not any(name in (_PLANE, _SWAPCHAIN) for name, _ in info.get("pNext") or [])
            if is_whole and not self._bind(info, tiled):
                lost.add(info.get("image") or info.get("buffer") or 0)
            else:
                kept.append(info)
        if not kept:
            return None, lost
        if lost:
            parameters["pBindInfos"], parameters["bindInfoCount"] = kept, len(kept)
        return again(then) if lost or self.moved > moved else then.data, lost

    def _bind(self, info: dict[str, Any], tiled: set[int]) -> bool:
        """Choose where one is to lie; whether there is room for it."""
        id_, at = info.get("memory") or 0, info.get("memoryOffset") or 0
        memory = self._memories.get(id_)
        if memory is None:
            return True
        is_image = bool(info.get("image"))
        of = info.get("image") or info.get("buffer") or 0
        needs = self._needs(memory.device, of, is_image=is_image)
        fits = not needs or (
            at % max(1, needs["alignment"]) == 0
            and needs["memoryTypeBits"] >> memory.type & 1
            and at + needs["size"] <= memory.size
        )
        starts = self._starts.setdefault(id_, {})
        starts[at] = False
        is_seen = memory.is_mapped and of not in tiled
        # What is larger here would lie over what comes next.
        is_free = is_image and not is_seen and self.is_needed
        if fits and not (is_free and needs.get("size", 0) > memory.room(at)):
            return True
        kind = "image" if is_image else "buffer"
        own = None
        if not (is_seen and is_image):
            own = self._allocate(memory, needs, {kind: of}, is_seen=is_seen)
        if own is None:
            return False
        self._own.setdefault(of, []).append(_Own(id_, own))
        if is_seen:
            self._shadows.shadow(id_, at, self._translation.sizes.get(of, needs["size"]), own)
        else:
            starts[at] = True
        info["memory"], info["memoryOffset"] = own, 0
        self.moved += 1
        return True

    def _allocate(
        self, memory: _Memory, needs: dict[str, int], of: dict[str, int], *, is_seen: bool
    ) -> int | None:
        """Memory of its own of one, which may insist on that; None where there is none."""
        wants = Wants(is_seen, needs["memoryTypeBits"], needs["size"])
        flags = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
        if is_seen and memory.type < len(self._translation.types_now):
            flags = self._translation.types_now[memory.type]
        index = self._translation.choose(flags, wants, memory.type)
        own, self._next = self._next, self._next + 1
        chain = [*memory.chain, (DEDICATED, of)]
        info = {"pNext": chain, "allocationSize": needs["size"], "memoryTypeIndex": index}
        result, _ = self._ask(
            "vkAllocateMemory", {"device": memory.device, "pAllocateInfo": info, "pMemory": own}
        )
        return own if result == 0 else None

    def left(self, memory: int, size: int) -> list[tuple[int, int]]:
        """Parts of a memory of `size` bytes in which lay, then, what lies elsewhere now."""
        starts = sorted(self._starts.get(memory, {}).items())
        ends = [*(at for at, _ in starts), size][1:]
        return [(at, end) for (at, moved), end in zip(starts, ends, strict=True) if moved]

    def _needs(self, device: int, of: int, *, is_image: bool) -> dict[str, int]:
        """What a buffer or image needs of memory here."""
        kind = "Image" if is_image else "Buffer"
        asked = {"device": device, "pInfo": {kind.lower(): of}, "pMemoryRequirements": {}}
        try:
            _, outputs = self._ask(f"vkGet{kind}MemoryRequirements2", asked)
        except UNREADABLE:
            return {}
        found: dict[str, int] = outputs["pMemoryRequirements"]["memoryRequirements"]
        return found
