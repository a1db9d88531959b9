"""Writes what compiled code calls things by: commands, handle types, enumerants, structs.

`commands.h` has an enumerator a command and a handle type, the registry's enumerants, and every
struct and parameter block as the kernel sees it: with the handles as numbers.  Its layout is
asserted to be the model's, which `layout_check.c` and `calls.c` hold against Vulkan's own header.
Where a field lies on the wire, from the first byte of its command or struct on, is `WIRE_...`, as
far as that does not depend on what came before (for chains: as if they were empty).
`hesper_commands.pxd` declares all of it to Cython.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hesper.protocol.model import Command, Field, Model, Struct

_SCALARS = {
    (1, False): "uint8_t", (1, True): "int8_t", (2, False): "uint16_t", (2, True): "int16_t",
    (4, False): "uint32_t", (4, True): "int32_t", (8, False): "uint64_t", (8, True): "int64_t",
}  # fmt: skip

_COMMAND_HEADER = 8
"""Bytes of a command's number and flags."""


def block_name(command: str) -> str:
    """Return the C type of a command's parameter block."""
    return f"{command}_parameters"


class Names:
    """Turns one model and the registry's enumerants into a C header and its Cython declarations."""

    def __init__(self, model: Model, vk: Any) -> None:
        """`vk`: the registry, as `vulkan_object` reads it."""
        self._model = model
        self._enumerants = dict(_enumerants(vk))
        self._offsets = dict(self._wire_offsets())

    def header(self) -> str:
        """`commands.h`."""
        structs = self._model.structs
        blocks = self._blocks()
        return (
            "#ifndef HESPER_COMMANDS_H\n#define HESPER_COMMANDS_H\n\n"
            "#include <stddef.h>\n#include <stdint.h>\n\n"
            "/* Indices into hesper_commands. */\nenum {\n"
            + "".join(f"    COMMAND_{n} = {i},\n" for i, n in enumerate(self._model.commands))
            + "};\n\n/* Indices into hesper_handle_names, and one: what an object table holds. */\n"
            + "enum {\n"
            + "".join(f"    HANDLE_{n} = {i},\n" for i, n in enumerate(self._model.handles, 1))
            + "};\n\n"
            + "".join(f"#define {name} {value}\n" for name, value in self._enumerants.items())
            + "\nenum {\n"
            + "".join(f"    {name} = {value},\n" for name, value in self._offsets.items())
            + "};\n\n"
            + "".join(f"typedef {_keyword(s)} {name} {name};\n" for name, s in structs.items())
            + "\n"
            + "".join(self._c_struct(structs[name]) for name in self._ordered())
            + "".join(self._c_block(name, c) for name, c in blocks.items())
            + "\n#endif\n"
        )

    def declarations(self) -> str:
        """`hesper_commands.pxd`."""
        structs = self._model.structs
        constants = [
            *(f"COMMAND_{name}" for name in self._model.commands),
            *(f"HANDLE_{name}" for name in self._model.handles),
            *(n for n, v in self._enumerants.items() if isinstance(v, int)),
            *self._offsets,
        ]
        wide = [n for n, v in self._enumerants.items() if not isinstance(v, int)]
        text = (
            '"""Commands, handle types, enumerants and structs of the registry."""\n\n'
            "from libc.stdint cimport (\n"
            "    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)\n\n\n"
            'cdef extern from "commands.h" nogil:\n    enum:\n'
            + "".join(f"        {name}\n" for name in constants)
            + "".join(f"    const uint64_t {name}\n" for name in wide)
        )
        for name in self._ordered():
            struct = structs[name]
            fields = [f"{_type(f)} {f.name}{_extent(f)}" for f in _fields(struct)]
            text += _declaration(_keyword(struct), name, fields)
        for name, command in self._blocks().items():
            fields = [f"{_type(f)} {f.name}" for f in command.fields]
            if command.result != "void":
                fields.append(f"{_result(command)} result")
            text += _declaration("struct", name, fields)
        return text

    def _blocks(self) -> dict[str, Command]:
        return {block_name(c.name): c for c in self._model.commands.values() if c.fields}

    def _wire_offsets(self) -> Iterator[tuple[str, int]]:
        for command in self._model.commands.values():
            yield from self._wire(command.name, command.fields, _COMMAND_HEADER)[0]
        for struct in self._model.structs.values():
            found, size = self._wire(struct.name, struct.fields, 0)
            yield from found
            if size is not None and struct.fields:
                yield f"WIRE_{struct.name}_SIZE", size

    def _wire(
        self, name: str, fields: tuple[Field, ...], start: int
    ) -> tuple[list[tuple[str, int]], int | None]:
        """Find the fields at fixed places, and the size; None when that is not fixed."""
        found = []
        at: int | None = start
        for field in fields:
            if at is None:
                break
            found.append((f"WIRE_{name}_{field.name}", at))
            size = self._wire_size(field)
            at = None if size is None else at + size
        return found, at

    def _wire_size(self, field: Field) -> int | None:
        if field.shape in ("chain", "null"):
            return 8
        if field.shape != "value" or field.kind == "union":
            return None
        if field.kind == "struct":
            return self._wire(field.type, self._model.structs[field.type].fields, 0)[1]
        return 8 if field.kind == "handle" else field.wire

    def _ordered(self) -> list[str]:
        """Structs, each behind those it holds or points to, as far as that is possible."""
        done: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in done:
                return
            for field in _fields(self._model.structs[name]):
                if field.kind in ("struct", "union") and field.shape in ("value", "fixed"):
                    visit(field.type)
            done[name] = None

        for name in self._model.structs:
            visit(name)
        return list(done)

    def _c_struct(self, struct: Struct) -> str:
        members = _members(_fields(struct), struct.size, gaps=not struct.cases)
        return f"{_keyword(struct)} {struct.name} {{\n{members}}};\n" + _asserts(
            struct.name, struct.size, _fields(struct)
        )

    @staticmethod
    def _c_block(name: str, command: Command) -> str:
        fields = list(command.fields)
        members = _members(fields, 0, gaps=True)
        text = f"typedef struct {{\n{members}"
        if command.result != "void":
            text += f"    {_result(command)} result;\n"
        text += (
            f"}} {name};\n" + _assert(f"sizeof({name}) <= {command.size}") + _offsets(name, fields)
        )
        if command.result != "void":
            text += _assert(f"offsetof({name}, result) == {command.result_offset}")
        return text


