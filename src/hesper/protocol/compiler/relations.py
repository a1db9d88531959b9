"""Reads `facts/relations.toml`: every name must be one of the model or the registry."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Literal, get_args

from hesper.protocol.relations import (
    DEVICE_NUMBERS,
    FACTS,
    Comparison,
    Condition,
    Fact,
    Path,
    Relation,
    Remedy,
    Step,
    Term,
)

if TYPE_CHECKING:
    from hesper.protocol.model import Field, Model, Struct

_COMPARISONS = get_args(Comparison)
_REMEDIES = get_args(Remedy)
_LIMITS = "VkPhysicalDeviceLimits"


class RelationError(Exception):
    """A relation that cannot be: what, and of which struct or command."""


class RelationReader:
    """Turns sentences into relations of one model."""

    def __init__(self, model: Model, vk: Any) -> None:
        """`vk`: the registry, as `vulkan_object` reads it."""
        self._model = model
        self._values = {
            f.name: int(f.value) & 0xFFFFFFFF for enum in vk.enums.values() for f in enum.fields
        }
        self._enums = {
            name: tuple(sorted({int(f.value) & 0xFFFFFFFF for f in enum.fields}))
            for name, enum in vk.enums.items()
        }
        for mask in vk.bitmasks.values():
            self._values |= {flag.name: int(flag.value) for flag in mask.flags}
        self._values |= {
            name: int(c.value) for name, c in vk.constants.items() if isinstance(c.value, int)
        }
        self._planes = {
            self._values[name]: len(item.planes) for name, item in vk.formats.items() if item.planes
        }
        self._facts: dict[str, list[str]] = {}
        self._limits = {f.name for f in model.structs[_LIMITS].fields}

    def read_facts(self, facts: dict[str, dict[str, str]]) -> dict[str, tuple[Fact, ...]]:
        """Facts by the command that makes the objects; before `read`.  Raises RelationError."""
        found = {}
        for name, sentences in facts.items():
            command = self._model.commands.get(name)
            if command is None or not command.creates or len(sentences) > FACTS:
                raise RelationError(f"facts/relations.toml: facts.{name}: it makes no such object")
            found[name] = tuple(
                Fact(fact, self._fact_terms(command.fields, text))
                for fact, text in sentences.items()
            )
            known = self._facts.setdefault(command.creates, list(sentences))
            if known != list(sentences):
                raise RelationError(f"facts/relations.toml: facts.{name}: not those of {known}")
        return found

    def _fact_terms(self, fields: tuple[Field, ...], text: str) -> tuple[Term, ...]:
        last = re.fullmatch(r"last\((.+) in (\w+)\)", text)
        if last is None:
            return tuple(self._term(fields, t) for t in text.split(" * "))
        path = self._path(fields, last[1])
        if [s.kind for s in path.steps[-2:]] != ["each", "field"]:
            raise RelationError(f"facts/relations.toml: {text!r} has no elements")
        return (Term("last", self._number(last[2]), path),)

    def read(self, relations: dict[str, list[str]]) -> dict[str, tuple[Relation, ...]]:
        """Relations by their owner.  Raises RelationError."""
        found = {}
        for owner, sentences in relations.items():
            try:
                fields = self._owner(owner)
                found[owner] = tuple(self._relation(fields, s) for s in sentences)
            except RelationError as error:
                raise RelationError(f"facts/relations.toml: {owner}: {error}") from None
        return found

    def with_enumerants(
        self, relations: dict[str, list[str]], held: set[tuple[str, str]]
    ) -> dict[str, list[str]]:
        """Add that the parameters of commands are enumerants of the registry's, by their types.

        held: commands and parameters of which that is known anyway.  Questions about a physical
        device are left out: a program may know of newer formats.
        """
        found = {owner: list(sentences) for owner, sentences in relations.items()}
        for command in self._model.commands.values():
            if command.refused or command.name.startswith("vkGetPhysicalDevice"):
                continue
            for f in command.fields:
                spoken = (command.name, f.name) in held or any(
                    s.startswith(f"{f.name} ") for s in found.get(command.name, ())
                )
                if f.shape == "value" and f.type in self._enums and not f.output and not spoken:
                    found.setdefault(command.name, []).append(f"{f.name} in {f.type}")
        return found

    def _owner(self, name: str) -> Struct | tuple[Field, ...]:
        command = self._model.commands.get(name)
        if command is not None:
            if command.refused:
                raise RelationError(f"a guest cannot send it: {command.refused}")
            return command.fields
        struct = self._model.structs.get(name)
        if struct is None:
            raise RelationError("there is no such struct or command")
        if not struct.wire or struct.cases:
            raise RelationError("a guest cannot send it by itself")
        return struct

    def _relation(self, owner: Struct | tuple[Field, ...], text: str) -> Relation:
        sentence, _, remedy = text.partition(", else ")
        words = sentence.split()
        marks = [i for i, w in enumerate(words) if w in _COMPARISONS]
        if not marks or remedy not in _REMEDIES:
            raise RelationError(f"{text!r} is no relation")
        comparison = words[marks[0]]
        subject = " ".join(words[: marks[0]])
        total = re.fullmatch(r"sum\((.+)\)", subject)
        left = self._path(owner, total[1] if total else subject, given=comparison == "given")
        parts = _split(words[marks[0] + 1 :])
        right: tuple[Term, ...] = ()
        values: tuple[int, ...] = ()
        if comparison == "in":
            values = self._numbers(parts.right)
        elif comparison != "given":
            right = tuple(self._term(owner, t) for t in parts.right.split(" * "))
        if parts.allowed:
            values += self._numbers(parts.allowed)
        conditions = tuple(self._condition(owner, w, unless) for w, unless in parts.conditions)
        beside = self._beside(owner, text, left, remedy)
        return Relation(
            text,
            left,
            comparison,  # type: ignore[arg-type]
            right,
            values,
            conditions,
            remedy,  # type: ignore[arg-type]
            total is not None,
            beside,
            self._kind(owner, left, beside) if remedy == "pad" else "numbers",
        )

    def _condition(
        self, owner: Struct | tuple[Field, ...], words: list[str], unless: bool
    ) -> Condition:
        if words[1:] == ["given"]:
            return Condition(self._path(owner, words[0], given=True), kind="given", unless=unless)
        if len(words) != 3 or words[1] not in ("in", "has"):
            raise RelationError(f"{' '.join(words)!r} is no condition")
        path, values = self._path(owner, words[0]), self._numbers(words[2])
        return Condition(path, values, "in" if words[1] == "in" else "has", unless)

    def _numbers(self, text: str) -> tuple[int, ...]:
        found = self._enums.get(text)
        return found or tuple(self._number(word) for word in text.split("|"))

    def _number(self, word: str) -> int:
        if word[:1].isdigit():
            return int(word, 0)
        if word not in self._values:
            raise RelationError(f"there is no enumerant {word}")
        return self._values[word]

    def _term(self, owner: Struct | tuple[Field, ...], text: str) -> Term:
        if text[:1].isdigit() or text.startswith("VK_"):
            return Term("value", self._number(text))
        kind, _, name = text.partition(".")
        if kind in ("limits", "device"):
            if name not in (self._limits if kind == "limits" else DEVICE_NUMBERS):
                raise RelationError(f"there is no {text}")
            return Term("limit", limit=name)
        if at := re.fullmatch(r"(\w+)\[(\w+)\]\.(.+)", text):
            element = self._model.structs.get(_field(owner, at[1]).type)
            if element is None:
                raise RelationError(f"{at[1]} is no array of structs")
            return Term("at", path=self._single(element, at[3]), array=at[1], index=at[2])
        if extent := re.fullmatch(r"levels\((.+)\)", text):
            steps = self._single(owner, extent[1] + ".width").steps[:-1]
            return Term("levels", path=Path(steps))
        if of := re.fullmatch(r"aspects\((.+)\)", text):
            first = self._values["VK_IMAGE_ASPECT_PLANE_0_BIT"]
            return Term("aspects", first, self._single(owner, of[1]), planes=self._planes)
        if mask := re.fullmatch(r"bits\((.+)\)", text):
            return Term("bits", path=self._single(owner, mask[1]))
        return Term("path", path=self._single(owner, text))

    def _single(self, owner: Struct | tuple[Field, ...], text: str) -> Path:
        """Read a path to one number."""
        path = self._path(owner, text)
        if any(s.kind == "each" for s in path.steps):
            raise RelationError(f"{text!r} is more than one number")
        return path

    def _path(self, owner: Struct | tuple[Field, ...], text: str, *, given: bool = False) -> Path:
        """Read a path, of which every name must be there."""
        first, _, second = text.partition(" + ")
        steps = self._steps(owner, first, given=given)
        if not second:
            return Path(steps)
        rest = re.fullmatch(r"rest\((.+)\)", second)
        other = self._steps(owner, rest[1] if rest else second)
        outer = len(steps) - 1
        there = walk(self._model, owner, Path(other))[outer:]
        is_there = all(f is not None and f.shape == "value" for _, _, f in there)
        if given or other[:outer] != steps[:-1] or not is_there:
            raise RelationError(f"{text!r} does not add two fields of one struct")
        return Path(steps, ".".join(s.name for s in other[outer:]), rest is not None)

    def _steps(
        self, owner: Struct | tuple[Field, ...], text: str, *, given: bool = False
    ) -> tuple[Step, ...]:
        at: Struct | tuple[Field, ...] | None = owner
        steps: list[Step] = []
        handle = ""
        words = text.split(".")
        for i, word in enumerate(words):
            if at is None and i == len(words) - 1 and word in self._facts.get(handle, ()):
                return (*steps, Step("fact", word))
            if at is None:
                raise RelationError(f"{text!r}: nothing is in {words[i - 1]}")
            if word in self._model.structs:
                at = self._chained(at, word)
                steps.append(Step("chain", word))
                continue
            step = Step("each" if word.endswith("[]") else "field", word.removesuffix("[]"))
            field = _field(at, step.name)
            last = i == len(words) - 1
            handle = field.type if field.kind == "handle" and field.shape == "value" else ""
            if last or not handle:
                _check_step(field, step, is_value=last and not given, is_pointer=last and given)
            steps.append(step)
            at = self._model.structs[field.type] if field.kind == "struct" else None
        if steps[-1].kind == "chain" or (at is not None and not given):
            raise RelationError(f"{text!r} is no number")
        return tuple(steps)

    def _chained(self, at: Struct | tuple[Field, ...], name: str) -> Struct:
        struct = self._model.structs[name]
        if isinstance(at, tuple) or at.name not in struct.extends or not struct.wire:
            raise RelationError(f"{name} cannot stand in that pNext chain")
        return struct

    def _kind(
        self, owner: Struct | tuple[Field, ...], left: Path, beside: str
    ) -> Literal["numbers", "unions", "structs"]:
        """What the array beside LEFT is of."""
        kind = _field(siblings(self._model, owner, left), beside).kind
        return "unions" if kind == "union" else "structs" if kind == "struct" else "numbers"

    def _beside(self, owner: Struct | tuple[Field, ...], text: str, left: Path, remedy: str) -> str:
        """What a remedy changes besides LEFT.  Raises RelationError where it cannot help."""
        kinds = [s.kind for s in left.steps]
        if remedy == "drop":
            if kinds[-2:] != ["each", "field"] or "each" in kinds[:-2]:
                raise RelationError(f"{text!r}: there is nothing to drop")
            array = siblings(self._model, owner, Path(left.steps[:-1]))
            length = _field(array, left.steps[-2].name).length
            if length is None or len(length.path) != 1:
                raise RelationError(f"{text!r}: there is no count to lower")
            return length.path[0]
        if remedy and ("each" in kinds or "fact" in kinds or left.plus):
            raise RelationError(f"{text!r}: there is more than one number to change")
        if remedy not in ("pad", "clear"):
            return ""
        name = left.steps[-1].name
        arrays = [
            f.name
            for f in siblings(self._model, owner, left)
            if f.shape == "array" and f.length is not None and f.length.path == (name,)
        ]
        if len(arrays) != 1:
            raise RelationError(f"{text!r}: it is not one array's length")
        return arrays[0]


class _Parts:
    """What follows a comparison."""

    def __init__(self) -> None:
        self.right = ""
        self.allowed = ""
        self.conditions: list[tuple[list[str], bool]] = []


def _split(words: list[str]) -> _Parts:
    parts = _Parts()
    starts = [i for i, w in enumerate(words) if w in ("or", "if", "unless")] + [len(words)]
    parts.right = " ".join(words[: starts[0]])
    for start, end in itertools.pairwise(starts):
        rest = words[start + 1 : end]
        if words[start] == "or":
            parts.allowed = " ".join(rest)
        else:
            parts.conditions.append((rest, words[start] == "unless"))
    return parts


def _field(at: Struct | tuple[Field, ...], name: str) -> Field:
    fields = at if isinstance(at, tuple) else at.fields
    field = next((f for f in fields if f.name == name), None)
    if field is None:
        raise RelationError(f"there is no field {name}")
    return field


def _check_step(field: Field, step: Step, *, is_value: bool, is_pointer: bool) -> None:
    """Raise where the field cannot be gone through, or is not what the path ends with."""
    arrays = ("array", "fixed")
    if step.kind == "each":
        fits = field.shape in arrays and field.kind in ("scalar", "struct") and not is_pointer
    elif is_pointer:
        fits = field.shape in ("array", "pointer", "nested")
        fits = fits or (field.shape == "value" and field.kind == "handle")
    elif is_value:
        fits = field.shape == "value" and field.kind == "scalar" and not field.is_float
        fits = fits or (field.shape == "pointer" and field.kind == "scalar")
    else:
        fits = field.shape in ("value", "pointer") and field.kind == "struct"
    if not fits or (field.output and not is_value):
        raise RelationError(f"{step.name} ({field.type}, {field.shape}) cannot stand there")


def walk(
    model: Model, owner: Struct | tuple[Field, ...], path: Path
) -> list[tuple[Step, Struct | None, Field | None]]:
    """A path's steps with the struct that is gone to (chains) or the field."""
    at: Struct | tuple[Field, ...] = owner
    found: list[tuple[Step, Struct | None, Field | None]] = []
    for step in path.steps:
        if step.kind == "chain":
            at = model.structs[step.name]
            found.append((step, at, None))
            continue
        if step.kind == "fact":
            break
        field = _field(at, step.name)
        found.append((step, None, field))
        if field.kind == "struct":
            at = model.structs[field.type]
    return found


def siblings(model: Model, owner: Struct | tuple[Field, ...], path: Path) -> tuple[Field, ...]:
    """The fields that the last one of a path stands among."""
    at = owner
    for _, struct, field in walk(model, owner, path)[:-1]:
        at = struct or model.structs[field.type]  # type: ignore[union-attr]
    return at if isinstance(at, tuple) else at.fields
