"""Options that cannot be are refused when they are made, not when a server starts."""

from __future__ import annotations

from hesper.errors import OptionError
from hesper.portable import group_id


def check_number(option: str, value: object, least: float, most: float, else_: str = "") -> None:
    """Raise `OptionError` unless `value` is a number of that range.

    An integer, where `least` is one.  else_: what to do instead, for the error's text.
    """
    kinds = (int,) if isinstance(least, int) else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most:
        return
    kind = "a whole number" if kinds == (int,) else "a number"
    must = (
        f"must be {kind}, {least:g} to {most:g}"
        if most < float("inf")
        else (f"must be {kind}, {least:g} or more")
    )
    raise OptionError(option, value, f"{must}; {else_}" if else_ else must)


def check_kind(option: str, value: object, kind: type | tuple[type, ...], must: str) -> None:
    """Raise `OptionError` unless `value` is of that kind."""
    if not isinstance(value, kind):
        raise OptionError(option, value, must)


def check_access(mode: object, group: object) -> None:
    """Raise `OptionError` unless they are permissions of a file, and a group here or None."""
    if not isinstance(mode, int) or not 0 <= mode <= 0o777:
        raise OptionError("mode", mode, "must be permissions, as in 0o660")
    if isinstance(group, str) and group_id(group) is None:
        raise OptionError("group", group, "must be a group of this system")
