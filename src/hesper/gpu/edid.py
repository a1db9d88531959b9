"""The EDID of a virtual monitor.

Sources: VESA Enhanced EDID Standard 1.4 (base block), VESA Coordinated Video Timings 1.2 (reduced
blanking), VESA DisplayID 1.3 (a detailed timing beyond what the base block can say).
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 128
REFRESH = 60
"""Hz.  No pixel leaves through a cable: the rate only has to be one that drivers accept."""
DOTS_PER_INCH = 96
MAX_EDGE = 16384

_NAME = b"Hesper"
_MANUFACTURER = "HSP"
_FIRST_YEAR = 1990
_YEAR = 2025

_STANDARD_MODES = (
    (1920, 1080),
    (1920, 1200),
    (1680, 1050),
    (1600, 1200),
    (1440, 900),
    (1280, 1024),
    (1280, 800),
    (1280, 720),
)
_FALLBACK = (1920, 1080)
_ASPECTS = {(16, 10): 0, (4, 3): 1, (5, 4): 2, (16, 9): 3}
"""Aspect ratio codes of a standard timing."""

_SRGB = bytes.fromhex("ee91a3544c99260f5054")
"""Chromaticity coordinates of sRGB."""
_ESTABLISHED = bytes((0x21, 0x08, 0x00))
"""640x480, 800x600 and 1024x768 at 60 Hz."""


class Timing(NamedTuple):
    """A video timing: pixels, lines, and the pixel clock in units of 10 kHz."""

    width: int
    h_blank: int
    h_front: int
    h_sync: int
    height: int
    v_blank: int
    v_front: int
    v_sync: int
    clock: int


def reduced_blanking(width: int, height: int) -> Timing:
    """Return the CVT timing with reduced blanking (version 1) at `REFRESH`."""
    h_blank, h_front, h_sync, v_front, v_back = 160, 48, 32, 3, 6
    v_sync = {4 / 3: 4, 16 / 9: 5, 16 / 10: 6, 5 / 4: 7, 15 / 9: 7}.get(width / height, 10)
    least_blank_us = 460.0
    line_us = (1e6 / REFRESH - least_blank_us) / height
    v_blank = max(int(least_blank_us / line_us) + 1, v_front + v_sync + v_back)
    quarter_mhz = max(REFRESH * (height + v_blank) * (width + h_blank) // 250_000, 1)
    return Timing(width, h_blank, h_front, h_sync, height, v_blank, v_front, v_sync,
                  quarter_mhz * 25)  # fmt: skip


def make_edid(width: int, height: int, serial: int) -> bytes:
    """Return the EDID of a monitor whose preferred mode is `width` x `height` pixels.

    Raises `ValueError` for an edge that is not 1 to `MAX_EDGE`.
    """
    if not (1 <= width <= MAX_EDGE and 1 <= height <= MAX_EDGE):
        raise ValueError(f"monitor of {width}x{height}: an edge must be 1 to {MAX_EDGE}")
    timing = reduced_blanking(width, height)
    fits = width < 4096 and height < 4096 and timing.clock <= 0xFFFF
    size_mm = (_millimetres(width), _millimetres(height))
    # The first descriptor must be a timing; the extension's, marked as preferred, goes before it.
    preferred = _detailed_timing(timing if fits else reduced_blanking(*_FALLBACK), size_mm)
    blocks = [_base_block(preferred, size_mm, serial, extensions=0 if fits else 1)]
    if not fits:
        blocks.append(_display_id_block(timing, size_mm, serial))
    return b"".join(blocks)


def _base_block(
    preferred: bytes, size_mm: tuple[int, int], serial: int, *, extensions: int
) -> bytes:
    block = b"".join(
        (
            b"\x00\xff\xff\xff\xff\xff\xff\x00",
            _manufacturer(),
            (1).to_bytes(2, "little"),  # product
            serial.to_bytes(4, "little"),
            bytes((0, _YEAR - _FIRST_YEAR)),
            bytes((1, 4)),  # EDID 1.4
            bytes((0xA5,)),  # digital, 8 bits a colour, DisplayPort
            bytes(edge // 10 for edge in size_mm),
            bytes((120,)),  # gamma 2.2
            bytes((0x06,)),  # sRGB; the preferred timing is the native one
            _SRGB,
            _ESTABLISHED,
            b"".join(_standard_timing(*mode) for mode in _STANDARD_MODES),
            preferred,
            _text(0xFC, _NAME),
            _text(0xFF, str(serial).encode()),
            _text(0x10, b""),
            bytes((extensions,)),
        )
    )
    return block + _checksum(block)


def _millimetres(pixels: int) -> int:
    """Return an edge's length, at most what the base block can say."""
    return min(round(pixels * 25.4 / DOTS_PER_INCH), 2550)


