"""Blob resources: made by contexts or from guest memory, mapped, shown."""

from __future__ import annotations

import mmap
import struct
from typing import Any

import numpy as np
import pytest
from gpu_requests import (
    PAGE,
    create_blob,
    map_blob,
    on_resource,
    set_scanout_blob,
    submit,
    unmap_blob,
    unref,
)
from gpu_vm import WINDOW, Vm

from hesper.display.scanout import Rect
from hesper.gpu.wire import BlobMemory, Command, Response
from hesper.portable import page_size
from open_files import assert_no_more_descriptors, count_descriptors

OK = Response.OK_NODATA
INVALID = Response.ERR_INVALID_PARAMETER


def test_a_blob_is_mapped_where_the_guest_wants(vm: Vm) -> None:
    vm.open_context(1)
    assert vm.guest.send(create_blob(7, 3 * PAGE, ctx_id=1, blob_id=99)).type == OK
    answer = vm.guest.send(map_blob(7, 0x10000))
    assert (answer.type, answer.payload) == (Response.OK_MAP_INFO, struct.pack("<I4x", 1))
    assert {offset: length for offset, (length, _) in vm.guest.maps.items()} == {0x10000: 3 * PAGE}
    assert vm.guest.send(unmap_blob(7)).type == OK
    assert not vm.guest.maps
    assert vm.guest.send(map_blob(7, 0)).type == Response.OK_MAP_INFO


def test_a_guest_does_not_wait_between_create_and_map(vm: Vm) -> None:
    worker = vm.open_context(1)
    worker.paused.clear()
    first = vm.guest.post(create_blob(7, PAGE, ctx_id=1))
    second = vm.guest.post(map_blob(7, 0))
    # Something else overtakes both.
    assert vm.guest.command(Command.GET_DISPLAY_INFO).type == Response.OK_DISPLAY_INFO
    worker.paused.set()
    assert vm.guest.wait(*first).type == OK
    assert vm.guest.wait(*second).type == Response.OK_MAP_INFO


def test_commands_of_a_context_pass_a_blob_that_is_being_made(vm: Vm) -> None:
    worker = vm.open_context(1)
    worker.paused.clear()
    blob = vm.guest.post(create_blob(7, PAGE, ctx_id=1))
    assert vm.guest.wait(*vm.guest.post(submit(1, b"1234"))).type == OK
    worker.paused.set()
    assert vm.guest.wait(*blob).type == OK


def test_an_attach_waits_for_its_blob_and_commands_for_the_attach(vm: Vm) -> None:
    maker, user = vm.open_context(1), vm.open_context(2)
    maker.paused.clear()
    blob = vm.guest.post(create_blob(7, PAGE, ctx_id=1))
    attach = vm.guest.post(on_resource(Command.CTX_ATTACH_RESOURCE, 7, ctx_id=2))
    user_of_7 = vm.guest.post(submit(2, b"uses 7.."))
    assert vm.guest.command(Command.GET_DISPLAY_INFO).type == Response.OK_DISPLAY_INFO
    assert not user.commands
    maker.paused.set()
    assert [vm.guest.wait(*each).type for each in (blob, attach, user_of_7)] == [OK] * 3
    user.wait(lambda: bool(user.commands))
    assert user.imported == {7: PAGE}


def test_other_requests_pass_a_map_that_is_being_made(vm: Vm) -> None:
    vm.open_context(1)
    vm.guest.send(create_blob(7, ctx_id=1))
    vm.guest.delay_maps()
    waiting = vm.guest.post(map_blob(7, 0))
    vm.guest.wait_delayed_map()
    assert vm.guest.command(Command.GET_DISPLAY_INFO).type == Response.OK_DISPLAY_INFO
    vm.guest.allow_maps()
    assert vm.guest.wait(*waiting).type == Response.OK_MAP_INFO


def test_the_guest_sees_the_contexts_memory(vm: Vm) -> None:
    vm.open_context(1)
    vm.guest.send(create_blob(7, ctx_id=1, blob_id=0x112233))
    assert vm.guest.send(map_blob(7, PAGE)).type == Response.OK_MAP_INFO
    with mmap.mmap(vm.guest.mapped_fds[PAGE], PAGE) as seen:
        # What the worker has written at its beginning.
        assert struct.unpack_from("<IQ", seen) == (7, 0x112233)


def test_unref_unmaps(vm: Vm) -> None:
    vm.open_context(1)
    vm.guest.send(create_blob(7, ctx_id=1))
    vm.guest.send(map_blob(7, 0))
    assert vm.guest.send(unref(7)).type == OK
    assert not vm.guest.maps


