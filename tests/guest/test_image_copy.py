"""How much host memory a copy needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesper.guest.errors import VulkanError
from hesper.guest.formats import Block
from hesper.guest.image_copy import copy_size

small = st.integers(1, 12)


def touched(
    block: Block, extent: tuple[int, int, int], row_length: int, image_height: int, layers: int
) -> int:
    """The end of the last byte, by the specification's address formula, texel by texel."""
    width, height, depth = extent
    row = -(-(row_length or width) // block.width)
    rows = -(-(image_height or height) // block.height)
    end = 0
    for layer in range(layers):
        for z in range(depth):
            for y in range(0, height, block.height):
                for x in range(0, width, block.width):
                    place = (layer * depth + z) * rows + y // block.height
                    start = (place * row + x // block.width) * block.size
                    end = max(end, start + block.size)
    return end


@given(
    block=st.sampled_from([Block(1), Block(3), Block(4), Block(8, 4, 4), Block(16, 5, 4)]),
    extent=st.tuples(small, small, st.integers(1, 3)),
    more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    layers=st.integers(1, 3),
)
def test_it_is_exactly_what_the_copy_touches(
    block: Block, extent: tuple[int, int, int], more: tuple[int, int], layers: int
) -> None:
    row_length = extent[0] + more[0] if more[0] else 0
    image_height = extent[1] + more[1] if more[1] else 0
    assert copy_size(
        block, extent, row_length=row_length, image_height=image_height, layers=layers
    ) == touched(block, extent, row_length, image_height, layers)


def test_the_largest_numbers_a_guest_can_send_do_not_overflow() -> None:
    huge = (1 << 32) - 1
    size = copy_size(Block(32), (huge, huge, huge), row_length=huge, image_height=huge, layers=huge)
    assert size > 1 << 128


@pytest.mark.parametrize("extent", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_empty_region_is_refused(extent: tuple[int, int, int]) -> None:
    with pytest.raises(VulkanError):
        copy_size(Block(4), extent, row_length=0, image_height=0, layers=1)
