"""Shared memory, wake pipes, messages with descriptors, processes: each way a system may do it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import select
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hesper
from hesper import portable
from hesper.portable import SharedMemory, WakePipe, processes, sockets
from native import native
from open_files import assert_closed_since, open_files

LARGE_PAGE = 4 * mmap.PAGESIZE


@pytest.fixture(params=["native", "posix"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HESPER_SHARED_MEMORY", request.param)


@pytest.fixture(params=[mmap.PAGESIZE, LARGE_PAGE])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("HESPER_PAGE_SIZE", str(request.param))
    portable.page_size.cache_clear()
    yield request.param
    portable.page_size.cache_clear()


@pytest.mark.parametrize("value", ["0", "-4096", "1", "5000", str(3 * mmap.PAGESIZE), "big"])
def test_impossible_page_sizes_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HESPER_PAGE_SIZE", value)
    portable.page_size.cache_clear()
    with pytest.raises(ValueError, match=f"HESPER_PAGE_SIZE={value}"):
        portable.page_size()


@pytest.mark.usefixtures("_kind")
@pytest.mark.parametrize("size", [1, mmap.PAGESIZE, LARGE_PAGE, LARGE_PAGE + 1, 1 << 20])
def test_memory_is_whole_aligned_zeroed_pages(page: int, size: int) -> None:
    with SharedMemory.create(size, "test") as memory:
        assert memory.size == -(-size // page) * page
        assert memory.address % page == 0
        assert bytes(memory.view) == bytes(memory.size)
        assert os.fstat(memory.fd).st_size >= memory.size
        assert not os.get_inheritable(memory.fd)


@pytest.mark.usefixtures("_kind")
def test_two_mappings_of_one_object_share_it(page: int) -> None:
    with SharedMemory.create(page, "test") as one, SharedMemory.from_fd(one.fd, 3) as two:
        assert two.size == page
        assert two.fd != one.fd
        two.view[page - 1] = 42
        assert one.view[page - 1] == 42


def test_an_object_that_is_too_small_is_refused(page: int) -> None:
    fd = os.memfd_create("small")
    try:
        os.ftruncate(fd, page)
        with pytest.raises(ValueError, match=f"{page} bytes, {2 * page} are needed"):
            SharedMemory.from_fd(fd, page + 1)
        os.ftruncate(fd, page - mmap.PAGESIZE + 1)  # its last real page is whole all the same
        with SharedMemory.from_fd(fd, page) as memory:
            memory.view[page - 1] = 1
    finally:
        os.close(fd)


def test_a_descriptor_that_is_no_memory_is_refused() -> None:
    pipe = WakePipe()
    before = open_files()
    with pytest.raises(ValueError, match="no memory object"):
        SharedMemory.from_fd(pipe.read_fd, 1)
    with pytest.raises(ValueError, match="not positive"):
        SharedMemory.create(0, "empty")
    assert_closed_since(before)
    pipe.close()


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text(encoding="utf-8").splitlines())


@pytest.mark.usefixtures("_kind")
def test_memory_leaves_nothing_behind(page: int) -> None:
    before = open_files()
    mapped = mappings()
    for _ in range(10):
        memory = SharedMemory.create(page, "test")
        memory.close()
        memory.close()
        assert (memory.fd, memory.address) == (-1, 0)
    assert_closed_since(before)
    assert mappings() <= mapped + 1
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("hesper-")]


@pytest.mark.usefixtures("_kind")
@pytest.mark.parametrize("name", ["", "\0a\0", "\U0001f30c" * 300])
def test_any_name_will_do(name: str) -> None:
    SharedMemory.create(1, name).close()


def test_a_size_the_system_has_no_room_for_is_an_error() -> None:
    before = open_files()
    with pytest.raises(OSError, match=r".+"):
        SharedMemory.create(1 << 60, "huge")
    assert_closed_since(before)


@native
def test_nobody_can_resize_a_sealed_object() -> None:
    with SharedMemory.create(mmap.PAGESIZE, "test") as memory:
        for size in (0, 2 * mmap.PAGESIZE):
            with pytest.raises(PermissionError):
                os.ftruncate(memory.fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_wakes_merge_and_never_block() -> None:
    pipe = WakePipe()
    assert not readable(pipe.read_fd)
    pipe.drain()
    for _ in range(100_000):  # more than a pipe holds
        pipe.wake()
    assert readable(pipe.read_fd)
    pipe.drain()
    assert not readable(pipe.read_fd)
    pipe.close()
    pipe.close()


@settings(max_examples=50, deadline=None)
@given(messages=st.lists(st.tuples(st.binary(max_size=300_000), st.integers(0, 3)), max_size=4))
def test_messages_arrive_as_they_were_sent(messages: list[tuple[bytes, int]]) -> None:
    left, right = socket.socketpair()
    with left, right, open(os.devnull, "rb") as file:

        def send() -> None:
            for data, count in messages:
                portable.send_message(left, data, [file.fileno()] * count)
            left.close()

        sender = threading.Thread(target=send)
        sender.start()
        for data, count in messages:
            received = portable.recv_message(right)
            assert received is not None
            assert received[0] == data
            assert len(received[1]) == count
            for fd in received[1]:
                assert not os.get_inheritable(fd)
                assert os.path.sameopenfile(fd, file.fileno())
                os.close(fd)
        assert portable.recv_message(right) is None
        sender.join(20)


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack("=I", 4),
        struct.pack("=II", 4, 0) + b"abc",
        struct.pack("=II", 0, 1),
        struct.pack("=II", portable.MAX_MESSAGE + 1, 0),
    ],
)
def test_broken_messages_are_refused(wire: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(wire)
        left.close()
        with pytest.raises(ConnectionError):
            portable.recv_message(right)


def test_unannounced_descriptors_are_closed() -> None:
    before = open_files()
    left, right = socket.socketpair()
    with left, right:
        socket.send_fds(left, [struct.pack("=II", 2, 0) + b"ab"], [0, 0])
        with pytest.raises(ConnectionError, match="0 descriptors, 2 and 2 came"):
            portable.recv_message(right)
    assert_closed_since(before)


def test_messages_have_a_bound() -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(ValueError, match="too large"):
        portable.send_message(left, b"", [0] * (portable.MAX_FDS + 1))


def test_a_spawned_program_has_our_descriptor_and_no_other() -> None:
    read_fd, write_fd = os.pipe()
    other, _ = socket.socketpair()
    code = (
        "import os, sys; fd, other = map(int, sys.argv[1:])\n"
        "try: os.fstat(other)\n"
        "except OSError: os.write(fd, b'%d' % (os.getpgid(0) == os.getpid()))\n"
    )
    child = portable.spawn(
        [sys.executable, "-c", code, str(write_fd), str(other.fileno())], fds=[write_fd]
    )
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        assert file.read() == b"1"
    assert child.wait(20) == 0
    other.close()


def test_the_other_end_of_a_socket_is_known() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert portable.peer(left) == (os.getuid(), os.getpid())


def test_the_other_end_of_a_socket_is_known_on_macos() -> None:
    class Sock:
        """Answers as macOS does."""

        answers: ClassVar = {1: struct.pack("=IIh2x16I", 0, 501, 1, *range(16)), 2: b"\7\0\0\0"}

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            if level or option not in self.answers:
                raise OSError
            return self.answers[option][:size]

    sock = Sock()
    assert sockets._peer_by_xucred(sock) == (501, 7)  # type: ignore[arg-type]  # noqa: SLF001
    sock.answers = {}  # type: ignore[misc]
    assert sockets._peer_by_xucred(sock) == (-1, 0)  # type: ignore[arg-type]  # noqa: SLF001


def test_peers_are_named_by_what_is_known_of_them() -> None:
    assert str(portable.Peer(1000, 7)) == "process 7 of user 1000"
    assert str(portable.Peer(1000, 0)) == "user 1000"


@pytest.mark.parametrize(
    ("said", "known"),
    [("arm64", "aarch64"), ("AMD64", "x86_64"), ("x86_64", "x86_64"), ("riscv64", "riscv64")],
)
def test_an_architecture_has_one_name(
    said: str, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: said)
    assert portable.architecture() == known


def test_the_descriptor_limit_is_raised_to_the_most_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert portable.raise_descriptor_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "way",
    [
        portable.process_usage,
        # How other systems find out: by ps.
        pytest.param(processes._ps_usage, marks=pytest.mark.programs),  # noqa: SLF001
    ],
)
def test_usage_of_a_process(way: Callable[[int], portable.ProcessUsage]) -> None:
    mine = way(os.getpid())
    assert 1 << 20 < mine.resident < 1 << 32
    assert mine.cpu >= 0
    child = portable.spawn([sys.executable, "-c", ""])
    child.wait(20)
    with pytest.raises(ProcessLookupError):
        way(child.pid)


def test_no_other_file_asks_for_the_system() -> None:
    package = Path(hesper.__file__).parent
    files = package.rglob("*.py")
    asking = {str(p.relative_to(package)) for p in files if "sys.platform" in p.read_text()}
    assert asking == {"portable/platform.py"}


def test_waiting_for_what_comes_can_have_a_bound() -> None:
    left, right = socket.socketpair()
    with left, right:
        for seconds in (1e-9, 0.01, 1.5e-3):
            portable.set_receive_timeout(left, seconds)
            with pytest.raises(BlockingIOError):
                left.recv(1)
        assert left.getblocking()
        portable.set_receive_timeout(left, None)
        threading.Timer(0.05, right.send, [b"x"]).start()
        assert left.recv(1) == b"x"


@pytest.fixture(params=["", "1"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Linux has, and what every system has."""
    monkeypatch.setenv("HESPER_PORTABLE", request.param)


