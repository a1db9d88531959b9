"""Random values for any command, made from the model."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hesper.protocol.codec import Codec
from hesper.protocol.model import Command, Field, Model, Struct

FLOATS = (0.0, 1.0, -2.25, 1024.5)
"""Exact in single precision."""


NEVER_NULL = {
    "VkWriteDescriptorSet.dstSet",
    "VkCopyDescriptorSet.srcSet",
    "VkCopyDescriptorSet.dstSet",
    "VkPushDescriptorSetInfo.layout",
    "VkBindDescriptorSetsInfo.layout",
    "VkDescriptorUpdateTemplateCreateInfo.descriptorSetLayout",
    "VkDescriptorUpdateTemplateCreateInfo.pipelineLayout",
}
"""Handles that `facts/sets.toml` wants, though the registry has them optional somewhere."""


def _number_bindings(info: dict[str, Any]) -> None:
    """Let a layout's bindings be what `facts/sets.toml` wants: each once, none of them special."""
    info["flags"] = 0
    for number, binding in enumerate(info["pBindings"] or []):
        binding["binding"] = number
    for name, value in info["pNext"]:
        if name == "VkDescriptorSetLayoutBindingFlagsCreateInfo":
            value["pBindingFlags"] = value["pBindingFlags"] and [0] * len(value["pBindingFlags"])


_CORNER = {"offset": {"x": 0, "y": 0}, "extent": {"width": 1, "height": 1}}


def _bound(name: str, value: dict[str, Any]) -> None:
    """Let a struct be what `facts/bounds.toml` wants where it knows no object."""
    if name == "VkShaderModuleCreateInfo":
        words = [0x07230203, 0x10000, value["flags"], 1, 0]
        value |= {"codeSize": 4 * len(words), "pCode": words}
    elif name == "VkRenderingInfo":
        value |= {"renderArea": _CORNER, "layerCount": 1, "viewMask": 0}
    elif name == "VkDeviceGroupRenderPassBeginInfo":
        areas = value["pDeviceRenderAreas"]
        value["pDeviceRenderAreas"] = areas and [_CORNER] * len(areas)
    elif "srcQueueFamilyIndex" in value:
        value["dstQueueFamilyIndex"] = value["srcQueueFamilyIndex"]


