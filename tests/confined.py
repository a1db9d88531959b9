"""That all workers behind a server are confined: every test with real clients and guests looks."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from hesper.sandbox import seccomp

_PROC = Path("/proc")
START_SECONDS = 30.0
"""On an emulated machine; a worker that serves is confined before it is given a client."""


def _descendants(pid: int) -> list[int]:
    """All processes below one, of all its threads."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _words(pid: int) -> list[str]:
    return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")


def _is_confined(pid: int) -> bool:
    """Whether a worker is, or what it comes from; any other process counts as confined."""
    if not {"hesper.isolation.template", "hesper.isolation.start"} & set(_words(pid)):
        return True
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if status["State"].startswith("Z"):
        return True
    return (status["Seccomp"], status["NoNewPrivs"], int(status["CapEff"], 16)) == ("2", "1", 0)


def check_workers(server: int) -> None:
    """Assert that below a server's process all workers, and what they come from, are confined.

    One that has just been started, to wait for the next client, has some seconds for that.
    """
    if seccomp.obstacle():
        return
    deadline = time.monotonic() + START_SECONDS
    for pid in _descendants(server):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while not _is_confined(pid):
                assert time.monotonic() < deadline, (pid, _words(pid))
                time.sleep(0.01)
