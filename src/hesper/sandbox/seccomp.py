"""Seccomp: which system calls a process may make.

What is not in the table ends the process with SIGSYS, whose handler says which call it was
(`kernel/includes/crash.h`).  Memory behind an argument can change after the filter has looked, so
the filter looks at numbers alone.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hesper.portable import architecture
from hesper.sandbox import bpf
from hesper.sandbox.calls import AUDIT, call_name, numbers
from hesper.sandbox.needs import Needs, table
from hesper.sandbox.system import call

if TYPE_CHECKING:
    from hesper.sandbox.bpf import Code

_SET_FILTER = 1
_GET_ACTION = 2
_SYNC, _LISTENER, _SYNC_ERROR = 1, 8, 16
"""SECCOMP_FILTER_FLAG_TSYNC, _NEW_LISTENER, _TSYNC_ESRCH."""

# `linux/sched.h`.  All threads share what these say; a libc may ask for the others as well.
_THREAD = 0x00010F00
"""CLONE_THREAD, _VM, _FS, _FILES, _SIGHAND."""
_THREAD_MORE = 0x017C0000
"""CLONE_SYSVSEM, _SETTLS, _PARENT_SETTID, _CHILD_CLEARTID, _DETACHED, _CHILD_SETTID."""
_WORD = 0xFFFFFFFF
_SOCKET_TYPE = 0xF
_CONNECTED = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
"""Types of sockets that reach nobody without `connect`, which fails."""

PATHS = ("open", "openat", "creat", "mkdir", "mkdirat", "unlink", "unlinkat")
"""Calls whose paths a listener looks at, because landlock would: see `report`."""

HARMFUL = (
    *("add_key", "bpf", "delete_module", "finit_module", "fsmount", "fsopen", "fspick"),
    *("init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl"),
    *("kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "move_mount", "nfsservctl"),
    *("open_by_handle_at", "perf_event_open", "pivot_root", "process_vm_readv"),
    *("process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot", "request_key", "setns"),
    *("swapoff", "swapon", "sysfs", "syslog", "umount2", "userfaultfd", "vhangup"),
)
"""What no process of ours needs that no guest is in: the supervisor, a device, what they start."""


def worker_filter(needs: Needs, pid: int, *, report: bool = False) -> bytes:
    """Make the program for a worker: what is not allowed is refused.

    needs: the driver's.  pid: its process, as it sees itself.  report: a listener is asked instead.
    """
    refused = bpf.answer(bpf.NOTIFY if report else bpf.TRAP)
    allowed = [name for names in table().calls.values() for name in names]
    allowed += [need.call for need in needs if need.call]
    code: dict[str, Code] = {}
    for name, error in table().errors.items():
        code[name] = bpf.answer(bpf.ERROR | getattr(errno, error))
        if report and name != "clone3":  # threads are made by clone, whatever is reported
            code[name] = refused
    no_socket = code["socket"]
    code |= dict.fromkeys(allowed, bpf.answer(bpf.ALLOW))
    if "socket" in allowed:
        code["socket"] = bpf.where(
            0, socket.AF_UNIX, bpf.masked(1, _SOCKET_TYPE, _CONNECTED, no_socket), no_socket
        )
    for name, some in table().values.items():
        code[name] = bpf.one_of(some.argument, some.values, refused)
    types = sorted({need.ioctl << 8 for need in needs if need.ioctl is not None})
    known_requests = table().values["ioctl"]
    code["ioctl"] = bpf.one_of(
        known_requests.argument, known_requests.values, bpf.masked(1, 0xFF00, types, refused)
    )
    for name, without in table().without.items():
        code[name] = bpf.masked(without.argument, without.bits, [0], code[name])
    for name, arguments in table().own_thread.items():
        code[name] = bpf.all_equal(arguments, 0, code[name])
    others = _WORD & ~_THREAD_MORE
    code["clone"] = bpf.masked(0, others, [_THREAD], code["clone"])
    for name, arguments in (("kill", [0]), ("tgkill", [0]), ("kcmp", [0, 1])):
        code[name] = bpf.all_equal(arguments, pid, refused)
    if report:
        code |= dict.fromkeys(PATHS, refused)
    return _program(code, refused)


def helper_filter() -> bytes:
    """Make the program for processes that no guest is in: what they never need fails."""
    refused = bpf.answer(bpf.ERROR | errno.EPERM)
    return _program(dict.fromkeys(HARMFUL, refused), bpf.answer(bpf.ALLOW))


def _program(code: Mapping[str, Code], otherwise: Code) -> bytes:
    known = numbers(architecture())
    by_number = {known[name]: each for name, each in code.items() if name in known}
    return bpf.program(AUDIT[architecture()], by_number, otherwise)


def obstacle() -> str:
    """Say why there can be no filter here; empty when there can."""
    if architecture() not in AUDIT:
        return f"no numbers of system calls are known for {architecture()}"
    try:
        call("seccomp", _GET_ACTION, 0, struct.pack("=I", bpf.TRAP))
    except OSError as error:
        return str(error)
    return ""


def install(program: bytes, *, listener: bool = False) -> int:
    """Filter the calls of all threads of this process from now on, for good.

    listener: return a descriptor that says what is asked (`report`), else -1.  Raises `OSError`.
    """
    kept = ctypes.create_string_buffer(program, len(program))
    whole = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(kept))
    flags = _SYNC | (_LISTENER | _SYNC_ERROR if listener else 0)
    result = call("seccomp", _SET_FILTER, flags, whole)
    if not listener and result:
        raise OSError(errno.ESRCH, f"thread {result} cannot take a filter")
    return result if listener else -1


_SHOWN = {"ioctl": 1, "prctl": 0, "fcntl": 1, "clone": 0, "socket": 0, "setpriority": 0}
"""Calls of which an argument says what they are."""


def describe(number: int, arguments: Sequence[int]) -> str:
    """Say which call that is: `openat2 (437)`, `ioctl (16) of 0x5412`."""
    name = call_name(number, architecture())
    shown = _SHOWN.get(name.split()[0])
    if shown is None or shown >= len(arguments):
        return name
    return f"{name} of {arguments[shown] & _WORD:#x}"


def remedy(number: int, arguments: Sequence[int]) -> str:
    """Say what a worker has died of that made such a call, and what to do."""
    return (
        f"seccomp: {describe(number, arguments)} is not allowed to workers; if the driver needs it,"
        " a line in hesper/sandbox/needs.toml allows it, and --sandbox off does without"
    )
