"""What the contexts of a device do, for whoever watches it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.gpu.descriptors import Descriptor
from hesper.isolation.tracing import OnContext, Trace

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop
    from hesper.figures import ContextFigures
    from hesper.gpu.contexts import Context, Contexts


class Survey:
    """Of one device.  `figures` may come from any thread, the rest from the loop's."""

    def __init__(self, contexts: Contexts, loop: EventLoop) -> None:
        """Look at `contexts`."""
        self._contexts = contexts
        self._loop = loop
        self._figures: list[ContextFigures] = []
        self._trace = Trace()
        contexts.began = self._began

    def figures(self, seconds: float = 0.0) -> list[ContextFigures]:
        """Return what every context did when this was asked last.  From any thread.

        seconds: their queues are timed for so long from now on.
        """
        self._loop.call(lambda: self._collect(seconds))
        return self._figures

    def _collect(self, seconds: float) -> None:
        self._figures = self._contexts.figures(seconds)

    def end(self, number: int, why: str) -> bool:
        """End what runs a context, by its number; whether there is one."""
        for context in self._contexts.running():
            if context.number == number:
                self._contexts.end(context.id, why)
                return True
        return False

    def trace(self, seconds: float, on_context: OnContext) -> bool:
        """Trace all contexts for so long, those that come later as well; see `Trace`."""
        if not self._trace.begin(seconds, on_context):
            return False
        for context in self._contexts.running():
            self._began(context)
        return True

    def end_trace(self, on_context: OnContext) -> None:
        """See `Trace.end`."""
        self._trace.end(on_context)

    def _began(self, context: Context) -> None:
        self._trace.add(context.number, lambda fd, seconds: _order(context, fd, seconds))


def _order(context: Context, fd: int, seconds: float) -> None:
    if context.client is not None:
        nothing: Callable[[], None] = lambda: None  # noqa: E731  it counts for no guest
        memory = Descriptor(os.dup(fd), nothing)
        context.client.trace(memory, seconds)
        memory.release()
