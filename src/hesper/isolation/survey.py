"""What clients do, asked of their workers now and then, and traces of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from hesper.figures import ContextFigures, Figures, no_less
from hesper.isolation.channel import ChannelError
from hesper.isolation.tracing import OnContext, Trace

if TYPE_CHECKING:
    from hesper.isolation.gpus import Gpus
    from hesper.isolation.turns import Turns
    from hesper.isolation.worker_process import WorkerProcess

ANSWER_SECONDS = 0.3
"""Who has not answered by then is shown as it was."""
FRESH_SECONDS = 0.1
"""Who has answered so lately is not asked again."""
Done = Callable[[list[ContextFigures]], None]


class Survey:
    """Asks the workers of all GPUs, on the thread that its turns come on."""

    def __init__(self, turns: Turns, gpus: Gpus) -> None:
        """Nobody is asked yet."""
        self._turns = turns
        self._gpus = gpus
        self._waiting: list[_Question] = []
        self._trace = Trace()
        gpus.on_figures = self._heard

    def ask(self, seconds: float, done: Done) -> None:
        """Call `done` soon with what all clients do.

        seconds: their queues are timed for so long from now on.
        """
        now = time.monotonic()
        asked = set()
        for worker in self._serving():
            is_fresh = now - worker.answered < FRESH_SECONDS and seconds <= worker.watch
            if worker.asked or is_fresh:
                continue
            worker.asked = True
            worker.watch = seconds
            self._gpus.order(worker, "figures", watch=seconds)
            asked.add(worker)
        question = _Question(asked, done)
        self._waiting.append(question)
        if asked:
            self._turns.after(ANSWER_SECONDS, partial(self._answer, question))
        else:
            self._answer(question)

    def _heard(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        """Take in what a worker answers.  Raises `ChannelError` for nonsense."""
        if not worker.asked:
            raise ChannelError("figures that nobody has asked for")
        said = {key: value for key, value in message.items() if key != "is"}
        try:
            figures = msgspec.convert(said, Figures)
        except msgspec.ValidationError as error:
            raise ChannelError(f"figures: {error}") from None
        worker.asked = False
        worker.answered = time.monotonic()
        worker.figures = no_less(figures, worker.figures)
        for question in tuple(self._waiting):
            question.asked.discard(worker)
            if not question.asked:
                self._answer(question)

    def _answer(self, question: _Question) -> None:
        if question not in self._waiting:
            return
        self._waiting.remove(question)
        now = time.monotonic()
        question.done([_figures_of(worker, now) for worker in self._serving()])

    def _serving(self) -> list[WorkerProcess]:
        """Those that serve clients, the oldest client first."""
        serving = [worker for worker in self._gpus.workers if worker.state == "serving"]
        return sorted(serving, key=lambda worker: worker.client)

    def end(self, client: int, why: str) -> bool:
        """End a client; whether there is one of that number."""
        for worker in self._serving():
            if worker.client == client:
                self._gpus.kill(worker, why)
                return True
        return False

    def trace(self, seconds: float, on_context: OnContext) -> bool:
        """Trace all clients for so long, those that come later as well; see `Trace`."""
        if not self._trace.begin(seconds, on_context):
            return False
        for worker in self._serving():
            self.began(worker)
        return True

    def end_trace(self, on_context: OnContext) -> None:
        """See `Trace.end`."""
        self._trace.end(on_context)

    def began(self, worker: WorkerProcess) -> None:
        """Trace a worker that serves a client, if there is a trace."""
        self._trace.add(
            worker.client,
            lambda fd, seconds: self._gpus.order(worker, "trace", [fd], seconds=seconds),
        )


class _Question:
    """Somebody waits for what those workers say."""

    def __init__(self, asked: set[WorkerProcess], done: Done) -> None:
        self.asked = asked
        self.done = done


def _figures_of(worker: WorkerProcess, now: float) -> ContextFigures:
    peer = worker.peer
    return ContextFigures.of(
        worker.client,
        worker.name,
        worker.figures,
        seconds=now - worker.since,
        process=peer.process if peer else 0,
        user=peer.user if peer else -1,
        gpu=worker.gpu,
        kind=worker.kind.name if worker.kind is not None else "",
    )
