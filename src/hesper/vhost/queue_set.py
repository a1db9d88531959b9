"""A device's queues as the front-end sets them up, starts and stops them.

vhost-user stops the queues of a paused VM and of a driver that goes away alike; what tells the two
apart is here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.vhost.guest_memory import GuestMemory, GuestMemoryError
from hesper.vhost.stream import FrontendError, Message
from hesper.vhost.virtqueue import Chain, QueueError, VirtQueue
from hesper.vhost.wire import (
    U64,
    VRING_ADDR,
    VRING_INDEX_MASK,
    VRING_NO_FD,
    VRING_STATE,
    Request,
    VringAddresses,
)

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop

_log = get_logger(__name__)

STARVED_AFTER = 3.0
"""Seconds that a queue may be full with no answer given: meanwhile nobody gets a request in."""
TURN = 0.001
"""Seconds after which a queue that has more lets others have a turn."""
LOOK_SECONDS = 0.001
"""Between two looks at queues of which no kicks come."""
UNSURE_SECONDS = 0.05
"""The same where a kick may have got lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEvents:
    """Whom the queues tell of what happens to them."""

    request: Callable[[int, Chain], None]
    """Queue and chain: the driver asks for something."""
    stopping: Callable[[], None]
    """The front-end stops them, one after the other."""
    running: Callable[[], None]
    """One has started."""
    starved: Callable[[], None]
    """One has been full for long, and nothing was answered."""
    restarted: Callable[[], None]
    """The first is about to start again, and it is a driver that starts over."""
    interrupt: Callable[[], None]
    """The driver is to look at its queues, and they have no descriptors to say it by."""


