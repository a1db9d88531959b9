"""Drivers that come and go, events of the configuration space, and what is left of a guest."""

from __future__ import annotations

import random
import struct
import subprocess
import sys

import pytest
from gpu_requests import (
    PAGE,
    create_2d,
    create_blob,
    create_context,
    map_blob,
    request,
    set_scanout,
    submit,
    unref,
)
from gpu_vm import MakeVm, Vm, Worker

from hesper.display.scanout import Display, Size
from hesper.gpu.wire import HEADER, Command, Response
from hesper.portable import page_size
from open_files import assert_no_more_descriptors, count_descriptors

OK = Response.OK_NODATA


def test_the_gpu_knows_no_transport() -> None:
    """Its modules can be used where there is no vhost-user, and bring none of it."""
    program = (
        "import pkgutil, sys, hesper.gpu as room\n"
        "for module in pkgutil.iter_modules(room.__path__):\n"
        "    __import__(f'hesper.gpu.{module.name}')\n"
        "print(*sorted(n for n in sys.modules if n.startswith('hesper.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert "gpu" in rooms
    assert not rooms & {"vhost", "vhost_user_gpu", "vtest", "vm", "cli", "observe"}


def populate(vm: Vm) -> Worker:
    """Make one of everything; returns the context's worker."""
    worker = vm.open_context(1)
    assert vm.guest.send(create_blob(7, ctx_id=1)).type == OK
    assert vm.guest.send(map_blob(7, 0)).type == Response.OK_MAP_INFO
    assert vm.guest.send(create_2d(3, 16, 16)).type == OK
    assert vm.guest.send(set_scanout(0, 3, (0, 0, 16, 16))).type == OK
    assert vm.display[0].surface is not None
    return worker


def test_a_driver_that_starts_over_finds_nothing_left(vm: Vm) -> None:
    worker = populate(vm)
    vm.guest.restart()
    assert vm.guest.send(unref(7)).type == Response.ERR_INVALID_RESOURCE_ID
    assert worker.ended.wait(30)
    assert vm.display[0].surface is None
    populate(vm)


def test_ten_reboots_leave_nothing_behind(vm: Vm) -> None:
    def restart() -> None:
        populate(vm)
        vm.guest.restart()
        for worker in vm.workers:
            assert worker.ended.wait(30)
            worker.socket.close()

    restart()
    before = count_descriptors()
    for _ in range(10):
        restart()
    assert_no_more_descriptors(before)


def test_a_vmm_that_dies_leaves_nothing_behind(vm: Vm) -> None:
    worker = populate(vm)
    before = count_descriptors()
    vm.disconnect()
    assert worker.ended.wait(30)
    worker.socket.close()
    assert vm.display[0].surface is None
    vm.guest = vm.connect()
    vm.guest.start()
    populate(vm)
    assert_no_more_descriptors(before)


def test_answers_from_before_a_reset_are_dropped(vm: Vm) -> None:
    worker = populate(vm)
    _, answer = vm.guest.post(submit(1, b"1234", fence_id=9, ring_idx=1))
    worker.wait(lambda: worker.fences)
    vm.guest.send(create_blob(8, ctx_id=1))
    vm.guest.delay_maps()
    vm.guest.post(map_blob(8, 1 << 20))
    vm.guest.wait_delayed_map()
    vm.guest.restart()
    vm.guest.memory[answer : answer + 24] = b"m" * 24
    vm.guest.allow_maps()
    # The late map is taken back; the fence, which the end of its context has released, is not told.
    vm.guest.wait_maps(0)
    assert worker.ended.wait(30)
    vm.settle()
    assert vm.guest.take() is None
    assert bytes(vm.guest.memory[answer : answer + 24]) == b"m" * 24
    populate(vm)


# The configuration space.


def test_config_space(vm: Vm) -> None:
    assert vm.guest.config() == (0, 0, 2, 1, page_size())


def test_a_viewer_that_resizes_tells_the_guest(vm: Vm) -> None:
    vm.display[1].request_size(Size(1920, 1200))
    vm.guest.wait_config_changes(1)
    assert vm.guest.config()[0] == 1
    vm.guest.clear_events(1)
    assert vm.guest.config()[0] == 0
    info = vm.guest.command(Command.GET_DISPLAY_INFO).payload
    screens = list(struct.iter_unpack("<6I", info))
    assert screens[:3] == [(0, 0, 1280, 800, 1, 0), (1280, 0, 1920, 1200, 1, 0), (0,) * 6]
    answer = vm.guest.command(Command.GET_EDID, struct.pack("<I4x", 1))
    assert answer.type == Response.OK_EDID
    size, edid = struct.unpack("<I4x1024s", answer.payload)
    assert size == 128
    width = edid[56] | edid[58] >> 4 << 8
    height = edid[59] | edid[61] >> 4 << 8
    assert (width, height) == (1920, 1200)


def test_a_size_that_a_driver_has_missed_is_told_again(vm: Vm) -> None:
    """It looks, the size changes, and it clears the event of both."""
    vm.display[0].request_size(Size(800, 600))
    vm.guest.wait_config_changes(1)
    vm.guest.command(Command.GET_EDID, struct.pack("<I4x", 0))
    vm.display[0].request_size(Size(900, 600))
    vm.guest.wait_config_changes(2)
    vm.guest.command(Command.GET_DISPLAY_INFO)
    vm.guest.clear_events(1)
    vm.guest.wait_config_changes(3)
    assert vm.guest.config()[0] == 1
    # One that does not look is not told time and again.
    for _ in range(3):
        vm.guest.clear_events(1)
    assert vm.guest.config()[0] == 0
    vm.settle()
    assert vm.guest.config_changes == 3


def test_a_viewer_may_resize_while_there_is_no_guest(vm: Vm) -> None:
    vm.disconnect()
    vm.display[0].request_size(Size(800, 600))
    vm.settle()
    vm.guest = vm.connect()
    vm.guest.start()
    info = vm.guest.command(Command.GET_DISPLAY_INFO).payload
    assert struct.unpack_from("<4I", info) == (0, 0, 800, 600)


def test_sixteen_scanouts(make_vm: MakeVm) -> None:
    vm = make_vm(scanouts=16)
    info = vm.guest.command(Command.GET_DISPLAY_INFO).payload
    screens = list(struct.iter_unpack("<6I", info))
    assert screens == [(1280 * index, 0, 1280, 800, 1, 0) for index in range(16)]
    assert vm.guest.config()[2] == 16


def test_a_display_has_sixteen_scanouts_at_most() -> None:
    with pytest.raises(ValueError, match="0 to 16"):
        Display(17)


def test_a_gpu_that_only_renders(make_vm: MakeVm) -> None:
    vm = make_vm(scanouts=0)
    assert vm.guest.config()[2] == 0
    assert vm.guest.send(create_context(1)).type == OK
    answer = vm.guest.send(set_scanout(0, 0, (0, 0, 1, 1)))
    assert answer.type == Response.ERR_INVALID_SCANOUT_ID


# Requests that make no sense.


def test_short_requests_are_refused(vm: Vm) -> None:
    for data in (b"", b"\1", request(Command.GET_DISPLAY_INFO)[:7]):
        assert vm.guest.send(data).type == Response.ERR_UNSPEC


def test_short_answers_are_cut(vm: Vm) -> None:
    number, _ = vm.guest.post(request(Command.GET_DISPLAY_INFO), response_size=30)
    assert vm.guest.wait_any() == (number, 30)


def test_random_requests(vm: Vm) -> None:
    """Well-formed requests with random fields: every one is answered."""
    random_source = random.Random(7)
    interesting = (0, 1, 2, 3, 64, PAGE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    commands = [int(command) for command in Command]
    for number in range(1500):
        vm.guest.heap = 0x20000
        command = random_source.choice(commands)
        body = b"".join(
            struct.pack("<I", random_source.choice(interesting))
            for _ in range(random_source.choice((0, 1, 2, 4, 6, 8, 10, 18, 24)))
        )
        flags = random_source.choice((0, 0, 1, 3))
        header = HEADER.pack(
            command, flags, number, random_source.choice((0, 1, 2)), random_source.choice((0, 1))
        )
        posted, answer = vm.guest.post(header + body, queue=number % 2)
        while (done := vm.guest.take(number % 2, timeout=0.01)) is None:
            # Nobody looks after the fences of this test.
            for worker in vm.workers:
                for ring_idx, _ in tuple(worker.fences):
                    worker.retire(ring_idx)
        assert done[0] == posted
        assert 0x1100 <= vm.guest.read_answer(answer, done[1]).type < 0x1300
