"""What the bytes of vhost-user-gpu mean: numbers and structs, no behaviour.

Source: QEMU's documentation, "Vhost-user-gpu Protocol" (docs/interop/vhost-user-gpu.rst).  All
numbers are in host byte order; Hesper supports little-endian hosts only.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct


class Request(IntEnum):
    """Messages to the VMM.  Of these it answers the first and the third."""

    GET_PROTOCOL_FEATURES = 1
    SET_PROTOCOL_FEATURES = 2
    GET_DISPLAY_INFO = 3
    CURSOR_POS = 4
    CURSOR_POS_HIDE = 5
    CURSOR_UPDATE = 6
    SCANOUT = 7
    UPDATE = 8


REPLY = 0x4
"""Flag of every answer."""

HEADER = Struct("=III")
"""request, flags, size of the payload"""

U64 = Struct("=Q")

CURSOR_POS = Struct("=I2i")
"""scanout, x, y of the picture's top left corner"""

CURSOR_EDGE = 64

CURSOR_UPDATE = Struct("=I2i2I")
"""scanout, x, y, hot spot; a picture of CURSOR_EDGE by CURSOR_EDGE pixels 0xAARRGGBB follows,
colours multiplied with alpha"""

SCANOUT = Struct("=3I")
"""scanout, width, height; without a size it shows nothing"""

UPDATE = Struct("=5I")
"""scanout, x, y, width, height; the rectangle's pixels 0x--RRGGBB follow"""

RESPONSE_HEADER_SIZE = 24
"""Display info comes as the device would give it to a driver, its header included."""

DISPLAY_ONE = Struct("=4I2I")
"""x, y, width, height, enabled, flags"""

MAX_SCANOUTS = 16

DISPLAY_INFO_SIZE = RESPONSE_HEADER_SIZE + MAX_SCANOUTS * DISPLAY_ONE.size
