"""A GPU and clients of it, simulated: what `isolation.shares` decides, with a clock of its own.

The GPU works for all clients alike that have something submitted, as one that slices time does; or
it finishes what was submitted first, as NVIDIA's do with dispatches of some milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field

from hesper.isolation.shares import HELD, HOLD, MEASURE, SINCE, TOLD, USED, WAKE, Shares

STEP = 100_000
"""Nanoseconds of a step of the simulation."""


@dataclass(eq=False)
class Client:
    """Submits a job when it has none, `rest` after the last; or when it pleases, as a liar does."""

    name: str
    job: int
    """Nanoseconds of the GPU's time."""
    rest: int = 0
    luck: float = 1.0
    """What part it gets of what all get that have something submitted; 1 is as the others."""
    lies: Callable[[Client, memoryview, int], None] | None = None
    """Writes to the page in the worker's place: what it likes, at that time."""
    left: float = 0.0
    """Nanoseconds of the GPU's time that are left of its job."""
    idle_until: int = 0
    began: int = 0
    submitted: int = 0
    got: float = 0.0
    """What it has been given of the GPU's time."""
    waited: int = 0
    """Nanoseconds for which it was held."""
    words: memoryview = field(default_factory=lambda: memoryview(b""))


class Gpu:
    """Life: made, clients `enter`, `run`."""

    def __init__(self, *, slices: bool = True) -> None:
        """Nothing has happened.  slices: whether it works for all alike."""
        self._slices = slices
        self.now = 1_000_000_000
        self.shares: Shares[str] = Shares(lambda: self.now, self._ran)
        self.clients: list[Client] = []
        self.looks = 0
        self._look_at: int | None = None

    def enter(self, client: Client, weight: float = 1.0) -> Client:
        """Let a client in."""
        fd = self.shares.join(client.name, weight, len(self.clients))
        client.words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")
        self.clients.append(client)
        return client

    def _ran(self, process: int) -> int:
        """How long processors have run for a client, where it is them that draw."""
        return int(self.clients[process].got)

    def leave(self, client: Client) -> None:
        """Let it go."""
        self.clients.remove(client)
        self.shares.leave(client.name)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + int(seconds * 1e9)
        while self.now < end:
            for client in self.clients:
                self._submit(client)
            at_work = [client for client in self.clients if client.left > 0]
            if not self._slices and at_work:
                at_work = [min(at_work, key=lambda client: client.submitted)]
            luck = sum(client.luck for client in at_work)
            for client in at_work:
                self._work(client, STEP * client.luck / luck)
            self.now += STEP
            for client in self.clients:
                if client.lies is not None:
                    client.lies(client, client.words, self.now)
            if self._look_at is not None and self.now >= self._look_at:
                self.looks += 1
                pause = self.shares.look()
                self._look_at = None if pause is None else self.now + int(pause * 1e9)

    def _submit(self, client: Client) -> None:
        """What `share_wait` and `share_begin` do."""
        words, told = client.words, client.words[TOLD]
        if client.left > 0 or self.now < client.idle_until:
            return
        if told & HOLD and client.lies is None:
            words[HELD] = 1
            client.waited += STEP
            return
        words[HELD] = 0
        client.left = client.job
        client.submitted = self.now
        if told & MEASURE:
            words[SINCE] = client.began = self.now
            if told & WAKE and self.shares.wake():
                self._look_at = self.now + 2_000_000

    def _work(self, client: Client, time: float) -> None:
        client.left -= time
        client.got += time
        if client.left > 0:
            return
        client.idle_until = self.now + STEP + client.rest
        words = client.words
        if words[SINCE]:
            words[USED] += self.now + STEP - words[SINCE]
            words[SINCE] = 0
