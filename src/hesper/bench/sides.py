"""What is compared: the bare driver, and servers in front of it."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from hesper.bench.layer import noting, showing
from hesper.bench.processes import tree
from hesper.errors import HesperError

BARE, SEEN, HESPER, PEER = "bare", "seen", "hesper", "peer"
"""Names of the sides."""

TITLES = {BARE: "bare driver", SEEN: "bare, as guests see it", HESPER: "Hesper", PEER: "peer"}

PEER_COMMAND = "virgl_test_server --venus --no-virgl --socket-path {socket}"

START_SECONDS = 60.0
STOP_SECONDS = 10.0


class SideError(HesperError):
    """A side that does not work; the text says why."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path
    """What it writes on standard error."""
    ready_ms: float
    """Milliseconds from its start until it could be connected to."""

    def processes(self) -> list[int]:
        """Its processes, the first one first."""
        return tree(self.process.pid)


@dataclass(frozen=True)
class Side:
    """One way for a program's Vulkan to reach the driver."""

    name: str
    environment: Mapping[str, str]
    """Variables of programs on this side; `{socket}` in a value is the server's socket."""
    server: tuple[str, ...] = ()
    """Command line of the server, `{socket}` being filled in; empty: there is none."""
    server_environment: Mapping[str, str] | None = None
    says_ready: bool = False
    """Whether the server prints a line when clients may come, or must be tried."""
    probe_environment: Mapping[str, str] = field(default_factory=dict)
    """More variables for the first program on this side, which shows that it works."""

    @property
    def title(self) -> str:
        """What people read."""
        return TITLES[self.name]

    def for_probe(self) -> Side:
        """Return this side for its first program."""
        return replace(self, environment={**self.environment, **self.probe_environment})

    def client_environment(self, server: Server | None) -> dict[str, str]:
        """The whole environment of a program on this side."""
        path = str(server.socket) if server else ""
        given = {key: value.replace("{socket}", path) for key, value in self.environment.items()}
        # Our own programs must find this very package, however this process has found it.
        package = os.pathsep.join(path for path in sys.path if path)
        return {**os.environ, "PYTHONPATH": package, **given}

    @contextlib.contextmanager
    def serving(self) -> Iterator[Server | None]:
        """Run the server, if there is one.  Raises `SideError` when it does not come up."""
        if not self.server:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="hesper-", dir="/tmp") as name:
            folder = Path(name)
            path = folder / "socket"
            command = [word.replace("{socket}", str(path)) for word in self.server]
            with (folder / "log").open("wb") as log:
                start = time.perf_counter()
                process = _spawn(command, {**os.environ, **(self.server_environment or {})}, log)
                try:
                    self._wait(process, path, folder / "log")
                    ready_ms = (time.perf_counter() - start) * 1e3
                    yield Server(process, path, folder / "log", ready_ms)
                finally:
                    _stop(process)

    def _wait(self, process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
        """Wait until clients may come."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if self.says_ready:
                if process.stdout and select.select([process.stdout], [], [], 0.5)[0]:
                    if process.stdout.readline():
                        return
                    break
            elif _answers(path):
                return
        text = log.read_text(errors="replace").strip()
        raise SideError(f"{self.title}: {shlex.join(self.server)} does not come up: {text}")


def bare_side(driver: Mapping[str, str]) -> Side:
    """The driver itself.  driver: the variables that lead to it."""
    return Side(BARE, driver)


def seen_side(driver: Mapping[str, str], view: Path) -> Side:
    """The driver itself, but no more of it than a guest sees.  view: see `hesper_side`."""
    return Side(SEEN, {**driver, **showing(view)})


def hesper_side(
    driver: Mapping[str, str],
    client: Mapping[str, str],
    command: Sequence[str],
    view: Path | None = None,
) -> Side:
    """Hesper.

    client: the variables that lead to the server on `{socket}`.  view: where to note, with the
    first program, what a guest sees of the driver.
    """
    noted = noting(view) if view is not None else {}
    return Side(HESPER, client, tuple(command), driver, says_ready=True, probe_environment=noted)


def peer_side(driver: Mapping[str, str], client: Mapping[str, str], command: str) -> Side:
    """Another Venus server.  Raises `SideError` when its program is not installed."""
    words = tuple(shlex.split(command))
    if not words or not shutil.which(words[0]):
        raise SideError(f"peer: {words[0] if words else 'no program'} is not installed")
    if not any("{socket}" in word for word in words):
        raise SideError(f"peer: the command must name {{socket}}: {command}")
    return Side(PEER, client, words, driver)


def client_command(task: str, *words: str, quick: bool = False) -> list[str]:
    """The command line of the measured program (`hesper.bench.client`)."""
    command = [sys.executable, "-m", "hesper.bench.client", task, *words]
    return [*command, "--quick"] if quick else command


def run_client(
    side: Side, server: Server | None, task: str, *, quick: bool = False
) -> subprocess.Popen[str]:
    """Start the measured program (`hesper.bench.client`) on a side."""
    return subprocess.Popen(
        client_command(task, quick=quick),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=side.client_environment(server),
        text=True,
    )


def _spawn(
    command: list[str], environment: dict[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            process_group=0,
        )
    except OSError as error:
        raise SideError(f"cannot run {command[0]}: {error.strerror}") from None


def _answers(path: Path) -> bool:
    """Whether something accepts connections on `path`; waits a little when it does not."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            time.sleep(0.001)
            return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it has started in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout:
        process.stdout.close()
