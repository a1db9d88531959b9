"""What an extension needs, in the registry's words."""

from __future__ import annotations

import re
from collections.abc import Container


def can_be_met(depends: str, missing: Container[str]) -> bool:
    """Whether a dependency can be met without what is `missing`.

    depends: the registry's attribute: names of extensions and versions (`VK_VERSION_1_2`) joined by
    `+` (and) and `,` (or), with parentheses; `A::b` is a feature of A.  Both operators bind alike
    and to the left; the registry has parentheses where that matters.
    """
    met, join = True, "+"
    outer: list[tuple[bool, str]] = []
    for token in re.findall(r"[\w:]+|[()+,]", depends):
        if token in "+,":
            join = token
            continue
        if token == "(":
            outer.append((met, join))
            met, join = True, "+"
            continue
        here = met if token == ")" else token.split("::")[0] not in missing
        if token == ")":
            met, join = outer.pop()
        met = met and here if join == "+" else met or here
    return met
