"""Shared memory: made, mapped, and whether somebody can take it away.

`HESPER_PAGE_SIZE=16384` simulates a host with larger pages, as Apple Silicon has.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import stat
from typing import TYPE_CHECKING

from hesper.portable.platform import has_memfd, is_linux, libc

if TYPE_CHECKING:
    from types import TracebackType

_PROT_NONE = 0
_MAP_FIXED = 0x10


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
    if not has_memfd():
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
    if has_memfd():
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


def map_for_good(fd: int, size: int) -> int:
    """Map what somebody shares, for reading and writing; return its address.  Raises `OSError`."""
    return _mmap(0, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd)


def is_fixed(fd: int) -> bool:
    """Whether nobody can make the memory object behind `fd` smaller from now on.

    Who touches what was cut off gets SIGBUS, so memory of somebody who is not trusted has to be of
    this kind before it is mapped.  A memfd that is not sealed yet is sealed against it; a dma-buf
    has one size; a POSIX shared memory object has on macOS, where files have not.
    """
    if not is_linux():
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
    if has_memfd():
        return False
    mine, there = os.fstat(fd), os.stat("/dev/shm")
    is_shared = stat.S_ISREG(mine.st_mode) and mine.st_dev == there.st_dev
    # Where the tests have Linux answer as macOS does (tests/portable/darwin.c).
    return is_shared or stat.S_IFMT(mine.st_mode) == mine.st_ino == 0


def object_size(fd: int) -> int:
    """Bytes of a memory object, whole pages of the system.  Raises `OSError` for anything else."""
    # A dma-buf tells them only to lseek.
    size = os.fstat(fd).st_size or os.lseek(fd, 0, os.SEEK_END)
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _mmap(address: int, size: int, protection: int, flags: int, fd: int) -> int:
    """Call mmap; raises `OSError`."""
    import ctypes

    result: int = libc().mmap(address, size, protection, flags, fd, 0)
    if result == ctypes.c_size_t(-1).value:
        error = ctypes.get_errno()
        raise OSError(error, f"mmap of {size} bytes: {os.strerror(error)}")
    return result


def _unmap(address: int, size: int) -> None:
    if size:
        libc().munmap(address, size)


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
