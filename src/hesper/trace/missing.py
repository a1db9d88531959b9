"""Objects that there were then and are not here, because this driver does not make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.trace.decoded import codec, handles

if TYPE_CHECKING:
    from hesper.protocol.model import Command as Description
    from hesper.trace.decoded import Decoded


class Missing:
    """Knows them, by their ids."""

    def __init__(self) -> None:
        """None is missing."""
        self._ids: set[int] = set()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._ids)

    def made(self, then: Decoded, *, is_here: bool) -> None:
        """Take note of what a command has made then, and whether it has here."""
        if is_here:
            self._ids -= _made(then)
        else:
            self._ids |= _made(then)

    def lacks(self, then: Decoded) -> bool:
        """Whether a command cannot be told, since it names one; what it makes is missing, too."""
        made = _made(then)
        if self._ids.isdisjoint(set(handles(then.parameters or {}, _command(then))) - made):
            return False
        self._ids |= made
        return True


def _command(then: Decoded) -> Description:
    return codec().model.commands[then.name]


def _made(then: Decoded) -> set[int]:
    """The ids of what a command makes."""
    found: set[int] = set()
    if _command(then).creates:
        for field in _command(then).fields:
            value = (then.parameters or {}).get(field.name) if field.output else None
            if field.kind == "handle" and value:
                found |= set(value if isinstance(value, list) else [value])
    return found - {0}
