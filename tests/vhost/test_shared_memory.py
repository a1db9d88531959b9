"""Shared memory regions: what the device maps into them by the front-end's channel."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from frontend import GUEST_BASE
from toy_device import NO, REGION, YES, ToyVm, map_request, unmap_request

from hesper.portable import SharedMemory, page_size
from hesper.vhost.guest_memory import GuestMemoryError

PAGE = page_size()
WINDOW = GUEST_BASE + (1 << 30)
"""Where the guest sees the region, as far as this front-end says."""


def is_guest_memory(vm: ToyVm, address: int) -> bool:
    """Whether the device may read there."""
    found: list[bool] = []

    def look() -> None:
        try:
            vm.device.vmm.memory.slices(address, PAGE)
        except GuestMemoryError:
            found.append(False)
        else:
            found.append(True)

    vm.on_loop(look)
    return found[0]


def test_a_device_maps_into_its_region(vm: ToyVm) -> None:
    assert vm.frontend.call(map_request(0x10000)) == YES
    assert vm.frontend.regions == {REGION}
    assert {at: length for at, (length, _) in vm.frontend.maps.items()} == {0x10000: PAGE}
    assert vm.frontend.call(unmap_request(0x10000)) == YES
    assert not vm.frontend.maps


def test_the_vmm_has_the_last_word(vm: ToyVm) -> None:
    assert vm.frontend.call(map_request(0)) == YES
    assert vm.frontend.call(map_request(0)) == NO
    assert vm.frontend.call(unmap_request(PAGE)) == NO
    vm.frontend.refuse_maps = True
    assert vm.frontend.call(map_request(PAGE)) == NO
    assert vm.frontend.call(unmap_request(0)) == YES


def test_the_main_socket_is_served_while_a_map_is_confirmed(vm: ToyVm) -> None:
    """QEMU sends a new memory table before it confirms a map."""
    vm.frontend.hold_maps.clear()
    waiting = vm.frontend.post(map_request(0))
    assert vm.frontend.map_held.wait(30)
    # The table tells of the map already.
    assert vm.frontend.set_memory((WINDOW, PAGE, vm.device.memory.fd)) == 0
    assert vm.echo(b"meanwhile") == b"MEANWHILE"
    assert not is_guest_memory(vm, WINDOW)
    vm.frontend.hold_maps.set()
    assert vm.frontend.wait_bytes(*waiting) == YES


def test_what_the_device_has_mapped_is_no_guest_memory(vm: ToyVm) -> None:
    """A VMM tells of it in its memory table; holding on to it would keep it alive."""
    for offset in (0, PAGE):
        assert vm.frontend.call(map_request(offset)) == YES
    table = (WINDOW, PAGE, vm.frontend.mapped_fds[0])
    assert vm.frontend.set_memory(table) == 0
    assert not is_guest_memory(vm, WINDOW)
    # The same memory in two places is the device's as long as it is in one.
    assert vm.frontend.call(unmap_request(PAGE)) == YES
    assert vm.frontend.set_memory(table) == 0
    assert not is_guest_memory(vm, WINDOW)
    # A map that is refused changes nothing.
    assert vm.frontend.call(map_request(0)) == NO
    assert vm.frontend.set_memory(table) == 0
    assert not is_guest_memory(vm, WINDOW)
    # What is somebody else's is guest memory, and so is what the device has had.
    with SharedMemory.create(PAGE, "other") as other:
        # Where memory has no inodes it is told by its place, where a VMM has nobody else's.
        place = WINDOW if os.fstat(other.fd).st_ino else WINDOW + 2 * PAGE
        assert vm.frontend.set_memory((place, PAGE, other.fd)) == 0
    assert is_guest_memory(vm, place)
    assert vm.frontend.call(unmap_request(0)) == YES
    assert vm.frontend.set_memory((WINDOW, PAGE, vm.device.memory.fd)) == 0
    assert is_guest_memory(vm, WINDOW)


def test_memory_without_inodes_is_told_by_its_place(
    vm: ToyVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, for shared memory."""
    monkeypatch.setattr("hesper.vhost.shared_memory._identity", lambda _: None)
    assert vm.frontend.call(map_request(2 * PAGE)) == YES
    ours = (WINDOW + 2 * PAGE, PAGE, vm.frontend.mapped_fds[2 * PAGE])
    assert vm.frontend.set_memory(ours) == 0
    assert not is_guest_memory(vm, WINDOW + 2 * PAGE)
    # Memory of the guest's: at another place, and of another size.
    for at, size in ((3 * PAGE, PAGE), (2 * PAGE, 2 * PAGE)):
        with SharedMemory.create(size, "guest") as other:
            assert vm.frontend.set_memory((WINDOW + at, size, other.fd)) == 0
        assert is_guest_memory(vm, WINDOW + at)
    assert vm.frontend.call(unmap_request(2 * PAGE)) == YES
    assert vm.frontend.set_memory((*ours[:2], vm.device.memory.fd)) == 0
    assert is_guest_memory(vm, WINDOW + 2 * PAGE)


def test_a_reset_takes_the_maps_away(vm: ToyVm) -> None:
    assert vm.frontend.call(map_request(0)) == YES
    vm.frontend.stop_queues()
    # A VMM does so by itself; asking it for that would crash QEMU.
    vm.frontend.drop_maps()
    vm.frontend.start()
    assert vm.echo(b"") == b""
    assert vm.frontend.set_memory((WINDOW, PAGE, vm.device.memory.fd)) == 0
    assert is_guest_memory(vm, WINDOW)
    assert vm.frontend.call(map_request(0)) == YES


def post_unheard(vm: ToyVm, request: bytes) -> tuple[int, int]:
    """Post what makes the device call the VMM while that does not listen."""
    vm.frontend.listens.clear()
    vm.frontend.called.clear()
    posted = vm.frontend.post(request)
    assert vm.frontend.called.wait(30)
    return posted


def test_a_map_that_a_pause_overtakes_is_made_afterwards(vm: ToyVm) -> None:
    waiting = post_unheard(vm, map_request(0))
    bases = vm.frontend.stop_queues()
    vm.frontend.listens.set()
    vm.frontend.wait_unknown(1)
    assert not vm.frontend.maps
    vm.frontend.start_queues(bases)
    assert vm.frontend.wait_bytes(*waiting) == YES
    vm.frontend.wait_maps(1)


def test_a_map_that_a_short_pause_overtakes_is_made(vm: ToyVm) -> None:
    waiting = post_unheard(vm, map_request(0))
    vm.frontend.start_queues(vm.frontend.stop_queues())
    vm.frontend.listens.set()
    assert vm.frontend.wait_bytes(*waiting) == YES
    assert vm.frontend.unknown == 0


def test_a_map_that_a_reset_overtakes_is_dropped(vm: ToyVm) -> None:
    """The first is on its way, the second waits for it."""
    post_unheard(vm, map_request(0))
    vm.frontend.post(map_request(1 << 20))
    vm.settle()
    vm.frontend.stop_queues()
    vm.frontend.start()
    vm.frontend.listens.set()
    vm.frontend.wait_unknown(1)
    assert vm.frontend.call(map_request(2 << 20)) == YES
    assert list(vm.frontend.maps) == [2 << 20]
    assert vm.frontend.queues[0].take_used() is None


@pytest.mark.parametrize("request_made", [map_request, unmap_request])
def test_a_vmm_whose_channel_is_gone_maps_nothing(
    vm: ToyVm, request_made: Callable[[int], bytes]
) -> None:
    assert vm.frontend.call(map_request(0)) == YES
    vm.frontend.close_channel()
    assert vm.frontend.call(request_made(0)) == NO
