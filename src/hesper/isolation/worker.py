"""A worker process: gets ready, serves one client, ends.  `hesper.isolation.start` runs it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from hesper import log
from hesper.errors import StartError
from hesper.figures import Figures
from hesper.isolation import channel
from hesper.isolation.background import in_both_threads, run_in_background
from hesper.isolation.lease import Lease
from hesper.isolation.service import ClientError, Service, Watched
from hesper.isolation.shares import Share
from hesper.kernel.crashes import report_crashes
from hesper.portable import give_memory_back, has_hung_up, poll_tells_of_end, raise_descriptor_limit
from hesper.sandbox import worker as sandbox

if TYPE_CHECKING:
    from hesper.kernel.ledger import Ledger
    from hesper.kernel.shares import Shares

GRACE = 4.0
"""Seconds from being told to stop to the hard end; less than the supervisor's patience."""
LOOK_AFTER = 1.0
"""Seconds between two looks whether the client is there, where the system does not tell."""
LEFT = "its client had left"
LEAVE_GRACE = 1.0
"""Seconds in which the end of the connection alone has to end the worker."""
TIDY_AFTER = (1.0, 10.0)
"""Seconds of serving after which a worker gives back what its client's device was made with: as
soon as that is likely, and once more for those who take their time, on a busy machine as well."""
NOTE_PATIENCE = 3.0
"""Seconds for which a client that is to be ended stays, for the log to have the reason."""

AT_ONCE = 0.02
"""Seconds in which a worker that a client has waited for is given that client."""
QUIET = 1.0
"""Seconds without a client after which one that was started in a rush of them may warm up."""

EXIT_FAULT = 1
EXIT_FAILED = 69
EXIT_BROKEN = 70

# A ring's thread may run Python for a while; the socket's thread must not wait 5 ms for it.
_SWITCH_INTERVAL = 0.0005


