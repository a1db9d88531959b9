"""From RFB's pointer messages to input events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.display.input import Button, Held, InputEvent

if TYPE_CHECKING:
    from hesper.display.geometry import Size
    from hesper.display.rfb.wire import PointerEvent

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


def pointer_events(held: Held, event: PointerEvent, size: Size) -> list[InputEvent]:
    """Return what changed by `event`, whose position counts in a scanout of `size`."""
    events = held.move(event.x, event.y, *size)
    for bit, button in enumerate(_BUTTONS):
        events += held.button(button, bool(event.buttons >> bit & 1))
    return events
