"""Objects that there were then and are not here, because this driver does not make them.

What was to be done with one is left out, and what that would have changed is not to be used either:
a buffer without its memory, a set without its descriptor, a command buffer without its command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hesper.trace.decoded import codec, handles
from hesper.trace.plan import BINDS

if TYPE_CHECKING:
    from hesper.protocol.model import Command as Description
    from hesper.trace.decoded import Decoded


class Missing:
    """Knows them, by their ids."""

    def __init__(self) -> None:
        """None is missing."""
        self._ids: set[int] = set()
        self._spoilt: set[int] = set()
        """Of these, command buffers that are here, and lack a command."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._ids)

    def has(self, id_: int) -> bool:
        """Whether an object is missing."""
        return id_ in self._ids

    def made(self, then: Decoded, *, is_here: bool) -> None:
        """Take note of what a command has made then, and whether it has here."""
        if is_here:
            self._ids -= _made(then)
        else:
            self._ids |= _made(then)

    def lacks(self, then: Decoded) -> bool:
        """Whether a command cannot be told, since it names one; what it makes is missing, too."""
        made = _made(then)
        if then.name == "vkBeginCommandBuffer":
            buffer = (then.parameters or {}).get("commandBuffer") or 0
            if buffer in self._spoilt:
                self._spoilt.discard(buffer)
                self._ids.discard(buffer)
        if self._ids.isdisjoint(set(handles(then.parameters or {}, _command(then))) - made):
            return False
        self.leave(then)
        return True

    def leave(self, then: Decoded) -> None:
        """Take note that a command is not told: what it makes or changes is not to be used."""
        changed = _changed(then)
        if then.name.startswith("vkCmd"):
            self._spoilt |= changed - self._ids
        self._ids |= _made(then) | changed

    def lose(self, ids: set[int]) -> None:
        """Take note that what was made cannot be used here."""
        self._ids |= ids

    def thin(self, then: Decoded) -> bool:
        """Take command buffers that are missing out of a submission; whether there were any.

        All else of it happens: others wait for that.
        """
        found = False
        parameters = then.parameters or {}
        for info in parameters.get("pSubmits") or []:
            for many, count, of in _BUFFERS:
                given = info.get(many) or []
                kept = [each for each in given if of(each) not in self._ids]
                if len(kept) < len(given):
                    info[many], info[count] = kept, len(kept)
                    found = True
        return found


_BUFFERS: list[tuple[str, str, Callable[[Any], int]]] = [
    ("pCommandBuffers", "commandBufferCount", lambda each: each or 0),
    ("pCommandBufferInfos", "commandBufferInfoCount", lambda each: each["commandBuffer"]),
]


def _changed(then: Decoded) -> set[int]:
    """The ids of what a command changes, beside what it makes."""
    parameters = then.parameters or {}
    if then.name.startswith("vkCmd"):
        return {parameters.get("commandBuffer") or 0}
    if then.name in BINDS:
        infos = parameters.get("pBindInfos") or [parameters]
        return {info.get(BINDS[then.name]) or 0 for info in infos}
    writes = parameters.get("pDescriptorWrites") or []
    copies = parameters.get("pDescriptorCopies") or []
    return {each.get("dstSet") or 0 for each in [*writes, *copies]}


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