class Worker:
    """The main thread serves; another listens to the supervisor.

    Life: construct, `prepare`, perhaps in another thread, `run`.
    """

    def __init__(self, fd: int) -> None:
        """Talk to the supervisor over descriptor `fd`."""
        sys.setswitchinterval(_SWITCH_INTERVAL)
        raise_descriptor_limit()
        self._control = socket.socket(fileno=fd)
        report_crashes(fd)
        self._speaking = threading.Lock()
        self._noted = threading.Event()
        self._lease: Lease | None = None
        self._showing = threading.Lock()
        self._watched: Watched | None = None
        self._early_trace: tuple[int, float] | None = None
        """Where to, and until when, a client is to be traced that has no context yet."""
        self.files: list[int] = []
        """See `isolation.service.Hearer`."""
        self._share: Share | None = None
        self._is_warm = False
        self._in_background = False
        self._tidy_at: list[float] = []
        """When to give memory back, the next time first."""
        self._looked_at: socket.socket | None = None
        """The client's connection, as long as it has to be looked at."""

    def prepare(self, *, background: bool) -> Service:
        """Get ready to serve by the service that is returned; ends the process if that cannot be.

        background: warm up before saying so, unless a client is likely to come sooner: it would
        wait for that too.
        """
        with self._fatal():
            message = channel.receive_down(self._control)
            if message is None:
                _exit(0)
            order, (output,) = message
            for fd in (1, 2):
                os.dup2(output, fd)
            os.close(output)
            log.set_sink(self._log, level=order["log_level"])
            sandbox.keep_shaders(order["shaders"])
            try:
                service: Service = import_module(order["service"]).prepare(order["options"])
                sandbox.confine(everywhere=in_both_threads)  # whatever the service has done
            except StartError as error:
                self._say("failed", kind=type(error).__name__, reason=str(error))
                _exit(EXIT_FAILED)
            self._is_warm = background and not order["hurry"]
            self._in_background = background
            if self._is_warm:
                service.warm_up()
            self._say(
                "ready", about=service.about, options=service.options, refusal=service.refusal
            )
            return service

    def run(self, service: Service) -> NoReturn:
        """Serve one client and end the process."""
        with self._fatal():
            if not self._is_warm:
                warm_up_later(service, self._control, background=self._in_background)
            _exit(self._serve(service))

    def _serve(self, service: Service) -> int:
        """Wait for a client and serve it; return the exit status."""
        message = channel.receive_down(self._control)
        if message is None or message[0]["do"] != "serve":
            return 0
        order, (fd, *pages) = message
        client = socket.socket(fileno=fd)
        self.files = [pages.pop() for _ in range(order["files"])][::-1]
        if "lease" in order:
            self._lease = Lease(order["lease"], order["slack"], pages.pop(0))
        if order.get("share"):
            self._share = Share(pages.pop(0))
        if "limits" in order:
            service.limit(order["limits"])
        # Before `serve` may close it.
        watched = select.poll()
        watched.register(self._control, select.POLLIN)
        if poll_tells_of_end():
            watched.register(client, 0)  # reports the end of the connection alone
        else:
            self._looked_at = client.dup()
        if self._lease is not None:
            watched.register(self._lease.wake.read_fd, select.POLLIN)
        if self._share is not None:
            watched.register(self._share.wake.read_fd, select.POLLIN)
        threading.Thread(
            target=self._watch, args=[service, watched], name="watch", daemon=True
        ).start()
        try:
            service.serve(client, self)
        except ClientError as error:
            self._say("end", reason=str(error))
            return EXIT_FAULT
        return 0

    def named(self, name: str) -> None:
        """See `isolation.service.Hearer`."""
        self._say("named", name=name)

    def ended(self, reason: str) -> None:
        """See `isolation.service.Hearer`."""
        self._say("end", reason=reason)
        self._noted.wait(NOTE_PATIENCE)

    def lend(self, ledger: Ledger) -> None:
        """See `isolation.service.Hearer`."""
        if self._lease is not None:
            self._lease.lend(ledger)

    def show(self, watched: Watched) -> None:
        """See `isolation.service.Hearer`."""
        with self._showing:
            self._watched = watched
            early, self._early_trace = self._early_trace, None
        if early is not None:
            fd, until = early
            watched.trace(fd, until - time.monotonic())
            os.close(fd)

    def share(self, shares: Shares) -> None:
        """See `isolation.service.Hearer`."""
        if self._share is not None:
            self._share.lend(shares)

    @contextlib.contextmanager
    def _fatal(self) -> Iterator[None]:
        """End the process when something fails that should not."""
        try:
            yield
        except BaseException:
            self._broken()
            _exit(EXIT_BROKEN)

    def _broken(self) -> None:
        """Tell the supervisor of the exception being handled, a mistake of ours."""
        kind, error, _ = sys.exc_info()
        frame = traceback.extract_tb(sys.exc_info()[2])[-1]
        name = kind.__name__ if kind else "error"
        self._log("error", __name__, "internal error", {"exception": traceback.format_exc()})
        self._say("end", reason=f"internal error: {name}: {error} ({frame.name}:{frame.lineno})")

    def _watch(self, service: Service, watched: select.poll) -> None:
        """See to it that the process ends when it has to, even if the other thread is stuck.

        That is when the supervisor gives the order or is gone, and when the client is gone: the
        thread that serves it may be waiting for something that can no longer happen.
        """
        with self._fatal():
            reason = self._listen(watched)
            service.stop()
        time.sleep(GRACE)
        if reason == LEFT:
            # Somebody has ended a program in the middle of its work, which is nothing amiss.
            self._log("info", __name__, "its client has left: work is given up", {"after": GRACE})
            _exit(0)
        self._say("end", reason=f"it was still busy {GRACE:g} s after {reason}")
        _exit(EXIT_BROKEN)

    def _listen(self, watched: select.poll) -> str:
        """Do what the supervisor says until the worker has to end; return what there was first."""
        until = None
        self._tidy_at = [time.monotonic() + seconds for seconds in TIDY_AFTER]
        while True:
            left = self._patience(until)
            events = watched.poll(None if left is None else left * 1000)
            self._tidy()
            if until is None and self._looked_at is not None and has_hung_up(self._looked_at):
                self._looked_at.close()
                self._looked_at = None
                until = time.monotonic() + LEAVE_GRACE
            if until is not None and time.monotonic() >= until:
                return LEFT
            for fd, _ in events:
                if fd == self._control.fileno():
                    if not self._obey():
                        return "it was stopped" if until is None else LEFT
                elif not self._is_wake(fd):
                    watched.unregister(fd)
                    until = time.monotonic() + LEAVE_GRACE
            self._see_to_lease(is_quiet=not events)

    def _patience(self, until: float | None) -> float | None:
        """Seconds until there is something to do where nothing comes; None: there is nothing."""
        if until is not None:
            return max(0.0, until - time.monotonic())
        times = [LOOK_AFTER] if self._looked_at is not None else []
        if self._lease is not None and self._lease.patience is not None:
            times.append(self._lease.patience)
        if self._tidy_at:
            times.append(max(0.0, self._tidy_at[0] - time.monotonic()))
        return min(times, default=None)

    def _tidy(self) -> None:
        """Give back what drivers' compilers have freed since the client came, if it is time."""
        if self._tidy_at and time.monotonic() >= self._tidy_at[0]:
            self._tidy_at.pop(0)
            give_memory_back()

    def _is_wake(self, fd: int) -> bool:
        """Whether `fd` is a wake-up of ours; the supervisor is told of work."""
        if self._share is not None and fd == self._share.wake.read_fd:
            self._share.wake.drain()
            self._say("works")
            return True
        return self._lease is not None and fd == self._lease.wake.read_fd

    def _see_to_lease(self, *, is_quiet: bool) -> None:
        """Ask for what is wanted of the memory of all clients, or give back what is not."""
        lease = self._lease
        if lease is None:
            return
        question = lease.question()
        if question is not None:
            self._say("wants", **question)
        elif is_quiet and (size := lease.rest()) is not None:
            self._say("gives", lease=size)

    def _obey(self) -> bool:
        """Take an order from the supervisor; False when it is to end."""
        try:
            message = channel.receive_down(self._control)
        except OSError:
            return False
        order, fds = message if message is not None else ({"do": "stop"}, [])
        if order["do"] == "noted":
            self._noted.set()
        elif order["do"] == "lease" and self._lease is not None:
            self._lease.answer(order["lease"])
        elif order["do"] == "figures":
            self._show_figures(order["watch"])
        elif order["do"] == "trace":
            self._trace(fds, order["seconds"])
        else:
            return False
        return True

    def _show_figures(self, seconds: float) -> None:
        """Say what the client's context does; nothing yet where it has none."""
        found = self._watched.figures(seconds) if self._watched is not None else Figures()
        self._say("figures", **msgspec.to_builtins(found))

    def _trace(self, fds: list[int], seconds: float) -> None:
        """Begin a trace; of a client that has no context yet, when it gets one."""
        (fd,) = fds
        with self._showing:
            watched = self._watched
            if watched is None and self._early_trace is None:
                self._early_trace = (fd, time.monotonic() + seconds)
                return
        if watched is not None:
            watched.trace(fd, seconds)
        os.close(fd)

    def _say(self, is_: str, **values: Any) -> None:
        # Where the supervisor is gone, `_watch` has noticed.
        with contextlib.suppress(OSError), self._speaking:
            channel.send_up(self._control, is_, **values)

    def _log(self, level: str, logger: str, event: str, fields: dict[str, Any]) -> None:
        self._say("log", level=level, logger=logger, event=event, fields=fields)


def warm_up_later(service: Service, control: socket.socket, *, background: bool) -> None:
    """Warm up if nothing comes over `control` at once; in the background, soon."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    if poll.poll((QUIET if background else AT_ONCE) * 1000):
        return
    if background:
        run_in_background(service.warm_up)
    else:
        service.warm_up()


def _exit(status: int) -> NoReturn:
    """End the process without unloading the driver.

    Its threads may still run; taking the interpreter down under them can hang or crash.
    """
    log.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
