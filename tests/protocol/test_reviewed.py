"""Arrays that may be null, numbers that may be indices, enumerants: each has been thought about."""

from __future__ import annotations

import functools
import pathlib
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase

from hesper.protocol.model import Field, load
from hesper.protocol.relations import Path

MODEL = load()
REVIEWED = tomllib.loads(pathlib.Path(__file__).with_name("reviewed.toml").read_text())
SUSPECT = re.compile(
    r"(?i)(count|index|first|binding|element|subpass|level|layer|size|stride|offset|group|query"
    r"|set$|mask\d?$)"
)


def sent() -> Iterator[tuple[str, tuple[Field, ...]]]:
    """Commands, and the structs that a guest can put into them."""
    commands = [c for c in MODEL.commands.values() if not c.refused]
    yield from ((c.name, c.fields) for c in commands)
    waiting = [f.type for c in commands for f in c.fields if not f.output and f.kind == "struct"]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not MODEL.structs[name].wire:
            continue
        seen.add(name)
        fields = MODEL.structs[name].fields
        yield name, fields
        inside = (*fields, *(c.field for c in MODEL.structs[name].cases))
        waiting += [f.type for f in inside if f.kind in ("struct", "union")]
        waiting += [s.name for s in MODEL.structs.values() if name in s.extends]


FLAGS = re.compile(r"Flags\d?[A-Z]*$")
NO_ENUMERANTS = {"VkBool32", "VkDeviceSize", "VkDeviceAddress"}


@functools.cache
def related() -> set[tuple[str, str]]:
    """Every field that a relation speaks of, with the struct or command that it is in."""
    found: set[tuple[str, str]] = set()
    for of, relations in MODEL.relations.items():
        for r in relations:
            for path in (r.left, *(c.path for c in r.conditions)):
                found |= set(on(of, path))
            for term in r.right:
                if term.kind == "at":
                    found |= {(of, term.array)}
                elif term.path is not None:
                    found |= set(on(of, term.path))
    return found


def on(at: str, path: Path) -> Iterator[tuple[str, str]]:
    """The fields that a path goes through."""
    for step in path.steps:
        if step.kind == "chain":
            at = step.name
        elif step.kind != "fact":
            yield at, step.name
            if step == path.steps[-1] and path.plus:
                yield at, path.plus.partition(".")[0]
            at = next(f.type for f in fields_of(at) if f.name == step.name)


def fields_of(name: str) -> tuple[Field, ...]:
    command = MODEL.commands.get(name)
    return command.fields if command is not None else MODEL.structs[name].fields


def left_over(kind: str, names: list[str]) -> tuple[list[str], list[str]]:
    """Names without a reason, and reasons without a name."""
    patterns = REVIEWED[kind]
    unknown = [n for n in names if not any(fnmatchcase(n, p) for p in patterns)]
    unused = [p for p in patterns if not any(fnmatchcase(n, p) for n in names)]
    return unknown, unused


def test_arrays_that_may_be_null_are_related_or_reviewed() -> None:
    names = [
        f"{owner}.{f.name}"
        for owner, fields in sent()
        for f in fields
        if f.shape in ("array", "nested", "strings")
        and not f.output
        and f.optional
        and f.length is not None
        and f.length.path
        and (owner, f.name) not in related()
    ]
    assert left_over("null", names) == ([], [])


def test_numbers_that_may_be_indices_are_related_or_reviewed() -> None:
    names = []
    for owner, fields in sent():
        if re.match(r"VkPhysicalDevice\w*(Features|Properties)", owner):
            continue
        counts = {name for f in fields if f.length is not None for name in f.length.path[:1]}
        names += [
            f"{owner}.{f.name}"
            for f in fields
            if f.shape == "value"
            and f.kind == "scalar"
            and not f.is_float
            and f.name not in counts
            and SUSPECT.search(f.name)
            and (owner, f.name) not in related()
        ]
    assert left_over("numbers", names) == ([], [])


def test_enumerants_are_related_or_reviewed() -> None:
    """Those of structs; `compiler/relations.py` has each parameter of a command be one."""
    names = [
        f"{owner}.{f.name}"
        for owner, fields in sent()
        if owner in MODEL.structs and not owner.startswith("VkPhysicalDevice")
        for f in fields
        if f.kind == "scalar"
        and f.name != "sType"
        and not f.output
        and f.type.startswith("Vk")
        and f.type not in NO_ENUMERANTS
        and not FLAGS.search(f.type)
        and (owner, f.name) not in related()
    ]
    assert left_over("enumerants", names) == ([], [])
