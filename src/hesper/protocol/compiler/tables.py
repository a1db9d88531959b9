"""From the model to wire programs."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hesper.protocol.compiler.bounds import NOWHERE
from hesper.protocol.compiler.relation_rows import RelationRows, RelationTables
from hesper.protocol.model import Struct

if TYPE_CHECKING:
    from hesper.protocol.compiler.bounds import Bound, Bounds
    from hesper.protocol.compiler.sets import Sets
    from hesper.protocol.model import Command, Field, Length, Model


class Code(enum.IntEnum):
    """Operations of a wire program; the same numbers as in `kernel/includes/wire.h`."""

    COPY = 0
    NARROW = 1
    HANDLE = 2
    STRUCT = 3
    UNION = 4
    STYPE = 5
    CHAIN = 6
    NULL = 7
    FIXED_COPY = 8
    FIXED_STRUCT = 9
    POINTER_COPY = 10
    POINTER_STRUCT = 11
    POINTER_HANDLE = 12
    ARRAY_COPY = 13
    ARRAY_STRUCT = 14
    ARRAY_HANDLE = 15
    STRING = 16
    STRINGS = 17
    NESTED_COPY = 18
    NESTED_STRUCT = 19
    POINTER_OUT = 20
    POINTER_PARTIAL = 21
    ARRAY_OUT = 22
    ARRAY_PARTIAL = 23
    STRUCT_PARTIAL = 24
    FIXED_PARTIAL = 25
    CHAIN_PARTIAL = 26
    CHECK = 27
    CHECK_LIMIT = 28
    SETS = 29
    BOUND = 30
    BOUND_COPIES = 31
    BOUND_SAME = 32
    BOUND_PUSHED = 33
    BOUND_OWNERS = 34


AMONG = 2
"""In `inner_step` of CHECK_LIMIT: a number that is one of those in the mask."""
MEANT = 3
"""The same of relations that are meant only where the number is one of those in the mask."""

NULLABLE, FIRST, VICTIM, PARENT, MEASURED, NOTED, REQUIRED, FEATURE = (1 << i for i in range(8))


class Op(NamedTuple):
    """One operation (`hesper_op`)."""

    code: Code
    offset: int
    size: int = 0
    ref: int = 0
    length: int = 0
    inner: int = 0
    flags: int = 0
    inner_from: int = 0
    inner_step: int = 0


class Span(NamedTuple):
    """A run of rows in one of the tables."""

    start: int
    rows: int


@dataclass
class Tables:
    """All tables, as rows of numbers."""

    ops: list[Op] = field(default_factory=list)
    lengths: list[tuple[int, ...]] = field(default_factory=list)
    full: dict[str, Span] = field(default_factory=dict)
    partial: dict[str, Span] = field(default_factory=dict)
    cases: dict[str, list[tuple[int, Span]]] = field(default_factory=dict)
    commands_in: dict[str, Span] = field(default_factory=dict)
    commands_out: dict[str, Span] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)
    relations: RelationTables = field(default_factory=RelationTables)


def _joined(ops: list[Op], rows: list[Bound]) -> list[Op]:
    """One operation for the two ends of a copy between buffers."""
    if [op.code for op in ops] != [Code.BOUND, Code.BOUND]:
        return ops
    source, target = (rows[op.ref] for op in ops)
    same = source._replace(slot=1, handle=target.handle, first=source.first + 8) == target
    is_copy = source.plain and source.list != NOWHERE and source.span_at == source.first + 16
    if not (same and is_copy and source.slot == 0 and source.span_width == 8):
        return ops
    return [
        Op(
            Code.BOUND_COPIES,
            source.list,
            source.step,
            length=ops[0].ref,
            inner_from=source.counted,
            inner_step=source.first,
        )
    ]


class LayoutError(Exception):
    """A field that no operation fits."""


class TableBuilder:
    """Makes the wire programs of a model."""

    def __init__(self, model: Model, bounds: Bounds, sets: Sets) -> None:
        self.model = model
        self.bounds = bounds
        self._sets = sets
        self.tables = Tables()
        self.struct_index = {name: i for i, name in enumerate(model.structs)}
        self.handle_index = {name: i for i, name in enumerate(model.handles)}
        self._relations: dict[str, int] = {}
        self._length_index: dict[tuple[int, ...], int] = {}

    def build(self) -> Tables:
        """Programs of all structs and commands.  Raises LayoutError."""
        outputs = self._output_structs()
        self._relate()
        for struct in self.model.structs.values():
            if struct.cases:
                self._union(struct)
                continue
            self.tables.full[struct.name] = self._add(self._struct_ops(struct, partial=False))
            self.tables.partial[struct.name] = (
                self._add(self._struct_ops(struct, partial=True))
                if struct.name in outputs
                else Span(0, 0)
            )
        for command in self.model.commands.values():
            refused = bool(command.refused)
            self.tables.commands_in[command.name] = (
                Span(0, 0) if refused else self._add(self._in_ops(command))
            )
            self.tables.commands_out[command.name] = (
                Span(0, 0) if refused else self._add(self._out_ops(command))
            )
        return self.tables

    def _output_structs(self) -> set[str]:
        """Structs that commands fill in: those in output parameters and those they contain."""
        found: set[str] = set()
        waiting = [
            f.type
            for c in self.model.commands.values()
            if not c.refused
            for f in c.fields
            if f.output and f.kind == "struct"
        ]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            waiting += [f.type for f in self.model.structs[name].fields if f.kind == "struct"]
            waiting += [s.name for s in self.model.structs.values() if s.wire and name in s.extends]
        return found

    def is_pod(self, struct: Struct) -> bool:
        """Whether the wire layout of `struct` equals its C layout."""
        if struct.cases or struct.stype is not None:
            return False
        end = 0
        for f in struct.fields:
            if f.shape != "value" or f.offset != end:
                return False
            if f.kind == "struct" and not self.is_pod(self.model.structs[f.type]):
                return False
            if f.kind not in ("struct", "scalar") or (f.kind == "scalar" and f.wire != f.size):
                return False
            end += f.size
        return end == struct.size

    def _add(self, ops: list[Op]) -> Span:
        merged: list[Op] = []
        for op in ops:
            last = merged[-1] if merged else None
            if (
                last is not None
                and op.code is Code.COPY
                and last.code is Code.COPY
                and last.offset + last.size == op.offset
            ):
                merged[-1] = last._replace(size=last.size + op.size)
            else:
                merged.append(op)
        span = Span(len(self.tables.ops), len(merged))
        self.tables.ops.extend(merged)
        return span

    def length(self, length: Length, siblings: tuple[Field, ...]) -> int:
        """Index of the length rule."""
        add, divide = length.add, length.divide
        if not length.path:
            row = (0, 4, 0, 0, length.constant, add, divide)
        else:
            first = next(f for f in siblings if f.name == length.path[0])
            if len(length.path) == 1:
                mode = 2 if length.deref else 1
                row = (mode, first.size, first.offset, 0, 0, add, divide)
            else:
                inner = self.model.structs[first.type].fields
                second = next(f for f in inner if f.name == length.path[1])
                row = (3, second.size, first.offset, second.offset, 0, add, divide)
        if row[1] not in (4, 8):
            raise LayoutError(f"{length.path}: a length of {row[1]} bytes")
        if row not in self._length_index:
            self._length_index[row] = len(self.tables.lengths)
            self.tables.lengths.append(row)
        return self._length_index[row]

    def _relate(self) -> None:
        """Make the rows of all relations and facts."""
        rows = RelationRows(self.model, self.tables.relations, self.length)
        for command, facts in self.model.facts.items():
            self.tables.facts[command] = rows.add_facts(self.model.commands[command], facts)
        for name, relations in self.model.relations.items():
            command_fields = self.model.commands[name].fields if name in self.model.commands else ()
            owner = command_fields or self.model.structs[name]
            self._relations[name] = rows.add(owner, relations)

    def _check(self, name: str, owner: Struct | tuple[Field, ...]) -> list[Op]:
        """The operation that holds what has been decoded against its relations, if it has any."""
        relations = self.model.relations.get(name)
        if not relations:
            return []
        if not isinstance(owner, tuple) and self.is_pod(owner):
            raise LayoutError(f"{name} is copied whole: its relations are those of what holds it")
        rows = RelationRows(self.model, self.tables.relations, self.length)
        ops: list[Op] = []
        for index in range(self._relations[name], self._relations[name] + len(relations)):
            simple = self._simple(rows, index)
            last = ops[-1] if ops else None
            if simple is not None:
                ops.append(simple)
            elif last is not None and last.code is Code.CHECK:
                ops[-1] = last._replace(length=last.length + 1)
            else:
                ops.append(Op(Code.CHECK, 0, ref=index, length=1))
        return [self._seldom(rows, op) if op.code is Code.CHECK else op for op in ops]

    @staticmethod
    def _seldom(rows: RelationRows, op: Op) -> Op:
        """The same, which the decoder's loop passes over where none of its relations is meant."""
        meant = rows.meant(op.ref, op.length)
        if meant is None:
            return op
        offset, mask = meant
        return op._replace(code=Code.CHECK_LIMIT, offset=offset, inner=mask, inner_step=MEANT)

    @staticmethod
    def _simple(rows: RelationRows, index: int) -> Op | None:
        """The operation of a relation that the decoder's loop can look at by itself."""
        limit = rows.limit(index)
        if limit is not None:
            first, second, place = limit
            return Op(
                Code.CHECK_LIMIT, first, place, index, 1, inner_from=second or 0,
                inner_step=int(second is not None),
            )  # fmt: skip
        among = rows.among(index)
        if among is None:
            return None
        place, mask = among
        return Op(Code.CHECK_LIMIT, place, 0, index, 1, inner=mask, inner_step=AMONG)

    # Structs.

    def _union(self, struct: Struct) -> None:
        whole = Op(Code.UNION, 0, struct.size, self.struct_index[struct.name])
        self.tables.full[struct.name] = self._add([whole])
        self.tables.partial[struct.name] = Span(0, 0)
        self.tables.cases[struct.name] = [
            (tag, self._add(self._field_ops(case.field, (), partial=False)))
            for case in struct.cases
            for tag in case.tags
        ]

    def _struct_ops(self, struct: Struct, *, partial: bool) -> list[Op]:
        ops = []
        index = self.struct_index[struct.name]
        for f in struct.fields:
            if struct.stype is not None and f.name == "sType":
                ops.append(Op(Code.STYPE, f.offset, ref=index))
            elif f.shape == "chain":
                code = Code.CHAIN_PARTIAL if partial else Code.CHAIN
                ops.append(Op(code, f.offset, ref=index))
            else:
                ops += self._field_ops(f, struct.fields, partial=partial)
        if partial:
            return ops
        return self._bounded(struct, ops) + self._check(struct.name, struct)

    def _bounded(self, owner: Struct | Command, ops: list[Op]) -> list[Op]:
        """Have the handles whose extents count noted, and what they bound looked at.

        Raises LayoutError.
        """
        bounds = [Op(Code.BOUND, offset, ref=row) for row, offset in self.bounds.add(owner)]
        if bounds and isinstance(owner, Struct) and self.is_pod(owner):
            raise LayoutError(f"{owner.name} is copied as a whole, bounds cannot be looked at")
        measured = self.bounds.measured(owner) | self._sets.measured(owner)
        slots = {f.offset: measured[f.name] for f in owner.fields if f.name in measured}
        ops = [
            op._replace(flags=op.flags | MEASURED, inner=slots[op.offset])
            if op.offset in slots and op.code in {Code.HANDLE, Code.ARRAY_HANDLE}
            else op
            for op in ops
        ]
        look = self._sets.look(owner)
        if look is not None:
            at = next((i + 1 for i, op in enumerate(ops) if op.offset == look.after), len(ops))
            ops.insert(at, Op(Code.SETS, look.after or 0, ref=look.kind))
        special = [Op(Code.BOUND_SAME, at, inner=slot) for at, slot in self.bounds.same(owner)]
        special += [
            Op(Code.BOUND_PUSHED, first, size, inner=slot, inner_from=handle, flags=flags)
            for first, size, handle, slot, flags in self.bounds.pushed(owner)
        ]
        special += [Op(Code.BOUND_OWNERS, at) for at in self.bounds.owners(owner)]
        return ops + _joined(bounds, self.bounds.rows) + special

    def _field_ops(self, f: Field, siblings: tuple[Field, ...], *, partial: bool) -> list[Op]:
        """Operations of a struct member."""
        if not partial:
            return [self._full_op(f, siblings)]
        if f.shape == "value":
            if f.kind in ("struct", "union"):
                inner = self.model.structs[f.type]
                if inner.cases:
                    raise LayoutError(f"{f.name}: a union in an output struct")
                return [Op(Code.STRUCT_PARTIAL, f.offset, ref=self.struct_index[f.type])]
            return [self._full_op(f, siblings)] if f.counts else []
        if f.shape == "fixed":
            if f.kind == "handle":
                return [self._fixed_ids(f, siblings)]
            if f.kind != "struct":
                return []
            return [
                Op(
                    Code.FIXED_PARTIAL,
                    f.offset,
                    size=f.size,
                    ref=self.struct_index[f.type],
                    length=self._length_of(f, siblings),
                )
            ]
        return [self._output_op(f, siblings)]

    def _fixed_ids(self, f: Field, siblings: tuple[Field, ...]) -> Op:
        return Op(Code.FIXED_COPY, f.offset, size=8, length=self._length_of(f, siblings))

    def _length_of(self, f: Field, siblings: tuple[Field, ...]) -> int:
        if f.length is None:
            raise LayoutError(f"{f.name}: an array without a length")
        return self.length(f.length, siblings)

    def _full_op(self, f: Field, siblings: tuple[Field, ...]) -> Op:
        flags = (
            (NULLABLE if f.optional else 0)
            | (VICTIM if f.victim else 0)
            | (PARENT if f.parent else 0)
            | (NOTED if id(f) in self.tables.relations.noted else 0)
            | (REQUIRED if f.kind == "handle" and not f.may_be_null else 0)
            | (FEATURE if f.null_by_feature else 0)
        )
        if f.shape in ("value", "fixed"):
            return self._in_place_op(f, siblings, flags)
        if f.shape == "null":
            return Op(Code.NULL, f.offset)
        if f.shape == "string":
            return Op(Code.STRING, f.offset, flags=flags)
        if f.shape == "strings":
            length = self._length_of(f, siblings)
            return Op(Code.STRINGS, f.offset, length=length, flags=flags)
        if f.shape == "nested":
            return self._nested_op(f, siblings, flags)
        array = f.shape == "array"
        length = self._length_of(f, siblings) if array else 0
        if f.kind == "handle":
            code = Code.ARRAY_HANDLE if array else Code.POINTER_HANDLE
            return Op(code, f.offset, 8, self.handle_index[f.type], length, flags=flags)
        if self._copies(f):
            code = Code.ARRAY_COPY if array else Code.POINTER_COPY
            return Op(code, f.offset, f.size, length=length, flags=flags)
        code = Code.ARRAY_STRUCT if array else Code.POINTER_STRUCT
        return Op(code, f.offset, f.size, self.struct_index[f.type], length, flags=flags)

    def _in_place_op(self, f: Field, siblings: tuple[Field, ...], flags: int) -> Op:
        fixed = f.shape == "fixed"
        if f.kind == "handle":
            if fixed:
                return self._fixed_ids(f, siblings)
            return Op(Code.HANDLE, f.offset, 8, self.handle_index[f.type], flags=flags)
        if fixed:
            length = self._length_of(f, siblings)
            if self._copies(f):
                return Op(Code.FIXED_COPY, f.offset, f.size, length=length)
            return Op(Code.FIXED_STRUCT, f.offset, f.size, self.struct_index[f.type], length=length)
        if self._copies(f):
            return Op(Code.COPY, f.offset, f.size)
        if f.selector:
            selector = next(s for s in siblings if s.name == f.selector)
            return Op(
                Code.UNION,
                f.offset,
                f.size,
                self.struct_index[f.type],
                inner_from=selector.offset,
                inner_step=selector.size,
            )
        if f.kind in ("struct", "union"):
            return Op(Code.STRUCT, f.offset, f.size, self.struct_index[f.type])
        return Op(Code.NARROW, f.offset, f.size)

    def _nested_op(self, f: Field, siblings: tuple[Field, ...], flags: int) -> Op:
        if f.inner is None:
            raise LayoutError(f"{f.name}: nested without an inner length")
        step = offset = 0
        inner_siblings: tuple[Field, ...] = ()
        if f.inner_of:
            sibling = next(s for s in siblings if s.name == f.inner_of)
            offset, step = sibling.offset, sibling.size
            inner_siblings = self.model.structs[sibling.type].fields
        copies = self._copies(f)
        return Op(
            Code.NESTED_COPY if copies else Code.NESTED_STRUCT,
            f.offset,
            f.size,
            0 if copies else self.struct_index[f.type],
            self._length_of(f, siblings),
            self.length(f.inner, inner_siblings),
            flags,
            offset,
            step,
        )

    def _copies(self, f: Field) -> bool:
        """Whether elements of `f` are equal on the wire and in C (in arrays: u8 and u16 too)."""
        if f.kind in ("blob", "char"):
            return True
        if f.kind == "scalar":
            return f.size == f.wire or f.shape in ("array", "fixed")
        return f.kind == "struct" and self.is_pod(self.model.structs[f.type])

    # Commands.

    def _in_ops(self, command: Command) -> list[Op]:
        ops = []
        for i, f in enumerate(command.fields):
            if f.output and f.shape != "null":
                ops.append(self._output_op(f, command.fields))
                continue
            op = self._full_op(f, command.fields)
            if i == 0 and f.kind == "handle" and f.shape == "value":
                op = op._replace(flags=op.flags | FIRST)
            ops.append(op)
        return self._bounded(command, ops) + self._check(command.name, command.fields)

    def _output_op(self, f: Field, siblings: tuple[Field, ...]) -> Op:
        """How an output parameter (or output array in a struct) comes in."""
        flags = NULLABLE if f.optional else 0
        if f.shape == "pointer":
            if f.kind == "struct":
                return Op(
                    Code.POINTER_PARTIAL, f.offset, f.size, self.struct_index[f.type], flags=flags
                )
            reads = f.kind == "handle" or f.counts
            code = Code.POINTER_COPY if reads else Code.POINTER_OUT
            return Op(code, f.offset, f.size, flags=flags)
        if f.shape != "array":
            raise LayoutError(f"{f.name}: no rule for an output of shape {f.shape}")
        length = self._length_of(f, siblings)
        if f.kind == "struct":
            return Op(
                Code.ARRAY_PARTIAL,
                f.offset,
                f.size,
                self.struct_index[f.type],
                length,
                flags=flags,
            )
        code = Code.ARRAY_COPY if f.kind == "handle" else Code.ARRAY_OUT
        return Op(code, f.offset, f.size, length=length, flags=flags)

    def _out_ops(self, command: Command) -> list[Op]:
        """What the reply carries: outputs in full.  Handles lie there as guest ids."""
        ops = []
        for f in command.fields:
            if not f.output or f.shape == "null":
                continue
            op = self._full_op(f, command.fields)
            if op.code is Code.POINTER_HANDLE:
                op = op._replace(code=Code.POINTER_COPY)
            elif op.code is Code.ARRAY_HANDLE:
                op = op._replace(code=Code.ARRAY_COPY)
            ops.append(op)
        return ops
