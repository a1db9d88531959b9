"""A vtest client and a guest context of our own, for tests without a driver."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hesper.isolation.service import ClientError
from hesper.kernel.port import Port
from hesper.portable import SharedMemory
from hesper.vtest.session import Session


class RefusedError(Exception):
    """What the fake context raises for requests it will not serve."""


class FakeContext:
    """Keeps what it is asked to do.

    A submit that begins with 0xdead is refused; one that begins with 0xbbbb waits for `busy`, one
    that begins with 0xcccc for being poisoned.
    """

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.submitted: list[bytes] = []
        self.blobs: dict[int, SharedMemory] = {}
        self.fences: list[tuple[int, Callable[..., None]]] = []
        self.closed = False
        self.poisoned = threading.Event()

    @property
    def port(self) -> Port:
        return Port(
            submit=self.submit,
            fence=self.fence,
            create_blob=self.create_blob,
            destroy_blob=self.destroy_resource,
        )

    def submit(self, data: memoryview) -> None:
        sent = bytes(data)
        self.submitted.append(sent)
        if sent[:2] == b"\xde\xad":
            raise RefusedError("dead command")
        if sent[:2] == b"\xbb\xbb":
            with self.busy:
                pass
        if sent[:2] == b"\xcc\xcc":
            self.poisoned.wait(20)
            raise RefusedError("poisoned")

    def poison(self, reason: str) -> None:
        assert reason
        self.poisoned.set()

    def create_blob(self, resource_id: int, blob_id: int, size: int, flags: int) -> int:
        if resource_id in self.blobs:
            raise RefusedError(f"resource {resource_id} exists")
        if size > 1 << 30:
            raise MemoryError("limit")
        self.blobs[resource_id] = SharedMemory.create(size, f"blob-{blob_id}-{flags}")
        return self.blobs[resource_id].fd

    def destroy_resource(self, resource_id: int) -> None:
        self.blobs.pop(resource_id).close()

    def fence(self, ring_idx: int, retired: Callable[..., None]) -> None:
        if ring_idx:
            self.fences.append((ring_idx, retired))
        else:
            retired()

    def close(self) -> None:
        for blob in self.blobs.values():
            blob.close()
        self.closed = True


PATIENCE = 120.0
"""Seconds that a client waits for: longer than any server is silent, however busy the machine."""


class FakeHost:
    """The process a session runs in."""

    refusals: tuple[type[Exception], ...] = (RefusedError,)

    def __init__(
        self, handshake_timeout: float | None = None, silence_timeout: float | None = None
    ) -> None:
        self.capset = bytes(range(160))
        self.handshake_timeout = handshake_timeout
        self.silence_timeout = silence_timeout
        self.context = FakeContext()
        self.on_fatal: Callable[[str], None] | None = None
        self.names: list[str] = []
        self.reasons: list[str] = []
        self.warnings: list[str] = []

    def create_context(self, name: str, on_fatal: Callable[[str], None]) -> FakeContext:
        assert name == self.names[-1]
        self.on_fatal = on_fatal
        return self.context

    def named(self, name: str) -> None:
        self.names.append(name)

    def ended(self, reason: str) -> None:
        self.reasons.append(reason)

    def no_room(self, size: int, error: Exception) -> None:
        self.warnings.append(f"{size}: {error}")


@dataclass
class Reply:
    command: int
    data: bytes


class Client:
    """Speaks vtest over a socket; every receive has a bound."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._together: list[bytes] | None = None
        sock.settimeout(PATIENCE)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Send the messages of a block in one piece."""
        messages: list[bytes] = []
        self._together = messages
        yield
        self._together = None
        self.sock.sendall(b"".join(messages))

    def send(self, command: int, data: bytes = b"", *, length: int | None = None) -> None:
        words = len(data) // 4 if length is None else length
        message = struct.pack("<II", words, command) + data
        if self._together is None:
            self.sock.sendall(message)
        else:
            self._together.append(message)

    def words(self, command: int, *words: int) -> None:
        self.send(command, struct.pack(f"<{len(words)}I", *words))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            if not chunk:
                raise EOFError(f"closed after {len(data)} of {size} bytes")
            data += chunk
        return data

    def reply(self) -> Reply:
        length, command = struct.unpack("<II", self.exactly(8))
        return Reply(command, self.exactly(length * 4))

    def descriptor(self) -> int:
        data, fds, _, _ = socket.recv_fds(self.sock, 1, 1)
        assert data == b"\0"
        (fd,) = fds
        return fd

    def ask(self, command: int, *words: int) -> tuple[int, ...]:
        self.words(command, *words)
        reply = self.reply()
        assert reply.command == command
        return struct.unpack(f"<{len(reply.data) // 4}I", reply.data)

    def handshake(self, name: bytes = b"test\0") -> None:
        """Do what Mesa does, in Mesa's order."""
        self.send(8, name, length=len(name))
        self.send(10)
        self.words(7, 0, 0)
        assert self.reply() == Reply(10, b"")
        assert self.reply() == Reply(7, bytes(4))
        assert self.ask(11, 4) == (3,)
        assert self.ask(15, 1)[0] == 1
        assert self.ask(16, 4, 0)[0] == 1
        self.words(17, 4)

    def create_blob(self, size: int, blob_id: int = 0, kind: int = 2) -> tuple[int, int]:
        self.send(18, struct.pack("<IIQQ", kind, 1, size, blob_id))
        reply = self.reply()
        return struct.unpack("<I", reply.data)[0], self.descriptor()

    def sync(self, value: int) -> int:
        return self.ask(19, value & 0xFFFFFFFF, value >> 32)[0]

    def sync_value(self, sync_id: int) -> int:
        low, high = self.ask(21, sync_id)
        return low | high << 32

    def wait(self, points: list[tuple[int, int]], *, any_: bool = False, timeout: int = -1) -> int:
        self.ask_to_wait(points, any_=any_, timeout=timeout)
        return self.wait_answer()

    def ask_to_wait(
        self, points: list[tuple[int, int]], *, any_: bool = False, timeout: int = -1
    ) -> None:
        head = struct.pack("<II", any_, timeout & 0xFFFFFFFF)
        self.send(23, head + b"".join(struct.pack("<IQ", *point) for point in points))

    def wait_answer(self) -> int:
        assert self.reply() == Reply(23, b"")
        return self.descriptor()

    def submit(
        self, *batches: tuple[bytes, list[tuple[int, int]], int | None], words: int = 6
    ) -> None:
        """Submit (commands, syncs, ring_idx) batches as Mesa lays them out.

        words: dwords of a batch; 6 in Mesa 25.0, 8 in Mesa 26.1.
        """
        at = 1 + words * len(batches)
        sync_at = at + sum(len(commands) for commands, _, _ in batches) // 4
        heads = tail = b""
        for commands, syncs, ring_idx in batches:
            size = len(commands) // 4
            flags = 0 if ring_idx is None else 1
            head = struct.pack("<6I", flags, at, size, sync_at, len(syncs), ring_idx or 0)
            heads += head.ljust(words * 4, b"\0")
            tail += b"".join(struct.pack("<IQ", *point) for point in syncs)
            at += size
            sync_at += 3 * len(syncs)
        streams = b"".join(commands for commands, _, _ in batches)
        self.send(24, struct.pack("<I", len(batches)) + heads + streams + tail)

    def flush(self) -> None:
        """Return when everything sent so far has been served."""
        self.send(10)
        assert self.reply() == Reply(10, b"")

    def gone(self) -> bool:
        """Wait for the other side to close."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True


def readable(fd: int, seconds: float = 20) -> bool:
    """Whether polling `fd` as a client does says it can be read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(seconds * 1000))


class Served:
    """A session on a thread and a client connected to it."""

    def __init__(self, host: FakeHost | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.theirs = theirs
        self.host = host or FakeHost()
        self.client = Client(ours)
        self.session = Session(theirs, self.host)
        self.error: ClientError | None = None
        self.crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.session.run()
        except ClientError as error:
            self.error = error
        except BaseException as error:
            self.crash = error

    def end(self) -> str:
        """Leave, wait for the session's end, and return why it says the client was wrong."""
        self.client.sock.close()
        return self.result()

    def result(self) -> str:
        """Wait for the session's end."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "the session did not end"
        if self.crash is not None:
            raise self.crash
        return str(self.error) if self.error else ""


def close_all(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
