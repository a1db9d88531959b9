"""Tells a vtest client that it will not be served, without a worker.

Its vkCreateInstance then fails with VK_ERROR_OUT_OF_HOST_MEMORY.  That takes a whole handshake:
what fails earlier leaves Mesa's client with an instance that has no devices, so that a program goes
on with another driver and nobody is told (`vn_CreateInstance`).  The first resource that the client
asks for, the memory of its ring, is one that it cannot map.
"""

from __future__ import annotations

import os
import socket

from hesper.portable import receive_plain
from hesper.protocol.virtgpu import MAX_TIMELINES
from hesper.vtest import wire
from hesper.vtest.wire import Command

_LONGEST = wire.HEADER.size + wire.MAX_NAME
_RESOURCE = 1
_NUMBERS = {int(command) for command in Command}


class VtestRefuser:
    """An `isolation.service.Refuse`."""

    def __init__(self) -> None:
        """Be ready: later there may be no descriptor left."""
        self._unmappable = os.open(os.devnull, os.O_RDONLY)

    def __call__(self, sock: socket.socket, capset: str, _reason: str) -> VtestRefusal:
        """Refuse the client at `sock`.

        capset: what guests are told of the renderer, in hexadecimal digits.
        """
        return VtestRefusal(sock, bytes.fromhex(capset), self._unmappable)

    def close(self) -> None:
        """Refuse nobody any more, and let go of the descriptor."""
        os.close(self._unmappable)


class VtestRefusal:
    """An `isolation.service.Refusal`."""

    def __init__(self, sock: socket.socket, capset: bytes, unmappable: int) -> None:
        """Use `VtestRefuser`."""
        self._sock = sock
        self._capset = capset
        self._unmappable = unmappable
        self._data = b""

    def hear(self) -> bool:
        """Answer what has come."""
        try:
            data = receive_plain(self._sock, _LONGEST)
        except BlockingIOError:
            return True
        self._data += data
        goes_on = bool(data)
        while goes_on and len(self._data) >= wire.HEADER.size:
            length, number = wire.HEADER.unpack_from(self._data)
            request = wire.REQUESTS.get(Command(number)) if number in _NUMBERS else None
            if request is None or not request.shortest <= length * request.unit <= _LONGEST:
                return False
            end = wire.HEADER.size + length * request.unit
            if len(self._data) < end:
                break
            body, self._data = self._data[wire.HEADER.size : end], self._data[end:]
            goes_on = self._answer(number, body)
        return goes_on

    def _answer(self, number: int, body: bytes) -> bool:
        """Answer one command; False to one that no client sends who has been refused."""
        if number == Command.PING_PROTOCOL_VERSION:
            self._sock.send(wire.HEADER.pack(0, number))
        elif number == Command.RESOURCE_BUSY_WAIT:
            self._sock.send(wire.REPLY_U32.pack(1, number, 0))
        elif number == Command.PROTOCOL_VERSION:
            self._sock.send(wire.REPLY_U32.pack(1, number, wire.PROTOCOL_VERSION))
        elif number == Command.GET_PARAM:
            known = body == wire.U32.pack(wire.Param.MAX_TIMELINE_COUNT)
            value = MAX_TIMELINES if known else 0
            self._sock.send(wire.REPLY_TWO_U32.pack(2, number, known, value))
        elif number == Command.GET_CAPSET:
            head = wire.REPLY_U32.pack(1 + len(self._capset) // 4, number, 1)
            self._sock.send(head + self._capset)
        elif number == Command.RESOURCE_CREATE_BLOB:
            self._sock.send(wire.REPLY_U32.pack(1, number, _RESOURCE))
            socket.send_fds(self._sock, [b"\0"], [self._unmappable])
        else:
            return number in {
                Command.CREATE_RENDERER,
                Command.CONTEXT_INIT,
                Command.RESOURCE_UNREF,
            }
        return True
