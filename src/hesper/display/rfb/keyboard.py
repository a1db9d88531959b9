"""From RFB's key messages to input events.

A scan code names a key.  A keysym alone, as phones, macOS and older viewers send it, names what has
been typed: the guest is taken to have a US keyboard, and modifiers that would make something else
of it there are changed for the moment of the key (RFC 6143, section 7.5.4, leaves that to servers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.display.input import Key
from hesper.display.keys import SHIFTED, key_code, plain_keysym

if TYPE_CHECKING:
    from hesper.display.input import Held, InputEvent
    from hesper.display.rfb.wire import KeyEvent

SHIFT, SHIFT_R, CAPS_LOCK, ALT_R = 42, 54, 58, 100
"""Linux's codes."""
_LEVEL_3 = frozenset({0xFE03, 0xFF7E})
"""ISO_Level3_Shift and Mode_switch: part of typing a character, unlike the Alt of a US keyboard."""


class Keyboard:
    """One viewer's."""

    def __init__(self, held: Held) -> None:
        """`held`: what the viewer holds down."""
        self._held = held
        self._capitals = False
        """Whether the viewer has switched caps lock on."""
        self._level_3 = False
        self._typed: list[int] = []
        """Keys that are down because of a character, the latest last."""

    def events(self, event: KeyEvent) -> list[InputEvent]:
        """Return what changes by `event`: nothing for a key that no US keyboard has."""
        if event.scancode:
            code = key_code(event.keysym, event.scancode)
            return [] if code is None else self._key(code, event.down)
        keysym = plain_keysym(event.keysym)
        code = key_code(keysym)
        if keysym in _LEVEL_3:
            self._level_3 = event.down
        if keysym in SHIFTED and code is not None:
            return self._character(keysym, code, event.down)
        if code is None:
            return [] if event.down else self._release_latest()
        return self._key(code, event.down)

    def _key(self, code: int, down: bool) -> list[InputEvent]:
        events = self._held.key(code, down)
        if code == CAPS_LOCK and down and events:
            self._capitals = not self._capitals
        return events

    def _character(self, keysym: int, code: int, down: bool) -> list[InputEvent]:
        if not down:
            known = code in self._typed or self._held.is_down(code)
            return self._release(code) if known else self._release_latest()
        shifts = [each for each in (SHIFT, SHIFT_R) if self._held.is_down(each)]
        is_letter = chr(keysym).isalpha()
        wanted = SHIFTED[keysym] != (self._capitals and is_letter)
        # No layout has small letters with shift: it is the key that is meant, as programs name it.
        wanted |= is_letter and bool(shifts)
        level_3 = [ALT_R] if self._level_3 and self._held.is_down(ALT_R) else []
        if bool(shifts) == wanted and not level_3:
            events = self._key(code, True)
            if events:
                self._typed.append(code)
            return events
        # Typed at once: with other modifiers it is another key that the viewer will let go of.
        lifted = level_3 + (shifts if not wanted else [])
        pressed = [SHIFT] if wanted and not shifts else []
        return [
            *self._release(code),
            *(Key(each, False) for each in lifted),
            *(Key(each, True) for each in pressed),
            Key(code, True),
            Key(code, False),
            *(Key(each, False) for each in pressed),
            *(Key(each, True) for each in lifted),
        ]

    def _release(self, code: int) -> list[InputEvent]:
        """Let go of a key, if it is down."""
        if code in self._typed:
            self._typed.remove(code)
        return self._key(code, False)

    def _release_latest(self) -> list[InputEvent]:
        """Let go of a key whose character has changed while it was down, as modifiers came or went.

        On the viewer's layout it is the same key, on a US keyboard another.
        """
        return self._release(self._typed[-1]) if self._typed else []
