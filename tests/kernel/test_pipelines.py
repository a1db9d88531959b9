"""What pipelines are bound as, are made of, and how many groups of shaders they have.

See `facts/bounds.toml`.
"""

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

LIBRARY = 0x800
"""VK_PIPELINE_CREATE_LIBRARY_BIT_KHR, in flags of both kinds."""


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


def newer(flags: int) -> list[Any]:
    """Flags that count instead of the older ones."""
    return [("VkPipelineCreateFlags2CreateInfo", {"flags": flags})]


def libraries(*ids: int) -> dict[str, Any]:
    return {"libraryCount": len(ids), "pLibraries": list(ids)}


def graphics(
    host: Host, id_: int, flags: int = 0, chain: list[Any] | None = None, of: tuple[int, ...] = ()
) -> None:
    """A pipeline of libraries, if there are any."""
    parts = [("VkPipelineLibraryCreateInfoKHR", libraries(*of))] if of else []
    info: dict[str, Any] = {"pNext": parts + (chain or []), "flags": flags, "stageCount": 0}
    info |= {"layout": LAYOUT, "basePipelineIndex": -1}
    send(host, "vkCreateGraphicsPipelines", device=3, pipelineCache=0, createInfoCount=1,
         pCreateInfos=[info], pPipelines=[id_])  # fmt: skip


def ray_tracing(host: Host, ids: list[int], groups: int, library: int = 0, flags: int = 0) -> None:
    """Pipelines of the same groups, and those of a library."""
    group_ = {"type": 0, "generalShader": 0, "closestHitShader": 0, "anyHitShader": 0}
    group_ |= {"intersectionShader": 0}
    info: dict[str, Any] = {
        "flags": flags,
        "stageCount": 1,
        "pStages": [stage(0x100)],
        "groupCount": groups,
    }
    info |= {"pGroups": [group_] * groups, "maxPipelineRayRecursionDepth": 1, "layout": LAYOUT}
    info |= {"basePipelineHandle": 0, "basePipelineIndex": -1}
    if library:
        info["pLibraryInfo"] = libraries(library)
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
    ray_tracing(host, [201], 2)
    ray_tracing(host, [202], 2, flags=LIBRARY)
    ray_tracing(host, [203], 1, 202)
    graphics(host, 204)
    graphics(host, 205, LIBRARY)
    graphics(host, 206, 0, newer(LIBRARY))
    graphics(host, 207, LIBRARY, newer(0))
    yield host
    host.engine.stop()


@pytest.mark.parametrize(
    "command", [bind(200, 1), bind(201, 1000165000), bind(204, 0), bind(207, 0), stack(202, 1),
                stack(203, 2)], ids=str
)  # fmt: skip
def test_what_a_pipeline_is_made_for(bound: Host, command: Command) -> None:
    name, parameters = command
    send(bound, name, **parameters)
    assert bound.fatal == []


@pytest.mark.parametrize(
    "command", [bind(200, 0), bind(200, 1000165000), bind(203, 1), bind(201, 9),
                bind(202, 1000165000), bind(205, 0), bind(206, 0),
                stack(200, 0), stack(202, 2), stack(203, 3)], ids=str
)  # fmt: skip
def test_what_a_pipeline_is_not_made_for(bound: Host, command: Command) -> None:
    name, parameters = command
    with pytest.raises(ProtocolError, match=rf"{name} at byte \d+: .*: \d+ from \d+ on, where"):
        send(bound, name, **parameters)


def test_libraries_make_pipelines_and_other_libraries(bound: Host) -> None:
    graphics(bound, 210, LIBRARY, of=(205, 206))
    graphics(bound, 211, of=(210, 205))
    ray_tracing(bound, [212], 1, 202, LIBRARY)
    ray_tracing(bound, [213], 1, 212)
    name, parameters = stack(213, 3)
    send(bound, name, **parameters)
    assert bound.fatal == []


@pytest.mark.parametrize("parts", [(205, 200), (201,), (202,), (204,), (205, 206, 207)], ids=str)
def test_what_is_no_library_of_graphics_is_no_part_of_it(
    bound: Host, parts: tuple[int, ...]
) -> None:
    with pytest.raises(ProtocolError, match=rf"pLibraries: 1 from {len(parts) - 1} on, where"):
        graphics(bound, 210, of=parts)


@pytest.mark.parametrize("part", [200, 201, 204, 205])
def test_what_is_no_library_of_ray_tracing_is_no_part_of_it(bound: Host, part: int) -> None:
    with pytest.raises(ProtocolError, match="pLibraries: 1 from 0 on, where"):
        ray_tracing(bound, [210], 1, part)
