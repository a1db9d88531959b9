"""A GPU and clients of it, simulated: what `isolation.shares` decides, with a clock of its own.

The GPU works for all clients alike that have something submitted, as one that slices time does; or
it gives each a turn, one after the other, as an NVIDIA H200 was seen to do: a dispatch of some
milliseconds is not interrupted, and what follows it, be it only to say that it is done, is left for
the next turn if somebody else waits for his.
"""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hesper.isolation.sharer import DONE, HELD, HOLD, MEASURE, SINCE, TOLD, USED, WAKE
from hesper.isolation.shares import Shares

STEP = 100_000
"""Nanoseconds of a step of the simulation."""
TURN = 1_000_000
"""Nanoseconds after which a turn ends with what is at work."""


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
    is_ending: bool = False
    """Whether its job is done and it has not been told."""
    began: int = 0
    got: float = 0.0
    """What it has been given of the GPU's time."""
    waited: int = 0
    """Nanoseconds for which it was held."""
    latencies: list[int] = field(default_factory=list)
    """Nanoseconds of each job from when it wanted to submit it until it was done."""
    words: memoryview = field(default_factory=lambda: memoryview(b""))


class Gpu:
    """Life: made, clients `enter`, `run`."""

    def __init__(self, *, slices: bool = True) -> None:
        """Nothing has happened.  slices: whether it works for all alike."""
        self._slices = slices
        self._turn = 0
        self._random = random.Random(1)
        self.now = 1_000_000_000
        self.shares: Shares[str] = Shares(lambda: self.now, self._ran)
        self.clients: list[Client] = []
        self.looks = 0
        self.late = 0.0
        """Seconds that each look comes after the last at least."""
        self._look_at: int | None = None

    def enter(self, client: Client, weight: float = 1.0) -> Client:
        """Let a client in."""
        client.idle_until = max(client.idle_until, self.now)
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
            if not self._slices:
                at_work = self._whose_turn()
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
                self._look_at = (
                    None if pause is None else self.now + int(max(pause, self.late) * 1e9)
                )

    def _whose_turn(self) -> list[Client]:
        """Whoever the GPU works for where it interrupts nothing, if anybody."""
        for _ in self.clients:
            self._turn %= len(self.clients)
            client = self.clients[self._turn]
            if client.is_ending:
                self._done(client)
            if client.left > 0:
                return [client]
            self._turn += 1
        return []

    def _submit(self, client: Client) -> None:
        """What `share_wait` and `share_begin` do."""
        words, told = client.words, client.words[TOLD]
        if client.left > 0 or client.is_ending or self.now < client.idle_until:
            return
        if told & HOLD and client.lies is None:
            words[HELD] = 1
            client.waited += STEP
            return
        words[HELD] = 0
        client.left = client.job
        if told & MEASURE:
            words[SINCE] = client.began = self.now
            if told & WAKE and self.shares.wake():
                self._look_at = self.now + 2_000_000

    def _work(self, client: Client, time: float) -> None:
        client.left -= time
        client.got += time
        if client.left > 0:
            return
        others = any(each.left > 0 for each in self.clients if each is not client)
        if not self._slices and client.job >= TURN and others:
            client.is_ending = True
        else:
            self._done(client)

    def _done(self, client: Client) -> None:
        client.is_ending = False
        client.latencies.append(self.now + STEP - client.idle_until)
        # Who rests does not do so for the same time each time.
        client.idle_until = self.now + STEP + client.rest * self._random.randint(90, 130) // 100
        words = client.words
        if words[SINCE]:
            words[USED] += self.now + STEP - words[SINCE]
            words[DONE] += 1
            words[SINCE] = 0
            if words[TOLD] & HOLD and self._look_at is not None:
                soon = self.shares.hurry(client.name)
                self._look_at = self._look_at if soon is None else self.now + int(soon * 1e9)
