"""What differs between systems: shared memory, wake-ups, descriptors, processes.

Everything above this file is portable POSIX.  Where a Linux primitive is better than the portable
one, the portable one stays reachable on Linux, so that both are tested:
`HESPER_SHARED_MEMORY=posix` uses POSIX shared memory instead of a memfd, and `HESPER_WORKERS=spawn`
starts each worker anew, where one that is ready to go would be forked (`isolation/launch.py`).

`HESPER_PAGE_SIZE=16384` simulates a host with larger pages, as Apple Silicon has.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import select
import signal
import socket
import stat
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ctypes
    import subprocess
    from pathlib import Path
    from types import TracebackType

MAX_FDS = 64
"""Most descriptors one message of `send_message` may carry (Linux allows 253)."""

MAX_MESSAGE = 1 << 20
"""Most bytes one message of `send_message` may carry."""

FRAME = struct.Struct("=II")
"""What a message of `send_message` begins with: bytes that follow, descriptors that come along."""

_PROT_NONE = 0
_MAP_FIXED = 0x10
_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


@functools.cache
def page_size() -> int:
    """Size of a host page in bytes; `HESPER_PAGE_SIZE` overrides it upwards.

    Raises `ValueError` when the override is no power-of-two multiple of the real page size.
    """
    wanted = os.environ.get("HESPER_PAGE_SIZE")
    if not wanted:
        return mmap.PAGESIZE
    size = int(wanted) if wanted.isdecimal() else 0
    if size < mmap.PAGESIZE or size & (size - 1):
        raise ValueError(
            f"HESPER_PAGE_SIZE={wanted}: not a power-of-two multiple of this system's page size,"
            f" {mmap.PAGESIZE}"
        )
    return size


def round_to_page(size: int) -> int:
    """`size` rounded up to whole host pages."""
    page = page_size()
    return (size + page - 1) & ~(page - 1)


class SharedMemory:
    """A shared memory object mapped read/write at a page-aligned address.

    Life: `create` or `from_fd`, use, `close`.  Whoever has handed `address` to a driver or to the
    kernel module takes it back before `close`.  A context manager closes it.
    """

    fd: int
    """Descriptor of the object, owned by this instance; -1 once closed."""
    size: int
    """Bytes mapped: whole pages of `page_size()`."""
    address: int
    """Where it is mapped; a multiple of `page_size()`; 0 once closed."""

    def __init__(self, fd: int, size: int) -> None:
        """Take over `fd` and map its first `size` bytes.  Use `create` or `from_fd`."""
        try:
            self.address = _map(fd, size)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        self.size = size

    @classmethod
    def create(cls, size: int, name: str) -> SharedMemory:
        """Make a zero-filled object of at least `size` bytes, named `name` for debugging.

        It can neither shrink nor grow where the system can promise that (Linux).
        Raises `ValueError` for a size below 1 and `OSError` when the system has no room.
        """
        if size < 1:
            raise ValueError(f"shared memory {name!r}: size {size} is not positive")
        rounded = round_to_page(size)
        return cls(_new_object(rounded, name), rounded)

    @classmethod
    def from_fd(cls, fd: int, size: int) -> SharedMemory:
        """Map `size` bytes (rounded up to whole pages) of an object that someone else made.

        `fd` is duplicated: the caller keeps it and may close it at once.  An object that is not
        sealed can still be shrunk by whoever else holds it; touching the lost pages then raises
        SIGBUS in this process.
        Raises `ValueError` when the object is smaller than that, or is no memory object.
        """
        if size < 1:
            raise ValueError(f"shared memory: size {size} is not positive")
        rounded = round_to_page(size)
        try:
            there = object_size(fd)
        except OSError as error:
            raise ValueError(f"descriptor {fd} is no memory object: {error.strerror}") from error
        # The last real page of an object is whole even when its size says less.
        if there < rounded:
            raise ValueError(f"shared memory object has {there} bytes, {rounded} are needed")
        return cls(os.dup(fd), rounded)

    @property
    def view(self) -> memoryview:
        """The mapped bytes, writable.  Using the view after `close` crashes the process."""
        import ctypes

        return memoryview((ctypes.c_char * self.size).from_address(self.address)).cast("B")

    def close(self) -> None:
        """Unmap it and close the descriptor.  May be called again."""
        if self.fd < 0:
            return
        fd, address = self.fd, self.address
        self.fd, self.address = -1, 0
        _unmap(address, self.size)
        os.close(fd)

    def __enter__(self) -> SharedMemory:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def _new_object(size: int, name: str) -> int:
    """Make a memory object of `size` bytes."""
    if sys.platform != "linux" or os.environ.get("HESPER_SHARED_MEMORY") == "posix":
        return _posix_object(size)
    # A memfd needs no room in /dev/shm and can be sealed; its name may have 249 bytes.
    import fcntl

    label = name.replace("\0", "").encode()[:200].decode(errors="ignore")
    fd = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        # SEAL_SEAL: else the other side could forbid us new writable mappings.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _posix_object(size: int) -> int:
    """Make a POSIX shared memory object, unlinked at once so that nothing stays behind."""
    # The standard library's own binding; shm_open is variadic, which ctypes cannot call on
    # Apple Silicon, where variadic arguments travel on the stack.
    import _posixshmem  # type: ignore[import-not-found]

    name = _posix_name()
    fd: int = _posixshmem.shm_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
    try:
        _posixshmem.shm_unlink(name)
        os.set_inheritable(fd, False)
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _posix_name() -> str:
    import secrets

    return f"/hesper-{secrets.token_hex(8)}"  # macOS allows 31 characters


def publish(size: int, name: str) -> tuple[SharedMemory, int]:
    """Make a zero-filled object that others can only read.

    Returns it, mapped for writing here, and a descriptor of it to give away; the caller closes
    both.  Raises `OSError`.
    """
    rounded = round_to_page(size)
    if sys.platform == "linux" and os.environ.get("HESPER_SHARED_MEMORY") != "posix":
        import fcntl

        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, rounded)
        memory = SharedMemory(fd, rounded)
        # F_SEAL_FUTURE_WRITE (Linux 5.1): the mapping that is there stays.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | 0x10
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return memory, os.dup(fd)
        except BaseException as error:
            memory.close()
            if not isinstance(error, OSError) or error.errno != errno.EINVAL:
                raise
    import _posixshmem

    name = _posix_name()
    fd = _posixshmem.shm_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
    try:
        reading: int = _posixshmem.shm_open(name, os.O_RDONLY, mode=0o600)
    except BaseException:
        os.close(fd)
        raise
    finally:
        _posixshmem.shm_unlink(name)
    try:
        for each in (fd, reading):
            os.set_inheritable(each, False)
        os.ftruncate(fd, rounded)
        return SharedMemory(fd, rounded), reading
    except BaseException:
        os.close(reading)
        raise


def map_for_reading(fd: int, size: int) -> int:
    """Map what somebody has published, for good; return its address.  Raises `OSError`."""
    return _mmap(0, size, mmap.PROT_READ, mmap.MAP_SHARED, fd)


def is_fixed(fd: int) -> bool:
    """Whether nobody can make the memory object behind `fd` smaller from now on.

    Who touches what was cut off gets SIGBUS, so memory of somebody who is not trusted has to be of
    this kind before it is mapped.  A memfd that is not sealed yet is sealed against it; a dma-buf
    has one size; a POSIX shared memory object has on macOS, where files have not.
    """
    if sys.platform != "linux":
        # `fstat` gives shared memory no file type there.
        return stat.S_IFMT(os.fstat(fd).st_mode) == 0
    import fcntl

    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        if not seals & fcntl.F_SEAL_SHRINK:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except OSError:
        return _is_dma_buf(fd) or _is_stand_in(fd)
    # Of huge pages there may be none left when one is touched.
    return os.fstatvfs(fd).f_bsize == mmap.PAGESIZE


def _is_dma_buf(fd: int) -> bool:
    """Whether the kernel says so; what a file system says of its files does not count."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8", errors="replace") as file:
            return any(line.startswith("exp_name:") for line in file)
    except OSError:
        return False


