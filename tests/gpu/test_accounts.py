"""What a guest may use of the device's process: counted, and refused beyond a limit."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from gpu_requests import (
    GUEST_BASE,
    PAGE,
    attach_backing,
    create_2d,
    create_blob,
    create_context,
    destroy_context,
    memory_entries,
    on_resource,
    request,
    set_scanout_blob,
    submit,
    unref,
)
from gpu_vm import MakeVm, Vm
from hypothesis import given
from hypothesis import strategies as st

from hesper.display.scanout import Rect
from hesper.gpu.backing import GUEST_PAGE, SPARE_PIECES, Backing, most_pieces, read_entries
from hesper.gpu.guest_pages import GuestPages
from hesper.gpu.limits import Limits
from hesper.gpu.request import GpuError
from hesper.gpu.resources import MAPPED_BLOBS
from hesper.gpu.transport import GuestRegion, NoTransport
from hesper.gpu.wire import BlobMemory, Command, Response
from open_files import assert_no_more_descriptors, count_descriptors

OK, NO_MEMORY = Response.OK_NODATA, Response.ERR_OUT_OF_MEMORY
DETACH_BACKING = Command.RESOURCE_DETACH_BACKING
PAGES = GuestPages(NoTransport)


def apart(count: int) -> list[tuple[int, int]]:
    """So many pieces of guest memory that do not touch."""
    return [(0x200000 + 32 * index, 16) for index in range(count)]


# Guest memory behind resources.


@pytest.mark.parametrize(("width", "pages"), [(1, 1), (32, 1), (64, 4), (65, 5)])
def test_a_resource_lies_in_as_many_pieces_as_it_has_pages(vm: Vm, width: int, pages: int) -> None:
    assert vm.guest.send(create_2d(1, width, width)).type == OK
    most = pages + SPARE_PIECES
    assert vm.guest.send(attach_backing(1, apart(most + 1))).type == NO_MEMORY
    assert vm.guest.send(attach_backing(1, apart(most))).type == OK


def test_so_does_a_blob(vm: Vm) -> None:
    def create(count: int) -> int:
        pieces = [*apart(count - 1), (0x100000, PAGE)]
        blob = create_blob(7, PAGE, memory=BlobMemory.GUEST, flags=0, pieces=pieces)
        return vm.guest.send(blob).type

    most = PAGE // GUEST_PAGE + SPARE_PIECES
    assert create(most + 1) == NO_MEMORY
    assert create(most) == OK


def test_all_pieces_are_counted_until_they_are_let_go(make_vm: MakeVm) -> None:
    vm = make_vm(limits=Limits(pieces=10))
    for resource in (1, 2, 3):
        assert vm.guest.send(create_2d(resource, 8, 8)).type == OK
    assert vm.guest.send(attach_backing(1, apart(4))).type == OK
    assert vm.guest.send(attach_backing(2, apart(4))).type == OK
    assert vm.guest.send(attach_backing(3, apart(4))).type == NO_MEMORY
    assert vm.guest.send(on_resource(DETACH_BACKING, 1)).type == OK
    assert vm.guest.send(attach_backing(3, apart(6))).type == OK
    assert vm.guest.send(unref(2)).type == OK
    blob = create_blob(7, 16, memory=BlobMemory.GUEST, flags=0, pieces=apart(5))
    assert vm.guest.send(create_blob(7, PAGE, memory=BlobMemory.GUEST, pieces=apart(4))).type == (
        Response.ERR_INVALID_PARAMETER
    )
    assert vm.guest.send(blob).type in {NO_MEMORY, Response.ERR_INVALID_PARAMETER}
    vm.guest.restart()
    assert vm.guest.send(create_2d(1, 8, 8)).type == OK
    assert vm.guest.send(attach_backing(1, apart(10))).type == OK


def test_a_blob_that_a_context_refuses_costs_nothing(make_vm: MakeVm) -> None:
    vm = make_vm(limits=Limits(pieces=10))
    worker = vm.open_context(1)
    worker.blob_response = Response.ERR_UNSPEC
    pieces = [*apart(5), (0x100000, PAGE)]
    blob = create_blob(7, ctx_id=1, memory=BlobMemory.HOST3D_GUEST, pieces=pieces)
    for _ in range(5):
        assert vm.guest.send(blob).type == Response.ERR_UNSPEC
    assert vm.guest.send(create_blob(7, ctx_id=5, memory=3, pieces=pieces)).type == (
        Response.ERR_INVALID_CONTEXT_ID
    )
    worker.blob_response = Response.OK_NODATA
    assert vm.guest.send(blob).type == OK


def finished(work: Generator[None, None, Backing]) -> Backing:
    """Do all steps of reading a list."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            backing: Backing = stop.value
            return backing


def entries(pieces: list[tuple[int, int]]) -> memoryview:
    return memoryview(memory_entries(pieces))


