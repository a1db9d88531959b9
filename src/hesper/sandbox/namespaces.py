"""Namespaces: workers see no process, network, message queue or mount but their own.

They need no privileges where the system lends namespaces of users (`user_namespaces(7)`);
containers and some distributions do not.  A server's workers have one of each in common, made by
the process that they are forked from: to make them anew costs more than to start a worker.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from hesper.portable import close_others
from hesper.sandbox.process import needs_root, own_files
from hesper.sandbox.system import NAME, call, prctl

_MOUNTS, _IPC, _USERS, _PROCESSES, _NETWORK = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
"""CLONE_NEWNS and so on (`linux/sched.h`)."""
_RECURSIVE, _PRIVATE = 0x4000, 0x40000
"""MS_REC and MS_PRIVATE (`linux/mount.h`)."""

OF_A_PROCESS = _USERS | _IPC | _NETWORK | _MOUNTS
"""What a process can have for itself."""
OF_CHILDREN = OF_A_PROCESS | _PROCESSES


def obstacle(flags: int = OF_CHILDREN) -> str:
    """Try them in a process that ends at once; say why they are not to be had, empty when they are.

    Only where this process runs one thread.
    """
    if os.geteuid() == 0 and needs_root(own_files()):
        return "Hesper lies in a folder that root may read only because it is root"
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter(flags)
        except BaseException as error:
            os.write(writing, str(error).encode()[:200])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        why = said.read().decode()
    _, status = os.waitpid(pid, 0)
    return why or ("" if status == 0 else "the process that tried has died")


def enter(flags: int) -> None:
    """Be in namespaces of its own, or have the processes that are forked be.  Raises `OSError`."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", flags)
    # A group that was given up would come back without that (`user_namespaces(7)`).
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    call("mount", b"none\0", b"/\0", None, _RECURSIVE | _PRIVATE, None)


def begin_processes() -> int:
    """Start the first process of the namespace, with which all others in it end.

    It ends when nobody has the descriptor any more that is returned: this process, and those that
    it forks.  Raises `OSError`.
    """
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            os.setpgid(0, 0)
            prctl(NAME, b"hesper-init\0")
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            nothing = os.open(os.devnull, os.O_WRONLY)
            for theirs, its in ((reading, 0), (nothing, 1), (nothing, 2)):
                os.dup2(theirs, its)
            close_others()
            while os.read(0, 1):
                pass
        finally:
            os._exit(0)
    os.close(reading)
    return writing
