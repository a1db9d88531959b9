"""What a device hears of a context that nobody serves."""

from __future__ import annotations

import socket

from hesper.gpu import context_wire as wire
from hesper.gpu.refusal import ContextRefusal
from hesper.portable import recv_message, send_message


def test_the_context_is_lost_with_the_reason() -> None:
    device, ours = socket.socketpair()
    ours.setblocking(False)
    with device, ours:
        send_message(device, wire.KIND.pack(wire.Down.NAME) + b"name")
        refusal = ContextRefusal(ours, None, "all places are taken")
        assert refusal.hear()
        answer = recv_message(device)
        assert answer == (wire.KIND.pack(wire.Up.FATAL) + b"all places are taken", [])
        assert refusal.hear()
        device.close()
        assert not refusal.hear()