def _is_stand_in(fd: int) -> bool:
    """Whether it is POSIX shared memory where that was asked for, as if this were macOS."""
    if os.environ.get("HESPER_SHARED_MEMORY") != "posix":
        return False
    mine, there = os.fstat(fd), os.stat("/dev/shm")
    return stat.S_ISREG(mine.st_mode) and mine.st_dev == there.st_dev


def object_size(fd: int) -> int:
    """Bytes of a memory object, whole pages of the system.  Raises `OSError` for anything else."""
    # A dma-buf tells them only to lseek.
    size = os.fstat(fd).st_size or os.lseek(fd, 0, os.SEEK_END)
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


@functools.cache
def _libc() -> ctypes.CDLL:
    """Open the C library and declare mmap and munmap (64-bit systems)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_size_t
    flag = ctypes.c_int
    libc.mmap.argtypes = [word, word, flag, flag, flag, ctypes.c_int64]
    libc.mmap.restype = word
    libc.munmap.argtypes = [word, word]
    libc.munmap.restype = flag
    return libc


def _mmap(address: int, size: int, protection: int, flags: int, fd: int) -> int:
    """Call mmap; raises `OSError`."""
    import ctypes

    result: int = _libc().mmap(address, size, protection, flags, fd, 0)
    if result == ctypes.c_size_t(-1).value:
        error = ctypes.get_errno()
        raise OSError(error, f"mmap of {size} bytes: {os.strerror(error)}")
    return result


def _unmap(address: int, size: int) -> None:
    if size:
        _libc().munmap(address, size)


def _map(fd: int, size: int) -> int:
    """Map `size` bytes of `fd` read/write and shared, aligned to `page_size()`."""
    access = mmap.PROT_READ | mmap.PROT_WRITE
    page = page_size()
    if page == mmap.PAGESIZE:
        return _mmap(0, size, access, mmap.MAP_SHARED, fd)
    # Reserve enough to find an aligned place in, put the object there, give back the rest.
    reserved = size + page
    start = _mmap(0, reserved, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANON, -1)
    aligned = (start + page - 1) & ~(page - 1)
    try:
        _mmap(aligned, size, access, mmap.MAP_SHARED | _MAP_FIXED, fd)
    except OSError:
        _unmap(start, reserved)
        raise
    _unmap(start, aligned - start)
    _unmap(aligned + size, start + reserved - aligned - size)
    return aligned


class WakePipe:
    """Wakes a thread or process that polls `read_fd`; any number of wakes merge into one."""

    def __init__(self) -> None:
        """Open it; both ends are non-blocking and closed on exec."""
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)

    def wake(self) -> None:
        """Make `read_fd` readable.  Safe from any thread and from a signal handler."""
        # A full pipe is as readable as it gets.
        with contextlib.suppress(BlockingIOError):
            os.write(self.write_fd, b"\0")

    def drain(self) -> None:
        """Make `read_fd` unreadable again."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.read_fd, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Close both ends.  May be called again."""
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self.write_fd = -1


