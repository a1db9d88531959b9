"""What viewers do, as QEMU takes it (`input-send-event`, QEMU's `qapi/ui.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hesper.display.input import ABSOLUTE_MAX, Key, PointerButton, PointerMove
from hesper.display.keys import QCODE_OF

if TYPE_CHECKING:
    from hesper.display.input import InputEvent
    from hesper.display.scanout import Display


def to_qemu(display: Display, index: int, events: Sequence[InputEvent]) -> list[dict[str, Any]]:
    """Translate events at scanout `index`; each key has a name in QEMU (`keys.QCODE_OF`).

    The guest has one pointer on all its screens, which stand side by side.
    """
    result: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, Key):
            key = {"type": "qcode", "data": QCODE_OF[event.code]}
            result.append({"type": "key", "data": {"down": event.down, "key": key}})
        elif isinstance(event, PointerButton):
            data = {"down": event.down, "button": event.button.value}
            result.append({"type": "btn", "data": data})
        elif isinstance(event, PointerMove):
            x, y = _on_all(display, index, event)
            result.append({"type": "abs", "data": {"axis": "x", "value": x}})
            result.append({"type": "abs", "data": {"axis": "y", "value": y}})
    return result


def _on_all(display: Display, index: int, event: PointerMove) -> tuple[int, int]:
    """Where a place on one scanout is on all of them together."""
    sizes = [s.surface.size if s.surface is not None else s.wanted for s in display]
    width = sum(size.width for size in sizes)
    height = max(size.height for size in sizes)
    left = sum(size.width for size in sizes[:index])
    x = (left * ABSOLUTE_MAX + event.x * sizes[index].width) // width
    return x, event.y * sizes[index].height // height
