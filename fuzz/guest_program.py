"""What a hostile vtest client does, made of a fuzzer's choices: messages, rings and shared memory.

All commands run in a context of Hesper's as a worker has it, on the driver of `looking_driver`.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from served_context import ServedContext

from fuzz import looking_driver
from fuzz.checks import PATIENCE
from fuzz.commands import CODEC, MODEL, Plausible, command, damaged, guest_id
from fuzz.source import Source
from hesper.vtest.service import Options, VtestService
from hesper.vtest.wire import Command

BLOB = 1 << 18
RING = 1 << 15
"""Room for each of two rings at the beginning of the blob."""
HEAD, TAIL, STATUS, BUFFER, SIZE = 0, 64, 128, 4096, 1 << 14
FATAL = 2
"""Bit of a ring's status."""
REPLIES, STREAMS = 2 * RING, 4 * RING
MAX_STEPS = 48
BYTES = 6
"""Which step sends bytes as they stand."""
PONG = struct.pack("<II", 0, Command.PING_PROTOCOL_VERSION)
INTERNAL = "internal error"
"""What a reason says when a handler has raised what it should not."""
ANSWER = 0.05
"""Seconds for which the client waits for answers: a context may wait for what never comes."""


class Peer(ServedContext):
    """A client of a session on the driver that looks."""

    def __init__(self) -> None:
        """Connect."""
        options = Options(handshake_timeout=PATIENCE)
        super().__init__(VtestService(options, looking_driver.host()))
        self.is_gone = False
        """Whether the session has hung up."""

    def drain(self) -> None:
        """Throw away answers until one to a PING is among them, or for a moment."""
        sock, tail = self.client.sock, b""
        deadline = time.monotonic() + ANSWER
        sock.settimeout(ANSWER)
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                data, fds, _, _ = socket.recv_fds(sock, 1 << 16, 64)
                for fd in fds:
                    os.close(fd)
                tail = tail[-7:] + data
                if not data or PONG in tail:
                    self.is_gone = not data
                    return

    def end(self, seconds: float = PATIENCE) -> None:
        """Leave.  Raises `RuntimeError` for an error of Hesper's own, too."""
        super().end(seconds)
        if self.reason is not None and INTERNAL in self.reason:
            raise RuntimeError(self.reason)