def _enumerants(vk: Any) -> Iterator[tuple[str, int | str]]:
    """Every constant, enumerant and flag: an int, or C for what may not fit into one."""
    for constant in vk.constants.values():
        if isinstance(constant.value, int):
            yield constant.name, f"UINT64_C({constant.value:#x})"
    for enum in vk.enums.values():
        for field in enum.fields:
            yield field.name, field.value
    for mask in vk.bitmasks.values():
        for flag in mask.flags:
            yield flag.name, flag.value if flag.value < 1 << 31 else f"UINT64_C({flag.value:#x})"


def _keyword(struct: Struct) -> str:
    return "union" if struct.cases else "struct"


def _fields(struct: Struct) -> list[Field]:
    """Fields as they lie in memory."""
    found = struct.fields or tuple({c.field.name: c.field for c in struct.cases}.values())
    return sorted(found, key=lambda f: f.offset)


def _result(command: Command) -> str:
    return {"VkResult": "int32_t", "u32": "uint32_t", "u64": "uint64_t"}[command.result]


def _element(field: Field) -> str:
    if field.kind in ("struct", "union"):
        return field.type
    if field.kind == "handle":
        return "uint64_t"
    if field.kind == "char":
        return "char"
    if field.kind == "blob":
        return "void"
    if field.is_float:
        return "float" if field.size == 4 else "double"
    return _SCALARS[field.size, field.is_signed]


def _type(field: Field) -> str:
    if field.shape in ("value", "fixed"):
        return _element(field)
    if field.shape in ("chain", "null"):
        return "void *"
    if field.shape in ("strings", "nested"):
        return _element(field) + " **"
    return _element(field) + " *"


def _extent(field: Field) -> str:
    if field.shape != "fixed" or field.length is None:
        return ""
    return f"[{field.length.constant}]"


def _bytes(field: Field) -> int:
    if field.shape == "fixed" and field.length is not None:
        return field.size * field.length.constant
    return field.size if field.shape == "value" else 8


def _members(fields: list[Field], size: int, *, gaps: bool) -> str:
    """Declare them in C.  gaps: with what the model leaves out, such as fields nobody sends."""
    text = ""
    end = 0
    for field in fields:
        if gaps and field.offset > end:
            text += f"    uint8_t gap_{end}[{field.offset - end}];\n"
        text += f"    {_type(field)} {field.name}{_extent(field)};\n"
        end = field.offset + _bytes(field)
    if gaps and size > end:
        text += f"    uint8_t gap_{end}[{size - end}];\n"
    return text


def _asserts(name: str, size: int, fields: list[Field]) -> str:
    return _assert(f"sizeof({name}) == {size}") + _offsets(name, fields)


def _offsets(name: str, fields: list[Field]) -> str:
    return "".join(_assert(f"offsetof({name}, {f.name}) == {f.offset}") for f in fields)


def _assert(condition: str) -> str:
    return f'_Static_assert({condition}, "layout");\n'


def _declaration(keyword: str, name: str, fields: list[str]) -> str:
    body = "".join(f"        {field}\n" for field in fields) or "        pass\n"
    return f"    ctypedef {keyword} {name}:\n{body}"
