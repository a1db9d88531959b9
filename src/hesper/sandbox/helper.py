"""What processes of Hesper's own give up that no guest is in: a supervisor, a machine's GPU."""

from __future__ import annotations

from hesper.portable import is_linux
from hesper.sandbox import Mode, process, seccomp


def harden(mode: Mode) -> None:
    """Give up what this process never needs, on all threads, for good; what it starts does, too.

    For programs, which may change the process that they are in.  Raises `OSError`.
    """
    if mode != "on":
        return
    process.forbid_cores()
    if is_linux() and not seccomp.obstacle():
        process.forbid_privileges()
        seccomp.install(seccomp.helper_filter())
