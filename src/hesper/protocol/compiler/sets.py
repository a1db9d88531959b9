"""From `facts/sets.toml` to operations of wire programs: where descriptors meet their layouts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from hesper.protocol.model import Command, Model, Struct


FIRST_SLOTS = {"write": 2, "push": 3, "push_info": 3}
"""`WRITTEN` and `PUSHED` of `kernel/core/set_runs.pxd`: what is decoded later uses those below."""


class Kind(IntEnum):
    """What is looked at; the same numbers as LOOK_... in `kernel/includes/wire.h`."""

    WRITE = 0
    COPY = 1
    UPDATE = 2
    PUSH = 3
    PUSH_INFO = 4
    BIND = 5
    BIND_INFO = 6
    LAYOUT = 7
    ALLOCATE = 8
    PIPELINE = 9
    TEMPLATE = 10


@dataclass(frozen=True)
class Rule:
    """One row of the file."""

    look: str
    of: tuple[str, ...] = ()
    after: str = ""


class Look(NamedTuple):
    """What is to be looked at, and behind the field at which offset; None: behind the last."""

    kind: Kind
    after: int | None


class SetsError(Exception):
    """A rule about something that there is not."""


def read(path: Path) -> dict[str, Rule]:
    """Read the rule of every command and struct.  Raises OSError, tomllib.TOMLDecodeError."""
    with path.open("rb") as file:
        rows = tomllib.load(file)
    return {
        owner: Rule(row["look"], tuple(row.get("of", ())), row.get("after", ""))
        for owner, row in rows.items()
    }


class Sets:
    """The rules, and where they apply."""

    def __init__(self, model: Model, rules: dict[str, Rule]) -> None:
        """Raises SetsError for a rule about no command or struct."""
        self._rules = rules
        unknown = rules.keys() - model.commands.keys() - model.structs.keys()
        if unknown:
            raise SetsError(f"facts/sets.toml: there is no {min(unknown)}")

    def measured(self, owner: Command | Struct) -> dict[str, int]:
        """Slots of the handles in `owner` whose descriptions are needed, by name.

        Raises SetsError.
        """
        rule = self._rules.get(owner.name)
        if rule is None:
            return {}
        found = [f.name for f in owner.fields if f.name in rule.of and f.kind == "handle"]
        if tuple(found) != rule.of:
            raise SetsError(f"facts/sets.toml: the handles of {owner.name} are not {rule.of}")
        first = FIRST_SLOTS.get(rule.look, 0)
        return {name: first + i for i, name in enumerate(found)}

    def look(self, owner: Command | Struct) -> Look | None:
        """What is to be looked at in `owner`, if anything.  Raises SetsError."""
        rule = self._rules.get(owner.name)
        if rule is None:
            return None
        try:
            kind = Kind[rule.look.upper()]
        except KeyError:
            raise SetsError(f"facts/sets.toml: there is no look {rule.look!r}") from None
        if not rule.after:
            return Look(kind, None)
        for field in owner.fields:
            if field.name == rule.after:
                return Look(kind, field.offset)
        raise SetsError(f"facts/sets.toml: {owner.name} has no {rule.after}")