def test_maps_that_cannot_be(vm: Vm) -> None:
    vm.open_context(1)
    vm.guest.send(create_blob(7, ctx_id=1))
    vm.guest.send(create_blob(8, ctx_id=1))
    vm.guest.send(create_blob(9, ctx_id=1, flags=0))
    guest = vm.guest.allocate(PAGE)
    vm.guest.send(create_blob(10, memory=BlobMemory.GUEST, pieces=[(guest, PAGE)]))
    page = page_size()

    def attempt(resource: int, offset: int) -> int:
        return vm.guest.send(map_blob(resource, offset)).type

    assert attempt(7, page - 1) == INVALID
    assert attempt(7, WINDOW) == INVALID
    assert attempt(7, WINDOW - page + 1) == INVALID
    assert attempt(7, (1 << 64) - page) == INVALID
    assert attempt(9, 0) == Response.ERR_UNSPEC
    assert attempt(10, 0) == Response.ERR_UNSPEC
    assert attempt(77, 0) == Response.ERR_INVALID_RESOURCE_ID
    assert attempt(7, WINDOW - page) == Response.OK_MAP_INFO
    assert attempt(7, 0) == INVALID
    # The VMM has the last word: this overlaps.
    assert attempt(8, WINDOW - page) == Response.ERR_OUT_OF_MEMORY
    assert attempt(8, 0) == Response.OK_MAP_INFO
    assert vm.guest.send(unmap_blob(9)).type == INVALID
    assert vm.guest.send(unmap_blob(77)).type == Response.ERR_INVALID_RESOURCE_ID


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"memory": 0}, INVALID),
        ({"memory": 4}, INVALID),
        ({"flags": 8}, INVALID),
        ({"size": 0}, INVALID),
        ({"size": PAGE + 1}, INVALID),
        ({"size": 100}, INVALID),
        ({"pieces": [(0x20000, PAGE)]}, INVALID),
        ({"memory": BlobMemory.GUEST, "pieces": []}, INVALID),
        ({"memory": BlobMemory.GUEST, "pieces": [(0x20000, 100)]}, INVALID),
        ({"memory": BlobMemory.GUEST, "pieces": [(4 << 20, PAGE)]}, INVALID),
        ({"ctx_id": 5}, Response.ERR_INVALID_CONTEXT_ID),
        ({"resource": 0}, Response.ERR_INVALID_RESOURCE_ID),
        ({"resource": 3}, Response.ERR_INVALID_RESOURCE_ID),
    ],
)
def test_blobs_that_cannot_be(vm: Vm, options: dict[str, object], wanted: int) -> None:
    vm.open_context(1)
    assert vm.guest.send(create_blob(3, ctx_id=1)).type == OK
    arguments = {"resource": 7, "size": PAGE, "ctx_id": 1, **options}
    request = create_blob(**arguments)  # type: ignore[arg-type]
    assert vm.guest.send(request).type == wanted
    assert vm.guest.send(unref(7)).type == Response.ERR_INVALID_RESOURCE_ID


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (Response.ERR_OUT_OF_MEMORY, Response.ERR_OUT_OF_MEMORY),
        (Response.ERR_INVALID_PARAMETER, INVALID),
        (0x9999, Response.ERR_UNSPEC),
    ],
)
def test_a_worker_may_refuse_a_blob(vm: Vm, said: int, heard: int) -> None:
    worker = vm.open_context(1)
    worker.blob_response = said  # type: ignore[assignment]
    assert vm.guest.send(create_blob(7, ctx_id=1)).type == heard
    assert vm.guest.send(unref(7)).type == Response.ERR_INVALID_RESOURCE_ID


def test_a_worker_that_dies_refuses_its_blobs(vm: Vm) -> None:
    worker = vm.open_context(1)
    worker.paused.clear()
    waiting = vm.guest.post(create_blob(7, PAGE, ctx_id=1))
    worker.die()
    assert vm.guest.wait(*waiting).type == Response.ERR_UNSPEC
    worker.paused.set()


def show_blob(vm: Vm, *arguments: Any, **options: Any) -> int:
    """Show blob 7."""
    return vm.guest.send(set_scanout_blob(7, *arguments, **options)).type


def seen(vm: Vm) -> np.ndarray:
    """What a viewer sees."""
    surface = vm.display[0].surface
    assert surface is not None
    out = np.zeros((surface.size.height, surface.size.width), "<u4")
    surface.read(Rect(0, 0, *surface.size), out)
    return out


