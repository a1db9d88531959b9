"""Vulkan commands with plausible parameters: a fuzzer's choices, by the protocol's own tables."""

from __future__ import annotations

from typing import Any

from fuzz.source import Source
from hesper.protocol.codec import Codec
from hesper.protocol.model import Field
from protocol.values import Values

CODEC = Codec()
MODEL = CODEC.model
COMMANDS = sorted(name for name, command in MODEL.commands.items() if not command.refused)
TYPES = {name: place for place, name in enumerate(sorted(MODEL.handles))}
EACH = 4
"""Ids that objects of a type have."""
FIRST_ID = 16
SINGLE = ("VkInstance", "VkPhysicalDevice", "VkDevice")
"""Types of which a program mostly has one object."""


def guest_id(handle_type: str, number: int = 0) -> int:
    """The id of one of the objects of a type: the same ids come again and again."""
    return FIRST_ID + TYPES[handle_type] * EACH + number % EACH


class Plausible(Values):
    """Parameters whose handles mostly name something of their type."""

    def __init__(self, source: Source) -> None:
        """Draw from `source`."""
        super().__init__(MODEL, source, self._old, self._new)
        self._source = source
        self._type = ""

    def _old(self, handle_type: str) -> int:
        choice = self._source.number(1)
        if choice < 244 and handle_type in TYPES:
            is_first = choice < 192 or handle_type in SINGLE
            return guest_id(handle_type, 0 if is_first else choice)
        if choice < 250:
            return 0
        return FIRST_ID + self._source.below(EACH * len(TYPES))

    def _new(self) -> int:
        number = self._source.number(1)
        return guest_id(self._type, number) if self._type in TYPES else number

    def _output(self, f: Field, values: dict[str, Any]) -> Any:
        self._type = f.type
        return super()._output(f, values)


def command(source: Source) -> bytes:
    """One command with a header that may want a reply."""
    name = source.choice(COMMANDS)
    wants_reply = source.number(1) % 4 == 3
    parameters = Plausible(source).parameters(MODEL.commands[name])
    return CODEC.encode(name, parameters, reply=wants_reply)


def damaged(data: bytes, source: Source) -> bytes:
    """The same, of which a few bytes may be others."""
    count = max(0, source.number(1) % 8 - 4)
    changed = bytearray(data)
    for _ in range(count if changed else 0):
        changed[source.below(len(changed))] = source.number(1)
    return bytes(changed)
