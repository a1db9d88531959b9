"""Tells a device that a context of its guest will not be served, without a worker."""

from __future__ import annotations

import socket

from hesper.gpu import context_wire as wire
from hesper.portable import send_message


class ContextRefusal:
    """An `isolation.service.Refusal`."""

    def __init__(self, sock: socket.socket, _material: object, reason: str) -> None:
        """Refuse the context at `sock`."""
        self._sock = sock
        self._reason = reason
        self._said = False

    def hear(self) -> bool:
        """Say so, and wait for the device to hang up."""
        if not self._said:
            self._said = True
            send_message(self._sock, wire.KIND.pack(wire.Up.FATAL) + self._reason.encode()[:1000])
        try:
            return bool(self._sock.recv(1 << 16))
        except BlockingIOError:
            return True
