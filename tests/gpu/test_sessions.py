"""Connections, resets, pauses, events: what a VMM does with the device."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from device import WINDOW, Vm
from driver import (
    assert_no_more_descriptors,
    create_blob,
    create_context,
    descriptors,
    map_request,
    on_resource,
    open_context,
    post_submit,
    send,
)
from frontend import Frontend

from hesper.display.scanout import Display, Size
from hesper.gpu.wire import Command, Feature, Response
from hesper.portable import page_size
from hesper.vhost.backend import PROTOCOL_FEATURES, Session
from hesper.vhost.server import DeviceServer
from hesper.vhost.virtqueue import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from hesper.vhost.wire import (
    CONFIG_HEADER,
    F_PROTOCOL_FEATURES,
    HEADER,
    MEMORY_HEADER,
    MEMORY_REGION,
    SHMEM_CONFIG,
    U64,
    VRING_ADDR,
    VRING_STATE,
    ProtocolFeature,
    Request,
)

OK = Response.OK_NODATA


def test_what_is_offered(vm: Vm) -> None:
    device = Feature(vm.frontend.features & 0xFFFFFF)
    assert device == (
        Feature.VIRGL
        | Feature.EDID
        | Feature.RESOURCE_UUID
        | Feature.RESOURCE_BLOB
        | Feature.CONTEXT_INIT
        | Feature.BLOB_ALIGNMENT
    )
    rings = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | F_PROTOCOL_FEATURES
    assert vm.frontend.features & ~0xFFFFFF == rings
    assert vm.frontend.protocol_features == PROTOCOL_FEATURES | ProtocolFeature.SHMEM
    sizes = SHMEM_CONFIG.unpack(vm.frontend.ask(Request.GET_SHMEM_CONFIG))
    assert sizes[:4] == (1, 0, 0, WINDOW)
    assert not any(sizes[4:])


def test_config_space(vm: Vm) -> None:
    assert vm.frontend.config() == (0, 0, 2, 1, page_size())


def test_a_viewer_that_resizes_tells_the_guest(vm: Vm) -> None:
    vm.display[1].request_size(Size(1920, 1200))
    vm.frontend.wait_config_changes(1)
    assert vm.frontend.config()[0] == 1
    vm.frontend.clear_events(1)
    assert vm.frontend.config()[0] == 0
    info = vm.frontend.command(Command.GET_DISPLAY_INFO).payload
    screens = list(struct.iter_unpack("<6I", info))
    assert screens[:3] == [(0, 0, 1280, 800, 1, 0), (1280, 0, 1920, 1200, 1, 0), (0,) * 6]
    answer = vm.frontend.command(Command.GET_EDID, struct.pack("<I4x", 1))
    assert answer.type == Response.OK_EDID
    size, edid = struct.unpack("<I4x1024s", answer.payload)
    assert size == 128
    width = edid[56] | edid[58] >> 4 << 8
    height = edid[59] | edid[61] >> 4 << 8
    assert (width, height) == (1920, 1200)


def test_a_size_that_a_driver_has_missed_is_told_again(vm: Vm) -> None:
    """It looks, the size changes, and it clears the event of both."""
    vm.display[0].request_size(Size(800, 600))
    vm.frontend.wait_config_changes(1)
    vm.frontend.command(Command.GET_EDID, struct.pack("<I4x", 0))
    vm.display[0].request_size(Size(900, 600))
    vm.frontend.wait_config_changes(2)
    vm.frontend.command(Command.GET_DISPLAY_INFO)
    vm.frontend.clear_events(1)
    vm.frontend.wait_config_changes(3)
    assert vm.frontend.config()[0] == 1
    # One that does not look is not told time and again.
    for _ in range(3):
        vm.frontend.clear_events(1)
    assert vm.frontend.config()[0] == 0
    vm.settle()
    assert vm.frontend.config_changes == 3


def test_sixteen_scanouts() -> None:
    vm = Vm(scanouts=16)
    vm.frontend.start()
    info = vm.frontend.command(Command.GET_DISPLAY_INFO).payload
    screens = list(struct.iter_unpack("<6I", info))
    assert screens == [(1280 * index, 0, 1280, 800, 1, 0) for index in range(16)]
    assert vm.frontend.config()[2] == 16
    vm.close()


def test_a_gpu_that_only_renders() -> None:
    vm = Vm(scanouts=0)
    vm.frontend.start()
    assert vm.frontend.config()[2] == 0
    assert create_context(vm, 1).type == OK
    body = struct.pack("<6I", 0, 0, 1, 1, 0, 0)
    assert vm.frontend.command(Command.SET_SCANOUT, body).type == Response.ERR_INVALID_SCANOUT_ID
    vm.close()


def populate(vm: Vm) -> None:
    """Make one of everything."""
    open_context(vm, 1)
    assert create_blob(vm, 7, ctx_id=1).type == OK
    assert send(vm.frontend, map_request(7, 0)).type == Response.OK_MAP_INFO
    body = struct.pack("<4I", 3, 2, 16, 16)
    assert vm.frontend.command(Command.RESOURCE_CREATE_2D, body).type == OK
    body = struct.pack("<6I", 0, 0, 16, 16, 0, 3)
    assert vm.frontend.command(Command.SET_SCANOUT, body).type == OK
    assert vm.display[0].surface is not None


def test_a_driver_that_starts_over_finds_nothing_left(vm: Vm) -> None:
    populate(vm)
    worker = vm.workers[-1]
    vm.frontend.stop_queues()
    # A VMM takes the maps away with the reset; asking it for that would crash QEMU.
    vm.frontend.drop_maps()
    vm.frontend.start()
    assert worker.ended.wait(30)
    assert vm.display[0].surface is None
    assert on_resource(vm, Command.RESOURCE_UNREF, 7).type == Response.ERR_INVALID_RESOURCE_ID
    populate(vm)


def test_ten_reboots_leave_nothing_behind(vm: Vm) -> None:
    def restart() -> None:
        populate(vm)
        vm.frontend.stop_queues()
        vm.frontend.drop_maps()
        vm.frontend.start()
        for worker in vm.workers:
            assert worker.ended.wait(30)
            worker.socket.close()

    restart()
    before = descriptors()
    for _ in range(10):
        restart()
    assert_no_more_descriptors(before)


def test_a_paused_machine_goes_on_where_it_was(vm: Vm) -> None:
    populate(vm)
    worker = vm.workers[-1]
    waiting = post_submit(vm, 1, b"1234", fence_id=9, ring_idx=1)
    worker.wait(lambda: worker.fences)
    bases = vm.frontend.stop_queues()
    # The work goes on; the answer has to wait.
    worker.retire(1)
    worker.say(99)
    vm.settle()
    assert vm.frontend.queues[0].take_used() is None
    vm.frontend.start_queues(bases)
    assert vm.frontend.wait(*waiting).fence_id == 9
    assert vm.display[0].surface is not None
    assert on_resource(vm, Command.RESOURCE_UNMAP_BLOB, 7).type == OK


def test_a_machine_paused_before_its_first_request(vm: Vm) -> None:
    bases = vm.frontend.stop_queues()
    assert bases == [0, 0]
    vm.frontend.start_queues(bases)
    populate(vm)


def test_answers_from_before_a_reset_are_dropped(vm: Vm) -> None:
    populate(vm)
    worker = vm.workers[-1]
    post_submit(vm, 1, b"1234", fence_id=9, ring_idx=1)
    worker.wait(lambda: worker.fences)
    vm.frontend.hold_maps.clear()
    create_blob(vm, 8, ctx_id=1)
    vm.frontend.map_held.clear()
    vm.frontend.post(map_request(8, 1 << 20))
    assert vm.frontend.map_held.wait(30)
    vm.frontend.stop_queues()
    vm.frontend.drop_maps()
    vm.frontend.start()
    vm.frontend.hold_maps.set()
    # The late map is taken back.
    vm.frontend.wait_maps(0)
    assert vm.frontend.queues[0].take_used() is None
    populate(vm)


def post_unheard(vm: Vm, request: bytes) -> tuple[int, int]:
    """Post what makes the device call the VMM while that does not listen."""
    vm.frontend.listens.clear()
    vm.frontend.called.clear()
    posted = vm.frontend.post(request)
    assert vm.frontend.called.wait(30)
    return posted


def test_a_map_that_a_pause_overtakes_is_made_afterwards(vm: Vm) -> None:
    open_context(vm, 1)
    create_blob(vm, 7, ctx_id=1)
    waiting = post_unheard(vm, map_request(7, 0))
    bases = vm.frontend.stop_queues()
    vm.frontend.listens.set()
    vm.frontend.wait_unknown(1)
    assert not vm.frontend.maps
    vm.frontend.start_queues(bases)
    assert vm.frontend.wait(*waiting).type == Response.OK_MAP_INFO
    vm.frontend.wait_maps(1)


def test_a_map_that_a_short_pause_overtakes_is_made(vm: Vm) -> None:
    open_context(vm, 1)
    create_blob(vm, 7, ctx_id=1)
    waiting = post_unheard(vm, map_request(7, 0))
    vm.frontend.start_queues(vm.frontend.stop_queues())
    vm.frontend.listens.set()
    assert vm.frontend.wait(*waiting).type == Response.OK_MAP_INFO
    assert vm.frontend.unknown == 0


def test_a_map_that_a_reset_overtakes_is_dropped(vm: Vm) -> None:
    """The first is on its way, the second waits for it."""
    open_context(vm, 1)
    for resource in (7, 8):
        create_blob(vm, resource, ctx_id=1)
    post_unheard(vm, map_request(7, 0))
    vm.frontend.post(map_request(8, 1 << 20))
    vm.settle()
    vm.frontend.stop_queues()
    vm.frontend.start()
    vm.frontend.listens.set()
    vm.frontend.wait_unknown(1)
    populate(vm)
    vm.frontend.wait_maps(1)
    assert vm.frontend.queues[0].take_used() is None


def test_viewers_may_resize_while_the_machine_stands_still(vm: Vm) -> None:
    bases = vm.frontend.stop_queues()
    for width in (800, 900):
        vm.display[0].request_size(Size(width, 600))
    vm.settle()
    assert vm.frontend.config_changes == 0
    vm.frontend.start_queues(bases)
    vm.frontend.wait_config_changes(1)
    # Once is enough.
    populate(vm)
    assert vm.frontend.config_changes == 1


def test_a_vmm_that_dies_leaves_nothing_behind(vm: Vm) -> None:
    populate(vm)
    before = descriptors()
    worker = vm.workers[-1]
    vm.frontend.close()
    assert vm.disconnected.wait(30)
    assert worker.ended.wait(30)
    worker.socket.close()
    assert vm.display[0].surface is None
    vm.frontend = vm.connect()
    vm.frontend.start()
    populate(vm)
    assert_no_more_descriptors(before)


def test_a_machine_at_a_time() -> None:
    vm = Vm()
    listener = socket.socket(socket.AF_UNIX)
    path = f"/tmp/hesper-test-{os.getpid()}"
    listener.bind(path)
    try:
        listener.listen()
        vm.close()
        vm = Vm()
        ready: list[DeviceServer] = []
        vm.loop.call(lambda: ready.append(DeviceServer(listener, vm.device, vm.loop)))
        vm.settle()
        clients = []
        for _ in range(2):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(30)
            client.connect(path)
            clients.append(client)
        clients[0].sendall(HEADER.pack(Request.GET_FEATURES, 1, 0))
        assert len(clients[0].recv(100)) == HEADER.size + 8
        assert clients[1].recv(100) == b""
        clients[0].close()
        vm.loop.call(lambda: None)
        third = socket.socket(socket.AF_UNIX)
        third.settimeout(30)
        while True:
            # The first may not have been missed yet.
            vm.settle()
            third.connect(path)
            third.sendall(HEADER.pack(Request.GET_FEATURES, 1, 0))
            if third.recv(100):
                break
            third.close()
            third = socket.socket(socket.AF_UNIX)
            third.settimeout(30)
        for client in (clients[1], third):
            client.close()
        vm.loop.call(ready[0].close)
        vm.settle()
    finally:
        vm.close()
        listener.close()
        os.unlink(path)


def _config(frontend: Frontend) -> None:
    size = 24
    payload = CONFIG_HEADER.pack(0, size, 0) + bytes(size)
    assert frontend.ask(Request.GET_CONFIG, payload) == b""


def test_a_config_space_of_another_size_is_an_error(vm: Vm) -> None:
    _config(vm.frontend)


REGION = MEMORY_REGION.pack(0, 1 << 40, 0, 0)


@pytest.mark.parametrize(
    ("request_number", "payload"),
    [
        (999, b""),
        (Request.SET_FEATURES, U64.pack(1 << 60)),
        (Request.SET_FEATURES, b"1234"),
        (Request.SET_PROTOCOL_FEATURES, U64.pack(0)),
        (Request.SET_BACKEND_REQ_FD, b""),
        (Request.SET_MEM_TABLE, MEMORY_HEADER.pack(1, 0)),
        (Request.SET_MEM_TABLE, MEMORY_HEADER.pack(1, 0) + REGION),
        (Request.SET_VRING_NUM, VRING_STATE.pack(0, 3)),
        (Request.SET_VRING_NUM, VRING_STATE.pack(2, 64)),
        (Request.SET_VRING_NUM, VRING_STATE.pack(0, 65536)),
        (Request.SET_VRING_BASE, VRING_STATE.pack(77, 0)),
        (Request.SET_VRING_ADDR, VRING_ADDR.pack(77, 0, 0, 0, 0, 0)),
        (Request.SET_VRING_KICK, U64.pack(0x100)),
        (Request.SET_VRING_KICK, U64.pack(0)),
        (Request.SET_VRING_CALL, U64.pack(9)),
        (Request.SET_VRING_ENABLE, VRING_STATE.pack(5, 1)),
        (Request.GET_VRING_BASE, VRING_STATE.pack(5, 1)),
        (Request.GET_CONFIG, b""),
        (Request.SET_CONFIG, CONFIG_HEADER.pack(0, 20, 0)),
    ],
)
def test_a_vmm_that_talks_nonsense_is_left(vm: Vm, request_number: int, payload: bytes) -> None:
    vm.frontend.send(request_number, payload)
    assert vm.disconnected.wait(30)
    vm.frontend.close()
    vm.frontend = vm.connect()
    vm.frontend.start()
    assert vm.frontend.command(Command.GET_DISPLAY_INFO).type == Response.OK_DISPLAY_INFO


def test_what_is_no_vhost_user_is_left() -> None:
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), os.urandom(4096)):
        vm = Vm()
        vm.frontend.socket.sendall(rubbish)
        assert vm.disconnected.wait(30)
        vm.close()


def test_a_queue_without_a_size_cannot_start() -> None:
    vm = Vm()
    vm.frontend.send(Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, 0, 0, 0, 0))
    vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    assert vm.disconnected.wait(30)
    vm.close()


def test_a_driver_need_not_use_the_cursor(vm: Vm) -> None:
    """UEFI firmware sets up the control queue alone; QEMU enables both all the same."""
    bases = vm.frontend.stop_queues()
    cursor = vm.frontend.queues.pop()
    vm.frontend.start()
    vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(cursor.index, 1))
    body = struct.pack("<4I", 3, 2, 16, 16)
    assert vm.frontend.command(Command.RESOURCE_CREATE_2D, body).type == OK
    # A pause of such a machine is a pause.
    bases = vm.frontend.stop_queues()
    vm.frontend.start_queues(bases)
    vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(cursor.index, 1))
    assert on_resource(vm, Command.RESOURCE_UNREF, 3).type == OK
    # Linux comes after it, with both.
    vm.frontend.stop_queues()
    vm.frontend.queues.append(cursor)
    vm.frontend.start()
    populate(vm)
    request = struct.pack("<IIQIB3x", Command.MOVE_CURSOR, 0, 0, 0, 0)
    request += struct.pack("<3I4x3I4x", 0, 11, 12, 0, 0, 0)
    head, answer = vm.frontend.post(request, queue=1)
    assert vm.frontend.wait(head, answer, queue=1).type == OK


def test_half_a_message_holds_nobody_up(vm: Vm) -> None:
    vm.frontend.socket.sendall(HEADER.pack(Request.GET_FEATURES, 1, 0)[:5])
    assert vm.frontend.command(Command.GET_DISPLAY_INFO).type == Response.OK_DISPLAY_INFO
    vm.frontend.socket.sendall(HEADER.pack(Request.GET_FEATURES, 1, 0)[5:])
    assert len(vm.frontend.socket.recv(100)) == HEADER.size + 8


def test_a_display_has_sixteen_scanouts_at_most() -> None:
    with pytest.raises(ValueError, match="0 to 16"):
        Display(17)


def test_sessions_close_once() -> None:
    closed: list[int] = []
    ours, theirs = socket.socketpair()
    other = Vm()
    sessions: list[Session] = []
    other.loop.call(
        lambda: sessions.append(Session(theirs, other.device, other.loop, lambda: closed.append(1)))
    )
    other.settle()
    for _ in range(2):
        other.loop.call(sessions[0].close)
    other.settle()
    assert closed == [1]
    ours.close()
    other.close()
