"""Write the half of the targets' driver that follows from the model: `generate.py MODEL OUTPUT`.

For each command a function that reads all it is given, as the registry says how much that is, makes
handles, fills what is to be filled, and succeeds or has the fault that is due (`driver.c`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hesper.protocol.model import Command, Field, Length, Model, Struct

HEAD = """#include "driver.h"

#define AT(type, base, offset) (*(type *)((char *)(base) + (offset)))
"""


class Writer:
    """Writes C for a model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def text(self) -> str:
        """The whole file."""
        structs = [s for s in self.model.structs.values() if self._is_looked_at(s)]
        commands = [
            c for c in self.model.commands.values() if c.level != "transport" and not c.refused
        ]
        parts = [HEAD]
        parts += [f"static void look_at_{s.name}(const void *it);" for s in structs]
        parts += [self._struct(s) for s in structs]
        parts += [self._chain(structs)]
        parts += [self._command(c) for c in commands]
        rows = [
            f'    {{"{name}", (PFN_vkVoidFunction)fuzz_{c.name}}},'
            for c in commands
            for name in (c.name, *c.aliases)
        ]
        parts.append("const Command generated_commands[] = {\n" + "\n".join(rows) + "\n};")
        parts.append(
            "const size_t generated_command_count ="
            " sizeof(generated_commands) / sizeof(*generated_commands);"
        )
        return "\n".join(parts) + "\n"

    @staticmethod
    def _is_looked_at(s: Struct) -> bool:
        """Not unions, of which one member counts."""
        return not s.cases

    def _struct(self, s: Struct) -> str:
        lines = [f"static void look_at_{s.name}(const void *it)", "{"]
        lines.append(f"    look_at(it, {s.size});")
        for f in s.fields:
            lines += [f"    {line}" for line in self._inside(f, s)]
        return "\n".join([*lines, "}"])

    def _inside(self, f: Field, s: Struct) -> Iterator[str]:
        """Look at what a field of a struct points to."""
        if f.shape == "chain":
            yield f"look_at_chain(AT(void *, it, {f.offset}));"
        elif f.shape in ("value", "fixed"):
            if f.kind == "struct" and self._is_known(f.type):
                elements = f.length.constant if f.shape == "fixed" and f.length else 1
                yield f"for (uint64_t i = 0; i < {elements}; i++)"
                yield f"    look_at_{f.type}((char *)it + {f.offset} + i * {f.size});"
        elif f.shape in ("pointer", "array", "string", "strings"):
            count = self._struct_count(f, s)
            if count:
                yield from self._pointed(f, f"AT(const char *, it, {f.offset})", count)

    def _is_known(self, name: str) -> bool:
        return name in self.model.structs and self._is_looked_at(self.model.structs[name])

    def _pointed(self, f: Field, pointer: str, count: str) -> Iterator[str]:
        yield f"if ({pointer} != NULL)"
        if f.shape == "string":
            yield f"    look_at({pointer}, strlen({pointer}) + 1);"
        elif f.shape == "strings":
            yield f"    for (uint64_t i = 0; i < {count}; i++)"
            yield f"        look_at(((const char **){pointer})[i], 1);"
        elif f.kind == "struct" and self._is_known(f.type):
            yield f"    for (uint64_t i = 0; i < {count}; i++)"
            yield f"        look_at_{f.type}({pointer} + i * {f.size});"
        else:
            yield f"    look_at({pointer}, {count} * {f.size});"

    def _struct_count(self, f: Field, s: Struct) -> str:
        """A C expression for how many elements there are; empty where it cannot be said here."""
        if f.shape in ("pointer", "string"):
            return "1"
        length = f.length
        if length is None:
            return ""
        if not length.path:
            return f"UINT64_C({length.constant})"
        counter = {each.name: each for each in s.fields}.get(length.path[0])
        if counter is None or len(length.path) > 1 or length.deref:
            return ""
        value = f"(uint64_t)AT(uint{8 * counter.size}_t, it, {counter.offset})"
        return f"(({value} + {length.add}) / {length.divide})"

    def _chain(self, structs: list[Struct]) -> str:
        cases = [
            f"        case {s.stype}: look_at_{s.name}(next); return;"
            for s in structs
            if s.stype is not None
        ]
        return "\n".join(
            [
                "void look_at_chain(const void *next)",
                "{",
                "    if (next != NULL)",
                "        switch (AT(uint32_t, next, 0)) {",
                *cases,
                "        default: look_at(next, sizeof(VkBaseInStructure));",
                "        look_at_chain(AT(void *, next, 8));",
                "        }",
                "}",
            ]
        )

    def _command(self, c: Command) -> str:
        result = {"VkResult": "VkResult", "void": "void", "u32": "uint32_t", "u64": "uint64_t"}
        parameters = ", ".join(f"{self._c_type(f)} {f.name}" for f in c.fields)
        head = f"static VKAPI_ATTR {result[c.result]} VKAPI_CALL fuzz_{c.name}({parameters})"
        lines = [head, "{"]
        if c.result == "VkResult":
            lines += ["    VkResult result = outcome();"]
        for f in c.fields:
            lines.append(f"    (void){f.name};")
            if f.shape in ("pointer", "array", "string", "strings"):
                lines += [f"    {line}" for line in self._parameter(f, c)]
        if c.result != "void":
            lines.append(f"    return {'result' if c.result == 'VkResult' else 'fresh_handle()'};")
        return "\n".join([*lines, "}"])

    @staticmethod
    def _c_type(f: Field) -> str:
        if f.shape == "value":
            return f.type
        return "void *"

    def _parameter(self, f: Field, c: Command) -> Iterator[str]:
        count = "1" if f.shape in ("pointer", "string") else self._command_count(f.length, c)
        if not count:
            return
        if not f.output or (f.kind == "struct" and self._is_chained(f.type)):
            yield from self._pointed(f, f"((const char *){f.name})", count)
        elif f.kind == "handle":
            guard = "result >= 0 && " if c.result == "VkResult" else ""
            yield f"for (uint64_t i = 0; {guard}{f.name} != NULL && i < {count}; i++)"
            yield f"    ((uint64_t *){f.name})[i] = fresh_handle();"
        elif not f.counts:
            yield f"if ({f.name} != NULL)"
            yield f"    fill_in({f.name}, {count} * {f.size});"

    def _is_chained(self, name: str) -> bool:
        return self.model.structs[name].stype is not None

    def _command_count(self, length: Length | None, c: Command) -> str:
        if length is None:
            return ""
        if not length.path:
            return f"UINT64_C({length.constant})"
        counter = {f.name: f for f in c.fields}.get(length.path[0])
        if counter is None:
            return ""
        if length.deref:
            value = f"(uint64_t)*(uint{8 * counter.size}_t *){counter.name}"
        elif len(length.path) == 1:
            value = f"(uint64_t){counter.name}"
        else:
            inner = {f.name: f for f in self.model.structs[counter.type].fields}
            found = inner.get(length.path[1])
            if found is None or len(length.path) > 2:
                return ""
            value = f"(uint64_t)AT(uint{8 * found.size}_t, {counter.name}, {found.offset})"
        return f"(({value} + {length.add}) / {length.divide})"


def main(model: str, output: str) -> None:
    """Read a model.json, write C."""
    known = msgspec.json.decode(Path(model).read_bytes(), type=Model)
    Path(output).write_text(Writer(known).text())


if __name__ == "__main__":
    main(*sys.argv[1:])
