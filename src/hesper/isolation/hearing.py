"""What workers say of the clients that they serve, none of which is taken for the truth."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hesper.isolation.channel import ChannelError
from hesper.isolation.shares import TICK
from hesper.log import emit
from hesper.sandbox.needs import every_need, to_preload

if TYPE_CHECKING:
    from hesper.isolation.shares import Shares
    from hesper.isolation.total import Total
    from hesper.isolation.turns import Timer, Turns
    from hesper.isolation.worker_process import WorkerProcess

Order = Callable[..., None]
"""As `Crew.order`."""


class Hearing:
    """Takes note of it, and answers."""

    def __init__(self, turns: Turns, order: Order) -> None:
        """order: tells a worker."""
        self.on_figures: Callable[[WorkerProcess, dict[str, Any]], None] = lambda _, __: None
        """Called with what a worker says its client does."""
        self.total: Total[WorkerProcess] | None = None
        """What all clients may have together, on other GPUs too, if they are bounded."""
        self.shares: Shares[WorkerProcess] | None = None
        """How clients share the GPU's time, if they do."""
        self._next_look: Timer | None = None
        self._turns = turns
        self._order = order

    def hear(self, worker: WorkerProcess, kind: str, message: dict[str, Any]) -> bool:
        """Take note of what a worker says of its client; False for nothing of the kind.

        Raises `ChannelError`, and what comes of other values than there should be.
        """
        if kind == "named":
            worker.name = str(message["name"])[:100]
            worker.log.info("client connected")
        elif kind == "log":
            fields = dict(message["fields"])
            emit(
                str(message["level"]),
                str(message["logger"])[:100],
                str(message["event"]),
                worker.fields | {k: v for k, v in fields.items() if k not in worker.fields},
                worker.who,
            )
        elif kind in ("wants", "gives"):
            self._share(worker, kind, int(message["lease"]))
        elif kind == "figures":
            self.on_figures(worker, message)
        elif kind == "works":
            self._works(worker)
        elif kind == "end":
            self._ends(worker, str(message["reason"]))
        elif kind == "crashed":
            worker.note_crash(message)
        else:
            return False
        return True

    def _share(self, worker: WorkerProcess, kind: str, lease: int) -> None:
        """Grant more of the memory of all clients, or take note of what is given back."""
        if self.total is None or worker.state != "serving":
            raise ChannelError(f"{kind!r} while {worker.state}")
        if kind == "gives":
            self.total.shrink(worker, lease)
        else:
            self._order(worker, "lease", lease=self.total.grow(worker, lease))

    def _works(self, worker: WorkerProcess) -> None:
        """Look from now on at who uses the GPU, if several clients do."""
        if self.shares is None or worker.state != "serving":
            raise ChannelError(f"'works' while {worker.state}")
        seconds = TICK if self.shares.wake() else self.shares.hurry(worker)
        if seconds is not None:
            self._look_later(seconds)

    def _look_later(self, seconds: float) -> None:
        """Look then, and not when it was to be before."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._turns.after(seconds, self._look)

    def _look(self) -> None:
        if self.shares is not None and self.shares.is_awake:
            seconds = self.shares.look()
            if seconds is not None:
                self._look_later(seconds)

    def _ends(self, worker: WorkerProcess, reason: str) -> None:
        """Log at once why a client is ended: its worker waits for that."""
        worker.reason = reason
        if worker.state == "serving" and not worker.is_told and not worker.killed:
            worker.is_told = True
            worker.log.error("client ended", reason=reason)
            self._order(worker, "noted")


def named_by_the_table(options: object) -> list[str]:
    """Files of a first worker's options that the process is to load which workers are forked from.

    Nothing confines that process, so what a worker says is not enough: of each file, `needs.toml`
    has the name.  Raises `TypeError` where they are no options.
    """
    if not isinstance(options, dict):
        raise TypeError("options are no object")
    files = options.get("preload", [])
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise TypeError("preload is no list of files")
    return to_preload(filter(os.path.isabs, files), every_need())
