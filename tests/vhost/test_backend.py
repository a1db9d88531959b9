"""Connections, features, the config space, resets and pauses, with a device that is no GPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from frontend import GUEST_BASE, Frontend
from toy_device import CONFIG, REGION, REGION_SIZE, STAMPS, UPPER, YES, ToyVm, map_request

from hesper.vhost.backend import PROTOCOL_FEATURES, Backend
from hesper.vhost.server import DeviceServer
from hesper.vhost.virtqueue import F_EVENT_IDX, F_INDIRECT_DESC, F_RING_RESET, F_VERSION_1
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
from lingering import lingering
from open_files import assert_no_more_descriptors, count_descriptors

RINGS = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | F_PROTOCOL_FEATURES


def test_the_transport_knows_no_gpu() -> None:
    """Its modules can be used where there is no GPU room, and bring none of it."""
    program = (
        "import pkgutil, sys, hesper.vhost as room\n"
        "for module in pkgutil.iter_modules(room.__path__):\n"
        "    __import__(f'hesper.vhost.{module.name}')\n"
        "print(*sorted(n for n in sys.modules if n.startswith('hesper.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert "vhost" in rooms
    assert rooms <= {"vhost", "event_loop", "ancillary", "portable", "log", "log_limiter"}


def test_what_is_offered_is_the_devices_and_the_transports(vm: ToyVm) -> None:
    assert vm.frontend.features == RINGS | UPPER | STAMPS
    assert vm.frontend.protocol_features == PROTOCOL_FEATURES | ProtocolFeature.SHMEM
    sizes = SHMEM_CONFIG.unpack(vm.frontend.ask(Request.GET_SHMEM_CONFIG))
    assert sizes[:2] == (1, 0)
    assert {index: size for index, size in enumerate(sizes[2:]) if size} == {REGION: REGION_SIZE}


def test_a_device_without_shared_memory_offers_none() -> None:
    vm = ToyVm()
    vm.device.shared_memory = {}
    vm.frontend.close()
    assert vm.disconnected.wait(30)
    vm.frontend = vm.connect()
    assert vm.frontend.protocol_features == PROTOCOL_FEATURES
    vm.close()


def test_what_the_driver_chooses_reaches_the_device(vm: ToyVm) -> None:
    assert vm.device.chosen == RINGS | UPPER | STAMPS
    assert vm.echo(b"loud") == b"LOUD"
    vm.frontend.stop_queues()
    vm.frontend.features = RINGS | STAMPS
    vm.frontend.start()
    assert vm.device.chosen == RINGS | STAMPS
    assert vm.echo(b"soft") == b"soft"


def test_the_config_space_is_the_devices(vm: ToyVm) -> None:
    assert vm.frontend.read_config() == CONFIG.pack(0, 0)
    vm.echo(b"")
    assert vm.frontend.read_config() == CONFIG.pack(0, 1)
    vm.on_loop(vm.device.raise_flag)
    vm.frontend.wait_config_changes(1)
    assert vm.frontend.read_config() == CONFIG.pack(1, 1)
    vm.frontend.write_config(bytes(4))
    assert vm.frontend.read_config() == CONFIG.pack(0, 1)
    vm.frontend.write_config(b"ab", offset=3)
    vm.settle()
    assert vm.device.written == [(0, bytes(4)), (3, b"ab")]


def test_a_config_space_of_another_size_is_an_error(vm: ToyVm) -> None:
    size = CONFIG.size + 4
    payload = CONFIG_HEADER.pack(0, size, 0) + bytes(size)
    assert vm.frontend.ask(Request.GET_CONFIG, payload) == b""


def test_requests_come_with_their_queue() -> None:
    vm = ToyVm(queues=3)
    vm.frontend.start()
    for queue in (2, 0, 1):
        assert vm.frontend.call(b"Eto", queue=queue) == b"TO"
    assert vm.device.queues == [2, 0, 1]
    vm.close()


def test_a_driver_need_not_use_all_queues() -> None:
    """UEFI firmware sets up one queue of a GPU; QEMU enables both all the same."""
    vm = ToyVm(queues=2)
    other = vm.frontend.queues.pop()
    vm.frontend.start()
    vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(other.index, 1))
    assert vm.echo(b"one") == b"ONE"
    # A pause of such a machine is a pause.
    bases = vm.frontend.stop_queues()
    vm.frontend.start_queues(bases)
    vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(other.index, 1))
    assert vm.echo(b"one") == b"ONE"
    assert vm.device.resets == 0
    # Linux comes after it, with both.
    vm.frontend.stop_queues()
    vm.frontend.queues.append(other)
    vm.frontend.start()
    assert vm.frontend.call(b"Etwo", queue=1) == b"TWO"
    assert vm.device.resets == 1
    vm.close()


# Resets and pauses.


def test_a_driver_that_starts_over_resets_the_device(vm: ToyVm) -> None:
    vm.echo(b"")
    vm.frontend.stop_queues()
    vm.frontend.start()
    vm.settle()
    assert vm.device.resets == 1
    assert vm.echo(b"again") == b"AGAIN"


def test_a_paused_machine_goes_on_where_it_was(vm: ToyVm) -> None:
    kept = vm.frontend.post(b"K")
    vm.settle()
    bases = vm.frontend.stop_queues()
    assert bases == [1]
    # The answer comes meanwhile, and has to wait: nothing is written to a paused machine.
    vm.on_loop(lambda: vm.device.kept.pop().respond(b"late"))
    assert vm.frontend.queues[0].take_used() is None
    assert vm.frontend.read_bytes(kept[1], 4) == bytes(4)
    vm.frontend.start_queues(bases)
    assert vm.frontend.wait_bytes(*kept) == b"late"
    assert vm.device.resets == 0


def test_a_machine_paused_before_its_first_request(vm: ToyVm) -> None:
    bases = vm.frontend.stop_queues()
    assert bases == [0]
    vm.frontend.start_queues(bases)
    assert vm.echo(b"first") == b"FIRST"
    assert vm.device.resets == 0


def test_answers_from_before_a_reset_touch_nothing(vm: ToyVm) -> None:
    """The next driver uses the memory for other things."""
    _, answer = vm.frontend.post(b"K")
    vm.settle()
    vm.frontend.stop_queues()
    vm.frontend.start()
    assert vm.echo(b"") == b""
    vm.frontend.memory[answer : answer + 4] = b"mine"
    vm.on_loop(lambda: vm.device.kept.pop().respond(b"late"))
    assert vm.frontend.queues[0].take_used() is None
    assert vm.frontend.read_bytes(answer, 4) == b"mine"


def test_config_changes_wait_while_the_machine_stands_still(vm: ToyVm) -> None:
    bases = vm.frontend.stop_queues()
    for _ in range(2):
        vm.on_loop(vm.device.raise_flag)
    assert vm.frontend.config_changes == 0
    vm.frontend.start_queues(bases)
    vm.frontend.wait_config_changes(1)
    # Once is enough.
    assert vm.echo(b"") == b""
    assert vm.frontend.config_changes == 1


# Connections.


def test_a_vmm_that_dies_leaves_nothing_behind(vm: ToyVm) -> None:
    def use() -> None:
        assert vm.frontend.call(map_request(0)) == YES
        vm.frontend.post(b"K")
        vm.settle()

    use()
    before = count_descriptors()
    vm.frontend.close()
    assert vm.disconnected.wait(30)
    vm.frontend = vm.connect()
    vm.frontend.start()
    use()
    assert_no_more_descriptors(before)


def test_a_machine_at_a_time(tmp_path: Path) -> None:
    vm = ToyVm()
    vm.frontend.close()
    assert vm.disconnected.wait(30)
    listener = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "socket")
    listener.bind(path)
    listener.listen()
    server: list[DeviceServer] = []
    vm.on_loop(lambda: server.append(DeviceServer(listener, vm.device, vm.loop)))

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(path)
        return client

    def is_served(client: socket.socket) -> bool:
        try:
            client.sendall(HEADER.pack(Request.GET_FEATURES, 1, 0))
            answer = client.recv(100)
        except ConnectionError:
            return False  # turned away with what it had sent unread
        assert len(answer) in {0, HEADER.size + 8}
        return bool(answer)

    try:
        go = threading.Event()
        vm.loop.call(lambda: go.wait(30))
        first, second, third = connect(), connect(), connect()
        # The last descriptor of a socket whose closing takes hours comes with what it says.
        fd, other = lingering()
        socket.send_fds(third, [b"x"], [fd])
        os.close(fd)
        go.set()
        assert is_served(first)
        assert second.recv(100) == b""
        assert not is_served(third)
        second.close()
        third.close()
        first.close()
        while not is_served(third := connect()):
            # The first may not have been missed yet.
            third.close()
        third.close()
        other.close()
        vm.on_loop(server[0].close)
    finally:
        listener.close()
        vm.frontend = vm.connect()
        vm.close()


REGION_ENTRY = MEMORY_REGION.pack(0, 1 << 40, 0, 0)


@pytest.mark.parametrize(
    ("request_number", "payload"),
    [
        (999, b""),
        (Request.SET_FEATURES, U64.pack(1 << 60)),
        (Request.SET_FEATURES, U64.pack(1 << 1)),
        (Request.SET_FEATURES, b"1234"),
        (Request.SET_PROTOCOL_FEATURES, U64.pack(0)),
        (Request.SET_BACKEND_REQ_FD, b""),
        (Request.SET_MEM_TABLE, MEMORY_HEADER.pack(1, 0)),
        (Request.SET_MEM_TABLE, MEMORY_HEADER.pack(1, 0) + REGION_ENTRY),
        (Request.SET_VRING_NUM, VRING_STATE.pack(0, 3)),
        (Request.SET_VRING_NUM, VRING_STATE.pack(1, 64)),
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
def test_a_vmm_that_talks_nonsense_is_left(vm: ToyVm, request_number: int, payload: bytes) -> None:
    vm.frontend.send(request_number, payload)
    assert vm.disconnected.wait(30)
    vm.frontend.close()
    vm.frontend = vm.connect()
    vm.frontend.start()
    assert vm.echo(b"next") == b"NEXT"


def test_what_is_no_vhost_user_is_left() -> None:
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), os.urandom(4096)):
        vm = ToyVm()
        vm.frontend.socket.sendall(rubbish)
        assert vm.disconnected.wait(30)
        vm.close()


def test_a_queue_without_a_size_cannot_start() -> None:
    vm = ToyVm()
    vm.frontend.send(Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, 0, 0, 0, 0))
    vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    assert vm.disconnected.wait(30)
    vm.close()


def test_a_kick_before_the_start_is_nothing() -> None:
    vm = ToyVm()
    queue = vm.frontend.queues[0]
    vm.frontend.send(Request.SET_VRING_KICK, U64.pack(0), [queue.kick.read_fd])
    queue.kick.signal()
    assert vm.frontend.read_config() == CONFIG.pack(0, 0)
    vm.settle()
    before = vm.loop.calls
    vm.settle()
    # Its own: the loop calls itself no more.
    assert vm.loop.calls == before + 2
    vm.frontend.start()
    assert vm.echo(b"now") == b"NOW"
    vm.close()


def test_a_channel_that_is_no_socket_is_closed(vm: ToyVm) -> None:
    def reconnect() -> None:
        vm.frontend.close()
        assert vm.disconnected.wait(30)
        vm.frontend = vm.connect()
        # What it has sent without waiting for an answer carries descriptors: they have come, too.
        vm.frontend.ask(Request.GET_FEATURES)

    reconnect()
    before = count_descriptors()
    fd = os.open(os.devnull, os.O_RDWR)
    vm.frontend.send(Request.SET_BACKEND_REQ_FD, b"", [fd])
    os.close(fd)
    reconnect()
    assert_no_more_descriptors(before)


def test_half_a_message_holds_nobody_up(vm: ToyVm) -> None:
    vm.frontend.socket.sendall(HEADER.pack(Request.GET_FEATURES, 1, 0)[:5])
    assert vm.echo(b"meanwhile") == b"MEANWHILE"
    vm.frontend.socket.sendall(HEADER.pack(Request.GET_FEATURES, 1, 0)[5:])
    assert len(vm.frontend.socket.recv(100)) == HEADER.size + 8


def test_connections_close_once() -> None:
    closed: list[int] = []
    vm = ToyVm()
    vm.frontend.close()
    assert vm.disconnected.wait(30)
    ours, theirs = socket.socketpair()
    backends: list[Backend] = []
    vm.on_loop(
        lambda: backends.append(Backend(theirs, vm.device, vm.loop, lambda: closed.append(1)))
    )
    for _ in range(2):
        vm.on_loop(backends[0].close)
    assert closed == [1]
    ours.close()
    vm.frontend = vm.connect()
    vm.close()


def test_a_front_end_without_memory_gets_no_queue() -> None:
    vm = ToyVm()
    vm.frontend.read_config()
    vm.frontend.start_queues([0])
    assert vm.disconnected.wait(30)
    vm.close()


def test_memory_tables_may_change_while_queues_run(vm: ToyVm) -> None:
    frontend: Frontend = vm.frontend
    assert frontend.set_memory((GUEST_BASE + (1 << 30), 4096, frontend.object.fd)) == 0
    assert vm.echo(b"still") == b"STILL"
    assert frontend.set_memory() == 0
    assert vm.echo(b"still") == b"STILL"


def test_what_qemu_offers_by_itself_is_named(caplog: pytest.LogCaptureFixture) -> None:
    vm = ToyVm()
    vm.frontend.send(Request.SET_FEATURES, U64.pack(vm.frontend.features | F_RING_RESET))
    assert vm.disconnected.wait(30)
    assert "0x10000000000 were not offered; QEMU's device needs queue_reset=off" in caplog.text
    vm.close()


def test_a_display_of_the_front_ends_is_the_devices(vm: ToyVm) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert vm.frontend.acknowledged(Request.GPU_SET_SOCKET, b"", [theirs.fileno()]) == 0
    (shown,) = vm.device.shown
    with shown:
        assert shown.type == socket.SOCK_STREAM
        assert shown.recv(1) == b""
