"""Split virtqueues, from the device's side.

Source: Virtual I/O Device (VIRTIO) Version 1.3, section 2.7 "Split Virtqueues".

The driver is hostile: every index, address and length is read once, checked, then used.  A queue
whose driver breaks the rules is *broken*: it is left alone until it is set up anew.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING

from hesper.vhost.guest_memory import GuestMemory, GuestMemoryError

if TYPE_CHECKING:
    from hesper.vhost.wire import VringAddresses

F_INDIRECT_DESC = 1 << 28
F_EVENT_IDX = 1 << 29
F_VERSION_1 = 1 << 32
F_RING_RESET = 1 << 40
"""Not ours: QEMU may offer it to drivers all the same."""

MAX_QUEUE_SIZE = 32768
MAX_INDIRECT = 65536
"""Most descriptors of an indirect table; drivers exceed the queue size there, a page each."""
MAX_READABLE = (4 << 20) + 4096
"""Most bytes of one request: the largest that a device of ours needs is the list of the pages of a
gigabyte."""
MAX_DESCRIPTORS = MAX_READABLE // 4096 + 64
"""Most descriptors of a chain that are looked at: such a request in single pages, and its answer.

Each takes a microsecond of a loop that others wait for.
"""
MAX_WRITABLE = 256
"""Most pieces of room for an answer that are kept; answers are short."""

_NO_BYTES = memoryview(b"")
_DESCRIPTOR = Struct("<QIHH")
_NEXT = 1
_WRITE = 2
_INDIRECT = 4
_NO_INTERRUPT = 1
_WRAP = 0xFFFF
_KICK = (1).to_bytes(8, "little")


class QueueError(Exception):
    """The driver broke the rules of the queue."""


class MemoryBarrier:
    """A full memory barrier between threads and processes, from Python.

    Python has none.  Releasing a lock is a release operation on memory, taking it an acquire; a
    release followed by an acquire orders all accesses before with all accesses after, on x86-64
    (both are locked instructions) and on AArch64 (release and acquire are ordered with each other).
    """

    def __init__(self) -> None:
        """Make one; for use by one thread."""
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        """Order what was read and written before with what will be."""
        self._lock.release()
        self._lock.acquire()


class Chain:
    """A descriptor chain: what the driver wants read, and where the answer goes."""

    __slots__ = ("_queue", "cut", "epoch", "head", "readable", "writable")

    def __init__(
        self,
        queue: VirtQueue,
        head: int,
        readable: Sequence[memoryview],
        writable: Sequence[memoryview],
        *,
        cut: bool = False,
    ) -> None:
        """`head`: index of the first descriptor."""
        self._queue = queue
        self.head = head
        self.epoch = queue.epoch
        """Which life of the queue it came in."""
        self.cut = cut
        """Whether it is longer than any request has to be: only its beginning is there."""
        self.readable = readable
        self.writable = writable

    def read(self) -> bytes:
        """Copy the request out of guest memory.  To be called once."""
        readable, self.readable = self.readable, ()
        return b"".join(readable)

    def respond(self, data: bytes) -> None:
        """Write as much of `data` as there is room for, and give the chain back to the driver."""
        self._queue.push(self, data)


def _fill(pieces: Sequence[memoryview], data: bytes) -> int:
    """Copy as much of `data` as there is room for; returns how many bytes."""
    done = 0
    for piece in pieces:
        part = data[done : done + len(piece)]
        piece[: len(part)] = part
        done += len(part)
        if done == len(data):
            break
    return done


class VirtQueue:
    """One queue: set up by the front-end's messages, then `pop`, `push` and `notify`.

    Life: configured, `start`ed, `stop`ped, and so on; `reset` when the driver has started over.
    Chains that are in flight when a queue stops are answered when it goes on (the VM was paused),
    and forgotten by a `reset`.  For one thread.
    """

    def __init__(self, index: int) -> None:
        """A queue that is not set up."""
        self.index = index
        self.size = 0
        self.addresses: VringAddresses | None = None
        self.kick_fd = -1
        self.call_fd = -1
        self.error_fd = -1
        self.event_idx = False
        self.running = False
        self.unannounced = False
        """Whether nobody would say if the driver went away: what is no request then breaks it."""
        self.broken = ""
        """What the driver did wrong; empty while it behaves."""
        self.epoch = 0
        self.next_available = 0
        self._next_used = 0
        self._notified_used = 0
        self._say_again = False
        """Whether an interrupt may have been lost: a driver that waits for it asks for no other."""
        self._in_flight = 0
        self._late: list[tuple[Chain, bytes]] = []
        """Answers that came while the queue was stopped."""
        self._barrier = MemoryBarrier()
        self.unmap()

    @property
    def full(self) -> bool:
        """Whether as many chains wait for an answer as there are descriptors: no more can come.

        A driver that uses indirect tables, as Linux does, has one descriptor in each chain.
        """
        return self.running and not self.broken and self._in_flight == self.size

    @property
    def answered(self) -> int:
        """How many chains were given back, modulo 65536."""
        return self._next_used

    def set_size(self, size: int) -> None:
        """Set the number of descriptors.  Raises `QueueError`."""
        if not 0 < size <= MAX_QUEUE_SIZE or size & (size - 1):
            raise QueueError(f"queue {self.index}: size {size} is not a power of two up to 32768")
        self.size = size

    def start(self, memory: GuestMemory) -> None:
        """Go on from `next_available`.  Raises `QueueError` when it is not set up."""
        self.map_rings(memory)
        self.running = True
        self._next_used = self._notified_used = self._used[1]
        late, self._late = self._late, []
        for chain, data in late:
            self.push(chain, data)

    def map_rings(self, memory: GuestMemory) -> None:
        """Find the rings in `memory`.  Raises `QueueError` when they are not there."""
        if not self.size or self.addresses is None:
            raise QueueError(f"queue {self.index} is started before it is set up")
        where, size = self.addresses, self.size
        if where.descriptors % 16 or where.available % 2 or where.used % 4:
            raise QueueError(f"queue {self.index}: rings are not aligned: {where}")
        try:
            descriptors = memory.user_slice(where.descriptors, 16 * size)
            available = memory.user_slice(where.available, 6 + 2 * size)
            used = memory.user_slice(where.used, 6 + 8 * size)
        except GuestMemoryError as error:
            raise QueueError(f"queue {self.index}: {error}") from error
        self._memory = memory
        self._descriptors = descriptors
        # Casts make every access of an index one 16-bit load or store, never two bytes apart.
        self._available = available.cast("H")
        self._used = used.cast("H")
        self._used_elements = used[4 : 4 + 8 * size].cast("I")

    def unmap(self) -> None:
        """Let go of guest memory."""
        self._memory = GuestMemory()
        self._descriptors = memoryview(b"")
        self._available = memoryview(b"").cast("H")
        self._used = memoryview(b"").cast("H")
        self._used_elements = memoryview(b"").cast("I")

    def stop(self) -> int:
        """Leave the rings alone from now on; returns the next index in the available ring."""
        self.say_again()
        self.running = False
        return self.next_available

    def say_again(self) -> None:
        """Interrupt the driver once more: what was said until now may not have reached it."""
        self._say_again = self._say_again or self.running

    def reset(self) -> None:
        """Forget what is in flight: the driver has started over."""
        self.running = False
        self.broken = ""
        self.epoch += 1
        self._say_again = False
        self._in_flight = 0
        self._late = []

    def pop(self) -> Chain | None:
        """Take the next chain; None when there is none.

        Raises `QueueError`; the queue is broken by then.
        """
        if not self.running or self.broken:
            return None
        try:
            return self._pop()
        except (QueueError, GuestMemoryError) as error:
            self.broken = str(error)
            raise QueueError(f"queue {self.index}: {error}") from error

    def _pop(self) -> Chain | None:
        waiting = (self._available[1] - self.next_available) & _WRAP
        if not waiting:
            if not self.event_idx:
                return None
            self._used[2 + 4 * self.size] = self.next_available
            self._barrier()
            waiting = (self._available[1] - self.next_available) & _WRAP
            if not waiting:
                return None
        if waiting > self.size:
            raise QueueError(f"available index is {waiting} ahead, {self.size} is the most")
        if self._in_flight == self.size:
            raise QueueError("more chains are available than there are descriptors")
        self._barrier()
        head = self._available[2 + self.next_available % self.size]
        if self.unannounced and not self._is_request(head):
            raise QueueError("the driver has gone")
        chain = self._walk(head)
        self.next_available = (self.next_available + 1) & _WRAP
        self._in_flight += 1
        return chain

    def _is_request(self, head: int) -> bool:
        """Whether it looks like one, and not like memory that is used for other things by now."""
        if head >= self.size or self._available[0] > _NO_INTERRUPT:
            return False
        address, length, flags, _ = _DESCRIPTOR.unpack_from(self._descriptors, 16 * head)
        # Of one descriptor that is read: Linux's virtio-gpu asks for cursors without an answer.
        return bool(address and length and flags in {0, _INDIRECT, _NEXT})

    def _walk(self, head: int) -> Chain:
        """Follow the chain that begins at descriptor `head`."""
        table: memoryview | bytes = self._descriptors
        count = self.size
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        index, steps, total = head, 0, 0
        cut = False
        begin, region, end = 0, _NO_BYTES, 0
        while True:
            if index >= count:
                raise QueueError(f"descriptor {index} of {count}")
            steps += 1
            if steps > count:
                raise QueueError(f"chain of descriptor {head} has a loop")
            if steps > MAX_DESCRIPTORS:
                return Chain(self, head, readable[:1], writable, cut=True)
            address, length, flags, following = _DESCRIPTOR.unpack_from(table, 16 * index)
            if flags & _INDIRECT:
                if table is not self._descriptors or flags & _NEXT:
                    raise QueueError(f"descriptor {index}: indirect where it may not be")
                count = length // 16
                if length % 16 or not 0 < count <= MAX_INDIRECT:
                    raise QueueError(f"descriptor {index}: indirect table of {length} bytes")
                if count > MAX_DESCRIPTORS:
                    return self._long_chain(head, address, count)
                table = b"".join(self._memory.slices(address, length))
                index, steps = 0, 0
                continue
            if flags & _WRITE:
                pieces = writable
            else:
                if writable:
                    raise QueueError(f"descriptor {index}: to be read, after one to be written")
                total += length
                cut = cut or total > MAX_READABLE
                pieces = readable
                if cut:
                    length = 0 if readable else min(length, 4096)
            if length and len(writable) < MAX_WRITABLE:
                # Most pieces of a chain lie in one region.
                if not begin <= address < end:
                    begin, region = self._memory.region_at(address)
                    end = begin + len(region)
                if address + length <= end:
                    pieces.append(region[address - begin : address - begin + length])
                else:
                    pieces += self._memory.slices(address, length)
            if not flags & _NEXT:
                return Chain(self, head, readable[:1] if cut else readable, writable, cut=cut)
            index = following

    def _long_chain(self, head: int, table: int, count: int) -> Chain:
        """Look at both ends of a chain in a table that no request needs: enough to refuse it."""
        pieces: list[list[memoryview]] = [[], []]
        for index in (0, count - 1):
            entry = b"".join(self._memory.slices(table + 16 * index, 16))
            address, length, flags, _ = _DESCRIPTOR.unpack(entry)
            if flags & _INDIRECT:
                raise QueueError(f"descriptor {index}: indirect where it may not be")
            if length:
                slices = self._memory.slices(address, min(length, 4096))
                pieces[bool(flags & _WRITE)] = slices
        return Chain(self, head, *pieces, cut=True)

    def push(self, chain: Chain, data: bytes) -> None:
        """Give `chain` back with an answer; `notify` tells the driver.

        A chain from before a `reset` is dropped: its memory may be in use for other things by now.
        While the queue is stopped, it waits, and guest memory is left alone.
        """
        if chain.epoch != self.epoch or self.broken:
            return
        if not self.running:
            self._late.append((chain, data))
            return
        written = _fill(chain.writable, data)
        self._in_flight -= 1
        slot = 2 * (self._next_used % self.size)
        self._used_elements[slot] = chain.head
        self._used_elements[slot + 1] = written
        self._barrier()
        self._next_used = (self._next_used + 1) & _WRAP
        self._used[1] = self._next_used

    def notify(self) -> bool:
        """Interrupt the driver if something was pushed since the last time and it wants to know.

        And whatever it wants where that was to be said again.  Returns whether it was to be.
        """
        if not self.running or (self._next_used == self._notified_used and not self._say_again):
            return False
        self._barrier()
        fresh = (self._next_used - self._notified_used) & _WRAP
        self._notified_used = self._next_used
        if self._say_again:
            self._say_again = False
        elif self.event_idx:
            wanted = self._available[2 + self.size]
            if (self._next_used - wanted - 1) & _WRAP >= fresh:
                return False
        elif self._available[0] & _NO_INTERRUPT:
            return False
        self._signal(self.call_fd)
        return True

    def fail(self) -> None:
        """Tell the front-end that the queue is broken, as far as vhost-user can."""
        self._signal(self.error_fd)

    @staticmethod
    def _signal(fd: int) -> None:
        """Write to a wake-up; a full one is as good as written."""
        if fd >= 0:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(fd, _KICK)
