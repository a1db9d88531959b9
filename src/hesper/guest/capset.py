"""The Venus capset: what a guest learns of the renderer before its first command.

Layout: `struct virgl_renderer_capset_venus` (virglrenderer's venus_hw.h), 40 words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from hesper import protocol
from hesper.vk.version import make_version

CAPSET_SIZE = 160
"""Bytes."""

WIRE_FORMAT_VERSION = 1

_MASK_WORDS = 32
_LAYOUT = struct.Struct(f"<5I{_MASK_WORDS}I3I")


def extension_mask(numbers: Iterable[int]) -> list[int]:
    """The mask of extensions that can travel: 32 words, bit N for extension number N.

    Bit 0 says that the mask is valid.  Raises `ValueError` for a number outside 1 to 1023.
    """
    words = [0] * _MASK_WORDS
    words[0] = 1
    for number in numbers:
        if not 0 < number < 32 * _MASK_WORDS:
            raise ValueError(f"extension number {number} does not fit into the capset's mask")
        words[number // 32] |= 1 << number % 32
    return words


def capset() -> bytes:
    """The capset, `CAPSET_SIZE` bytes, the same for every driver.

    A client sends a struct of an extension only if its bit is set, so this is about what the
    wire tables know; what a device offers is its own list of extensions.
    """
    extensions = protocol.extensions()
    return _LAYOUT.pack(
        WIRE_FORMAT_VERSION,
        make_version(1, 4, protocol.summary().header_version),
        extensions["VK_EXT_command_serialization"][1],
        extensions["VK_MESA_venus_protocol"][1],
        1,  # supports_blob_id_0: plain shared memory
        *extension_mask(number for number, _ in extensions.values()),
        1,  # allow_vk_wait_syncs: vkWaitForFences may block a ring
        1,  # supports_multiple_timelines
        0,  # use_guest_vram
    )
