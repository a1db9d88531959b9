"""Null where Vulkan wants an object: refused before a driver follows it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from operator import setitem
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import CodecError, Reader
from hesper.protocol.model import Command, Field, Struct
from kernel.decoding import CODEC, MODEL, SENT, Bench

Place = tuple[str, Callable[[int], None]]
"""Where a handle stands, `VkBufferMemoryBarrier.buffer`, and what puts another there."""
VIEW = "VkDescriptorImageInfo.imageView"
"""Samplers have none: see `test_null_descriptors`."""


def handles(owner: str, fields: tuple[Field, ...], values: dict[str, Any]) -> Iterator[Place]:
    """All handles in `values` that must not be null."""
    for field in fields:
        value = values.get(field.name)
        if not value or field.shape == "nested" or (field.output and field.kind == "handle"):
            continue
        if field.kind == "handle" and not field.may_be_null:
            name = f"{owner}.{field.name}"
            if field.shape == "array":
                yield name, partial(setitem, value, -1)
            else:
                yield name, partial(setitem, values, field.name)
        elif field.kind == "struct" and not field.output:
            struct = MODEL.structs[field.type]
            for one in [value] if isinstance(value, dict) else value:
                yield from inside(struct.name, one)


def inside(name: str, value: dict[str, Any]) -> Iterator[Place]:
    """Those in a struct and in what is chained to it."""
    yield from handles(name, MODEL.structs[name].fields, value)
    for chained, content in value.get("pNext") or ():
        yield from inside(chained, content)


def by_feature(owner: str, fields: tuple[Field, ...], values: dict[str, Any]) -> Iterator[Place]:
    """All handles in `values` that may be null by a feature alone."""
    for field in fields:
        value = values.get(field.name)
        if not value or field.output or field.shape == "nested":
            continue
        if field.null_by_feature:
            change = partial(setitem, value, -1) if field.shape == "array" else None
            yield f"{owner}.{field.name}", change or partial(setitem, values, field.name)
        elif field.kind == "struct":
            struct = MODEL.structs[field.type]
            for one in [value] if isinstance(value, dict) else value:
                yield from by_feature(struct.name, struct.fields, one)
                for chained, content in one.get("pNext") or ():
                    yield from by_feature(chained, MODEL.structs[chained].fields, content)


def test_some_null_handles_are_for_a_feature() -> None:
    """Null where nullDescriptor or maintenance6 allow it: only with them."""
    without, with_it = Bench(takes_null=False), Bench()
    tried: set[str] = set()
    for name in SENT:
        command = MODEL.commands[name]
        for seed in range(60):
            values = with_it.values(random.Random(f"{name} {seed}")).parameters(command)
            for place, put in by_feature(name, command.fields, values):
                if place in tried or place == VIEW:
                    continue
                tried.add(place)
                put(0)
                sent = CODEC.encode(name, values)
                with_it.expected = without.expected = {}
                with_it.engine.submit(sent)
                if without.engine.fatal:
                    without.start()
                with pytest.raises(ProtocolError, match="null is not allowed without the feature"):
                    without.engine.submit(sent)
                break
    owners: list[Struct | Command] = [*MODEL.structs.values(), *MODEL.commands.values()]
    named = {
        f"{owner.name}.{field.name}"
        for owner in owners
        for field in owner.fields
        if field.null_by_feature
    }
    assert tried == named - {VIEW}
    assert VIEW in named


def test_null_handles_are_refused() -> None:
    bench = Bench()
    tried: set[str] = set()
    for name in SENT:
        command = MODEL.commands[name]
        for seed in range(20):
            values = bench.values(random.Random(f"{name} {seed}")).parameters(command)
            left = [each for each in handles(name, command.fields, values) if each[0] not in tried]
            if not left:
                continue
            place, put = left[0]
            tried.add(place)
            put(0)
            sent = CODEC.encode(name, values)
            with pytest.raises(CodecError, match="VK_NULL_HANDLE is not allowed"):
                CODEC.decode(Reader(sent))
            if bench.engine.fatal:
                bench.start()
            bench.expected = {}
            with pytest.raises(ProtocolError, match="null is not allowed"):
                bench.engine.submit(sent)
    assert {
        "vkBindImageMemory.memory",
        "vkCmdBindPipeline.pipeline",
        "VkBindImageMemoryInfo.memory",
        "VkImageMemoryBarrier.image",
        "VkImageViewCreateInfo.image",
        "VkRenderPassBeginInfo.framebuffer",
        "VkSubmitInfo.pCommandBuffers",
        "VkSemaphoreWaitInfo.pSemaphores",
    } <= tried
    assert len(tried) > 250
