"""The supervisor: accepts clients, hands each to a worker process, sees workers come and go.

It is small and single-threaded, never loads Vulkan, and never waits for a worker.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any

from hesper.isolation import channel
from hesper.isolation.channel import ChannelError, Upstream
from hesper.isolation.door import StartError
from hesper.isolation.listen import Listener
from hesper.log import emit, get_logger, threshold
from hesper.portable import WakePipe, peer_pid, spawn

START_PATIENCE = 60.0
"""Seconds in which a worker must get ready."""
BACKGROUND_PATIENCE = 3600.0
"""The same for one that takes processor time from nobody else."""
STOP_PATIENCE = 5.0
"""Seconds from the order to stop to the kill."""
REFILL_DELAY = 5.0
"""Seconds after which a worker that took a client is replaced: the client's start needs the
processor more than the next worker's."""
HURRIED_REFILL_DELAY = 0.5
"""The same when no other worker is ready.  A client that finds none is not made to wait for it."""
ACCEPT_PAUSE = 1.0
"""Seconds to wait when accepting fails, for descriptors to become free."""
MAX_BACKOFF = 30.0
"""Longest pause in seconds between attempts to start workers that fail to."""

_ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_TOP_PAD_": str(4 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
"""Environment of workers.

By default glibc gives memory back to the system after every command buffer that a driver frees, and
takes it again, page by page, for the next. Whoever sets one of these ends glibc's own raising of
the last, without which every larger piece is mapped and unmapped: a driver's compiler takes three
times as long, and lavapipe faults some hundred pages in for each frame. 32 MB is the most that
glibc takes. Other C libraries do not know these variables; those the user has set count more.
"""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_log = get_logger(__name__)


@dataclass(eq=False)
class _Worker:
    """A worker process as the supervisor sees it: starting, ready, serving, ended."""

    process: Popen[bytes]
    control: socket.socket
    upstream: Upstream
    background: bool
    """Whether it gets ready with what processor time others leave."""
    state: str = "starting"
    client: int = 0
    client_pid: int = 0
    name: str = ""
    reason: str = ""
    since: float = field(default_factory=time.monotonic)
    killed: str = ""
    """Why we have killed it."""

    @property
    def fields(self) -> dict[str, Any]:
        """What log lines about its client say."""
        known = {"client": self.client, "name": self.name, "pid": self.client_pid}
        return {key: value for key, value in known.items() if value}


