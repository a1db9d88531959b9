"""From RFB's pointer and key messages to input events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.display.input import ABSOLUTE_MAX, Button, InputEvent, Key, PointerButton, PointerMove
from hesper.display.keys import key_code

if TYPE_CHECKING:
    from hesper.display.geometry import Size
    from hesper.display.rfb.wire import KeyEvent, PointerEvent

_BUTTONS = (
    Button.LEFT,
    Button.MIDDLE,
    Button.RIGHT,
    Button.WHEEL_UP,
    Button.WHEEL_DOWN,
    Button.WHEEL_LEFT,
    Button.WHEEL_RIGHT,
    Button.SIDE,
    Button.EXTRA,
)
"""By bit of RFB's button mask."""


class InputState:
    """What one viewer holds down."""

    def __init__(self) -> None:
        """Begin with nothing held."""
        self._buttons = 0
        self._position = (-1, -1)
        self._keys: set[int] = set()

    def pointer(self, event: PointerEvent, size: Size) -> list[InputEvent]:
        """Return what changed by `event`, whose position counts in a scanout of `size`."""
        events: list[InputEvent] = []
        position = _scale(event.x, size.width), _scale(event.y, size.height)
        if position != self._position:
            events.append(PointerMove(*position))
            self._position = position
        events += self._set_buttons(event.buttons)
        return events

    def key(self, event: KeyEvent) -> list[InputEvent]:
        """Return what changed by `event`: nothing for a key that no keyboard has.

        A key that goes down again while it is down repeats; the guest does that itself.
        """
        code = key_code(event.keysym, event.scancode)
        if code is None or event.down == (code in self._keys):
            return []
        if event.down:
            self._keys.add(code)
        else:
            self._keys.remove(code)
        return [Key(code, event.down)]

    def release(self) -> list[InputEvent]:
        """Let go of everything, because the viewer has gone."""
        events: list[InputEvent] = [Key(code, False) for code in sorted(self._keys)]
        self._keys.clear()
        return events + self._set_buttons(0)

    def _set_buttons(self, buttons: int) -> list[InputEvent]:
        changed = self._buttons ^ buttons
        self._buttons = buttons
        return [
            PointerButton(button, bool(buttons >> bit & 1))
            for bit, button in enumerate(_BUTTONS)
            if changed >> bit & 1
        ]


def _scale(value: int, edge: int) -> int:
    return min(value, edge - 1) * ABSOLUTE_MAX // max(edge - 1, 1)
