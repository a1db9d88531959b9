"""A front-end in Python: what QEMU and a guest's driver do, for tests without either.

It owns "guest memory" (a memory object), lays out virtqueues in it and talks vhost-user over a
socket pair.  It knows no device.  Everything waits with a bound and fails when it is reached.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import threading

from vring import INDIRECT, NEXT, PATIENCE, QUEUE_BYTES, QUEUE_SIZE, WRITE, Ring

from hesper.portable import SharedMemory
from hesper.vhost.wire import (
    CONFIG_HEADER,
    F_PROTOCOL_FEATURES,
    HEADER,
    MEMORY_HEADER,
    MEMORY_REGION,
    MMAP,
    U64,
    VRING_ADDR,
    VRING_STATE,
    BackendRequest,
    Request,
)

GUEST_BASE = 0x4000_0000
"""Guest address of the memory."""
USER_BASE = 0x7000_0000_0000
"""The front-end's own address of it, as far as the back-end is told."""


class Frontend:
    """Speaks to a back-end.  Life: made, `start`ed, used, `close`d."""

    def __init__(
        self, sock: socket.socket, *, queues: int, config_size: int, size: int = 4 << 20
    ) -> None:
        """Talk over `sock`; the guest has `size` bytes of memory."""
        self.socket = sock
        self.queue_count = queues
        self.config_size = config_size
        sock.settimeout(PATIENCE)
        self.object = SharedMemory.create(size, "guest")
        self.mapping = mmap.mmap(self.object.fd, size)
        self.memory = memoryview(self.mapping)
        self.queues = [Ring(index, index * QUEUE_BYTES, self.memory) for index in range(queues)]
        self.heap = queues * QUEUE_BYTES
        self.maps: dict[int, tuple[int, int]] = {}
        """Live maps: offset in their region to length and inode of the file."""
        self.regions: set[int] = set()
        """Regions that were ever mapped into."""
        self.mapped_fds: dict[int, int] = {}
        """Their descriptors, by offset."""
        self.config_changes = 0
        self.refuse_maps = False
        self.hold_maps = threading.Event()
        self.hold_maps.set()
        self.map_held = threading.Event()
        """Set when a map has been read and is being held."""
        self.listens = threading.Event()
        """Cleared while the main loop has other things to do than to read requests."""
        self.listens.set()
        self.called = threading.Event()
        """Set when the back-end has something to say."""
        self.answered = 0
        """Requests for maps that were answered."""
        self.unknown = 0
        """Requests that were thrown away."""
        self.crashes: list[int] = []
        """Requests that were read while the device was stopped, which QEMU does not survive."""
        self._main_loop = threading.Lock()
        self._started = False
        self._map_seen = threading.Condition()
        self._channel: socket.socket | None = None

    # vhost-user.

    def send(self, request: int, payload: bytes, fds: list[int] | None = None) -> None:
        """Send a message that has no answer."""
        data = HEADER.pack(request, 1, len(payload)) + payload
        if fds:
            socket.send_fds(self.socket, [data], fds)
        else:
            self.socket.sendall(data)

    def ask(self, request: int, payload: bytes = b"") -> bytes:
        """Send a message and return its answer."""
        self.send(request, payload)
        return self.receive_answer(request)

    def receive_answer(self, request: int) -> bytes:
        """Return the answer to a message that was sent."""
        answered, flags, size = HEADER.unpack(self._receive(self.socket, HEADER.size))
        assert (answered, flags) == (request, 5)
        return self._receive(self.socket, size)

    def acknowledged(self, request: int, payload: bytes, fds: list[int] | None = None) -> int:
        """Send a message with NEED_REPLY; returns what was answered."""
        data = HEADER.pack(request, 9, len(payload)) + payload
        socket.send_fds(self.socket, [data], fds or [])
        answered, flags, size = HEADER.unpack(self._receive(self.socket, HEADER.size))
        assert (answered, flags, size) == (request, 5, 8)
        return int.from_bytes(self._receive(self.socket, size), "little")

    def _receive(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = sock.recv(size - len(data))
            if not chunk:
                raise ConnectionError("the back-end has closed the connection")
            data += chunk
        return data

    def realize(self) -> None:
        """Do what QEMU does when it makes the device."""
        features = U64.unpack(self.ask(Request.GET_FEATURES))[0]
        assert features & F_PROTOCOL_FEATURES
        self.features = features
        self.protocol_features = U64.unpack(self.ask(Request.GET_PROTOCOL_FEATURES))[0]
        self.send(Request.SET_PROTOCOL_FEATURES, U64.pack(self.protocol_features))
        assert U64.unpack(self.ask(Request.GET_QUEUE_NUM))[0] == self.queue_count
        ours, theirs = socket.socketpair()
        self._channel = ours
        with theirs:
            self.send(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
        self._listen(ours)
        self.send(Request.SET_OWNER, b"")
        for queue in self.queues:
            index = U64.pack(queue.index)
            self.send(Request.SET_VRING_CALL, index, [queue.call.write_fd])
            self.send(Request.SET_VRING_ERR, index, [queue.error.write_fd])

    def set_memory(self, *more: tuple[int, int, int]) -> int:
        """Share the guest's memory, and `more`: guest address, size and descriptor of each.

        Returns the acknowledgement.
        """
        regions = [(GUEST_BASE, len(self.memory), self.object.fd), *more]
        payload = MEMORY_HEADER.pack(len(regions), 0)
        for address, size, _ in regions:
            payload += MEMORY_REGION.pack(address, size, USER_BASE + address - GUEST_BASE, 0)
        return self.acknowledged(Request.SET_MEM_TABLE, payload, [fd for _, _, fd in regions])

    def start(self, *, event_idx: bool = True) -> None:
        """Load the driver: negotiate, lay out the queues, enable them."""
        self.read_config()
        self.heap = self.queue_count * QUEUE_BYTES
        for queue in self.queues:
            queue.clear()
            queue.event_idx = event_idx
        features = self.features if event_idx else self.features & ~(1 << 29)
        self.send(Request.SET_FEATURES, U64.pack(features))
        assert self.set_memory() == 0
        self.start_queues([0] * len(self.queues))
        self.read_config()  # answered once the queues are: tests count what is open then

    def start_queues(self, bases: list[int]) -> None:
        """Do what QEMU does when the driver is ready, or the VM goes on."""
        for queue, base in zip(self.queues, bases, strict=True):
            index = queue.index
            self.send(Request.SET_VRING_NUM, VRING_STATE.pack(index, QUEUE_SIZE))
            self.send(Request.SET_VRING_BASE, VRING_STATE.pack(index, base))
            self.send(
                Request.SET_VRING_ADDR,
                VRING_ADDR.pack(
                    index,
                    0,
                    USER_BASE + queue.descriptors,
                    USER_BASE + queue.used_ring,
                    USER_BASE + queue.available_ring,
                    0,
                ),
            )
            self.send(Request.SET_VRING_KICK, U64.pack(index), [queue.kick.read_fd])
            self.send(Request.SET_VRING_CALL, U64.pack(index), [queue.call.write_fd])
        self._started = True
        for queue in self.queues:
            self.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(queue.index, 1))

    def stop_queues(self) -> list[int]:
        """Do what QEMU does on a reset or a pause; returns the next indices."""
        bases = []
        with self._main_loop:
            for queue in self.queues:
                self.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(queue.index, 0))
                answer = self.ask(Request.GET_VRING_BASE, VRING_STATE.pack(queue.index, 0))
                bases.append(VRING_STATE.unpack(answer)[1])
            self._started = False
        return bases

    def fail_start(self) -> None:
        """Do what QEMU does when it cannot start the device after a pause.

        From then on it takes requests, and passes on nothing of its queues.
        """
        self._started = True
        self.send(Request.SET_FEATURES, U64.pack(self.features))

    def read_config(self) -> bytes:
        """Read the config space."""
        payload = CONFIG_HEADER.pack(0, self.config_size, 0) + bytes(self.config_size)
        return self.ask(Request.GET_CONFIG, payload)[CONFIG_HEADER.size :]

    def write_config(self, data: bytes, offset: int = 0) -> None:
        """Write to the config space."""
        self.send(Request.SET_CONFIG, CONFIG_HEADER.pack(offset, len(data), 0) + data)

    def _listen(self, channel: socket.socket) -> None:
        """Begin to answer the back-end's requests."""
        threading.Thread(target=self._serve_channel, args=[channel], daemon=True).start()

    def _serve_channel(self, channel: socket.socket) -> None:
        """Answer the back-end's requests as QEMU does: one that begins is read to its end."""
        while True:
            try:
                select.select([channel], [], [])
                self._serve_request(channel)
            except (OSError, ValueError):
                return

    def _serve_request(self, channel: socket.socket) -> None:
        """Read a request that has begun, and answer it.  Raises `OSError` and `ValueError`."""
        self.called.set()
        self.listens.wait(PATIENCE)
        with self._main_loop:
            header, fds, _, _ = socket.recv_fds(channel, HEADER.size, 4)
            header += self._receive(channel, HEADER.size - len(header))
            request, flags, size = HEADER.unpack(header)
            payload = self._receive(channel, size)
            known = request in list(BackendRequest)
            if known and not self._started:
                self.crashes.append(request)
        if known and request != BackendRequest.CONFIG_CHANGE_MSG:
            self.map_held.set()
            self.hold_maps.wait(PATIENCE)
            refused = self._map(request, payload, fds)
            assert flags & 8
            channel.sendall(HEADER.pack(request, 5, 8) + U64.pack(refused))
            with self._map_seen:
                self.answered += 1
                self._map_seen.notify_all()
        else:
            with self._map_seen:
                self.unknown += not known
                self.config_changes += known
                self._map_seen.notify_all()
        for fd in fds:
            os.close(fd)

    def _map(self, request: int, payload: bytes, fds: list[int]) -> int:
        region, fd_offset, offset, length, _ = MMAP.unpack(payload)
        assert fd_offset == 0
        with self._map_seen:
            self.regions.add(region)
            try:
                if request == BackendRequest.SHMEM_UNMAP:
                    if self.maps.get(offset, (0, 0))[0] != length:
                        return 1
                    del self.maps[offset]
                    os.close(self.mapped_fds.pop(offset))
                    return 0
                overlaps = any(
                    start < offset + length and offset < start + size
                    for start, (size, _) in self.maps.items()
                )
                if self.refuse_maps or overlaps:
                    return 1
                self.maps[offset] = (length, os.fstat(fds[0]).st_ino)
                self.mapped_fds[offset] = os.dup(fds[0])
                return 0
            finally:
                self._map_seen.notify_all()

    def drop_maps(self) -> None:
        """Take all maps away, as a VMM does with a reset."""
        with self._map_seen:
            self.maps.clear()
            while self.mapped_fds:
                os.close(self.mapped_fds.popitem()[1])

    def close_channel(self) -> None:
        """Listen to the back-end no more."""
        assert self._channel is not None
        self._channel.shutdown(socket.SHUT_RDWR)

    def wait_answered(self, count: int) -> None:
        """Wait until `count` requests for maps were answered."""
        with self._map_seen:
            assert self._map_seen.wait_for(lambda: self.answered >= count, PATIENCE)

    def wait_unknown(self, count: int) -> None:
        """Wait until `count` requests were thrown away."""
        with self._map_seen:
            assert self._map_seen.wait_for(lambda: self.unknown >= count, PATIENCE)

    def wait_config_changes(self, count: int) -> None:
        """Wait until the back-end has told of `count` config changes."""
        with self._map_seen:
            assert self._map_seen.wait_for(lambda: self.config_changes >= count, PATIENCE)

    def wait_maps(self, count: int) -> None:
        """Wait until there are `count` maps."""
        with self._map_seen:
            assert self._map_seen.wait_for(lambda: len(self.maps) == count, PATIENCE)

    # The driver.

    def allocate(self, size: int) -> int:
        """Return the offset of fresh guest memory."""
        offset = self.heap
        self.heap += (size + 4095) & ~4095
        assert self.heap <= len(self.memory), "the test's guest is out of memory"
        return offset

    def post(
        self,
        request: bytes,
        *,
        queue: int = 0,
        response_size: int = 2048,
        indirect: bool = True,
    ) -> tuple[int, int]:
        """Make a request available; returns its head and the offset of the answer."""
        ring = self.queues[queue]
        at = self.allocate(len(request) + response_size + 64)
        self.memory[at : at + len(request)] = request
        answer = at + (len(request) + 7 & ~7)
        pieces = [(at, len(request), 0)]
        if response_size:
            pieces.append((answer, response_size, WRITE))
        if indirect:
            table = self.allocate(16 * len(pieces))
            for index, (where, length, flags) in enumerate(pieces):
                last = index == len(pieces) - 1
                struct.pack_into(
                    "<QIHH",
                    self.memory,
                    table + 16 * index,
                    GUEST_BASE + where,
                    length,
                    flags | (0 if last else NEXT),
                    index + 1,
                )
            head = ring.free.pop()
            ring.write_descriptor(head, GUEST_BASE + table, 16 * len(pieces), INDIRECT)
        else:
            slots = [ring.free.pop() for _ in pieces]
            head = slots[0]
            for index, (where, length, flags) in enumerate(pieces):
                last = index == len(pieces) - 1
                ring.write_descriptor(
                    slots[index],
                    GUEST_BASE + where,
                    length,
                    flags | (0 if last else NEXT),
                    0 if last else slots[index + 1],
                )
        ring.offer(head)
        return head, answer

    def wait_bytes(self, head: int, answer: int, *, queue: int = 0) -> bytes:
        """Wait for the chain `head`, which must be the next to come back; returns the answer."""
        done, length = self.queues[queue].wait_used()
        assert done == head, "another request came back first"
        self.queues[queue].free.append(head)
        return self.read_bytes(answer, length)

    def read_bytes(self, offset: int, length: int) -> bytes:
        """Return what was written to the guest's memory."""
        return bytes(self.memory[offset : offset + length])

    def call(self, request: bytes, *, queue: int = 0, indirect: bool = True) -> bytes:
        """Send a request and wait for its answer.  Memory is used again for the next."""
        heap = self.heap
        answer = self.wait_bytes(*self.post(request, queue=queue, indirect=indirect), queue=queue)
        self.heap = heap
        return answer

    def close(self) -> None:
        """Go away, as a VMM that is killed."""
        self.socket.close()
        if self._channel is not None:
            self._channel.close()
        for queue in self.queues:
            queue.close()
        self.drop_maps()
        self.memory.release()
        self.mapping.close()
        self.object.close()
        assert not self.crashes
