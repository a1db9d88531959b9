"""A descriptor that nobody should close who keeps others waiting."""

from __future__ import annotations

import socket
import struct

HOURS = 10_000
"""Seconds."""


def lingering(seconds: int = HOURS) -> tuple[int, socket.socket]:
    """A descriptor whose last closing takes that long, and what it is connected to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return sock.detach(), other
