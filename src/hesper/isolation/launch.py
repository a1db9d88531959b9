"""How worker processes come to be: spawned anew, or forked from a template.

A template is a process that has imported all that workers need, and nothing else: it has loaded no
Vulkan and runs one thread, so that its forks are as good as new.  A worker of its making costs a
tenth of one that imports everything itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hesper.log import get_logger
from hesper.portable import exit_watch, has_ended, has_templates, kill_watched, pipe, spawn
from hesper.sandbox.environment import scrubbed
from hesper.sandbox.nodes import make_nodes

if TYPE_CHECKING:
    from hesper.sandbox import Mode

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

_MAX_LINE = 4096

_log = get_logger(__name__)


class Process(Protocol):
    """A worker's process, as its supervisor has it."""

    pid: int
    """0 as long as it is not known."""
    returncode: int | None
    """Exit status, negative for a signal; None while it runs, and where nobody knows."""
    problem: str
    """Why it could not begin; empty when it has."""
    watch: int
    """A descriptor that can be read from when it has ended; -1 where there is none, or not yet."""

    def poll(self) -> bool:
        """Whether it has ended; then `returncode` says how."""

    def kill(self) -> None:
        """End it."""

    def wait(self) -> None:
        """Wait for its end, which must be near; free what it holds here."""


class Launcher(Protocol):
    """Starts workers."""

    def launch(self, control: socket.socket, *, background: bool) -> Process:
        """Start a worker that has `control` for its end of the socket pair.  Raises `OSError`."""

    def preload(self, files: Sequence[str]) -> None:
        """Have workers that are started from now on share these libraries, if they share any."""

    def fileno(self) -> int | None:
        """What is to be watched, if anything; `hear` is then to be called."""

    def hear(self) -> bool:
        """Take note of what has become of workers; False when it can start no more."""

    def close(self) -> None:
        """Start no more."""


class SpawnedProcess:
    """A child of ours."""

    def __init__(self, control: socket.socket, sandbox: Mode, *, background: bool) -> None:
        """Start it.  Raises `OSError`."""
        command = worker_command(control.fileno(), sandbox, background=background)
        with contextlib.ExitStack() as stack:
            self.watch, end = pipe()
            for fd in (self.watch, end):
                stack.callback(os.close, fd)
            self._process = spawn(command, fds=[control.fileno()], env=environment(sandbox))
            stack.pop_all()
        self.pid = self._process.pid
        self.returncode: int | None = None
        self.problem = ""
        # SIGCHLD is not ours to take, and not every system has another way to watch a child.
        self._waiter = threading.Thread(target=self._await_end, args=[end], daemon=True)
        self._waiter.start()

    def _await_end(self, end: int) -> None:
        self._process.wait()
        os.close(end)

    def poll(self) -> bool:
        """Whether it has ended."""
        self.returncode = self._process.poll()
        return self.returncode is not None

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def wait(self) -> None:
        """Wait for its end."""
        self._waiter.join()
        self.returncode = self._process.returncode
        if self.watch >= 0:
            os.close(self.watch)
            self.watch = -1


