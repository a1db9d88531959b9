"""The supervisor: accepts clients, hands each to a worker process, sees workers come and go.

It is small and single-threaded, never loads Vulkan, and never waits for a worker.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from hesper import log
from hesper.errors import StartError, start_error
from hesper.isolation.crew import Crew
from hesper.isolation.doorstep import Admission, Doorstep
from hesper.isolation.entrance import Entrance
from hesper.isolation.gpus import Gpu, Gpus
from hesper.isolation.peers import Rates
from hesper.isolation.serving import Serving
from hesper.isolation.shader_caches import ShaderCaches
from hesper.isolation.survey import Survey
from hesper.isolation.total import Total
from hesper.isolation.turns import Turns
from hesper.isolation.waiting import WaitingClient, WaitingRoom
from hesper.log import get_logger
from hesper.portable import processors

if TYPE_CHECKING:
    from hesper.figures import ContextFigures
    from hesper.isolation.listen import Listener
    from hesper.isolation.tracing import OnContext
    from hesper.isolation.worker_process import WorkerProcess
    from hesper.sandbox import Mode

PLACE_PATIENCE = 5.0
"""Seconds for which a client waits for another to leave, where all places are taken."""
RETIRED_LOOK = 0.2
"""Between two looks whether the last client of one that has retired is gone."""

OnReady: TypeAlias = Callable[[list[dict[str, Any]]], None]
"""Called with what services say `about` each GPU."""

_log = get_logger(__name__)


def _hand(found: list[Any], done: Callable[[], None], what: list[Any]) -> None:
    found += what
    done()


class Supervisor:
    """Serves clients until it is told to stop.

    Life: construct, `run` once, on any thread.  Only `stop` and `serving` may come from others.  It
    takes no signals, and leaves the process as it is otherwise.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        service: str,
        options: dict[str, Any] | Sequence[dict[str, Any]],
        *,
        warm: int = 2,
        max_clients: int = 64,
        patience: float = 30.0,
        admission: Admission = Admission(),  # noqa: B008  immutable
        sandbox: Mode = "on",
    ) -> None:
        """Take over `listeners`; `run` closes them.

        service: module that workers serve by, see `hesper.isolation.service`; options: for its
        `prepare`; several: for one GPU each, see `isolation.gpus`.  warm: workers kept ready, of
        each.  max_clients: clients served at a time.
        patience: seconds in which a client is served or refused.
        admission: what is asked of clients, and how they are told that they are not served.
        sandbox: how workers are confined.  Raises `OSError`.
        """
        self._hurry = max(2, processors())
        self._max_clients = max_clients
        self._patience = patience
        self._turns = Turns()
        every = [options] if isinstance(options, dict) else list(options)
        crews = [Crew(self._turns, service, each, sandbox) for each in every]
        total: Total[WorkerProcess] | None = Total(admission.memory) if admission.memory else None
        self._caches = admission.caches or ShaderCaches()
        self._gpus = Gpus(self._turns, crews, max(1, warm), total, self._caches)
        recording = every[0].get("recording")
        self._serving = Serving(self._turns, self._gpus, self._caches, admission, recording)
        if admission.shares and max_clients > 1:
            self._gpus.share()
        for gpu in self._gpus.all:
            gpu.crew.on_settled = partial(self._settled, gpu)
            gpu.crew.on_hopeless = self._hopeless
            gpu.crew.on_change = self._refill
            gpu.crew.on_end = self._serving.end
        self._survey = Survey(self._turns, self._gpus)
        self._seen: list[ContextFigures] = []
        self._room = WaitingRoom(self._turns, admission.refuse)
        self._doorstep = Doorstep(self._turns, admission, self._let_in)
        self._entrance = Entrance(self._turns, listeners, self._doorstep, self._room, self._refill)
        self._rates = Rates()
        self._full_said = False
        self._has_begun = False
        self._stopping = False
        self._retired = False
        self._failed: StartError | None = None
        self._on_ready: OnReady = lambda _: None

    def begin(self) -> None:
        """Start what workers come from, as a child of this thread; else `run` does.

        For a thread that outlives `run`, as a program's main thread: there the children of a
        process are looked for.
        """
        if not self._has_begun:
            self._has_begun = True
            for gpu in self._gpus.all:
                gpu.crew.begin()

    def run(self, on_ready: OnReady) -> None:
        """Serve until `stop`, then stop the workers and close the sockets.

        on_ready: called once with what services say `about` each GPU when a worker of each can
        serve.
        Raises `StartError` when no worker can ever serve.
        """
        self._on_ready = on_ready
        try:
            self._entrance.reserve()
            self.begin()
            log.get_ready()  # while that starts
            self._caches.begin(self._turns.call, self._serving.spoil)
            self._refill()
            while not self._stopping or self._gpus.workers:
                self._turns.turn()
        finally:
            self._end()
        if self._failed is not None:
            raise self._failed

    def stop(self, *, at_once: str = "") -> None:
        """Stop in order: no more clients, workers told, then killed.  May be called again.

        at_once: why workers are killed without having been told.  `run` returns later.
        From any thread, and from a signal's handler.
        """
        self._turns.call(lambda: self._stop(at_once))

    def _stop(self, at_once: str = "") -> None:
        if at_once:
            for gpu in self._gpus.all:
                gpu.crew.kill_all(at_once)
        if self._stopping:
            return
        self._stopping = True
        self._entrance.close()
        for gpu in self._gpus.all:
            gpu.crew.stop()

    def retire(self, kept: Collection[int], patience: float) -> int | None:
        """Take no more clients: those that are there stay, and `run` returns after the last.

        kept: those listeners, by their places, are another server's from now on.  Returns a number
        that no number of a client is above; None where that is not known after so many seconds of
        patience.  From any other thread.
        """
        found: list[int] = []
        self._call(lambda done: _hand(found, done, [self._retire(kept)]), patience)
        return found[0] if found else None

    def _retire(self, kept: Collection[int]) -> int:
        if not self._retired and not self._stopping:
            self._retired = True
            self._entrance.close(kept)
            left = self.serving + self._expected
            _log.info("retired: another server takes clients", clients=left)
            for gpu in self._gpus.all:
                gpu.crew.discharge(self._expected)
            self._turns.after(0.0, self._see_last_out)
        return self._serving.number + self._expected

    @property
    def _expected(self) -> int:
        """How many have come that are not served yet."""
        return len(self._doorstep) + len(self._room)

    def _see_last_out(self) -> None:
        """End when nobody is left."""
        if self._stopping:
            return
        if self.serving or self._expected:
            self._turns.after(RETIRED_LOOK, self._see_last_out)
        else:
            self._stop()

    def count_from(self, number: int) -> None:
        """Number clients from there on.  Before there are any: in `run`'s `on_ready`."""
        self._serving.number = number

    def _settled(self, gpu: Gpu, found: dict[str, Any]) -> None:
        """The first worker of a GPU is ready."""
        gpu.learn(found["about"])
        self._room.learn(found["refusal"])
        if not self._gpus.are_settled or self._stopping:
            return
        self._on_ready([each.about for each in self._gpus.all])
        self._entrance.keep_paths()

    def _hopeless(self, kind: str, why: str) -> None:
        """No worker can start."""
        self._failed = start_error(kind, why)
        self._stop()

    def survey(self, seconds: float, patience: float) -> list[ContextFigures]:
        """What all clients do; after so many seconds of patience what they did the last time.

        From any other thread.  seconds: their queues are timed for so long from now on.
        """
        found: list[ContextFigures] = []
        if self._call(
            lambda done: self._survey.ask(seconds, partial(_hand, found, done)), patience
        ):
            self._seen = found
        return self._seen

    def end(self, client: int, why: str, patience: float) -> bool:
        """End a client; whether there is one of that number.  From any other thread."""
        found: list[bool] = []
        self._call(lambda done: _hand(found, done, [self._survey.end(client, why)]), patience)
        return found == [True]

    def trace(self, seconds: float, on_context: OnContext, patience: float) -> bool:
        """Trace all clients for so long; see `Survey.trace`.  From any other thread."""
        found: list[bool] = []
        self._call(
            lambda done: _hand(found, done, [self._survey.trace(seconds, on_context)]), patience
        )
        return found == [True]

    def end_trace(self, on_context: OnContext) -> None:
        """Tell `on_context` of no clients any more.  From any thread."""
        self._turns.call(lambda: self._survey.end_trace(on_context))

    def _call(self, action: Callable[[Callable[[], None]], None], patience: float) -> bool:
        """Have `action` called in a turn; whether it has called what it is given in that time."""
        over = threading.Event()
        self._turns.call(lambda: action(over.set))
        return over.wait(patience)

    @property
    def serving(self) -> int:
        """How many clients are served now."""
        return self._serving.count

    def _refill(self) -> None:
        """Serve those who wait, start workers until enough are ready, and accept clients."""
        if self._stopping:
            return
        with contextlib.suppress(OSError):
            self._entrance.reserve()
        self._hand_out()
        places = min(self._max_clients - self.serving, self._hurry)
        most = self._expected if self._retired else None
        for gpu in self._gpus.all:
            waiting = self._room.first(places, partial(self._may_on, gpu.number))
            gpu.refill([client.shaders for client in waiting], most)
        self._entrance.open(wanted=self._gpus.are_settled and not self._retired)

    def _hand_out(self) -> None:
        """Let workers that are ready serve those who wait."""
        for gpu in self._gpus.all:
            while self.serving < self._max_clients and gpu.crew.count("ready"):
                client = self._room.call(partial(self._may_now, gpu))
                worker = gpu.crew.a_ready(client.shaders) if client is not None else None
                if worker is None or client is None:
                    break
                self._serve(worker, client)
        full = self.serving >= self._max_clients
        if full and not self._full_said:
            _log.warning("all places are taken", max_clients=self._max_clients)
        self._full_said = full

    def _let_in(self, client: WaitingClient) -> None:
        """Have a client wait that has introduced itself; mostly it need not."""
        client.yields = not self._rates.count(client.peer)
        if client.yields:
            client.log.info("client waits for others: its process connects too often")
        client.gpu = self._gpus.choose(client, self._room.count_on)
        self._serving.sort(client)
        client.timer = self._turns.after(
            min(PLACE_PATIENCE, self._patience), lambda: self._still_waits(client)
        )
        self._room.enter(client)
        excess = self._room.excess(self._max_clients - self.serving)
        if excess is not None:
            self._send_away(excess)
        self._refill()

    def _may(self, client: WaitingClient) -> bool:
        """Whether a client's process and user have places left."""
        return self._serving.refusal(client) is None

    def _may_on(self, gpu: int, client: WaitingClient) -> bool:
        """Whether it may be served, and is to be on that GPU."""
        return client.gpu == gpu and self._may(client)

    def _may_now(self, gpu: Gpu, client: WaitingClient) -> bool:
        """Whether it may be served there, and a worker is ready for it."""
        return self._may_on(gpu.number, client) and gpu.crew.a_ready(client.shaders) is not None

    def _still_waits(self, client: WaitingClient) -> None:
        """A client has waited for a while: for a place, which is enough, or for a worker."""
        left = self._patience - (time.monotonic() - client.since)
        if self.serving < self._max_clients and self._may(client) and left > 0:
            client.timer = self._turns.after(left, lambda: self._send_away(client))
        else:
            self._send_away(client)

    def _send_away(self, client: WaitingClient) -> None:
        over = self._serving.refusal(client)
        if self.serving >= self._max_clients:
            self._room.send_away(client, "all places are taken", max_clients=self._max_clients)
        elif over is not None:
            self._room.send_away(client, over[0], **over[1])
        elif failure := self._gpus.all[client.gpu].crew.failure:
            self._room.send_away(client, f"no worker can start: {failure}")
        else:
            self._room.send_away(client, "too many clients at once: no worker was ready in time")

    def _serve(self, worker: WorkerProcess, client: WaitingClient) -> None:
        """Hand a client to a worker that is ready."""
        self._serving.begin(worker, client)
        self._survey.began(worker)
        self._gpus.of(worker).served(worker.since, self._refill)

    def _end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        self._entrance.close()
        self._doorstep.close()
        self._room.close()
        self._gpus.end()
        self._turns.close()
        self._entrance.release()
