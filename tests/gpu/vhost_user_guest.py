"""A guest whose VMM speaks vhost-user."""

from __future__ import annotations

import socket

from frontend import Frontend
from gpu_guest import Guest, Posted

from hesper.gpu.wire import CONFIG, CONTROL_QUEUE, QUEUE_COUNT, SHM_ID_HOST_VISIBLE


class VhostUserGuest(Guest):
    """Life: made with the socket to a back-end; the VMM has made the device by then."""

    def __init__(self, sock: socket.socket) -> None:
        """Talk over `sock`."""
        self.frontend = Frontend(sock, queues=QUEUE_COUNT, config_size=CONFIG.size)
        self.frontend.realize()
        self.memory = self.frontend.memory
        self.maps = self.frontend.maps
        self.mapped_fds = self.frontend.mapped_fds

    @property
    def heap(self) -> int:
        return self.frontend.heap

    @heap.setter
    def heap(self, offset: int) -> None:
        self.frontend.heap = offset

    @property
    def config_changes(self) -> int:  # type: ignore[override]
        return self.frontend.config_changes

    def start(self) -> None:
        self.frontend.start()

    def restart(self) -> None:
        self.frontend.stop_queues()
        # Asking the VMM for that would crash QEMU.
        self.frontend.drop_maps()
        self.frontend.start()

    def close(self) -> None:
        self.frontend.close()
        assert self.frontend.regions <= {SHM_ID_HOST_VISIBLE}

    def delay_maps(self) -> None:
        self.frontend.map_held.clear()
        self.frontend.hold_maps.clear()

    def wait_delayed_map(self) -> None:
        assert self.frontend.map_held.wait(30)

    def allow_maps(self) -> None:
        before = self.frontend.answered
        self.frontend.hold_maps.set()
        self.frontend.wait_answered(before + 1)

    def wait_maps(self, count: int) -> None:
        self.frontend.wait_maps(count)

    def config(self) -> tuple[int, ...]:
        return CONFIG.unpack(self.frontend.read_config())

    def clear_events(self, events: int) -> None:
        self.frontend.write_config(CONFIG.pack(0, events, 0, 0, 0))

    def wait_config_changes(self, count: int) -> None:
        self.frontend.wait_config_changes(count)

    def allocate(self, size: int) -> int:
        return self.frontend.allocate(size)

    def post(
        self, request: bytes, *, queue: int = CONTROL_QUEUE, response_size: int = 2048
    ) -> Posted:
        return self.frontend.post(request, queue=queue, response_size=response_size)

    def take(self, queue: int = CONTROL_QUEUE, *, timeout: float = 0) -> tuple[int, int] | None:
        ring = self.frontend.queues[queue]
        done = ring.take_used()
        if done is None and timeout:
            ring.call.wait_briefly(timeout)
            done = ring.take_used()
        if done is not None:
            ring.free.append(done[0])
        return done
