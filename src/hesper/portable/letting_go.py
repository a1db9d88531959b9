"""Letting go of what others have given us, which may be large.

Who closes the last descriptor of a memory object, or unmaps it last, waits in the kernel until its
pages are free: about a second for some gigabytes.  Who closes the last one of a socket may wait for
as long as its maker has said (SO_LINGER).  And what lies unread in a Unix socket may have
descriptors with it, which are closed with that.  So whoever must not keep others waiting has it
done by a thread, which is there as long as there is something to do.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

LARGE = 4 << 20
"""Bytes from which on it may take a millisecond."""
_CHUNK = 1 << 16
_AT_ONCE = 64
"""Sockets that one process ends with."""
_SOON = 0.01
"""Seconds until it is looked for the first time whether others have let go of a thing; later twice
as many."""
_SOON_MOST = 1.0

_lock = threading.Lock()
_closing: collections.deque[Callable[[], None]] = collections.deque()
_ending: collections.deque[int] = collections.deque()
_dropping: list[object] = []
_busy: set[Callable[[], None]] = set()
"""What a thread does already."""


class UnwantedError(ConnectionError):
    """Descriptors came where there are none to come."""


def _nothing() -> None:
    """Nobody is to be told."""


def close_apart(fd: int, closed: Callable[[], None] = _nothing) -> None:
    """Close a descriptor that somebody else may have made, and tell `closed`, on any thread.

    At once what is small.
    """
    if _is_small(fd):
        os.close(fd)
        closed()
        return

    def close() -> None:
        os.close(fd)
        closed()

    _closing.append(close)
    _begin(_close)


def hang_up(sock: socket.socket) -> None:
    """Close a Unix socket by which anything may have come that nobody has read.

    Descriptors may be in it, of sockets even that wait for hours when they are closed (SO_LINGER).
    Only a process that ends does not wait for those.
    """
    with contextlib.suppress(OSError):
        # Nothing more comes after that; the other end sees no end before it is closed.
        sock.shutdown(socket.SHUT_RD)
    if not _has_descriptors(sock):
        sock.close()
        return
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    _ending.append(sock.detach())
    _begin(_end)


def peek_plain(sock: socket.socket, size: int) -> bytes:
    """Look at the next up to `size` bytes, as `receive_plain`, and leave them where they are."""
    data, _, flags, _ = sock.recvmsg(size, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if flags & socket.MSG_CTRUNC:
        raise UnwantedError("descriptors came")
    return data


def receive_plain(sock: socket.socket, size: int) -> bytes:
    """Receive up to `size` bytes without waiting, and no descriptors; nothing at the stream's end.

    Raises `UnwantedError` where descriptors are next, which stay where they are, `BlockingIOError`,
    and other `OSError`.
    """
    data = peek_plain(sock, size)
    return sock.recv(len(data), socket.MSG_DONTWAIT) if data else data


def _has_descriptors(sock: socket.socket) -> bool:
    """Whether there are any in what has come and was not read; what is before them is read."""
    try:
        while receive_plain(sock, _CHUNK):
            pass
    except UnwantedError:
        return True
    except OSError:
        pass
    return False


def drop_apart(thing: object) -> None:
    """Let go of a mapping, or of what has one, once nobody else has it any more."""
    with _lock:
        _dropping.append(thing)
    _begin(_drop)


def _is_small(fd: int) -> bool:
    """Whether it is a memory object, or a file, of a few pages; of anything else nobody knows."""
    status = os.fstat(fd)
    # Blocks (of 512 bytes) may lie behind the end, and of a dma-buf there is no size.
    return 0 < status.st_size <= LARGE and status.st_blocks * 512 <= LARGE


def _begin(work: Callable[[], None]) -> None:
    """Have a thread do `work`, unless one does so already."""
    with _lock:
        if work in _busy:
            return
        _busy.add(work)
    try:
        threading.Thread(target=work, name="letting go", daemon=True).start()
    except RuntimeError:
        # There are no threads left: whoever comes next tries again.
        with _lock:
            _busy.discard(work)


def _close() -> None:
    while True:
        with _lock:
            if not _closing:
                _busy.discard(_close)
                return
            close = _closing.popleft()
        close()


def _end() -> None:
    while True:
        with _lock:
            fds = [_ending.popleft() for _ in range(min(len(_ending), _AT_ONCE))]
            if not fds:
                _busy.discard(_end)
                return
        try:
            last = _holder(fds)
        except OSError:
            # There are no descriptors, or no processes, left.
            _ending.extend(fds)
            time.sleep(_SOON_MOST)
            continue
        for fd in fds:
            os.close(fd)
        # It waits for the end of what it reads, and ends.
        last.communicate()


def _holder(fds: list[int]) -> subprocess.Popen[bytes]:
    """Start a process that has descriptors, for as long as it has something to read from us.

    Raises `OSError`.
    """
    import subprocess

    return subprocess.Popen(
        [sys.executable, "-ISc", "import os; os.read(0, 1)"],
        stdin=subprocess.PIPE,
        pass_fds=fds,
        env={},
    )


def _holders(things: list[object]) -> list[int]:
    """How many references there are to each of `things`, as Python counts them here."""
    return [sys.getrefcount(thing) for thing in things]


def _drop() -> None:
    seconds = _SOON
    nobody_else = _holders([object()])[0]
    while True:
        time.sleep(seconds)
        with _lock:
            counts = _holders(_dropping)
            mine = [
                _dropping.pop(place)
                for place in reversed(range(len(counts)))
                if counts[place] <= nobody_else
            ]
            is_over = not _dropping
            if is_over:
                _busy.discard(_drop)
        seconds = _SOON if mine else min(2 * seconds, _SOON_MOST)
        # Here the last reference goes, and nobody waits for the lock meanwhile.
        mine.clear()
        if is_over:
            return
