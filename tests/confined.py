"""That all workers behind a server are confined: every test with real clients and guests looks."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from hesper.sandbox import seccomp

_PROC = Path("/proc")
START_SECONDS = 30.0
"""On an emulated machine; before it is given a client it is confined."""


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


def _status(pid: int) -> dict[str, str]:
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (x.partition(":") for x in lines)}


def check_workers(server: int) -> None:
    """Assert that below a server's process all workers, and what they come from, are confined.

    One that was started anew, and not forked, has some seconds to drop its capabilities: all else
    it has from who has started it.
    """
    if seccomp.obstacle():
        return
    deadline = time.monotonic() + START_SECONDS
    for pid in _descendants(server):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = _words(pid)
            if not {"hesper.isolation.template", "hesper.isolation.start"} & set(words):
                continue
            while not (status := _status(pid))["State"].startswith("Z"):
                seen = status["Seccomp"], status["NoNewPrivs"], int(status["CapEff"], 16)
                if seen == ("2", "1", 0):
                    break
                assert seen[:2] == ("2", "1"), (pid, words, seen)
                assert "hesper.isolation.start" in words, (pid, words, seen)
                assert time.monotonic() < deadline, (pid, words, seen)
                time.sleep(0.01)