class QueueSet:
    """All queues of a device.  Life: made, used, `close`d.  For the loop's thread."""

    def __init__(self, count: int, loop: EventLoop, events: QueueEvents) -> None:
        """`count` queues that are not set up."""
        self._queues = [VirtQueue(index) for index in range(count)]
        self._loop = loop
        self._events = events
        self._memory = GuestMemory()
        self._used = False
        """Whether the device may hold something of a driver."""
        self._config_read = False
        """Whether the config space was read since the queues stopped."""
        self._watched: set[int] = set()
        """Queues that are full, to be looked at again."""
        self._again: set[int] = set()
        """Queues whose next turn is due."""
        self._stopped: dict[int, tuple[int, VringAddresses | None]] = {}
        """Next index and place of the queues that were stopped."""
        self._alone = False
        """Whether the queues run although the front-end has not started them."""
        self._unsure = False
        """Whether a kick may have got lost."""
        self._looking = False
        """Whether it will be looked for those, while the queues run."""
        self._reached: dict[int, int] = {}
        """How far queues got alone, of which the front-end does not know."""
        self.handlers: dict[int, Callable[[Message], bytes | None]] = {
            Request.SET_VRING_NUM: self._set_size,
            Request.SET_VRING_ADDR: self._set_addresses,
            Request.SET_VRING_BASE: self._set_base,
            Request.GET_VRING_BASE: self._stop,
            Request.SET_VRING_KICK: self._set_kick,
            Request.SET_VRING_CALL: self._set_call,
            Request.SET_VRING_ERR: self._set_error,
            Request.SET_VRING_ENABLE: self._enable,
        }
        """What answers the messages about queues; each raises `FrontendError`."""
        loop.after_each(self._notify)

    def __len__(self) -> int:
        """Count them."""
        return len(self._queues)

    @property
    def running(self) -> bool:
        """Whether any of them runs."""
        return any(queue.running for queue in self._queues)

    def guest_addresses(self) -> list[int]:
        """Return where the guest has the descriptor tables of the queues that are set up."""
        found = []
        for queue in self._queues:
            if queue.addresses is not None:
                # Not all of them need have been started, which is when places are checked.
                with contextlib.suppress(GuestMemoryError):
                    found.append(self._memory.guest_address(queue.addresses.descriptors))
        return found

    def set_event_idx(self, used: bool) -> None:
        """Whether the driver says by index when it wants to be told (`VIRTIO_F_EVENT_IDX`)."""
        for queue in self._queues:
            queue.event_idx = used

    def set_memory(self, memory: GuestMemory) -> None:
        """Use this memory from now on.  Raises `QueueError` when a running queue is not in it."""
        self._memory = memory
        for queue in self._queues:
            if queue.running:
                queue.map_rings(memory)

    @property
    def paused(self) -> bool:
        """Whether they were stopped, and not started since."""
        return self._used and bool(self._stopped) and not self.running

    def go_on_alone(self) -> None:
        """Go on where the queues were stopped: the front-end fails to start them.

        It passes neither kicks nor calls on, so the queues are looked at again and again, and the
        driver is interrupted otherwise.  Raises `QueueError` where they no longer are.
        """
        for index, (base, addresses) in self._stopped.items():
            if addresses is not None:
                queue = self._queues[index]
                queue.addresses = addresses
                queue.next_available = self._reached.get(index, base)
                queue.unannounced = True
                queue.start(self._memory)
        self._alone = True
        self._events.running()
        self._look()

    def _look(self) -> None:
        if self._alone:
            for queue in self._queues:
                self._drain(queue)
            self._loop.call_after(LOOK_SECONDS, self._look)

    def look_until_kicked(self) -> None:
        """Look at the queues from time to time until a kick says that kicks come through.

        A driver that has kicked for one request need not kick for the next before that was seen.
        """
        self._unsure = True
        self._look_later()

    def _look_later(self) -> None:
        if self._unsure and not self._looking:
            self._looking = True
            self._loop.call_after(UNSURE_SECONDS, self._look_if_unsure)

    def _look_if_unsure(self) -> None:
        self._looking = False
        if self.running:
            for queue in self._queues:
                self._drain(queue)
            self._look_later()

    def starting(self) -> None:
        """The front-end is about to start them: what they did alone is over."""
        if not self._alone:
            return
        self._alone = False
        self._events.stopping()
        for queue in self._queues:
            if queue.running:
                self._reached[queue.index] = queue.stop()
                queue.addresses = None
            if queue.unannounced:
                # What looked as if there was no driver need not have meant that.
                queue.unannounced, queue.broken = False, ""

    def config_read(self) -> None:
        """The driver has read the config space, as it does when it starts."""
        self._config_read = True

    def close(self) -> None:
        """Let go of what the front-end brought."""
        self._loop.remove_after_each(self._notify)
        self._memory = GuestMemory()
        for queue in self._queues:
            self._set_kick_fd(queue, -1)
            queue.reset()
            queue.unmap()
            for fd in (queue.call_fd, queue.error_fd):
                _close(fd)

    def _notify(self) -> None:
        # Each of them, whatever the others want.
        wanted = [queue.notify() for queue in self._queues]
        if self._alone and any(wanted):
            self._events.interrupt()

    def _queue(self, index: int) -> VirtQueue:
        if index >= len(self._queues):
            raise FrontendError(f"queue {index}: the device has {len(self._queues)}")
        return self._queues[index]

    # Set-up.

    def _set_size(self, message: Message) -> None:
        index, size = message.unpack(VRING_STATE)
        try:
            self._queue(index).set_size(size)
        except QueueError as error:
            raise FrontendError(str(error)) from error

    def _set_addresses(self, message: Message) -> None:
        index, _, descriptors, used, available, _ = message.unpack(VRING_ADDR)
        self._queue(index).addresses = VringAddresses(descriptors, used, available)

    def _set_base(self, message: Message) -> None:
        index, base = message.unpack(VRING_STATE)
        self._queue(index).next_available = base & 0xFFFF

    def _set_kick(self, message: Message) -> None:
        queue, fd = self._queue_fd(message)
        if fd < 0:
            raise FrontendError("a queue without a kick descriptor would have to be polled")
        self._set_kick_fd(queue, fd)
        # The one before may have been written to.
        self._drain(queue)

    def _set_kick_fd(self, queue: VirtQueue, fd: int) -> None:
        if queue.kick_fd >= 0:
            self._loop.remove(queue.kick_fd)
            os.close(queue.kick_fd)
        queue.kick_fd = fd
        if fd >= 0:
            self._loop.add_reader(fd, lambda: self._kicked(queue))

    def _set_call(self, message: Message) -> None:
        queue, fd = self._queue_fd(message)
        _close(queue.call_fd)
        queue.call_fd = fd
        # QEMU starts a queue with one that leads nowhere, or to where nobody is any more, and gives
        # the right one after that.
        queue.say_again()

    def _set_error(self, message: Message) -> None:
        queue, fd = self._queue_fd(message)
        _close(queue.error_fd)
        queue.error_fd = fd

    def _queue_fd(self, message: Message) -> tuple[VirtQueue, int]:
        (value,) = message.unpack(U64)
        queue = self._queue(value & VRING_INDEX_MASK)
        return queue, -1 if value & VRING_NO_FD else message.take_fd()

    # Starting and stopping.

    def _stop(self, message: Message) -> bytes:
        """Stop a queue; the answer is its next index."""
        self._events.stopping()
        index, _ = message.unpack(VRING_STATE)
        queue = self._queue(index)
        base = queue.stop()
        self._set_kick_fd(queue, -1)
        self._stopped[index] = (base, queue.addresses)
        self._reached.pop(index, None)
        # Whoever starts it again says where it is.
        queue.addresses = None
        self._config_read = False
        return VRING_STATE.pack(index, base)

    def _enable(self, message: Message) -> None:
        index, enable = message.unpack(VRING_STATE)
        queue = self._queue(index)
        if not enable:
            # QEMU stops the queue right after; a chain popped until then would be lost to it.
            self._events.stopping()
            return
        if queue.running:
            # It was disabled, and not stopped.
            self._events.running()
            return
        if queue.addresses is None:
            # QEMU enables all queues; a driver need not have set up all: firmware has no cursor.
            return
        self._reset_unless_resumed()
        try:
            queue.start(self._memory)
        except QueueError as error:
            raise FrontendError(str(error)) from error
        self._used = True
        self._events.running()
        # What the driver made available before its kick reached us.
        self._drain(queue)
        self._look_later()

    def _reset_unless_resumed(self) -> None:
        """Tell a VM that was paused from a driver that starts over, when the first queue starts.

        vhost-user stops the queues in both cases.  A paused VM goes on at the same index of the
        same rings; a driver that starts over begins at 0, and reads the config space first.
        """
        if not self._used or self.running:
            return
        stopped, self._stopped = self._stopped, {}
        now = {
            queue.index: (queue.next_available, queue.addresses)
            for queue in self._queues
            if queue.addresses is not None
        }
        started = any(base for base, _ in now.values())
        reached, self._reached = self._reached, {}
        if now == stopped and (started or not self._config_read):
            for index, base in reached.items():
                self._queues[index].next_available = base
            return
        _log.info("driver starts over")
        for queue in self._queues:
            queue.reset()
        self._events.restarted()

    # Requests.

    def _kicked(self, queue: VirtQueue) -> None:
        # An eventfd gives eight bytes, a pipe what has gathered.
        with contextlib.suppress(BlockingIOError):  # the front-end has taken it back
            os.read(queue.kick_fd, 4096)
        self._unsure = False
        self._drain(queue)

    def _drain(self, queue: VirtQueue) -> None:
        """Hand on what the queue has, for one turn: a driver must not keep the loop busy."""
        # One turn a round, however often the driver kicks.
        if not queue.running or queue.index in self._again:
            return
        end = time.monotonic() + TURN
        try:
            for _ in range(queue.size):
                chain = queue.pop()
                if chain is None:
                    break
                self._events.request(queue.index, chain)
                if queue.full or time.monotonic() >= end:
                    break
        except QueueError as error:
            if self._alone:
                # A reset of the machine, most likely, of which nobody tells.
                _log.info("no driver is there until one starts over", reason=str(error))
            else:
                _log.error("queue is broken until the driver starts over", reason=str(error))
                queue.fail()
            return
        if queue.full:
            self._watch(queue)
        if chain is not None:
            self._again.add(queue.index)
            self._loop.call(lambda: self._next_turn(queue))

    def _watch(self, queue: VirtQueue) -> None:
        """See whether a full queue gets on."""
        if queue.index in self._watched:
            return
        self._watched.add(queue.index)
        before = queue.epoch, queue.answered

        def look() -> None:
            self._watched.discard(queue.index)
            if not queue.full:
                return
            if (queue.epoch, queue.answered) == before:
                self._events.starved()
            self._watch(queue)

        self._loop.call_after(STARVED_AFTER, look)

    def _next_turn(self, queue: VirtQueue) -> None:
        self._again.discard(queue.index)
        self._drain(queue)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
