"""What viewers type, and what a guest with a US keyboard makes of it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesper.display.input import Held, InputEvent, Key
from hesper.display.keys import CODE_OF_KEYSYM, CODE_OF_SCANCODE, SHIFTED
from hesper.display.rfb.keyboard import ALT_R, CAPS_LOCK, SHIFT, SHIFT_R, Keyboard
from hesper.display.rfb.wire import KeyEvent

SHIFT_L_SYM, CAPS_SYM, LEVEL_3_SYM = 0xFFE1, 0xFFE5, 0xFE03
TYPES = {(CODE_OF_KEYSYM[sym], shifted): chr(sym) for sym, shifted in SHIFTED.items()}


class Guest:
    """A US keyboard's keys, and the text they have typed."""

    def __init__(self) -> None:
        self.down: set[int] = set()
        self.capitals = False
        self.text = ""

    def take(self, events: list[InputEvent]) -> None:
        for event in events:
            assert isinstance(event, Key)
            assert event.down != (event.code in self.down)
            (self.down.add if event.down else self.down.remove)(event.code)
            if event.down and event.code == CAPS_LOCK:
                self.capitals = not self.capitals
            elif event.down:
                self._type(event.code)

    def _type(self, code: int) -> None:
        shifted = bool(self.down & {SHIFT, SHIFT_R})
        letter = TYPES.get((code, False), "").isalpha()
        text = TYPES.get((code, shifted != (self.capitals and letter)), "")
        self.text += f"<{text}>" if text and ALT_R in self.down else text


class Typist:
    """A viewer at the guest."""

    def __init__(self) -> None:
        self.guest = Guest()
        self._held = Held()
        self._keyboard = Keyboard(self._held)

    def key(self, down: bool, keysym: int, scancode: int = 0) -> None:
        self.guest.take(self._keyboard.events(KeyEvent(down, keysym, scancode)))

    def tap(self, keysym: int) -> None:
        self.key(True, keysym)
        self.key(False, keysym)

    def leave(self) -> None:
        self.guest.take(self._held.release())


@pytest.fixture
def typist() -> Typist:
    return Typist()


@pytest.mark.parametrize("unicode", [0, 0x0100_0000], ids=["latin", "unicode"])
def test_characters_alone_are_typed_as_they_are(typist: Typist, unicode: int) -> None:
    """As phones send them: no shift anywhere."""
    text = "".join(chr(code) for code in range(32, 127))
    for character in text:
        typist.tap(unicode + ord(character))
    assert typist.guest.text == text
    assert typist.guest.down == set()


def test_shift_of_a_us_viewer_is_left_alone(typist: Typist) -> None:
    typist.key(True, SHIFT_L_SYM)
    for character in "AbC":
        typist.tap(ord(character.upper()))
    # Held: for as long as the viewer holds it.
    typist.key(True, ord("!"))
    assert typist.guest.down == {SHIFT, CODE_OF_KEYSYM[ord("!")]}
    typist.key(False, ord("!"))
    typist.key(False, SHIFT_L_SYM)
    assert (typist.guest.text, typist.guest.down) == ("ABC!", set())


def test_a_key_named_by_its_small_letter_with_shift_is_a_capital(typist: Typist) -> None:
    """As vncdotool has it, and X11's tools."""
    typist.key(True, SHIFT_L_SYM)
    typist.tap(ord("a"))
    typist.key(False, SHIFT_L_SYM)
    assert (typist.guest.text, typist.guest.down) == ("A", set())


def test_a_layout_that_has_a_character_elsewhere(typist: Typist) -> None:
    """German: shift and 7 is a slash, shift and 2 a quotation mark; AltGr and q is @."""
    typist.key(True, SHIFT_L_SYM)
    typist.tap(ord("/"))
    typist.key(True, ord('"'))
    typist.key(False, SHIFT_L_SYM)
    typist.key(False, ord("2"))
    assert typist.guest.down == set()
    typist.key(True, LEVEL_3_SYM)
    typist.tap(ord("@"))
    assert typist.guest.down == {ALT_R}
    typist.key(False, LEVEL_3_SYM)
    assert (typist.guest.text, typist.guest.down) == ('/"@', set())


def test_caps_lock_is_the_viewers(typist: Typist) -> None:
    typist.tap(CAPS_SYM)
    for character in "AB1":
        typist.tap(ord(character))
    typist.key(True, SHIFT_L_SYM)
    typist.tap(ord("c"))
    typist.key(False, SHIFT_L_SYM)
    typist.tap(CAPS_SYM)
    typist.tap(ord("d"))
    typist.tap(ord("E"))
    assert (typist.guest.text, typist.guest.down) == ("AB1cdE", set())


def test_scan_codes_are_keys_whatever_they_type(typist: Typist) -> None:
    scancode = {code: scan for scan, code in CODE_OF_SCANCODE.items()}
    typist.key(True, ord("A"), scancode[CODE_OF_KEYSYM[ord("a")]])
    assert typist.guest.text == "a"
    typist.key(False, ord("A"), scancode[CODE_OF_KEYSYM[ord("a")]])
    assert typist.guest.down == set()


def test_characters_of_no_us_key_are_left_out(typist: Typist) -> None:
    for keysym in (0xE9, 0x0100_20AC, 0x0100_0411):
        typist.tap(keysym)
    assert (typist.guest.text, typist.guest.down) == ("", set())


KEYSYMS = st.one_of(
    st.sampled_from([ord(each) for each in string.printable[:94]]),
    st.sampled_from([SHIFT_L_SYM, 0xFFE2, CAPS_SYM, LEVEL_3_SYM, 0xFFEA, 0xFF0D, 0xE9]),
)


@given(st.lists(st.tuples(st.booleans(), KEYSYMS), max_size=60))
def test_whatever_is_sent_nothing_stays_down(keys: list[tuple[bool, int]]) -> None:
    """`Guest` asserts that each key goes up and down in turn."""
    typist = Typist()
    for down, keysym in keys:
        typist.key(down, keysym)
    typist.leave()
    assert typist.guest.down == set()
