"""The memory that a recording's guest had mapped, as resources of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.portable import SharedMemory
from hesper.protocol.virtgpu import BlobFlag
from hesper.trace.memory import PAGE, ReplayedMemory, Shadow
from hesper.trace.outcome import Outcome, ReplayError, ReplayOptions
from hesper.trace.picture import Pictures, error
from hesper.trace.records import BLOB_BODY, Record, memory_of

if TYPE_CHECKING:
    from hesper.guest import Context
    from hesper.trace.missing import Missing
    from hesper.trace.places import Places

FIRST_OWN = 0xFFFFFFF0
"""Ids of resources that no guest has asked for go down from here: no guest counts so far."""


class Blobs:
    """Knows them, by their ids."""

    def __init__(self, context: Context, options: ReplayOptions, outcome: Outcome) -> None:
        """There is none."""
        self._context = context
        self._options = options
        self._outcome = outcome
        self.pictures = Pictures()
        self._has_copy = False
        self._blobs: dict[int, ReplayedMemory] = {}
        self._memories: dict[int, int] = {}
        self._shadows: dict[int, tuple[int, int, Shadow]] = {}
        """By memory of its own, the guest's memory, the resource and what lies in it."""
        self._next = FIRST_OWN

    def close(self) -> None:
        """Unmap everything."""
        for memory in self._blobs.values():
            memory.close()
        for _, _, shadow in self._shadows.values():
            shadow.close()

    def make(self, record: Record, missing: Missing) -> None:
        """Make a resource of memory, unless that is missing.  Raises `ResourceError`, `OSError`."""
        resource, flags, memory, size = BLOB_BODY.unpack_from(record.body)
        # Without memory: streams and replies lay in it.
        if memory and not missing.has(memory):
            fd = self._context.create_blob(resource, memory, size, flags)
            blob = self._blobs[resource] = ReplayedMemory(fd, size)
            self._memories[resource] = memory
            for owner, _, shadow in self._shadows.values():
                if owner == memory:
                    blob.add(shadow)

    def adopt(self, record: Record) -> None:
        """Make a resource of memory that others had made.  Raises `ResourceError`, `OSError`."""
        resource, size, _ = memory_of(record)
        with SharedMemory.create(size, "hesper-replay") as memory:
            self._context.import_resource(resource, memory.fd, size)

    def drop(self, record: Record, places: Places) -> None:
        """Give a resource back."""
        resource = int.from_bytes(record.body[:4], "little")
        if resource in self._blobs:
            self._verify(resource, places)
            self._look(resource)
            self._blobs.pop(resource).close()
            self._context.destroy_resource(resource)

    # What lies in memory of its own, and is seen in the guest's.

    def shadow(self, memory: int, at: int, size: int, own: int) -> None:
        """Show `size` bytes of `own` at `at` of `memory`, with what is there.

        Raises `ResourceError`, `OSError`.
        """
        resource, self._next = self._next, self._next - 1
        fd = self._context.create_blob(resource, own, size, BlobFlag.USE_MAPPABLE)
        shadow = Shadow(fd, at, size)
        self._shadows[own] = (memory, resource, shadow)
        for blob in self._of(memory):
            blob.copy_to(shadow)
            blob.add(shadow)

    def unshadow(self, own: int) -> None:
        """Leave what it holds where the guest had it."""
        if own in self._shadows:
            memory, resource, shadow = self._shadows.pop(own)
            for blob in self._of(memory):
                blob.take(shadow)
            shadow.close()
            self._context.destroy_resource(resource)

    def _of(self, memory: int) -> list[ReplayedMemory]:
        return [blob for id_, blob in self._blobs.items() if self._memories[id_] == memory]

    # What it holds.

    def write(self, record: Record, *, is_done: bool) -> None:
        """Put what was noted before a submission; is_done: when all before it was through."""
        place = self._place(record)
        if place is not None:
            memory, offset, data = place
            confirmed, replaced = memory.write(offset, data, is_done=is_done)
            self._outcome.pages_confirmed += confirmed
            self._outcome.pages_replaced += replaced

    def expect(self, record: Record) -> None:
        """Take note of what memory held in the end."""
        place = self._place(record)
        if place is not None:
            memory, offset, data = place
            memory.expect(offset, data)

    def _place(self, record: Record) -> tuple[ReplayedMemory, int, bytes] | None:
        resource, offset, data = memory_of(record)
        memory = self._blobs.get(resource)
        if memory is None:
            return None
        if offset % PAGE or offset > memory.size or len(data) > memory.size - offset:
            raise ReplayError(
                f"byte {record.offset}: {len(data)} bytes at {offset} of resource {resource},"
                f" which has {memory.size}"
            )
        return memory, offset, data

    def look(self) -> None:
        """Keep a picture that lies in any."""
        for resource in self._blobs:
            self._look(resource)

    def _look(self, resource: int) -> None:
        """Keep a picture that lies in a resource, unless there is a better one."""
        if not self._options.picture:
            return
        for place in self.pictures.places(self._memories[resource]):
            is_copy = self.pictures.is_copied_to(place)
            found = self._blobs[resource].picture(place)
            if found is not None and (is_copy or not self._has_copy):
                then = self._blobs[resource].picture_then(place)
                self._outcome.picture = found
                self._outcome.picture_error = error(found, then) if then is not None else None
                self._has_copy = is_copy
                return

    def verify(self, places: Places) -> None:
        """Compare all, as they are in the end, with what they were."""
        for resource in self._blobs:
            self._verify(resource, places)

    def _verify(self, resource: int, places: Places) -> None:
        if not self._options.verify:
            return
        memory = self._blobs[resource]
        left = places.left(self._memories[resource], memory.size)
        same, others, unknown = memory.differing(left)
        self._outcome.pages_unknown += unknown
        self._outcome.pages_same += same
        self._outcome.pages_other += len(others)
        for start in others:
            self._outcome.differ(f"resource {resource}: the page at {start} is another")
