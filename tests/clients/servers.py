"""Servers and clients for the tests with real programs.

A `Place` is where a client runs: on this machine, or in a Debian root that `scripts/client-root`
has made.  A `Setup` is how the host side runs, and on which driver: lavapipe, or a fake one over
it with the rules of other drivers (tests/drivers).  `serving` starts a server for one setup, `bare`
runs clients on the driver itself.

HESPER_TEST_SERVER replaces `hesper serve`: a command line in which {socket} is filled in.  It lets
the same tests judge another Venus server.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fake_drivers import METAL, MODES, FakeDriver, make_driver

from confined import check_workers

START_SECONDS = 180.0
RUN_SECONDS = 240.0
STOP_SECONDS = 120.0

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
"""The command `hesper`, of the package that the tests import."""

CACHE = Path(
    os.environ.get("HESPER_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hesper"
)


class ServerError(Exception):
    """A server that did not start, or died; the text holds what it printed."""


@dataclass(frozen=True)
class Place:
    """Where a client runs, and where it finds its drivers."""

    name: str
    root: Path
    """What `/` is for the client."""
    bare_manifest: str
    """The machine's lavapipe, as the client sees it."""
    lavapipe: str | None
    """Its library, where that is not what the machine's manifest names."""
    venus_manifest: str
    exchange: Path
    """A folder of the client's in which tests leave files and sockets, as this machine sees it."""

    def path(self, path: Path) -> str:
        """`path` (on this machine) as the client sees it."""
        return "/" + str(path.relative_to(self.root))

    def command(self, argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
        """The command line that runs `argv` there, with nothing but `environ` set."""
        variables = [f"{name}={value}" for name, value in environ.items()]
        inside = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *variables, *argv]
        if self.root == Path("/"):
            return inside
        chroot = ["chroot", str(self.root), *inside]
        return chroot if os.geteuid() == 0 else ["sudo", "-n", *chroot]


@dataclass(frozen=True)
class Setup:
    """How the host side runs."""

    name: str
    arguments: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict, hash=False)
    mode: str = ""
    """The fake driver's; empty for lavapipe itself."""

    def device(self, name: str) -> str:
        """What its driver calls the device that is `name` to lavapipe."""
        return f"fake {self.mode}" if self.mode else name


SCENES = ("vertex", "texture", "shading", "effect2d", "desktop", "cube", "clear")
"""All of vkmark's."""

PAGES = {"HESPER_PAGE_SIZE": "16384"}
FAKES = tuple(
    Setup(f"{mode}-driver", environ=PAGES if mode in METAL else {}, mode=mode) for mode in MODES
)
SETUPS = (
    Setup("plain"),
    Setup("moltenvk", ("--host-profile", "moltenvk")),
    Setup("16k", environ=PAGES),
    *FAKES,
)


@dataclass(frozen=True)
class Client:
    """Runs programs in a place, on the bare driver or through a server."""

    place: Place
    environ: Mapping[str, str]
    """What makes the program use that driver."""

    def run(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        timeout: float = RUN_SECONDS,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; a failure shows what it printed."""
        command = self.place.command(argv, {**self.environ, **(environ or {})})
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{shlex.join(argv)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def start(
        self, argv: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in the background."""
        command = self.place.command(argv, {**self.environ, **(environ or {})})
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )


@functools.cache
def fake_driver(place: Place, mode: str) -> FakeDriver:
    """The fake driver of a mode, for clients in `place`."""
    folder = place.exchange / f"driver-{os.getpid()}-{mode}"
    return make_driver(folder, mode, lavapipe=place.lavapipe)


def bare(
    place: Place, environ: Mapping[str, str] | None = None, *, setup: Setup | None = None
) -> Client:
    """A client on the driver itself: the setup's, or lavapipe."""
    manifest = place.bare_manifest
    if setup is not None and setup.mode:
        manifest = place.path(fake_driver(place, setup.mode).manifest)
    return Client(
        place,
        {
            "HOME": "/tmp",
            "VK_DRIVER_FILES": manifest,
            "LD_LIBRARY_PATH": "/opt/machine-driver/lib" if place.root != Path("/") else "",
            "VK_LOADER_LAYERS_DISABLE": "~implicit~",
            **(environ or {}),
        },
    )


