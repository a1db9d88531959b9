"""A worker that does not listen, or never answers: its guest waits for it, and nobody else."""

from __future__ import annotations

import struct
import threading

import pytest
from gpu_requests import (
    create_blob,
    map_blob,
    on_resource,
    request,
    set_scanout_blob,
    submit,
    unref,
)
from gpu_vm import Vm
from vring import QUEUE_SIZE

from hesper.display.scanout import Rect
from hesper.gpu import context_client
from hesper.gpu import context_wire as wire
from hesper.gpu.wire import Command, Response
from hesper.vhost import queue_set
from open_files import assert_no_more_descriptors, count_descriptors

OK = Response.OK_NODATA
SIZE = 64 * 256


def test_what_waits_for_a_stuck_worker_is_bounded(vm: Vm) -> None:
    maker, stuck = vm.open_context(1), vm.open_context(2)
    stuck.paused.clear()
    assert vm.guest.send(create_blob(7, ctx_id=1)).type == OK
    before = count_descriptors()
    answers = set()
    for _ in range(context_client.MOST_WAITING):
        for command in (Command.CTX_ATTACH_RESOURCE, Command.CTX_DETACH_RESOURCE):
            answers.add(vm.guest.send(on_resource(command, 7, ctx_id=2)).type)
    assert answers == {OK}
    assert count_descriptors() <= before
    # It has been ended; nobody else has.
    assert vm.guest.send(submit(2, b"1234")).type == Response.ERR_UNSPEC
    assert vm.guest.send(submit(1, b"fine")).type == OK
    maker.wait(lambda: maker.commands == [b"fine"])
    stuck.paused.set()
    assert stuck.ended.wait(30)


def test_memory_on_its_way_to_a_stuck_worker_is_held(vm: Vm) -> None:
    """Its maker lets go of it, and the other context still gets it."""
    maker, stuck = vm.open_context(1), vm.open_context(2)
    before = count_descriptors()
    stuck.paused.clear()
    # More than its socket holds.
    posted = [vm.guest.post(submit(2, bytes(200_000)), response_size=24) for _ in range(12)]
    for resource in range(10, 20):
        vm.guest.heap = 0x300000
        assert send_beside(vm, create_blob(resource, ctx_id=1), posted) == OK
        attach = on_resource(Command.CTX_ATTACH_RESOURCE, resource, ctx_id=2)
        assert send_beside(vm, attach, posted) == OK
        assert send_beside(vm, unref(resource), posted) == OK
    stuck.paused.set()
    stuck.wait(lambda: sorted(stuck.imported) == list(range(10, 20)))
    stuck.wait(lambda: sorted(stuck.destroyed) == list(range(10, 20)))
    maker.wait(lambda: sorted(maker.destroyed) == list(range(10, 20)))
    vm.settle()
    assert_no_more_descriptors(before)


def send_beside(vm: Vm, data: bytes, others: list[tuple[int, int]]) -> int:
    """Send a request and wait for its answer; some of `others` may be answered before."""
    number, answer = vm.guest.post(data)
    while True:
        done, length = vm.guest.wait_any()
        if done == number:
            return vm.guest.read_answer(answer, length).type
        assert done in [other for other, _ in others]


def test_a_context_that_is_stuck_holds_up_no_screen(vm: Vm) -> None:
    """What it shows can be shown, changed and taken away, whatever it has been told."""
    stuck = vm.open_context(1)
    whole = Rect(0, 0, 64, 64)
    assert vm.guest.send(create_blob(7, SIZE, ctx_id=1)).type == OK
    stuck.paused.clear()
    posted = [vm.guest.post(submit(1, bytes(200_000)), response_size=24) for _ in range(12)]
    vm.guest.heap = 0x300000
    for data in (
        on_resource(Command.CTX_DETACH_RESOURCE, 7, ctx_id=1),
        on_resource(Command.CTX_ATTACH_RESOURCE, 7, ctx_id=1),
        set_scanout_blob(7, whole, (64, 64), 256),
        request(Command.RESOURCE_FLUSH, struct.pack("<4II4x", *whole, 7), flags=1, fence_id=5),
        unref(7),
    ):
        assert send_beside(vm, data, posted) == OK
    assert vm.display[0].surface is None
    stuck.paused.set()


