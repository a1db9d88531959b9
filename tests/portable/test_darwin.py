"""Hesper where Linux answers as macOS does: `HESPER_PORTABLE=1` and a shim, `darwin.c`.

Pages have 16 KiB there, as on Apple Silicon.  What the shim does is from sources; it was compared
with no Mac.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ISOLATION = (
    "each_client_has_a_process or stuck_when_its_client_leaves or leaves_before_it_has_a_worker"
    " or beyond_the_limit or outlive_their_supervisor or hangs_up or vulkaninfo_sees_the_driver"
)
"""Workers that come and go, and their clients.  Each is started anew, which takes its time."""
QUICK = "not (vm or clients or programs or slow)"
SELECTIONS = {
    "kernel": ["-m", QUICK, "kernel"],
    "vtest": ["-m", QUICK, "vtest"],
    "vhost": ["-m", QUICK, "vhost"],
    "gpu": ["-m", QUICK, "gpu"],
    "host": ["-m", QUICK, "host"],
    "isolation": ["-k", f"({ISOLATION}) and not fork", "isolation"],
}
PATIENCE = 1500

DIFFERENCES = """
import errno, fcntl, os, select, socket, sys, time
import _posixshmem
from hesper import portable

here, there = socket.socketpair()
there.send(b"left to read")
there.close()
silent = select.poll()
silent.register(here, 0)
assert silent.poll(0) == []
assert portable.has_hung_up(here)
assert here.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 8192

memory = portable.SharedMemory.create(5000, "test")
status = os.fstat(memory.fd)
assert (status.st_dev, status.st_ino, status.st_size) == (0, 0, memory.size)
assert portable.is_fixed(memory.fd)
try:
    os.ftruncate(memory.fd, 2 * memory.size)
    raise SystemExit("resized")
except OSError as error:
    assert error.errno == errno.EINVAL
try:
    _posixshmem.shm_open("/" + 31 * "x", os.O_RDWR | os.O_CREAT, mode=0o600)
    raise SystemExit("a long name")
except OSError as error:
    assert error.errno == errno.ENAMETOOLONG

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
listener.setblocking(False)
for accept, waits in (lambda s: s.accept()[0], False), (portable.accept, True):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    taken = accept(listener)
    assert bool(fcntl.fcntl(taken, fcntl.F_GETFL) & os.O_NONBLOCK) is not waits
assert time.monotonic_ns() % 1000 == 0
"""
"""What the shim does, and how Hesper has its way all the same."""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process on the twin of a Mac."""
    shim = tmp_path_factory.mktemp("shim") / "libdarwin.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", shim, HERE / "darwin.c", "-ldl"], check=True)
    variables = {"HESPER_PORTABLE": "1", "HESPER_PAGE_SIZE": "16384", "LD_PRELOAD": str(shim)}
    return {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_differences_are_there(environ: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", DIFFERENCES, str(tmp_path / "socket")]
    subprocess.run(command, env=environ, check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize("room", SELECTIONS)
def test_all_goes_on(environ: dict[str, str], room: str) -> None:
    """The quick tests of what meets the system most."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SELECTIONS[room]],
        env=environ,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