def test_a_piece_costs_few_bytes() -> None:
    region = GuestRegion(GUEST_BASE, memoryview(bytearray(16 << 20)))
    count = 200_000
    body = entries([(32 * index, 16) for index in range(count)])
    tracemalloc.start()
    backing = finished(read_entries([region], body, count, count * 4096, PAGES))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(backing) == count
    assert used < 20 * count


@given(data=st.data())
def test_a_list_is_the_memory_that_it_names(data: st.DataObject) -> None:
    """Whatever regions there are, and wherever pieces begin and end."""
    sizes = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=4))
    gaps = data.draw(st.lists(st.sampled_from([0, 0, 5]), min_size=4, max_size=4))
    regions = []
    memory: dict[int, int] = {}
    at = GUEST_BASE
    source = random.Random(len(sizes))
    for size, gap in zip(sizes, gaps, strict=False):
        view = memoryview(bytearray(source.randbytes(size)))
        regions.append(GuestRegion(at, view))
        memory |= {at + index: value for index, value in enumerate(view)}
        at += size + gap
    piece = st.tuples(st.integers(0, at - GUEST_BASE), st.integers(0, 200))
    pieces = data.draw(st.lists(piece, max_size=12))
    wanted = [GUEST_BASE + start + i for start, length in pieces for i in range(length)]
    work = read_entries(regions, entries(pieces), len(pieces), 1 << 20, PAGES)
    if not all(address in memory for address in wanted):
        with pytest.raises(GpuError, match="guest memory"):
            finished(work)
        return
    backing = finished(work)
    assert backing.size == len(wanted)
    assert len(backing) <= len(pieces) * len(regions)
    start = data.draw(st.integers(0, len(wanted)))
    out = np.zeros(data.draw(st.integers(0, len(wanted) - start)), np.uint8)
    backing.gather(start, out)
    assert out.tolist() == [memory[address] for address in wanted[start : start + len(out)]]


def test_pieces_that_touch_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.gpu.backing.ENTRIES_A_STEP", 3)
    region = GuestRegion(GUEST_BASE, memoryview(bytearray(4096)))
    body = entries([(index * 16, 16) for index in range(10)])
    backing = finished(read_entries([region], body, 10, 4096, PAGES))
    assert len(backing) == 1
    assert backing.whole is not None
    assert backing.size == 160


def test_a_picture_in_more_pieces_than_pages_is_not_shown(vm: Vm) -> None:
    """A viewer goes through all of them, time and again."""
    size, stride = 1 << 20, 256
    tiny = [(0x200000 + 32 * index, 16) for index in range(most_pieces(64 * stride) + 1)]
    rest = size - 16 * len(tiny)
    pieces = [*tiny, (0x100000, rest)]
    blob = create_blob(7, size, memory=BlobMemory.GUEST, flags=0, pieces=pieces)
    assert len(pieces) <= most_pieces(size)
    assert vm.guest.send(blob).type == OK
    whole = Rect(0, 0, 64, 64)
    assert vm.guest.send(set_scanout_blob(7, whole, (64, 64), stride)).type == NO_MEMORY
    behind = 16 * len(tiny)
    shown = set_scanout_blob(7, whole, (64, 64), stride, offset=behind)
    assert vm.guest.send(shown).type == OK


# Contexts, requests, descriptors.


def test_attachments_are_counted_until_they_are_let_go(make_vm: MakeVm) -> None:
    vm = make_vm(limits=Limits(attachments=6))
    attach, detach = Command.CTX_ATTACH_RESOURCE, Command.CTX_DETACH_RESOURCE
    for resource in (1, 2, 3):
        assert vm.guest.send(create_2d(resource, 8, 8)).type == OK
    for ctx_id in (1, 2, 3):
        assert vm.guest.send(create_context(ctx_id, capset=0)).type == OK

    def answers(command: int, ctx_ids: list[int], resources: list[int]) -> set[int]:
        return {
            vm.guest.send(on_resource(command, resource, ctx_id=ctx_id)).type
            for ctx_id, resource in itertools.product(ctx_ids, resources)
        }

    assert answers(attach, [1, 2], [1, 2, 3]) == {OK}
    # What is there already costs nothing.
    assert answers(attach, [1, 2], [1, 2, 3]) == {OK}
    assert answers(attach, [3], [1]) == {NO_MEMORY}
    assert answers(detach, [1], [1]) == {OK}
    assert answers(attach, [3], [1]) == {OK}
    assert answers(attach, [3], [2]) == {NO_MEMORY}
    assert vm.guest.send(unref(1)).type == OK
    assert answers(attach, [3], [2, 3]) == {OK}
    assert vm.guest.send(destroy_context(2)).type == OK
    assert vm.guest.send(create_context(2, capset=0)).type == OK
    assert answers(attach, [2], [2, 3]) == {OK}
    vm.open_context(5)
    assert vm.guest.send(create_blob(9, ctx_id=5)).type == NO_MEMORY
    assert vm.guest.send(unref(9)).type == Response.ERR_INVALID_RESOURCE_ID
    vm.guest.restart()
    vm.open_context(5)
    for resource in range(10, 16):
        assert vm.guest.send(create_blob(resource, ctx_id=5)).type == OK


