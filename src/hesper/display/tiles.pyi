"""What touches every pixel of a picture, compiled, and run without Python's lock.

Pictures are XRGB (`formats.Xrgb`) whose rows may lie apart; the pixels of a row may not.
"""

import numpy as np
import numpy.typing as npt

def update(
    source: npt.NDArray[np.uint32],
    shifts: tuple[int, int, int] | None,
    kept: npt.NDArray[np.uint32],
    x: int,
    y: int,
    changed: npt.NDArray[np.uint8],
) -> None:
    """Copy into `kept`, from (`x`, `y`) on, what differs in `source`, and flag its tiles.

    shifts: where a pixel of `source` has red, green and blue, eight bits each; None for XRGB.
    kept: shape (height, width).  changed: shape (rows of tiles, columns of tiles).
    Each pixel of `source` is read once: a guest may write meanwhile.
    Raises `ValueError` for what lies outside, or does not begin at a tile.
    """

def to_i420(
    pixels: npt.NDArray[np.uint32], planes: memoryview, width: int, height: int, x: int, y: int
) -> None:
    """Convert `pixels` to 4:2:0 in a picture of `width` x `height`, from (`x`, `y`) on.

    planes: Y, then U and V of a quarter each, one after the other; ITU-R BT.601, limited range.
    Raises `ValueError` for numbers that are odd, and for what lies outside.
    """

def sort_tiles(pixels: npt.NDArray[np.uint32], busy: float, kinds: npt.NDArray[np.uint8]) -> None:
    """Say of each tile what it is: 0 one colour, 1 text or drawing, 2 a picture.

    busy: a picture's share of pixels that differ from their left neighbour, at least.
    kinds: shape (rows of tiles, columns of tiles).  Raises `ValueError` for another one.
    """

def find_palette(
    pixels: npt.NDArray[np.uint32], colours: npt.NDArray[np.uint32], indices: npt.NDArray[np.uint8]
) -> int:
    """Count the colours, put them into `colours` in the order they come, and index each pixel.

    colours: room for 256.  indices: the shape of `pixels`.
    Returns -1 for more than 256.  Raises `ValueError` where there is too little room.
    """
