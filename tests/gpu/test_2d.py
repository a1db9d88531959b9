"""2D resources, scanouts and cursors, seen from the driver's and the viewer's side."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from gpu_requests import (
    GUEST_BASE,
    attach_backing,
    create_2d,
    flush,
    move_cursor,
    on_resource,
    set_scanout,
    transfer,
    unref,
    update_cursor,
)
from gpu_vm import Vm

from hesper.display.formats import BY_VIRTIO
from hesper.display.scanout import Rect
from hesper.gpu.wire import CURSOR_QUEUE, Command, Response


def seen(vm: Vm, scanout: int = 0) -> np.ndarray:
    """What a viewer sees, as XRGB."""
    surface = vm.display[scanout].surface
    assert surface is not None
    out = np.zeros((surface.size.height, surface.size.width), "<u4")
    surface.read(Rect(0, 0, *surface.size), out)
    return out


def picture(vm: Vm, width: int, height: int, *, piece: int = 0) -> np.ndarray:
    """Resource 1, filled with random pixels from a backing in pieces of `piece` bytes."""
    assert vm.guest.send(create_2d(1, width, height)).type == Response.OK_NODATA
    size = width * height * 4
    start = vm.guest.allocate(size * 2)
    pixels = np.random.default_rng(7).integers(0, 1 << 24, (height, width), np.uint32)
    data = pixels.astype("<u4").tobytes()
    pieces = []
    step = piece or size
    # Pieces lie apart and in reverse, as a guest's pages may.
    for index, at in enumerate(range(0, size, step)):
        part = data[at : at + step]
        where = start + 2 * size - (index + 1) * step * 2
        vm.guest.memory[where : where + len(part)] = part
        pieces.append((where, len(part)))
    assert vm.guest.send(attach_backing(1, pieces)).type == Response.OK_NODATA
    return pixels


@pytest.mark.parametrize("piece", [0, 4096, 1000])
def test_a_picture_reaches_the_viewer(vm: Vm, piece: int) -> None:
    pixels = picture(vm, 100, 70, piece=piece)
    everything = Rect(0, 0, 100, 70)
    assert vm.guest.send(transfer(1, everything)).type == Response.OK_NODATA
    assert vm.guest.send(set_scanout(0, 1, everything)).type == Response.OK_NODATA
    assert vm.guest.send(flush(1, everything)).type == Response.OK_NODATA
    assert np.array_equal(seen(vm), pixels)
    assert vm.display[0].flushes == 1


def test_a_transfer_copies_its_rectangle_and_no_more(vm: Vm) -> None:
    pixels = picture(vm, 50, 40, piece=777)
    rect = Rect(3, 5, 20, 10)
    assert vm.guest.send(transfer(1, rect, offset=(5 * 50 + 3) * 4)).type == Response.OK_NODATA
    vm.guest.send(set_scanout(0, 1, Rect(0, 0, 50, 40)))
    wanted = np.zeros_like(pixels)
    wanted[rect.slices] = pixels[rect.slices]
    assert np.array_equal(seen(vm), wanted)


def test_two_scanouts_show_two_parts(vm: Vm) -> None:
    pixels = picture(vm, 80, 40)
    vm.guest.send(transfer(1, Rect(0, 0, 80, 40)))
    assert vm.guest.send(set_scanout(0, 1, Rect(0, 0, 40, 40))).type == Response.OK_NODATA
    assert vm.guest.send(set_scanout(1, 1, Rect(40, 8, 40, 32))).type == Response.OK_NODATA
    assert np.array_equal(seen(vm, 0), pixels[:, :40])
    assert np.array_equal(seen(vm, 1), pixels[8:, 40:])
    subscription = vm.display[1].subscribe(lambda: None)
    subscription.take()
    vm.guest.send(flush(1, Rect(0, 0, 41, 9)))
    assert subscription.take().damage == [Rect(0, 0, 40, 32)]
    vm.guest.send(flush(1, Rect(0, 0, 40, 40)))
    assert not subscription.take().damage


@pytest.mark.parametrize("virtio_format", sorted(BY_VIRTIO))
def test_every_format_shows_its_colours(vm: Vm, virtio_format: int) -> None:
    pixel_format = BY_VIRTIO[virtio_format]
    value = 0
    for channel, colour in ((pixel_format.red, 0x11), (pixel_format.green, 0x80)):
        value |= colour << channel.shift
    value |= 0xFE << pixel_format.blue.shift
    assert vm.guest.send(create_2d(1, 4, 4, virtio_format)).type == Response.OK_NODATA
    start = vm.guest.allocate(64)
    vm.guest.memory[start : start + 64] = value.to_bytes(4, "little") * 16
    vm.guest.send(attach_backing(1, [(start, 64)]))
    vm.guest.send(transfer(1, Rect(0, 0, 4, 4)))
    vm.guest.send(set_scanout(0, 1, Rect(0, 0, 4, 4)))
    assert (seen(vm) == 0x1180FE).all()


def test_unref_takes_the_picture_off_the_screen(vm: Vm) -> None:
    picture(vm, 16, 16)
    vm.guest.send(set_scanout(0, 1, Rect(0, 0, 16, 16)))
    assert vm.guest.send(unref(1)).type == Response.OK_NODATA
    assert vm.display[0].surface is None
    assert vm.guest.send(unref(1)).type == Response.ERR_INVALID_RESOURCE_ID


def test_a_picture_keeps_its_pixels_without_a_backing(vm: Vm) -> None:
    pixels = picture(vm, 16, 16)
    vm.guest.send(transfer(1, Rect(0, 0, 16, 16)))
    detach = on_resource(Command.RESOURCE_DETACH_BACKING, 1)
    assert vm.guest.send(detach).type == Response.OK_NODATA
    assert vm.guest.send(detach).type == Response.ERR_UNSPEC
    assert vm.guest.send(transfer(1, Rect(0, 0, 16, 16))).type == Response.ERR_UNSPEC
    vm.guest.send(set_scanout(0, 1, Rect(0, 0, 16, 16)))
    assert np.array_equal(seen(vm), pixels)


@pytest.mark.parametrize("virtio_format", [1, 2])
def test_the_cursor_has_a_shape_and_a_place(vm: Vm, virtio_format: int) -> None:
    """It has alpha whether or not its resource says so."""
    vm.guest.send(create_2d(9, 64, 64, virtio_format))
    start = vm.guest.allocate(64 * 64 * 4)
    vm.guest.memory[start : start + 64 * 64 * 4] = b"\x10\x20\x30\x80" * 4096
    vm.guest.send(attach_backing(9, [(start, 64 * 64 * 4)]))
    vm.guest.send(transfer(9, Rect(0, 0, 64, 64)))
    subscription = vm.display[0].subscribe(lambda: None)
    answer = vm.guest.send(update_cursor(0, (100, 50), 9, (3, 4)), queue=CURSOR_QUEUE)
    assert answer.type == Response.OK_NODATA
    update = subscription.take()
    assert update.cursor is not None
    assert (update.cursor.hot_x, update.cursor.hot_y) == (3, 4)
    assert (update.cursor.pixels == 0x80302010).all()
    assert update.cursor_position == (100, 50)
    vm.guest.send(move_cursor(0, (7, 8)), queue=CURSOR_QUEUE)
    assert subscription.take().cursor_position == (7, 8)
    vm.guest.send(move_cursor(0, (-7, -8)), queue=CURSOR_QUEUE)
    assert subscription.take().cursor_position == (-7, -8)
    vm.guest.send(update_cursor(0, (0, 0), 0), queue=CURSOR_QUEUE)
    assert subscription.take().cursor is None


def test_a_driver_may_want_no_answer(vm: Vm) -> None:
    """Linux gives cursor commands no room for one."""
    vm.guest.post(move_cursor(0, (11, 12)), queue=CURSOR_QUEUE, response_size=0)
    assert vm.guest.wait_any(CURSOR_QUEUE)[1] == 0
    subscription = vm.display[0].subscribe(lambda: None)
    assert subscription.take().cursor_position == (11, 12)


INVALID_PARAMETER = Response.ERR_INVALID_PARAMETER
INVALID_RESOURCE = Response.ERR_INVALID_RESOURCE_ID
INVALID_SCANOUT = Response.ERR_INVALID_SCANOUT_ID
MANY = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("command", "body", "wanted"),
    [
        (Command.RESOURCE_CREATE_2D, struct.pack("<4I", 0, 2, 8, 8), INVALID_RESOURCE),
        (Command.RESOURCE_CREATE_2D, struct.pack("<4I", 1, 2, 8, 8), INVALID_RESOURCE),
        (Command.RESOURCE_CREATE_2D, struct.pack("<4I", 5, 99, 8, 8), INVALID_PARAMETER),
        (Command.RESOURCE_CREATE_2D, struct.pack("<4I", 5, 2, 0, 8), INVALID_PARAMETER),
        (
            Command.RESOURCE_CREATE_2D,
            struct.pack("<4I", 5, 2, MANY, MANY),
            Response.ERR_OUT_OF_MEMORY,
        ),
        (Command.RESOURCE_CREATE_2D, struct.pack("<4I", 5, 2, 16385, 1), INVALID_PARAMETER),
        (Command.RESOURCE_UNREF, struct.pack("<I4x", 5), INVALID_RESOURCE),
        (Command.RESOURCE_ATTACH_BACKING, struct.pack("<2I", 1, MANY), INVALID_PARAMETER),
        (
            Command.RESOURCE_ATTACH_BACKING,
            struct.pack("<2IQI4x", 1, 1, 0, 64),
            INVALID_PARAMETER,
        ),
        (
            Command.RESOURCE_ATTACH_BACKING,
            struct.pack("<2IQI4x", 1, 1, (1 << 64) - 8, 64),
            INVALID_PARAMETER,
        ),
        (
            Command.RESOURCE_ATTACH_BACKING,
            struct.pack("<2IQI4x", 1, 1, GUEST_BASE + (4 << 20) - 32, 64),
            INVALID_PARAMETER,
        ),
        (Command.RESOURCE_ATTACH_BACKING, struct.pack("<2I", 5, 0), INVALID_RESOURCE),
        (Command.SET_SCANOUT, struct.pack("<6I", 0, 0, 8, 8, 2, 1), INVALID_SCANOUT),
        (Command.SET_SCANOUT, struct.pack("<6I", 0, 0, 8, 8, 0, 5), INVALID_RESOURCE),
        (Command.SET_SCANOUT, struct.pack("<6I", 0, 0, 9, 8, 0, 1), INVALID_PARAMETER),
        (Command.SET_SCANOUT, struct.pack("<6I", 8, 8, 0, 0, 0, 1), INVALID_PARAMETER),
        (Command.SET_SCANOUT, struct.pack("<6I", MANY, 0, 8, 8, 0, 1), INVALID_PARAMETER),
        (Command.SET_SCANOUT_BLOB, bytes(16 + 24 + 32), Response.OK_NODATA),
        (
            Command.SET_SCANOUT_BLOB,
            struct.pack("<4I6I8I", 0, 0, 8, 8, 0, 1, 8, 8, 2, 0, *[32] * 8),
            INVALID_RESOURCE,
        ),
        (Command.RESOURCE_FLUSH, struct.pack("<4II4x", 0, 0, 8, 8, 5), INVALID_RESOURCE),
        (Command.RESOURCE_FLUSH, struct.pack("<4II4x", 0, 0, 8, 9, 1), INVALID_PARAMETER),
        (Command.TRANSFER_TO_HOST_2D, struct.pack("<4IQI4x", 0, 0, 8, 8, 0, 5), INVALID_RESOURCE),
        (Command.TRANSFER_TO_HOST_2D, struct.pack("<4IQI4x", 1, 0, 8, 8, 0, 1), INVALID_PARAMETER),
        (Command.TRANSFER_TO_HOST_2D, struct.pack("<4IQI4x", 0, 0, 8, 8, 1, 1), INVALID_PARAMETER),
        (
            Command.TRANSFER_TO_HOST_2D,
            struct.pack("<4IQI4x", 0, 0, 8, 8, (1 << 64) - 1, 1),
            INVALID_PARAMETER,
        ),
        (
            Command.TRANSFER_TO_HOST_2D,
            struct.pack("<4IQI4x", MANY, MANY, 8, 8, 0, 1),
            INVALID_PARAMETER,
        ),
        (Command.GET_EDID, struct.pack("<I4x", 2), INVALID_SCANOUT),
        (Command.UPDATE_CURSOR, struct.pack("<3I4x3I4x", 2, 0, 0, 0, 0, 0), INVALID_SCANOUT),
        (Command.UPDATE_CURSOR, struct.pack("<3I4x3I4x", 0, 0, 0, 5, 0, 0), INVALID_RESOURCE),
        (Command.MOVE_CURSOR, struct.pack("<3I4x3I4x", 99, 0, 0, 0, 0, 0), INVALID_SCANOUT),
        (Command.RESOURCE_CREATE_3D, bytes(48), Response.ERR_UNSPEC),
        (Command.RESOURCE_CREATE_2D, bytes(15), INVALID_PARAMETER),
        (0x7777, b"", Response.ERR_UNSPEC),
    ],
)
def test_bad_requests_get_the_error_of_the_specification(
    vm: Vm, command: int, body: bytes, wanted: Response
) -> None:
    assert vm.guest.send(create_2d(1, 8, 8)).type == Response.OK_NODATA
    if command == Command.TRANSFER_TO_HOST_2D:
        vm.guest.send(attach_backing(1, [(vm.guest.allocate(256), 256)]))
    assert vm.guest.command(command, body).type == wanted
    assert vm.guest.send(transfer(77, Rect(0, 0, 1, 1))).type == Response.ERR_INVALID_RESOURCE_ID


def test_a_second_backing_is_refused(vm: Vm) -> None:
    picture(vm, 8, 8)
    assert vm.guest.send(attach_backing(1, [])).type == Response.ERR_UNSPEC


def test_pictures_have_a_limit(vm: Vm) -> None:
    assert vm.guest.send(create_2d(1, 16384, 8192)).type == Response.OK_NODATA
    assert vm.guest.send(create_2d(2, 16384, 8192)).type == Response.OK_NODATA
    assert vm.guest.send(create_2d(3, 1, 1)).type == Response.ERR_OUT_OF_MEMORY
    vm.guest.send(unref(1))
    assert vm.guest.send(create_2d(3, 1, 1)).type == Response.OK_NODATA
