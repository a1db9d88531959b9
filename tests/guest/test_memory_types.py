"""What memory a guest is shown, and what it can do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from guest_client import DEVICE, PHYSICAL_DEVICE, REPLY_SIZE, Guest
from hypothesis import given
from hypothesis import strategies as st

from hesper.guest import Limits
from hesper.guest.backing import Exported, HostPointer, choose_strategy
from hesper.guest.memory_types import COHERENT, HostType, MemoryTypes
from hesper.host.profile import ExternalHandles, Profile
from hesper.host.seen import ExportSeen, MemorySeen

MakeGuest = Callable[..., Guest]

DEVICE_LOCAL, CACHED, LAZY = 0x1, 0x8, 0x10
ALL_HANDLES = 0x281
POINTER, OPAQUE_FD, DMA_BUF = 0x80, 0x1, 0x200
MIB = 1 << 20


def flags(types: MemoryTypes) -> list[int]:
    return [each.flags for each in types.types]


def test_a_type_that_holds_everything_is_shown_once() -> None:
    types = MemoryTypes([HostType(DEVICE_LOCAL | COHERENT, 0)], shared=1, doubled=0)
    assert flags(types) == [DEVICE_LOCAL | COHERENT]
    assert (types.shared, types.native) == (1, 0)


def test_a_type_that_cannot_hold_images_when_shared_is_shown_privately_too() -> None:
    """KosmicKrisp's: one type, of which an import takes no tiled image."""
    types = MemoryTypes([HostType(DEVICE_LOCAL | COHERENT | CACHED, 0)], shared=1, doubled=1)
    assert flags(types) == [DEVICE_LOCAL, DEVICE_LOCAL | COHERENT | CACHED]
    assert (types.native, types.shared) == (1, 2)
    assert types.shown(1, types.all) == 3
    assert types.shown(1, types.native) == 1
    assert types.shown(1, types.shared) == 2


def test_what_cannot_be_shared_is_not_shown_as_host_visible() -> None:
    """A discrete GPU's: private, the processor's memory, and the GPU's own, mapped."""
    host = [
        HostType(0, 1),
        HostType(DEVICE_LOCAL, 0),
        HostType(COHERENT, 1),
        HostType(COHERENT | CACHED, 1),
        HostType(DEVICE_LOCAL | COHERENT, 2),
    ]
    types = MemoryTypes(host, shared=0b01100, doubled=0)
    assert [(t.flags, t.heap, t.host) for t in types.types] == [
        (0, 1, 0),
        (DEVICE_LOCAL, 0, 1),
        (COHERENT, 1, 2),
        (COHERENT | CACHED, 1, 3),
        (DEVICE_LOCAL, 2, 4),
        (DEVICE_LOCAL | COHERENT, 0, 2),
    ]
    # Mesa's swapchains take device-local memory only; nobody else is offered the last one.
    assert types.shown(0b00100, types.pictures) == 0b100100
    assert types.shown(0b00100, types.all) == types.shown(0b00100, types.shared) == 0b100
    assert types.shown(0b00100, types.native) == 0b100
    assert types.native == 0b10011
    assert types.heap_is_shared(1)
    assert not types.heap_is_shared(2)


def test_pictures_need_no_type_of_their_own_where_shared_memory_is_the_devices() -> None:
    types = MemoryTypes([HostType(DEVICE_LOCAL | COHERENT, 0)], shared=1, doubled=1)
    assert types.pictures == types.shared
    assert types.types == types.ordinary


def test_something_that_fits_nowhere_gets_what_the_driver_says() -> None:
    types = MemoryTypes([HostType(DEVICE_LOCAL | COHERENT, 0)], shared=1, doubled=0)
    assert types.shown(1, types.native) == 1
    assert types.shown(0, types.all) == 0


@given(
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 3)), min_size=1, max_size=16),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
)
def test_the_order_of_types_is_the_one_that_applications_rely_on(
    kinds: list[tuple[int, int]], shared: int, doubled: int
) -> None:
    host = [HostType(*each) for each in kinds]
    coherent = sum(1 << i for i, each in enumerate(host) if each.flags & COHERENT == COHERENT)
    types = MemoryTypes(host, shared=shared & coherent, doubled=doubled & shared & coherent)
    assert types.shared | types.native == types.all
    assert {t.host for t in types.types} == set(range(len(host)))
    for index, each in enumerate(types.types):
        assert bool(each.flags & COHERENT) == each.is_shared
        for earlier in types.types[:index]:
            assert not (each.flags != earlier.flags and each.flags & earlier.flags == each.flags)


SEEN = MemorySeen(alignment=4096, imported=3, buffers=2, states_buffers=True, linear_images=3)


def test_pointers_are_imported_where_buffers_can_be_bound_to_them() -> None:
    assert choose_strategy(SEEN, 3, ALL_HANDLES) == HostPointer(
        2, 4096, states_buffers=True, linear_images=2, tiled_images=0
    )
    assert choose_strategy(SEEN, 1, ALL_HANDLES) is None
    assert choose_strategy(SEEN, 3, OPAQUE_FD | DMA_BUF) is None


