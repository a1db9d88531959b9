"""A VMM that cannot start the device after a pause, as QEMU 11.1 where much is mapped; and sleep.

The guest runs, and the VMM passes on nothing of its queues; it takes requests.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator

import pytest
from frontend import Frontend
from toy_device import YES, ToyVm, map_request
from vring import PATIENCE, QUEUE_SIZE

from hesper.vhost import backend
from hesper.vhost.queue_set import LOOK_SECONDS, UNSURE_SECONDS


@pytest.fixture
def frontend(vm: ToyVm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Frontend]:
    """Its VMM has failed to start the device, with something mapped and a request to answer."""
    monkeypatch.setattr(backend, "START_SECONDS", 0.01)
    assert vm.frontend.call(map_request(0)) == YES
    kept = vm.frontend.post(b"K")
    vm.settle()
    assert vm.frontend.stop_queues() == [2]
    vm.frontend.fail_start()
    assert vm.echo(b"alone") == b"ALONE"
    vm.on_loop(lambda: vm.device.kept.pop().respond(b"late"))
    assert vm.frontend.wait_bytes(*kept) == b"late"
    yield vm.frontend
    assert vm.device.resets <= 1


def test_the_device_goes_on_and_interrupts_by_its_configuration(
    vm: ToyVm, frontend: Frontend
) -> None:
    # Both answers have brought one.
    frontend.wait_config_changes(2)
    # What is mapped is, and more can be.
    assert frontend.call(map_request(1 << 20)) == YES
    frontend.wait_maps(2)
    assert vm.device.resets == 0


def test_requests_without_an_answer_are_requests(vm: ToyVm, frontend: Frontend) -> None:
    """As Linux's virtio-gpu makes them for a cursor."""
    head, answer = frontend.post(b"E", response_size=0, indirect=False)
    assert frontend.wait_bytes(head, answer) == b""
    assert vm.echo(b"after") == b"AFTER"


def test_a_vmm_that_fails_again_and_then_does_not(vm: ToyVm, frontend: Frontend) -> None:
    """It knows how far the queue was when it last ran, and the device how far it is."""
    frontend.fail_start()
    assert vm.echo(b"still") == b"STILL"
    frontend.fail_start()
    assert frontend.set_memory() == 0
    frontend.start_queues([2])
    assert vm.echo(b"whole") == b"WHOLE"
    assert vm.device.resets == 0
    # The next pause is one like any other.
    frontend.start_queues(frontend.stop_queues())
    assert vm.echo(b"again") == b"AGAIN"
    assert vm.device.resets == 0


@pytest.mark.parametrize("index", [3, 7, 40000], ids=["zeros", "garbage", "far"])
def test_a_machine_that_is_reset_is_left_alone(vm: ToyVm, frontend: Frontend, index: int) -> None:
    """Nobody tells: its memory is used for other things, and nothing of it is a request."""
    memory, ring = frontend.memory, frontend.queues[0]
    used = bytes(memory[ring.used_ring : ring.used_ring + 6 + 8 * QUEUE_SIZE])
    filler = 0xA5 if index == 7 else 0
    where = slice(ring.descriptors, ring.available_ring + 4 + 2 * QUEUE_SIZE)
    memory[where] = bytes([filler]) * (where.stop - where.start)
    struct.pack_into("<HH", memory, ring.available_ring, filler, (2 + 2 + index) & 0xFFFF)
    looked = threading.Event()
    # Timers come in order: the queue is looked at before that.
    vm.on_loop(lambda: vm.loop.call_after(2 * LOOK_SECONDS, looked.set))
    assert looked.wait(PATIENCE)
    while frontend.queues[0].take_used() is not None:
        pass
    # The index at which the driver is to be told is all that may be written.
    now = bytes(memory[ring.used_ring : ring.used_ring + 4 + 8 * QUEUE_SIZE])
    assert now == used[: len(now)]
    frontend.drop_maps()
    frontend.start()
    assert vm.echo(b"new") == b"NEW"
    assert vm.device.resets == 1


def test_a_queue_that_looked_as_if_nobody_was_there_goes_on_after_the_next_pause(
    vm: ToyVm, frontend: Frontend
) -> None:
    ring = frontend.queues[0]
    where = slice(ring.available_ring, ring.available_ring + 4)
    before = bytes(frontend.memory[where])
    frontend.memory[where] = struct.pack("<HH", 0xA5A5, ring.available + 1)
    looked = threading.Event()
    vm.on_loop(lambda: vm.loop.call_after(2 * LOOK_SECONDS, looked.set))
    assert looked.wait(PATIENCE)
    frontend.memory[where] = before
    frontend.fail_start()
    assert vm.echo(b"still") == b"STILL"
    assert vm.device.resets == 0


def test_kicks_that_a_sleeping_guest_has_lost_are_made_good(
    vm: ToyVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the device sleeps nothing of it is in the guest's memory, which the VMM tells of."""
    frontend = vm.frontend
    assert frontend.call(map_request(0)) == YES
    frontend.wait_maps(1)
    with monkeypatch.context() as asleep:
        asleep.setattr(frontend.queues[0].kick, "signal", lambda: None)
        assert frontend.set_memory() == 0
        assert vm.echo(b"lost") == b"LOST"
        assert vm.echo(b"again") == b"AGAIN"
    assert vm.echo(b"awake") == b"AWAKE"


def test_kicks_lost_after_a_pause_in_a_guests_sleep_are_made_good(
    vm: ToyVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the VMM takes to start the queues."""
    frontend = vm.frontend
    assert frontend.call(map_request(0)) == YES
    frontend.wait_maps(1)
    bases = frontend.stop_queues()
    assert frontend.set_memory() == 0
    would_look = threading.Event()
    # Timers come in order.
    vm.on_loop(lambda: vm.loop.call_after(UNSURE_SECONDS, would_look.set))
    assert would_look.wait(PATIENCE)
    frontend.start_queues(bases)
    vm.settle()
    with monkeypatch.context() as asleep:
        asleep.setattr(frontend.queues[0].kick, "signal", lambda: None)
        assert vm.echo(b"lost") == b"LOST"
    assert vm.echo(b"awake") == b"AWAKE"
