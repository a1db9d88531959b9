"""A guest with a virtio-gpu driver; how its requests reach the device, its subclasses know."""

from __future__ import annotations

import abc
import time
from dataclasses import dataclass

from gpu_requests import request

from hesper.gpu.wire import CONTROL_QUEUE, HEADER

PATIENCE = 120.0
"""Seconds after which a wait fails the test."""

Posted = tuple[int, int]
"""A request on its way: which one, and the offset of its answer in guest memory."""


@dataclass
class Answer:
    """What the device said."""

    type: int
    flags: int
    fence_id: int
    ctx_id: int
    ring_idx: int
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        """Read an answer."""
        kind, flags, fence_id, ctx_id, ring_idx = HEADER.unpack_from(data)
        return cls(kind, flags, fence_id, ctx_id, ring_idx, data[HEADER.size :])


class Guest(abc.ABC):
    """One guest.  Life: made, `start`ed and `restart`ed, used, `close`d."""

    memory: memoryview
    heap: int
    """Where free guest memory begins; tests that need much set it back."""
    maps: dict[int, tuple[int, int]]
    """Live maps: offset in the host-visible region to length and inode of the file."""
    mapped_fds: dict[int, int]
    """Their descriptors, by offset."""
    config_changes: int

    # What the VMM does.

    @abc.abstractmethod
    def start(self) -> None:
        """Load the driver."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Reset the machine; the driver is loaded anew.  The VMM takes all maps away."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the VMM, as if it were killed."""

    @abc.abstractmethod
    def delay_maps(self) -> None:
        """Let the next map that the device asks for wait until `allow_maps`."""

    @abc.abstractmethod
    def wait_delayed_map(self) -> None:
        """Wait until it does."""

    @abc.abstractmethod
    def allow_maps(self) -> None:
        """Make it, and return when the VMM has."""

    @abc.abstractmethod
    def wait_maps(self, count: int) -> None:
        """Wait until there are `count` maps."""

    # The configuration space.

    @abc.abstractmethod
    def config(self) -> tuple[int, ...]:
        """Read it."""

    @abc.abstractmethod
    def clear_events(self, events: int) -> None:
        """Write `events_clear`."""

    @abc.abstractmethod
    def wait_config_changes(self, count: int) -> None:
        """Wait until the driver was told `count` times to read it again."""

    # Requests.

    @abc.abstractmethod
    def allocate(self, size: int) -> int:
        """Return the offset of fresh guest memory."""

    @abc.abstractmethod
    def post(
        self, request: bytes, *, queue: int = CONTROL_QUEUE, response_size: int = 2048
    ) -> Posted:
        """Make a request and do not wait for it."""

    @abc.abstractmethod
    def take(self, queue: int = CONTROL_QUEUE, *, timeout: float = 0) -> tuple[int, int] | None:
        """Take the next request that has come back, perhaps after a moment: which, answer's length.

        `timeout`: seconds.
        """

    def wait_any(self, queue: int = CONTROL_QUEUE) -> tuple[int, int]:
        """Wait for the next that comes back."""
        deadline = time.monotonic() + PATIENCE
        while (done := self.take(queue, timeout=0.1)) is None:
            assert time.monotonic() < deadline, "no answer"
        return done

    def wait(self, number: int, answer: int, *, queue: int = CONTROL_QUEUE) -> Answer:
        """Wait for the answer to a request, which must be the next that comes back."""
        done, length = self.wait_any(queue)
        assert done == number, "another request came back first"
        return self.read_answer(answer, length)

    def read_answer(self, offset: int, length: int) -> Answer:
        """Parse an answer of `length` bytes."""
        return Answer.parse(bytes(self.memory[offset : offset + length]))

    def send(self, data: bytes, *, queue: int = CONTROL_QUEUE) -> Answer:
        """Make a request and wait for its answer.  Memory is used again for the next."""
        heap = self.heap
        answer = self.wait(*self.post(data, queue=queue), queue=queue)
        self.heap = heap
        return answer

    def command(self, command: int, body: bytes = b"") -> Answer:
        """Send a request without a context and wait for its answer."""
        return self.send(request(command, body))
