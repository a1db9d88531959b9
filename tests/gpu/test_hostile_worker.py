"""A worker that a guest has taken over: nothing that it says is believed, nobody else suffers."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from gpu_requests import (
    PAGE,
    create_blob,
    map_blob,
    set_scanout_blob,
    submit,
    unref,
)
from gpu_vm import Vm, Worker

from hesper.display.scanout import Rect
from hesper.gpu import context_client
from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import MAX_UP, Up
from hesper.gpu.wire import Response
from hesper.portable import FRAME, SharedMemory, is_portable, send_message
from native import native
from open_files import assert_no_more_descriptors, count_descriptors

OK = Response.OK_NODATA
SIZE = 64 * 256
SHRINK, SEAL = fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_SEAL
"""Tests run on Linux; what macOS has is tested by its text alone."""


def memfd(size: int = SIZE, flags: int = os.MFD_ALLOW_SEALING, seals: int = 0) -> int:
    fd = os.memfd_create("evil", os.MFD_CLOEXEC | flags)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def a_file() -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        return os.dup(file.fileno())


def a_file_in_memory() -> int:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(SIZE)
        return os.dup(file.fileno())


def a_pipe() -> int:
    ours, theirs = os.pipe()
    os.close(theirs)
    return ours


def a_socket() -> int:
    with socket.socket(socket.AF_UNIX) as sock:
        return os.dup(sock.fileno())


def answer_blobs_with(worker: Worker, make: Callable[[], int], made: list[int]) -> None:
    """Have `worker` hand over what `make` returns; `made` has a copy of it."""

    def create(serial: int, _resource_id: int, _flags: int, _blob_id: int, _size: int) -> None:
        made.append(make())
        answer = wire.KIND.pack(Up.BLOB) + wire.BLOB.pack(serial, OK, 1)
        send_message(worker.socket, answer, [made[-1]])

    worker.__dict__["_create_blob"] = create


@pytest.fixture
def made() -> Iterator[list[int]]:
    """Descriptors that are closed at the end of the test."""
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


REFUSED: dict[str, Callable[[], int]] = {
    "memory that cannot be sealed": lambda: memfd(flags=0),
    "memory with other seals": lambda: memfd(seals=fcntl.F_SEAL_GROW | SEAL),
    "sealed memory that is too small": lambda: memfd(size=SIZE - PAGE, seals=SHRINK),
    "memory of no size": lambda: memfd(size=0, seals=SHRINK),
    "a file": a_file,
    # POSIX shared memory is nothing else on Linux.
    **({} if is_portable() else {"a file in memory": a_file_in_memory}),
    "a pipe": a_pipe,
    "a socket": a_socket,
    "a device": lambda: os.open("/dev/zero", os.O_RDWR),
    "a folder": lambda: os.open("/", os.O_RDONLY),
    "memory that is read only": lambda: os.open(f"/proc/self/fd/{memfd()}", os.O_RDONLY),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_memory_that_could_go_away_is_no_blob(vm: Vm, made: list[int], name: str) -> None:
    worker, other = vm.open_context(1), vm.open_context(2)
    before = count_descriptors()
    answer_blobs_with(worker, REFUSED[name], made)
    assert vm.guest.send(create_blob(7, SIZE, ctx_id=1)).type == Response.ERR_UNSPEC
    assert vm.guest.send(map_blob(7, 0)).type == Response.ERR_INVALID_RESOURCE_ID
    assert vm.guest.send(create_blob(8, SIZE, ctx_id=2)).type == OK
    assert vm.guest.send(unref(8)).type == OK
    other.wait(lambda: other.destroyed == [8])
    os.close(made.pop())
    if name == "memory that is read only":
        return  # and the memory itself, which the test has let go of
    assert_no_more_descriptors(before)


def test_memory_is_sealed_before_it_is_shown(vm: Vm, made: list[int]) -> None:
    """A worker that shrinks it afterwards cannot, and what is shown stays."""
    worker = vm.open_context(1)
    answer_blobs_with(worker, memfd, made)
    assert vm.guest.send(create_blob(7, SIZE, ctx_id=1)).type == OK
    whole = Rect(0, 0, 64, 64)
    assert vm.guest.send(set_scanout_blob(7, whole, (64, 64), 256)).type == OK
    with pytest.raises(PermissionError):
        os.ftruncate(made[0], 0)
    surface = vm.display[0].surface
    assert surface is not None
    surface.read(whole, np.empty((64, 64), "<u4"))


@native
def test_memory_of_ours_is_sealed_by_its_maker() -> None:
    with SharedMemory.create(SIZE, "ours") as memory:
        assert fcntl.fcntl(memory.fd, fcntl.F_GET_SEALS) & SHRINK


FRAMED = struct.Struct("=III")


def frame(kind: int, body: bytes = b"", *, length: int | None = None, fds: int = 0) -> bytes:
    return FRAMED.pack(4 + len(body) if length is None else length, fds, kind) + body


NONSENSE: dict[str, bytes] = {
    "no kind": FRAME.pack(0, 0),
    "half a kind": FRAME.pack(2, 0) + b"ab",
    "kind 0": frame(0),
    "an unknown kind": frame(99, b"1234"),
    "a long message": FRAME.pack(MAX_UP + 1, 0),
    "two descriptors": frame(Up.FATAL, b"", fds=2),
    "a descriptor that is not there": frame(Up.FATAL, b"", fds=1),
    "a fence that nobody waits for": frame(Up.RETIRED, wire.RETIRED.pack(77)),
    "a blob that nobody waits for": frame(Up.BLOB, wire.BLOB.pack(77, OK, 1)),
    "a short fence": frame(Up.RETIRED, b"1234"),
    "a long fence": frame(Up.RETIRED, bytes(9)),
    "figures that nobody wants": frame(Up.FIGURES, bytes(wire.FIGURES.size)),
    "no reason": frame(Up.FATAL),
    "what is no text": frame(Up.FATAL, b"\xff\xfe\n\x1b[2J" * 300),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_ends_the_context_and_nothing_else(vm: Vm, name: str) -> None:
    worker, other = vm.open_context(1), vm.open_context(2)
    waiting = vm.guest.post(submit(1, b"1234", fence_id=3, ring_idx=1))
    worker.wait(lambda: worker.fences)
    worker.socket.sendall(NONSENSE[name])
    assert vm.guest.wait(*waiting).fence_id == 3
    assert worker.ended.wait(30)
    assert vm.guest.send(submit(1, b"1234")).type == Response.ERR_UNSPEC
    assert vm.guest.send(submit(2, b"fine")).type == OK
    other.wait(lambda: other.commands == [b"fine"])


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"7",
        b"[" * 4000,
        b'{"commands": -1}',
        b'{"commands": 9223372036854775808}',
        b'{"commands": 1e3000}',
        b'{"user": 0}',
        b'{"accounts": {"\\u001b[2J": 1}}',
        b'{"doing": [["driver", "[bold]"]]}',
        b'{"held": {"devices": [1, 2, 3]}}',
        bytes(160),
    ],
)
def test_figures_that_make_no_sense_end_the_context(vm: Vm, said: bytes) -> None:
    worker, other = vm.open_context(1), vm.open_context(2)
    vm.device.survey.figures()
    vm.settle()
    worker.say(Up.FIGURES, said)
    assert worker.ended.wait(30)
    other.say(Up.FIGURES, b'{"commands": 7}')
    assert vm.guest.send(submit(2, b"fine")).type == OK
    vm.device.survey.figures()
    vm.settle()
    assert [each.name for each in vm.device.survey.figures()] == ["test"]


@pytest.mark.parametrize("body", [b"", b"ab", struct.pack("=I", 99), struct.pack("=I", Up.RETIRED)])
def test_what_comes_with_nonsense_is_closed(vm: Vm, body: bytes) -> None:
    worker = vm.open_context(1)
    ours, theirs = os.pipe()
    socket.send_fds(worker.socket, [FRAME.pack(len(body), 1) + body], [theirs])
    os.close(theirs)
    with open(ours, "rb") as pipe:
        assert worker.ended.wait(30)
        assert select.select([pipe], [], [], 30)[0], "the device keeps a descriptor"
        assert pipe.read() == b""


def test_a_fence_retires_once(vm: Vm) -> None:
    worker = vm.open_context(1)
    waiting = vm.guest.post(submit(1, b"1234", fence_id=3, ring_idx=1))
    worker.wait(lambda: worker.fences)
    serial = worker.fences[0][1]
    worker.retire(1)
    assert vm.guest.wait(*waiting).fence_id == 3
    worker.say(Up.RETIRED, wire.RETIRED.pack(serial))
    assert worker.ended.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("map_info", [0, 4, 0xFFFFFFFF])
def test_a_guest_maps_memory_in_no_other_way(vm: Vm, made: list[int], map_info: int) -> None:
    worker = vm.open_context(1)

    def create(serial: int, *_: int) -> None:
        made.append(memfd())
        answer = wire.KIND.pack(Up.BLOB) + wire.BLOB.pack(serial, OK, map_info)
        send_message(worker.socket, answer, [made[0]])

    worker.__dict__["_create_blob"] = create
    before = count_descriptors()
    assert vm.guest.send(create_blob(7, SIZE, ctx_id=1)).type == Response.ERR_UNSPEC
    assert worker.ended.wait(30)
    os.close(made.pop())
    vm.settle()
    assert count_descriptors() <= before


@pytest.mark.parametrize("said", [Response.OK_CAPSET, Response.OK_MAP_INFO, 0, 0x9999])
def test_a_refusal_is_a_refusal(vm: Vm, said: int) -> None:
    worker = vm.open_context(1)
    worker.blob_response = said  # type: ignore[assignment]
    assert vm.guest.send(create_blob(7, ctx_id=1)).type == Response.ERR_UNSPEC


def test_a_worker_that_says_much_gives_others_a_turn(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand fences retire at once; a screen's request comes in between."""
    monkeypatch.setattr(context_client, "_CHUNK", 64)
    worker = vm.open_context(1)
    fences = 40
    for number in range(fences):
        vm.guest.heap = 0x20000
        vm.guest.post(submit(1, b"1234", fence_id=number, ring_idx=1), response_size=24)
    worker.wait(lambda: len(worker.fences) == fences)
    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += 1

    vm.loop.call(lambda: vm.loop.after_each(count))
    vm.settle()
    before = rounds
    said = b"".join(frame(Up.RETIRED, wire.RETIRED.pack(serial)) for _, serial in worker.fences)
    worker.socket.sendall(said)
    for _ in range(fences):
        vm.guest.wait_any()
    assert rounds - before >= len(said) // 64
