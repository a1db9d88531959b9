"""QEMU's process, and what it has to say."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence

NOISE = ("Failed preparing vhost-user memory table msg", "vhost_set_mem_table failed")
"""What QEMU says for every mapped blob beyond the first few.

It means that QEMU does not share the blob back with the device, which has made it.  The guest's
own mapping of it works.
"""


def start_qemu(
    arguments: Sequence[str],
    *,
    own_group: bool,
    stdin: int | None = None,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start QEMU; what it says on standard error goes to ours, without the noise.

    own_group: a process group of its own, so that Ctrl-C in a terminal is not for it.  stdin,
    stdout: as for `subprocess.Popen`.  Raises `OSError`.
    """
    process = subprocess.Popen(
        arguments,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        process_group=0 if own_group else None,
    )
    if process.stderr is not None:
        threading.Thread(target=_pass_on, args=[process.stderr], daemon=True).start()
    return process


def _pass_on(lines: Iterable[bytes]) -> None:
    for line in lines:
        text = line.decode(errors="replace")
        if not any(noise in text for noise in NOISE):
            sys.stderr.write(text)
            sys.stderr.flush()
