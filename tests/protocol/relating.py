"""Values that keep the relations of the model, and such that break one of them by one."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hesper.protocol import relations
from hesper.protocol.codec import Codec
from hesper.protocol.model import Command, Field, Model, Struct
from hesper.protocol.relations import (
    DEVICE_NUMBERS,
    NOTHING,
    Condition,
    Known,
    Path,
    Relation,
    Step,
)
from protocol.values import NEVER_NULL, Values

LIMIT = 8
"""Of everything that a device has a limit for, in tests."""


LARGER = 500
"""Above the id of an object, there is one whose facts are one more."""

BY_HAND = (
    # Beside other relations that leave no number which is just right, or wrong by one.
    "VkBindImagePlaneMemoryInfo.planeAspect <",
    "VkImagePlaneMemoryRequirementsInfo.planeAspect <",
    "planeAspect <",
    "rasterizationSamples <=",
    "pInheritanceInfo.VkCommandBufferInheritanceRenderingInfo.rasterizationSamples <=",
    "sampleLocationsCount <=",
    # Of such bindings a layout wants to know more.
    "VkMutableDescriptorTypeCreateInfoEXT.",
)
"""How relations begin that have tests of their own."""

MANY = 4096
"""Elements: arrays with more are left out, if they can be."""


def ids(model: Model) -> dict[str, int]:
    """An id for an object of each type."""
    return {name: i for i, name in enumerate(model.handles, 1)}


def small(model: Model) -> Known:
    """Limits, and facts of the objects of `ids`, that are all LIMIT; LARGER on, one more."""
    fields = model.structs["VkPhysicalDeviceLimits"].fields
    names = [f.name for f in fields if f.shape == "value" and not f.is_float and f.size == 4]
    objects: dict[int, dict[str, int]] = {}
    for command, facts in model.facts.items():
        at = ids(model)[model.commands[command].creates]
        objects[at] = {f.name: LIMIT for f in facts}
        objects[at + LARGER] = {f.name: LIMIT + 1 for f in facts}
    return Known(dict.fromkeys([*names, *DEVICE_NUMBERS], LIMIT), objects)


class Union(Step, frozen=True):
    """A step to the struct that a union has for a tag."""

    tag: int


def members(model: Model, f: Field) -> list[tuple[int, Struct]]:
    """The structs that a union may be, if that is one of which another field says which."""
    if f.kind != "union" or not f.selector:
        return []
    inner = [c for c in model.structs[f.type].cases if c.field.kind == "struct"]
    return [(c.tags[0], model.structs[c.field.type]) for c in inner]


@dataclass
class Case:
    """A command with a relation somewhere in it."""

    command: str
    owner: str
    steps: tuple[Step, ...]
    """From the command's parameters to the struct that the relation belongs to."""
    relation: Relation


def cases(model: Model) -> list[Case]:
    """One for every relation there is."""
    found = []
    for owner, owned in model.relations.items():
        command, steps = way_to(model, owner)
        found += [Case(command, owner, steps, r) for r in owned if not r.text.startswith(BY_HAND)]
    return found


def way_to(model: Model, owner: str) -> tuple[str, tuple[Step, ...]]:
    """A command, and the shortest way from its parameters to a struct; LookupError: none."""
    if owner in model.commands:
        return owner, ()
    waiting: deque[tuple[str, tuple[Step, ...], tuple[Field, ...], str]] = deque(
        (c.name, (), c.fields, "") for c in model.commands.values() if not c.refused
    )
    seen = set()
    while waiting:
        command, steps, fields, struct = waiting.popleft()
        if struct == owner:
            return command, steps
        if struct in seen:
            continue
        seen.add(struct or command)
        for f in fields:
            if f.kind == "struct" and not f.output and f.shape in ("value", "pointer", "array"):
                kind = Step("each" if f.shape == "array" else "field", f.name)
                inner = model.structs[f.type]
                waiting.append((command, (*steps, kind), inner.fields, inner.name))
            for tag, inner in members(model, f):
                within = (*steps, Union("field", f.name, tag))
                waiting.append((command, within, inner.fields, inner.name))
        for s in model.structs.values():
            if struct in s.extends and s.wire:
                waiting.append((command, (*steps, Step("chain", s.name)), s.fields, s.name))
    raise LookupError(owner)


