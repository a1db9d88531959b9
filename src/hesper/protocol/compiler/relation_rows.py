"""From relations to rows of numbers: names become offsets."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hesper.protocol.compiler.relations import RelationError, siblings, walk
from hesper.protocol.relations import DEVICE_NUMBERS, Path, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from hesper.protocol.model import Command, Field, Length, Model, Struct
    from hesper.protocol.relations import Condition, Fact, Relation, Term


class StepCode(enum.IntEnum):
    """Steps of a path; the same numbers as in `kernel/includes/wire.h`."""

    VALUE = 0
    FACT = 1
    GIVEN = 2
    TO = 3
    CHAIN = 4
    EACH = 5
    FIXED = 6
    AT = 7


REST = 0x80
"""In the width of a second number: all ones count as 1."""

COMPARISONS = ("==", "<=", ">=", "<", "in", "given")
REMEDIES = ("", "drop", "pad", "set", "clear")
TERMS = ("value", "path", "bits", "levels", "limit", "at", "last", "aspects")
CONDITIONS = ("in", "has", "given")


@dataclass
class RelationTables:
    """What `hesper_relation` and the tables beside it hold."""

    relations: list[tuple[object, ...]] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)
    terms: list[tuple[int, ...]] = field(default_factory=list)
    conditions: list[tuple[object, ...]] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    places: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Where runs of `values` begin: many relations have the same."""
    facts: list[tuple[int, int]] = field(default_factory=list)
    noted: set[int] = field(default_factory=set)
    """The handles (by the identity of their Field) whose facts are looked at."""


def _mask(condition: Condition) -> int:
    """All bits of `has`; of `in`, a bit for every value below 64."""
    mask = 0
    for value in condition.values:
        mask |= value if condition.kind == "has" else 1 << value if value < 64 else 0
    return mask


