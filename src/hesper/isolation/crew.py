"""The worker processes of a supervisor: started, listened to, ended, reaped."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hesper.isolation import channel
from hesper.isolation.channel import ChannelError, Upstream
from hesper.isolation.hearing import Hearing, named_by_the_table
from hesper.isolation.launching import Launching
from hesper.isolation.output import Output
from hesper.isolation.shader_caches import Cache, ShaderCaches
from hesper.isolation.worker_process import WorkerProcess
from hesper.limits import Limits
from hesper.log import get_logger, threshold
from hesper.portable import hang_up
from hesper.sandbox.groups import Groups

if TYPE_CHECKING:
    from hesper.isolation.turns import Turns
    from hesper.sandbox import Mode

START_PATIENCE = 60.0
"""Seconds in which a worker must get ready."""
BACKGROUND_PATIENCE = 3600.0
"""The same for one that takes processor time from nobody else."""
STOP_PATIENCE = 5.0
"""Seconds from the order to stop to the kill."""
WRONG = (ArithmeticError, KeyError, RecursionError, TypeError, ValueError)
"""What comes of a message with other values than it should have: endless numbers, deep lists."""
MAX_BACKOFF = 30.0
"""Longest pause in seconds between attempts to start workers that fail to."""

_log = get_logger(__name__)


class Crew:
    """Life: made, `begin`, used, `end`."""

    def __init__(self, turns: Turns, service: str, options: dict[str, Any], sandbox: Mode) -> None:
        """service, options, sandbox: see `Supervisor`."""
        self.number = 0
        """Of its GPU, see `isolation.gpus`."""
        self.workers: set[WorkerProcess] = set()
        self.is_settled = False
        """Whether a worker has ever been ready."""
        self.failure = ""
        """Why no worker could start of late."""
        self.on_settled: Callable[[dict[str, Any]], None] = lambda _: None
        """Called with what the first worker has found out."""
        self.on_hopeless: Callable[[str, str], None] = lambda _, __: None
        """Called when the first worker cannot start: kind (see `errors.start_error`) and reason."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a worker has got ready or has ended, or when one may be started again."""
        self.on_end: Callable[[WorkerProcess], None] = lambda _: None
        """Called when a worker has ended, before `on_change`."""
        self.hearing = Hearing(turns, self.order)
        self.caches = ShaderCaches()
        """Where workers' drivers keep shaders."""
        self._turns = turns
        self._service = service
        self._options = options
        self._failures = 0
        self._not_before = 0.0
        self._stopping = False
        limits = options.get("limits")
        self._groups: Groups | None = None
        if limits is not None and sandbox == "on":
            bounds = Limits(**limits)
            self._groups = Groups(bounds.most_memory, bounds.threads)
        self._launching = Launching(turns, service, sandbox)
        self._launching.on_end = self.reap
        self._launching.on_lost = self._forget_unbegun
        self._launching.on_change = self._changed

    def begin(self) -> None:
        """Get ready to start workers."""
        self._launching.begin()

    def count(self, *states: str, cache: Cache | None = None) -> int:
        """Count the workers in one of those states, with that cache if it matters.

        From any thread.
        """
        return sum(
            worker.state in states and (cache is None or worker.shaders is cache)
            for worker in tuple(self.workers)
        )

    def fresh(self) -> int:
        """Count those that are ready, or get so, whose cache is nobody's."""
        states = ("starting", "ready")
        return sum(worker.state in states and not worker.shaders.key for worker in self.workers)

    def a_ready(self, cache: Cache) -> WorkerProcess | None:
        """Return a worker that is ready for a client with that cache, if there is one."""
        ready = [worker for worker in self.workers if worker.state == "ready"]
        own = (worker for worker in ready if worker.shaders is cache)
        return next(own, None) or next((w for w in ready if w.shaders.suits(cache)), None)

    def hurrying(self, cache: Cache | None = None) -> int:
        """Count those that are starting and do not give way to others."""
        return sum(
            worker.state == "starting"
            and not worker.background
            and (cache is None or worker.shaders is cache)
            for worker in self.workers
        )

    @property
    def is_able(self) -> bool:
        """Whether workers may be started: not for a while after that has failed."""
        return time.monotonic() >= self._not_before

    def discharge(self, keep: int, likely: Cache | None = None) -> None:
        """End all workers that are ready but so many; those with another cache first."""
        ready = [worker for worker in self.workers if worker.state == "ready"]
        ready.sort(key=lambda worker: (worker.shaders is not likely, bool(worker.shaders.key)))
        for worker in ready[keep:]:
            worker.state = "surplus"
            worker.process.kill()

    def stop(self) -> None:
        """Tell all workers to stop, and kill those that do not."""
        self._stopping = True
        self._launching.stop()
        for worker in self.workers:
            self._tell_to_stop(worker)

    def kill_all(self, why: str) -> None:
        """Kill all workers."""
        for worker in self.workers:
            self.kill(worker, why)

    def end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
            hang_up(worker.control)
            worker.output.close()
        self.workers.clear()
        self._launching.close()
        if self.hearing.shares is not None:
            self.hearing.shares.close()
        if self._groups is not None:
            self._groups.close()

    def start(self, cache: Cache, *, background: bool, hurry: bool = True) -> None:
        """Start one worker.  hurry: a client is likely to come as soon as it is ready."""
        with contextlib.ExitStack() as stack:
            try:
                ours, theirs = map(stack.enter_context, socket.socketpair())
                output = Output(self._turns)
                stack.callback(output.close)
                process = self._launching.start(theirs, background=background)
            except OSError as error:
                self._start_failed(f"cannot start a worker: {error}")
                return
            stack.pop_all()
            theirs.close()
        # A worker that does not take its orders must not hold us up.
        ours.setblocking(False)
        worker = WorkerProcess(process, ours, Upstream(ours), output, background, self.number)
        output.log = lambda: worker.log
        worker.shaders = cache
        self.workers.add(worker)
        self._turns.watch(ours, lambda: self._hear(worker))
        if process.watch >= 0:
            self._turns.watch(process.watch, self.reap)
        patience = BACKGROUND_PATIENCE if background else START_PATIENCE
        worker.starting = self._turns.after(patience, lambda: self._too_slow(worker, patience))
        self.order(
            worker,
            "prepare",
            [output.theirs],
            service=self._service,
            options=self._options,
            log_level=threshold(),
            hurry=hurry,
            shaders=self.caches.use(cache),
        )
        output.given()

    def _changed(self) -> None:
        self.on_change()

    def _forget_unbegun(self) -> None:
        """Let go of workers that a template which is gone was to fork."""
        for worker in [w for w in self.workers if w.process.poll()]:
            self._forget(worker)

    def _too_slow(self, worker: WorkerProcess, patience: float) -> None:
        if worker.state == "starting":
            self.kill(worker, f"not ready after {patience:g} s")

    def _start_failed(self, why: str, kind: str = "") -> None:
        """Give up if no worker has ever been ready; else try again, less and less often."""
        if not self.is_settled:
            self.on_hopeless(kind, why)
            return
        pause = min(MAX_BACKOFF, 0.5 * 2**self._failures)
        self._failures += 1
        _log.error("a worker cannot start", reason=why, next_attempt_in_seconds=pause)
        self._not_before = time.monotonic() + pause
        self.failure = why
        self._turns.after(pause, self.on_change)

    def order(self, worker: WorkerProcess, do: str, fds: Sequence[int] = (), **values: Any) -> None:
        """Tell a worker; one that does not take it in is killed."""
        try:
            channel.send_down(worker.control, do, fds, **values)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is about to end
        except OSError as error:
            self.kill(worker, f"it takes no orders: {error.strerror}")

    def _hear(self, worker: WorkerProcess) -> None:
        """Read what a worker has to say."""
        if worker.state == "ended":
            return  # reaped in the same turn
        try:
            messages = worker.upstream.receive()
            if messages is None:
                # It is about to end; its launcher says when.
                self._unhear(worker)
                self._turns.after(STOP_PATIENCE, lambda: self.kill(worker, "it hung up and stayed"))
                return
            for message in messages:
                self._heard(worker, message)
        except (ChannelError, *WRONG) as error:
            # Only a worker that a guest has taken over would do that.
            self.kill(worker, f"it sends nonsense: {error!r}")

    def _unhear(self, worker: WorkerProcess) -> None:
        self._turns.unwatch(worker.control)

    def _heard(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        kind = message["is"]
        if kind == "ready" and worker.state == "starting":
            if not worker.killed:  # else it is too late
                self._ready(worker, message)
        elif kind == "failed" and worker.state == "starting":
            worker.reason = str(message["reason"])
            worker.failure = str(message["kind"])
        elif not self.hearing.hear(worker, kind, message):
            raise ChannelError(f"{kind!r} while {worker.state}")

    def _ready(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        """Take note that a worker can serve, and of what the first has found out."""
        # Before anything is taken for true: with another answer it has not started.
        libraries = [] if self.is_settled else _libraries(message)
        if self._groups is not None:
            self._groups.put(worker.process.pid)
        worker.state = "ready"
        self._failures, self.failure = 0, ""
        if worker.starting is not None:
            worker.starting.cancel()
        _log.debug("worker ready", worker=worker.process.pid)
        if not self.is_settled:
            self.is_settled = True
            self._options = message["options"]
            self._launching.preload(libraries)
            self.on_settled(message)
        self.on_change()

    def _tell_to_stop(self, worker: WorkerProcess) -> None:
        if worker.state == "serving":
            self.order(worker, "stop")
            self._turns.after(STOP_PATIENCE, lambda: self.kill(worker, "it did not stop"))
        else:
            self.kill(worker, "stopping")

    def kill(self, worker: WorkerProcess, why: str) -> None:
        """End a worker at once; the log says why."""
        if worker in self.workers and not worker.killed:
            worker.killed = why
            worker.process.kill()

    def reap(self) -> None:
        """Note the ends of workers."""
        for worker in [w for w in self.workers if w.process.poll()]:
            self._reap(worker)

    def _forget(self, worker: WorkerProcess) -> None:
        """Let go of a worker whose process has ended."""
        self._unhear(worker)
        hang_up(worker.control)
        worker.output.close()
        if worker.process.watch >= 0:
            self._turns.unwatch(worker.process.watch)
        worker.process.wait()
        if worker.starting is not None:
            worker.starting.cancel()
        self.workers.discard(worker)
        self.caches.leave(worker.shaders, served=worker.client > 0)
        if self.hearing.total is not None:
            self.hearing.total.end(worker)
        if self.hearing.shares is not None:
            self.hearing.shares.leave(worker)
        if self._groups is not None:
            worker.bound = self._groups.end(worker.process.pid)
        self.on_end(worker)

    def _reap(self, worker: WorkerProcess) -> None:
        """Note a worker's end, and see to the next."""
        self._hear(worker)  # its last words
        self._forget(worker)
        state, worker.state = worker.state, "ended"
        if state == "starting" and not self._stopping:
            problem = worker.process.problem or f"a worker {worker.end}"
            self._start_failed(worker.killed or worker.reason or problem, worker.failure)
        elif state == "serving":
            self._report(worker)
            # It may have had what the next one lacked.
            self._not_before = 0.0
        elif state == "ready" and not self._stopping:
            _log.warning("a waiting worker is gone", reason=worker.end)
        self.on_change()

    def _report(self, worker: WorkerProcess) -> None:
        """One line about a client's end, unless there is one."""
        if worker.is_told and not worker.killed:
            return
        seconds = round(time.monotonic() - worker.since, 3)
        if worker.killed:
            worker.log.error("client killed", reason=worker.killed)
        elif worker.process.returncode == 0:
            worker.log.info("client left", seconds=seconds)
        elif worker.reason:
            worker.log.error("client ended", reason=worker.reason)
        else:
            worker.log.error("worker died", reason=worker.end, **worker.crash)


def _libraries(message: dict[str, Any]) -> list[str]:
    """See that a first worker has found out what it is asked for; libraries to preload for others.

    Raises `KeyError` and `TypeError` where it has not.
    """
    if not isinstance(message["about"], dict):
        raise TypeError("what it has found out is no object")
    if "refusal" not in message:
        raise KeyError("refusal")
    return named_by_the_table(message["options"])
