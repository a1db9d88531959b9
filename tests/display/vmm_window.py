"""A VMM's display in Python: what QEMU does with vhost-user-gpu's messages, and more strictly.

QEMU trusts whoever is at the other end: it ends where it is sent pixels of a scanout that shows
nothing.  This one checks every message.  It reads one only when it is told to.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

PATIENCE = 120.0
REPLY = 4
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_DISPLAY_INFO = 1, 2, 3
CURSOR_POS, CURSOR_POS_HIDE, CURSOR_UPDATE, SCANOUT, UPDATE = 4, 5, 6, 7, 8
SIZES = {
    GET_PROTOCOL_FEATURES: 0,
    SET_PROTOCOL_FEATURES: 8,
    GET_DISPLAY_INFO: 0,
    CURSOR_POS: 12,
    CURSOR_POS_HIDE: 12,
    CURSOR_UPDATE: 20 + 64 * 64 * 4,
    SCANOUT: 12,
}
"""Of what follows the header; UPDATE's depends on its rectangle."""
OFFERED = 0b11
"""EDID and DMABUF2."""


@dataclass
class Window:
    """What the VMM shows of one scanout."""

    picture: npt.NDArray[np.uint32] | None = None
    """None while it shows nothing; of the size that was told, before the first pixels as well."""
    cursor: npt.NDArray[np.uint32] | None = None
    hot_spot: tuple[int, int] = (0, 0)
    position: tuple[int, int] = (0, 0)
    cursor_shown: bool = False
    updates: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Rectangles, as they came."""

    def shows(self, pixels: npt.NDArray[np.uint32]) -> bool:
        """Whether it shows a picture, and this one."""
        return self.picture is not None and np.array_equal(self.picture, pixels)


class VmmWindows:
    """The VMM's end of the socket."""

    def __init__(self, count: int = 1) -> None:
        """Make `count` windows."""
        self.socket, self.theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        self.windows = [Window() for _ in range(count)]
        self.sizes = [(1280, 800)] * count
        """What GET_DISPLAY_INFO is answered with."""
        self.answers = True
        """Whether GET_DISPLAY_INFO is answered."""
        self.unanswered = 0
        """How many were not."""
        self.requests: list[int] = []
        """All that came."""

    def take(self) -> None:
        """Read a message, check and obey it."""
        request, flags, size = struct.unpack("=3I", self._read(12))
        assert flags == 0
        if request == UPDATE:
            fields = struct.unpack("=5I", self._read(20))
            assert size == 20 + fields[3] * fields[4] * 4
            self._update(*fields)
        else:
            assert request in SIZES, request
            assert size == SIZES[request]
            self._obey(request, self._read(size))
        self.requests.append(request)
        assert self.requests[0] == GET_PROTOCOL_FEATURES
        assert SET_PROTOCOL_FEATURES in self.requests[:2] or request == GET_PROTOCOL_FEATURES

    def poll(self, seconds: float = 0.1) -> bool:
        """Take a message if one comes soon; whether one has."""
        readable, _, _ = select.select([self.socket], [], [], seconds)
        if readable:
            self.take()
        return bool(readable)

    def until(self, condition: Callable[[], object]) -> None:
        """Take messages until something is true."""
        while not condition():
            self.take()

    def is_silent(self) -> bool:
        """Whether nothing comes for a while."""
        return not self.poll(0.3)

    def answer(self) -> None:
        """Answer a GET_DISPLAY_INFO that was not answered."""
        assert self.unanswered
        self.unanswered -= 1
        info = bytes(24)
        for width, height in self.sizes:
            info += struct.pack("=6I", 0, 0, width, height, 1, 0)
        self.say(GET_DISPLAY_INFO, info.ljust(408, b"\0"))

    def say(self, request: int, payload: bytes, flags: int = REPLY) -> None:
        """Send an answer."""
        self.socket.sendall(struct.pack("=3I", request, flags, len(payload)) + payload)

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise ConnectionError("the device has closed the display")
            data += chunk
        return bytes(data)

    def _update(self, index: int, x: int, y: int, width: int, height: int) -> None:
        window = self.windows[index]
        assert window.picture is not None, "QEMU would have crashed"
        assert width
        assert height
        assert x + width <= window.picture.shape[1]
        assert y + height <= window.picture.shape[0]
        pixels = np.frombuffer(self._read(width * height * 4), "<u4").reshape(height, width)
        window.picture[y : y + height, x : x + width] = pixels
        window.updates.append((x, y, width, height))

    def _obey(self, request: int, payload: bytes) -> None:
        if request == GET_PROTOCOL_FEATURES:
            self.say(request, struct.pack("=Q", OFFERED))
        elif request == SET_PROTOCOL_FEATURES:
            assert not struct.unpack("=Q", payload)[0] & ~OFFERED
        elif request == GET_DISPLAY_INFO:
            self.unanswered += 1
            if self.answers:
                self.answer()
        elif request == SCANOUT:
            index, width, height = struct.unpack("=3I", payload)
            window = self.windows[index]
            if width == 0:
                assert height == 0
                window.picture = None
            else:
                window.picture = np.zeros((height, width), np.uint32)
        else:
            index, x, y = struct.unpack_from("=I2i", payload)
            window = self.windows[index]
            window.position = (x, y)
            window.cursor_shown = request != CURSOR_POS_HIDE
            if request == CURSOR_UPDATE:
                hot_x, hot_y = struct.unpack_from("=2I", payload, 12)
                assert max(hot_x, hot_y) < 64
                window.hot_spot = (hot_x, hot_y)
                window.cursor = np.frombuffer(payload, "<u4", offset=20).reshape(64, 64)
