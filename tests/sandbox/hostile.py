"""A worker that a guest has taken over.  Run as `hostile.py MODE HOME ATTEMPT`; prints JSON.

It is confined as workers are, and then tries one thing: `did` says that it could, `error` that it
got an error, `signal` that it has died of it; `said` is what it has told its supervisor.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from hesper.kernel.crashes import report_crashes
from hesper.portable import architecture
from hesper.sandbox import Mode
from hesper.sandbox.calls import numbers
from hesper.sandbox.system import call
from hesper.sandbox.template import enclose
from hesper.sandbox.worker import Wants, begin, confine

HOME = Path(sys.argv[2])
PARENT = os.getpid()
PORT = socket.create_server(("127.0.0.1", 0))
ADDRESS = PORT.getsockname()
ABSTRACT = socket.socket(socket.AF_UNIX)
ABSTRACT.bind(f"\0hesper-hostile-{PARENT}")
ABSTRACT.listen()
NAMED = socket.socket(socket.AF_UNIX)
NAMED.bind(str(HOME / "supervisor"))
NAMED.listen()
ATTEMPTS: dict[str, Callable[[], object]] = {}


def attempt(function: Callable[[], object]) -> Callable[[], object]:
    ATTEMPTS[function.__name__] = function
    return function


@attempt
def nothing() -> None:
    memory = os.memfd_create("ours")
    os.ftruncate(memory, 4096)
    sys.getrefcount(Path("/proc/self/status").read_text())


@attempt
def read_passwd() -> str:
    return Path("/etc/passwd").read_text()


@attempt
def read_home() -> str:
    return (HOME / "secret").read_text()


@attempt
def list_home() -> list[str]:
    return os.listdir(HOME)


@attempt
def write_home() -> int:
    return (HOME / "planted").write_text("x")


@attempt
def write_tmp() -> int:
    path = Path(f"/tmp/hesper-planted-{PARENT}")
    try:
        return path.write_text("x")
    finally:
        path.unlink(missing_ok=True)


@attempt
def write_own_code() -> int:
    import hesper

    path = Path(hesper.__file__).with_name(f"planted-{PARENT}")
    try:
        return path.write_text("x")
    finally:
        path.unlink(missing_ok=True)


@attempt
def read_environment_of_parent() -> bytes:
    return Path(f"/proc/{PARENT}/environ").read_bytes()


@attempt
def open_device() -> None:
    os.close(os.open("/dev/full", os.O_RDWR))


@attempt
def connect_tcp() -> None:
    socket.create_connection(ADDRESS, timeout=5)


@attempt
def connect_supervisor() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(HOME / "supervisor"))


@attempt
def connect_abstract() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"\0hesper-hostile-{PARENT}")


@attempt
def make_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


@attempt
def signal_parent() -> None:
    os.kill(PARENT, 0)


@attempt
def signal_all() -> None:
    os.kill(-1, 0)


@attempt
def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attempt
def execute() -> None:
    os.execv("/bin/true", ["true"])


@attempt
def trace_parent() -> None:
    call("ptrace", 0x4206, PARENT, 0, 0)  # PTRACE_SEIZE
    os._exit(0)


@attempt
def read_parent() -> None:
    word = ctypes.create_string_buffer(8)
    there = struct.pack("=QQ", id(PARENT), 8)
    here = struct.pack("=QQ", ctypes.addressof(word), 8)
    call("process_vm_readv", PARENT, here, 1, there, 1, 0)


@attempt
def open_pidfd() -> None:
    os.pidfd_open(PARENT)


@attempt
def make_namespaces() -> None:
    call("unshare", 0x10000000)


@attempt
def mount() -> None:
    call("mount", b"none\0", str(HOME).encode() + b"\0", b"tmpfs\0", 0, None)
    call("umount2", str(HOME).encode() + b"\0", 0)


@attempt
def become_root_of_another_place() -> None:
    os.chroot(HOME)


@attempt
def load_bpf() -> None:
    call("bpf", 0, b"\0" * 128, 128)


@attempt
def open_perf_event() -> None:
    call("perf_event_open", struct.pack("=II", 1, 128) + bytes(120), 0, -1, -1, 0)


@attempt
def open_userfaultfd() -> None:
    call("userfaultfd", 1)


@attempt
def set_up_io_uring() -> None:
    call("io_uring_setup", 1, bytes(128))


@attempt
def use_keys() -> None:
    call("keyctl", 0, -3, 0, 0, 0)


@attempt
def open_by_another_call() -> None:
    call("openat2", -100, b"/etc/passwd\0", bytes(24), 24)


@attempt
def type_into_terminal() -> None:
    call("ioctl", 0, 0x5412, b"x")


@attempt
def signal_by_descriptor() -> None:
    import fcntl

    fcntl.fcntl(0, fcntl.F_SETOWN, PARENT)


@attempt
def share_huge_pages() -> None:
    os.close(os.memfd_create("huge", 0x4))  # MFD_HUGETLB


@attempt
def map_huge_pages() -> None:
    size = 2 << 20
    flags = 0x02 | 0x20 | 0x4000 | 0x40000  # MAP_PRIVATE, _ANONYMOUS, _NORESERVE, _HUGETLB
    call("munmap", call("mmap", None, size, 3, flags, -1, 0), size)


@attempt
def make_thread_apart() -> None:
    call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)


@attempt
def call_by_other_convention() -> None:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    # x86_64's other one; aarch64 has none.
    number = numbers(architecture())["getpid"] | 0x40000000
    if function(ctypes.c_long(number)) < 0:
        raise OSError(ctypes.get_errno(), "no such convention")


@attempt
def starve_parent() -> None:
    os.sched_setscheduler(PARENT, os.SCHED_IDLE, os.sched_param(0))


@attempt
def pin_parent() -> None:
    os.sched_setaffinity(PARENT, os.sched_getaffinity(0))


@attempt
def put_parent_last() -> None:
    os.setpriority(os.PRIO_PROCESS, PARENT, 1)


@attempt
def put_user_last() -> None:
    os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_USER, 0))


@attempt
def age_file() -> None:
    os.utime(HOME / "secret", (1, 1))


@attempt
def put_itself_last() -> None:
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.setpriority(os.PRIO_PROCESS, 0, 5)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@attempt
def be_urgent() -> None:
    import resource

    if resource.getrlimit(resource.RLIMIT_RTPRIO)[0]:
        raise ValueError("it may")


@attempt
def raise_limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def main() -> None:
    mode = cast("Mode", sys.argv[1])
    ours, theirs = socket.socketpair()
    enclose(mode, lambda _: None)
    pid = os.fork()
    if pid == 0:
        hostile(mode, theirs)
    theirs.close()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    said = ours.recv(1 << 16).decode()
    outcome = {"did": code == 0, "error": code == 1, "signal": max(0, -code), "said": said}
    print(json.dumps(outcome))


def hostile(mode: Mode, control: socket.socket) -> None:
    """Be confined, and try."""
    try:
        begin(mode, control.fileno())
        report_crashes(control.fileno())
        memory = 1 << 30
        confine(Wants(driver="lvp", memory=memory, threads=64, descriptors=64))
    except BaseException as error:
        control.sendall(f"{error!r}".encode())
        os._exit(3)
    try:
        ATTEMPTS[sys.argv[3]]()
    except (OSError, ValueError) as error:
        control.sendall(f"{error!r}".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
