"""A client whose messages a server serves, on an engine whose driver is the test's to drive."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from hesper.kernel.errors import ProtocolError, ResourceError
from hesper.kernel.handlers import Call
from hesper.protocol.codec import Codec
from hesper.sockets.connection import TruncatedError
from hesper.vtest.server import Server
from hesper.vtest.wire import Phase
from kernel.conftest import BOUND, Host
from vtest.vtest_client import Client, readable

QUEUE, OTHER_QUEUE, RING_IDX, OTHER_RING_IDX = 7, 8, 5, 6
PING = 10
"""A message that is not the server's to serve."""
CODEC = Codec()


class Served:
    """A client whose messages a server serves, on queues whose work is done when the test says so.

    Messages that the server does not serve are noted in `left_over`; it is not called again before
    `go_on` is set.
    """

    def __init__(self, library: Path, patience: int, **handlers: Callable[[Call], None]) -> None:
        self.driver = ctypes.CDLL(str(library))
        self.driver.reset()
        self.host = Host(library, object_limit=1000, handlers=handlers)
        engine = self.host.engine
        engine.set_patience(patience)
        self.timelines = []
        for queue, ring_idx in ((QUEUE, RING_IDX), (OTHER_QUEUE, OTHER_RING_IDX)):
            engine.objects.add(queue, "VkQueue", 10 * queue, device=3, parent=3)
            self.timelines.append(engine.timelines.bind(ring_idx, queue, lambda _: None))
        near, far = socket.socketpair()
        self.client = Client(near)
        self._served = far
        self.left_over: list[int] = []
        self.failure: Exception | None = None
        self.go_on = threading.Event()
        self._server = Server(far.fileno(), unmappable=-1, no_room=lambda *_: None)
        self._server.phase = Phase.RUNNING
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self._server.attach(self.host.engine.port())
        try:
            while (message := self._server.next()) is not None:
                self.left_over.append(message[0])
                assert self.go_on.wait(BOUND)
        except (ProtocolError, ResourceError, TruncatedError) as error:
            self.failure = error

    def submit(self, queue: int, ring_idx: int, sync: int, value: int) -> None:
        """Submit something to a queue, and let its end set `sync` to `value`."""
        parameters = {"queue": queue, "submitCount": 0, "pSubmits": None, "fence": 0}
        commands = CODEC.encode("vkQueueSubmit", parameters)
        self.client.submit((commands, [(sync, value)], ring_idx))

    def finish(self) -> None:
        """All submissions are done."""
        self.driver.finish(self.driver.submissions())

    def close(self) -> None:
        self.go_on.set()
        self.client.sock.close()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        self.finish()
        for timeline in self.timelines:
            timeline.stop(BOUND)
        self._server.close()
        self._served.close()


def expect(fd: int) -> None:
    """Wait until a client hears that its wait is over."""
    assert readable(fd)
    os.close(fd)
