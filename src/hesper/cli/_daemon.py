"""A machine in the background: the same command again, apart from this terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hesper.cli import fail
from hesper.vm import registry

OPTION = "--daemon"
START_SECONDS = 120.0
LOOK_SECONDS = 0.1
LAST_WORDS = 20
"""Lines of what it said that are shown where it does not start."""


def run_apart(name: str, arguments: Sequence[str]) -> None:
    """Start `hesper ARGUMENTS` apart, and return once the machine of that name runs.

    Ends the program where it does not.
    """
    log = registry.log_of(name)
    with open(_anew(log), "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", "from hesper.cli import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print(*said[-LAST_WORDS:], sep="\n", file=sys.stderr)
            fail(f"{name} has not started; all it said is in {log}")
        try:
            answer = registry.ask(name, "show")
            break
        except registry.MachineError:
            if time.monotonic() > deadline:
                process.kill()
                fail(f"{name} has not started in {START_SECONDS:g} s; what it said is in {log}")
            time.sleep(LOOK_SECONDS)
    print(*answer["places"], sep="\n")
    print(f"{name} runs in the background: hesper vm show {name}, hesper vm stop {name}")
    print(f"its log: {log}", flush=True)


def _anew(path: Path) -> int:
    """Open an empty log for this user alone: the screens' password and token are in it."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def without_daemon(arguments: Sequence[str]) -> list[str]:
    """The command line, as it is for the machine itself."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [word for word in arguments[:end] if word != OPTION] + list(arguments[end:])
