"""Numbers of bytes, as options have them."""

from __future__ import annotations

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Parse a number of bytes that may end in K, M, G or T.  Raises `ValueError`."""
    unit = UNITS.get(text[-1:].upper(), 0)
    digits = text[:-1] if unit else text
    if not digits.isdecimal() or int(digits) < 1:
        raise ValueError(f"{text!r} is no size: it must be a number with K, M, G or T, as in 8G")
    return int(digits) * (unit or 1)
