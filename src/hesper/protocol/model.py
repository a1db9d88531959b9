"""The protocol as data: what every command and struct looks like in C memory and on the wire.

The rules by which a field lies on the wire are those of the Venus protocol, wire format 1:
little endian, 4-byte units, scalars below 4 bytes widened to 4, handles and `size_t` 8 bytes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import msgspec

from hesper.protocol.relations import Fact, Relation  # noqa: TC001  msgspec reads them

Shape = Literal[
    "value", "fixed", "pointer", "array", "nested", "string", "strings", "null", "chain"
]
"""How a field holds its element.

value    in place
fixed    an array in place; the wire repeats its length as u64
pointer  u64 0 or 1, then one element
array    u64 length (0: a null pointer), then the elements
nested   an array of pointers to arrays (acceleration structure builds)
string   u64 size with the terminating NUL (0: a null pointer), bytes, padding to 4
strings  u64 length, then strings
null     a pointer that has no wire format: u64 0
chain    the pNext chain
"""

Kind = Literal["scalar", "handle", "struct", "union", "blob", "char"]
"""What an element is.  blob: bytes, padded to 4 on the wire.  char: fixed character arrays."""


class Length(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the length of an array comes from.

    path: names of the fields to follow from the surrounding struct or command (the last one
    is the count; the ones before it are pointers to structs).  Empty: `constant` elements.
    A count reached through a pointer (`uint32_t *pCount`) has `deref` set.
    Then `(count + add) // divide`.
    """

    path: tuple[str, ...] = ()
    constant: int = 0
    deref: bool = False
    add: int = 0
    divide: int = 1


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """A struct member or a command parameter."""

    name: str
    kind: Kind
    type: str
    """C type of the element: `uint32_t`, `VkBuffer`, `VkExtent3D`."""
    shape: Shape
    offset: int
    """Byte offset in the C struct (for commands: in the parameter block)."""
    size: int
    """Bytes of one element in C."""
    wire: int = 0
    """Bytes of one scalar element on the wire."""
    length: Length | None = None
    inner: Length | None = None
    """Length of the inner arrays of a `nested` field."""
    inner_of: str = ""
    """`nested`: the sibling array whose element i holds the inner length as `inner`."""
    optional: bool = False
    """Whether a null pointer is allowed."""
    may_be_null: bool = True
    """Handles: whether it, or one of an array, may be VK_NULL_HANDLE."""
    null_by_feature: bool = False
    """The same: whether only on a device that was made with a feature."""
    output: bool = False
    """Command parameters: what the driver writes; travels back in the reply."""
    counts: bool = False
    """Whether it is the length of another field (so it travels in partial structs too)."""
    selector: str = ""
    """Unions: the sibling that says which member counts; the tag must agree with it."""
    parent: bool = False
    """Handles: the pool that objects made by this command belong to."""
    victim: bool = False
    """Handles: what this command destroys."""
    is_float: bool = False
    is_signed: bool = False


class UnionCase(msgspec.Struct, frozen=True, omit_defaults=True):
    """One member of a union and the tag values that select it."""

    tags: tuple[int, ...]
    field: Field


class Struct(msgspec.Struct, frozen=True, omit_defaults=True):
    """A C struct or union."""

    name: str
    size: int
    align: int
    fields: tuple[Field, ...] = ()
    """In the order in which they travel."""
    stype: int | None = None
    """VkStructureType; None for structs without one."""
    extends: tuple[str, ...] = ()
    wire: bool = True
    """Whether it may travel.  Structs that carry host pointers or descriptors may not."""
    cases: tuple[UnionCase, ...] = ()
    """Unions: what each tag selects."""


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Vulkan or transport command."""

    name: str
    number: int
    fields: tuple[Field, ...]
    size: int
    """Bytes of the parameter block."""
    result: Literal["void", "VkResult", "u32", "u64"] = "void"
    result_offset: int = 0
    level: Literal["global", "instance", "device", "transport"] = "device"
    aliases: tuple[str, ...] = ()
    creates: str = ""
    """Handle type of the objects it makes."""
    refused: str = ""
    """Why a guest may not send it; empty when it may."""
    provided_by: tuple[str, ...] = ()
    """Versions (VK_VERSION_1_3) and extensions of which one must be there; empty: all have it."""


class Extension(msgspec.Struct, frozen=True):
    """An extension with a wire format."""

    number: int
    version: int
    depends: str = ""
    """What it needs, as the registry has it; see `protocol.depends`."""


class Summary(msgspec.Struct, frozen=True):
    """What a worker needs of the model, in a file of its own: the model takes 5 MB of memory."""

    header_version: int
    """VK_HEADER_VERSION of the registry."""
    handles: dict[str, int]
    """Handle type to VkObjectType."""
    extensions: dict[str, Extension]
    guest_extensions: frozenset[str]
    """Device extensions that live in the guest alone: what needs a window system, and more."""
    provided_by: dict[str, tuple[str, ...]] = {}
    """Commands that not every physical device or device has: what provides them."""


class Model(msgspec.Struct, dict=True):
    """Everything the tables are made from."""

    header_version: int
    """VK_HEADER_VERSION of the registry."""
    commands: dict[str, Command]
    structs: dict[str, Struct]
    handles: dict[str, int]
    """Handle type to VkObjectType."""
    extensions: dict[str, Extension]
    guest_extensions: frozenset[str] = frozenset()
    """Device extensions that live in the guest alone: what needs a window system, and more."""
    relations: dict[str, tuple[Relation, ...]] = {}
    """By the struct or command that they belong to."""
    facts: dict[str, tuple[Fact, ...]] = {}
    """What is remembered of the objects that a command makes, by the command."""

    @functools.cached_property
    def commands_by_number(self) -> dict[int, Command]:
        """Commands by their number on the wire."""
        return {c.number: c for c in self.commands.values() if c.number >= 0}

    @functools.cached_property
    def structs_by_stype(self) -> dict[int, Struct]:
        """Structs that may be chained, by VkStructureType."""
        return {s.stype: s for s in self.structs.values() if s.stype is not None}


@functools.cache
def summary() -> Summary:
    """Read the summary of the model that was compiled into this installation.

    Raises FileNotFoundError when the package was not built.
    """
    path = Path(__file__).with_name("summary.json")
    return msgspec.json.decode(path.read_bytes(), type=Summary)


@functools.cache
def load() -> Model:
    """Read the model that was compiled into this installation.

    Raises FileNotFoundError when the package was not built.
    """
    path = Path(__file__).with_name("model.json")
    return msgspec.json.decode(path.read_bytes(), type=Model)