def _manufacturer() -> bytes:
    """Three letters of five bits each, A = 1."""
    value = 0
    for letter in _MANUFACTURER:
        value = value << 5 | ord(letter) - ord("A") + 1
    return value.to_bytes(2, "big")


def _standard_timing(width: int, height: int) -> bytes:
    aspect = next(
        code for (across, down), code in _ASPECTS.items() if width * down == height * across
    )
    return bytes((width // 8 - 31, aspect << 6 | REFRESH - 60))


def _text(tag: int, text: bytes) -> bytes:
    """Return a display descriptor of 18 bytes."""
    padded = text if len(text) == 13 or tag == 0x10 else text + b"\n"
    return bytes((0, 0, 0, tag, 0)) + padded.ljust(13, b"\0" if tag == 0x10 else b" ")


def _detailed_timing(timing: Timing, size_mm: tuple[int, int]) -> bytes:
    """Return the descriptor of 18 bytes; every value fits its bits."""
    across, down = size_mm
    return timing.clock.to_bytes(2, "little") + bytes(
        (
            timing.width & 0xFF,
            timing.h_blank & 0xFF,
            timing.width >> 8 << 4 | timing.h_blank >> 8,
            timing.height & 0xFF,
            timing.v_blank & 0xFF,
            timing.height >> 8 << 4 | timing.v_blank >> 8,
            timing.h_front,
            timing.h_sync,
            (timing.v_front & 0xF) << 4 | timing.v_sync & 0xF,
            0,
            across & 0xFF,
            down & 0xFF,
            across >> 8 << 4 | down >> 8,
            0,
            0,
            0x1A,  # separate digital syncs, horizontal positive, vertical negative
        )
    )


def _display_id_block(timing: Timing, size_mm: tuple[int, int], serial: int) -> bytes:
    """Return an extension block with one Type I detailed timing, marked as preferred."""
    standalone_display = 3
    across, down = size_mm
    product = (
        _MANUFACTURER.encode()
        + (1).to_bytes(2, "little")
        + serial.to_bytes(4, "little")
        + bytes((0, _YEAR - 2000, 0))
    )
    parameters = b"".join(
        value.to_bytes(2, "little")
        for value in (across * 10, down * 10, timing.width, timing.height)
    )
    longer, shorter = sorted((timing.width, timing.height), reverse=True)
    parameters += bytes((0, 120, min(longer * 100 // shorter - 100, 255), 0x77))
    display_port = 0x90
    interface = bytes((display_port, 0x11, 0, 0, 0, 0, 0, 0, 0, 0))
    data = b"".join(
        (
            _data_block(0x00, product),
            _data_block(0x01, parameters),
            _data_block(0x03, _type_one_timing(timing)),
            _data_block(0x0F, interface),
        )
    )
    section = bytes((0x13, BLOCK - 7, standalone_display, 0)) + data.ljust(BLOCK - 7, b"\0")
    block = bytes((0x70,)) + section + _checksum(section)
    return block + _checksum(block)


def _data_block(tag: int, payload: bytes) -> bytes:
    return bytes((tag, 0, len(payload))) + payload


def _type_one_timing(timing: Timing) -> bytes:
    """Return a DisplayID Type I detailed timing of 20 bytes."""
    positive = 0x8000
    preferred, aspect_undefined = 0x80, 0x08
    values = (
        timing.width - 1,
        timing.h_blank - 1,
        timing.h_front - 1 | positive,
        timing.h_sync - 1,
        timing.height - 1,
        timing.v_blank - 1,
        timing.v_front - 1,
        timing.v_sync - 1,
    )
    return (
        (timing.clock - 1).to_bytes(3, "little")
        + bytes((preferred | aspect_undefined,))
        + b"".join(value.to_bytes(2, "little") for value in values)
    )


def _checksum(data: bytes) -> bytes:
    """Return the byte that makes the sum of all a multiple of 256."""
    return bytes((-sum(data) % 256,))
