"""The reference codec: commands and replies as Python values, to and from the wire.

It follows the model field by field, without the kernel's tables of operations, so that each can
be tested against the other.  Tools use it too; it is far too slow for a guest's stream.

Values: scalars are `int` or `float`; handles are guest ids; structs are dicts by field name, a
struct with an sType may have the key `pNext` with a list of `(struct name, dict)`; unions are
`(tag, value)`; pointers are the thing or None; arrays are lists or None; blobs and `uint8_t` or
`char` arrays are `bytes`; strings are `bytes` without the NUL.  What a command gives back stands
in its parameters as it travels towards the host: an array the driver fills is a number of
elements, a struct it fills is a partial dict (pNext and counts only).
"""

from __future__ import annotations

import struct as packing
from collections.abc import Mapping
from typing import Any

from hesper.protocol.model import Command, Field, Length, Model, Struct, load
from hesper.protocol.relations import NOTHING, BrokenRelationError, Known, check

REPLY_WANTED = 1
"""Bit of the flags word that asks for a reply (VK_COMMAND_GENERATE_REPLY_BIT_EXT)."""

_MAX_DEPTH = 64
_MOST_FILLED = 1 << 16
"""Structs to be filled of which nothing travels: a count costs nothing, and no driver has more."""


class CodecError(ValueError):
    """Bytes that are no command (or reply), or values that fit none."""