def send_message(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send `data` and descriptors as one message over a blocking stream socket.

    On the wire: u32 length of data, u32 number of descriptors (host order), data.  The
    descriptors are copies; the caller keeps its own.
    Raises `ValueError` above `MAX_MESSAGE` or `MAX_FDS`, and `OSError`.
    """
    if len(data) > MAX_MESSAGE or len(fds) > MAX_FDS:
        raise ValueError(f"message of {len(data)} bytes and {len(fds)} descriptors is too large")
    frame = FRAME.pack(len(data), len(fds)) + data
    sent = socket.send_fds(sock, [frame], list(fds)) if fds else 0
    if sent < len(frame):
        sock.sendall(frame[sent:])


def recv_message(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """Receive one message of `send_message`; None when the other side has closed.

    The descriptors belong to the caller and are closed on exec.
    Raises `ConnectionError` when the stream ends or breaks inside a message.
    """
    fds: list[int] = []
    try:
        header = _recv_exactly(sock, FRAME.size, fds)
        if not header:
            return None
        length, count = FRAME.unpack(header)
        if length > MAX_MESSAGE:
            raise ConnectionError(f"message of {length} bytes is too large")
        data = _recv_exactly(sock, length, fds)
        if len(data) != length or len(fds) != count:
            raise ConnectionError(
                f"message announced {length} bytes and {count} descriptors,"
                f" {len(data)} and {len(fds)} came"
            )
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return data, fds


def _recv_exactly(sock: socket.socket, size: int, fds: list[int]) -> bytes:
    """`size` bytes, or fewer at the end of the stream; descriptors are added to `fds`."""
    data = bytearray()
    while len(data) < size:
        chunk, new, flags, _ = socket.recv_fds(sock, size - len(data), MAX_FDS, _CLOEXEC)
        for fd in new:
            os.set_inheritable(fd, False)
        fds += new
        if flags & socket.MSG_CTRUNC or len(fds) > MAX_FDS:
            raise ConnectionError(f"message carries more than {MAX_FDS} descriptors")
        if not chunk:
            break
        data += chunk
    if data and len(data) < size:
        raise ConnectionError(f"stream ended after {len(data)} of {size} bytes")
    return bytes(data)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for sockets of our own, with a short path: theirs hold about 100 bytes."""
    import tempfile
    from pathlib import Path

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if 0 < len(runtime) < 60 and os.access(runtime, os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="hesper-", dir=base) as folder:
        yield Path(folder)


def spawn(
    argv: Sequence[str], *, fds: Sequence[int] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that inherits `fds` under the same numbers, and no other descriptor.

    Standard input is empty; standard output and error are shared.  It gets a process group of
    its own, so that a terminal's Ctrl-C reaches only the parent, which stops it in order.
    Raises `OSError` when the program cannot be started.
    """
    import subprocess

    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        pass_fds=tuple(fds),
        env=None if env is None else dict(env),
        process_group=0,
    )


def exit_watch(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; -1 where the system has none.

    Unlike its number it never means another process.  Linux has it, outside some sandboxes.
    """
    if sys.platform != "linux":
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def has_ended(watch: int, *, wait: bool = False) -> bool:
    """Whether the process of an `exit_watch` has ended; `wait`: wait until it has."""
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    return bool(poll.poll(None if wait else 0))


def kill_watched(watch: int) -> None:
    """End the process of an `exit_watch`, if it is still there."""
    if sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(watch, signal.SIGKILL)


@dataclass(frozen=True)
class ProcessUsage:
    """What a process uses right now."""

    resident: int
    """Resident memory in bytes."""
    cpu: float
    """Processor time used so far, user and system, in seconds."""


def process_usage(pid: int) -> ProcessUsage:
    """Resource usage of a running process.  Raises `ProcessLookupError` when there is none."""
    return _proc_usage(pid) if sys.platform == "linux" else _ps_usage(pid)


def _proc_usage(pid: int) -> ProcessUsage:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in parentheses may hold anything; the numbers follow the last one.
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessUsage(int(fields[21]) * mmap.PAGESIZE, ticks / os.sysconf("SC_CLK_TCK"))


def _ps_usage(pid: int) -> ProcessUsage:
    import subprocess

    command = ["ps", "-o", "rss=", "-o", "time=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    if len(answer) != 2:
        raise ProcessLookupError(f"no process {pid}")
    days, _, clock = answer[1].rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return ProcessUsage(int(answer[0]) * 1024, seconds + int(days or 0) * 86400)


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def system() -> str:
    """The system's name and release."""
    import platform

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
        names = [platform.processor()]
    return next(filter(None, names), architecture())


def physical_memory() -> int:
    """Bytes of memory this host has, or, where that is less, the control group of this process."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([there, *_group_limits("/proc/self/cgroup", "/sys/fs/cgroup")])


def _group_limits(groups: str, mounted: str) -> Iterator[int]:
    """Bytes that the control groups of this process may have, and those that they lie in.

    groups: the file by which the kernel tells (`cgroups(7)`); mounted: where the hierarchies are.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        with open(groups, encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        for _, controllers, path in filter(lambda line: len(line) == 3, lines):
            if not controllers:
                base, name = mounted, "memory.max"
            elif "memory" in controllers.split(","):
                base, name = f"{mounted}/memory", "memory.limit_in_bytes"
            else:
                continue
            # In a container the path may begin above what is mounted there.
            parts = [part for part in path.split("/") if part and part != ".."]
            for depth in range(len(parts) + 1):
                with contextlib.suppress(OSError, ValueError):
                    place = "/".join([base, *parts[:depth], name])
                    with open(place, encoding="ascii") as limit:
                        yield int(limit.read())  # "max" is no number


def own_memory(pid: int) -> int:
    """Bytes of memory that a process has for itself or shares, besides files; 0: nobody knows."""
    found = _numbers(f"/proc/{pid}/status", {"RssAnon", "RssShmem"})
    return sum(found.values()) * 1024


def available_memory() -> int:
    """Bytes of memory that programs could still have; all there is where the system is silent."""
    found = _numbers("/proc/meminfo", {"MemAvailable"})
    return found["MemAvailable"] * 1024 if found else physical_memory()


def _numbers(path: str, wanted: set[str]) -> dict[str, int]:
    """Numbers of a file of /proc, by their names."""
    found = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for name, _, value in (line.partition(":") for line in lines):
        if name in wanted and value.split()[:1]:
            found[name] = int(value.split()[0])
    return found


def threads() -> int:
    """How many threads this process runs; only those of Python where the system does not say."""
    if sys.platform == "linux":
        return len(os.listdir("/proc/self/task"))
    import threading

    return threading.active_count()


def is_linux() -> bool:
    """Whether this is Linux, with its ways to confine a process."""
    return sys.platform == "linux"


def is_macos() -> bool:
    """Whether this is macOS, with its way to confine a process."""
    return sys.platform == "darwin"


def close_others(*kept: int) -> None:
    """Close all descriptors but the standard streams and those."""
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):  # the one of the listing
                os.close(fd)


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have; return how many that is."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says "unlimited" and then refuses more than OPEN_MAX.
    for wanted in (hard, 10240):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        return wanted
    return soft


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def group_id(name: str) -> int | None:
    """Number of a group, by its name or its number; None where there is none of that name."""
    import grp

    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def path_watch(path: str) -> int:
    """A descriptor that can be read from when a file has been moved or removed.

    -1 where the system does not tell, as only Linux does (by inotify), or where it may not.
    """
    if sys.platform != "linux":
        return -1
    libc = _libc()
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    # IN_ATTRIB, for a link less; IN_DELETE_SELF; IN_MOVE_SELF.
    if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(path), 0x4 | 0x400 | 0x800) < 0:
        os.close(fd)
        return -1
    return fd


def set_receive_timeout(sock: socket.socket, seconds: float | None) -> None:
    """Have calls that wait for what comes fail with EAGAIN after so many seconds; None: wait.

    Unlike `socket.settimeout` this leaves the descriptor blocking, for whoever has it.
    """
    whole, rest = divmod(seconds or 0.0, 1.0)
    value = struct.pack("@ll", int(whole), int(rest * 1e6) or (0 if whole or not seconds else 1))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


class Peer(NamedTuple):
    """Who has connected a Unix socket."""

    user: int
    """Its user's id, as this process sees users; -1 when the system does not say."""
    process: int
    """Its process' id; 0 when the system does not say, or it lives where we see no processes."""

    def __str__(self) -> str:
        """As in log lines."""
        return (
            f"process {self.process} of user {self.user}" if self.process else f"user {self.user}"
        )


def peer(sock: socket.socket) -> Peer:
    """Who is at the other end of a Unix socket: whoever has connected it, or made the pair."""
    if sys.platform == "linux":
        return _peer_by_ucred(sock)
    return _peer_by_xucred(sock)


def _peer_by_ucred(sock: socket.socket) -> Peer:
    process, user, _ = _option(sock, socket.SOL_SOCKET, socket.SO_PEERCRED, "=iII") or (0, -1, 0)
    return Peer(user, process)


def _peer_by_xucred(sock: socket.socket) -> Peer:
    """Ask by macOS's SOL_LOCAL, for LOCAL_PEERCRED and LOCAL_PEERPID."""
    _, user = _option(sock, 0, 1, "=II68x") or (0, -1)  # version, user, groups
    (process,) = _option(sock, 0, 2, "=i") or (0,)
    return Peer(user, process)


def _option(sock: socket.socket, level: int, option: int, layout: str) -> tuple[int, ...] | None:
    """An option of a socket, None where it has none of that layout."""
    try:
        return struct.unpack(layout, sock.getsockopt(level, option, struct.calcsize(layout)))
    except (OSError, struct.error):
        return None
