"""Descriptor sets, their layouts and what is done with them, as messages to an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hesper.protocol.codec import Codec
from hesper.vk import enumerants as vk
from kernel.conftest import COMMAND_BUFFER, Host

CODEC = Codec()
SET_LAYOUT, OTHER_LAYOUT, PIPELINE_LAYOUT, POOL, SET, OTHER_SET, BUFFER, VIEW = range(100, 108)
PUSH_LAYOUT, PUSH_PIPELINE = 110, 111

SAMPLED, TEXELS, UNIFORM, STORAGE = (
    vk.VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE,
    vk.VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,
    vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
    vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
)
UNIFORM_DYNAMIC = vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC
STORAGE_DYNAMIC = vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC
BLOCK = vk.VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK
STRUCTURE = vk.VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_KHR
MUTABLE = vk.VK_DESCRIPTOR_TYPE_MUTABLE_EXT
VARIABLE = 8  # VK_DESCRIPTOR_BINDING_VARIABLE_DESCRIPTOR_COUNT_BIT
PUSH = 1  # VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT

Rows = Callable[[], list[tuple[int, ...]]]


def sets_host(library: Path) -> Iterator[Host]:
    """An engine with a pool and a buffer; all that it counts is given back in the end."""
    host = Host(library)
    sizes = [{"type": STORAGE, "descriptorCount": 100}]
    info = {"maxSets": 100, "poolSizeCount": 1, "pPoolSizes": sizes}
    send(host, "vkCreateDescriptorPool", device=3, pCreateInfo=info, pDescriptorPool=POOL)
    send(host, "vkCreateBuffer", device=3, pCreateInfo={"size": 4096, "usage": 3}, pBuffer=BUFFER)
    view_info = {"buffer": BUFFER, "format": 37, "offset": 0, "range": 16}
    send(host, "vkCreateBufferView", device=3, pCreateInfo=view_info, pView=VIEW)
    yield host
    left = host.holds()
    if not host.fatal:
        assert left == {}


def send(host: Host, name: str, **parameters: Any) -> None:
    host.engine.submit(CODEC.encode(name, parameters))


def binding(number: int, type_: int, count: int, stages: int = 16) -> dict[str, Any]:
    """A VkDescriptorSetLayoutBinding."""
    return {
        "binding": number,
        "descriptorType": type_,
        "descriptorCount": count,
        "stageFlags": stages,
    }


def layout_info(
    bindings: list[dict[str, Any]],
    flags: list[int] | None = None,
    types: list[list[int]] | None = None,
    layout_flags: int = 0,
) -> dict[str, Any]:
    """A VkDescriptorSetLayoutCreateInfo; flags, types: of each binding."""
    chain: list[tuple[str, dict[str, Any]]] = []
    if flags is not None:
        chain += [
            (
                "VkDescriptorSetLayoutBindingFlagsCreateInfo",
                {"bindingCount": len(flags), "pBindingFlags": flags},
            )
        ]
    if types is not None:
        lists = [{"descriptorTypeCount": len(one), "pDescriptorTypes": one} for one in types]
        chain += [
            (
                "VkMutableDescriptorTypeCreateInfoEXT",
                {
                    "mutableDescriptorTypeListCount": len(lists),
                    "pMutableDescriptorTypeLists": lists,
                },
            )
        ]
    return {
        "pNext": chain,
        "flags": layout_flags,
        "bindingCount": len(bindings),
        "pBindings": bindings,
    }


def make_layout(host: Host, id_: int, *bindings: dict[str, Any], **more: Any) -> None:
    info = layout_info(list(bindings), **more)
    send(host, "vkCreateDescriptorSetLayout", device=3, pCreateInfo=info, pSetLayout=id_)


def make_pipeline(host: Host, id_: int, *layouts: int) -> None:
    info = {"setLayoutCount": len(layouts), "pSetLayouts": list(layouts)}
    info |= {"pushConstantRangeCount": 0}
    send(host, "vkCreatePipelineLayout", device=3, pCreateInfo=info, pPipelineLayout=id_)


def make_sets(
    host: Host, sets: list[int], layouts: list[int], counts: list[int] | None = None
) -> None:
    chain = []
    if counts is not None:
        chain = [
            (
                "VkDescriptorSetVariableDescriptorCountAllocateInfo",
                {"descriptorSetCount": len(counts), "pDescriptorCounts": counts},
            )
        ]
    info = {"pNext": chain, "descriptorPool": POOL, "descriptorSetCount": len(sets)}
    info |= {"pSetLayouts": layouts}
    send(host, "vkAllocateDescriptorSets", device=3, pAllocateInfo=info, pDescriptorSets=sets)


def write(
    number: int, element: int, count: int, type_: int = STORAGE, set_: int = SET
) -> dict[str, Any]:
    """A VkWriteDescriptorSet whose payload counts from 0."""
    one: dict[str, Any] = {
        "dstSet": set_,
        "dstBinding": number,
        "dstArrayElement": element,
        "descriptorCount": count,
        "descriptorType": type_,
    }
    if type_ in {UNIFORM, STORAGE, UNIFORM_DYNAMIC, STORAGE_DYNAMIC}:
        one["pBufferInfo"] = [{"buffer": BUFFER, "offset": i, "range": 1} for i in range(count)]
    elif type_ == TEXELS:
        one["pTexelBufferView"] = [VIEW] * count
    elif type_ == SAMPLED:
        one["pImageInfo"] = [{"sampler": 0, "imageView": 0, "imageLayout": 5}] * count
    elif type_ == BLOCK:
        one["pNext"] = [
            (
                "VkWriteDescriptorSetInlineUniformBlock",
                {"dataSize": count, "pData": bytes(range(count))},
            )
        ]
    elif type_ == STRUCTURE:
        one["pNext"] = [
            (
                "VkWriteDescriptorSetAccelerationStructureKHR",
                {"accelerationStructureCount": count, "pAccelerationStructures": [0] * count},
            )
        ]
    return one


def copy(source: tuple[int, int, int], target: tuple[int, int, int], count: int) -> dict[str, Any]:
    """A VkCopyDescriptorSet between (set, binding, element)s."""
    return {
        "srcSet": source[0], "srcBinding": source[1], "srcArrayElement": source[2],
        "dstSet": target[0], "dstBinding": target[1], "dstArrayElement": target[2],
        "descriptorCount": count,
    }  # fmt: skip


def update(
    host: Host, writes: list[dict[str, Any]], copies: list[dict[str, Any]] | None = None
) -> None:
    copies = copies or []
    send(
        host,
        "vkUpdateDescriptorSets",
        device=3,
        descriptorWriteCount=len(writes),
        pDescriptorWrites=writes,
        descriptorCopyCount=len(copies),
        pDescriptorCopies=copies,
    )


def bind(host: Host, sets: list[int], first: int = 0, offsets: int | list[int] = 0) -> None:
    """Offsets: dynamic ones, or how many of 0."""
    dynamic = [0] * offsets if isinstance(offsets, int) else offsets
    send(
        host,
        "vkCmdBindDescriptorSets",
        commandBuffer=COMMAND_BUFFER,
        pipelineBindPoint=0,
        layout=PIPELINE_LAYOUT,
        firstSet=first,
        descriptorSetCount=len(sets),
        pDescriptorSets=sets,
        dynamicOffsetCount=len(dynamic),
        pDynamicOffsets=dynamic,
    )


def bind_2(host: Host, sets: list[int], first: int = 0, offsets: int | list[int] = 0) -> None:
    dynamic = [0] * offsets if isinstance(offsets, int) else offsets
    info = {
        "stageFlags": 16,
        "layout": PIPELINE_LAYOUT,
        "firstSet": first,
        "descriptorSetCount": len(sets),
        "pDescriptorSets": sets,
        "dynamicOffsetCount": len(dynamic),
        "pDynamicOffsets": dynamic,
    }
    send(
        host,
        "vkCmdBindDescriptorSets2",
        commandBuffer=COMMAND_BUFFER,
        pBindDescriptorSetsInfo=info,
    )


def push(
    host: Host, writes: list[dict[str, Any]], set_: int = 0, layout: int = PUSH_PIPELINE
) -> None:
    send(
        host,
        "vkCmdPushDescriptorSet",
        commandBuffer=COMMAND_BUFFER,
        pipelineBindPoint=0,
        layout=layout,
        set=set_,
        descriptorWriteCount=len(writes),
        pDescriptorWrites=[one | {"dstSet": 0} for one in writes],
    )


def push_2(
    host: Host, writes: list[dict[str, Any]], set_: int = 0, layout: int = PUSH_PIPELINE
) -> None:
    info = {
        "stageFlags": 16,
        "layout": layout,
        "set": set_,
        "descriptorWriteCount": len(writes),
        "pDescriptorWrites": [one | {"dstSet": 0} for one in writes],
    }
    send(host, "vkCmdPushDescriptorSet2", commandBuffer=COMMAND_BUFFER, pPushDescriptorSetInfo=info)


def template(
    host: Host, number: int, element: int, count: int, type_: int = STORAGE, **more: int
) -> None:
    entry = {"dstBinding": number, "dstArrayElement": element, "descriptorCount": count}
    entry |= {"descriptorType": type_, "offset": 0, "stride": 0}
    info: dict[str, Any] = {
        "descriptorUpdateEntryCount": 1,
        "pDescriptorUpdateEntries": [entry],
        "templateType": 0,
        "descriptorSetLayout": SET_LAYOUT,
    }
    send(
        host,
        "vkCreateDescriptorUpdateTemplate",
        device=3,
        pCreateInfo=info | more,
        pDescriptorUpdateTemplate=190,
    )