class Program:
    """Runs what the source says on a peer that has shaken hands."""

    def __init__(self, source: Source, peer: Peer) -> None:
        """Make the blob that all steps use."""
        self.source = source
        self.peer = peer
        self.resource, fd = peer.client.create_blob(BLOB)
        self.memory = mmap.mmap(fd, BLOB)
        os.close(fd)
        self.tails = [0, 0]
        self._rings: list[int] = []
        self._scribbling = threading.Event()
        self._scribbler: threading.Thread | None = None
        self._steps: tuple[Callable[[], None], ...] = (
            *(self._commands,) * BYTES, self._bytes, self._bytes, self._word, self._word,
            self._create_blob, self._forget, self._sync, self._wait, self._message, self._fence,
        )  # fmt: skip

    def run(self) -> None:
        """Take steps until the source is empty."""
        setup = self.source.number(1)
        first, rings = b"", [number for number in range(2) if setup & (4 << number)]
        self._rings = rings
        if setup & 1:
            first += beginning(self.resource)
        if setup & 2:
            first += nursery()
        for number in rings:
            first += ring(self.resource, number, idle_us=1 if setup & 128 else 1000)
        if setup & 16:
            looking_driver.fail_after(self.source.number(1) + 8, -1 - self.source.below(13))
        self._submit(first)
        for value in range(2):
            self.peer.client.send(Command.RESOURCE_CREATE_BLOB, struct.pack("<IIQQ", 2, 1, BLOB, 0))
            self.peer.client.words(Command.SYNC_CREATE, value, 0)
            self.peer.client.words(Command.SYNC_CREATE, value, 1)
        self._flush()
        if setup & 64:
            self._scribbler = threading.Thread(target=self._scribble, args=[self.source.number(4)])
            self._scribbler.start()
        for _ in range(MAX_STEPS):
            if self.source.is_empty:
                break
            self.source.choice(self._steps)()
        self._flush()
        deadline = time.monotonic() + ANSWER
        while not (self.peer.is_gone or self._is_done() or time.monotonic() > deadline):
            time.sleep(0.0002)

    def _flush(self) -> None:
        self.peer.client.send(Command.PING_PROTOCOL_VERSION)
        self.peer.drain()

    def close(self) -> None:
        """Let go of the memory, and of the driver's faults."""
        self._scribbling.set()
        if self._scribbler is not None:
            self._scribbler.join()
        self.memory.close()
        looking_driver.fail_after(0, 0)

    def _is_done(self) -> bool:
        """Whether each ring has come to its end, or is dead."""
        return all(
            self._read(number * RING + HEAD) == self.tails[number] & 0xFFFFFFFF
            or self.memory[number * RING + STATUS] & FATAL
            for number in self._rings
        )

    def _read(self, offset: int) -> int:
        return int.from_bytes(self.memory[offset : offset + 4], "little")

    def _scribble(self, seed: int) -> None:
        """Write all over the memory that is shared, while others read it."""
        for count in range(20_000):
            if self._scribbling.is_set():
                return
            seed = (seed * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1)
            at = (seed >> 32) % (BLOB // 4) * 4
            # The words of a ring, and what stands in it, more often than all else.
            where = (at, BUFFER + at % SIZE, RING + BUFFER + at % SIZE, REPLIES + at % RING)
            if count % 64 == 0:
                offset = (HEAD, TAIL, STATUS, TAIL + RING)[seed & 3]
            else:
                offset = where[seed & 3]
            self.memory[offset : offset + 4] = (seed >> 8 & 0xFF).to_bytes(4, "little")

    # Where commands go.

    def _submit(self, data: bytes) -> None:
        self.peer.client.submit((data, [], None))

    def _send(self, data: bytes) -> None:
        """Send commands by one of the ways there are."""
        data = data[: len(data) // 4 * 4]
        way = self.source.number(1) % 8
        number = way % 2
        if way < 2 or number not in self._rings:
            self._submit(data)
        elif way < 6:
            self._put(number, data)
        else:
            self._stream(data[:RING], number)

    def _put(self, number: int, data: bytes) -> None:
        """Write to a ring, and notify it."""
        data = data[:SIZE]
        base, tail = number * RING + BUFFER, self.tails[number]
        at = tail % SIZE
        piece = data[: SIZE - at]
        self.memory[base + at : base + at + len(piece)] = piece
        self.memory[base : base + len(data) - len(piece)] = data[len(piece) :]
        self.tails[number] = tail + len(data)
        place = number * RING + TAIL
        self.memory[place : place + 4] = (self.tails[number] & 0xFFFFFFFF).to_bytes(4, "little")
        self._submit(CODEC.encode("vkNotifyRingMESA", {"ring": ring_id(number)}))

    def _stream(self, data: bytes, number: int) -> None:
        """Write commands to shared memory, and say on a ring that they are there."""
        at = STREAMS + self.source.below(8) * 1024
        self.memory[at : at + len(data)] = data
        slices = [{"resourceId": self.resource, "offset": at, "size": len(data)}]
        parameters = {
            "streamCount": 1, "pStreams": slices, "pReplyPositions": None,
            "dependencyCount": 0, "pDependencies": None, "flags": 0,
        }  # fmt: skip
        self._put(number, CODEC.encode("vkExecuteCommandStreamsMESA", parameters))

    # Steps.

    def _commands(self) -> None:
        """Some commands, perhaps damaged."""
        count = 1 + self.source.number(1) % 4
        data = b"".join(command(self.source) for _ in range(count))
        self._send(damaged(data, self.source))

    def _bytes(self) -> None:
        """Bytes as they stand."""
        self._send(self.source.take(self.source.number(2)))

    def _word(self) -> None:
        """Change a word of the shared memory."""
        ring_at = self.source.below(2) * RING
        places = (HEAD, TAIL, STATUS, BUFFER + self.source.number(2) % SIZE)
        at = ring_at + self.source.choice(places) // 4 * 4
        self.memory[at : at + 4] = self.source.randbytes(4)

    def _create_blob(self) -> None:
        """Make a resource, of memory that may be a VkDeviceMemory's."""
        blob_id = self.source.choice((0, guest_id("VkDeviceMemory", self.source.number(1))))
        size = self.source.choice((4096, 65536, 1, self.source.number(3), self.source.number(8)))
        words = struct.pack("<IIQQ", self.source.choice((2, 2, 2, 3)), 1, size, blob_id)
        self.peer.client.send(Command.RESOURCE_CREATE_BLOB, words)

    def _forget(self) -> None:
        """Let go of a resource, seldom of the one that the rings are in."""
        self.peer.client.words(Command.RESOURCE_UNREF, self.source.choice((2, 3, 4, 2, 3, 1, 9)))

    def _sync(self) -> None:
        """Make, read or write a sync."""
        number, value = 1 + self.source.number(1) % 4, self.source.number(1)
        kind = self.source.choice((19, 20, 21, 22))
        words = {19: (value, 0), 20: (number,), 21: (number,), 22: (number, value, 0)}[kind]
        self.peer.client.words(kind, *words)

    def _wait(self) -> None:
        """Wait for syncs."""
        points = [
            (1 + self.source.number(1) % 4, self.source.number(1))
            for _ in range(self.source.number(1) % 3)
        ]
        timeout = self.source.choice((0, 1, 10, -1))
        self.peer.client.ask_to_wait(points, any_=self.source.number(1) % 2 > 0, timeout=timeout)

    def _fence(self) -> None:
        """Submit commands whose end sets syncs."""
        points = [(1 + self.source.number(1) % 4, self.source.number(1))]
        data = command(self.source) if self.source.number(1) % 2 else b""
        self.peer.client.submit((data, points, self.source.number(1) % 5))

    def _message(self) -> None:
        """A message whose header may say anything."""
        number = self.source.choice((*range(28), self.source.number(4)))
        data = self.source.take(self.source.number(1))
        length = self.source.choice((len(data) // 4, len(data) // 4, self.source.number(4)))
        self.peer.client.send(number, data, length=length)


def input_of(streams: Sequence[bytes], *, ring: bool = False, stream: bool = False) -> bytes:
    """The input whose program sends `streams`, at most 64 KiB each, one after the other.

    ring: in a ring, where they fit in together.  stream: in shared memory, which a ring names.
    Without: in messages.
    """
    way = 6 if stream else 2 if ring else 0
    data = bytes([4 if way else 0])
    for each in streams:
        data += struct.pack("<BH", BYTES, len(each)) + each + bytes([way])
    return data


def ring_id(number: int) -> int:
    """The id of a ring."""
    return 9 + number


def ring(resource: int, number: int, idle_us: int) -> bytes:
    """Make one of the two rings."""
    info = {
        "resourceId": resource, "offset": number * RING, "size": RING, "idleTimeout": idle_us,
        "headOffset": HEAD, "tailOffset": TAIL, "statusOffset": STATUS, "bufferOffset": BUFFER,
        "bufferSize": SIZE, "extraOffset": BUFFER + SIZE, "extraSize": 4,
    }  # fmt: skip
    return CODEC.encode("vkCreateRingMESA", {"ring": ring_id(number), "pCreateInfo": info})


def beginning(resource: int) -> bytes:
    """Where replies go, an instance, a device and its queues."""
    stream = {"resourceId": resource, "offset": REPLIES, "size": 2 * RING}
    queues = {"queueFamilyIndex": 0, "queueCount": 2, "pQueuePriorities": [1.0, 1.0]}
    physical, device = guest_id("VkPhysicalDevice"), guest_id("VkDevice")
    commands: list[tuple[str, dict[str, Any]]] = [
        ("vkSetReplyCommandStreamMESA", {"pStream": stream}),
        ("vkCreateInstance", {"pCreateInfo": {}, "pInstance": guest_id("VkInstance")}),
        (
            "vkEnumeratePhysicalDevices",
            {
                "instance": guest_id("VkInstance"),
                "pPhysicalDeviceCount": 1,
                "pPhysicalDevices": [physical],
            },
        ),
        (
            "vkCreateDevice",
            {
                "physicalDevice": physical,
                "pCreateInfo": {"queueCreateInfoCount": 1, "pQueueCreateInfos": [queues]},
                "pDevice": device,
            },
        ),
    ]
    for number in range(2):
        timeline = ("VkDeviceQueueTimelineInfoMESA", {"ringIdx": 1 + number})
        wanted = {"queueFamilyIndex": 0, "queueIndex": number, "pNext": [timeline]}
        queue = guest_id("VkQueue", number)
        parameters = {"device": device, "pQueueInfo": wanted, "pQueue": queue}
        commands.append(("vkGetDeviceQueue2", parameters))
    return b"".join(CODEC.encode(name, parameters) for name, parameters in commands)


class _First(Source):
    """Makes the objects that all others are made from: the first of each type, little else."""

    def __init__(self, seed: int) -> None:
        super().__init__(b"")
        self._seed = seed

    def number(self, size: int) -> int:
        """Zeros, and a one here and there."""
        self._seed = self._seed * 25214903917 + 11 & 0xFFFFFFFFFFFF
        return int(self._seed >> 20 & 7 == 7) if size == 1 else 0


@functools.cache
def nursery() -> bytes:
    """Commands that make an object of each type for which there is one that a context takes."""
    made = b""
    left = [c for c in MODEL.commands.values() if c.creates and not c.refused]
    left = [c for c in left if c.level == "device" and c.creates != "VkDevice"]
    for _ in range(3):
        for each in list(left):
            for seed in range(8):
                parameters = Plausible(_First(seed)).parameters(each)
                try:
                    encoded = CODEC.encode(each.name, parameters)
                except ValueError:
                    continue
                if _is_taken(made + encoded):
                    made += encoded
                    left = [c for c in left if c.creates != each.creates]
                    break
    return made


def _is_taken(data: bytes) -> bool:
    """Whether a context survives these commands."""
    peer = Peer()
    try:
        peer.client.handshake()
        resource, fd = peer.client.create_blob(BLOB)
        os.close(fd)
        peer.client.submit((beginning(resource) + data, [], None))
        peer.client.flush()
    except (OSError, EOFError, AssertionError):
        return False
    finally:
        peer.end()
    return True
