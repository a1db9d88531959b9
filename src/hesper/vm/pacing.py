"""When which input goes to a guest.

What keyboards and pointers of QEMU keep for their guest is little (16 reports of a USB device,
which are fetched one each 8 ms, 32 keys of a virtio keyboard): what finds it full is lost, be it a
release.  QEMU's own screens wait 10 ms after each key, and so does this, after keys and buttons.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from hesper.display.input import InputEvent, Key, PointerButton, PointerMove

PRESS_SECONDS = 0.01
"""After a key or a button."""
E0_PRESS_SECONDS = 0.02
"""After a key that is two scan codes."""
MAX_WAITING = 4096
"""Events; half a minute of keys without a pause.  Beyond it no more keys and buttons go down."""

_FIRST_E0_CODE = 96
"""Linux's codes from here on are, but for few, scan codes behind an E0."""


class Pacing:
    """Events that wait, in order; what the pointer has left behind is left out."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._waiting: deque[tuple[int, InputEvent]] = deque()
        self._lost: set[object] = set()
        """Keys and buttons whose going down was left out: they need not come up."""
        self._down: dict[object, tuple[int, InputEvent]] = {}
        """How those come up that were taken, and are down."""

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def add(self, index: int, events: Sequence[InputEvent]) -> int:
        """Have `events` at scanout `index` wait; returns how many were left out for want of room.

        What is down can always come up: no key sticks.
        """
        lost = 0
        for event in events:
            if isinstance(event, PointerMove):
                self._move(index, event)
                continue
            which = _which(event)
            if event.down and len(self._waiting) >= MAX_WAITING:
                self._lost.add(which)
                lost += 1
            elif event.down or which not in self._lost:
                self._waiting.append((index, event))
            else:
                self._lost.remove(which)
        return lost

    def _move(self, index: int, event: PointerMove) -> None:
        if self._waiting and isinstance(self._waiting[-1][1], PointerMove):
            self._waiting.pop()
        self._waiting.append((index, event))

    def take(self) -> tuple[int, list[InputEvent], float]:
        """Return a scanout, what is to be sent to it now, and the seconds to wait after that.

        Raises `IndexError` when nothing waits.
        """
        index, event = self._waiting.popleft()
        events = [event]
        if isinstance(event, PointerMove) and self._waiting and self._waiting[0][0] == index:
            events.append(self._waiting.popleft()[1])
        last = events[-1]
        if isinstance(last, PointerMove):
            return index, events, 0.0
        if last.down:
            self._down[_which(last)] = index, replace(last, down=False)
        else:
            self._down.pop(_which(last), None)
        behind_e0 = isinstance(last, Key) and last.code >= _FIRST_E0_CODE
        return index, events, E0_PRESS_SECONDS if behind_e0 else PRESS_SECONDS

    def let_go(self) -> list[tuple[int, InputEvent]]:
        """Forget what waits; returns what has to be sent, and where, so that nothing stays down."""
        self._waiting.clear()
        self._lost.clear()
        left = list(self._down.values())
        self._down.clear()
        return left


def _which(event: Key | PointerButton) -> object:
    return event.code if isinstance(event, Key) else event.button
