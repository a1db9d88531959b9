#!/usr/bin/python3
"""Share a Wayland session's clipboard with the host, as spice-vdagent does for X.

This runs in guests, by itself: images have it where spice-vdagent cannot be (`vm.desktops`).  It
wants Debian's wl-clipboard, and a compositor with one of the protocols for clipboard managers
(`ext-data-control`, `wlr-data-control`).  Source of the messages: `vd_agent.h` of spice-protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
import time

PORT = "/dev/virtio-ports/com.redhat.spice.0"
CLIENT_PORT = 1
PROTOCOL = 1
MAX_CHUNK = 2048
MAX_TEXT = 1 << 20
"""Bytes; Hesper passes no longer ones on."""
CHUNK = struct.Struct("<II")
MESSAGE = struct.Struct("<IIQI")
CLIPBOARD, ANNOUNCE_CAPABILITIES, GRAB, REQUEST, RELEASE = 4, 6, 7, 8, 9
BY_DEMAND, SELECTION = 5, 6
OF_CLIPBOARD = bytes(4)
"""The selection that a message is of, and padding."""
NOTHING, TEXT = 0, 1
RETRY_SECONDS = 5.0
"""Until the port is opened again that the host has left."""
END_SECONDS = 1.0
READ_SECONDS = 5.0
"""For a program of the guest's to hand over what it has copied."""
SENSITIVE = b"sensitive"
"""What wl-paste calls what a password manager has copied."""


class SessionEndedError(Exception):
    """There is no compositor any more, or it lets nobody watch its clipboard."""


class Agent:
    """The guest's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`reader` and `writer`: the port."""
        self._reader = reader
        self._writer = writer
        self._stream = bytearray()
        self._text: bytes | None = None
        """What both sides have."""

    async def run(self) -> None:
        """Share until either side has gone.  Raises `OSError`, `EOFError`, `SessionEndedError`."""
        await self._announce(wants_answer=True)
        watching = asyncio.create_task(self._watch())
        listening = asyncio.create_task(self._listen())
        try:
            await asyncio.wait([watching, listening], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, listening):
                task.cancel()
            ends = await asyncio.gather(watching, listening, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _announce(self, *, wants_answer: bool) -> None:
        ours = 1 << BY_DEMAND | 1 << SELECTION
        await self._send(ANNOUNCE_CAPABILITIES, struct.pack("<II", wants_answer, ours))

    async def _listen(self) -> None:
        while True:
            kind, data = await self._receive()
            await self._handle(kind, data)

    async def _handle(self, kind: int, data: bytes) -> None:
        if kind == ANNOUNCE_CAPABILITIES and data[:4] != bytes(4):
            await self._announce(wants_answer=False)
        elif kind == GRAB and (TEXT,) in struct.iter_unpack("<I", data[4:]):
            await self._send(REQUEST, OF_CLIPBOARD + struct.pack("<I", TEXT))
        elif kind == CLIPBOARD and data[4:8] == struct.pack("<I", TEXT):
            self._text = data[8:]
            await _wl_copy(self._text)
        elif kind == REQUEST:
            answer = struct.pack("<I", NOTHING if self._text is None else TEXT)
            await self._send(CLIPBOARD, OF_CLIPBOARD + answer + (self._text or b""))

    async def _watch(self) -> None:
        """Offer the host what is copied here.  Raises `SessionEndedError`."""
        # It runs a command whenever something is copied, here one that says what of.
        command = ("wl-paste", "--watch", "sh", "-c", "echo $CLIPBOARD_STATE")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            while state := await process.stdout.readline():
                text = None if state.strip() == SENSITIVE else await _wl_paste()
                if text == self._text:
                    continue
                self._text = text
                kind, what = (RELEASE, b"") if text is None else (GRAB, struct.pack("<I", TEXT))
                await self._send(kind, OF_CLIPBOARD + what)
        finally:
            await _end(process)
        raise SessionEndedError("wl-paste has ended")

    async def _send(self, kind: int, data: bytes) -> None:
        stream = MESSAGE.pack(PROTOCOL, kind, 0, len(data)) + data
        for start in range(0, len(stream), MAX_CHUNK):
            piece = stream[start : start + MAX_CHUNK]
            self._writer.write(CHUNK.pack(CLIENT_PORT, len(piece)) + piece)
        await self._writer.drain()

    async def _receive(self) -> tuple[int, bytes]:
        _, kind, _, size = MESSAGE.unpack(await self._take(MESSAGE.size))
        return kind, await self._take(size)

    async def _take(self, count: int) -> bytes:
        """Read from the messages' stream, which lies in chunks."""
        while len(self._stream) < count:
            port, size = CHUNK.unpack(await self._reader.readexactly(CHUNK.size))
            data = await self._reader.readexactly(size)
            if port == CLIENT_PORT:
                self._stream += data
        taken = bytes(self._stream[:count])
        del self._stream[:count]
        return taken


async def _wl_copy(text: bytes) -> None:
    # It stays, in the background, and has the text for whoever pastes.
    command = ("wl-copy", "--type", "text/plain;charset=utf-8")
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    await process.communicate(text)


async def _wl_paste() -> bytes | None:
    """Return the text that is copied; None where it is none, or too long."""
    command = ("wl-paste", "--no-newline", "--type", "text")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    text = b""
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                text, _ = await process.communicate()
    finally:
        await _end(process)
    return text if process.returncode == 0 and len(text) <= MAX_TEXT else None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    # What it has started may have its pipe, and is not waited for.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await process.wait()


async def _share(path: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    port = os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK), "r+b", buffering=0)
    # It can be opened once; each transport closes a file of its own.
    other = os.fdopen(os.dup(port.fileno()), "wb", buffering=0)
    receiving, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), port)
    sending, flow = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, other)
    try:
        await Agent(reader, asyncio.StreamWriter(sending, flow, None, loop)).run()
    finally:
        receiving.close()
        sending.abort()


def main() -> None:
    """Share with one host after the other, until the session ends."""
    path = sys.argv[1] if len(sys.argv) > 1 else PORT
    while True:
        try:
            asyncio.run(_share(path))
        except SessionEndedError as error:
            sys.exit(f"hesper-clipboard: {error}")
        except (EOFError, OSError) as error:
            print(f"hesper-clipboard: {error}", file=sys.stderr)
        time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    main()
