"""From the Vulkan registry to the model."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, Literal, TypeVar
from xml.etree import ElementTree

import msgspec.structs

from hesper.protocol.compiler.facts import Facts, MesaStruct
from hesper.protocol.compiler.types import POINTER_SIZE, Scalar, ScalarTypes
from hesper.protocol.depends import can_be_met
from hesper.protocol.model import (
    Command,
    Extension,
    Field,
    Kind,
    Length,
    Model,
    Shape,
    Struct,
    UnionCase,
)

_RESULTS: dict[str, Literal["void", "VkResult", "u32", "u64"]] = {
    "void": "void",
    "VkResult": "VkResult",
    "uint32_t": "u32",
    "uint64_t": "u64",
    "VkDeviceAddress": "u64",
    "VkDeviceSize": "u64",
    "PFN_vkVoidFunction": "u64",
}


_EVERYWHERE = {"VK_VERSION_1_0", "VK_VERSION_1_1"}
"""What every instance and device has that is shown to a guest."""


class RegistryError(Exception):
    """The registry says something this compiler has no rule for."""


class _NoLayoutError(RegistryError):
    """A type that has no layout here (bit fields, platform types)."""


def _align(offset: int, alignment: int) -> int:
    return (offset + alignment - 1) // alignment * alignment


class Builder:
    """Builds a `Model` from a `VulkanObject` and the facts beside it."""

    def __init__(self, vk: Any, facts: Facts) -> None:
        self._vk = vk
        self._facts = facts
        self._scalars = ScalarTypes(vk)
        self._structs: dict[str, Struct] = {}
        self._stypes = {f.name: f.value for f in vk.enums["VkStructureType"].fields}
        self._enumerators = {f.name: f.value for enum in vk.enums.values() for f in enum.fields}
        self._covered = facts.serialisable | facts.host_extensions
        self._canonical = {
            alias: item.name
            for group in (vk.structs, vk.enums, vk.bitmasks, vk.flags, vk.handles)
            for item in group.values()
            for alias in item.aliases
        }
        self._aliases: dict[str, list[str]] = {}
        for command in vk.commands.values():
            if command.alias:
                self._aliases.setdefault(command.alias, []).append(command.name)

    def build(self) -> Model:
        """Everything reachable from the commands.  Raises RegistryError."""
        commands = {}
        for name, number in self._facts.numbers.items():
            commands[name] = self._command(name, number)
        for name in self._facts.host_commands:
            commands.setdefault(name, self._command(name, -1))
        self._add_chains()
        self._mark_wire()
        commands = {name: self._refuse(command) for name, command in commands.items()}
        return Model(
            header_version=int(self._vk.headerVersion),
            commands=commands,
            structs=dict(sorted(self._structs.items())),
            handles={
                name: self._enumerators[handle.type]
                for name, handle in self._vk.handles.items()
                if handle.type in self._enumerators
            },
            extensions=self._extensions(),
            guest_extensions=frozenset(self._facts.guest_extensions | self._window_system()),
        )

    # Structs.

    def _provided(self, requirements: dict[str, Any], extensions: list[str]) -> bool:
        """Whether a covered version or extension brings a type."""
        names = [*requirements, *extensions]
        return any(n.startswith("VK_VERSION_") or n in self._covered for n in names)

    def _add_chains(self) -> None:
        """Add structs that extend those already there, until nothing is added."""
        added = True
        while added:
            added = False
            for struct in self._vk.structs.values():
                if struct.name in self._structs or not struct.extends:
                    continue
                if not self._provided(struct.definingRequirements, struct.extensions):
                    continue
                if not any(root in self._structs for root in struct.extends):
                    continue
                try:
                    self._struct(struct.name)
                except _NoLayoutError:
                    continue
                added = True
            for mesa in self._facts.structs.values():
                if mesa.name not in self._structs and any(e in self._structs for e in mesa.extends):
                    self._struct(mesa.name)
                    added = True

    def _struct(self, name: str) -> Struct:
        found = self._structs.get(name)
        if found is not None:
            return found
        source = self._facts.structs.get(name) or self._vk.structs.get(name)
        if source is None:
            raise _NoLayoutError(f"{name}: no such struct")
        if isinstance(source, MesaStruct):
            stype, extends, union = source.stype, source.extends, False
        else:
            stype = self._stypes[source.sType] if source.sType else None
            extends, union = source.extends, source.union
        fields, size, align = self._fields(name, source.members, in_union=union)
        struct = Struct(
            name=name,
            size=_align(size, align),
            align=align,
            fields=() if union else tuple(fields),
            stype=stype,
            extends=tuple(extends),
            cases=self._cases(source.members, fields) if union else (),
        )
        self._structs[name] = struct
        return struct

    def _cases(self, members: list[Any], fields: list[Field]) -> tuple[UnionCase, ...]:
        """Tag values: those the registry selects members by, else their order."""
        if any(m.selection for m in members):
            return tuple(
                UnionCase(tuple(self._enumerators[s] for s in m.selection), f)
                for m, f in zip(members, fields, strict=True)
                if m.selection
            )
        return tuple(UnionCase((i,), f) for i, f in enumerate(fields))

    def _fields(
        self, owner: str, members: list[Any], *, in_union: bool = False, command: bool = False
    ) -> tuple[list[Field], int, int]:
        """Fields with their offsets; where the last one ends; alignment of the whole."""
        # Fixed arrays travel whole: their counts are ordinary outputs.
        counts = {
            part
            for m in members
            if m.length and m.pointer
            for part in re.findall(r"\b[a-z]\w*", m.length.split("->")[0])
        }
        offset, size, align = 0, 0, 1
        fields = []
        for member in members:
            member.type = self._canonical.get(member.type, member.type)
            if member.bitFieldWidth:
                raise _NoLayoutError(f"{owner}.{member.name}: bit fields have no wire format")
            field, total, alignment = self._field(owner, member, members, command=command)
            offset = 0 if in_union else _align(offset, alignment)
            fields.append(_replace(field, offset=offset, counts=member.name in counts))
            offset += total
            size, align = max(size, offset), max(align, alignment)
        return _wire_order(fields), size, align

    def _field(
        self, owner: str, member: Any, siblings: list[Any], *, command: bool
    ) -> tuple[Field, int, int]:
        """One field at offset 0, its total size and alignment."""
        kind, size, align, scalar = self._element(owner, member)
        shape, length = self._shape(owner, member, siblings, command=command)
        if shape == "fixed":
            total = size * self._fixed(owner, member)
        elif shape == "value":
            total = size
        else:
            total, align = POINTER_SIZE, POINTER_SIZE
        nested = self._facts.nested.get(f"{owner}.{member.name}")
        if nested:
            shape = "nested"
        field = Field(
            name=member.name,
            kind=kind,
            type=member.type,
            shape=shape,
            offset=0,
            size=size,
            wire=scalar.wire if scalar else 0,
            length=length,
            inner=self._inner(nested) if nested else None,
            inner_of=nested.of if nested else "",
            optional=bool(
                member.optional
                or member.noAutoValidity
                or f"{owner}.{member.name}" in self._facts.nullable
            ),
            may_be_null=kind != "handle"
            or shape == "fixed"
            or self._may_be_null(owner, member, command=command),
            null_by_feature=f"{owner}.{member.name}" in self._facts.null_by_feature,
            output=command and member.pointer and not member.const,
            selector=(getattr(member, "selector", None) or "") if kind == "union" else "",
            parent=self._facts.parents.get(owner) == member.name,
            victim=command and self._is_victim(owner, member),
            is_float=bool(scalar and scalar.is_float),
            is_signed=bool(scalar and scalar.is_signed),
        )
        return field, total, align

    @staticmethod
    def _inner(nested: Any) -> Length:
        return Length(path=(nested.field,)) if nested.of else Length(constant=nested.constant)

    def _element(self, owner: str, member: Any) -> tuple[Kind, int, int, Scalar | None]:
        """What an element is: kind, size, alignment, scalar type."""
        name = member.type
        if name == "void":
            return "blob", 1, 1, None
        if name == "char":
            return "char", 1, 1, None
        if name in self._vk.handles:
            return "handle", 8, 8, None
        scalar = self._scalars.find(name)
        if scalar:
            return "scalar", scalar.size, scalar.size, scalar
        if name == owner:
            raise _NoLayoutError(f"{owner}.{member.name}: recursive struct")
        if name.startswith("PFN_") or (
            name not in self._vk.structs and name not in self._facts.structs
        ):
            if member.pointer or name.startswith("PFN_"):
                return "blob", 1, 1, None
            raise _NoLayoutError(f"{owner}.{member.name}: unknown type {name}")
        if name == "VkAllocationCallbacks":
            return "blob", 1, 1, None
        struct = self._struct(name)
        return ("union" if struct.cases else "struct"), struct.size, struct.align, None

    def _shape(
        self, owner: str, member: Any, siblings: list[Any], *, command: bool
    ) -> tuple[Shape, Length | None]:
        if member.name == "pNext":
            return "chain", None
        if member.type == "VkAllocationCallbacks" or member.type.startswith("PFN_"):
            return "null", None
        if member.fixedSizeArray:
            fixed = Length(constant=self._fixed(owner, member))
            return ("array" if command else "fixed"), fixed
        if not member.pointer:
            return "value", None
        stars = member.fullType.count("*")
        if member.type == "char":
            if stars == 2:
                return "strings", self._length(owner, member, siblings)
            return "string", None
        if member.length and member.length != "null-terminated":
            length = self._length(owner, member, siblings)
            return ("null", None) if length is None else ("array", length)
        if member.type == "void" or stars > 1 or member.type not in self._known_pointees():
            return "null", None
        return "pointer", None

    def _known_pointees(self) -> _Pointees:
        return _Pointees(self._vk, self._facts, self._scalars)

    def _fixed(self, owner: str, member: Any) -> int:
        if len(member.fixedSizeArray) != 1:
            raise _NoLayoutError(f"{owner}.{member.name}: more than one array dimension")
        text = member.fixedSizeArray[0]
        return int(text) if text.isdigit() else int(self._vk.constants[text].value)

    def _length(self, owner: str, member: Any, siblings: list[Any]) -> Length | None:
        """The rule behind the registry's `len`; None for `len="1"` on an opaque pointer."""
        text = member.length.split(",")[0].strip()
        if text.isdigit():
            return Length(constant=int(text))
        if match := re.fullmatch(r"(\d+)\s*\*\s*(VK_\w+)", text):
            return Length(constant=int(match[1]) * int(self._vk.constants[match[2]].value))
        add, divide = 0, 1
        if match := re.fullmatch(r"(\w+)\s*/\s*(\d+)", text):
            text, divide = match[1], int(match[2])
        elif match := re.fullmatch(r"\((\w+)\s*\+\s*(\d+)\)\s*/\s*(\d+)", text):
            text, add, divide = match[1], int(match[2]), int(match[3])
        path = tuple(text.split("->"))
        first = next((s for s in siblings if s.name == path[0]), None)
        if first is None:
            raise RegistryError(f"{owner}.{member.name}: cannot read the length {member.length!r}")
        return Length(path=path, deref=len(path) == 1 and first.pointer, add=add, divide=divide)

    # Commands.

    def _command(self, name: str, number: int) -> Command:
        mesa = self._facts.commands.get(name)
        if mesa:
            params, result = mesa.params, mesa.result
        else:
            source = self._vk.commands[name]
            params, result = source.params, source.returnType
            for param in params:
                param.bitFieldWidth = None
        fields, size, _ = self._fields(name, params, command=True)
        if result not in _RESULTS:
            raise RegistryError(f"{name}: no rule for a command that returns {result}")
        width = 8 if _RESULTS[result] == "u64" else 4
        result_offset = _align(size, width)
        creates = next(
            (f.type for f in fields if f.output and f.kind == "handle" and f.shape != "null"), ""
        )
        return Command(
            name=name,
            number=number,
            fields=tuple(fields),
            size=_align(result_offset + width, 8),
            result=_RESULTS[result],
            result_offset=result_offset,
            level=self._level(name, fields),
            aliases=tuple(self._aliases.get(name, ())),
            creates=creates,
            refused=self._facts.refused.get(name, ""),
            provided_by=self._providers(name),
        )

    def _providers(self, name: str) -> tuple[str, ...]:
        """Versions and extensions that bring a command, by any name; none where all have it."""
        if name in self._facts.commands:
            return ()
        names = [name, *self._aliases.get(name, ())]
        commands = [self._vk.commands[each] for each in names]
        found = {one for command in commands for one in command.definingRequirements}
        return () if found & _EVERYWHERE else tuple(sorted(found))

    def _level(
        self, name: str, fields: list[Field]
    ) -> Literal["global", "instance", "device", "transport"]:
        if name in self._facts.commands:
            return "transport"
        first = fields[0]
        if first.kind != "handle" or first.shape != "value":
            return "global"
        return "instance" if first.type in ("VkInstance", "VkPhysicalDevice") else "device"

    def _may_be_null(self, owner: str, member: Any, *, command: bool) -> bool:
        name = f"{owner}.{member.name}"
        if name in self._facts.never_null:
            return False
        # Of an array the registry's second "optional" is about elements.
        optional = member.optionalPointer if member.length else member.optional
        output = command and member.pointer and not member.const
        return bool(optional or output or member.noAutoValidity or name in self._facts.null_handles)

    def _is_victim(self, owner: str, member: Any) -> bool:
        named = self._facts.victims.get(owner)
        if named:
            return bool(member.name == named)
        if not owner.startswith("vkDestroy") or member.type not in self._vk.handles:
            return False
        params = [p for p in self._params(owner) if p.type in self._vk.handles]
        return bool(params[-1].name == member.name)

    def _params(self, command: str) -> list[Any]:
        if command in self._facts.commands:
            return list(self._facts.commands[command].params)
        return list(self._vk.commands[command].params)

    # What may travel.

    def _mark_wire(self) -> None:
        """Structs that hold an opaque pointer, or a struct that does, never travel."""
        barred = {
            s.name
            for s in self._structs.values()
            if not s.cases
            and any(
                (f.shape == "null" and not self._may_stay_null(s.name, f)) or f.type == "int"
                for f in s.fields
            )
        }
        covered = self._facts.serialisable
        for s in self._structs.values():
            source = self._vk.structs.get(s.name)
            if source is None or not source.extends:
                continue
            names = [*source.definingRequirements, *source.extensions]
            if not any(n.startswith("VK_VERSION_") or n in covered for n in names):
                barred.add(s.name)
        grown = True
        while grown:
            grown = False
            for s in self._structs.values():
                if s.name in barred:
                    continue
                inside = [*s.fields, *(c.field for c in s.cases)]
                if any(f.type in barred and f.kind in ("struct", "union") for f in inside):
                    barred.add(s.name)
                    grown = True
        for name in barred:
            self._structs[name] = _replace(self._structs[name], wire=False)

    def _may_stay_null(self, owner: str, field: Field) -> bool:
        return (
            field.type == "VkAllocationCallbacks"
            or f"{owner}.{field.name}" in self._facts.null_pointers
        )

    def _refuse(self, command: Command) -> Command:
        if command.refused:
            return command
        if command.number < 0:
            return _replace(command, refused="has no number on the wire")
        for field in command.fields:
            struct = self._structs.get(field.type)
            if struct is not None and not struct.wire:
                return _replace(command, refused=f"{field.type} holds pointers of the host")
            if field.shape == "null" and field.type != "VkAllocationCallbacks":
                return _replace(command, refused=f"{field.name} is a pointer of the host")
        return command

    def _extensions(self) -> dict[str, Extension]:
        source = resources.files("vulkan_object") / "vk.xml"
        numbers = {
            e.get("name", ""): int(e.get("number", "0"))
            for e in ElementTree.fromstring(source.read_bytes()).iter("extension")
        }
        found = {}
        for name in sorted(self._facts.serialisable):
            if name in self._facts.extensions:
                found[name] = Extension(*self._facts.extensions[name])
            elif name in self._vk.extensions:
                extension = self._vk.extensions[name]
                version = int(extension.specVersionValue)
                found[name] = Extension(numbers[name], version, extension.depends or "")
            else:
                raise RegistryError(f"facts/extensions.toml: {name} is not in the registry")
        return found

    def _window_system(self) -> set[str]:
        """Device extensions that need VK_KHR_surface, themselves or by what they depend on."""
        needing, found = set(), {"VK_KHR_surface"}
        while found:
            needing |= found
            found = {
                name
                for name, extension in self._vk.extensions.items()
                if name not in needing and not can_be_met(extension.depends or "", needing)
            }
        return {name for name in needing if self._vk.extensions[name].device}


class _Pointees:
    """Types a plain pointer may point to and still be followed."""

    def __init__(self, vk: Any, facts: Facts, scalars: ScalarTypes) -> None:
        self._vk, self._facts, self._scalars = vk, facts, scalars

    def __contains__(self, name: str) -> bool:
        return (
            name in self._vk.handles
            or name in self._vk.structs
            or name in self._facts.structs
            or self._scalars.find(name) is not None
        )


def _wire_order(fields: list[Field]) -> list[Field]:
    """Fields as they travel: as in C, but a count never comes after its array."""
    ordered = list(fields)
    for field in fields:
        if field.length is None or len(field.length.path) != 1:
            continue
        count = next(f for f in fields if f.name == field.length.path[0])
        if ordered.index(count) > ordered.index(field):
            ordered.remove(count)
            ordered.insert(ordered.index(field), count)
    return ordered


_Item = TypeVar("_Item", Command, Field, Struct)


def _replace(item: _Item, **changes: Any) -> _Item:
    """A copy of a frozen struct with some attributes changed."""
    return msgspec.structs.replace(item, **changes)
