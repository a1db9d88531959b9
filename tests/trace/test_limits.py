"""Descriptors at places in buffers that another driver does not allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_drivers import make_driver
from recorded_guest import SIZE, Copier, lavapipe, record_to, replay
from recordings import command, file_of, read

from hesper.host.drivers import choose_driver
from hesper.protocol.codec import Codec
from hesper.trace import session
from hesper.trace.decoded import Decoded, decode
from hesper.trace.frames import OUTCOME
from hesper.trace.limits import Limits
from hesper.trace.outcome import Outcome
from hesper.vk.enumerants import (
    VK_DESCRIPTOR_TYPE_SAMPLER,
    VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
)

CODEC = Codec()
UNIFORM, STORAGE, TEXEL = "minUniformBuffer", "minStorageBuffer", "minTexelBuffer"


def decoded(name: str, **parameters: Any) -> Decoded:
    _, records = read(file_of(command(CODEC.encode(name, parameters))))
    return decode(0, records[0])


def limits(**here: int) -> Limits:
    """Of a driver, where the recorded one allowed every place that is a multiple of 16."""
    found = Limits()
    names = (UNIFORM, STORAGE, TEXEL)

    def answer(values: dict[str, int]) -> dict[str, Any]:
        every = {f"{name}OffsetAlignment": values.get(name, 16) for name in names}
        return {"pProperties": {"limits": every}}

    found.compare(answer({}), answer(here))
    return found


def writes(offset: int) -> list[dict[str, Any]]:
    """One of each."""
    kinds = (
        VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
        VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    )
    info = [{"buffer": 9, "offset": offset, "range": 16}]
    every: list[dict[str, Any]] = [
        {"dstSet": 7, "descriptorCount": 1, "descriptorType": kind, "pBufferInfo": info}
        for kind in kinds
    ]
    sampler = {"dstSet": 7, "descriptorCount": 1, "descriptorType": VK_DESCRIPTOR_TYPE_SAMPLER}
    return [*every, sampler | {"pImageInfo": [{"sampler": 8}]}]


@pytest.mark.parametrize(
    ("here", "offset", "broken"),
    [
        ({}, 16, []),
        ({UNIFORM: 64}, 128, []),
        ({UNIFORM: 64}, 32, ["minUniformBufferOffsetAlignment 64"]),
        ({STORAGE: 32}, 48, ["minStorageBufferOffsetAlignment 32"]),
        (
            {UNIFORM: 256, STORAGE: 32},
            16,
            ["minUniformBufferOffsetAlignment 256", "minStorageBufferOffsetAlignment 32"],
        ),
    ],
)
def test_descriptors(here: dict[str, int], offset: int, broken: list[str]) -> None:
    found = limits(**here)
    assert found.are_less == bool(here)
    written = writes(offset)
    update = decoded(
        "vkUpdateDescriptorSets",
        device=3,
        descriptorWriteCount=len(written),
        pDescriptorWrites=written,
        descriptorCopyCount=0,
    )
    assert found.broken(update) == broken
    pushed = decoded(
        "vkCmdPushDescriptorSet",
        commandBuffer=4,
        pipelineBindPoint=0,
        layout=5,
        set=0,
        descriptorWriteCount=len(written),
        pDescriptorWrites=written,
    )
    assert found.broken(pushed) == broken


@pytest.mark.parametrize(("offset", "is_broken"), [(64, False), (16, True)])
def test_views_and_offsets_at_binding(offset: int, *, is_broken: bool) -> None:
    found = limits(**{UNIFORM: 256, STORAGE: 32, TEXEL: 64})
    info = {"buffer": 9, "format": 98, "offset": offset, "range": 64}
    view = decoded("vkCreateBufferView", device=3, pCreateInfo=info, pView=10)
    assert bool(found.broken(view)) == is_broken
    bind = decoded(
        "vkCmdBindDescriptorSets",
        commandBuffer=4,
        layout=5,
        descriptorSetCount=1,
        pDescriptorSets=[7],
        dynamicOffsetCount=1,
        pDynamicOffsets=[offset],
    )
    assert bool(found.broken(bind)) == is_broken


def test_a_replay_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "places.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    guest = copier.guest
    guest.call("vkGetPhysicalDeviceProperties", physicalDevice=2, pProperties={})
    view = {"buffer": copier.buffers[0], "format": 98, "offset": 16, "range": 64}
    guest.send("vkDestroyBufferView", device=3, bufferView=guest.create("BufferView", view))
    copier.copy(b"\1" * SIZE)
    copier.close()
    recorder.close()
    assert replay(path).misplaced == {}
    made = make_driver(tmp_path / "driver", "discrete", places=(16, 64))
    driver = choose_driver(str(made.manifest))
    for name, value in {**lavapipe().environment, **driver.environment}.items():
        monkeypatch.setenv(name, value)
    outcome = replay(path, on=driver, verify=True)
    assert outcome.misplaced == {"minTexelBufferOffsetAlignment 64": 1}
    # Neither is the view made that the driver does not allow, nor destroyed.
    assert outcome.without == 2
    assert (outcome.fatal, outcome.pages_other) == ("", 0)


def test_texts_of_a_worker_that_was_taken_over_are_shown_without_control_characters() -> None:
    bad = "\x1b[2J"
    outcome = Outcome(
        lacks=[bad], differences=[bad], translated={bad: 1}, misplaced={bad: 1}, fatal=bad
    )
    said = session._said(OUTCOME, msgspec.msgpack.encode(outcome))  # noqa: SLF001
    assert b"\x1b" not in msgspec.msgpack.encode(said.outcome)
