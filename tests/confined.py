"""That all workers behind a server are confined: every test with real clients and guests looks."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hesper.sandbox import seccomp

_PROC = Path("/proc")


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


def check_workers(server: int) -> None:
    """Assert that below a server's process all workers, and what they come from, are confined."""
    if seccomp.obstacle():
        return
    for pid in _descendants(server):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = _words(pid)
            if not {"hesper.isolation.template", "hesper.isolation.start"} & set(words):
                continue
            lines = (_PROC / str(pid) / "status").read_text().splitlines()
            status = {name: value.strip() for name, _, value in (x.partition(":") for x in lines)}
            if status["State"].startswith("Z"):
                continue
            seen = status["Seccomp"], status["NoNewPrivs"], int(status["CapEff"], 16)
            assert seen == ("2", "1", 0), (pid, words, seen)
