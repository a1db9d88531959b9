"""What pipelines are bound as, and how many groups of shaders they have: `facts/bounds.toml`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from kernel.conftest import LAYOUT, Host
from kernel.image_messages import (
    CB,
    Command,
    send,
)


def stage(of: int) -> dict[str, Any]:
    return {"flags": 0, "stage": of, "module": 0, "pName": b"main"}


def compute(host: Host, id_: int) -> None:
    info: dict[str, Any] = {
        "flags": 0,
        "stage": stage(0x20),
        "layout": LAYOUT,
        "basePipelineIndex": -1,
    }
    send(host, "vkCreateComputePipelines", device=3, pipelineCache=0, createInfoCount=1,
         pCreateInfos=[info], pPipelines=[id_])  # fmt: skip


def ray_tracing(host: Host, ids: list[int], groups: int, library: int = 0) -> None:
    """Pipelines of the same groups, and those of a library."""
    group_ = {"type": 0, "generalShader": 0, "closestHitShader": 0, "anyHitShader": 0}
    group_ |= {"intersectionShader": 0}
    info: dict[str, Any] = {
        "flags": 0,
        "stageCount": 1,
        "pStages": [stage(0x100)],
        "groupCount": groups,
    }
    info |= {"pGroups": [group_] * groups, "maxPipelineRayRecursionDepth": 1, "layout": LAYOUT}
    info |= {"basePipelineHandle": 0, "basePipelineIndex": -1}
    if library:
        info["pLibraryInfo"] = {"libraryCount": 1, "pLibraries": [library]}
    send(host, "vkCreateRayTracingPipelinesKHR", device=3, deferredOperation=0, pipelineCache=0,
         createInfoCount=len(ids), pCreateInfos=[info] * len(ids), pPipelines=ids)  # fmt: skip


def bind(of: int, point: int) -> Command:
    return "vkCmdBindPipeline", CB | {"pipelineBindPoint": point, "pipeline": of}


def stack(of: int, group_: int) -> Command:
    values = {"device": 3, "pipeline": of, "group": group_, "groupShader": 0}
    return "vkGetRayTracingShaderGroupStackSizeKHR", values


@pytest.fixture
def bound(object_driver: Path) -> Iterator[Host]:
    """Pipelines: of compute, of two groups of shaders, and of one more with those in a library."""
    host = Host(object_driver)
    compute(host, 200)
    ray_tracing(host, [201, 202], 2)
    ray_tracing(host, [203], 1, 202)
    yield host
    host.engine.stop()


@pytest.mark.parametrize(
    "command", [bind(200, 1), bind(201, 1000165000), stack(202, 1), stack(203, 2)], ids=str
)
def test_what_a_pipeline_is_made_for(bound: Host, command: Command) -> None:
    name, parameters = command
    send(bound, name, **parameters)
    assert bound.fatal == []


@pytest.mark.parametrize(
    "command", [bind(200, 0), bind(200, 1000165000), bind(203, 1), bind(201, 9),
                stack(200, 0), stack(202, 2), stack(203, 3)], ids=str
)  # fmt: skip
def test_what_a_pipeline_is_not_made_for(bound: Host, command: Command) -> None:
    name, parameters = command
    with pytest.raises(ProtocolError, match=rf"{name} at byte \d+: .*: \d+ from \d+ on, where"):
        send(bound, name, **parameters)