@pytest.mark.parametrize("piece", [16 * PAGE, PAGE, 1000])
def test_guest_memory_is_shown_as_it_is(vm: Vm, piece: int) -> None:
    size, stride = 16 * PAGE, 512
    data = np.random.default_rng(5).integers(0, 256, size, np.uint8).tobytes()
    # Pieces lie apart, the last first.
    where = vm.guest.allocate(2 * size) + 2 * size
    pieces = []
    for at in range(0, size, piece):
        part = data[at : at + piece]
        where -= len(part) + 8
        vm.guest.memory[where : where + len(part)] = part
        pieces.append((where, len(part)))
    blob = create_blob(7, size, memory=BlobMemory.GUEST, flags=0, pieces=pieces)
    assert vm.guest.send(blob).type == OK
    assert show_blob(vm, Rect(2, 1, 100, 99), (120, 110), stride, offset=64) == OK
    rows = np.frombuffer(data, np.uint8)[64 : 64 + 110 * stride].reshape(110, stride)
    assert np.array_equal(seen(vm), rows.view("<u4")[1:100, 2:102] & 0xFFFFFF)
    # No copy: what the guest writes is there at once.
    first = pieces[0][0] + 64 + stride + 8
    vm.guest.memory[first : first + 4] = b"\1\2\3\0"
    assert seen(vm)[0, 0] == 0x030201


def test_host_memory_is_shown_as_it_is(vm: Vm) -> None:
    vm.open_context(1)
    assert vm.guest.send(create_blob(7, 4 * PAGE, ctx_id=1, blob_id=0x112233)).type == OK
    assert show_blob(vm, Rect(0, 0, 64, 64), (64, 64), 256) == OK
    # What the worker has written at its beginning.
    assert seen(vm)[0, :2].tolist() == [7, 0x112233]
    assert vm.guest.send(unref(7)).type == OK
    assert vm.display[0].surface is None


def test_scanouts_of_blobs_that_cannot_be(vm: Vm) -> None:
    vm.open_context(1)
    # Exactly as large as the picture.
    vm.guest.send(create_blob(7, 64 * 256, ctx_id=1))
    whole = Rect(0, 0, 64, 64)
    assert show_blob(vm, whole, (64, 64), 255) == INVALID
    assert show_blob(vm, whole, (64, 64), 257) == INVALID
    assert show_blob(vm, whole, (63, 64), 256) == INVALID
    assert show_blob(vm, whole, (64, 64), 256, offset=4) == INVALID
    assert show_blob(vm, whole, (64, 64), 0xFFFFFFFF) == INVALID
    assert show_blob(vm, Rect(0, 0, 0, 64), (64, 64), 256) == INVALID
    assert show_blob(vm, whole, (64, 64), 256) == OK


def test_uuids_are_lasting_and_different(vm: Vm) -> None:
    vm.open_context(1)
    vm.guest.send(create_blob(7, ctx_id=1))
    vm.guest.send(create_blob(8, ctx_id=1))

    def uuid(resource: int) -> bytes:
        answer = vm.guest.send(on_resource(Command.RESOURCE_ASSIGN_UUID, resource))
        assert answer.type == Response.OK_RESOURCE_UUID
        return answer.payload

    assert len(uuid(7)) == 16
    assert uuid(7) == uuid(7) != uuid(8)
    answer = vm.guest.send(on_resource(Command.RESOURCE_ASSIGN_UUID, 9))
    assert answer.type == Response.ERR_INVALID_RESOURCE_ID


def test_both_sides_memory(vm: Vm) -> None:
    vm.open_context(1)
    guest = vm.guest.allocate(PAGE)
    both = create_blob(7, ctx_id=1, memory=BlobMemory.HOST3D_GUEST, pieces=[(guest, PAGE)])
    assert vm.guest.send(both).type == OK
    assert vm.guest.send(map_blob(7, 0)).type == Response.OK_MAP_INFO


@pytest.mark.slow
def test_three_hundred_live_maps(vm: Vm) -> None:
    vm.open_context(1)
    before = count_descriptors()
    page = page_size()
    for index in range(300):
        vm.guest.heap = 0x20000
        assert vm.guest.send(create_blob(100 + index, ctx_id=1)).type == OK
        answer = vm.guest.send(map_blob(100 + index, index * page))
        assert answer.type == Response.OK_MAP_INFO
    assert len(vm.guest.maps) == 300
    for index in range(300):
        vm.guest.heap = 0x20000
        assert vm.guest.send(unref(100 + index)).type == OK
    assert not vm.guest.maps
    vm.settle()
    assert_no_more_descriptors(before)


def test_memory_entries_must_be_there(vm: Vm) -> None:
    request = create_blob(7, PAGE, memory=BlobMemory.GUEST, pieces=[(0x20000, PAGE)])
    assert vm.guest.send(request[:-1]).type == INVALID
    assert vm.guest.send(request + bytes(16)).type == INVALID