class RelationRows:
    """Makes the rows of relations: paths become offsets."""

    def __init__(
        self,
        model: Model,
        tables: RelationTables,
        length: Callable[[Length, tuple[Field, ...]], int],
    ) -> None:
        """`length`: gives the index of a length rule among the fields beside the array."""
        self._model, self._tables, self._length = model, tables, length

    def add(self, owner: Struct | tuple[Field, ...], relations: tuple[Relation, ...]) -> int:
        """Add the relations of a struct or command; return the first one's index."""
        start = len(self._tables.relations)
        self._tables.relations += [self._relation(owner, r) for r in relations]
        return start

    def add_facts(self, command: Command, facts: tuple[Fact, ...]) -> int:
        """Add what is remembered of what a command makes; return the first one's index."""
        start = len(self._tables.facts)
        for fact in facts:
            terms = [self._term(command.fields, t, Path(())) for t in fact.terms]
            self._tables.facts.append((len(self._tables.terms), len(terms)))
            self._tables.terms += terms
        return start

    def limit(self, index: int) -> tuple[int, int | None, int] | None:
        """Offsets of the number, or the two, and of the limit, where a relation is only that."""
        text, left, right, terms, _, values, _, conditions, comparison, remedy, total, *_ = (
            self._tables.relations[index]
        )
        del text
        assert isinstance(left, int)
        assert isinstance(right, int)
        code, width, other_width, _, offset, other, _ = self._tables.steps[left]
        if terms != 1 or values or conditions or remedy or total:
            return None
        kind, limit_width, _, limit = self._tables.terms[right]
        is_limit = kind == TERMS.index("limit") and limit_width == 4
        widths = width == 4 and other_width in (0, 4)
        if code != StepCode.VALUE or comparison != COMPARISONS.index("<="):
            return None
        return (offset, other if other_width else None, limit) if is_limit and widths else None

    def among(self, index: int) -> tuple[int, int] | None:
        """The number's offset, and a bit for every value below 16, where it is one of those."""
        _, left, _, _, values, count, _, conditions, comparison, remedy, total, *_ = (
            self._tables.relations[index]
        )
        assert isinstance(left, int)
        assert isinstance(values, int)
        assert isinstance(count, int)
        code, width, other_width, _, offset, _, _ = self._tables.steps[left]
        if conditions or remedy or total or comparison != COMPARISONS.index("in"):
            return None
        if code != StepCode.VALUE or width != 4 or other_width:
            return None
        return offset, sum(1 << v for v in self._tables.values[values : values + count] if v < 16)

    def meant(self, first: int, count: int) -> tuple[int, int] | None:
        """Where a number is without which some relations are not meant, and a bit for each value.

        None where there is no such number, or it has values above 15.
        """
        shared = {self._tables.relations[first + i][-5:-2] for i in range(count)}
        quick, offset, mask = shared.pop()
        assert isinstance(offset, int)
        bits = int(str(mask).removeprefix("UINT64_C(").removesuffix(")"))
        return None if shared or not quick or bits >> 16 else (offset, bits)

    def _relation(self, owner: Struct | tuple[Field, ...], r: Relation) -> tuple[object, ...]:
        """Return the row of `hesper_relation`, its text first."""
        left = self._path(owner, r.left, given=r.comparison == "given")
        terms = [self._term(owner, t, r.left) for t in r.right]
        conditions = [
            (self._path(owner, c.path, given=c.kind == "given"), *self._values(c.values),
             CONDITIONS.index(c.kind), int(c.unless), f"UINT64_C({_mask(c)})")
            for c in r.conditions
        ]  # fmt: skip
        right, when = len(self._tables.terms), len(self._tables.conditions)
        self._tables.terms += terms
        self._tables.conditions += conditions
        return (
            r.text, left, right, len(terms), *self._values(r.values), when, len(conditions),
            COMPARISONS.index(r.comparison), REMEDIES.index(r.remedy), int(r.total),
            int(self._is_local(left, r)), *self._quick(r), *self._beside(owner, r),
        )  # fmt: skip

    def _is_local(self, left: int, r: Relation) -> bool:
        """Whether a relation is about numbers of the struct itself, and values, alone."""
        first = [
            left,
            *(
                c[0]
                for c in self._tables.conditions[len(self._tables.conditions) - len(r.conditions) :]
            ),
        ]
        codes = [self._tables.steps[i][0] for i in first if isinstance(i, int)]
        return (
            not r.right
            and not r.total
            and all(c in (StepCode.VALUE, StepCode.GIVEN) for c in codes)
        )

    def _quick(self, r: Relation) -> tuple[int, int, str]:
        """What `is_meant` looks at: whether it may, an offset, a mask."""
        first = r.conditions[0] if r.conditions else None
        if first is None or first.unless or first.kind != "in" or len(first.path.steps) > 1:
            return 0, 0, "0"
        index = self._tables.conditions[-len(r.conditions)][0]
        assert isinstance(index, int)
        code, width, other, _, offset, _, _ = self._tables.steps[index]
        if code != StepCode.VALUE or width != 4 or other:
            return 0, 0, "0"
        return 1, offset, f"UINT64_C({_mask(first)})"

    def _beside(self, owner: Struct | tuple[Field, ...], r: Relation) -> tuple[int, int]:
        if not r.beside:
            return 0, 0
        path = Path(r.left.steps[:-1]) if r.remedy == "drop" else r.left
        found = next(f for f in siblings(self._model, owner, path) if f.name == r.beside)
        return found.offset, found.size

    def _values(self, values: tuple[int, ...]) -> tuple[int, int]:
        start = self._tables.places.setdefault(values, len(self._tables.values))
        if start == len(self._tables.values):
            self._tables.values += values
        return start, len(values)

    def _term(self, owner: Struct | tuple[Field, ...], term: Term, left: Path) -> tuple[int, ...]:
        kind = TERMS.index(term.kind)
        structs = self._model.structs
        if term.kind == "value":
            return kind, 0, 0, term.value
        if term.kind == "limit":
            limits = structs["VkPhysicalDeviceLimits"]
            if term.limit in DEVICE_NUMBERS:
                return kind, 4, 0, limits.size + 4 * DEVICE_NUMBERS.index(term.limit)
            limit = next(f for f in limits.fields if f.name == term.limit)
            return kind, limit.size, 0, limit.offset
        assert term.path is not None
        if term.kind == "last":
            return kind, 0, self._path(owner, term.path), term.value
        if term.kind == "levels":
            path = Path((*term.path.steps, Step("field", "width")))
            return kind, 0, self._path(owner, path), 0
        if term.kind == "at":
            fields = owner if isinstance(owner, tuple) else owner.fields
            array = next(f for f in fields if f.name == term.array)
            index = next(
                (f for f in siblings(self._model, owner, left) if f.name == term.index), None
            )
            if index is None or index.size != 4 or array.shape != "array" or array.length is None:
                raise RelationError(f"{term.array}[{term.index}]: no such element")
            row = (StepCode.AT, 4, 0, self._length(array.length, fields), array.offset,
                   index.offset, array.size)  # fmt: skip
            return kind, 0, self._path(structs[array.type], term.path, before=[row]), 0
        return kind, 0, self._path(owner, term.path), 0

    def _path(
        self,
        owner: Struct | tuple[Field, ...],
        path: Path,
        *,
        given: bool = False,
        before: list[tuple[int, ...]] | None = None,
    ) -> int:
        """Add the steps of a path, and `before` before them; return the first one's index."""
        rows = before or []
        fact = path.steps[-1] if path.steps[-1].kind == "fact" else None
        beside = siblings(self._model, owner, path)
        base = 0
        at = owner if isinstance(owner, tuple) else owner.fields
        places = walk(self._model, owner, path)
        for i, (step, struct, f) in enumerate(places):
            last = i == len(places) - 1
            if f is None:
                if struct is None or struct.stype is None:
                    raise RelationError(f"{step.name}: no struct that can be chained")
                rows.append((StepCode.CHAIN, 0, 0, 0, base, 0, struct.stype))
                base, at = 0, struct.fields
                continue
            offset = base + f.offset
            base = 0
            if last and fact is not None:
                slot = self._slot(f.type, fact.name)
                rows.append((StepCode.FACT, slot, 0, 0, offset, 0, 0))
                self._tables.noted.add(id(f))
            elif last and given:
                rows.append((StepCode.GIVEN, 8, 0, 0, offset, 0, 0))
            elif step.kind == "each" or f.shape == "pointer":
                rows.append(self._pointed(f, at, offset))
                if last:
                    rows.append((StepCode.VALUE, f.size, 0, 0, 0, 0, 0))
            elif last:
                width, start = self._plus(beside, path.plus) if path.plus else (0, 0)
                start += offset - f.offset if width else 0
                width |= REST if path.rest else 0
                rows.append((StepCode.VALUE, f.size, width, 0, offset, start, 0))
            else:
                base = offset
            if f.kind == "struct":
                at = self._model.structs[f.type].fields
        first = len(self._tables.steps)
        self._tables.steps += rows
        return first

    def _plus(self, beside: tuple[Field, ...], names: str) -> tuple[int, int]:
        """Size and offset of a field, or of one in a struct that is one of those fields."""
        offset = 0
        for name in names.split("."):
            f = next(f for f in beside if f.name == name)
            offset += f.offset
            beside = self._model.structs[f.type].fields if f.kind == "struct" else ()
        return f.size, offset

    def _slot(self, handle: str, fact: str) -> int:
        """Where a fact of an object stands."""
        names = [
            [f.name for f in facts]
            for command, facts in self._model.facts.items()
            if self._model.commands[command].creates == handle
        ]
        return names[0].index(fact)

    def _pointed(self, f: Field, beside: tuple[Field, ...], offset: int) -> tuple[int, ...]:
        """Return the step to what a pointer points to, or to each element of an array."""
        if f.shape == "pointer":
            return (StepCode.TO, 0, 0, 0, offset, 0, 0)
        assert f.length is not None
        code = StepCode.FIXED if f.shape == "fixed" else StepCode.EACH
        return (code, 0, 0, self._length(f.length, beside), offset, offset - f.offset, f.size)
