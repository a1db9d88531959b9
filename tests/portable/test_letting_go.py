"""Whoever must not keep others waiting lets go of what is large, or lingers, without waiting."""

from __future__ import annotations

import array
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hesper import ancillary
from hesper.portable import UnwantedError, close_apart, drop_apart, hang_up, receive_plain
from hesper.portable.letting_go import LARGE
from lingering import lingering
from open_files import assert_closed_since, open_files

PATIENCE = 60.0

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def memory(size: int) -> int:
    fd = os.memfd_create("much")
    os.ftruncate(fd, size)
    return fd


def send(sock: socket.socket, data: bytes, *fds: int) -> None:
    """Send descriptors, and have them no more."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())
    sock.sendmsg([data], [rights])
    for fd in fds:
        os.close(fd)


def has_ended(sock: socket.socket) -> bool:
    """Wait for the end of what comes."""
    try:
        return not sock.recv(1)
    except ConnectionResetError:  # what was sent has not been read
        return True


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.001)


@pytest.mark.parametrize(("size", "here"), [(LARGE, True), (LARGE + 1, False)])
def test_what_is_large_is_closed_by_another_thread(size: int, here: bool) -> None:
    before = open_files()
    closed: list[int] = []
    close_apart(memory(size), lambda: closed.append(threading.get_ident()))
    until(lambda: closed, "its end")
    assert (closed == [threading.get_ident()]) == here
    assert_closed_since(before)


def test_who_finds_no_thread_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    closed: list[int] = []
    with monkeypatch.context() as want:
        want.setattr(threading.Thread, "start", fail)
        close_apart(memory(LARGE + 1), lambda: closed.append(1))
    close_apart(memory(LARGE + 1), lambda: closed.append(2))
    until(lambda: len(closed) == 2, "the end of both")


def test_pages_behind_the_end_count() -> None:
    fd = memory(0)
    os.posix_fallocate(fd, 0, LARGE + mmap.PAGESIZE)
    os.ftruncate(fd, 1)
    there = os.dup(fd)
    os.ftruncate(fd, LARGE + mmap.PAGESIZE)
    os.close(there)
    closed: list[int] = []
    close_apart(fd, lambda: closed.append(threading.get_ident()))
    until(lambda: closed, "its end")
    assert closed != [threading.get_ident()]


class Thing:
    """Says who lets go of it."""

    def __init__(self, gone: list[str]) -> None:
        self._gone = gone

    def __del__(self) -> None:
        self._gone.append(threading.current_thread().name)


def test_a_thing_goes_when_nobody_else_has_it() -> None:
    gone: list[str] = []
    thing, other = Thing(gone), Thing(gone)
    drop_apart(thing)
    drop_apart(other)
    del other
    until(lambda: gone, "one of them")
    assert len(gone) == 1
    del thing
    until(lambda: len(gone) == 2, "the other one")
    assert gone == ["letting go"] * 2


def test_views_of_a_mapping_are_somebody() -> None:
    mapping = mmap.mmap(-1, mmap.PAGESIZE)
    whole = np.frombuffer(mapping, np.uint8)
    del mapping
    part = whole.data[1:5]
    drop_apart(whole)
    del whole
    gone: list[str] = []
    thing = Thing(gone)
    drop_apart(thing)
    del thing
    until(lambda: gone, "what came later")
    assert bytes(part) == bytes(4)


def test_a_socket_that_lingers_keeps_nobody_waiting() -> None:
    """It would be closed with what was not read."""
    before = open_files()
    left, right = socket.socketpair()
    fd, other = lingering()
    send(right, b"x", fd)
    hang_up(left)
    assert has_ended(right)
    with right, other:
        # What it has sent comes, and then the end: its last descriptor is closed.
        until(lambda: not other.recv(1 << 20), "the end of the one that lingers")
    assert_closed_since(before)


def test_many_of_them_are_no_more_than_a_few_processes() -> None:
    before = open_files()
    others = []
    for _ in range(100):
        left, right = socket.socketpair()
        send(right, b"x", memory(1))
        hang_up(left)
        others.append(right)
    for right in others:
        assert has_ended(right)
        right.close()
    assert_closed_since(before)


def test_what_was_said_without_descriptors_is_no_reason(pair: Pair) -> None:
    left, right = pair
    right.sendall(b"much" * 1000)
    threads = set(threading.enumerate())
    hang_up(left)
    assert left.fileno() == -1
    assert set(threading.enumerate()) <= threads


def test_descriptors_that_nobody_wants_stay_where_they_are(pair: Pair) -> None:
    left, right = pair
    right.sendall(b"before")
    fd, other = lingering()
    with other:
        assert receive_plain(left, 100) == b"before"
        with pytest.raises(BlockingIOError):
            receive_plain(left, 100)
        send(right, b"with", fd)
        for _ in range(3):
            with pytest.raises(UnwantedError):
                receive_plain(left, 100)
        hang_up(left)
    right.close()


def test_the_end_is_nothing(pair: Pair) -> None:
    left, right = pair
    right.sendall(b"last")
    right.close()
    assert receive_plain(left, 3) == b"las"
    assert receive_plain(left, 3) == b"t"
    assert receive_plain(left, 3) == b""


def test_more_descriptors_than_are_taken_are_closed_apart(pair: Pair) -> None:
    left, right = pair
    before = open_files()
    send(right, b"x", *(memory(1) for _ in range(20)))
    fds: list[int] = []
    with pytest.raises(ConnectionError, match="more than 1 descriptors"):
        ancillary.receive(left, 10, fds, 1)
    while fds:
        os.close(fds.pop())
    assert_closed_since(before)
