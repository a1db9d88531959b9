"""How each command of the Venus protocol is served."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from hesper.guest.handlers import all_handlers
from hesper.kernel import engine
from hesper.protocol import load

How: TypeAlias = Literal["kernel", "python", "refused"]
"""By the compiled kernel alone; by a handler, which decides; not at all."""


class ServedCommand(msgspec.Struct, frozen=True):
    """One command of the protocol."""

    number: int
    """Its number on the wire."""
    name: str
    """As in Vulkan; those of the protocol itself end in `MESA`."""
    served: How
    """`kernel`, `python` or `refused`."""
    reason: str = ""
    """Why it is refused."""


def served_commands() -> list[ServedCommand]:
    """All commands by number."""
    handlers = all_handlers()
    model = load()
    rows = []
    for number, name, how in engine.commands():
        served: How = "refused" if how == "refused" else "python" if name in handlers else "kernel"
        if how == "python" and name not in handlers:
            raise RuntimeError(f"{name}: neither the kernel nor a handler serves it")
        rows.append(ServedCommand(number, name, served, model.commands[name].refused))
    return rows
