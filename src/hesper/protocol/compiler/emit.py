"""Writes the tables, the call stubs and the layout check as C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hesper.protocol.compiler.formats import texel_blocks
from hesper.protocol.compiler.tables import Span, TableBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hesper.protocol.compiler.facts import Declaration, Facts
    from hesper.protocol.model import Command, Field, Model, Struct

STYPE_SLOTS = 2048
"""A power of two, well above the number of structs that can be chained."""

_SHAPES = ("value", "fixed", "pointer", "array", "nested", "string", "strings", "null", "chain")
_KINDS = ("scalar", "handle", "struct", "union", "blob", "char")
_RESULTS = ("void", "VkResult", "u32", "u64")
_LEVELS = ("global", "instance", "device", "transport")
_TRAITS = ("may_block", "with_lost_device", "harmless")
_RESULT_TYPES = {"VkResult": "int32_t", "u32": "uint32_t", "u64": "uint64_t"}


def _rows(rows: Iterable[Iterable[object]]) -> str:
    return "".join("    {" + ", ".join(str(c) for c in row) + "},\n" for row in rows)


def _numbers(row: Iterable[int]) -> list[int]:
    return [int(n) for n in row]


def _string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text else "0"


class Emitter:
    """Turns one model into C sources."""

    def __init__(self, model: Model, builder: TableBuilder, vk: Any, facts: Facts) -> None:
        self._model = model
        self._builder = builder
        self._tables = builder.build()
        self._vk = vk
        self._facts = facts
        self._fields: list[tuple[object, ...]] = []

    # Tables.

    def tables(self) -> str:
        """`tables.c`: every table that `wire.h` declares."""
        structs, cases, extends = self._struct_rows()
        commands, aliases = self._command_rows()
        numbers = [0xFFFF] * (max(c.number for c in self._model.commands.values()) + 1)
        for i, command in enumerate(self._model.commands.values()):
            if command.number >= 0:
                numbers[command.number] = i
        ops = [
            (
                int(op.code), op.flags, op.ref, op.length, op.inner, op.offset, op.size,
                op.inner_from, op.inner_step,
            )
            for op in self._tables.ops
        ]  # fmt: skip
        calls = "".join(
            f"void hesper_call_{c.name}(hesper_function, void *);\n"
            for c in self._model.commands.values()
            if c.level != "transport"
        )
        handles = ", ".join(_string(name) for name in self._model.handles)
        values = ", ".join(str(v) for v in self._model.handles.values())
        return (
            '#include "wire.h"\n\n'
            + calls
            + f"\nconst hesper_length hesper_lengths[] = {{\n{_rows(self._tables.lengths)}}};\n"
            + f"const hesper_op hesper_ops[] = {{\n{_rows(ops)}}};\n"
            + self._relation_rows()
            + self._bounds()
            + f"const hesper_field hesper_fields[] = {{\n{_rows(self._fields)}}};\n"
            + f"const hesper_case hesper_cases[] = {{\n{_rows(cases)}}};\n"
            + f"const hesper_struct hesper_structs[] = {{\n{_rows(structs)}}};\n"
            + f"const uint32_t hesper_struct_count = {len(structs)};\n"
            + f"const uint16_t hesper_extends[] = {{{', '.join(map(str, extends))}}};\n"
            + f"const uint16_t hesper_stype_index[] = {{{', '.join(map(str, self._stypes()))}}};\n"
            + aliases
            + f"const hesper_command hesper_commands[] = {{\n{_rows(commands)}}};\n"
            + f"const uint32_t hesper_command_count = {len(commands)};\n"
            + f"const uint16_t hesper_command_index[] = {{{', '.join(map(str, numbers))}}};\n"
            + f"const uint32_t hesper_number_count = {len(numbers)};\n"
            + f"const char *const hesper_handle_names[] = {{{handles}}};\n"
            + f"const uint32_t hesper_handle_values[] = {{{values}}};\n"
            + f"const uint32_t hesper_handle_count = {len(self._model.handles)};\n"
        )

    def _relation_rows(self) -> str:
        r = self._tables.relations
        texts = [(_string(str(text)), *row) for text, *row in r.relations]
        values = ", ".join(f"UINT64_C({v})" for v in r.values)
        return (
            f"const hesper_step hesper_steps[] = {{\n{_rows(map(_numbers, r.steps))}}};\n"
            f"const hesper_term hesper_terms[] = {{\n{_rows(map(_numbers, r.terms))}}};\n"
            f"const hesper_condition hesper_conditions[] = {{\n{_rows(r.conditions)}}};\n"
            f"const hesper_fact hesper_facts[] = {{\n{_rows(r.facts)}}};\n"
            f"const uint64_t hesper_values[] = {{{values}}};\n"
            f"const hesper_relation hesper_relations[] = {{\n{_rows(texts)}}};\n"
        )

    def _bounds(self) -> str:
        """What must lie within which bounds, and how texels lie in buffers."""
        formats = texel_blocks(self._vk)
        rows = map(_numbers, self._builder.bounds.rows)
        return (
            f"const hesper_bound hesper_bounds[] = {{\n{_rows(rows)}}};\n"
            f"const hesper_format hesper_formats[] = {{\n{_rows(formats)}}};\n"
            f"const uint32_t hesper_format_count = {len(formats)};\n"
        )

    def _stypes(self) -> list[int]:
        """Return the hash table by sType: struct index + 1, 0: free.  For `core/structs.pxd`."""
        slots = [0] * STYPE_SLOTS
        for i, struct in enumerate(self._model.structs.values(), 1):
            if struct.stype is None:
                continue
            slot = (struct.stype * 2654435761 & 0xFFFFFFFF) >> 21
            while slots[slot]:
                slot = (slot + 1) % STYPE_SLOTS
            slots[slot] = i
        return slots

    def _add_fields(self, fields: tuple[Field, ...]) -> Span:
        span = Span(len(self._fields), len(fields))
        names = [f.name for f in fields]
        for f in fields:
            ref = 0
            if f.kind in ("struct", "union"):
                ref = self._builder.struct_index[f.type]
            elif f.kind == "handle":
                ref = self._builder.handle_index[f.type]
            length = self._builder.length(f.length, fields) if f.length else 0
            count = 0
            if f.length and len(f.length.path) == 1 and not f.length.deref and f.length.divide == 1:
                count = names.index(f.length.path[0]) + 1
            self._fields.append(
                (
                    _string(f.name),
                    _KINDS.index(f.kind),
                    _SHAPES.index(f.shape),
                    (1 if f.is_float else 0) | (2 if f.is_signed else 0),
                    ref,
                    length,
                    count,
                    f.offset,
                    f.size,
                )
            )
        return span

    def _struct_rows(self) -> tuple[list[Any], list[Any], list[int]]:
        rows: list[Any] = []
        cases: list[Any] = []
        extends: list[int] = []
        for struct in self._model.structs.values():
            full, partial = self._tables.full[struct.name], self._tables.partial[struct.name]
            fields = self._add_fields(struct.fields or tuple(c.field for c in struct.cases))
            own_cases = self._tables.cases.get(struct.name, [])
            roots = [
                self._builder.struct_index[e]
                for e in struct.extends
                if e in self._builder.struct_index
            ]
            rows.append(
                (
                    _string(struct.name), -1 if struct.stype is None else struct.stype, struct.size,
                    *full, *partial, *fields,
                    len(cases), len(own_cases), len(extends), len(roots), int(struct.wire),
                )
            )  # fmt: skip
            cases += [(tag, *span) for tag, span in own_cases]
            extends += roots
        return rows, cases, extends

    def _command_rows(self) -> tuple[list[Any], str]:
        rows, aliases = [], ""
        for c in self._model.commands.values():
            if c.aliases:
                names = ", ".join(_string(a) for a in c.aliases)
                aliases += f"static const char *const aliases_{c.name}[] = {{{names}, 0}};\n"
            made = (f for f in c.fields if c.creates and f.type == c.creates and f.output)
            new = next(made, None)
            length = self._builder.length(new.length, c.fields) if new and new.length else 0
            rows.append(
                (
                    _string(c.name),
                    _string(c.refused),
                    f"aliases_{c.name}" if c.aliases else 0,
                    0 if c.level == "transport" else f"hesper_call_{c.name}",
                    c.number,
                    *self._tables.commands_in[c.name],
                    *self._tables.commands_out[c.name],
                    *self._add_fields(c.fields),
                    c.size,
                    c.result_offset,
                    new.offset if new else 0,
                    length,
                    self._builder.handle_index[c.creates] + 1 if c.creates else 0,
                    _RESULTS.index(c.result),
                    _LEVELS.index(c.level),
                    self._destroys(c),
                    int(bool(new and new.shape == "pointer")),
                    self._traits(c),
                    self._tables.facts.get(c.name, 0),
                    len(self._model.facts.get(c.name, ())),
                )
            )
        return rows, aliases

    def _traits(self, command: Command) -> int:
        """Return the TRAIT_... bits of `wire.h`.  Raises ValueError for a fact about no command."""
        bits = 0
        for trait, names in self._facts.traits.items():
            unknown = set(names) - self._model.commands.keys()
            if unknown:
                raise ValueError(f"facts/rules.toml: traits.{trait}: no command {unknown.pop()}")
            bits |= (command.name in names) << _TRAITS.index(trait)
        return bits

    @staticmethod
    def _destroys(command: Command) -> int:
        if command.name == "vkResetDescriptorPool":
            return 2
        return int(any(f.victim for f in command.fields))

    # Call stubs.

    def calls(self) -> str:
        """`calls.c`: one typed call a command, parameters taken from a block in memory."""
        text = '#include "vulkan_core.h"\n#include "wire.h"\n\n'
        for command in self._model.commands.values():
            if command.level == "transport":
                continue
            text += self._call(command)
        return text

    def _call(self, command: Command) -> str:
        params = self._vk.commands[command.name].params
        members = "".join(f"    {self._parameter(p)};\n" for p in params)
        result = _RESULT_TYPES.get(command.result)
        if result:
            members += f"    {result} result;\n"
        block = f"struct parameters_{command.name}"
        arguments = ", ".join(f"p->{p.name}" for p in params)
        call = f"((PFN_{command.name})function)({arguments})"
        if result:
            call = f"p->result = ({result}){'(uintptr_t)' if command.result == 'u64' else ''}{call}"
        checks = "".join(
            f"_Static_assert(offsetof({block}, {f.name}) == {f.offset}, "
            f'"{command.name}.{f.name}");\n'
            for f in command.fields
        )
        if result:
            checks += (
                f"_Static_assert(offsetof({block}, result) == {command.result_offset}, "
                f'"{command.name}");\n'
            )
        return (
            f"{block} {{\n{members}}};\n{checks}"
            f"void hesper_call_{command.name}(hesper_function function, void *parameters);\n"
            f"void hesper_call_{command.name}(hesper_function function, void *parameters) {{\n"
            f"    {block} *p = parameters;\n    {call};\n}}\n\n"
        )

    @staticmethod
    def _parameter(param: Any) -> str:
        star = "*" if param.fixedSizeArray else ""
        return f"{param.fullType} {star}{param.name}"

    # Layout check.

    def layout_check(self) -> str:
        """`layout_check.c`: compiles only if the model's layouts are the C compiler's."""
        text = '#include "vulkan_core.h"\n#include <stddef.h>\n\n'
        for mesa in self._facts.structs.values():
            members = "".join(f"    {self._declaration(d)};\n" for d in mesa.members)
            text += f"typedef struct {{\n{members}}} {mesa.name};\n"
        for struct in self._model.structs.values():
            text += self._check(struct)
        return text + "\nextern int hesper_layout_checked;\nint hesper_layout_checked = 1;\n"

    @staticmethod
    def _declaration(d: Declaration) -> str:
        return f"{d.fullType} {d.name}"

    @staticmethod
    def _check(struct: Struct) -> str:
        text = f'_Static_assert(sizeof({struct.name}) == {struct.size}, "{struct.name}");\n'
        for f in struct.fields:
            text += (
                f"_Static_assert(offsetof({struct.name}, {f.name}) == {f.offset}, "
                f'"{struct.name}.{f.name}");\n'
            )
        return text
