"""What is large is freed by nobody whom others wait for: pages take the kernel a while each."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator

import pytest
from gpu_requests import create_blob, unref
from gpu_vm import Vm, Worker

from hesper.display.formats import BY_VIRTIO
from hesper.gpu.context_wire import Up
from hesper.gpu.descriptors import Descriptors
from hesper.gpu.resources import MAPPED_BLOBS, Blob, BlobViews, Picture, ResourceTable
from hesper.gpu.wire import BlobMemory, Response
from hesper.portable import FRAME, SharedMemory
from hesper.portable.letting_go import LARGE
from isolation.supervised import until

OK = Response.OK_NODATA
SIZE = 2 * LARGE
APART = "letting go"

Closed = list[tuple[str, int]]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Closed]:
    """Who has closed descriptors, and how large what they were of is."""
    found: Closed = []
    close = os.close

    def noting(fd: int) -> None:
        found.append((threading.current_thread().name, os.fstat(fd).st_size))
        close(fd)

    monkeypatch.setattr(os, "close", noting)
    yield found
    monkeypatch.undo()


def closers(closed: Closed, size: int = SIZE) -> set[str]:
    """Threads that have closed what is so large."""
    return {thread for thread, its in closed if its == size}


def loop_of(vm: Vm) -> str:
    """The name of the thread that all wait for."""
    names: list[str] = []
    vm.loop.call(lambda: names.append(threading.current_thread().name))
    vm.settle()
    return names[0]


def test_a_large_blob_is_closed_by_another_thread(vm: Vm, closed: Closed) -> None:
    loop = loop_of(vm)
    vm.open_context(1)
    for resource, size in ((1, SIZE), (2, LARGE)):
        assert vm.guest.send(create_blob(resource, size, ctx_id=1)).type == OK
        assert vm.guest.send(unref(resource)).type == OK
    until(lambda: APART in closers(closed), "its end")
    assert loop not in closers(closed)
    # Whoever has small ones is not worth a thread.
    assert loop in closers(closed, LARGE)


def test_so_is_what_a_worker_sends_unasked(vm: Vm, closed: Closed) -> None:
    loop = loop_of(vm)
    worker = vm.open_context(1)
    with SharedMemory.create(SIZE, "much") as memory:
        send(worker, memory.fd)
        assert worker.ended.wait(30)
    until(lambda: APART in closers(closed), "its end")
    assert loop not in closers(closed)


def send(worker: Worker, fd: int) -> None:
    """A message that is none, with a descriptor."""
    import socket

    socket.send_fds(worker.socket, [FRAME.pack(4, 1) + bytes([Up.RETIRED, 0, 0, 0])], [fd])


def gone(memory: object) -> list[str]:
    """By whom memory has been let go of, once it is."""
    found: list[str] = []
    weakref.finalize(memory, lambda: found.append(threading.current_thread().name))
    return found


@pytest.mark.parametrize("height", [1024, 1025])
def test_a_large_picture_is_unmapped_by_another_thread(height: int) -> None:
    table = ResourceTable(count_limit=1, memory_limit=1 << 30, pieces_limit=1)
    picture = Picture(1, 1024, height, BY_VIRTIO[2])
    by = gone(picture.pixels)
    table.reserve(1, len(picture.pixels))
    table.add(picture)
    table.remove(picture)
    until(lambda: by, "its end")
    assert by == [APART if height > 1024 else threading.current_thread().name]
    table.reserve(1, 1 << 30)  # it is not counted any more


def mapped(descriptors: Descriptors, views: BlobViews, number: int) -> tuple[Blob, list[str]]:
    """A blob that is mapped, and by whom that is undone."""
    blob = Blob(number, BlobMemory.HOST3D, 0, SIZE)
    with SharedMemory.create(SIZE, "much") as memory:
        blob.descriptor = descriptors.take(os.dup(memory.fd))
    return blob, gone(views.view(blob))


def test_so_are_mappings_of_blobs() -> None:
    descriptors, views = Descriptors(1000), BlobViews()
    first, by_first = mapped(descriptors, views, 1)
    others = [mapped(descriptors, views, 2 + n) for n in range(MAPPED_BLOBS)]
    until(lambda: by_first, "the oldest")
    views.forget(others[0][0])
    until(lambda: others[0][1], "the one that was forgotten")
    views.clear()
    for _, by in others:
        until(lambda by=by: by, "the rest")  # type: ignore[misc]
    assert {name for by in (by_first, *(by for _, by in others)) for name in by} == {APART}
    for blob in (first, *(blob for blob, _ in others)):
        blob.close()
    until(lambda: not len(descriptors), "the descriptors")
