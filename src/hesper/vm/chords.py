"""Keys as people write them: `ctrl-alt-f2`, or a text."""

from __future__ import annotations

from hesper.display.keys import CODE_OF_KEYSYM, QCODE_OF, SHIFTED

_CODE_OF_NAME = {name: code for code, name in QCODE_OF.items()}
_ALIASES = {
    "enter": "ret",
    "return": "ret",
    "space": "spc",
    "escape": "esc",
    "del": "delete",
    "win": "meta_l",
    "super": "meta_l",
    "control": "ctrl",
    "pageup": "pgup",
    "pagedown": "pgdn",
}
_SHIFT = _CODE_OF_NAME["shift"]
_KEYSYM_OF = {"\n": 0xFF0D, "\t": 0xFF09}


def chord(text: str) -> list[int]:
    """The keys of `ctrl-alt-f2`, to be held together, by Linux's codes.  Raises `ValueError`."""
    codes = []
    for word in text.lower().split("-"):
        name = _ALIASES.get(word, word)
        if name not in _CODE_OF_NAME:
            raise ValueError(f"{text}: there is no key {word!r}; QEMU's names are known, as in ret")
        codes.append(_CODE_OF_NAME[name])
    return codes


def typed(text: str) -> list[list[int]]:
    """The keys that type `text` on a US keyboard, one after the other.  Raises `ValueError`."""
    steps = []
    for letter in text:
        keysym = _KEYSYM_OF.get(letter, ord(letter))
        code = CODE_OF_KEYSYM.get(keysym)
        if code is None:
            raise ValueError(f"{letter!r} cannot be typed on a US keyboard")
        steps.append([_SHIFT, code] if SHIFTED.get(keysym) else [code])
    return steps
