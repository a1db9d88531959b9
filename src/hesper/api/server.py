"""What all servers have in common: they are started and stopped, from any thread."""

from __future__ import annotations

import abc
import atexit
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from hesper.errors import HesperError, StateError, StoppedError
from hesper.isolation.listen import Handed
from hesper.log import get_logger

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.figures import ContextFigures
    from hesper.isolation.tracing import OnContext

__all__ = ["WATCH_PATIENCE", "Handed", "Run", "Served", "Server"]

WATCH_PATIENCE = 1.0
"""Seconds in which a server says what its clients do."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class Served:
    """What a server serves guests with."""

    driver: str
    """Name of the host's driver, as `drivers` has it."""
    device: str
    """Name of its best device, as the driver gives it."""
    notice: str
    """What a user should be told about this choice, above all that no GPU is used; else empty."""
    others: tuple[Served, ...] = ()
    """What is served with on further GPUs, where a server has several."""

    @property
    def gpus(self) -> tuple[Served, ...]:
        """Each GPU, in the order in which drivers were named."""
        return (self, *self.others)

    @classmethod
    def of(cls, abouts: Sequence[dict[str, Any]]) -> Served:
        """What the first workers of all GPUs have found out."""
        first, *others = (
            cls(str(each["driver"]), str(each["device"]), str(each["notice"])) for each in abouts
        )
        return replace(first, others=tuple(others))


class Run(abc.ABC):
    """One life of a server, between start and stop."""

    def __init__(self) -> None:
        """Nothing has been begun."""
        self.served: Served | None = None
        """Set when clients are served."""
        self.settled = threading.Event()
        """Whether it serves, or never will."""
        self.on_ready: Callable[[], None] = lambda: None
        """Called when the first worker is ready, before a client is served."""

    def ready(self, abouts: Sequence[dict[str, Any]]) -> None:
        """Take note that clients are served, by what a worker of each GPU has found out.

        Raises what `on_ready` does, which is the server's end before it has served anybody.
        """
        self.served = Served.of(abouts)
        try:
            self.on_ready()
        except BaseException:
            self.served = None
            raise
        self.settled.set()

    @abc.abstractmethod
    def serve(self) -> None:
        """Serve until told to stop, and leave nothing behind.  Raises `HesperError`."""

    @abc.abstractmethod
    def stop(self, *, at_once: bool) -> None:
        """Make `serve` return soon.  From any thread, and from a signal's handler."""

    @abc.abstractmethod
    def survey(self, watch: float) -> list[ContextFigures]:
        """See `Server.survey`."""

    @abc.abstractmethod
    def end(self, context: int, why: str) -> bool:
        """See `Server.end`."""

    @abc.abstractmethod
    def trace(self, seconds: float, on_context: OnContext) -> bool:
        """See `Server.trace`."""

    @abc.abstractmethod
    def end_trace(self, on_context: OnContext) -> None:
        """See `Server.end_trace`."""


