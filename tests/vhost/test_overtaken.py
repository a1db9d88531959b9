"""What is on its way between a driver and the device when the VMM changes something."""

from __future__ import annotations

import threading

from toy_device import YES, ToyVm, map_request
from vring import PATIENCE, Wake

from hesper.vhost.backend import Backend
from hesper.vhost.wire import U64, VRING_STATE, Request


def test_a_kick_by_the_descriptor_before_is_heard(vm: ToyVm) -> None:
    """Nobody kicks twice for a request."""
    frontend, other = vm.frontend, Wake()
    is_held, may_go = threading.Event(), threading.Event()

    def serve() -> None:
        is_held.set()
        assert may_go.wait(PATIENCE)
        served = vm.device.vmm
        assert isinstance(served, Backend)
        served.serve()

    vm.loop.call(serve)
    assert is_held.wait(PATIENCE)
    request = frontend.post(b"Eearly")
    frontend.send(Request.SET_VRING_KICK, U64.pack(0), [other.read_fd])
    may_go.set()
    assert frontend.wait_bytes(*request) == b"EARLY"
    other.close()


def test_a_queue_that_is_enabled_again_without_a_stop_can_have_maps(vm: ToyVm) -> None:
    for enable in (0, 1):
        vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, enable))
    assert vm.frontend.call(map_request(0)) == YES
