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


class Held:
    """What one viewer holds down, so that it is let go of when the viewer has gone."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._keys: set[int] = set()
        self._buttons: set[Button] = set()
        self._position = (-1, -1)

    def is_down(self, code: int) -> bool:
        """Whether a key is held."""
        return code in self._keys

    def move(self, x: int, y: int, width: int, height: int) -> list[InputEvent]:
        """Put the pointer at pixel (`x`, `y`) of a scanout; outside it is its edge."""
        position = _scale(x, width), _scale(y, height)
        if position == self._position:
            return []
        self._position = position
        return [PointerMove(*position)]

    def button(self, button: Button, down: bool) -> list[InputEvent]:
        """Press or release a button."""
        if down == (button in self._buttons):
            return []
        (self._buttons.add if down else self._buttons.remove)(button)
        return [PointerButton(button, down)]

    def key(self, code: int, down: bool) -> list[InputEvent]:
        """Press or release a key.

        One that goes down again while it is down repeats; the guest does that itself.
        """
        if down == (code in self._keys):
            return []
        (self._keys.add if down else self._keys.remove)(code)
        return [Key(code, down)]

    def release(self) -> list[InputEvent]:
        """Let go of everything."""
        keys = [event for code in sorted(self._keys) for event in self.key(code, False)]
        return keys + [e for button in sorted(self._buttons) for e in self.button(button, False)]


def _scale(value: int, edge: int) -> int:
    return min(max(value, 0), edge - 1) * ABSOLUTE_MAX // max(edge - 1, 1)


InputSink: TypeAlias = Callable[[int, Sequence[InputEvent]], None]
"""Takes a scanout's id and events in order; called on an output's thread, must not block."""
