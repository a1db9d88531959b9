"""The GPUs of a server: a crew of workers for each, and to which of them a client comes.

A worker has one driver open, so that it can serve on one GPU alone; who shares the time of a GPU is
who is served on it.  A client goes to the GPU that has the fewest, unless its program has been on
one before: the contexts of one program share memory, which does not reach from one to another.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from hesper.isolation.shader_caches import Cache, ShaderCaches
from hesper.isolation.shares import Shares
from hesper.portable import own_memory, peer_container, processors

if TYPE_CHECKING:
    from hesper.isolation.crew import Crew
    from hesper.isolation.total import Total
    from hesper.isolation.turns import Turns
    from hesper.isolation.waiting import WaitingClient
    from hesper.isolation.worker_process import WorkerProcess

REFILL_DELAY = 5.0
"""Seconds after which a worker that took a client is replaced: the client's start needs the
processor more than the next worker's.  Where another client has come within that time more are to
be expected: it is replaced at once, by more than one."""
HURRIED_REFILL_DELAY = 0.5
"""The same when no other worker is ready.  A client that finds none is not made to wait for it."""
MOST_READY = 16
"""Workers that are kept ready then, or two a processor if that is fewer."""
SURPLUS_SECONDS = 10.0
"""Seconds without a client after which no more workers are kept ready than have been asked for."""
MOST_KNOWN = 1024
"""Programs whose GPU is known; the one that has not come for longest goes first."""


class Gpu:
    """One of them: its crew, and how many of that are ready for the next clients."""

    def __init__(self, number: int, turns: Turns, crew: Crew, warm: int) -> None:
        """number: from 0.  warm: workers kept ready."""
        self.number = number
        self.crew = crew
        self.about: dict[str, Any] = {}
        """What its first worker has found out, see `isolation.service`."""
        self.programs = 0
        """How many have come to it because it had the fewest clients."""
        self._likely = crew.caches.usual()
        """The cache of whom to expect: of who came last."""
        self._newcomers = False
        """Whether somebody without one is to be expected."""
        self._turns = turns
        self._warm = warm
        most = max(warm, min(2 * processors(), MOST_READY))
        self._recent: collections.deque[float] = collections.deque(maxlen=most)
        self._refill_at = 0.0
        self._trimming = False

    def learn(self, about: dict[str, Any]) -> None:
        """Take in what its first worker has found out."""
        self.about = about
        if self.crew.hearing.shares is not None:
            self.crew.hearing.shares.by_processor = bool(about.get("is_software"))

    @property
    def load(self) -> int:
        """How many clients it serves."""
        return self.crew.count("serving")

    def expect(self, cache: Cache, *, is_new: bool = False) -> None:
        """Expect clients with that cache, and such as have none yet."""
        self._newcomers = is_new
        if cache.key:  # else nobody will have it again
            self._likely = cache

    def served(self, moment: float, refill: Callable[[], None]) -> None:
        """Take note that a worker has taken a client; `refill` is called when that is due."""
        self._recent.append(moment)
        delay = REFILL_DELAY if self._ready() else HURRIED_REFILL_DELAY
        if self._lately() > 1:
            delay = 0.0
        self._refill_at = moment + delay
        self._turns.after(delay, refill)

    def _lately(self) -> int:
        """How many clients have been served a short time ago; so many at most as may be ready."""
        since = time.monotonic() - REFILL_DELAY
        return sum(moment >= since for moment in self._recent)

    def _ready(self) -> int:
        return self.crew.count("ready", cache=self._likely)

    def refill(self, waiting: Sequence[Cache], most: int | None) -> None:
        """Start workers: for those who wait, and for those who may come, `most` at most.

        waiting: their caches.
        """
        crew = self.crew
        for cache, count in collections.Counter(waiting).items():
            for _ in range(crew.hurrying(cache), count):
                if crew.is_able and crew.hurrying() < MOST_READY:
                    crew.start(cache, background=False)
        lately = self._lately()
        wanted = max(self._warm, lately) if lately > 1 else self._warm
        if most is not None:
            wanted = min(wanted, most)
        # The first finds out what the others need not: which driver to use.
        has = crew.count("starting", "ready", cache=self._likely)
        for _ in range(has, wanted if crew.is_settled else 1):
            self._start_ahead(self._likely, hurry=lately > 1)
        if self._newcomers and wanted and not crew.fresh():
            self._start_ahead(crew.caches.fresh(), hurry=False)
        self._trim_later()

    def _start_ahead(self, cache: Cache, *, hurry: bool) -> None:
        if self.crew.is_able and time.monotonic() >= self._refill_at:
            self.crew.start(cache, background=self.crew.is_settled, hurry=hurry)

    @property
    def _kept(self) -> int:
        """How many are kept ready for good."""
        return self._warm + self._newcomers

    def _trim(self) -> None:
        """End workers that nobody is likely to need any more."""
        self._trimming = False
        if self._recent and time.monotonic() - self._recent[-1] < SURPLUS_SECONDS:
            self._trim_later()
            return
        self.crew.discharge(self._kept, self._likely)

    def _trim_later(self) -> None:
        if not self._trimming and self.crew.count("ready") > self._kept:
            self._trimming = True
            self._turns.after(SURPLUS_SECONDS, self._trim)


class Gpus:
    """All of them.  Life: made, `begin`, used, `end`."""

    def __init__(
        self,
        turns: Turns,
        crews: Sequence[Crew],
        warm: int,
        total: Total[WorkerProcess] | None,
        caches: ShaderCaches | None = None,
    ) -> None:
        """crews: one for each GPU.  total: of all clients.

        caches: of shaders; None: none.
        """
        self.caches = caches or ShaderCaches()
        for crew in crews:
            crew.caches = self.caches
        self.all = [Gpu(number, turns, crew, warm) for number, crew in enumerate(crews)]
        self.total = total
        for gpu in self.all:
            gpu.crew.number = gpu.number
            gpu.crew.hearing.total = total
            gpu.crew.hearing.on_figures = self._figures
        self.on_figures: Callable[[WorkerProcess, dict[str, Any]], None] = lambda _, __: None
        """Called with what a worker says its client does."""
        self._known: collections.OrderedDict[Hashable, int] = collections.OrderedDict()

    def share(self) -> None:
        """Have the clients of each share its time."""
        for gpu in self.all:
            gpu.crew.hearing.shares = Shares()

    def _figures(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        self.on_figures(worker, message)

    def of(self, worker: WorkerProcess) -> Gpu:
        """That on which a worker serves."""
        return self.all[worker.gpu]

    @property
    def workers(self) -> list[WorkerProcess]:
        """All workers there are."""
        return [worker for gpu in self.all for worker in gpu.crew.workers]

    @property
    def are_settled(self) -> bool:
        """Whether a worker of each has ever been ready."""
        return all(gpu.crew.is_settled for gpu in self.all)

    def count(self, *states: str) -> int:
        """Count the workers in one of those states; from any thread."""
        return sum(gpu.crew.count(*states) for gpu in self.all)

    def choose(self, client: WaitingClient, waiting: Callable[[int], int]) -> int:
        """To which a client comes, by its number.  waiting: how many wait for one of them."""
        if len(self.all) == 1:
            return 0
        program = _program_of(client)
        place = self._known.get(program)
        if place is None or self.all[place].crew.failure:
            able = [gpu for gpu in self.all if not gpu.crew.failure] or self.all
            gpu = min(able, key=lambda gpu: (gpu.load + waiting(gpu.number), gpu.programs))
            gpu.programs += 1
            place = gpu.number
        self._known[program] = place
        self._known.move_to_end(program)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return place

    def order(self, worker: WorkerProcess, do: str, fds: Sequence[int] = (), **values: Any) -> None:
        """Tell a worker, see `Crew.order`."""
        self.of(worker).crew.order(worker, do, fds, **values)

    def kill(self, worker: WorkerProcess, why: str) -> None:
        """End a worker at once, see `Crew.kill`."""
        self.of(worker).crew.kill(worker, why)

    def audit(self) -> None:
        """End a worker that has more memory than it was granted, if memory is short."""
        if self.total is None:
            return
        serving = [worker for worker in self.workers if worker.state == "serving"]
        used = {worker: own_memory(worker.process.pid) for worker in serving}
        if (liar := self.total.liar(used)) is not None:
            granted = self.total.granted(liar)
            self.kill(liar, f"it has {used[liar]} bytes of memory, and was granted {granted}")

    def end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        for gpu in self.all:
            gpu.crew.end()
        self.caches.close()
        if self.total is not None:
            self.total.close()


def _program_of(client: WaitingClient) -> Hashable:
    """What a client is one of several contexts of: a container, a process, or else a user."""
    container = peer_container(client.sock)
    if container is not None:
        return "container", container
    peer = client.peer
    return ("process", peer) if peer.process else ("user", peer.user)
