"""The kernel alone: a fixed stream of commands, decoded and called on a driver of no-ops."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, Final

from hesper.bench.client import loops
from hesper.bench.client.statistics import latencies, median
from hesper.kernel.engine import Engine
from hesper.kernel.vulkan import Vulkan
from hesper.protocol.codec import Codec
from hesper.protocol.model import load
from hesper.vk.enumerants import VK_DESCRIPTOR_TYPE_STORAGE_BUFFER

INSTANCE, PHYSICAL, DEVICE, COMMANDS, LAYOUT, SET, PIPELINE, CACHE, SOURCE, TARGET = range(1, 11)
POOL, SET_LAYOUT = 11, 12
"""Guest ids of the objects that the commands name."""

NEW: Final = 4096
"""Guest id of the buffer that is created and destroyed by turns."""

_OBJECTS = {
    COMMANDS: "VkCommandBuffer",
    POOL: "VkDescriptorPool",
    PIPELINE: "VkPipeline",
    CACHE: "VkPipelineCache",
    SOURCE: "VkBuffer",
    TARGET: "VkBuffer",
}

_LAYOUTS: dict[str, dict[str, Any]] = {
    "vkCreateDescriptorSetLayout": {
        "pCreateInfo": {
            "bindingCount": 1,
            "pBindings": [
                {
                    "binding": 0,
                    "descriptorType": VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                    "descriptorCount": 1,
                    "stageFlags": 0x7FFFFFFF,
                }
            ],
        },
        "pSetLayout": SET_LAYOUT,
    },
    "vkCreatePipelineLayout": {
        "pCreateInfo": {
            "setLayoutCount": 1,
            "pSetLayouts": [SET_LAYOUT],
            "pushConstantRangeCount": 1,
            "pPushConstantRanges": [{"stageFlags": 0x7FFFFFFF, "offset": 0, "size": 64}],
        },
        "pPipelineLayout": LAYOUT,
    },
    "vkAllocateDescriptorSets": {
        "pAllocateInfo": {
            "descriptorPool": POOL,
            "descriptorSetCount": 1,
            "pSetLayouts": [SET_LAYOUT],
        },
        "pDescriptorSets": [SET],
    },
}
"""What the set is made by that is written and bound."""

IDLE_SECONDS = 0.01
BATCH = 1000
REPLY_SIZE = 1 << 20
REPLY_RESOURCE = 1


class Kernel:
    """An engine on the driver of no-ops, with one object of each kind."""

    def __init__(self) -> None:
        """Make it."""
        self.codec = Codec(load())
        self.fatal: list[str] = []
        vulkan = Vulkan(loops.__file__)
        limits: dict[str, Any] = {"arena_limit": 1 << 20, "object_limit": 1 << 16}
        limits |= {"resource_limit": 16, "memory_limit": 1 << 40}
        self.engine = Engine(vulkan, {}, on_fatal=self.fatal.append, **limits)
        table = vulkan.instance_table(1)
        self.engine.objects.add(INSTANCE, "VkInstance", 1, table=table)
        self.engine.objects.add(PHYSICAL, "VkPhysicalDevice", 1, parent=INSTANCE, table=table)
        functions = vulkan.device_table(table, 1)
        self.engine.objects.add(DEVICE, "VkDevice", 1, parent=PHYSICAL, table=functions)
        for number, kind in _OBJECTS.items():
            self.engine.objects.add(number, kind, number, device=DEVICE)
        for command, values in _LAYOUTS.items():
            self.engine.submit(self.codec.encode(command, {"device": DEVICE, **values}))
        self._reply = ctypes.create_string_buffer(REPLY_SIZE)
        self.engine.resources.add(REPLY_RESOURCE, ctypes.addressof(self._reply), REPLY_SIZE)
        stream = {"resourceId": REPLY_RESOURCE, "offset": 0, "size": REPLY_SIZE}
        self._rewind = self.codec.encode("vkSetReplyCommandStreamMESA", {"pStream": stream})
        self.engine.submit(self._rewind)

    def stream(self, name: str, count: int) -> bytes:
        """`count` commands of a kind in `COMMAND_KINDS`; those with a reply at most 10000."""
        kind = COMMAND_KINDS[name]
        one = b"".join(
            self.codec.encode(command, kind.values[command], reply=kind.reply)
            for command in kind.values
        )
        return self._rewind + one * (count // len(kind.values))


class CommandKind:
    """Commands that are measured together, by turns."""

    def __init__(self, values: dict[str, dict[str, Any]], *, reply: bool = False) -> None:
        """values: what each command carries, as the codec takes it."""
        self.values = values
        self.reply = reply


_PUSH = {
    "commandBuffer": COMMANDS,
    "layout": LAYOUT,
    "stageFlags": 0x7FFFFFFF,
    "offset": 0,
    "size": 64,
    "pValues": bytes(64),
}
_DRAW = {
    "commandBuffer": COMMANDS,
    "vertexCount": 3,
    "instanceCount": 0,
    "firstVertex": 0,
    "firstInstance": 0,
}
_BIND = {"commandBuffer": COMMANDS, "pipelineBindPoint": 0, "pipeline": PIPELINE}
_BIND_SETS = {
    "commandBuffer": COMMANDS,
    "pipelineBindPoint": 0,
    "layout": LAYOUT,
    "firstSet": 0,
    "descriptorSetCount": 1,
    "pDescriptorSets": [SET],
    "dynamicOffsetCount": 0,
    "pDynamicOffsets": None,
}
_BUFFER_INFO = {
    "pNext": [],
    "flags": 0,
    "size": 65536,
    "usage": 0x23,
    "sharingMode": 0,
    "queueFamilyIndexCount": 0,
    "pQueueFamilyIndices": None,
}
_WRITE = {
    "pNext": [],
    "dstSet": SET,
    "dstBinding": 0,
    "dstArrayElement": 0,
    "descriptorCount": 1,
    "descriptorType": 7,
    "pImageInfo": None,
    "pBufferInfo": [{"buffer": TARGET, "offset": 0, "range": 4096}],
    "pTexelBufferView": None,
}

COMMAND_KINDS = {
    "push": CommandKind({"vkCmdPushConstants": _PUSH}),
    "draw": CommandKind({"vkCmdDraw": _DRAW}),
    "dispatch": CommandKind(
        {
            "vkCmdDispatch": {
                "commandBuffer": COMMANDS,
                "groupCountX": 0,
                "groupCountY": 1,
                "groupCountZ": 1,
            }
        }
    ),
    "copy": CommandKind(
        {
            "vkCmdCopyBuffer": {
                "commandBuffer": COMMANDS,
                "srcBuffer": SOURCE,
                "dstBuffer": TARGET,
                "regionCount": 1,
                "pRegions": [{"srcOffset": 0, "dstOffset": 0, "size": 64}],
            }
        }
    ),
    "mixed": CommandKind(
        {
            "vkCmdBindPipeline": _BIND,
            "vkCmdBindDescriptorSets": _BIND_SETS,
            "vkCmdPushConstants": _PUSH,
            "vkCmdDraw": _DRAW,
        }
    ),
    "buffer": CommandKind(
        {
            "vkCreateBuffer": {
                "device": DEVICE,
                "pCreateInfo": _BUFFER_INFO,
                "pAllocator": None,
                "pBuffer": NEW,
            },
            "vkDestroyBuffer": {"device": DEVICE, "buffer": NEW, "pAllocator": None},
        }
    ),
    "descriptors": CommandKind(
        {
            "vkUpdateDescriptorSets": {
                "device": DEVICE,
                "descriptorWriteCount": 1,
                "pDescriptorWrites": [_WRITE],
                "descriptorCopyCount": 0,
                "pDescriptorCopies": None,
            }
        }
    ),
    "round_trip": CommandKind(
        {
            "vkGetPipelineCacheData": {
                "device": DEVICE,
                "pipelineCache": CACHE,
                "pDataSize": 0,
                "pData": None,
            }
        },
        reply=True,
    ),
}
"""What is measured, by name."""


def measure(*, quick: bool) -> dict[str, float]:
    """Nanoseconds a command by kind; of draws also the spread, and after 10 ms of idleness."""
    kernel = Kernel()
    repeats = 20 if quick else 200
    figures = {}
    for name in COMMAND_KINDS:
        submit, stream = kernel.engine.submit, kernel.stream(name, BATCH)
        _timed(submit, stream)
        figures[f"decode_{name}"] = median([_timed(submit, stream) for _ in range(repeats)]) / BATCH
    stream = kernel.stream("draw", BATCH)
    hot = [_timed(kernel.engine.submit, stream) for _ in range(repeats)]
    cold = []
    for _ in range(repeats):
        time.sleep(IDLE_SECONDS)
        cold.append(_timed(kernel.engine.submit, stream))
    # `latencies` gives microseconds of a batch of 1000, which is nanoseconds a command.
    return {**figures, **latencies("decode", hot), **latencies("decode_idle", cold)}


def _timed(submit: Callable[[bytes], None], stream: bytes) -> int:
    start = time.perf_counter_ns()
    submit(stream)
    return time.perf_counter_ns() - start
