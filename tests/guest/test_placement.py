"""Where images can lie, by what is said of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hesper.guest.memory_types import HostType, MemoryTypes
from hesper.guest.placement import Placements
from hesper.kernel.views import Scratch

UNDEFINED, PREINITIALIZED, ZERO_INITIALIZED = 0, 8, 1000620000
OPTIMAL, LINEAR = 0, 1
HOST_ALLOCATION = 0x80
DEVICE_LOCAL, VISIBLE_COHERENT = 0x1, 0x6
TYPES = MemoryTypes(
    [HostType(DEVICE_LOCAL, 0), HostType(VISIBLE_COHERENT, 0)], shared=0b10, doubled=0
)


class Everything:
    """Images of a kind that shared memory costs nothing."""

    is_free = True

    def __contains__(self, info: object) -> bool:
        return True


@pytest.fixture
def placements(monkeypatch: pytest.MonkeyPatch) -> Placements:
    """Of a device that can have any image in shared memory, and has memory of its own."""
    physical = SimpleNamespace(
        memory_types=TYPES,
        strategy=SimpleNamespace(handle_type=HOST_ALLOCATION),
    )
    monkeypatch.setattr(Placements, "_kind", lambda *_: Everything())
    return Placements(cast("Any", physical), cast("Any", None), 0)


@pytest.mark.parametrize(
    ("tiling", "layout", "begins", "types"),
    [
        (OPTIMAL, UNDEFINED, UNDEFINED, TYPES.all),
        (OPTIMAL, ZERO_INITIALIZED, ZERO_INITIALIZED, TYPES.native),
        (LINEAR, PREINITIALIZED, UNDEFINED, TYPES.all),
        (LINEAR, ZERO_INITIALIZED, UNDEFINED, TYPES.all),
    ],
)
def test_what_must_begin_as_zeros_lies_in_the_drivers_memory(
    placements: Placements, tiling: int, layout: int, begins: int, types: int
) -> None:
    info = Scratch().new("VkImageCreateInfo", tiling=tiling, initialLayout=layout)
    assert placements.place(info, is_shared=False) == types
    assert info.initialLayout == begins