def environment(sandbox: Mode) -> dict[str, str]:
    """What workers, and the processes they are made by, find around them."""
    found = dict(os.environ) if sandbox == "off" else scrubbed(os.environ)
    # It must find this very package, however this process has found it.
    return {**_ALLOCATOR, **found, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def worker_command(fd: int, sandbox: Mode, *, background: bool) -> list[str]:
    """The command line of a worker that imports everything itself."""
    command = [sys.executable, "-P", "-m", "hesper.isolation.start", str(fd), sandbox]
    return [*command, "background"] if background else command


class Spawner:
    """Starts each worker anew: the way that every system has."""

    def __init__(self, sandbox: Mode) -> None:
        """Workers are confined so."""
        self._sandbox = sandbox

    def launch(self, control: socket.socket, *, background: bool) -> Process:
        """Start a worker."""
        return SpawnedProcess(control, self._sandbox, background=background)

    def preload(self, files: Sequence[str]) -> None:
        """Each loads its own."""

    def fileno(self) -> int | None:
        """Each tells of its end by itself."""
        return None

    def hear(self) -> bool:
        """There is nothing to hear."""
        return True

    def close(self) -> None:
        """There is nothing to close."""


class ForkedProcess:
    """A child of the template, which tells how it has ended."""

    def __init__(self) -> None:
        """It is still to be forked."""
        self.pid = 0
        self.returncode: int | None = None
        self.problem = ""
        """Why it could not be forked."""
        self.watch = -1
        self._ended = False
        self._orphaned = False
        self._unwanted = False

    def begun(self, pid: int, watch: int) -> None:
        """Take note that it runs.  `watch`: see `portable.exit_watch`."""
        self.pid = pid
        self.watch = watch
        if self._unwanted:
            self.kill()

    def ended(self, returncode: int | None) -> None:
        """Take note of its end."""
        self.returncode = returncode
        self._ended = True

    def poll(self) -> bool:
        """Whether it has ended."""
        if self._orphaned and not self._ended:
            self._ended = has_ended(self.watch)
        return self._ended

    def orphan(self) -> None:
        """Take note that nobody will tell of its end."""
        self._orphaned = True

    def kill(self) -> None:
        """End it; as soon as it runs."""
        self._unwanted = True
        if self.watch >= 0:
            kill_watched(self.watch)

    def wait(self) -> None:
        """Wait for its end."""
        if self.watch >= 0:
            has_ended(self.watch, wait=True)
            os.close(self.watch)
            self.watch = -1


class Template:
    """Has workers forked by a process of its own, `isolation.template`.

    Life: made, used, `close`d.  When its process is gone, `hear` says so, once; the workers that
    are there go on.
    """

    def __init__(self, service: str, sandbox: Mode) -> None:
        """Start it.  service, sandbox: see `Supervisor`.  Raises `OSError`."""
        self._control, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-P", "-m", "hesper.isolation.template", str(fd), service]
            command.append(sandbox)
            try:
                self._process = spawn(command, fds=[fd], env=environment(sandbox))
            except OSError:
                self._control.close()
                raise
        self._control.setblocking(False)
        self._asked: list[ForkedProcess] = []
        self._running: dict[int, ForkedProcess] = {}
        self._rest = b""
        self._watches: list[int] = []
        self._reserved: list[int] = []
        self.has_forked = False
        """Whether a worker has come of it."""
        self.problem = "it has ended"
        """Why `hear` has said False."""

    def launch(self, control: socket.socket, *, background: bool) -> Process:
        """Have a worker forked.  Raises `OSError`."""
        order = b"b" if background else b"f"
        self._reserve()
        socket.send_fds(self._control, [order], [control.fileno()])
        process = ForkedProcess()
        self._asked.append(process)
        return process

    def preload(self, files: Sequence[str]) -> None:
        """Have the template load libraries: its forks share what that takes."""
        reading, writing = pipe()
        # A pipe holds more than the paths of a few libraries.
        with contextlib.suppress(OSError), open(reading, "rb") as names:
            with open(writing, "wb") as file:
                file.write("\0".join(files).encode()[:_MAX_LINE])
            socket.send_fds(self._control, [b"l"], [names.fileno()])

    def _reserve(self) -> None:
        """Keep a descriptor for a watch: what has no room here when it comes is lost."""
        self._reserved.append(os.open(os.devnull, os.O_RDONLY))

    def _make_room(self) -> None:
        os.close(self._reserved.pop())

    def fileno(self) -> int | None:
        """Where the template speaks."""
        return self._control.fileno()

    def hear(self) -> bool:
        """Take note of what has become of workers."""
        is_expecting = bool(self._reserved)
        if is_expecting:
            self._make_room()
        try:
            # One message brings one descriptor at most.
            data, fds, _, _ = socket.recv_fds(self._control, _MAX_LINE, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            data, fds = None, []
        except ConnectionError:
            data, fds = b"", []
        for fd in fds:
            os.set_inheritable(fd, False)
        self._watches += fds
        if is_expecting and not fds:
            try:
                self._reserve()
            except OSError as error:
                # Another thread has taken it.  A worker that could not be watched is not to be had.
                self.problem = f"no descriptor to watch workers by: {error.strerror}"
                data = b""
        if data == b"":
            self._lost()
            return False
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        for line in lines:
            self._heard(json.loads(line))
        return True

    def _heard(self, message: dict[str, int | str]) -> None:
        if "without" in message:
            _log.debug("workers have no namespaces of their own", reason=message["without"])
            return
        pid = int(message["pid"])
        if "status" in message:
            self._running.pop(pid).ended(int(message["status"]))
            return
        process = self._asked.pop(0)
        if "problem" in message:
            self._make_room()
            process.problem = str(message["problem"])
            process.ended(None)
            return
        self.has_forked = True
        process.begun(pid, self._watches.pop(0))
        self._running[pid] = process

    def _lost(self) -> None:
        for process in self._asked:
            process.problem = "the process that forks workers has ended"
            process.ended(None)
        self._asked.clear()

    def orphans(self) -> list[ForkedProcess]:
        """Workers that are there, of whose end nobody will tell: after `hear` has said False."""
        running = list(self._running.values())
        for process in running:
            process.orphan()
        return running

    def close(self) -> None:
        """End the template; the workers that are there go on."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        for fd in self._watches + self._reserved:
            os.close(fd)
        self._watches.clear()
        self._reserved.clear()


def new_launcher(service: str, sandbox: Mode) -> Launcher:
    """Return the best launcher that this system has for workers of `service`.

    `HESPER_WORKERS=spawn` takes the one that every system has.  Raises `OSError` where there is a
    better one, which cannot be had now.
    """
    if sandbox == "on":
        make_nodes()
    watch = exit_watch(os.getpid()) if has_templates() else -1
    if watch < 0:
        return Spawner(sandbox)
    os.close(watch)
    return Template(service, sandbox)
