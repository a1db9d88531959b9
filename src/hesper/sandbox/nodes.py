"""Device nodes that a driver makes by a program of root's, which no confined process can run.

NVIDIA's driver has `nvidia-modprobe`, with the set-user-ID bit, make what is missing in /dev when
its first client comes.  Workers get no privileges, so that has to be done before there are any.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

_MODULE = Path("/sys/module/nvidia")
_NODES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/nvidia-uvm"))
_PATIENCE = 30.0
"""Seconds; loading a module takes a few."""


def make_nodes() -> None:
    """Have nodes made that are missing, where there is a driver that wants some."""
    program = shutil.which("nvidia-modprobe", path="/usr/bin:/usr/sbin:/bin:/sbin")
    if program is None or not _MODULE.exists() or all(node.exists() for node in _NODES):
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [program, "-c", "0", "-u"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
        )
