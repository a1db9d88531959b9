"""Stream sockets: messages with descriptors, who is at the other end, and whether anybody is."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hesper.portable.platform import exit_watch, is_linux
from hesper.portable.processes import has_ended

MAX_FDS = 64
"""Most descriptors one message of `send_message` may carry (Linux allows 253)."""

MAX_MESSAGE = 1 << 20
"""Most bytes one message of `send_message` may carry."""

FRAME = struct.Struct("=II")
"""What a message of `send_message` begins with: bytes that follow, descriptors that come along."""

CONTROL_GROUPS = Path("/sys/fs/cgroup")
_MOST_MEMBERS = 128
"""Of a control group, that are looked at."""

_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


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


def set_receive_timeout(sock: socket.socket, seconds: float | None) -> None:
    """Have calls that wait for what comes fail with EAGAIN after so many seconds; None: wait.

    Unlike `socket.settimeout` this leaves the descriptor blocking, for whoever has it.
    """
    whole, rest = divmod(seconds or 0.0, 1.0)
    value = struct.pack("@ll", int(whole), int(rest * 1e6) or (0 if whole or not seconds else 1))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def has_hung_up(sock: socket.socket) -> bool:
    """Whether the other end of a stream socket is closed, whatever of it is still to be read.

    Sending nothing tells, by POSIX, and nobody notices: seen on Linux, and read in XNU's source
    (`sosendcheck`).
    """
    try:
        sock.send(b"", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


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
    if is_linux():
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


def peer_cgroup(sock: socket.socket) -> str | None:
    """Path of the control group (version 2) that the peer of a Unix socket is in, as Linux has it.

    None where the system does not say, or the process is gone: another may have its number.
    """
    (text,) = _of_peer(sock, "cgroup") or ("",)
    return _cgroup(text)


def peer_container(sock: socket.socket) -> str | None:
    """What names the container that the peer of a Unix socket lives in: its control group.

    A container is taken to have a namespace of processes of its own.  None for a process that is
    in none, and where `peer_cgroup` is None.
    """
    status, groups = _of_peer(sock, "status", "cgroup") or ("", "")
    return _cgroup(groups) if _depth(status) > 1 else None


def peer_place(sock: socket.socket) -> str | None:
    """Where the peer of a Unix socket lives: empty for a process like any, else its container.

    A container is named by its control group, if no process is in that which is in no container.
    None for one that has no such name, and where it is not known, as when the process is gone.
    Systems without containers have processes like any.
    """
    if not is_linux():
        return ""
    status, groups = _of_peer(sock, "status", "cgroup") or ("", "")
    if (depth := _depth(status)) == 1:
        return ""
    group = _cgroup(groups) if depth else None
    return group if group and _is_of_containers(group) else None


def _depth(status: str) -> int:
    """In how many namespaces of processes one is that we see, by its `status`; 0: it is gone."""
    numbers = next((line for line in status.splitlines() if line.startswith("NSpid:")), "NSpid:")
    return len(numbers.split()) - 1


def _is_of_containers(group: str) -> bool:
    """Whether all processes of a control group are in containers; False where that is not known."""
    try:
        members = (CONTROL_GROUPS / group.lstrip("/") / "cgroup.procs").read_text("ascii").split()
        # One that we cannot see is 0.
        if not 0 < len(members) <= _MOST_MEMBERS or "0" in members or ".." in group:
            return False
        for member in members:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if _depth(Path(f"/proc/{member}/status").read_text("utf-8", "replace")) == 1:
                    return False
    except OSError:
        return False
    return True


def _cgroup(text: str) -> str | None:
    paths = (line[3:] for line in text.splitlines() if line.startswith("0::/"))
    return next(paths, None)


def _of_peer(sock: socket.socket, *names: str) -> list[str] | None:
    """Files of the peer in /proc; None where there are none, or it is gone."""
    process = peer(sock).process
    if not is_linux() or not process:
        return None
    pidfd = -1
    try:
        # SO_PEERPIDFD, Linux 6.5; else the number is looked up, as late as that is.
        found = _option(sock, socket.SOL_SOCKET, 77, "=i")
        pidfd = found[0] if found else exit_watch(process)
        texts = []
        for name in names:
            with open(f"/proc/{process}/{name}", encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
        return None if pidfd < 0 or has_ended(pidfd) else texts
    except OSError:
        return None
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _option(sock: socket.socket, level: int, option: int, layout: str) -> tuple[int, ...] | None:
    """An option of a socket, None where it has none of that layout."""
    try:
        return struct.unpack(layout, sock.getsockopt(level, option, struct.calcsize(layout)))
    except (OSError, struct.error):
        return None