def test_a_context_that_takes_all_places_of_the_queue_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fences that never retire leave no place for a flush."""
    monkeypatch.setattr(queue_set, "STARVED_AFTER", 0.05)
    vm = Vm("vhost-user")
    vm.guest.start()
    stuck, other = vm.open_context(1), vm.open_context(2)
    few = [vm.guest.post(submit(2, b"fine", fence_id=n, ring_idx=1)) for n in range(10)]
    vm.guest.heap = 0x100000
    many = [
        vm.guest.post(submit(1, b"1234", fence_id=n, ring_idx=1), response_size=24)
        for n in range(10, QUEUE_SIZE)
    ]
    for each in many:
        assert vm.guest.wait(*each).type == OK
    assert stuck.ended.wait(30)
    assert vm.guest.command(Command.GET_DISPLAY_INFO).type == Response.OK_DISPLAY_INFO
    other.retire(1)
    assert vm.guest.wait(*few[0]).type == OK
    assert vm.guest.send(submit(1, b"1234")).type == Response.ERR_UNSPEC
    vm.close()


@pytest.mark.parametrize("waiting", ["a compositor", "a screen"])
def test_a_blob_that_is_never_made_is_given_up_where_others_wait(
    vm: Vm, monkeypatch: pytest.MonkeyPatch, waiting: str
) -> None:
    """A program may hand it to the compositor before there is any."""
    monkeypatch.setattr("hesper.gpu.blobs.LOOK_AFTER", 0.01)
    stuck, compositor = vm.open_context(1), vm.open_context(2)
    stuck.paused.clear()
    whole = Rect(0, 0, 64, 64)
    blob = vm.guest.post(create_blob(7, SIZE, ctx_id=1))
    mapped = vm.guest.post(map_blob(7, 0))
    for _ in range(10):
        vm.guest.command(Command.GET_DISPLAY_INFO)
    if waiting == "a screen":
        asked = vm.guest.post(set_scanout_blob(7, whole, (64, 64), 256))
    else:
        asked = vm.guest.post(on_resource(Command.CTX_ATTACH_RESOURCE, 7, ctx_id=2))
    assert vm.guest.wait(*blob).type == Response.ERR_UNSPEC
    for each in (mapped, asked):
        assert vm.guest.wait(*each).type == Response.ERR_INVALID_RESOURCE_ID
    assert vm.guest.send(submit(2, b"draw")).type == OK
    compositor.wait(lambda: compositor.commands == [b"draw"])
    before = count_descriptors()
    stuck.paused.set()
    # What it makes in the end nobody wants.
    stuck.wait(lambda: stuck.destroyed == [7])
    assert vm.guest.send(create_blob(7, SIZE, ctx_id=1)).type == OK
    assert vm.guest.send(unref(7)).type == OK
    assert_no_more_descriptors(before)


def test_a_context_that_makes_a_blob_for_ever_can_be_destroyed(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel has the program know each blob, as it says behind its making."""
    monkeypatch.setattr("hesper.gpu.blobs.LOOK_AFTER", 0.01)
    stuck = vm.open_context(1)
    stuck.paused.clear()
    blob = vm.guest.post(create_blob(7, SIZE, ctx_id=1))
    attached = vm.guest.post(on_resource(Command.CTX_ATTACH_RESOURCE, 7, ctx_id=1))
    destroyed = vm.guest.post(request(Command.CTX_DESTROY, ctx_id=1))
    assert vm.guest.wait(*blob).type == Response.ERR_UNSPEC
    assert vm.guest.wait(*attached).type == Response.ERR_INVALID_RESOURCE_ID
    assert vm.guest.wait(*destroyed).type == OK
    stuck.paused.set()
    assert stuck.ended.wait(30)


def test_a_blob_that_takes_long_is_made_where_nobody_waits(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hesper.gpu.blobs.LOOK_AFTER", 0.001)
    slow = vm.open_context(1)
    slow.paused.clear()
    blob = vm.guest.post(create_blob(7, ctx_id=1))
    mapped = vm.guest.post(map_blob(7, 0))
    attached = vm.guest.post(on_resource(Command.CTX_ATTACH_RESOURCE, 7, ctx_id=1))
    looked = threading.Event()
    vm.loop.call(lambda: vm.loop.call_after(0.05, looked.set))
    assert looked.wait(30)
    slow.paused.set()
    assert vm.guest.wait(*blob).type == OK
    assert vm.guest.wait(*mapped).type == Response.OK_MAP_INFO
    assert vm.guest.wait(*attached).type == OK


def test_figures_are_asked_for_once_at_a_time(vm: Vm) -> None:
    """The web page asks every second, also for a worker that is stuck."""
    stuck = vm.open_context(1)
    asked: list[int] = []
    handle = stuck.handle

    def note(message: bytes, fds: list[int]) -> None:
        asked.append(wire.KIND.unpack_from(message)[0])
        handle(message, fds)

    stuck.__dict__["handle"] = note
    for _ in range(100):
        vm.device.survey.figures()
    vm.settle()
    assert vm.guest.send(submit(1, b"last")).type == OK
    stuck.wait(lambda: stuck.commands == [b"last"])
    assert asked.count(wire.Down.FIGURES) == 1
