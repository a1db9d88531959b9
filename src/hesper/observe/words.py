"""Numbers and names as people read them."""

from __future__ import annotations

import pwd

_UNITS = ("B", "K", "M", "G", "T")


def plain(text: str, most: int = 100) -> str:
    """`text` with nothing in it that a terminal would obey: a client has chosen it."""
    return "".join(each if each.isprintable() else "?" for each in text[:most])


def amount(size: float) -> str:
    """Bytes, in binary units: `17.3M`."""
    unit = 0
    while size >= 1024 and unit + 1 < len(_UNITS):
        size /= 1024
        unit += 1
    return f"{size:.0f}{_UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.1f}{_UNITS[unit]}"


def rate(number: float) -> str:
    """How often in a second: `0`, `7.5`, `312`, `48.1k`, `1.2M`."""
    if number >= 1e6:
        return f"{number / 1e6:.1f}M"
    if number >= 1e4:
        return f"{number / 1e3:.1f}k"
    return f"{number:.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"


def age(seconds: float) -> str:
    """A time, by its two largest units: `12 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def user(number: int) -> str:
    """A user's name, or number; `-` where there is none."""
    if number < 0:
        return "-"
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
