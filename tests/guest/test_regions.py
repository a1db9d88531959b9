"""Shared memory with owners, and the budget it is charged to."""

from __future__ import annotations

import ctypes
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesper.guest import regions
from hesper.guest.backing import REGION_GRANULE, HostPointer, round_up
from hesper.guest.errors import InvalidParameterError, OutOfMemoryError
from hesper.kernel.shm import Pool
from hesper.portable import SharedMemory, page_size
from open_files import assert_closed_since, open_files, opened_since

MIB = 1 << 20
MOST_SPARES, MOST_SPARE_BYTES = 64, 64 * MIB


def test_the_last_owner_frees_memory_and_budget() -> None:
    pool = Pool(MIB)
    before = open_files()
    region = regions.create(pool, 1000, "test")
    other = region.share()
    assert (other.address, other.fd) == (region.address, region.fd)
    region.release()
    assert pool.left == MIB - page_size()
    assert os.fstat(other.fd).st_size == other.size == page_size()
    other.release()
    assert pool.left == MIB
    assert_closed_since(before)


def test_an_ownership_ends_with_its_object() -> None:
    pool = Pool(MIB)
    before = open_files()
    region = regions.create(pool, 1, "test")
    del region
    assert pool.left == MIB
    assert_closed_since(before)


def test_freed_memory_cannot_be_used() -> None:
    region = regions.create(Pool(MIB), 1, "test")
    region.release()
    for use in (region.share, region.release, lambda: region.address, lambda: region.fd):
        with pytest.raises(ValueError, match="freed"):
            use()


def test_what_exceeds_the_budget_costs_nothing() -> None:
    pool = Pool(MIB)
    with pytest.raises(OutOfMemoryError, match="memory limit"):
        regions.create(pool, 2 * MIB, "test")
    with pytest.raises(OutOfMemoryError, match="memory limit"):
        regions.charge(pool, MIB + 1, 0)
    with pytest.raises(MemoryError):
        pool.add(None, MIB + 1, reusable=False)
    assert pool.left == MIB


@pytest.mark.parametrize("size", [0, -1, 1 << 62, 1 << 70])
def test_what_the_system_cannot_give_costs_nothing(size: int) -> None:
    pool = Pool((1 << 64) - 1)
    before = open_files()
    with pytest.raises(OutOfMemoryError):
        regions.create(pool, size, "test")
    assert pool.left == pool.limit
    assert_closed_since(before)


def test_memory_that_is_only_charged_for() -> None:
    pool = Pool(MIB)
    region = regions.charge(pool, 1000, 0)
    assert (region.address, region.size, pool.left) == (0, 0, MIB - 1000)
    region.release()
    assert pool.left == MIB


def test_adopted_memory_is_the_same_memory() -> None:
    with SharedMemory.create(page_size(), "test") as memory:
        region = regions.adopt(Pool(MIB), memory.fd, page_size())
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
        regions.adopt(Pool(MIB), memory.fd, page_size() + 1)


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
        states_buffers=False,
        linear_images=0,
        tiled_images=0,
    )
    region = round_up(size, strategy.granule)
    assert region >= round_up(size, strategy.alignment)
    assert region >= round_up(size, REGION_GRANULE)
    assert region % page_size() == 0


def test_freed_memory_is_used_again_for_the_same_size_only() -> None:
    pool = Pool(MIB)
    before = open_files()
    first = regions.create(pool, 65536, "test", reusable=True)
    address = first.address
    first.release()
    assert pool.left == MIB
    other = regions.create(pool, 131072, "test", reusable=True)
    again = regions.create(pool, 65536, "test", reusable=True)
    assert again.address == address != other.address
    assert pool.take(65536) is None
    for region in (other, again):
        region.release()
    pool.close()
    assert_closed_since(before)


@pytest.mark.parametrize("size", [65536, 4 * MIB, MOST_SPARE_BYTES])
def test_what_is_used_again_is_zero(size: int) -> None:
    pool = Pool(1 << 40)
    first = regions.create(pool, size, "test", reusable=True)
    address, pages = first.address, range(0, size, page_size())
    memory = (ctypes.c_uint8 * size).from_address(address)
    for page in pages:
        memory[page] = 0xA5
    memory[size - 1] = 0xA5
    first.release()
    again = regions.create(pool, size, "test", reusable=True)
    assert again.address == address
    assert not any(memory[page] for page in pages)
    assert memory[size - 1] == 0


def test_a_closed_store_keeps_nothing() -> None:
    pool = Pool(MIB)
    before = open_files()
    region = regions.create(pool, 65536, "test", reusable=True)
    pool.close()
    region.release()
    assert_closed_since(before)


def test_spares_are_bounded() -> None:
    pool = Pool(1 << 40)
    before = open_files()
    pieces = [
        regions.create(pool, page_size(), "test", reusable=True) for _ in range(2 * MOST_SPARES)
    ]
    for region in pieces:
        region.release()
    assert len(opened_since(before)) == MOST_SPARES
    pool.close()
    assert_closed_since(before)


@pytest.mark.parametrize("more", [0, 1])
def test_spares_are_bounded_in_bytes(more: int) -> None:
    pool = Pool(1 << 40)
    before = open_files()
    size = MOST_SPARE_BYTES + more
    regions.create(pool, size, "test", reusable=True).release()
    assert len(opened_since(before)) == (1 if more == 0 else 0)


def test_spares_go_with_their_store() -> None:
    before = open_files()
    regions.create(Pool(MIB), 1, "test", reusable=True).release()
    assert_closed_since(before)


def test_what_is_kept_to_be_used_again_makes_room_for_what_is_wanted() -> None:
    pool = Pool(MIB)
    before = open_files()
    regions.create(pool, MIB // 2, "test", reusable=True).release()
    assert (pool.used, pool.left) == (0, MIB)
    assert len(opened_since(before)) == 1
    whole = regions.create(pool, MIB, "test")
    assert (pool.used, pool.left) == (MIB, 0)
    whole.release()
    assert_closed_since(before)
