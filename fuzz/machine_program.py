"""What a hostile machine and its workers do, made of a fuzzer's choices."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable

import gpu_requests as requests
from gpu_requests import GUEST_BASE, request
from gpu_vm import Worker
from vring import INDIRECT, NEXT, QUEUE_SIZE, WRITE

from fuzz.machine import Machine
from fuzz.source import Source
from hesper.gpu import context_wire as wire
from hesper.gpu.wire import Command, Response
from hesper.portable import FRAME
from hesper.vhost.wire import HEADER, Request

MAX_STEPS = 64
COMMANDS = sorted(Command)
HEAP, HEAP_SIZE = 0x10000, 0x20000
"""Where requests, answers and tables lie in guest memory, one over the other."""
FORMATS = (1, 2, 67, 68, 121, 134, 3, 0)


class MachineProgram:
    """Runs what the source says on a device whose driver is loaded."""

    def __init__(self, source: Source, machine: Machine) -> None:
        """Be what is around the device of `machine`."""
        self.source = source
        self.machine = machine
        self.frontend = machine.frontend
        self.memory = machine.frontend.memory
        self._steps: tuple[Callable[[], None], ...] = (
            *(self._request,) * 8, self._bytes, self._chain, self._chain, self._word,
            self._worker_says, self._worker_says, self._worker_ends, self._retire,
            self._message, self._restart, self._config, self._settle, self._time,
        )  # fmt: skip

    def run(self) -> None:
        """Take steps until the source is empty."""
        for _ in range(MAX_STEPS):
            if self.source.is_empty:
                break
            self.source.choice(self._steps)()
            # What is posted together is looked at together.
            if self.source.number(1) < 192:
                self._settle()
        self._settle()

    # Requests.

    def _small(self) -> int:
        """A number that mostly means something."""
        choice = self.source.number(1)
        if choice < 200:
            return choice % 4
        return int(self.source.choice((255, 4096, 65536, self.source.number(4), 0xFFFFFFFF)))

    def _size(self) -> int:
        return int(
            self.source.choice((4096, 64, 65536, self.source.number(2), self.source.number(8)))
        )

    def _rectangle(self) -> tuple[int, int, int, int]:
        side = (0, 16, 64, 1, 0xFFFFFFFF)
        x, y, width, height = (self.source.choice((*side, self.source.number(1))) for _ in range(4))
        return x, y, width, height

    def _pieces(self) -> list[tuple[int, int]]:
        count = self.source.number(1) % 8
        return [(self.source.number(3) & ~0xFFF, self._size() & 0xFFFFFFFF) for _ in range(count)]

    def _request(self) -> None:
        """A request that is mostly of the right shape."""
        body = self._made()
        if self.source.number(1) >= 224:
            changed = bytearray(body)
            for _ in range(1 + self.source.number(1) % 4):
                changed[self.source.below(len(changed))] = self.source.number(1)
            body = bytes(changed)
        self._post(body)

    def _made(self) -> bytes:
        small, size = self._small, self._size
        makers: tuple[Callable[[], bytes], ...] = (
            lambda: requests.create_context(small(), b"fuzz"),
            lambda: requests.create_context(1, self.source.take(self.source.number(1) % 80)[:64]),
            lambda: requests.destroy_context(small()),
            self._submit,
            lambda: requests.create_blob(
                small(),
                size(),
                ctx_id=small(),
                memory=self.source.choice((2, 1, 3, small())),
                flags=self.source.choice((1, 3, 7, small())),
                blob_id=small(),
                pieces=self._pieces(),
            ),
            lambda: requests.map_blob(small(), self.source.choice((0, 4096, size()))),
            lambda: requests.unmap_blob(small()),
            lambda: requests.unref(small()),
            lambda: requests.create_2d(small(), *self._sides(), self.source.choice(FORMATS)),
            lambda: requests.attach_backing(small(), self._pieces()),
            lambda: requests.transfer(small(), self._rectangle(), self.source.number(2)),
            lambda: requests.set_scanout(small(), small(), self._rectangle()),
            lambda: requests.set_scanout_blob(
                small(), self._rectangle(), self._sides(), small() & 0xFFF, offset=small()
            ),
            lambda: requests.flush(small(), self._rectangle()),
            self._cursor,
            lambda: requests.on_resource(self.source.choice(COMMANDS), small(), ctx_id=small()),
            lambda: request(
                self.source.choice(COMMANDS),
                self.source.take(self.source.number(1)),
                ctx_id=small(),
                flags=small(),
                fence_id=small(),
                ring_idx=self.source.number(1),
            ),
        )
        made: bytes = self.source.choice(makers)()
        return made

    def _sides(self) -> tuple[int, int]:
        sides = (16, 64, 0, 1, 4096, 0xFFFFFFFF)
        return self.source.choice(sides), self.source.choice(sides)

    def _cursor(self) -> bytes:
        x, y = self.source.number(1) - 64, self.source.number(1) - 64
        where = (self._small(), (x, y))
        if self.source.number(1) % 2:
            return requests.move_cursor(*where)
        return requests.update_cursor(*where, self._small(), (self._small(), self._small()))

    def _submit(self) -> bytes:
        commands = self.source.take(self.source.number(1))
        fence, ring = self.source.number(1), self.source.number(1) % 8
        return requests.submit(
            self._small(),
            commands,
            fence_id=fence if fence % 4 else None,
            ring_idx=ring if ring < 6 else None,
        )

    def _bytes(self) -> None:
        """A request of bytes as they stand."""
        self._post(self.source.take(self.source.number(2) % 4096))

    def _post(self, data: bytes) -> None:
        """Offer a request in pieces, with room for an answer that may be small."""
        ring = self.frontend.queues[self.source.number(1) >= 224]
        at = HEAP + self.source.below(16) * 0x1000
        self.memory[at : at + len(data)] = data
        cut = self.source.below(len(data) + 1)
        room = self.source.choice((2048, 24, 0, 1, 4096))
        answer = at + 0x4000
        pieces = [(at, cut, 0), (at + cut, len(data) - cut, 0), (answer, room, WRITE)]
        pieces = [piece for piece in pieces if piece[1]] or [(at, 0, 0)]
        head = self.source.below(QUEUE_SIZE)
        if self.source.number(1) % 2:
            table = b"".join(
                self._descriptor(
                    GUEST_BASE + where, length, flags, place + 1, place + 1 < len(pieces)
                )
                for place, (where, length, flags) in enumerate(pieces)
            )
            place = at + 0x6000
            self.memory[place : place + len(table)] = table
            ring.write_descriptor(head, GUEST_BASE + place, len(table), INDIRECT)
        else:
            for place, (where, length, flags) in enumerate(pieces):
                slot = (head + place) % QUEUE_SIZE
                more = NEXT if place + 1 < len(pieces) else 0
                following = (slot + 1) % QUEUE_SIZE
                ring.write_descriptor(slot, GUEST_BASE + where, length, flags | more, following)
        ring.offer(head)

    @staticmethod
    def _descriptor(address: int, length: int, flags: int, following: int, more: bool) -> bytes:
        return struct.pack("<QIHH", address, length, flags | (NEXT if more else 0), following)

    def _chain(self) -> None:
        """Descriptors as no driver makes them, in the table or in one that it points to."""
        ring = self.frontend.queues[self.source.number(1) % 2]
        table = HEAP + self.source.below(8) * 0x1000
        for _ in range(1 + self.source.number(1) % 6):
            address = self.source.choice(
                (GUEST_BASE + table, GUEST_BASE + self.source.number(3), self.source.number(8))
            )
            length = self.source.choice((16, 64, self.source.number(2), self.source.number(4)))
            flags = self.source.number(1) % 8
            slot, following = self.source.below(QUEUE_SIZE), self.source.number(1) % 80
            ring.write_descriptor(slot, address, length, flags, following)
            if self.source.number(1) % 2:
                entry = struct.pack("<QIHH", address, length, flags, following)
                place = table + slot * 16
                self.memory[place : place + 16] = entry
        ring.offer(self.source.below(QUEUE_SIZE + 8))

    def _word(self) -> None:
        """Change an index or an entry of a ring, and kick."""
        ring = self.frontend.queues[self.source.number(1) % 2]
        place = self.source.choice(
            (ring.available_ring, ring.available_ring + 2, ring.used_ring + 2, ring.descriptors)
        )
        at = place + self.source.choice((0, 4, self.source.number(1)))
        self.memory[at : at + 2] = self.source.randbytes(2)
        ring.kick.signal()

    # Workers.

    def _worker(self) -> Worker | None:
        return self.source.choice(self.machine.workers) if self.machine.workers else None

    def _worker_says(self) -> None:
        """A message that is mostly of the right shape, and descriptors of any kind."""
        worker = self._worker()
        if worker is None:
            return
        kind = self.source.choice((*wire.Up, self.source.number(4)))
        serial = self.source.number(1) % 8
        response = self.source.choice((Response.OK_NODATA, self._small(), self._small()))
        bodies: dict[int, bytes] = {
            wire.Up.BLOB: wire.BLOB.pack(serial, response, self._small()),
            wire.Up.RETIRED: wire.RETIRED.pack(self.source.choice((serial, self._size()))),
            wire.Up.FATAL: self.source.take(self.source.number(1)),
            wire.Up.FIGURES: b'{"commands": %d, "memory": %d, "held": {"devices": [%d, 16]}}'
            % (self._size(), self._size(), serial),
        }
        body = bodies.get(kind, b"")
        if self.source.number(1) >= 208:
            body = self.source.take(self.source.number(1))
        data = wire.KIND.pack(kind) + body
        fds = self._descriptors()
        announced = self.source.choice((len(fds), len(fds), len(fds), self._small()))
        length = self.source.choice((len(data), len(data), len(data), self._small()))
        with contextlib.suppress(OSError):
            _send(worker.socket, FRAME.pack(length, announced) + data, fds)

    def _descriptors(self) -> list[int]:
        """Memory that is too small, too large, sealed or not; a pipe; nothing at all."""
        found = []
        for _ in range(max(0, self.source.number(1) % 6 - 3)):
            kind = self.source.number(1) % 4
            if kind == 3:
                ends = os.pipe()
                os.close(ends[1])
                found.append(ends[0])
                continue
            fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, (0, 4096, 65536)[kind])
            found.append(fd)
        return found

    def _worker_ends(self) -> None:
        worker = self._worker()
        if worker is not None:
            with contextlib.suppress(OSError):
                worker.die()

    def _retire(self) -> None:
        """Do with a fence what a worker does."""
        worker = self._worker()
        if worker is None or not worker.fences:
            return
        fence = worker.fences.pop()
        with contextlib.suppress(OSError):
            worker.say(wire.Up.RETIRED, wire.RETIRED.pack(fence[1]))

    # The VMM.

    def _message(self) -> None:
        """A message of vhost-user that may say anything; its answer is not read."""
        kind = self.source.choice((*Request, *Request, self.source.number(4)))
        payload = self.source.take(self.source.number(1))
        size = self.source.choice((len(payload), len(payload), self.source.number(2)))
        fds = self._descriptors()
        data = HEADER.pack(kind, self.source.choice((1, 9, self._small())), size) + payload
        _send(self.frontend.socket, data, fds)

    def _restart(self) -> None:
        """The driver is loaded anew."""
        for queue in self.frontend.queues:
            for number in (Request.SET_VRING_ENABLE, Request.GET_VRING_BASE):
                data = struct.pack("=II", queue.index, 0)
                self.frontend.send(number, data)
        self.frontend.drop_maps()
        self._drain()
        with contextlib.suppress(AssertionError):
            self.frontend.start(event_idx=self.source.number(1) % 2 > 0)

    def _config(self) -> None:
        self.frontend.write_config(self.source.take(self.source.number(1) % 24), self._small())

    def _settle(self) -> None:
        """Let the device do what it was asked for, and read what the VMM is told."""
        self._drain()
        self.machine.settle()

    def _time(self) -> None:
        """Let the next timer run out."""
        self._settle()
        self.machine.pass_time()

    def _drain(self) -> None:
        sock = self.frontend.socket
        while select.select([sock], [], [], 0)[0] and sock.recv(1 << 16):
            pass


def _send(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    """Send, and close the descriptors."""
    try:
        socket.send_fds(sock, [data], fds)
    finally:
        for fd in fds:
            os.close(fd)
