"""What can be seen of a context from outside: its figures, and a trace of what it does."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hesper.figures import MOST_STREAMS, MOST_WATCHED, Figures
from hesper.log import get_logger
from hesper.portable import SharedMemory, object_size

if TYPE_CHECKING:
    from hesper.guest.context import Context

TRACE_INTERVAL_NS = 100_000
"""Between two looks at what streams do."""
MOST_TRACE_BYTES = 64 << 20

_log = get_logger(__name__)


class ContextWatch:
    """Looks at one context, for whoever serves it; from any thread, until it is closed."""

    def __init__(self, context: Context) -> None:
        """Look at `context`."""
        self._context = context
        self._tracer: threading.Thread | None = None

    def figures(self, seconds: float = 0.0) -> Figures:
        """What it has done and holds.  seconds: time its queues for so long from now on."""
        context, engine = self._context, self._context.engine
        if seconds > 0:
            engine.watch.attend(int(min(seconds, MOST_WATCHED) * 1e9))
        counts, ledger = engine.statistics(), engine.ledger.figures()
        submissions, busy = engine.watch.queues()
        held = {**ledger, "objects": counts["objects"]}
        limits = context.limits
        return Figures(
            commands=counts["commands"],
            stream_bytes=counts["bytes"],
            memory=context.pool.used,
            limit=ledger["limit"],
            accounts={
                "memory": ledger["memory"],
                "spare": ledger["spare"],
                "decoded": ledger["decoded"],
                "rings": ledger["rings"],
                "objects": ledger["objects"],
                "recorded": ledger["recorded"],
            },
            held={
                "objects": (held["objects"], limits.objects),
                "devices": (held["devices"], limits.devices),
                "threads": (held["threads"], limits.threads),
                "descriptors": (held["descriptors"], limits.descriptors),
                "fences": (held["fences"], limits.fences),
            },
            submissions=submissions,
            busy_ns=busy,
            frames=context.frames,
            doing=engine.watch.streams(MOST_STREAMS),  # type: ignore[arg-type]  # its stages
        )

    def trace(self, fd: int, seconds: float) -> None:
        """Note for so long, in the shared memory `fd`, what happens; returns at once.

        The descriptor stays the caller's.  One trace at a time.
        """
        if self._tracer is not None and self._tracer.is_alive():
            return
        try:
            memory = SharedMemory.from_fd(fd, min(object_size(fd), MOST_TRACE_BYTES))
        except (OSError, ValueError) as error:
            _log.warning("no trace", reason=str(error))
            return
        nanoseconds = int(max(0.0, min(seconds, MOST_WATCHED)) * 1e9)
        self._tracer = threading.Thread(
            target=self._trace, args=[memory, nanoseconds], name="trace", daemon=True
        )
        self._tracer.start()

    def _trace(self, memory: SharedMemory, nanoseconds: int) -> None:
        with memory:
            watch = self._context.engine.watch
            watch.trace(memory.address, memory.size, nanoseconds, TRACE_INTERVAL_NS)

    def close(self) -> None:
        """End the trace, if there is one; before the context is closed."""
        if self._tracer is not None:
            self._context.engine.watch.end_trace()
            self._tracer.join()
