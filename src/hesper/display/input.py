"""What a viewer does with pointer and keyboard, on its way to the guest.

A sink (for a virtual machine: QEMU's `input-send-event`) takes these events; outputs make them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

ABSOLUTE_MAX = 0x7FFF
"""Right or bottom edge of a scanout in `PointerMove`, as in QEMU's `InputMoveEvent`."""


class Button(StrEnum):
    """A pointer button or wheel step; the values are QEMU's `InputButton`."""

    LEFT = "left"
    MIDDLE = "middle"
    RIGHT = "right"
    WHEEL_UP = "wheel-up"
    WHEEL_DOWN = "wheel-down"
    WHEEL_LEFT = "wheel-left"
    WHEEL_RIGHT = "wheel-right"
    SIDE = "side"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True)
class PointerMove:
    """The pointer is at (`x`, `y`), each 0 to `ABSOLUTE_MAX` over the scanout."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class PointerButton:
    """A button went down or up; a wheel step is one down and one up."""

    button: Button
    down: bool


@dataclass(frozen=True, slots=True)
class Key:
    """A key went down or up.

    `code` is a `KEY_*` number of Linux's `input-event-codes.h`; `keys.QCODE_OF` has QEMU's name.
    """

    code: int
    down: bool


InputEvent: TypeAlias = PointerMove | PointerButton | Key

InputSink: TypeAlias = Callable[[int, Sequence[InputEvent]], None]
"""Takes a scanout's id and events in order; called on an output's thread, must not block."""