@pytest.mark.parametrize("handle", [OPAQUE_FD, DMA_BUF])
def test_what_is_exported_is_mapped_where_no_pointers_are_taken(handle: int) -> None:
    export = ExportSeen(handle, types=6, linear_images=6, tiled_images=4)
    seen = replace(SEEN, buffers=0, exports=(export,))
    strategy = choose_strategy(seen, 3, ALL_HANDLES)
    assert strategy == Exported(2, handle, linear_images=2, tiled_images=0)
    assert ("VK_EXT_external_memory_dma_buf" in strategy.extensions) == (handle == DMA_BUF)
    assert choose_strategy(seen, 3, ALL_HANDLES & ~handle) is None


def memory(guest: Guest, chain: Any = None) -> dict[str, Any]:
    """VkPhysicalDeviceMemoryProperties2 as the guest gets it."""
    answer: dict[str, Any] = guest.ask(
        "vkGetPhysicalDeviceMemoryProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        pMemoryProperties={"pNext": chain or []},
    )["pMemoryProperties"]
    return answer


def budget(guest: Guest) -> tuple[int, int]:
    """Budget and usage of heap 0."""
    answer = memory(guest, [("VkPhysicalDeviceMemoryBudgetPropertiesEXT", {})])
    found = dict(answer["pNext"])["VkPhysicalDeviceMemoryBudgetPropertiesEXT"]
    return found["heapBudget"][0], found["heapUsage"][0]


def test_heaps_are_no_larger_than_the_limit(make_guest: MakeGuest) -> None:
    limited = make_guest(Limits(memory=64 * MIB)).start()
    assert memory(limited)["memoryProperties"]["memoryHeaps"][0]["size"] == 64 * MIB
    most = make_guest().start()
    assert memory(most)["memoryProperties"]["memoryHeaps"][0]["size"] > 64 * MIB


def test_heaps_that_can_be_mapped_are_no_larger_than_the_window(make_guest: MakeGuest) -> None:
    guest = make_guest().start()
    guest.context.window = 32 * MIB
    assert memory(guest)["memoryProperties"]["memoryHeaps"][0]["size"] == 32 * MIB


OBJECTS = 64 << 10
"""More bytes than the few objects of these tests are charged."""


def test_the_budget_is_the_contexts_own(make_guest: MakeGuest) -> None:
    guest = make_guest(Limits(memory=64 * MIB)).start()
    whole = 64 * MIB - REPLY_SIZE

    def holds(used: int) -> None:
        left, now = budget(guest)
        assert now == used
        assert whole - OBJECTS < left <= whole

    holds(0)
    _, first = guest.allocate(16 * MIB)
    _, second = guest.allocate(4 * MIB)
    holds(20 * MIB)
    guest.send("vkFreeMemory", device=DEVICE, memory=second)
    holds(16 * MIB)
    guest.allocate(4 * MIB)  # a spare piece, without Python
    holds(20 * MIB)
    guest.send("vkFreeMemory", device=DEVICE, memory=first)
    holds(4 * MIB)


def test_what_is_no_device_memory_takes_from_the_budget(make_guest: MakeGuest) -> None:
    guest = make_guest(Limits(memory=64 * MIB)).start()
    left, _ = budget(guest)
    guest.blob(0, MIB)
    assert budget(guest) == (left - MIB, 0)
    for _ in range(100):
        guest.create("Event", {})
    assert budget(guest)[0] < left - MIB - 100 * 4096


def test_sparse_resources_are_not_offered_where_they_cannot_be_bound(guest: Guest) -> None:
    """Lavapipe maps a page of its memory's descriptor, which imported memory has not."""
    assert guest.context.instance is not None
    physical = guest.context.instance.physical_devices[PHYSICAL_DEVICE]
    assert not physical.seen.sparse
    features = guest.ask(
        "vkGetPhysicalDeviceFeatures", physicalDevice=PHYSICAL_DEVICE, pFeatures={}
    )["pFeatures"]
    assert not features["sparseBinding"]
    assert not features["shaderResourceResidency"]


def test_memory_that_cannot_be_placed_is_not_offered_for_replays(guest: Guest) -> None:
    name = "VkPhysicalDeviceBufferDeviceAddressFeatures"
    answer = guest.ask(
        "vkGetPhysicalDeviceFeatures2",
        physicalDevice=PHYSICAL_DEVICE,
        pFeatures={"pNext": [(name, {})]},
    )["pFeatures"]
    assert dict(answer["pNext"])[name]["bufferDeviceAddress"]
    assert not dict(answer["pNext"])[name]["bufferDeviceAddressCaptureReplay"]


def test_a_profile_that_takes_the_handle_type_away_leaves_no_device(make_guest: MakeGuest) -> None:
    profile = Profile(name="test", external_handles=ExternalHandles(memory=["DMA_BUF"]))
    guest = make_guest(profile=profile)
    guest.create_instance()
    answer = guest.ask(
        "vkEnumeratePhysicalDevices",
        instance=1,
        pPhysicalDeviceCount=0,
        pPhysicalDevices=[],
    )
    assert answer["pPhysicalDeviceCount"] == 0
