"""Work that takes long, or is much at a time, is done by turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_guest import PATIENCE
from gpu_requests import (
    attach_backing,
    create_2d,
    create_blob,
    create_context,
    destroy_context,
    on_resource,
    request,
    set_scanout,
    transfer,
    unref,
)
from gpu_vm import MakeVm, Vm

from hesper.display.scanout import Rect
from hesper.gpu import long_work, ordering
from hesper.gpu.wire import Command, Response
from open_files import assert_no_more_descriptors, count_descriptors

OK = Response.OK_NODATA


@pytest.fixture
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_work, "SLICE", 0.0)


@pytest.mark.usefixtures("one_step_a_turn")
@pytest.mark.parametrize("part", [(0, 0, 700, 700), (1, 0, 600, 700), (3, 3, 100, 690)])
@pytest.mark.parametrize("piece", [4096, 2_000_000])
def test_a_long_transfer_gives_others_a_turn(
    vm: Vm, part: tuple[int, int, int, int], piece: int
) -> None:
    edge = 700
    size = edge * edge * 4
    pixels = np.random.default_rng(3).integers(0, 1 << 24, (edge, edge), np.uint32)
    start = 0x100000
    vm.guest.memory[start : start + size] = pixels.astype("<u4").tobytes()
    pieces = [(start + at, min(piece, size - at)) for at in range(0, size, piece)]
    assert vm.guest.send(create_2d(1, edge, edge)).type == OK
    assert vm.guest.send(attach_backing(1, pieces)).type == OK
    rect = Rect(*part)
    first = transfer(1, part, offset=(rect.y * edge + rect.x) * 4)
    go = threading.Event()
    vm.loop.call(lambda: go.wait(PATIENCE))
    long = vm.guest.post(first)
    show = vm.guest.post(set_scanout(0, 1, (0, 0, edge, edge)))
    # Something else overtakes both.
    quick = vm.guest.post(request(Command.GET_DISPLAY_INFO))
    go.set()
    assert vm.guest.wait(*quick).type == Response.OK_DISPLAY_INFO
    assert vm.guest.wait(*long).type == OK
    assert vm.guest.wait(*show).type == OK
    surface = vm.display[0].surface
    assert surface is not None
    seen = np.zeros((edge, edge), "<u4")
    surface.read(Rect(0, 0, edge, edge), seen)
    wanted = np.zeros_like(seen)
    wanted[rect.slices] = pixels[rect.slices]
    assert np.array_equal(seen, wanted)


@pytest.mark.usefixtures("one_step_a_turn")
def test_a_reset_forgets_what_is_left_to_do(vm: Vm) -> None:
    assert vm.guest.send(create_2d(1, 900, 900)).type == OK
    assert vm.guest.send(attach_backing(1, [(0x40000, 900 * 900 * 4)])).type == OK
    vm.guest.post(transfer(1, (0, 0, 899, 900)))
    vm.guest.restart()
    assert vm.guest.send(create_2d(1, 8, 8)).type == OK
    vm.settle()
    assert vm.guest.take() is None


@pytest.mark.usefixtures("one_step_a_turn")
def test_a_list_that_is_wrong_at_its_end_is_refused(vm: Vm) -> None:
    assert vm.guest.send(create_2d(1, 1024, 1024)).type == OK
    vm.guest.heap = 0x40000
    pieces = [*[(0x200000, 16)] * 900, (1 << 40, 16)]
    answer = vm.guest.send(attach_backing(1, pieces))
    assert answer.type == Response.ERR_INVALID_PARAMETER
    assert vm.guest.send(attach_backing(1, pieces[:-1])).type == OK


@pytest.mark.usefixtures("one_step_a_turn")
def test_a_context_that_knows_much_goes_by_turns(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.gpu.contexts.DROPPED_A_STEP", 1)
    assert vm.guest.send(create_context(1, capset=0)).type == OK
    for resource in range(1, 9):
        assert vm.guest.send(create_2d(resource, 4, 4)).type == OK
        attach = on_resource(Command.CTX_ATTACH_RESOURCE, resource, ctx_id=1)
        assert vm.guest.send(attach).type == OK
    go = threading.Event()
    vm.loop.call(lambda: go.wait(PATIENCE))
    gone = vm.guest.post(destroy_context(1))
    again = vm.guest.post(create_context(1, capset=0))
    quick = [vm.guest.post(unref(resource)) for resource in range(1, 9)]
    go.set()
    for each in quick:
        assert vm.guest.wait(*each).type == OK
    assert vm.guest.wait(*gone).type == OK
    assert vm.guest.wait(*again).type == OK


def test_requests_that_become_ready_at_once_start_by_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A driver may have many wait for one thing."""
    monkeypatch.setattr(ordering, "TURN", 0.0)
    started: list[int] = []
    later: list[Callable[[], None]] = []

    class Some:
        def __init__(self, number: int, *keys: int) -> None:
            self.number = number
            self.keys = keys

    def start(some: Any) -> None:
        started.append(some.number)
        if some.number:
            line.done(some)

    line = ordering.Ordering(start, later.append)
    first: Any = Some(0, 7)
    line.submit(first)
    waiting: list[Any] = [Some(number, 7) for number in range(1, 5)]
    for some in waiting:
        line.submit(some)
    other: Any = Some(9, 8)
    assert started == [0]
    line.done(first)
    assert started == [0, 1]
    line.submit(other)
    assert started == [0, 1, 9]
    assert len(later) == 1
    while later:
        later.pop()()
    assert started == [0, 1, 9, 2, 3, 4]


@pytest.mark.usefixtures("one_step_a_turn")
def test_resources_of_drivers_that_have_gone_are_closed_by_turns(make_vm: MakeVm) -> None:
    """Also when the next is gone before."""
    vm = make_vm()
    before = count_descriptors()
    worker = vm.open_context(1)
    go = threading.Event()
    for resource in range(1, 21):
        assert vm.guest.send(create_blob(resource, ctx_id=1)).type == OK

    def gone() -> None:
        go.wait(PATIENCE)
        vm.device.reset()
        vm.device.reset()

    vm.loop.call(gone)
    quick = vm.guest.post(request(Command.GET_DISPLAY_INFO))
    go.set()
    vm.guest.wait(*quick)
    assert worker.ended.wait(PATIENCE)
    worker.socket.close()
    assert_no_more_descriptors(before)


@pytest.mark.usefixtures("one_step_a_turn")
def test_what_is_left_at_the_end_is_done(vm: Vm) -> None:
    done: list[int] = []

    def work() -> long_work.Work:
        for step in range(5):
            done.append(step)
            yield
        return None

    works = long_work.LongWork(vm.loop)
    vm.loop.call(lambda: works.run(work()))
    vm.loop.call(works.finish)
    vm.settle()
    assert done == [0, 1, 2, 3, 4]
