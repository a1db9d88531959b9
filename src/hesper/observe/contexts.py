"""Counting what contexts do, those that have ended included."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from hesper.display.web.live import GpuFigures
from hesper.figures import ContextFigures

ContextSource: TypeAlias = Callable[[], Iterable[ContextFigures]]
"""Gives the figures of all open contexts; called from any thread, must not block."""


@dataclass(frozen=True, slots=True)
class ContextTotals:
    """All contexts together; `commands` and `stream_bytes` never fall."""

    open: tuple[ContextFigures, ...]
    commands: int
    stream_bytes: int
    memory: int


class ContextLedger:
    """Adds contexts up, and remembers what ended ones had done when they were last seen."""

    def __init__(self, source: ContextSource) -> None:
        """Read figures from `source` whenever they are asked for."""
        self._source = source
        self._lock = threading.Lock()
        self._seen: dict[int, ContextFigures] = {}
        self._ended_commands = 0
        self._ended_bytes = 0

    def read(self) -> ContextTotals:
        """Return the totals now.  From any thread."""
        with self._lock:
            found = {figures.context: figures for figures in self._source()}
            for number, last in self._seen.items():
                if number not in found:
                    self._ended_commands += last.commands
                    self._ended_bytes += last.stream_bytes
            self._seen = found
            return ContextTotals(
                tuple(found.values()),
                self._ended_commands + sum(figures.commands for figures in found.values()),
                self._ended_bytes + sum(figures.stream_bytes for figures in found.values()),
                sum(figures.memory for figures in found.values()),
            )

    def gpu_figures(self) -> GpuFigures:
        """Return what the web page shows."""
        totals = self.read()
        return GpuFigures(len(totals.open), totals.commands, totals.memory)