class Server(abc.ABC):
    """A server, on a thread of its own.

    Life: made, `start`ed, `stop`ped, and so on; as a context manager it is started and stopped.
    All of it may be done from any thread, and with several servers in one process.  The server
    takes no signals, does not touch the environment, and logs with the standard library's loggers
    below `hesper`, which it leaves as they are.  One that was not stopped is, when the interpreter
    ends.
    """

    def __init__(
        self,
        on_end: Callable[[], None] | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        """Both are called on a thread of the server.

        on_end: when it ends untold.  on_ready: before the first client is served; `about` is known.
        A `HesperError` that it raises, `start` does.
        """
        self._on_end = on_end
        self._on_ready = on_ready
        self._starting = threading.Lock()
        self._run: Run | None = None
        self._thread: threading.Thread | None = None
        self._error: HesperError | None = None
        self._was_told = False

    @abc.abstractmethod
    def _begin(self) -> Run:
        """Take what the server needs; raises `ListenError` where there can be no socket."""

    @property
    def about(self) -> Served:
        """What guests are served with.  Raises `StateError` unless the server runs."""
        run = self._run
        if run is None or run.served is None:
            raise StateError(f"{self}: it does not run; start() it first")
        return run.served

    @property
    def is_running(self) -> bool:
        """Whether clients are served."""
        thread, run = self._thread, self._run
        return bool(thread and thread.is_alive() and run and run.served)

    def start(self) -> Self:
        """Serve; returns when clients are served.

        Raises `errors.ListenError` where there can be no socket; `errors.StartError` where no
        client can be served, above all `errors.NoDriverError` and `errors.ProfileError`;
        `errors.StoppedError` where `stop` has come in between; `errors.StateError` where it runs.
        """
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                raise StateError(f"{self}: it runs already; stop() it first")
            self._was_told = False
            self._error = None
            run = self._begin()
            run.on_ready = self._on_ready or run.on_ready
            thread = threading.Thread(
                target=self._serve, args=[run], name=f"hesper {self}", daemon=True
            )
            self._run, self._thread = run, thread
            atexit.register(self.stop)
            thread.start()
        if self._was_told:
            run.stop(at_once=False)
        try:
            run.settled.wait()
        except BaseException:
            self.stop(at_once=True)
            raise
        if run.served is None:
            thread.join()
            raise self._error or StoppedError(f"{self}: it was stopped before it was ready")
        return self

    def _serve(self, run: Run) -> None:
        """Be the server's thread."""
        try:
            run.serve()
        except HesperError as error:
            self._error = error
        except Exception as error:
            _log.exception("the server has failed", server=str(self))
            self._error = HesperError(f"{self}: internal error: {error!r}")
        finally:
            atexit.unregister(self.stop)
            was_serving = run.served is not None
            run.settled.set()
        if was_serving and not self._was_told and self._on_end is not None:
            self._on_end()

    def stop(self, *, at_once: bool = False, wait: bool = True) -> None:
        """Stop: no more clients, and those that are there are ended.  May be called again.

        at_once: without giving their workers the time to do that in order.
        wait: return when all has ended: no thread, process, descriptor or socket of it is left.
        Without that it may be called from a signal's handler.
        """
        self._was_told = True
        run, thread = self._run, self._thread
        if run is not None:
            run.stop(at_once=at_once)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, for so many seconds at most, until the server has ended; return whether it has.

        Raises `errors.HesperError` where it has failed.
        """
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                return False
        if self._error is not None:
            raise self._error
        return True

    # Watching.  Each takes a moment, a second at most; none may be called on the server's thread.

    def survey(self, watch: float = 0.0) -> list[ContextFigures]:
        """What every client has done and holds, and what it does now; empty while it does not run.

        watch: seconds for which the clients' queues are timed from now on, 300 at most: how long
        they have worked is known only for while somebody watches.  It costs a fence a submission.
        """
        run = self._watchable()
        return run.survey(watch) if run is not None else []

    def end(self, context: int, why: str = "somebody has ended it") -> bool:
        """End a client, by its number in `survey`; whether there is one.  The log says why."""
        run = self._watchable()
        return run is not None and run.end(context, why)

    def trace(self, seconds: float, on_context: OnContext) -> bool:
        """Note for so long what all clients do, and those that come meanwhile.

        on_context: called on the server's thread for each, with its number and the descriptor of
        shared memory, which it closes; what is in there says `kernel.watch.Watch.trace`, and the
        client may have written it: do not map it.
        Returns False where that is going on already.
        """
        run = self._watchable()
        return run is not None and run.trace(seconds, on_context)

    def end_trace(self, on_context: OnContext) -> None:
        """Tell `on_context` of no more clients."""
        run = self._watchable()
        if run is not None:
            run.end_trace(on_context)

    # Giving way to another server, see `VtestServer`.

    def handed(self) -> list[Handed]:
        """Its listening sockets, by descriptors for another server; none where it has one guest."""
        return []

    def retire(self, kept: Collection[int] = ()) -> int:  # noqa: ARG002  see `VtestServer`
        """Take no more clients, and end after the last of those that are there.

        kept: places in `handed` of sockets that another server serves from now on.
        Returns a number that no number of a client's (`survey`) is above.
        Raises `errors.StateError` for a server that has one guest, or does not run.
        """
        raise StateError(f"{self}: it serves one guest, which no other server can take")

    def _watchable(self) -> Run | None:
        return self._run if self.is_running else None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()
