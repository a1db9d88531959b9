"""From `facts/bounds.toml` to operations of wire programs: what must lie within which bounds."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from hesper.protocol.model import Command, Field, Model, Struct

NOWHERE = 0xFFFFFFFF
MEASURED_HANDLES = 4
"""As `MEASURED` of `kernel/core/state.pxd`."""


class Of(IntEnum):
    """What bounds a place; the same numbers as in `kernel/includes/wire.h`."""

    HANDLE = 0
    HANDLES = 1


class Span(IntEnum):
    """How much lies there; the same numbers as in `kernel/includes/wire.h`."""

    BYTES = 0
    FIELD = 1
    STRIDE = 2
    QUERIES = 3
    TEXELS = 4
    NEEDS = 5
    BOX = 6
    CORNERS = 7
    TILE = 8
    VIEW = 9
    FRAMEBUFFER = 10
    PASS = 11
    ATTACHED = 12
    RENDERING = 13
    BEGUN = 14
    CLEARED = 15
    EXECUTED = 16
    NEXT = 17
    CODE = 18
    LIBRARIES = 19
    LOCATED = 20


class Flag(IntFlag):
    """The same numbers as in `kernel/includes/wire.h`."""

    WHOLE = 1
    QUERY = 2
    IMAGE = 4
    NEEDED = 8
    SCALED = 16
    ONE_LAYER = 32
    GROUPS = 64


class Bound(NamedTuple):
    """One row of `hesper_bounds`."""

    of: Of
    span: Span
    flags: Flag
    slot: int
    first_width: int
    span_width: int
    handle: int
    list: int
    counted: int
    step: int
    first: int
    span_at: int
    stride: int
    bytes: int
    part: int
    like: int
    plain: int


@dataclass(frozen=True)
class Rule:
    """One row of the file."""

    of: str = ""
    within: str = ""
    """The other handle, whose extent counts, too."""
    elements: str = ""
    first: str = ""
    size: str = ""
    whole: bool = False
    bytes: int = 0
    count: str = ""
    stride: str = ""
    queries: bool = False
    texels: bool = False
    needs: str = ""
    needed: bool = False
    part: str = ""
    like: str = ""
    scaled: bool = False
    kind: str = ""
    same: str = ""
    groups: bool = False
    tile: bool = False
    pushed: bool = False
    owners: str = ""

    @property
    def is_row(self) -> bool:
        """Whether it becomes a row, not an operation alone."""
        return self.kind != "noted" and not (self.same or self.pushed or self.owners)


_KEYS = {"with": "within", "in": "elements"}


class BoundsError(Exception):
    """A rule about something that there is not."""


def read(path: Path) -> dict[str, list[Rule]]:
    """Read the rules of every command and struct.  Raises OSError, tomllib.TOMLDecodeError."""
    with path.open("rb") as file:
        chapters = tomllib.load(file)
    return {
        owner: [Rule(**{_KEYS.get(key, key): value for key, value in row.items()}) for row in rows]
        for chapter in chapters.values()
        for owner, rows in chapter.items()
    }


def same(rules: dict[str, list[Rule]]) -> set[tuple[str, str]]:
    """Owners and fields that have what an object was made with, and so need no other look."""
    return {(owner, rule.same) for owner, owned in rules.items() for rule in owned if rule.same}


class Bounds:
    """The rows that the rules become."""

    def __init__(self, model: Model, rules: dict[str, list[Rule]]) -> None:
        """Raises BoundsError for a rule about no command or struct."""
        self._model = model
        self._rules = rules
        self.rows: list[Bound] = []
        unknown = rules.keys() - model.commands.keys() - model.structs.keys()
        if unknown:
            raise BoundsError(f"facts/bounds.toml: there is no {min(unknown)}")

    def measured(self, owner: Command | Struct) -> dict[str, int]:
        """Names of the handles in `owner` whose extents count, and the slot that each has.

        What `owner` holds has slots below its own, as it is decoded in between.
        """
        rules = self._rules.get(owner.name, ())
        names = {rule.of for rule in rules} | {rule.within for rule in rules}
        found = [f.name for f in owner.fields if f.name in names and f.kind == "handle"]
        if not found:
            return {}
        inner = [self._model.structs[f.type] for f in owner.fields if f.kind == "struct"]
        first = max((slot + 1 for s in inner for slot in self.measured(s).values()), default=0)
        first += first & 1  # two that belong together differ in the lowest bit
        if first + len(found) > MEASURED_HANDLES:
            raise BoundsError(f"{owner.name}: more than {MEASURED_HANDLES} handles")
        return {name: first + i for i, name in enumerate(found)}

    def add(self, owner: Command | Struct) -> list[tuple[int, int]]:
        """Make rows of the rules about `owner`: (row, offset of the field that it is told by).

        Raises BoundsError.
        """
        rules = self._rules.get(owner.name, ())
        return [self._add(owner, rule) for rule in rules if rule.is_row]

    def same(self, owner: Command | Struct) -> list[tuple[int, int]]:
        """Fields that must have the number of a handle's extent: (offset, the handle's slot)."""
        rules = (rule for rule in self._rules.get(owner.name, ()) if rule.same)
        return [(_field(owner, r.same).offset, self.measured(owner)[r.of]) for r in rules]

    def pushed(self, owner: Command | Struct) -> list[tuple[int, int, int, int, int]]:
        """Push constants: (offset of the first, of their size, of the layout, its slot, flags)."""
        rules = (rule for rule in self._rules.get(owner.name, ()) if rule.pushed)
        return [
            (
                _field(owner, r.first).offset,
                _field(owner, r.size).offset,
                _field(owner, r.of).offset,
                self.measured(owner)[r.of],
                int(_field(owner, r.of).optional),
            )
            for r in rules
        ]

    def owners(self, owner: Command | Struct) -> list[int]:
        """Offsets of two queue families beside each other.  Raises BoundsError."""
        rules = (rule for rule in self._rules.get(owner.name, ()) if rule.owners)
        found = [_field(owner, rule.owners) for rule in rules]
        after = [f.offset + f.size for f in found]
        if any(f.size != 4 for f in found) or not set(after) <= {f.offset for f in owner.fields}:
            raise BoundsError(f"facts/bounds.toml: {owner.name} has no two queue families")
        return [field.offset for field in found]

    def _add(self, owner: Command | Struct, rule: Rule) -> tuple[int, int]:
        place: Command | Struct = owner
        list_ = count = NOWHERE
        step = 0
        if rule.elements:
            array = _field(owner, rule.elements)
            place, list_, step = self._model.structs[array.type], array.offset, array.size
            count = _count_of(owner, array)
        handle = _field(owner, rule.of) if rule.of else None
        of = Of.HANDLES if handle and handle.shape == "array" else Of.HANDLE
        if handle and of is Of.HANDLES:
            count = _count_of(owner, handle)
        flags = _flags(owner, rule)
        if rule.part and _field(place, rule.part).type == "VkImageSubresource":
            flags |= Flag.ONE_LAYER
        span, span_at, stride = _span(place, rule)
        is_common = span in {Span.BYTES, Span.FIELD} and of is not Of.HANDLES
        first = _field(place, rule.first) if rule.first else None
        row = Bound(
            of=of,
            span=span,
            flags=flags,
            slot=self.measured(owner).get(rule.of, 0),
            first_width=first.size if first else 0,
            span_width=span_at.size if span_at else 0,
            handle=handle.offset if handle else NOWHERE,
            list=list_,
            counted=count,
            step=step,
            first=first.offset if first else NOWHERE,
            span_at=span_at.offset if span_at else NOWHERE,
            stride=stride.offset if stride else NOWHERE,
            bytes=rule.bytes,
            part=_field(place, rule.part).offset if rule.part else NOWHERE,
            like=_field(place, rule.like).offset if rule.like else NOWHERE,
            plain=int(is_common and not flags & ~Flag.WHOLE),
        )
        self.rows.append(row)
        told = _field(owner, rule.elements or rule.first or rule.size)
        return len(self.rows) - 1, told.offset


def _flags(owner: Command | Struct, rule: Rule) -> Flag:
    """What counts, and of what."""
    flags = Flag.WHOLE if rule.whole else Flag(0)
    if rule.of and _field(owner, rule.of).type == "VkQueryPool":
        flags |= Flag.QUERY
    if rule.needed:
        flags |= Flag.NEEDED
    if rule.groups:
        flags |= Flag.GROUPS
    if rule.scaled:
        flags |= Flag.SCALED
    asked = rule.needs or (rule.of if rule.needed else "")
    if asked and _field(owner, asked).type == "VkImage":
        flags |= Flag.IMAGE
    return flags


def _span(place: Command | Struct, rule: Rule) -> tuple[Span, Field | None, Field | None]:
    """How much lies there, and the fields that say so: the size or count, and the stride."""
    if rule.kind:
        return Span[rule.kind.upper()], None, None
    if rule.part:
        extent = _field(place, rule.size) if rule.size else None
        return Span.BOX if extent else Span.CORNERS, extent, None
    if rule.size:
        return Span.FIELD, _field(place, rule.size), None
    if rule.count:
        count, stride = _field(place, rule.count), _field(place, rule.stride)
        if count.size != 4 or stride.size != 4:
            raise BoundsError(f"{place.name}: a count or stride that is no uint32_t")
        return Span.STRIDE, count, stride
    if rule.queries:
        return Span.QUERIES, None, None
    if rule.needs:
        return Span.NEEDS, _field(place, rule.needs), None
    if rule.tile:
        return Span.TILE, None, None
    return Span.TEXELS if rule.texels else Span.BYTES, None, None


def _field(owner: Command | Struct, name: str) -> Field:
    for field in owner.fields:
        if field.name == name:
            return field
    raise BoundsError(f"facts/bounds.toml: {owner.name} has no {name}")


def _count_of(owner: Command | Struct, array: Field) -> int:
    """Where the length of an array lies in `owner`, a uint32_t."""
    if array.length is None or len(array.length.path) != 1 or array.length.deref:
        raise BoundsError(f"{owner.name}.{array.name}: an array without a plain count")
    count = _field(owner, array.length.path[0])
    if count.size != 4:
        raise BoundsError(f"{owner.name}.{count.name}: no uint32_t")
    return count.offset