def _let_bindings_differ(value: Any) -> None:
    """Number the bindings of layouts anew where one stands twice, which is no relation."""
    if isinstance(value, list | tuple):
        for element in value:
            _let_bindings_differ(element)
    elif isinstance(value, dict):
        bindings = value.get("pBindings") or []
        if len({each["binding"] for each in bindings}) < len(bindings):
            for number, each in enumerate(bindings):
                each["binding"] = number
        _let_bindings_differ(list(value.values()))


class Relating(Values):
    """Draws values, and puts numbers where a relation speaks of."""

    def __init__(
        self,
        model: Model,
        rng: random.Random,
        handle: Callable[[str], int] | None = None,
        new_handle: Callable[[], int] | None = None,
        known: Known = NOTHING,
    ) -> None:
        super().__init__(model, rng, handle, new_handle)
        self.known = known

    def parameters(self, command: Command) -> dict[str, Any]:
        """Values for all parameters of a command, which keep all relations."""
        values = super().parameters(command)
        self.conform(command.name, command.fields, values)
        self.follow(command.fields, values)
        return values

    def _fields(self, s: Struct, value: dict[str, Any], depth: int) -> None:
        super()._fields(s, value, depth)
        self.conform(s.name, s.fields, value)

    def conform(self, owner: str, fields: tuple[Field, ...], value: dict[str, Any]) -> None:
        """Make all relations of a struct or command hold."""
        for r in self.model.relations.get(owner, ()) * 3:
            self.mend(r, fields, value)

    def message(self, case: Case, *, good: bool) -> dict[str, Any]:
        """Parameters in which the relation is met exactly, or broken by one."""
        command = self.model.commands[case.command]
        value = {f.name: self.least(f) for f in command.fields}
        fields = command.fields
        holder: dict[str, Any] = value
        for step in case.steps:
            holder, fields = self.into(holder, fields, step)
        self.state(case.relation, fields, holder, good=good)
        self.settle(case, value, command.fields, good=good)
        self.follow(command.fields, value)
        _let_bindings_differ(value)
        return value

    def follow(self, fields: tuple[Field, ...], value: dict[str, Any]) -> None:
        """Make arrays as long as counts in other structs say."""
        for f in fields:
            elsewhere = (f.length is not None and len(f.length.path) == 2) or f.inner_of
            if elsewhere and (value.get(f.name) is not None or not f.optional):
                self.fill(f, value, wanted=True)

    def fill(self, f: Field, holder: dict[str, Any], *, wanted: bool = False) -> None:
        """Give an array the elements that its count says."""
        assert f.length is not None
        count = Codec.length(f.length, holder)
        if f.output and f.kind not in ("handle", "struct"):
            holder[f.name] = count or None
        elif f.shape == "nested" and (wanted or not f.optional):
            holder[f.name] = [self.nested(f, holder, i) for i in range(count)] or None
        elif f.shape != "nested" and (wanted or not f.optional or count < MANY):
            holder[f.name] = self.elements(f, count) if count else None

    def settle(
        self, case: Case, value: dict[str, Any], fields: tuple[Field, ...], *, good: bool
    ) -> None:
        """Make the other relations hold, from the inside out, as far as they are looked at."""
        places = [(case.command, fields, value)]
        for step in case.steps:
            inner, of = self.into(places[-1][2], places[-1][1], step)
            places.append((self.type_of(places[-1][1], step), of, inner))
        for owner, of, holder in reversed(places):
            for r in self.model.relations.get(owner, ()) * (3 if good else 1):
                if r is case.relation:
                    if good:
                        self.mend(r, of, holder)
                    elif not r.remedy:
                        return
                elif good or r.left != case.relation.left:
                    self.mend(r, of, holder, keep=case.relation)

    def type_of(self, fields: tuple[Field, ...], step: Step) -> str:
        """The struct that a step leads to."""
        if step.kind == "chain":
            return step.name
        if isinstance(step, Union):
            return self.member(fields, step).name
        return next(f for f in fields if f.name == step.name).type

    def member(self, fields: tuple[Field, ...], step: Union) -> Struct:
        f = next(f for f in fields if f.name == step.name)
        return dict(members(self.model, f))[step.tag]

    def least(self, f: Field) -> Any:
        """The value with the least in it."""
        if f.shape == "pointer" and not f.optional:
            return self.new_handle() if f.output and f.kind == "handle" else self.element(f)
        if f.shape == "fixed":
            assert f.length is not None
            return self._elements(f, f.length.constant, 9)
        if f.length is not None and not f.length.path:
            return f.length.constant if f.output else self._elements(f, f.length.constant, 9)
        if f.shape == "value":
            return self.element(f)
        return None

    def element(self, f: Field) -> Any:
        """The least element."""
        if f.kind == "struct":
            return self.least_struct(self.model.structs[f.type])
        if f.kind == "handle":
            return 0 if f.may_be_null else self.handle_of(f.type)
        if f.kind == "union":
            return self._element(f, 9)
        return 0.0 if f.is_float else 0

    def handle_of(self, name: str) -> int:
        """A handle that is not null."""
        found = 0
        while not found:
            found = self.handle(name)
        return found

    def least_struct(self, s: Struct) -> dict[str, Any]:
        """The least struct that keeps its own relations."""
        value = {f.name: self.least(f) for f in self._own(s)}
        for f in s.fields:
            if f"{s.name}.{f.name}" in NEVER_NULL:
                value[f.name] = self.handle_of(f.type)
            if f.selector:
                value[f.selector] = self.model.structs[f.type].cases[0].tags[0]
                value[f.name] = self._union(f, 9, value[f.selector])
        if s.stype is not None:
            value["pNext"] = []
        self.conform(s.name, s.fields, value)
        return value

    # Going along paths, and making them.

    def into(
        self, holder: dict[str, Any], fields: tuple[Field, ...], step: Step
    ) -> tuple[dict[str, Any], tuple[Field, ...]]:
        """Where a step leads: made, if it is not there."""
        if step.kind == "chain":
            struct = self.model.structs[step.name]
            found = relations.chained(holder, step.name)
            if found is None:
                found = self.least_struct(struct)
                holder["pNext"].append((step.name, found))
            return found, struct.fields
        f = next(f for f in fields if f.name == step.name)
        if isinstance(step, Union):
            inner = self.member(fields, step)
            if not isinstance(holder[f.name][1], dict) or holder[f.selector] != step.tag:
                holder[f.selector] = step.tag
                holder[f.name] = (step.tag, self.least_struct(inner))
            return holder[f.name][1], inner.fields
        if step.kind == "each":
            if not holder.get(step.name):
                self.resize(holder, fields, f, 1)
            return holder[step.name][0], self.fields_of(f)
        if holder.get(step.name) is None:
            holder[step.name] = self.element(f)
        return holder[step.name], self.fields_of(f)

    def fields_of(self, f: Field) -> tuple[Field, ...]:
        return self.model.structs[f.type].fields if f.kind == "struct" else ()

    def resize(
        self, holder: dict[str, Any], fields: tuple[Field, ...], array: Field, count: int
    ) -> None:
        """Give an array, and all others of that length, `count` elements."""
        assert array.length is not None
        assert len(array.length.path) == 1, array
        self.put(holder, fields, array.length.path[0], count * array.length.divide)
        if holder.get(array.name) is None:
            holder[array.name] = self.elements(array, count)

    def elements(self, f: Field, count: int) -> Any:
        if self.is_bytes(f):
            return bytes(count)
        return [self.new(f) for _ in range(count)]

    def new(self, f: Field) -> Any:
        if f.kind == "handle":
            return self.new_handle() if f.output else self.handle_of(f.type)
        return self.element(f)

    @staticmethod
    def is_bytes(f: Field) -> bool:
        return f.kind in ("blob", "char") or (f.kind == "scalar" and f.size == 1)

    def put(
        self, holder: dict[str, Any], fields: tuple[Field, ...], name: str, number: int
    ) -> None:
        """Make a field that number; arrays whose length it is follow."""
        outer, inside, inner = name.partition(".")
        if inside:
            struct = self.model.structs[next(f for f in fields if f.name == outer).type]
            self.put(holder.setdefault(outer, {}), struct.fields, inner, number)
            return
        f = next(f for f in fields if f.name == name)
        if f.shape == "value" and f.kind == "handle":
            holder[name] = self.handle_of(f.type) if number else 0
            return
        if f.shape in ("array", "nested"):
            holder[name] = None
            assert f.length is not None
            if number and not Codec.length(f.length, holder) and len(f.length.path) == 1:
                self.put(holder, fields, f.length.path[0], 1)
            if number:
                self.fill(f, holder, wanted=True)
            return
        holder[name] = number - (1 << 32) if f.is_signed and number >> 31 else number
        for array in fields:
            if array.length is None or array.length.path != (name,):
                continue
            self.fill(array, holder)

    def nested(self, f: Field, holder: dict[str, Any], index: int) -> Any:
        assert f.inner is not None
        sibling = (holder.get(f.inner_of) or {index: {}})[index]
        return self.elements(f, Codec.length(f.inner, sibling))

    # Relations.

    def state(
        self, r: Relation, fields: tuple[Field, ...], holder: dict[str, Any], *, good: bool
    ) -> None:
        """Let a relation be met exactly, or be broken by one."""
        self.engage(r, fields, holder)
        for path in (r.left, *(t.path for t in r.right if t.path is not None)):
            if path.steps[-1].kind == "fact":
                self.number(Path(path.steps[:-1]), fields, holder, 1)
        places = self.places(r, fields, holder)
        right = relations.product(r.right, holder, self.known, places)
        assert right is not None, r.text
        left = self.left_for(r, right, good=good)
        if r.left.steps[-1].kind != "fact":
            self.number(r.left, fields, holder, left)
        elif not good:
            places[r.left.steps[-2].name] += LARGER

    def engage(self, r: Relation, fields: tuple[Field, ...], holder: dict[str, Any]) -> None:
        """Make what a relation is about: RIGHT, and what its conditions want."""
        for term in r.right:
            if term.path is not None and term.path.steps[-1].kind == "fact":
                continue
            if term.path is not None and term.kind in ("path", "bits"):
                # What is chained goes by a count of the struct, which may go by an object's facts.
                count = LIMIT if r.left.steps[0].kind == "chain" else 2
                self.number(term.path, fields, holder, 3 if term.kind == "bits" else count)
            elif term.kind == "levels" and term.path is not None:
                self.number(Path((*term.path.steps, Step("field", "width"))), fields, holder, 8)
            elif term.kind == "at" and term.path is not None:
                inner, of = self.into(holder, fields, Step("each", term.array))
                self.number(term.path, of, inner, 2)
        for condition in r.conditions:
            self.meet(condition, fields, holder)

    @staticmethod
    def left_for(r: Relation, right: int, *, good: bool) -> int:
        """What LEFT must be to meet a relation exactly, or to break it by one."""
        left = right if r.comparison in ("==", "<=", ">=") else right - 1
        if r.comparison == "in":
            left = r.values[0]
        elif r.comparison == "given":
            left = 1
        if not good:
            step = -1 if r.comparison in (">=", "given") else 1
            left += step
            while left in r.values:
                left += step
        return left

    def places(self, r: Relation, fields: tuple[Field, ...], holder: dict[str, Any]) -> Any:
        """Make LEFT's path; what its last field stands in."""
        steps = r.left.steps
        for step in steps[: -2 if steps[-1].kind == "fact" else -1]:
            holder, fields = self.into(holder, fields, step)
        if steps[-1].kind == "each":
            self.into(holder, fields, steps[-1])
        return holder

    def number(
        self, path: Path, fields: tuple[Field, ...], holder: dict[str, Any], number: int
    ) -> None:
        """Put a number where a path leads to."""
        for step in path.steps[:-1]:
            holder, fields = self.into(holder, fields, step)
        last = path.steps[-1]
        if last.kind == "each":
            self.into(holder, fields, last)
            holder[last.name][0] = number
            return
        self.put(holder, fields, last.name, number)
        if path.plus:
            self.put(holder, fields, path.plus, 0)

    def meet(self, c: Condition, fields: tuple[Field, ...], holder: dict[str, Any]) -> None:
        if c.unless and not any(relations.places(c.path, holder, self.known)):
            return
        if c.kind == "given":
            self.number(c.path, fields, holder, 0 if c.unless else 1)
        elif not c.unless:
            self.number(c.path, fields, holder, c.values[0])
        elif not relations.meets(c, holder, self.known):
            other = next(n for n in range(1, 99) if n not in c.values)
            self.number(c.path, fields, holder, 0 if c.kind == "has" else other)

    # Mending.

    def mend(
        self,
        r: Relation,
        fields: tuple[Field, ...],
        holder: dict[str, Any],
        keep: Relation | None = None,
    ) -> None:
        """Make a relation hold; `keep`: what must not be made to hold on the way."""
        for _ in range(4):
            try:
                relations.check((r,), holder, self.known)
            except relations.BrokenRelationError:
                pass
            else:
                return
            self.mend_once(r, fields, holder, keep)
        first = r.left.steps[0]
        if first.kind == "chain":
            holder["pNext"] = [(n, v) for n, v in holder["pNext"] if n != first.name]
        elif first.kind == "each":
            f = next(f for f in fields if f.name == first.name)
            assert f.length is not None
            self.put(holder, fields, f.length.path[0], 0)
        with contextlib.suppress(relations.BrokenRelationError):
            relations.check((r,), holder, self.known)

    def mend_once(
        self,
        r: Relation,
        fields: tuple[Field, ...],
        holder: dict[str, Any],
        keep: Relation | None,
    ) -> None:
        for at, name, left in list(relations.places(r.left, holder, self.known)):
            right = relations.product(r.right, holder, self.known, at)
            if right is None or relations.holds(r, left, right):
                continue
            wanted = r.values[0] if r.values else max(right - (r.comparison == "<"), 0)
            if len(r.right) > 1:
                wanted = 0
            elif r.right and r.right[0].kind == "levels":
                wanted = 1
            if r.comparison == "given":
                wanted = 1
            beside = self.fields_at(r.left, fields)
            if self.mend_right(r, fields, holder, left):
                continue
            if isinstance(at, list):
                at[name] = wanted
            elif keep is None or keep.left != r.left:
                self.put(at, beside, name, 0 if r.left.plus or r.total else wanted)
                if r.left.plus:
                    self.put(at, beside, r.left.plus, 0)

    def mend_right(
        self, r: Relation, fields: tuple[Field, ...], holder: dict[str, Any], left: int
    ) -> bool:
        """Make RIGHT what LEFT is, or let nothing be known of it; False: that cannot be."""
        for term in r.right:
            if term.path is None:
                continue
            if term.path.steps[-1].kind == "fact":
                beside = self.fields_at(term.path, fields)
                handle = next(f for f in beside if f.name == term.path.steps[-2].name)
                if not handle.may_be_null:
                    return False
                self.number(Path(term.path.steps[:-1]), fields, holder, 0)
                return True
            if term.kind == "levels":
                width = Path((*term.path.steps, Step("field", "width")))
                self.number(width, fields, holder, 128)
                return False
        other = r.right[0].path if r.right else None
        if other is None:
            return False
        if len(r.right) > 1:
            self.number(other, fields, holder, 0)
        elif r.comparison == "==":
            self.number(other, fields, holder, left)
            return True
        elif r.comparison == "<" and r.right[0].kind == "path":
            self.number(other, fields, holder, 1)
        return False

    def fields_at(self, path: Path, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        """The fields that a path's last one stands among."""
        for step in path.steps[: -2 if path.steps[-1].kind == "fact" else -1]:
            fields = self.model.structs[self.type_of(fields, step)].fields
        return fields
