"""Pixel formats a guest may scan out, and their conversion to the one format of the display room.

Inside this room every picture is *XRGB*: an array of shape (height, width), dtype `<u4`, each pixel
`0x00RRGGBB`.  Names and codes are those of `drm_fourcc.h` (a name lists the channels from the most
significant bit of the little-endian pixel) and of `enum virtio_gpu_formats` in the virtio
specification, section "Device Operation: 2D resources" (a name lists the bytes in memory).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Xrgb: TypeAlias = npt.NDArray[np.uint32]
"""A picture: shape (height, width), dtype `<u4`, `0x00RRGGBB`."""

XRGB_DTYPE = np.dtype("<u4")
XRGB_SHIFTS = (16, 8, 0)
"""Where an XRGB pixel has red, green and blue."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a colour channel lies in a pixel: `bits` wide (at most 10), from bit `shift` up."""

    shift: int
    bits: int


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How a pixel lies in memory; always little-endian.

    `alpha` is None where the format has none or has unused bits in its place.
    """

    name: str
    fourcc: int
    bytes_per_pixel: int
    red: Channel
    green: Channel
    blue: Channel
    alpha: Channel | None = None

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16] | np.dtype[np.uint32]:
        """Of an array of pixels; 3-byte formats are (height, width, 3) arrays of bytes."""
        return np.dtype({2: "<u2", 3: "u1", 4: "<u4"}[self.bytes_per_pixel])

    @property
    def byte_shifts(self) -> tuple[int, int, int] | None:
        """Where a pixel of four bytes has red, green and blue, a byte each; None for others."""
        colours = (self.red, self.green, self.blue)
        if self.bytes_per_pixel != 4 or any(channel.bits != 8 for channel in colours):
            return None
        return self.red.shift, self.green.shift, self.blue.shift

    def to_xrgb(self, pixels: npt.NDArray[np.unsignedinteger], out: Xrgb) -> None:
        """Convert `pixels`, laid out as `dtype` says, into `out` of the same height and width.

        Alpha is dropped: a scanout is the lowest plane, nothing shows through it.
        """
        if self.bytes_per_pixel == 3:
            _bytes_to_xrgb(pixels, out, self)
        elif self.byte_shifts == XRGB_SHIFTS:
            np.bitwise_and(pixels, np.uint32(0x00FFFFFF), out=out)
        elif self.byte_shifts is not None:
            _bytes_to_xrgb(_as_bytes(pixels), out, self)
        else:
            wide = pixels.astype(XRGB_DTYPE)
            red, green, blue = (_to_eight_bits(wide, c) for c in (self.red, self.green, self.blue))
            np.bitwise_or(red << np.uint32(16), green << np.uint32(8), out=out)
            np.bitwise_or(out, blue, out=out)

    def alpha_of(self, pixels: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint32]:
        """Alpha of each pixel as 0 to 255; 255 everywhere when the format has none."""
        if self.alpha is None:
            return np.full(pixels.shape[:2], 255, XRGB_DTYPE)
        return _to_eight_bits(pixels.astype(XRGB_DTYPE), self.alpha)

    def with_alpha(self) -> PixelFormat:
        """Return the format that has alpha where this one has unused bits; itself without such."""
        return BY_NAME.get(self.name.replace("X", "A"), self)


def _as_bytes(pixels: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape
    flat: npt.NDArray[np.uint8] = pixels.view(np.uint8)
    return flat.reshape(height, width, pixels.itemsize)


def _bytes_to_xrgb(
    source: npt.NDArray[np.unsignedinteger], out: Xrgb, pixel_format: PixelFormat
) -> None:
    target = np.zeros((*out.shape, 4), np.uint8)
    for index, channel in enumerate((pixel_format.blue, pixel_format.green, pixel_format.red)):
        target[..., index] = source[..., channel.shift // 8]
    np.copyto(out, target.view(XRGB_DTYPE)[..., 0])


def _to_eight_bits(wide: npt.NDArray[np.uint32], channel: Channel) -> npt.NDArray[np.uint32]:
    """Scale a channel so that its full value becomes 255, by repeating its upper bits."""
    value = (wide >> np.uint32(channel.shift)) & np.uint32((1 << channel.bits) - 1)
    if channel.bits >= 8:
        return value >> np.uint32(channel.bits - 8)
    result = np.zeros_like(value)
    shift = 8 - channel.bits
    while shift > -channel.bits:
        result |= value << np.uint32(shift) if shift >= 0 else value >> np.uint32(-shift)
        shift -= channel.bits
    return result


def _fourcc(code: str) -> int:
    return int.from_bytes(code.encode("ascii"), "little")


def _format(name: str, code: str) -> PixelFormat:
    """Describe the format that `drm_fourcc.h` calls `name`: channel letters, then their widths.

    One digit is a channel's width, as in `XRGB8888`; a leading 2 in front of three 10s is the
    two-bit channel of `XRGB2101010`.
    """
    letters = name.rstrip("0123456789")
    digits = name[len(letters) :]
    widths = [2, 10, 10, 10] if digits == "2101010" else [int(digit) for digit in digits]
    channels: dict[str, Channel] = {}
    shift = sum(widths)
    for letter, bits in zip(letters, widths, strict=True):
        shift -= bits
        channels[letter] = Channel(shift, bits)
    return PixelFormat(
        name,
        _fourcc(code),
        sum(widths) // 8,
        channels["R"],
        channels["G"],
        channels["B"],
        channels.get("A"),
    )


FORMATS: tuple[PixelFormat, ...] = (
    _format("XRGB8888", "XR24"),
    _format("ARGB8888", "AR24"),
    _format("XBGR8888", "XB24"),
    _format("ABGR8888", "AB24"),
    _format("RGBX8888", "RX24"),
    _format("RGBA8888", "RA24"),
    _format("BGRX8888", "BX24"),
    _format("BGRA8888", "BA24"),
    _format("RGB888", "RG24"),
    _format("BGR888", "BG24"),
    _format("RGB565", "RG16"),
    _format("BGR565", "BG16"),
    _format("XRGB1555", "XR15"),
    _format("ARGB1555", "AR15"),
    _format("XRGB2101010", "XR30"),
    _format("ARGB2101010", "AR30"),
    _format("XBGR2101010", "XB30"),
    _format("ABGR2101010", "AB30"),
)

BY_NAME = {pixel_format.name: pixel_format for pixel_format in FORMATS}
BY_FOURCC = {pixel_format.fourcc: pixel_format for pixel_format in FORMATS}

BY_VIRTIO = {
    1: BY_NAME["ARGB8888"],  # B8G8R8A8
    2: BY_NAME["XRGB8888"],  # B8G8R8X8
    3: BY_NAME["BGRA8888"],  # A8R8G8B8
    4: BY_NAME["BGRX8888"],  # X8R8G8B8
    67: BY_NAME["ABGR8888"],  # R8G8B8A8
    68: BY_NAME["RGBX8888"],  # X8B8G8R8
    121: BY_NAME["RGBA8888"],  # A8B8G8R8
    134: BY_NAME["XBGR8888"],  # R8G8B8X8
}
"""By the number in `enum virtio_gpu_formats`."""