@pytest.mark.usefixtures("_way")
def test_a_closed_end_is_seen_behind_what_is_left_to_read() -> None:
    here, there = socket.socketpair()
    with here:
        assert not portable.has_hung_up(here)
        there.send(b"left to read")
        there.shutdown(socket.SHUT_WR)
        assert not portable.has_hung_up(here), "it may still read"
        there.close()
        assert portable.has_hung_up(here)
        assert here.recv(100) == b"left to read"


@pytest.mark.usefixtures("_way")
def test_a_taken_connection_waits_whatever_its_listener_does(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            portable.accept(listener)
        listener.settimeout(0.01)
        with pytest.raises(TimeoutError):
            portable.accept(listener)
        listener.setblocking(True)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            with portable.accept(listener) as taken:
                assert taken.gettimeout() is None
                assert not taken.get_inheritable()
                client.send(b"hello")
                assert taken.recv(5) == b"hello"


@pytest.mark.usefixtures("_way")
def test_pipes_and_selectors_are_of_either_kind() -> None:
    reading, writing = portable.pipe()
    try:
        assert not os.get_inheritable(reading)
        assert not os.get_inheritable(writing)
        with portable.selector() as selector:
            assert isinstance(selector, selectors.PollSelector) is portable.is_portable()
            selector.register(reading, selectors.EVENT_READ)
            assert not selector.select(0)
            os.write(writing, b"x")
            assert selector.select(0)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.usefixtures("_way")
def test_a_pipe_that_cannot_be_had_says_why() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        with pytest.raises(OSError, match="Too many open files") as caught:
            portable.pipe()
    assert caught.value.errno == errno.EMFILE


def test_all_parts_of_being_portable_come_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HESPER_PORTABLE", "1")
    assert not portable.has_memfd()
    assert not portable.has_templates()
    assert not portable.poll_tells_of_end()
    assert portable.exit_watch(os.getpid()) == -1
    assert portable.path_watch("/tmp") == -1
