"""A GPU's device, its VMM and its workers, all on one thread: each runs when another waits for it.

So nothing waits for real, and an input does the same each time.
"""

from __future__ import annotations

import heapq
import select
import socket
from collections.abc import Callable

from frontend import Frontend
from gpu_vm import CAPSET, WINDOW, Worker

from hesper.display.scanout import Display, Size
from hesper.event_loop import EventLoop
from hesper.gpu.device import GpuDevice
from hesper.gpu.limits import Limits
from hesper.gpu.wire import CONFIG, QUEUE_COUNT
from hesper.portable import recv_message
from hesper.vhost.backend import Backend
from hesper.vhost_user_gpu import VhostUserDevice

MEMORY = 1 << 20
MOST_ROUNDS = 256
"""Rounds in which all comes to rest; a guest can keep a device busy for ever."""


class Turns(EventLoop):
    """The device's loop, a round at a time."""

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do at once."""
        return bool(self._calls) or bool(self._selector.select(0))

    def pass_time(self) -> None:
        """Call what is due next, as if it were that time."""
        if self._due:
            heapq.heappop(self._due)[2]()


class PolledWorker(Worker):
    """A worker that handles what has come when it is asked to."""

    def poll(self) -> bool:
        """Handle the next message, if there is one; whether there was."""
        if self.ended.is_set() or self.socket.fileno() < 0 or not _readable(self.socket):
            return False
        try:
            message = recv_message(self.socket)
            if message is not None:
                self.handle(*message)
                return True
        except OSError:
            pass
        self.ended.set()
        return True


class PolledFrontend(Frontend):
    """A front-end that lets the others run instead of waiting."""

    def __init__(self, sock: socket.socket, run: Callable[[], bool]) -> None:
        """`run` lets the others have a turn, and says whether they had something to do."""
        self._run = run
        self._polled: socket.socket | None = None
        super().__init__(sock, queues=QUEUE_COUNT, config_size=CONFIG.size, size=MEMORY)

    def _listen(self, channel: socket.socket) -> None:
        self._polled = channel

    def _receive(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            for _ in range(MOST_ROUNDS):
                if _readable(sock) or not self._run():
                    break
            if not _readable(sock):
                # Whoever has sent half a message gets no more answers.
                raise TimeoutError("the back-end does not answer")
            chunk = sock.recv(size - len(data))
            if not chunk:
                raise ConnectionError("the back-end has closed the connection")
            data += chunk
        return data

    def poll(self) -> bool:
        """Answer the back-end's next request, if there is one; whether there was."""
        if self._polled is None or self._main_loop.locked() or not _readable(self._polled):
            return False
        try:
            self._serve_request(self._polled)
        except (OSError, ValueError):
            self._polled = None
        return True


class Machine:
    """A device with a guest.  Life: made, used, `close`d."""

    def __init__(self, limits: Limits) -> None:
        """Connect the guest, whose driver is not loaded."""
        self.loop = Turns()
        self.workers: list[PolledWorker] = []
        self._is_connected = True
        self.display = Display(2, Size(1280, 800), lambda _: self.device.post_display_event())
        self.device = GpuDevice(
            self.display, self.loop,
            connect=self._connect, capset=CAPSET, window=WINDOW, limits=limits,
        )  # fmt: skip
        ours, theirs = socket.socketpair()
        Backend(theirs, VhostUserDevice(self.device, self.loop), self.loop, self._disconnected)
        self.frontend = PolledFrontend(ours, self._run)
        self.frontend.realize()

    def _disconnected(self) -> None:
        self._is_connected = False

    def _connect(self, _program: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.workers.append(PolledWorker(theirs))
        return ours

    def _run(self) -> bool:
        """Let the device and its workers do what is to be done; whether there was something."""
        is_busy = self.loop.is_busy
        if is_busy:
            self.loop.run_once(0)
        for worker in self.workers:
            is_busy |= worker.poll()
        return is_busy

    def settle(self) -> None:
        """Let all come to rest."""
        for _ in range(MOST_ROUNDS):
            was_busy = self._run()
            if not self.frontend.poll() and not was_busy:
                return

    def pass_time(self) -> None:
        """Let the next timer of the device run out."""
        self.loop.pass_time()

    def close(self) -> None:
        """End the VMM, then all."""
        self.frontend.close()
        for _ in range(MOST_ROUNDS):
            if not self._is_connected:
                break
            self.loop.run_once(0)
        if self._is_connected:
            raise RuntimeError("the device has not noticed that the VMM is gone")
        self.device.close()
        self.loop.close()
        for worker in self.workers:
            worker.socket.close()


def _readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])