class Supervisor:
    """Serves clients until it is told to stop.

    Life: construct, `run` once, on the main thread.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        door: str,
        options: dict[str, Any],
        *,
        warm: int = 2,
        max_clients: int = 64,
    ) -> None:
        """Take over `listeners`; `run` closes them.

        door: module that workers serve by, see `hesper.isolation.door`; options: for its
        `prepare`.  warm: workers kept ready.  max_clients: clients served at a time; more wait.
        """
        self._listeners = list(listeners)
        self._door = door
        self._options = options
        self._warm = max(1, warm)
        self._max_clients = max_clients
        self._workers: set[_Worker] = set()
        self._selector = selectors.DefaultSelector()
        self._wake = WakePipe()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._client_numbers = itertools.count(1)
        self._accepting = False
        self._waiting_said = False
        self._settled = False
        self._failures = 0
        self._not_before = 0.0
        self._refill_at = 0.0
        self._stopping = False
        self._failed: str | None = None
        self._on_ready: Callable[[dict[str, Any]], None] = lambda _: None
        self._on_signal: Callable[[int], bool] = lambda _: False

    def run(
        self,
        on_ready: Callable[[dict[str, Any]], None],
        on_signal: Callable[[int], bool] | None = None,
        signals: Sequence[signal.Signals] = (),
    ) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP, then stop the workers and close the sockets.

        on_ready: called once with the door's `about` when a worker can serve.
        on_signal: called first with each signal, SIGCHLD and those of `signals` among them; true
        when nothing more is to be done about it.
        Raises `StartError` when no worker can ever serve.
        """
        self._on_ready = on_ready
        if on_signal is not None:
            self._on_signal = on_signal
        with self._signals(signals):
            try:
                self._selector.register(self._wake.read_fd, selectors.EVENT_READ, None)
                self._refill()
                while not self._stopping or self._workers:
                    self._turn()
            finally:
                self._end()
        if self._failed is not None:
            raise StartError(self._failed)

    def stop(self) -> None:
        """Stop in order: no more clients, workers told, then killed.  May be called again."""
        if self._stopping:
            return
        self._stopping = True
        self._accept_if(wanted=False)
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            self._tell_to_stop(worker)

    @contextlib.contextmanager
    def _signals(self, more: Sequence[signal.Signals]) -> Iterator[None]:
        """Turn signals into bytes in the wake pipe."""
        signals = {*STOP_SIGNALS, signal.SIGCHLD, *more}
        before = {number: signal.signal(number, lambda *_: None) for number in signals}
        old_fd = signal.set_wakeup_fd(self._wake.write_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _turn(self) -> None:
        """Wait for something to happen, and do what it asks for."""
        timeout = None
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._signalled()
            elif isinstance(key.data, Listener):
                self._accept(key.data)
            else:
                self._hear(key.data)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        entry = (time.monotonic() + seconds, next(self._timer_numbers), action)
        heapq.heappush(self._timers, entry)

    def _signalled(self) -> None:
        numbers = set(os.read(self._wake.read_fd, 4096))
        for number in numbers:
            if self._on_signal(number):
                continue
            if number in STOP_SIGNALS:
                name = signal.Signals(number).name
                if self._stopping:
                    for worker in self._workers:
                        self._kill(worker, f"a second {name}")
                _log.info("stopping", signal=name)
                self.stop()
        if signal.SIGCHLD in numbers:
            for worker in [w for w in self._workers if w.process.poll() is not None]:
                self._reap(worker)

    # Workers

    def _count(self, *states: str) -> int:
        return sum(worker.state in states for worker in self._workers)

    def _refill(self) -> None:
        """Start workers until enough are ready or starting, and accept clients if any can be."""
        now = time.monotonic()
        able = not self._stopping and now >= self._not_before
        if able and now >= self._refill_at:
            # The first finds out what the others need not: which driver to use.
            wanted = self._warm if self._settled else 1
            for _ in range(self._count("starting", "ready"), wanted):
                self._start(background=self._settled)
        free = self._count("serving") < self._max_clients
        # With none ready and none in a hurry, a client is what starts one: see `_accept`.
        soon = self._count("ready") > 0 or not self._hurries()
        self._accept_if(wanted=able and free and soon)
        if not free and not self._waiting_said:
            _log.warning("all places are taken, new clients wait", max_clients=self._max_clients)
        self._waiting_said = not free

    def _hurries(self) -> bool:
        """Whether a worker is starting that a client waits for."""
        return any(w.state == "starting" and not w.background for w in self._workers)

    def _start(self, *, background: bool) -> None:
        """Start one worker."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "hesper.isolation.start", str(theirs.fileno())]
            if background:
                command.append("background")
            try:
                process = spawn(command, fds=[theirs.fileno()], env={**_ALLOCATOR, **os.environ})
            except OSError as error:
                ours.close()
                self._start_failed(f"cannot start a worker: {error}")
                return
        # A worker that does not take its orders must not hold us up.
        ours.setblocking(False)
        worker = _Worker(process, ours, Upstream(ours), background)
        self._workers.add(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        patience = BACKGROUND_PATIENCE if background else START_PATIENCE
        self._after(patience, lambda: self._too_slow(worker, patience))
        self._order(
            worker, "prepare", door=self._door, options=self._options, log_level=threshold()
        )

    def _too_slow(self, worker: _Worker, patience: float) -> None:
        if worker.state == "starting":
            self._kill(worker, f"not ready after {patience:g} s")

    def _start_failed(self, why: str) -> None:
        """Give up if no worker has ever been ready; else try again, less and less often."""
        if not self._settled:
            self._failed = why
            self.stop()
            return
        pause = min(MAX_BACKOFF, 0.5 * 2**self._failures)
        self._failures += 1
        _log.error("a worker cannot start", reason=why, next_attempt_in_seconds=pause)
        self._not_before = time.monotonic() + pause
        self._after(pause, self._refill)

    def _order(self, worker: _Worker, do: str, fds: Sequence[int] = (), **values: Any) -> None:
        """Tell a worker; one that does not take it in is killed."""
        try:
            channel.send_down(worker.control, do, fds, **values)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is about to end
        except OSError as error:
            self._kill(worker, f"it takes no orders: {error.strerror}")

    def _hear(self, worker: _Worker) -> None:
        """Read what a worker has to say."""
        if worker.state == "ended":
            return  # reaped in the same turn
        try:
            messages = worker.upstream.receive()
            if messages is None:
                # It is about to end; SIGCHLD says when.
                self._unhear(worker)
                self._after(STOP_PATIENCE, lambda: self._kill(worker, "it hung up and stayed"))
                return
            for message in messages:
                self._heard(worker, message)
        except (ChannelError, KeyError, TypeError, ValueError) as error:
            # Only a worker that a guest has taken over would do that.
            self._kill(worker, f"it sends nonsense: {error!r}")

    def _unhear(self, worker: _Worker) -> None:
        with contextlib.suppress(KeyError):  # already done
            self._selector.unregister(worker.control)

    def _heard(self, worker: _Worker, message: dict[str, Any]) -> None:
        kind = message["is"]
        if kind == "ready" and worker.state == "starting":
            worker.state = "ready"
            self._failures = 0
            _log.debug("worker ready", worker=worker.process.pid)
            if not self._settled:
                self._settled = True
                self._options = message["options"]
                self._on_ready(message["about"])
            self._refill()
        elif kind == "failed" and worker.state == "starting":
            worker.reason = str(message["reason"])
        elif kind == "named":
            worker.name = str(message["name"])[:100]
            _log.info("client connected", **worker.fields)
        elif kind == "log":
            fields = {str(key): value for key, value in dict(message["fields"]).items()}
            emit(
                str(message["level"]),
                str(message["logger"]),
                str(message["event"]),
                fields | worker.fields,
            )
        elif kind == "end":
            worker.reason = str(message["reason"])
        else:
            raise ChannelError(f"{kind!r} while {worker.state}")

    def _tell_to_stop(self, worker: _Worker) -> None:
        if worker.state == "serving":
            self._order(worker, "stop")
            self._after(STOP_PATIENCE, lambda: self._kill(worker, "it did not stop"))
        else:
            self._kill(worker, "stopping")

    def _kill(self, worker: _Worker, why: str) -> None:
        if worker in self._workers and not worker.killed:
            worker.killed = why
            worker.process.kill()

    def _reap(self, worker: _Worker) -> None:
        """Note a worker's end, and see to the next."""
        self._hear(worker)  # its last words
        self._unhear(worker)
        worker.control.close()
        self._workers.discard(worker)
        state, worker.state = worker.state, "ended"
        status = worker.process.returncode
        if state == "starting" and not self._stopping:
            why = worker.killed or worker.reason or f"a worker {describe_exit(status)}"
            self._start_failed(why)
        elif state == "serving":
            self._report(worker, status)
        elif not self._stopping:
            _log.warning("a waiting worker is gone", reason=describe_exit(status))
        self._refill()

    def _report(self, worker: _Worker, status: int) -> None:
        """One line about a client's end."""
        seconds = round(time.monotonic() - worker.since, 3)
        if worker.killed:
            _log.error("client killed", reason=worker.killed, **worker.fields)
        elif status == 0:
            _log.info("client left", seconds=seconds, **worker.fields)
        elif worker.reason:
            _log.error("client ended", reason=worker.reason, **worker.fields)
        else:
            _log.error("worker died", reason=describe_exit(status), **worker.fields)

    # Clients

    def _accept_if(self, *, wanted: bool) -> None:
        """Listen for clients, or leave them in the sockets' queues."""
        if wanted == self._accepting:
            return
        self._accepting = wanted
        for listener in self._listeners:
            if wanted:
                self._selector.register(listener.sock, selectors.EVENT_READ, listener)
            else:
                self._selector.unregister(listener.sock)

    def _accept(self, listener: Listener) -> None:
        """Hand one client to a worker that is ready."""
        if not self._accepting:
            return
        worker = next((w for w in self._workers if w.state == "ready"), None)
        if worker is None:
            for _ in range(self._warm):
                self._start(background=False)
            self._refill()
            return
        try:
            client, _ = listener.sock.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has left already
        except OSError as error:
            _log.error("cannot accept a client", reason=str(error))
            self._accept_if(wanted=False)
            self._after(ACCEPT_PAUSE, self._refill)
            return
        with client:
            if _has_left(client):
                return
            client.setblocking(True)
            worker.state = "serving"
            worker.since = time.monotonic()
            worker.client = next(self._client_numbers)
            worker.client_pid = peer_pid(client)
            self._order(worker, "serve", [client.fileno()], client=worker.client)
        delay = REFILL_DELAY if self._count("ready") else HURRIED_REFILL_DELAY
        self._refill_at = time.monotonic() + delay
        self._after(delay, self._refill)
        self._refill()

    def _end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            worker.control.close()
        self._workers.clear()
        self._selector.close()
        self._wake.close()


def _has_left(client: socket.socket) -> bool:
    """Whether a client has closed without a word, as one does that looks for a live server."""
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def describe_exit(status: int) -> str:
    """How a process ended, in words: `was killed by SIGSEGV`, `ended with status 70`."""
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended with status {status}"
