"""Which system this is: the one file in Python that may look at `sys.platform`.

`HESPER_PORTABLE=1` has Linux do what every POSIX system does, where it has something better of its
own, so that it is tested there: pipes, `poll`, POSIX shared memory, workers that are started anew.
What confines a process, and where the kernel tells of itself, are not meant: those every system
has of its own.
`HESPER_SHARED_MEMORY=posix` and `HESPER_WORKERS=spawn` are parts of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import selectors
import signal
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes


def is_linux() -> bool:
    """Whether this is Linux, with its ways to confine a process."""
    return sys.platform == "linux"


def is_macos() -> bool:
    """Whether this is macOS, with its way to confine a process."""
    return sys.platform == "darwin"


def is_portable() -> bool:
    """Whether to do without what only this system has."""
    return sys.platform != "linux" or os.environ.get("HESPER_PORTABLE") == "1"


def has_memfd() -> bool:
    """Whether shared memory is a memfd; else it is POSIX shared memory."""
    return not is_portable() and os.environ.get("HESPER_SHARED_MEMORY") != "posix"


def has_templates() -> bool:
    """Whether workers may be forked from a template; else each is started anew."""
    return not is_portable() and os.environ.get("HESPER_WORKERS") != "spawn"


def control(name: str) -> bytes:
    """What macOS's kernel tells by that name (`sysctl(3)`); nothing where there is none."""
    if sys.platform != "darwin":
        return b""
    return _control(name)


def _control(name: str) -> bytes:
    import ctypes

    size = ctypes.c_size_t(256)
    found = ctypes.create_string_buffer(size.value)
    if libc().sysctlbyname(name.encode(), found, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return b""
    return found.raw[: size.value]


def is_translated() -> bool:
    """Whether this is a program for Intel's processors on one of Apple's (Rosetta)."""
    return int.from_bytes(control("sysctl.proc_translated")[:4], "little") == 1


def system() -> str:
    """The system's name and release."""
    import platform

    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} (Darwin {platform.release()})"
    return f"{platform.system()} {platform.release()}"


def architecture() -> str:
    """The kind of processor, as Linux and QEMU call it: `x86_64`, `aarch64`."""
    import platform

    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def processor_name() -> str:
    """The processor's name, where the system says it; else its architecture."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        brand = control("machdep.cpu.brand_string").rstrip(b"\0").decode(errors="replace")
        names = [brand, platform.processor()]
    return next(filter(None, names), architecture())


@functools.cache
def libc() -> ctypes.CDLL:
    """Open the C library; what is called with more than numbers is declared (64-bit systems)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_size_t
    flag = ctypes.c_int
    libc.mmap.argtypes = [word, word, flag, flag, flag, ctypes.c_int64]
    libc.mmap.restype = word
    libc.munmap.argtypes = [word, word]
    libc.munmap.restype = flag
    return libc


def selector() -> selectors.BaseSelector:
    """Return the best selector for a few descriptors."""
    return selectors.PollSelector() if is_portable() else selectors.DefaultSelector()


def pipe() -> tuple[int, int]:
    """Make a pipe that children do not inherit: the end to read, the end to write.

    Raises `OSError`.
    """
    if sys.platform == "linux" and is_portable():
        return _bare_pipe()
    return os.pipe()


def _bare_pipe() -> tuple[int, int]:
    """Make one without `pipe2`, which Python prefers."""
    import ctypes

    ends = (ctypes.c_int * 2)()
    if libc().pipe(ends):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    for fd in ends:
        os.set_inheritable(fd, False)
    return ends[0], ends[1]


def accept(listener: socket.socket) -> socket.socket:
    """Take a connection; the socket is one that waits, and that children do not inherit.

    Raises `OSError`.
    """
    if sys.platform == "linux" and is_portable():
        sock = _bare_accept(listener)
    else:
        sock, _ = listener.accept()
    # Some systems (macOS) have it from the listener, which may not wait.
    sock.setblocking(True)
    return sock


def _bare_accept(listener: socket.socket) -> socket.socket:
    """Take one without `accept4`, which Python prefers."""
    import ctypes

    patience = listener.gettimeout()
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not poll.poll(None if patience is None else patience * 1000) and patience:
        raise TimeoutError("timed out")
    fd: int = libc().accept(listener.fileno(), None, None)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def poll_tells_of_end() -> bool:
    """Whether `poll` tells of the end of a connection who asks for nothing (`events` 0).

    By POSIX it does; macOS says nothing then.
    """
    return not is_portable()


def give_way() -> None:
    """Let this thread, and those that it starts, run when nobody else wants to, if that can be."""
    if sys.platform == "linux" and not is_portable():
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def processors() -> int:
    """How many processors this process may use."""
    if sys.platform == "linux" and not is_portable():
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def exit_watch(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; -1 where the system has none.

    Unlike its number it never means another process.  Linux has it, outside some sandboxes.
    """
    if sys.platform != "linux" or is_portable():
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def kill_watched(watch: int) -> None:
    """End the process of an `exit_watch`, if it is still there."""
    if sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(watch, signal.SIGKILL)


def path_watch(path: str) -> int:
    """A descriptor that can be read from when a file has been moved or removed.

    -1 where the system does not tell, as only Linux does (by inotify), or where it may not.
    """
    if sys.platform != "linux" or is_portable():
        return -1
    library = libc()
    fd: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    # IN_ATTRIB, for a link less; IN_DELETE_SELF; IN_MOVE_SELF.
    if fd >= 0 and library.inotify_add_watch(fd, os.fsencode(path), 0x4 | 0x400 | 0x800) < 0:
        os.close(fd)
        return -1
    return fd