class Values:
    """Draws parameters that the codec accepts."""

    def __init__(
        self,
        model: Model,
        rng: random.Random,
        handle: Callable[[str], int] | None = None,
        new_handle: Callable[[], int] | None = None,
    ) -> None:
        self.model = model
        self.rng = rng
        self.handle = handle or (lambda _type: rng.choice((0, rng.getrandbits(64))))
        self.new_handle = new_handle or (lambda: rng.getrandbits(64))

    def parameters(self, command: Command) -> dict[str, Any]:
        """Values for all parameters of `command`."""
        values: dict[str, Any] = {}
        for f in command.fields:
            if f.output and f.shape != "null":
                values[f.name] = self._output(f, values)
            else:
                values[f.name] = self._field(f, values, 0, required=True)
        return values

    def struct(self, s: Struct, depth: int = 0) -> dict[str, Any]:
        """A value for a struct, with a short random chain."""
        value: dict[str, Any] = {}
        if s.stype is not None:
            value["pNext"] = self._chain(s, depth, partial=False)
        self._fields(s, value, depth)
        if s.name == "VkDescriptorSetLayoutCreateInfo":
            _number_bindings(value)
        return value

    def partial(self, s: Struct, depth: int = 0) -> dict[str, Any]:
        """A value for a struct that the driver is to fill."""
        value: dict[str, Any] = {}
        if s.stype is not None:
            value["pNext"] = self._chain(s, depth, partial=True)
        self._partial_fields(s, value, depth)
        return value

    @staticmethod
    def _own(s: Struct) -> tuple[Field, ...]:
        return s.fields[2:] if s.stype is not None else s.fields

    def _fields(self, s: Struct, value: dict[str, Any], depth: int) -> None:
        unions = {f.selector: self.model.structs[f.type] for f in s.fields if f.selector}
        exact = {f.length.path[0]: f.length.divide for f in s.fields if f.length and f.length.path}
        for f in self._own(s):
            if f.name in unions:
                tags = [t for case in unions[f.name].cases for t in case.tags]
                value[f.name] = self.rng.choice(tags)
                continue
            value[f.name] = self._field(
                f, value, depth, required=f"{s.name}.{f.name}" in NEVER_NULL
            )
            if f.counts and exact.get(f.name, 1) == 4:
                value[f.name] *= 4
        _bound(s.name, value)

    def _chain(self, root: Struct, depth: int, *, partial: bool) -> list[Any]:
        able = [s for s in self.model.structs.values() if s.wire and root.name in s.extends]
        count = self.rng.randint(0, min(len(able), 3)) if depth < 3 else 0
        found = []
        for s in self.rng.sample(able, count):
            value: dict[str, Any] = {}
            if partial:
                self._partial_fields(s, value, depth + 1)
            else:
                self._fields(s, value, depth + 1)
            found.append((s.name, value))
        return found

    def _field(  # noqa: C901, PLR0911  a case a shape
        self, f: Field, values: dict[str, Any], depth: int, *, required: bool = False
    ) -> Any:
        if f.selector:
            return self._union(f, depth, values[f.selector])
        if f.shape == "value":
            return self._element(f, depth, required=required)
        if f.shape == "null":
            return None
        if f.shape == "fixed":
            assert f.length is not None
            return self._elements(f, f.length.constant, depth)
        if f.shape == "pointer":
            if f.optional and (depth > 4 or self.rng.random() < 0.5):
                return None
            return self._element(f, depth)
        if f.shape == "string":
            return self.rng.choice((None, b"", b"name", b"\xc3\xa4\xc3\xb6"))
        assert f.length is not None
        count = Codec.length(f.length, values)
        if count == 0 or (f.optional and self.rng.random() < 0.3):
            return None
        if f.shape == "strings":
            return [self.rng.choice((b"", b"VK_KHR_swapchain")) for _ in range(count)]
        if f.shape == "nested":
            assert f.inner is not None
            siblings = values.get(f.inner_of) or [{}] * count
            if f.inner_of and not values.get(f.inner_of):
                return None
            return [
                self._elements(f, Codec.length(f.inner, siblings[i]), depth) for i in range(count)
            ]
        return self._elements(f, count, depth)

    def _elements(self, f: Field, count: int, depth: int) -> Any:
        if f.kind in ("blob", "char") or (f.kind == "scalar" and f.size == 1):
            return self.rng.randbytes(count)
        return [self._element(f, depth) for _ in range(count)]

    def _element(self, f: Field, depth: int, *, required: bool = False) -> Any:
        if f.kind == "handle":
            value = self.handle(f.type)
            while (required or not f.may_be_null) and value == 0:
                value = self.handle(f.type)
            return value
        if f.kind == "struct":
            return self.struct(self.model.structs[f.type], depth + 1)
        if f.kind == "union":
            cases = self.model.structs[f.type].cases
            tags = [t for case in cases if case.field.kind != "blob" for t in case.tags]
            return self._union(f, depth, self.rng.choice(tags))
        if f.is_float:
            return self.rng.choice(FLOATS)
        if f.counts or f.name.endswith("SetCount") or f.name.endswith("BufferCount"):
            return self.rng.choice((0, 1, 1, 2, 3)) if depth < 4 else 0
        # No two of them reach beyond 64 bits.
        bits = 60 if f.type == "VkDeviceSize" else 8 * f.size
        value = self.rng.choice((0, 1, 7, self.rng.getrandbits(bits)))
        return value - (1 << bits) if f.is_signed and value >> (bits - 1) else value

    def _union(self, f: Field, depth: int, tag: int) -> tuple[int, Any]:
        case = next(c for c in self.model.structs[f.type].cases if tag in c.tags)
        return tag, self._field(case.field, {}, depth + 1)

    def _output(self, f: Field, values: dict[str, Any]) -> Any:
        if f.shape == "pointer":
            if f.optional and self.rng.random() < 0.3:
                return None
            if f.kind == "struct":
                return self.partial(self.model.structs[f.type], 1)
            if f.kind == "handle":
                return self.new_handle()
            return self._element(f, 1) if f.counts else 0
        assert f.length is not None
        count = Codec.length(f.length, values)
        if count == 0 or (f.optional and self.rng.random() < 0.3):
            return None
        if f.kind == "handle":
            return [self.new_handle() for _ in range(count)]
        if f.kind == "struct":
            return [self.partial(self.model.structs[f.type], 1) for _ in range(count)]
        return count

    def _partial_fields(self, s: Struct, value: dict[str, Any], depth: int) -> None:
        for f in self._own(s):
            if f.shape == "value":
                if f.kind == "struct":
                    value[f.name] = self.partial(self.model.structs[f.type], depth + 1)
                elif f.counts:
                    value[f.name] = self._element(f, depth)
            elif f.shape == "fixed":
                assert f.length is not None
                if f.kind == "handle":
                    value[f.name] = [self.new_handle() for _ in range(f.length.constant)]
                elif f.kind == "struct":
                    inner = self.model.structs[f.type]
                    value[f.name] = [
                        self.partial(inner, depth + 1) for _ in range(f.length.constant)
                    ]
            else:
                value[f.name] = self._output(f, value)
