"""A vhost-user back-end: one connection of a front-end (the VMM), and the device behind it.

Source: QEMU's documentation, "Vhost-user Protocol".  Measured with QEMU 11.1 are the order of
messages and what this file says about QEMU.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.vhost.channel import Answered, BackendChannel
from hesper.vhost.guest_memory import GuestMemory, GuestMemoryError
from hesper.vhost.queue_set import QueueEvents, QueueSet
from hesper.vhost.shared_memory import SharedMemoryRegions
from hesper.vhost.stream import FrontendError, Message, MessageStream
from hesper.vhost.virtqueue import (
    F_EVENT_IDX,
    F_INDIRECT_DESC,
    F_RING_RESET,
    F_VERSION_1,
    QueueError,
)
from hesper.vhost.wire import (
    CONFIG_HEADER,
    F_PROTOCOL_FEATURES,
    MEMORY_HEADER,
    MEMORY_REGION,
    U64,
    Flag,
    MemoryRegionEntry,
    ProtocolFeature,
    Request,
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
MESSAGES_A_TURN = 32
"""Most messages that are handled before others have a turn."""
START_SECONDS = 0.5
"""After the features, for the memory: QEMU sends both in one go, unless it fails in between."""
RING_FEATURES = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX


class Backend:
    """One connection.  Life: made, `serve`s messages as they come, `close`d once.

    For the device it is the `Vmm`.  For the loop's thread.
    """

    def __init__(
        self, sock: socket.socket, device: Device, loop: EventLoop, closed: Callable[[], None]
    ) -> None:
        """Serve `sock` on `loop`; `closed` is called when the connection is over."""
        self.memory = GuestMemory()
        """See `Vmm`."""
        self._stream = MessageStream(sock)
        self._device = device
        self._loop = loop
        self._closed = closed
        self._open = True
        self._channel: BackendChannel | None = None
        self._regions = SharedMemoryRegions(device.shared_memory, lambda: self._channel)
        self._queues = QueueSet(
            device.queue_count,
            loop,
            QueueEvents(
                request=device.handle,
                stopping=self._suspend_channel,
                running=self._resume_channel,
                starved=device.starved,
                restarted=self._reset,
                interrupt=self.config_changed,
            ),
        )
        self._starts = 0
        """How often the front-end has begun to start the device, or has got on with it."""
        self._features = RING_FEATURES | F_PROTOCOL_FEATURES | device.features
        self._protocol_features = PROTOCOL_FEATURES
        if device.shared_memory:
            self._protocol_features |= ProtocolFeature.SHMEM
        self._handlers: dict[int, Callable[[Message], bytes | None]] = {
            **self._queues.handlers,
            Request.GET_FEATURES: lambda _: U64.pack(self._features),
            Request.SET_FEATURES: self._set_features,
            Request.SET_OWNER: self._nothing,
            Request.RESET_OWNER: self._nothing,
            Request.GET_PROTOCOL_FEATURES: lambda _: U64.pack(self._protocol_features),
            Request.SET_PROTOCOL_FEATURES: self._set_protocol_features,
            Request.GET_QUEUE_NUM: lambda _: U64.pack(len(self._queues)),
            Request.SET_BACKEND_REQ_FD: self._set_backend_channel,
            Request.SET_MEM_TABLE: self._set_memory,
            Request.GET_CONFIG: self._get_config,
            Request.SET_CONFIG: self._set_config,
            Request.GPU_SET_SOCKET: self._set_display,
            Request.GET_SHMEM_CONFIG: lambda _: self._regions.config,
        }
        loop.add_reader(self._stream.fileno(), self.serve)
        device.connected(self)

    # For the device.

    def queue_addresses(self) -> list[int]:
        """See `Vmm`."""
        return self._queues.guest_addresses()

    def map(self, region: int, fd: int, offset: int, length: int, answered: Answered) -> None:
        """See `Vmm`."""
        self._regions.map(region, fd, offset, length, answered)

    def unmap(self, region: int, offset: int, length: int, answered: Answered) -> None:
        """See `Vmm`."""
        self._regions.unmap(region, offset, length, answered)

    def config_changed(self) -> None:
        """See `Vmm`."""
        if self._channel is not None:
            self._channel.config_changed()

    # Messages.

    def serve(self) -> None:
        """Handle the messages that have come."""
        try:
            for _ in range(MESSAGES_A_TURN):
                message = self._stream.receive() if self._open else None
                if message is None:
                    return
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
        self._queues.close()
        # The guest's memory must not wait for the garbage collector.
        self.memory = GuestMemory()
        self._device.disconnected()
        if self._channel is not None:
            self._channel.close()
        self._stream.close()
        self._closed()

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

    # Features, config space.

    def _set_features(self, message: Message) -> None:
        (features,) = message.unpack(U64)
        if extra := features & ~self._features:
            remedy = "; QEMU's device needs queue_reset=off" if extra & F_RING_RESET else ""
            raise FrontendError(f"features {extra:#x} were not offered{remedy}")
        self._queues.starting()
        self._queues.set_event_idx(bool(features & F_EVENT_IDX))
        self._device.negotiated(features)
        if self._queues.paused:
            self._starts += 1
            start = self._starts
            self._loop.call_after(START_SECONDS, lambda: self._look_after(start))

    def _look_after(self, start: int) -> None:
        """Go on without the front-end if nothing has come since it began to start the device.

        QEMU 11.1 fails to where more is mapped than a memory table holds, and lets the guest run
        with everything still mapped.  As it has failed, it takes requests; those for a change of
        the config space interrupt the guest for its queues as well.
        """
        if start != self._starts or not self._open or not self._queues.paused:
            return
        _log.warning(
            "QEMU cannot start the GPU again after a pause: Hesper goes on without",
            mapped=len(self._regions),
            costs="it looks for requests a thousand times a second until the machine is reset",
        )
        try:
            self._queues.go_on_alone()
        except QueueError as error:
            _log.error("the GPU stands still", reason=str(error), remedy="reset the machine")

    def _set_protocol_features(self, message: Message) -> None:
        (features,) = message.unpack(U64)
        missing = (self._protocol_features & ~ProtocolFeature.REPLY_ACK) & ~features
        if missing:
            # Without them the device would come up and do nothing that anybody could see.
            raise FrontendError(
                f"the VMM lacks {ProtocolFeature(missing)!r}; QEMU 11.1 or later is needed, and"
                " config_size= on the device"
            )

    def _get_config(self, message: Message) -> bytes:
        offset, size, flags = message.unpack(CONFIG_HEADER, more=True)
        config = self._device.read_config()
        if offset + size > len(config):
            _log.error(
                "config space is shorter than the VMM reads",
                asked=offset + size,
                size=len(config),
                remedy=f"start the device with config_size={len(config)}",
            )
            return b""
        self._queues.config_read()
        return CONFIG_HEADER.pack(offset, size, flags) + config[offset : offset + size]

    def _set_config(self, message: Message) -> None:
        offset, size, _ = message.unpack(CONFIG_HEADER, more=True)
        data = message.payload[CONFIG_HEADER.size :]
        if len(data) < size:
            raise FrontendError(f"SET_CONFIG of {size} bytes brought {len(data)}")
        self._device.write_config(offset, data[:size])

    # Memory.

    def _set_memory(self, message: Message) -> None:
        self._starts += 1
        count, _ = message.unpack(MEMORY_HEADER, more=True)
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
        regions = [
            (entry, fd)
            for entry, fd in zip(entries, message.fds, strict=True)
            if not self._regions.is_mapped(entry, fd)
        ]
        if len(self._regions) and len(regions) == len(entries):
            # The guest has put the device to sleep, and its kicks lead nowhere meanwhile.
            self._queues.look_until_kicked()
        try:
            self.memory = GuestMemory.from_table(regions, self.memory)
            self._queues.set_memory(self.memory)
        except (GuestMemoryError, QueueError) as error:
            raise FrontendError(f"SET_MEM_TABLE: {error}") from error

    # The channel to the VMM.

    def _set_backend_channel(self, message: Message) -> None:
        try:
            sock = message.take_socket()
        except ValueError as error:
            raise FrontendError(f"SET_BACKEND_REQ_FD: {error}") from error
        if self._channel is not None:
            self._channel.close()
        self._channel = BackendChannel(sock, self._loop)
        if self._queues.running:
            self._channel.resume()

    def _set_display(self, message: Message) -> bytes | None:
        """Without its display the guest has all else: it is told of, and no reason to end."""
        try:
            self._device.show(message.take_socket())
        except (ValueError, OSError) as error:
            _log.error("the VMM's display cannot be had", reason=f"GPU_SET_SOCKET: {error}")
            return U64.pack(1) if message.flags & Flag.NEED_REPLY else None
        return None

    def _suspend_channel(self) -> None:
        if self._channel is not None:
            self._channel.suspend()

    def _resume_channel(self) -> None:
        if self._channel is not None:
            self._channel.resume()

    def _reset(self) -> None:
        """A driver starts over."""
        self._regions.reset()
        self._device.reset()
        if self._channel is not None:
            self._channel.discard()
