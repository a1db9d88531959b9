"""What the registry does not say, read from the TOML files in `facts/`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DECLARATION = re.compile(
    r"(?P<const>const )?(?P<type>\w+) (?P<pointer>\*)?(?P<name>\w+)"
    r"(?: len=(?P<len>\w+))?(?P<optional> optional)?"
)


@dataclass
class Declaration:
    """A field as written in a TOML file, in the attributes the registry's members have."""

    name: str
    type: str
    pointer: bool = False
    const: bool = False
    length: str | None = None
    optional: bool = False
    noAutoValidity: bool = False  # noqa: N815 - the registry's name
    optionalPointer: bool = False  # noqa: N815 - the registry's name
    nullTerminated: bool = False  # noqa: N815 - the registry's name
    fixedSizeArray: list[str] = field(default_factory=list)  # noqa: N815 - the registry's name
    fullType: str = ""  # noqa: N815 - the registry's name
    selection: list[str] = field(default_factory=list)
    selector: str | None = None
    bitFieldWidth: int | None = None  # noqa: N815 - the registry's name


@dataclass
class MesaStruct:
    """A struct of VK_MESA_venus_protocol."""

    name: str
    members: list[Declaration]
    stype: int | None
    extends: list[str]


@dataclass
class MesaCommand:
    """A command of VK_EXT_command_serialization or VK_MESA_venus_protocol."""

    name: str
    params: list[Declaration]
    result: str


@dataclass
class Nested:
    """Inner length of an array of pointers to arrays."""

    constant: int = 0
    of: str = ""
    field: str = ""


@dataclass
class Facts:
    """All of `facts/`."""

    numbers: dict[str, int]
    serialisable: set[str]
    host_extensions: set[str]
    guest_extensions: set[str]
    host_commands: list[str]
    refused: dict[str, str]
    nested: dict[str, Nested]
    parents: dict[str, str]
    victims: dict[str, str]
    null_pointers: set[str]
    nullable: set[str]
    null_handles: set[str]
    never_null: set[str]
    null_by_feature: set[str]
    traits: dict[str, list[str]]
    structs: dict[str, MesaStruct]
    commands: dict[str, MesaCommand]
    extensions: dict[str, tuple[int, int]]
    object_facts: dict[str, dict[str, str]]
    relations: dict[str, list[str]]


def parse_declaration(text: str) -> Declaration:
    """Parse `const T *name len=count optional`.  Raises ValueError."""
    match = _DECLARATION.fullmatch(text)
    if match is None:
        raise ValueError(f"facts/mesa.toml: not a field declaration: {text!r}")
    pointer = match["pointer"] is not None
    const = "const " if match["const"] else ""
    return Declaration(
        name=match["name"],
        type=match["type"],
        pointer=pointer,
        const=match["const"] is not None,
        length=match["len"],
        optional=match["optional"] is not None,
        fullType=f"{const}{match['type']}{'*' if pointer else ''}",
    )


def read(folder: Path) -> Facts:
    """Read the TOML files in `folder`.  Raises OSError, tomllib.TOMLDecodeError, ValueError."""

    def load(name: str) -> dict[str, Any]:
        with (folder / name).open("rb") as file:
            return tomllib.load(file)

    numbers = load("commands.toml")
    extensions = load("extensions.toml")
    rules = load("rules.toml")
    mesa = load("mesa.toml")
    relations = load("relations.toml")
    base = [Declaration("sType", "VkStructureType", fullType="VkStructureType")]
    base.append(Declaration("pNext", "void", pointer=True, optional=True, fullType="void*"))
    return Facts(
        numbers=numbers,
        serialisable=set(extensions["serialisable"]),
        host_extensions=set(extensions["host"]),
        guest_extensions=set(extensions["guest"]),
        host_commands=rules["host"]["commands"],
        refused=rules["refused"],
        nested={k: Nested(**v) for k, v in rules["nested"].items()},
        parents=rules["parents"],
        victims=rules["victims"],
        null_pointers=set(rules["null_pointers"]["fields"]),
        nullable=set(rules["nullable"]["fields"]),
        null_handles=set(rules["null_handles"]["may"]),
        never_null=set(rules["null_handles"]["never"]),
        null_by_feature=set(rules["null_handles"]["by_feature"]),
        traits=rules["traits"],
        structs={
            name: MesaStruct(
                name,
                (base if "stype" in s else []) + [parse_declaration(f) for f in s["fields"]],
                s.get("stype"),
                s.get("extends", []),
            )
            for name, s in mesa["structs"].items()
        },
        commands={
            name: MesaCommand(
                name, [parse_declaration(f) for f in c["fields"]], c.get("result", "void")
            )
            for name, c in mesa["commands"].items()
        },
        extensions={k: (v["number"], v["version"]) for k, v in mesa["extensions"].items()},
        object_facts=relations.pop("facts"),
        relations=relations,
    )