def test_requests_that_wait_are_counted(make_vm: MakeVm) -> None:
    vm = make_vm(limits=Limits(waiting=100_000))
    worker = vm.open_context(1)
    worker.paused.clear()
    vm.guest.heap = 0x40000
    blob = vm.guest.post(create_blob(7, ctx_id=1))
    # They wait for the blob, which may never be made.
    listed = on_resource(DETACH_BACKING, 7) + bytes(30_000)
    waiting = [vm.guest.post(listed) for _ in range(3)]
    assert vm.guest.send(listed).type == NO_MEMORY
    assert vm.guest.command(Command.GET_DISPLAY_INFO).type == Response.OK_DISPLAY_INFO
    worker.paused.set()
    assert vm.guest.wait(*blob).type == OK
    for each in waiting:
        assert vm.guest.wait(*each).type == Response.ERR_UNSPEC
    # All of it is free again; what a context has been told is counted there.
    for _ in range(5):
        assert vm.guest.send(submit(1, bytes(60_000))).type == OK
        vm.guest.heap = 0x40000


def test_a_reset_frees_what_has_waited(make_vm: MakeVm) -> None:
    vm = make_vm(limits=Limits(waiting=50_000))
    for _ in range(3):
        worker = vm.open_context(1)
        worker.paused.clear()
        vm.guest.heap = 0x40000
        vm.guest.post(create_blob(7, ctx_id=1))
        vm.guest.post(on_resource(DETACH_BACKING, 7) + bytes(40_000))
        vm.settle()
        vm.guest.restart()
        worker.paused.set()


def test_descriptors_are_counted_until_they_are_closed(make_vm: MakeVm) -> None:
    vm = make_vm(limits=Limits(descriptors=3))
    worker = vm.open_context(1)
    before = count_descriptors()
    for resource in (1, 2, 3):
        assert vm.guest.send(create_blob(resource, ctx_id=1)).type == OK
    for _ in range(5):
        assert vm.guest.send(create_blob(4, ctx_id=1)).type == NO_MEMORY
    assert count_descriptors() <= before + 3
    assert vm.guest.send(unref(2)).type == OK
    assert vm.guest.send(create_blob(4, ctx_id=1)).type == OK
    # A stuck worker that is to know of one holds it.
    stuck = vm.open_context(2)
    stuck.paused.clear()
    for resource in (1, 3, 4):
        assert vm.guest.send(unref(resource)).type == OK
    for resource in (5, 6, 7):
        assert vm.guest.send(create_blob(resource, ctx_id=1)).type == OK
    vm.guest.restart()
    assert worker.ended.wait(30)
    stuck.paused.set()
    vm.settle()
    vm.open_context(1)
    for resource in (1, 2, 3):
        assert vm.guest.send(create_blob(resource, ctx_id=1)).type == OK


def test_the_limit_leaves_descriptors_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.gpu.descriptors.descriptor_limit", lambda: 20_000)
    assert Limits().descriptors == 20_000 - 1024
    monkeypatch.setattr("hesper.gpu.descriptors.descriptor_limit", lambda: 256)
    assert Limits().descriptors == 128


def test_few_blobs_stay_mapped_after_they_were_shown(vm: Vm) -> None:
    vm.open_context(1)
    count = MAPPED_BLOBS + 40
    before = count_descriptors()
    for resource in range(1, count + 1):
        vm.guest.heap = 0x40000
        assert vm.guest.send(create_blob(resource, 4 * PAGE, ctx_id=1)).type == OK
        shown = set_scanout_blob(resource, (0, 0, 64, 64), (64, 64), 256)
        assert vm.guest.send(shown).type == OK
    assert count_descriptors() <= before + count + MAPPED_BLOBS + 1
    for resource in range(1, count + 1):
        assert vm.guest.send(unref(resource)).type == OK
    assert_no_more_descriptors(before)


def test_pictures_take_no_mapping_each(vm: Vm) -> None:
    """A process has 65,530 of them, which everything else in it needs, too."""

    def mappings() -> int:
        with open("/proc/self/maps", encoding="utf-8") as file:
            return sum(1 for _ in file)

    before = mappings()
    for resource in range(1, 2001):
        vm.guest.heap = 0x40000
        assert vm.guest.send(create_2d(resource, 4, 4)).type == OK
    assert mappings() < before + 100


def test_a_long_request_is_refused_with_its_fence(vm: Vm) -> None:
    """As far as it is there, see tests/vhost for what a queue takes for long."""

    class Element:
        answers: list[bytes] = []  # noqa: RUF012

        def read(self) -> bytes:
            return request(Command.SUBMIT_3D, struct.pack("<I4x", 1), flags=1, fence_id=7)

        def respond(self, data: bytes) -> None:
            self.answers.append(data)

    element: Any = Element()
    vm.loop.call(lambda: vm.device.refuse_long(element))
    vm.settle()
    (answer,) = element.answers
    assert struct.unpack_from("<IIQ", answer) == (NO_MEMORY, 1, 7)
