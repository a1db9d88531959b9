"""Shared memory with owners, and the budget it is charged to."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesper.guest.backing import REGION_GRANULE, HostPointer, round_up
from hesper.guest.errors import InvalidParameterError, OutOfMemoryError
from hesper.guest.regions import Budget, Region, Spares
from hesper.portable import SharedMemory, open_descriptors, page_size

MIB = 1 << 20


def test_the_last_owner_frees_memory_and_budget() -> None:
    budget = Budget(MIB)
    before = open_descriptors()
    region = Region.create(1000, "test", budget, charged=1000)
    assert region.share() is region
    region.release()
    assert budget.used == 1000
    assert os.fstat(region.fd).st_size == region.size == page_size()
    region.release()
    assert budget.used == 0
    assert open_descriptors() == before


def test_freed_memory_cannot_be_shared_again() -> None:
    region = Region.create(1, "test", Budget(MIB), charged=1)
    region.release()
    with pytest.raises(InvalidParameterError):
        region.share()


def test_what_exceeds_the_budget_costs_nothing() -> None:
    budget = Budget(MIB)
    with pytest.raises(OutOfMemoryError, match="memory limit"):
        Region.create(2 * MIB, "test", budget, charged=2 * MIB)
    assert budget.used == 0


@pytest.mark.parametrize("size", [0, -1, 1 << 62, 1 << 70])
def test_what_the_system_cannot_give_costs_nothing(size: int) -> None:
    budget = Budget(1 << 80)
    before = open_descriptors()
    with pytest.raises(OutOfMemoryError):
        Region.create(size, "test", budget, charged=abs(size))
    assert budget.used == 0
    assert open_descriptors() == before


def test_adopted_memory_is_the_same_memory() -> None:
    with SharedMemory.create(page_size(), "test") as memory:
        region = Region.adopt(memory.fd, page_size(), Budget(MIB))
        memory.view[7] = 42
        assert region.address != memory.address
        with SharedMemory.from_fd(region.fd, page_size()) as seen:
            assert seen.view[7] == 42
        region.release()


def test_a_short_memory_object_is_refused() -> None:
    with (
        SharedMemory.create(page_size(), "test") as memory,
        pytest.raises(InvalidParameterError, match="needed"),
    ):
        Region.adopt(memory.fd, page_size() + 1, Budget(MIB))


@given(size=st.integers(1, 1 << 47), shift=st.integers(0, 20))
def test_rounding_up(size: int, shift: int) -> None:
    alignment = 1 << shift
    rounded = round_up(size, alignment)
    assert rounded % alignment == 0
    assert size <= rounded < size + alignment


@given(size=st.integers(1, 1 << 40), shift=st.integers(12, 21))
def test_regions_hold_an_import_and_a_guests_larger_page(size: int, shift: int) -> None:
    strategy = HostPointer(
        types=1,
        alignment=1 << shift,
        wants_external_buffers=False,
        wants_external_images=False,
    )
    region = strategy.region_size(size)
    assert region >= round_up(size, strategy.alignment)
    assert region >= round_up(size, REGION_GRANULE)
    assert region % page_size() == 0


def test_freed_memory_is_used_again_for_the_same_size_only() -> None:
    budget, spares = Budget(MIB), Spares()
    before = open_descriptors()
    first = Region.create(65536, "test", budget, charged=1, spares=spares)
    address = first.address
    first.release()
    assert budget.used == 0
    other = Region.create(131072, "test", budget, charged=1, spares=spares)
    again = Region.create(65536, "test", budget, charged=1, spares=spares)
    assert again.address == address
    for region in (other, again):
        region.release()
    spares.close()
    assert open_descriptors() == before


def test_memory_that_others_may_hold_is_not_used_again() -> None:
    budget, spares = Budget(MIB), Spares()
    region = Region.create(65536, "test", budget, charged=1, spares=spares)
    region.keep_apart()
    region.release()
    assert spares.take(65536) is None


def test_spares_are_bounded() -> None:
    spares = Spares()
    before = open_descriptors()
    for _ in range(2 * Spares.MOST):
        spares.put(SharedMemory.create(page_size(), "test"))
    assert open_descriptors() == before + Spares.MOST
    spares.close()
    assert open_descriptors() == before
    spares.put(SharedMemory.create(Spares.MOST_BYTES + 1, "test"))
    assert open_descriptors() == before
