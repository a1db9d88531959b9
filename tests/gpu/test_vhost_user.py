"""The GPU behind vhost-user: what the two make together (see tests/vhost for the transport)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from frontend import Frontend
from gpu_requests import (
    create_2d,
    create_blob,
    map_blob,
    move_cursor,
    on_resource,
    request,
    submit,
    unmap_blob,
    unref,
)
from gpu_vm import WINDOW, Vm
from vhost_user_guest import VhostUserGuest

from hesper.gpu.wire import (
    CURSOR_QUEUE,
    QUEUE_COUNT,
    SHM_ID_HOST_VISIBLE,
    BlobMemory,
    Command,
    Feature,
    Response,
)
from hesper.vhost.backend import PROTOCOL_FEATURES
from hesper.vhost.virtqueue import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from hesper.vhost.wire import (
    F_PROTOCOL_FEATURES,
    SHMEM_CONFIG,
    VRING_STATE,
    ProtocolFeature,
    Request,
)

OK = Response.OK_NODATA


@pytest.fixture
def vm() -> Iterator[Vm]:
    """A device with a guest by vhost-user whose driver is loaded."""
    vm = Vm("vhost-user")
    vm.guest.start()
    yield vm
    vm.close()


@pytest.fixture
def frontend(vm: Vm) -> Frontend:
    """Its front-end."""
    assert isinstance(vm.guest, VhostUserGuest)
    return vm.guest.frontend


def test_what_is_offered(frontend: Frontend) -> None:
    device = Feature(frontend.features & 0xFFFFFF)
    assert device == (
        Feature.VIRGL
        | Feature.EDID
        | Feature.RESOURCE_UUID
        | Feature.RESOURCE_BLOB
        | Feature.CONTEXT_INIT
        | Feature.BLOB_ALIGNMENT
    )
    rings = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | F_PROTOCOL_FEATURES
    assert frontend.features & ~0xFFFFFF == rings
    assert frontend.protocol_features == PROTOCOL_FEATURES | ProtocolFeature.SHMEM
    assert len(frontend.queues) == QUEUE_COUNT
    sizes = SHMEM_CONFIG.unpack(frontend.ask(Request.GET_SHMEM_CONFIG))
    assert sizes[0] == 1
    assert sizes[2 + SHM_ID_HOST_VISIBLE] == WINDOW


def test_blobs_are_mapped_into_the_host_visible_region(vm: Vm, frontend: Frontend) -> None:
    vm.open_context(1)
    vm.guest.send(create_blob(7, ctx_id=1))
    assert vm.guest.send(map_blob(7, 0)).type == Response.OK_MAP_INFO
    assert frontend.regions == {SHM_ID_HOST_VISIBLE}


def test_what_the_device_has_mapped_backs_no_blob(vm: Vm, frontend: Frontend) -> None:
    """A VMM tells of it in its memory table; holding on to it would keep it alive."""
    vm.open_context(1)
    vm.guest.send(create_blob(7, ctx_id=1))
    vm.guest.send(map_blob(7, 0))
    window = 0x4000_0000 + (1 << 30)
    assert frontend.set_memory((window, frontend.maps[0][0], frontend.mapped_fds[0])) == 0
    pieces = [(1 << 30, frontend.maps[0][0])]
    answer = vm.guest.send(create_blob(8, memory=BlobMemory.GUEST, pieces=pieces))
    assert answer.type == Response.ERR_INVALID_PARAMETER


def test_a_paused_machine_goes_on_where_it_was(vm: Vm, frontend: Frontend) -> None:
    worker = vm.open_context(1)
    assert vm.guest.send(create_blob(7, ctx_id=1)).type == OK
    assert vm.guest.send(map_blob(7, 0)).type == Response.OK_MAP_INFO
    waiting = vm.guest.post(submit(1, b"1234", fence_id=9, ring_idx=1))
    worker.wait(lambda: worker.fences)
    bases = frontend.stop_queues()
    # The work goes on; the answer has to wait.
    worker.retire(1)
    vm.settle()
    assert vm.guest.take() is None
    frontend.start_queues(bases)
    assert vm.guest.wait(*waiting).fence_id == 9
    assert vm.guest.send(unmap_blob(7)).type == OK


def test_a_driver_need_not_use_the_cursor(vm: Vm, frontend: Frontend) -> None:
    """UEFI firmware sets up the control queue alone; QEMU enables both all the same."""
    frontend.stop_queues()
    cursor = frontend.queues.pop()
    frontend.start()
    frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(cursor.index, 1))
    assert vm.guest.send(create_2d(3, 16, 16)).type == OK
    # Linux comes after it, with both.
    frontend.stop_queues()
    frontend.queues.append(cursor)
    frontend.start()
    assert vm.guest.send(unref(3)).type == Response.ERR_INVALID_RESOURCE_ID
    assert vm.guest.send(move_cursor(0, (11, 12)), queue=CURSOR_QUEUE).type == OK


def test_commands_of_both_queues_are_the_same(vm: Vm) -> None:
    display_info = request(Command.GET_DISPLAY_INFO)
    assert vm.guest.send(display_info, queue=CURSOR_QUEUE).type == Response.OK_DISPLAY_INFO
    assert vm.guest.send(on_resource(Command.RESOURCE_UNREF, 1)).type == (
        Response.ERR_INVALID_RESOURCE_ID
    )