def through(place: Place, socket: Path) -> Client:
    """A client of the Venus server that listens on `socket`."""
    return Client(
        place,
        {
            "HOME": "/tmp",
            "VK_DRIVER_FILES": place.venus_manifest,
            "VK_LOADER_LAYERS_DISABLE": "~implicit~",
            "VN_DEBUG": "vtest",
            "VTEST_SOCKET_NAME": place.path(socket),
        },
    )


@dataclass
class Server:
    """A running server."""

    socket: Path
    log: Path
    process: subprocess.Popen[bytes]
    said: str = ""
    """All that it and its workers have printed, once it has been stopped."""

    def client(self, place: Place) -> Client:
        """A client of this server."""
        return through(place, self.socket)

    def printed(self) -> str:
        """Everything it and its workers have printed so far."""
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def serving(
    place: Place, setup: Setup, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server with the setup's driver, stopped afterwards.

    Raises `ServerError` when it does not come up, and when it has not ended cleanly.
    """
    folder = place.exchange / f"hesper-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(mode=0o755)
    socket, log = folder / "socket", folder / "log"
    custom = os.environ.get("HESPER_TEST_SERVER")
    if custom:
        command = shlex.split(custom.format(socket=socket))
    else:
        driver = ["--driver", str(server_driver(setup))]
        # Tests of `hesper ps` and `hesper kill` run beside: root sees all of root's servers.
        command = [*HESPER, "serve", "--no-status", "--socket", str(socket)]
        command += [*driver, *setup.arguments]
    variables = {**os.environ, **setup.environ, **(environ or {})}
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables
            )
        server = Server(socket, log, process)
        try:
            _wait_for(server, custom=bool(custom))
            yield server
            if not custom:
                check_workers(process.pid)
        except BaseException as error:
            error.add_note(f"the server has printed:\n{server.printed()}")
            raise
        finally:
            _stop(server, clean=not custom)
            server.said = server.printed()
    finally:
        shutil.rmtree(folder)


def _wait_for(server: Server, *, custom: bool) -> None:
    """Wait until the server is ready."""
    deadline = time.monotonic() + START_SECONDS
    while not (server.socket.exists() and (custom or "ready on " in server.printed())):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"the server did not come up:\n{server.printed()}")
        time.sleep(0.02)


def _stop(server: Server, *, clean: bool) -> None:
    """Ask the server to stop, and see that it does."""
    server.process.send_signal(signal.SIGTERM)
    try:
        status = server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        raise ServerError(f"the server did not stop:\n{server.printed()}") from None
    if clean and status != 0:
        raise ServerError(f"the server ended with {status}:\n{server.printed()}")


def server_driver(setup: Setup) -> Path:
    """The manifest of the driver that a setup's server has."""
    return fake_driver(_server_place(), setup.mode).manifest if setup.mode else machine_lavapipe()


@functools.cache
def _server_place() -> Place:
    """Where the servers run, wherever the clients do: this machine."""
    folder = tempfile.TemporaryDirectory(prefix="hesper-servers-")
    atexit.register(folder.cleanup)
    return this_machine(Path(folder.name))


def machine_lavapipe() -> Path:
    """The manifest of this machine's lavapipe."""
    return _manifest(Path("/"), "lvp_icd*.json")


def _manifest(root: Path, pattern: str) -> Path:
    """The one manifest of that name; a missing one is a failure of the set-up."""
    found = sorted((root / "usr/share/vulkan/icd.d").glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern} below {root}; scripts/test installs it")
    return found[0]


def this_machine(exchange: Path) -> Place:
    """Clients that run on this machine."""
    venus = _manifest(Path("/"), "virtio_icd*.json")
    return Place("machine", Path("/"), str(machine_lavapipe()), None, str(venus), exchange)


def debian_root(suite: str) -> Place:
    """Clients that run in a root which `scripts/client-root` has made."""
    root = Path(os.environ.get(f"HESPER_ROOT_{suite.upper()}") or CACHE / "roots" / suite)
    if not (root / "exchange").is_dir():
        raise FileNotFoundError(f"{root} is not there; `scripts/client-root {suite}` makes it")
    venus = _manifest(root, "virtio_icd*.json")
    driver = "/opt/machine-driver"
    return Place(
        suite,
        root,
        f"{driver}/lvp_icd.json",
        f"{driver}/lib/libvulkan_lvp.so",
        "/" + str(venus.relative_to(root)),
        root / "exchange",
    )