class Writer:
    """Collects what goes on the wire."""

    def __init__(self) -> None:
        self.data = bytearray()

    def u32(self, value: int) -> None:
        """Four bytes, little endian; negative values as two's complement."""
        self.data += (value & 0xFFFFFFFF).to_bytes(4, "little")

    def u64(self, value: int) -> None:
        """Eight bytes, little endian."""
        self.data += (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")

    def padded(self, data: bytes) -> None:
        """Bytes, filled up with zeros to a multiple of four."""
        self.data += data
        self.data += bytes(-len(data) % 4)


class Reader:
    """Takes values off the wire.  All methods raise `CodecError` at the end of the data."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self.position = 0

    def take(self, size: int) -> bytes:
        """`size` bytes."""
        if size > len(self._data) - self.position:
            raise CodecError(f"{size} bytes wanted at byte {self.position} of {len(self._data)}")
        data = bytes(self._data[self.position : self.position + size])
        self.position += size
        return data

    def u32(self) -> int:
        """Four bytes."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Eight bytes."""
        return int.from_bytes(self.take(8), "little")

    def padded(self, size: int) -> bytes:
        """`size` bytes and their padding, which must not reach beyond the data."""
        return self.take(size + -size % 4)[:size]

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self.position


def _scalar_format(field: Field) -> str:
    if field.is_float:
        return "<f" if field.size == 4 else "<d"
    letter = {1: "b", 2: "h", 4: "i", 8: "q"}[field.size]
    return "<" + (letter if field.is_signed else letter.upper())


class Codec:
    """Encodes and decodes with one model."""

    def __init__(self, model: Model | None = None, known: Known = NOTHING) -> None:
        """`known`: what relations speak of besides what is decoded."""
        self.model = model or load()
        self._known = known

    # Commands.

    def encode(self, name: str, parameters: Mapping[str, Any], *, reply: bool = False) -> bytes:
        """The bytes a guest sends for the command.

        Raises CodecError for an unknown or refused command or values that do not fit.
        """
        command = self._command(name)
        writer = Writer()
        writer.u32(command.number)
        writer.u32(REPLY_WANTED if reply else 0)
        for field in command.fields:
            value = parameters.get(field.name)
            if field.output and field.shape != "null":
                self._put_output(writer, field, value, parameters)
            else:
                self._put(writer, field, value, parameters)
        return bytes(writer.data)

    def decode(self, reader: Reader) -> tuple[Command, int, dict[str, Any]]:
        """The next command: what it is, its flags, its parameters.  Raises CodecError."""
        command, flags = self.header(reader)
        parameters: dict[str, Any] = {}
        for field in command.fields:
            if field.output and field.shape != "null":
                value = self._get_output(reader, field, parameters, 0)
            else:
                value = self._get(reader, field, parameters, 0)
            parameters[field.name] = value
        self._check(command.name, parameters)
        return command, flags, parameters

    def _check(self, owner: str, values: dict[str, Any]) -> None:
        """Raise CodecError where what has been decoded breaks a relation."""
        relations = self.model.relations.get(owner)
        if relations is None:
            return
        try:
            check(relations, values, self._known)
        except BrokenRelationError as error:
            raise CodecError(f"{owner}: {error}") from None

    def header(self, reader: Reader) -> tuple[Command, int]:
        """The number and flags a command starts with.  Raises CodecError."""
        number, flags = reader.u32(), reader.u32()
        command = self.model.commands_by_number.get(number)
        if command is None:
            raise CodecError(f"there is no command {number}")
        if command.refused:
            raise CodecError(f"{command.name} is refused: {command.refused}")
        return command, flags

    # Replies.

    def decode_reply(
        self, reader: Reader, inputs: Mapping[str, Any] | None = None
    ) -> tuple[Command, int, dict[str, Any]]:
        """A reply: the command it belongs to, its result (0 for void), the outputs.

        inputs: the command's parameters, for array lengths that stand in them.
        """
        number = reader.u32()
        command = self.model.commands_by_number.get(number)
        if command is None:
            raise CodecError(f"there is no command {number}")
        result = 0
        if command.result == "u64":
            result = reader.u64()
        elif command.result != "void":
            result = reader.u32()
            if command.result == "VkResult" and result >> 31:
                result -= 1 << 32
        values: dict[str, Any] = dict(inputs or {})
        outputs: dict[str, Any] = {}
        for field in command.fields:
            if field.output and field.shape != "null":
                outputs[field.name] = self._get(reader, field, values, 0)
                values[field.name] = outputs[field.name]
        return command, result, outputs

    def _command(self, name: str) -> Command:
        command = self.model.commands.get(name)
        if command is None:
            raise CodecError(f"there is no command {name}")
        if command.refused:
            raise CodecError(f"{name} is refused: {command.refused}")
        return command

    # Lengths.

    @staticmethod
    def length(rule: Length, values: Mapping[str, Any]) -> int:
        """The number of elements that `rule` finds among `values`.  Raises CodecError."""
        if not rule.path:
            count = rule.constant
        else:
            found: Any = values
            for name in rule.path:
                if found is None:
                    return 0
                found = found.get(name)
            count = int(found or 0)
        if rule.divide > 1 and not rule.add and count % rule.divide:
            raise CodecError(f"{rule.path[-1]}: {count} is no multiple of {rule.divide}")
        return (count + rule.add) // rule.divide

    def _expect(self, field: Field, count: int, values: Mapping[str, Any]) -> None:
        """An array's own length must be what its count says, or 0 where it may be null."""
        assert field.length is not None
        expected = self.length(field.length, values)
        if count != expected and not (count == 0 and field.optional):
            raise CodecError(f"{field.name}: {count} elements where its count says {expected}")

    # Fields, in full.

    def _put(self, w: Writer, f: Field, value: Any, values: Mapping[str, Any]) -> None:  # noqa: C901, PLR0912  a case a shape
        if f.shape == "value":
            self._check_selector(f, value, values)
            self._put_element(w, f, value)
        elif f.shape == "fixed":
            assert f.length is not None
            w.u64(f.length.constant)
            self._put_elements(w, f, self._fill(f, value, f.length.constant))
        elif f.shape == "null":
            if value is not None:
                raise CodecError(f"{f.name}: such pointers have no wire format")
            w.u64(0)
        elif f.shape == "pointer":
            if value is None and not f.optional:
                raise CodecError(f"{f.name}: null is not allowed")
            w.u64(value is not None)
            if value is not None:
                self._put_element(w, f, value)
        elif f.shape == "string":
            self._put_string(w, value)
        else:
            count = 0 if value is None else len(value)
            self._expect(f, count, values)
            w.u64(count)
            if value is None:
                return
            if f.shape == "strings":
                for text in value:
                    self._put_string(w, text)
            elif f.shape == "nested":
                self._put_nested(w, f, value, values)
            else:
                self._put_elements(w, f, value)

    def _get(self, r: Reader, f: Field, values: Mapping[str, Any], depth: int) -> Any:  # noqa: C901  a case a shape
        if f.shape == "value":
            value = self._get_element(r, f, depth)
            self._check_selector(f, value, values)
            return value
        if f.shape == "fixed":
            assert f.length is not None
            if r.u64() != f.length.constant:
                raise CodecError(f"{f.name}: an array of {f.length.constant} with another length")
            return self._get_elements(r, f, f.length.constant, depth)
        if f.shape == "null":
            if r.u64():
                raise CodecError(f"{f.name}: such pointers have no wire format")
            return None
        if f.shape == "pointer":
            present = r.u64()
            if present > 1 or (not present and not f.optional):
                raise CodecError(f"{f.name}: a pointer that says {present}")
            return self._get_element(r, f, depth) if present else None
        if f.shape == "string":
            return self._get_string(r)
        count = r.u64()
        self._expect(f, count, values)
        if count == 0:
            return None
        if f.shape == "strings":
            if count > r.left // 8:
                raise CodecError(f"{f.name}: {count} strings")
            return [self._get_string(r) for _ in range(count)]
        if f.shape == "nested":
            return self._get_nested(r, f, count, values, depth)
        return self._get_elements(r, f, count, depth)

    @staticmethod
    def _check_selector(f: Field, value: Any, values: Mapping[str, Any]) -> None:
        """A union's tag must say what the field says that selects its member."""
        if f.selector and value[0] != values.get(f.selector):
            raise CodecError(f"{f.name}: tag {value[0]} contradicts {f.selector}")

    def _put_nested(self, w: Writer, f: Field, value: Any, values: Mapping[str, Any]) -> None:
        assert f.inner is not None
        for i, inner in enumerate(value):
            sibling = values[f.inner_of][i] if f.inner_of else {}
            expected = self.length(f.inner, sibling)
            if len(inner) != expected:
                raise CodecError(f"{f.name}[{i}]: {len(inner)} elements, not {expected}")
            w.u64(len(inner))
            self._put_elements(w, f, inner)

    def _get_nested(
        self, r: Reader, f: Field, count: int, values: Mapping[str, Any], depth: int
    ) -> Any:
        assert f.inner is not None
        if count > r.left // 8:
            raise CodecError(f"{f.name}: {count} arrays")
        found = []
        for i in range(count):
            siblings = values.get(f.inner_of) if f.inner_of else None
            if f.inner_of and siblings is None:
                raise CodecError(f"{f.name}: {f.inner_of} is null")
            expected = self.length(f.inner, siblings[i] if siblings else {})
            inner = r.u64()
            if inner != expected:
                raise CodecError(f"{f.name}[{i}]: {inner} elements, not {expected}")
            found.append(self._get_elements(r, f, inner, depth))
        return found

    # Elements.

    def _bytes_like(self, f: Field) -> bool:
        return f.kind in ("blob", "char") or (f.kind == "scalar" and f.size == 1)

    def _fill(self, f: Field, value: Any, count: int) -> Any:
        """A fixed array's value at its full length."""
        if self._bytes_like(f):
            return bytes(value or b"").ljust(count, b"\0")
        return value

    def _put_elements(self, w: Writer, f: Field, value: Any) -> None:
        if self._bytes_like(f):
            w.padded(bytes(value))
        elif f.kind == "scalar" and f.size == 2:
            w.padded(b"".join(packing.pack(_scalar_format(f), v) for v in value))
        else:
            for element in value:
                self._put_element(w, f, element)

    def _get_elements(self, r: Reader, f: Field, count: int, depth: int) -> Any:
        if self._bytes_like(f):
            return r.padded(count)
        if f.kind == "scalar" and f.size == 2:
            data = r.padded(2 * count)
            return [packing.unpack_from(_scalar_format(f), data, 2 * i)[0] for i in range(count)]
        if count > r.left // 4:
            raise CodecError(f"{f.name}: {count} elements in {r.left} bytes")
        return [self._get_element(r, f, depth) for _ in range(count)]

    def _put_element(self, w: Writer, f: Field, value: Any) -> None:
        if f.kind == "handle":
            w.u64(value or 0)
        elif f.kind == "struct":
            self._put_struct(w, self.model.structs[f.type], value or {})
        elif f.kind == "union":
            self._put_union(w, self.model.structs[f.type], value)
        else:
            try:
                data = packing.pack(_scalar_format(f), value if value is not None else 0)
            except packing.error as error:
                raise CodecError(f"{f.name}: {value!r} is no {f.type}") from error
            if f.size < 4:
                w.u32(int.from_bytes(data, "little"))
            else:
                w.data += data

    def _get_element(self, r: Reader, f: Field, depth: int) -> Any:
        if f.kind == "handle":
            handle = r.u64()
            if handle == 0 and not f.may_be_null:
                raise CodecError(f"{f.name}: VK_NULL_HANDLE is not allowed")
            return handle
        if f.kind == "struct":
            return self._get_struct(r, self.model.structs[f.type], depth + 1)
        if f.kind == "union":
            return self._get_union(r, self.model.structs[f.type], depth + 1)
        data = r.take(max(4, f.size))[: f.size]
        return packing.unpack(_scalar_format(f), data)[0]

    @staticmethod
    def _put_string(w: Writer, value: bytes | None) -> None:
        if value is None:
            w.u64(0)
        else:
            w.u64(len(value) + 1)
            w.padded(value + b"\0")

    @staticmethod
    def _get_string(r: Reader) -> bytes | None:
        size = r.u64()
        return r.padded(size)[:-1] if size else None

    # Structs.

    def _put_struct(self, w: Writer, s: Struct, value: Mapping[str, Any]) -> None:
        if s.stype is not None:
            w.u32(s.stype)
            self._put_chain(w, s, value.get("pNext") or [], partial=False)
        self._put_fields(w, s, value)

    def _put_fields(self, w: Writer, s: Struct, value: Mapping[str, Any]) -> None:
        for f in self._own_fields(s):
            self._put(w, f, value.get(f.name), value)

    def _get_struct(self, r: Reader, s: Struct, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise CodecError(f"{s.name}: nested more than {_MAX_DEPTH} deep")
        value: dict[str, Any] = {}
        if s.stype is not None:
            self._check_stype(r, s)
            value["pNext"] = self._get_chain(r, s, depth, partial=False)
        for f in self._own_fields(s):
            value[f.name] = self._get(r, f, value, depth)
        self._check(s.name, value)
        return value

    @staticmethod
    def _own_fields(s: Struct) -> tuple[Field, ...]:
        """Fields other than sType and pNext."""
        return s.fields[2:] if s.stype is not None else s.fields

    @staticmethod
    def _check_stype(r: Reader, s: Struct) -> None:
        stype = r.u32()
        if stype != s.stype:
            raise CodecError(f"{s.name}: sType {stype} is not its own")

    def _put_chain(self, w: Writer, root: Struct, chain: list[Any], *, partial: bool) -> None:
        if not chain:
            w.u64(0)
            return
        name, value = chain[0]
        s = self.model.structs[name]
        if s.stype is None or root.name not in s.extends:
            raise CodecError(f"{name} may not stand in the chain of {root.name}")
        w.u64(1)
        w.u32(s.stype)
        self._put_chain(w, root, chain[1:], partial=partial)
        if partial:
            self._put_partial_fields(w, s, value)
        else:
            self._put_fields(w, s, value)

    def _get_chain(self, r: Reader, root: Struct, depth: int, *, partial: bool) -> list[Any]:
        """Headers come first to last, the structs' own fields last to first."""
        found: list[Struct] = []
        while r.u64():
            stype = r.u32()
            s = self.model.structs_by_stype.get(stype)
            if s is None or not s.wire or root.name not in s.extends:
                raise CodecError(f"sType {stype} may not stand in the chain of {root.name}")
            found.append(s)
        values = []
        for s in reversed(found):
            value: dict[str, Any] = {}
            if partial:
                self._get_partial_fields(r, s, value, depth)
            else:
                for f in self._own_fields(s):
                    value[f.name] = self._get(r, f, value, depth)
                self._check(s.name, value)
            values.append((s.name, value))
        return values[::-1]

    def _put_union(self, w: Writer, s: Struct, value: Any) -> None:
        tag, inner = value
        w.u32(tag)
        for case in s.cases:
            if tag in case.tags:
                self._put(w, case.field, inner, {})
                return
        raise CodecError(f"{s.name}: tag {tag} is unknown")

    def _get_union(self, r: Reader, s: Struct, depth: int) -> Any:
        tag = r.u32()
        for case in s.cases:
            if tag in case.tags:
                return tag, self._get(r, case.field, {}, depth)
        raise CodecError(f"{s.name}: tag {tag} is unknown")

    # Outputs on the way in.

    def _put_output(self, w: Writer, f: Field, value: Any, values: Mapping[str, Any]) -> None:
        if f.shape == "pointer":
            if value is None and not f.optional:
                raise CodecError(f"{f.name}: null is not allowed")
            w.u64(value is not None)
            if value is None:
                return
            if f.kind == "struct":
                self._put_partial(w, self.model.structs[f.type], value)
            elif f.kind == "handle" or f.counts:
                self._put_element(w, f, value)
            return
        # An array: ids for handles, partial structs, or just a number of elements.
        count = 0 if value is None else value if isinstance(value, int) else len(value)
        self._expect(f, count, values)
        w.u64(count)
        if f.kind == "handle":
            for element in value or ():
                w.u64(element)
        elif f.kind == "struct":
            for element in value or ():
                self._put_partial(w, self.model.structs[f.type], element)

    def _get_output(self, r: Reader, f: Field, values: Mapping[str, Any], depth: int) -> Any:  # noqa: C901  a case a shape
        if f.shape == "pointer":
            present = r.u64()
            if present > 1 or (not present and not f.optional):
                raise CodecError(f"{f.name}: a pointer that says {present}")
            if not present:
                return None
            if f.kind == "struct":
                return self._get_partial(r, self.model.structs[f.type], depth + 1)
            if f.kind == "handle" or f.counts:
                return self._get_element(r, f, depth)
            return 0
        count = r.u64()
        self._expect(f, count, values)
        if count == 0:
            return None
        if f.kind == "handle":
            if count > r.left // 8:
                raise CodecError(f"{f.name}: {count} handles in {r.left} bytes")
            return [r.u64() for _ in range(count)]
        if f.kind == "struct":
            s = self.model.structs[f.type]
            if count > (_MOST_FILLED if s.stype is None else r.left // 12):
                raise CodecError(f"{f.name}: {count} structs in {r.left} bytes")
            return [self._get_partial(r, s, depth + 1) for _ in range(count)]
        return count

    def _put_partial(self, w: Writer, s: Struct, value: Mapping[str, Any]) -> None:
        if s.stype is not None:
            w.u32(s.stype)
            self._put_chain(w, s, value.get("pNext") or [], partial=True)
        self._put_partial_fields(w, s, value)

    def _put_partial_fields(self, w: Writer, s: Struct, value: Mapping[str, Any]) -> None:
        for f in self._own_fields(s):
            inner = value.get(f.name)
            if f.shape == "value":
                if f.kind == "struct":
                    self._put_partial(w, self.model.structs[f.type], inner or {})
                elif f.counts:
                    self._put_element(w, f, inner)
            elif f.shape == "fixed":
                assert f.length is not None
                if f.kind == "handle":
                    w.u64(f.length.constant)
                    self._put_elements(w, f, inner)
                elif f.kind == "struct":
                    w.u64(f.length.constant)
                    for element in inner or [{}] * f.length.constant:
                        self._put_partial(w, self.model.structs[f.type], element)
            else:
                self._put_output(w, f, inner, value)

    def _get_partial(self, r: Reader, s: Struct, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise CodecError(f"{s.name}: nested more than {_MAX_DEPTH} deep")
        value: dict[str, Any] = {}
        if s.stype is not None:
            self._check_stype(r, s)
            value["pNext"] = self._get_chain(r, s, depth, partial=True)
        self._get_partial_fields(r, s, value, depth)
        return value

    def _get_partial_fields(self, r: Reader, s: Struct, value: dict[str, Any], depth: int) -> None:
        for f in self._own_fields(s):
            if f.shape == "value":
                if f.kind == "struct":
                    value[f.name] = self._get_partial(r, self.model.structs[f.type], depth + 1)
                elif f.counts:
                    value[f.name] = self._get_element(r, f, depth)
            elif f.shape == "fixed":
                assert f.length is not None
                if f.kind not in ("handle", "struct"):
                    continue
                if r.u64() != f.length.constant:
                    raise CodecError(f"{f.name}: an array with another length")
                if f.kind == "handle":
                    value[f.name] = self._get_elements(r, f, f.length.constant, depth)
                else:
                    inner = self.model.structs[f.type]
                    value[f.name] = [
                        self._get_partial(r, inner, depth + 1) for _ in range(f.length.constant)
                    ]
            else:
                value[f.name] = self._get_output(r, f, value, depth)
