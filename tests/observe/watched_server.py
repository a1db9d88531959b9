"""A server to be watched that is none: it says what a test wants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hesper.api.server import Served
from hesper.display.scanout import Display
from hesper.figures import ContextFigures
from hesper.observe.status import StatusServer

FIGURES = ContextFigures(
    3,
    "vkcube",
    1000,
    8000,
    5 << 20,
    1 << 30,
    {"memory": 5 << 20, "recorded": 1 << 20},
    {"devices": (1, 16)},
    submissions=40,
    busy_ns=500_000_000,
    frames=10,
    doing=(("asleep", ""), ("driver", "vkWaitForFences")),
    seconds=75.0,
    process=1234,
    user=os.geteuid(),
)


class WatchedServer:
    """Stands for a `hesper.api.server.Server` that runs."""

    is_running = True
    about = Served("lvp", "llvmpipe", "")

    def __init__(self) -> None:
        self.figures = [FIGURES]
        self.watched: list[float] = []
        self.ended: list[int] = []
        self.traces: list[Any] = []
        self.memory: dict[int, int] = {}

    def survey(self, watch: float = 0.0) -> list[ContextFigures]:
        self.watched.append(watch)
        return self.figures

    def end(self, context: int, why: str) -> bool:  # noqa: ARG002
        self.ended.append(context)
        return any(each.context == context for each in self.figures)

    def trace(self, seconds: float, on_context: Any) -> bool:  # noqa: ARG002
        if self.traces:
            return False
        self.traces.append(on_context)
        for context, fd in self.memory.items():
            on_context(context, os.dup(fd))
        return True

    def end_trace(self, on_context: Any) -> None:
        self.traces.remove(on_context)


class Watching:
    """A watched server and its status socket."""

    def __init__(self, runtime: Path, screens: int = 1) -> None:
        self.server = WatchedServer()
        self.place = str(runtime / "vtest")
        self.display = Display(screens) if screens else None
        server: Any = self.server
        self.status = StatusServer(server, "serve", lambda: [self.place], self.display)
