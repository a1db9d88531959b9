"""Between a real client and its server: notes what the client says, on its socket and in its rings.

Life: made, used as a context manager, then `streams` and `messages` are read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hesper.protocol.codec import Codec, Reader
from hesper.vtest.wire import Command

CODEC = Codec()
LOOK = 0.0002
"""Seconds between two looks at a ring; a client needs longer to fill one."""
HEADER = struct.Struct("<II")


@dataclass
class _Memory:
    """A resource of the client's."""

    data: mmap.mmap

    def take(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def word(self, offset: int) -> int:
        return int.from_bytes(self.take(offset, 4), "little")


@dataclass
class _Ring:
    memory: _Memory
    info: dict[str, Any]
    at: int = 0

    def news(self) -> bytes:
        """What was written since the last look."""
        base = self.info["offset"]
        tail = self.memory.word(base + self.info["tailOffset"])
        size, start = self.info["bufferSize"], base + self.info["bufferOffset"]
        count = (tail - self.at) & 0xFFFFFFFF
        if count > size:
            raise RuntimeError(f"{count} bytes were written to a ring of {size} between two looks")
        first, place = min(count, size - self.at % size), self.at % size
        data = self.memory.take(start + place, first) + self.memory.take(start, count - first)
        self.at = tail
        return data


@dataclass
class Session:
    """What one client has said."""

    messages: list[bytes] = field(default_factory=list)
    """On its socket."""
    commands: list[tuple[str, bytes]] = field(default_factory=list)
    """All Vulkan commands: names, and as they came."""
    _resources: dict[int, _Memory] = field(default_factory=dict)
    _rings: dict[int, _Ring] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def say(self, message: bytes) -> None:
        """Note a message of the client's."""
        with self._lock:
            self.look()
            self.messages.append(message)
            _, number = HEADER.unpack_from(message)
            if number == Command.SUBMIT_CMD2:
                for stream in _batches(message[HEADER.size :]):
                    self._run(stream)

    def answer(self, resource: int, fd: int) -> None:
        """Note a resource; `fd` stays the caller's."""
        size = os.fstat(fd).st_size
        if size:
            with self._lock:
                self._resources[resource] = _Memory(mmap.mmap(fd, size, prot=mmap.PROT_READ))

    def look(self) -> None:
        """Note what has come in rings."""
        with self._lock:
            for ring in list(self._rings.values()):
                self._run(ring.news())

    def _run(self, stream: bytes) -> None:
        reader = Reader(stream)
        while reader.left:
            start = reader.position
            command, _, parameters = CODEC.decode(reader)
            self._note(command.name, stream[start : reader.position], parameters)

    def _note(self, name: str, data: bytes, parameters: dict[str, Any]) -> None:
        if name == "vkCreateRingMESA":
            info = parameters["pCreateInfo"]
            self._rings[parameters["ring"]] = _Ring(self._resources[info["resourceId"]], info)
        elif name == "vkDestroyRingMESA":
            del self._rings[parameters["ring"]]
        elif name == "vkExecuteCommandStreamsMESA":
            for each in parameters["pStreams"]:
                memory = self._resources[each["resourceId"]]
                self._run(memory.take(each["offset"], each["size"]))
            return
        self.commands.append((name, data))


def _batches(body: bytes) -> list[bytes]:
    """The commands of a SUBMIT_CMD2, whose batches have 6 or 8 words."""
    words = struct.unpack(f"<{len(body) // 4}I", body)
    count = words[0]
    # The first batch's commands begin behind the last batch.
    size = (words[2] - 1) // count if count and words[2] > 1 else 6
    found = []
    for number in range(count):
        _, at, length = words[1 + number * size : 4 + number * size]
        found.append(body[4 * at : 4 * (at + length)])
    return found


class Recorder:
    """A socket for clients before a server's."""

    def __init__(self, path: Path, server: Path) -> None:
        """Listen at `path` for clients of the server at `server`."""
        self.path = path
        self.sessions: list[Session] = []
        self.failures: list[BaseException] = []
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Listen."""
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the clients' ends.  Raises what went wrong with one."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)
        if self.failures:
            raise self.failures[0]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=[client], daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        session = Session()
        self.sessions.append(session)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with client, server:
                server.connect(str(self._server))
                _Relay(client, server, session).run()
        except (OSError, EOFError):
            pass  # one of them has gone
        except BaseException as error:
            self.failures.append(error)


class _Relay:
    def __init__(self, client: socket.socket, server: socket.socket, session: Session) -> None:
        self._client = client
        self._server = server
        self._session = session
        self._up = bytearray()
        self._down = bytearray()
        self._expects_fd = 0
        """The resource whose descriptor comes with the next byte; 0: none does."""

    def run(self) -> None:
        """Pass on all that is said, until one of them has gone."""
        while True:
            ready, _, _ = select.select([self._client, self._server], [], [], LOOK)
            self._session.look()
            if self._client in ready:
                data = self._client.recv(1 << 16)
                if not data:
                    return
                self._up += data
                self._hear()
                self._server.sendall(data)
            if self._server in ready:
                self._pass_down()

    def _hear(self) -> None:
        while len(self._up) >= HEADER.size:
            length, number = HEADER.unpack_from(self._up)
            end = HEADER.size + length * (1 if number == Command.CREATE_RENDERER else 4)
            if len(self._up) < end:
                return
            self._session.say(bytes(self._up[:end]))
            del self._up[:end]

    def _pass_down(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._server, 1 << 16, 8)
        if not data:
            raise EOFError
        self._down += data
        try:
            if fds:
                # They have come with the last byte, and must go with it.
                self._client.sendall(data[:-1])
                socket.send_fds(self._client, [data[-1:]], fds)
            else:
                self._client.sendall(data)
            self._take_answers(fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _take_answers(self, fds: list[int]) -> None:
        while self._down:
            if self._expects_fd:
                if not fds:
                    return
                if self._expects_fd > 0:
                    self._session.answer(self._expects_fd, fds[0])
                del self._down[:1]
                fds = fds[1:]
                self._expects_fd = 0
                continue
            if len(self._down) < HEADER.size:
                return
            length, number = HEADER.unpack_from(self._down)
            end = HEADER.size + 4 * length
            if len(self._down) < end:
                return
            body = bytes(self._down[HEADER.size : end])
            del self._down[:end]
            if number == Command.RESOURCE_CREATE_BLOB:
                self._expects_fd = int.from_bytes(body, "little")
            elif number == Command.SYNC_WAIT:
                self._expects_fd = -1
