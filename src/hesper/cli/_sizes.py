"""Numbers of bytes, as options have them."""

from __future__ import annotations

LEAST_WITHOUT_UNIT = 4096
"""Bytes; a smaller number was meant to have a unit."""

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Parse a number of bytes that may end in K, M, G or T.  Raises `ValueError`."""
    unit = UNITS.get(text[-1:].upper(), 0)
    digits = text[:-1] if unit else text
    if not digits.isdecimal() or int(digits) < 1:
        raise ValueError(f"{text!r} is no size: it must be a number with K, M, G or T, as in 8G")
    if not unit and int(digits) < LEAST_WITHOUT_UNIT:
        raise ValueError(f"{text!r} is a size in bytes: say it with a unit, as in {text}M")
    return int(digits) * (unit or 1)
