"""A guest without Mesa: commands by name to a running server, and work that is checked."""

from __future__ import annotations

import mmap
import os
import socket
import struct
from pathlib import Path

from guest_client import CODEC, DEVICE, QUEUE, REPLY_SIZE, RING_IDX, Guest
from vtest_client import Client, readable

from hesper.portable import SharedMemory

SIZE = 65536
CONTEXT_INIT = 17


class Server:
    """What a `Guest` wants of a context, by messages to a server."""

    def __init__(self, client: Client) -> None:
        """Use a client that has shaken hands."""
        self.client = client

    def submit(self, data: bytes) -> None:
        """Run commands, and return when they were run."""
        self.client.submit((data, [], None))
        self.client.flush()

    def create_blob(self, resource_id: int, blob_id: int, size: int, _flags: int) -> int:
        """Make a blob; the descriptor is the caller's."""
        made, fd = self.client.create_blob(size, blob_id)
        assert made == resource_id
        return fd


class WireGuest(Guest):
    """Life: made with a server's socket, `start`ed, used, `close`d."""

    def __init__(self, path: Path, name: str, *, patience: float) -> None:
        """Connect and shake hands.  Raises `OSError` and `EOFError` when that is not to be."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.client = Client(sock)
        try:
            sock.settimeout(patience)
            sock.connect(str(path))
            self.client.handshake(name.encode() + b"\0")
            self.wire = Server(self.client)
            self._next_id = 100
            self._next_resource = 2
            fd = self.wire.create_blob(1, 0, REPLY_SIZE, 1)
        except BaseException:
            sock.close()
            raise
        self._replies = SharedMemory.from_fd(fd, REPLY_SIZE)
        os.close(fd)
        self.context = self.wire  # type: ignore[assignment]
        stream = {"resourceId": 1, "offset": 0, "size": REPLY_SIZE}
        self.send("vkSetReplyCommandStreamMESA", pStream=stream)

    def fill(self, pattern: int) -> bool:
        """Have a buffer filled with a pattern; whether it was."""
        result, memory = self.allocate(SIZE)
        assert result == 0
        _, fd = self.wire.client.create_blob(SIZE, memory)
        self._next_resource += 1
        with mmap.mmap(fd, SIZE) as mapped:
            os.close(fd)
            buffer = self.create("Buffer", {"size": SIZE, "usage": 3})
            self.ask(
                "vkBindBufferMemory", device=DEVICE, buffer=buffer, memory=memory, memoryOffset=0
            )
            pool = self.create("CommandPool", {"queueFamilyIndex": 0})
            commands = self.new_id()
            wanted = {"commandPool": pool, "commandBufferCount": 1}
            self.ask(
                "vkAllocateCommandBuffers",
                device=DEVICE, pAllocateInfo=wanted, pCommandBuffers=[commands],
            )  # fmt: skip
            self.ask("vkBeginCommandBuffer", commandBuffer=commands, pBeginInfo={})
            self.send(
                "vkCmdFillBuffer",
                commandBuffer=commands, dstBuffer=buffer, dstOffset=0, size=SIZE, data=pattern,
            )  # fmt: skip
            self.ask("vkEndCommandBuffer", commandBuffer=commands)
            submit = {"commandBufferCount": 1, "pCommandBuffers": [commands]}
            parameters = {"queue": QUEUE, "submitCount": 1, "pSubmits": [submit], "fence": 0}
            sync = self.client.sync(0)
            self.client.submit((CODEC.encode("vkQueueSubmit", parameters), [(sync, 1)], RING_IDX))
            done = self.client.wait([(sync, 1)])
            try:
                assert readable(done, 60), "the queue did not come to its end"
            finally:
                os.close(done)
            return mapped[:] == struct.pack("<I", pattern) * (SIZE // 4)

    def close(self) -> None:
        """Go away."""
        self._replies.close()
        self.client.sock.close()
