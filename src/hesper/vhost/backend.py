"""A vhost-user back-end: one connection of a front-end (the VMM), and the device behind it.

Source: QEMU's documentation, "Vhost-user Protocol".  Measured with QEMU 11.1 are the order of
messages and what this file says about QEMU.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.vhost.channel import BackendChannel
from hesper.vhost.guest_memory import GuestMemory, GuestMemoryError
from hesper.vhost.stream import Message, MessageStream
from hesper.vhost.virtqueue import (
    F_EVENT_IDX,
    F_INDIRECT_DESC,
    F_VERSION_1,
    QueueError,
    VirtQueue,
)
from hesper.vhost.wire import (
    CONFIG_HEADER,
    F_PROTOCOL_FEATURES,
    MAX_SHMEM_REGIONS,
    MEMORY_HEADER,
    MEMORY_REGION,
    SHMEM_CONFIG,
    U64,
    VRING_ADDR,
    VRING_INDEX_MASK,
    VRING_NO_FD,
    VRING_STATE,
    Flag,
    MemoryRegionEntry,
    ProtocolFeature,
    Request,
    VringAddresses,
)

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop
    from hesper.vhost.device import Device

_log = get_logger(__name__)

PROTOCOL_FEATURES = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.CONFIG
    | ProtocolFeature.BACKEND_SEND_FD
)
RING_FEATURES = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX


class FrontendError(Exception):
    """The front-end sent what the protocol does not allow; the connection ends."""


class Session:
    """One connection.  Life: made, `serve`s messages as they come, `close`d once."""

    def __init__(
        self, sock: socket.socket, device: Device, loop: EventLoop, closed: Callable[[], None]
    ) -> None:
        """Serve `sock` on `loop`; `closed` is called when the connection is over."""
        self.channel: BackendChannel | None = None
        self.memory = GuestMemory()
        self.queues = [VirtQueue(index) for index in range(device.queue_count)]
        self._stream = MessageStream(sock)
        self._device = device
        self._loop = loop
        self._closed = closed
        self._open = True
        self._used = False
        """Whether the device may hold something of a driver."""
        self._config_read = False
        """Whether the config space was read since the queues stopped."""
        self._stopped: dict[int, tuple[int, VringAddresses | None]] = {}
        """Next index and place of the queues that were stopped."""
        self._features = RING_FEATURES | F_PROTOCOL_FEATURES | device.features
        self._protocol_features = PROTOCOL_FEATURES
        if device.shared_memory:
            self._protocol_features |= ProtocolFeature.SHMEM
        self._handlers: dict[int, Callable[[Message], bytes | None]] = {
            Request.GET_FEATURES: lambda _: U64.pack(self._features),
            Request.SET_FEATURES: self._set_features,
            Request.SET_OWNER: self._nothing,
            Request.RESET_OWNER: self._nothing,
            Request.GET_PROTOCOL_FEATURES: lambda _: U64.pack(self._protocol_features),
            Request.SET_PROTOCOL_FEATURES: self._set_protocol_features,
            Request.GET_QUEUE_NUM: lambda _: U64.pack(len(self.queues)),
            Request.SET_BACKEND_REQ_FD: self._set_backend_channel,
            Request.SET_MEM_TABLE: self._set_memory,
            Request.SET_VRING_NUM: self._set_queue_size,
            Request.SET_VRING_ADDR: self._set_queue_addresses,
            Request.SET_VRING_BASE: self._set_queue_base,
            Request.GET_VRING_BASE: self._stop_queue,
            Request.SET_VRING_KICK: self._set_kick,
            Request.SET_VRING_CALL: self._set_call,
            Request.SET_VRING_ERR: self._set_error,
            Request.SET_VRING_ENABLE: self._enable_queue,
            Request.GET_CONFIG: self._get_config,
            Request.SET_CONFIG: self._set_config,
            Request.GET_SHMEM_CONFIG: self._get_shmem_config,
        }
        loop.add_reader(self._stream.fileno(), self.serve)
        loop.after_each(self._notify)
        device.connected(self)

    def serve(self) -> None:
        """Handle the messages that have come."""
        try:
            while self._open and (message := self._stream.receive()) is not None:
                try:
                    self._handle(message)
                finally:
                    message.close()
        except ConnectionError as error:
            _log.info("front-end gone", reason=str(error))
            self.close()
        except (FrontendError, OSError) as error:
            _log.error("vhost-user connection ended", reason=str(error))
            self.close()

    def close(self) -> None:
        """End the connection and release what it brought."""
        if not self._open:
            return
        self._open = False
        self._loop.remove(self._stream.fileno())
        self._loop.remove_after_each(self._notify)
        for queue in self.queues:
            self._set_kick_fd(queue, -1)
            queue.reset()
            queue.unmap()
            for fd in (queue.call_fd, queue.error_fd):
                _close(fd)
        # The guest's memory must not wait for the garbage collector.
        self.memory = GuestMemory()
        self._device.disconnected()
        if self.channel is not None:
            self.channel.close()
        self._stream.close()
        self._closed()

    def _notify(self) -> None:
        for queue in self.queues:
            queue.notify()

    def _handle(self, message: Message) -> None:
        handler = self._handlers.get(message.request)
        if handler is None:
            raise FrontendError(f"request {message.request} is not supported")
        answer = handler(message)
        if answer is not None:
            self._stream.send(message.request, Flag.REPLY, answer)
        elif message.flags & Flag.NEED_REPLY:
            self._stream.send(message.request, Flag.REPLY, U64.pack(0))

    def _nothing(self, message: Message) -> None:
        """Take a message that needs nothing done."""

    # Features, config space, shared memory.

    def _set_features(self, message: Message) -> None:
        (features,) = _unpack(U64, message)
        if features & ~self._features:
            raise FrontendError(f"features {features & ~self._features:#x} were not offered")
        for queue in self.queues:
            queue.event_idx = bool(features & F_EVENT_IDX)
        self._device.negotiated(features)

    def _set_protocol_features(self, message: Message) -> None:
        (features,) = _unpack(U64, message)
        missing = (self._protocol_features & ~ProtocolFeature.REPLY_ACK) & ~features
        if missing:
            # Without them the device would come up and do nothing that anybody could see.
            raise FrontendError(
                f"the VMM lacks {ProtocolFeature(missing)!r}; QEMU 11.1 or later is needed, and"
                " config_size= on the device"
            )

    def _set_backend_channel(self, message: Message) -> None:
        fd = message.take_fd()
        if fd < 0:
            raise FrontendError("SET_BACKEND_REQ_FD came without a descriptor")
        if self.channel is not None:
            self.channel.close()
        self.channel = BackendChannel(socket.socket(fileno=fd), self._loop)
        if any(queue.running for queue in self.queues):
            self.channel.release()

    def _get_config(self, message: Message) -> bytes:
        offset, size, flags = _unpack(CONFIG_HEADER, message, more=True)
        config = self._device.read_config()
        if offset + size > len(config):
            _log.error(
                "config space is shorter than the VMM reads",
                asked=offset + size,
                size=len(config),
                remedy=f"start the device with config_size={len(config)}",
            )
            return b""
        self._config_read = True
        return CONFIG_HEADER.pack(offset, size, flags) + config[offset : offset + size]

    def _set_config(self, message: Message) -> None:
        offset, size, _ = _unpack(CONFIG_HEADER, message, more=True)
        data = message.payload[CONFIG_HEADER.size :]
        if len(data) < size:
            raise FrontendError(f"SET_CONFIG of {size} bytes brought {len(data)}")
        self._device.write_config(offset, data[:size])

    def _get_shmem_config(self, _message: Message) -> bytes:
        sizes = [self._device.shared_memory.get(index, 0) for index in range(MAX_SHMEM_REGIONS)]
        return SHMEM_CONFIG.pack(len(self._device.shared_memory), 0, *sizes)

    # Memory and queues.

    def _set_memory(self, message: Message) -> None:
        count, _ = _unpack(MEMORY_HEADER, message, more=True)
        if len(message.payload) < MEMORY_HEADER.size + count * MEMORY_REGION.size:
            raise FrontendError(f"SET_MEM_TABLE of {count} regions is too short")
        entries = [
            MemoryRegionEntry(
                *MEMORY_REGION.unpack_from(
                    message.payload, MEMORY_HEADER.size + i * MEMORY_REGION.size
                )
            )
            for i in range(count)
        ]
        if len(entries) != len(message.fds):
            raise FrontendError(f"{count} regions came with {len(message.fds)} descriptors")
        # The VMM also tells of what the device has mapped.  Holding on to that would keep it in
        # memory after the guest has freed it: QEMU stops telling when there is too much.
        ours = [self._device.is_mapped(fd) for fd in message.fds]
        regions = [
            (entry, fd)
            for entry, fd, own in zip(entries, message.fds, ours, strict=True)
            if not own
        ]
        try:
            self.memory = GuestMemory.from_table(regions, self.memory)
            for queue in self.queues:
                if queue.running:
                    queue.map_rings(self.memory)
        except (GuestMemoryError, QueueError) as error:
            raise FrontendError(f"SET_MEM_TABLE: {error}") from error

    def _queue(self, index: int) -> VirtQueue:
        if index >= len(self.queues):
            raise FrontendError(f"queue {index}: the device has {len(self.queues)}")
        return self.queues[index]

    def _set_queue_size(self, message: Message) -> None:
        index, size = _unpack(VRING_STATE, message)
        try:
            self._queue(index).set_size(size)
        except QueueError as error:
            raise FrontendError(str(error)) from error

    def _set_queue_addresses(self, message: Message) -> None:
        index, _, descriptors, used, available, _ = _unpack(VRING_ADDR, message)
        self._queue(index).addresses = VringAddresses(descriptors, used, available)

    def _set_queue_base(self, message: Message) -> None:
        index, base = _unpack(VRING_STATE, message)
        self._queue(index).next_available = base & 0xFFFF

    def _stop_queue(self, message: Message) -> bytes:
        if self.channel is not None:
            self.channel.hold()
        index, _ = _unpack(VRING_STATE, message)
        queue = self._queue(index)
        base = queue.stop()
        self._set_kick_fd(queue, -1)
        self._stopped[index] = (base, queue.addresses)
        # Whoever starts it again says where it is.
        queue.addresses = None
        self._config_read = False
        return VRING_STATE.pack(index, base)

    def _set_kick(self, message: Message) -> None:
        queue, fd = self._queue_fd(message)
        if fd < 0:
            raise FrontendError("a queue without a kick descriptor would have to be polled")
        self._set_kick_fd(queue, fd)

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

    def _set_error(self, message: Message) -> None:
        queue, fd = self._queue_fd(message)
        _close(queue.error_fd)
        queue.error_fd = fd

    def _queue_fd(self, message: Message) -> tuple[VirtQueue, int]:
        (value,) = _unpack(U64, message)
        queue = self._queue(value & VRING_INDEX_MASK)
        return queue, -1 if value & VRING_NO_FD else message.take_fd()

    def _enable_queue(self, message: Message) -> None:
        index, enable = _unpack(VRING_STATE, message)
        queue = self._queue(index)
        if not enable:
            # QEMU stops the queue right after; a chain popped until then would be lost to it.
            if self.channel is not None:
                self.channel.hold()
            return
        if queue.running or queue.addresses is None:
            # QEMU enables all queues; a driver need not have set up all: firmware has no cursor.
            return
        self._reset_unless_resumed()
        try:
            queue.start(self.memory)
        except QueueError as error:
            raise FrontendError(str(error)) from error
        self._used = True
        if self.channel is not None:
            self.channel.release()
        # What the driver made available before its kick reached us.
        self._drain(queue)

    def _reset_unless_resumed(self) -> None:
        """Tell a VM that was paused from a driver that starts over, when the first queue starts.

        vhost-user stops the queues in both cases.  A paused VM goes on at the same index of the
        same rings; a driver that starts over begins at 0, and reads the config space first.
        """
        if not self._used or any(queue.running for queue in self.queues):
            return
        stopped, self._stopped = self._stopped, {}
        now = {
            queue.index: (queue.next_available, queue.addresses)
            for queue in self.queues
            if queue.addresses is not None
        }
        started = any(base for base, _ in now.values())
        if now == stopped and (started or not self._config_read):
            return
        _log.info("driver starts over")
        for queue in self.queues:
            queue.reset()
        self._device.reset()
        if self.channel is not None:
            self.channel.forget()

    def _kicked(self, queue: VirtQueue) -> None:
        # An eventfd gives eight bytes, a pipe what has gathered.
        with contextlib.suppress(BlockingIOError):  # the front-end has taken it back
            os.read(queue.kick_fd, 4096)
        self._drain(queue)

    def _drain(self, queue: VirtQueue) -> None:
        if not queue.running or queue.broken:
            return
        try:
            if self._device.available(queue):
                self._loop.call(lambda: self._drain(queue))
        except QueueError as error:
            _log.error("queue is broken until the driver starts over", reason=str(error))
            queue.fail()


def _unpack(struct: Struct, message: Message, *, more: bool = False) -> tuple[int, ...]:
    """Unpack the payload, or its head.  Raises `FrontendError` when its size is wrong."""
    size = struct.size
    if len(message.payload) < size or (len(message.payload) > size and not more):
        raise FrontendError(
            f"request {message.request}: payload of {len(message.payload)} bytes, not {size}"
        )
    return struct.unpack_from(message.payload)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
