"""What is on its way between a driver and the device when the VMM changes something."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from toy_device import YES, ToyVm, map_request
from vring import PATIENCE, Wake

from hesper.vhost import backend
from hesper.vhost.backend import Backend
from hesper.vhost.wire import U64, VRING_STATE, Request


@contextlib.contextmanager
def held(vm: ToyVm, first: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the loop meanwhile; then, in one round, it does `first` and serves what the VMM sent."""
    is_held, may_go = threading.Event(), threading.Event()

    def serve() -> None:
        is_held.set()
        assert may_go.wait(PATIENCE)
        first()
        served = vm.device.vmm
        assert isinstance(served, Backend)
        served.serve()

    vm.loop.call(serve)
    assert is_held.wait(PATIENCE)
    yield
    may_go.set()


def test_a_kick_by_the_descriptor_before_is_heard(vm: ToyVm) -> None:
    """Nobody kicks twice for a request."""
    frontend, other = vm.frontend, Wake()
    with held(vm):
        request = frontend.post(b"Eearly")
        frontend.send(Request.SET_VRING_KICK, U64.pack(0), [other.read_fd])
    assert frontend.wait_bytes(*request) == b"EARLY"
    other.close()


@pytest.mark.parametrize("goes_on", ["started", "alone"])
def test_an_interrupt_that_a_pause_overtakes_is_made_good(
    vm: ToyVm, monkeypatch: pytest.MonkeyPatch, goes_on: str
) -> None:
    """The driver waits for that one, and asks for no other."""
    monkeypatch.setattr(backend, "START_SECONDS", 0.01)
    frontend, ring = vm.frontend, vm.frontend.queues[0]
    head, _ = frontend.post(b"K")
    vm.settle()
    with held(vm, lambda: vm.device.kept.pop().respond(b"late")):
        frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 0))
        frontend.send(Request.GET_VRING_BASE, VRING_STATE.pack(0, 0))
    assert VRING_STATE.unpack(frontend.receive_answer(Request.GET_VRING_BASE)) == (0, 1)
    if goes_on == "started":
        frontend.start_queues([1])
        ring.call.wait()
    else:
        frontend.fail_start()
        frontend.wait_config_changes(1)
    used = ring.take_used()
    assert used is not None
    assert used[0] == head


def test_a_call_that_came_too_late_is_made_good(vm: ToyVm) -> None:
    """QEMU enables a queue first, and then says where the driver is reached."""
    ring = vm.frontend.queues[0]
    head, _ = vm.frontend.post(b"K")
    vm.settle()
    bases = vm.frontend.stop_queues()
    right = Wake()
    vm.frontend.start_queues(bases)
    vm.on_loop(lambda: vm.device.kept.pop().respond(b"lost"))
    ring.call.wait()
    vm.frontend.send(Request.SET_VRING_CALL, U64.pack(0), [right.write_fd])
    right.wait()
    used = ring.take_used()
    assert used is not None
    assert used[0] == head
    right.close()


def test_a_queue_that_is_enabled_again_without_a_stop_can_have_maps(vm: ToyVm) -> None:
    for enable in (0, 1):
        vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, enable))
    assert vm.frontend.call(map_request(0)) == YES
