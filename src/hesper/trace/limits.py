"""Descriptors at places in buffers that the recorded driver allows, and this one does not.

They cannot be elsewhere: what lies there may be reached in other ways as well.  And a GPU may fault
over such a descriptor.  So they are left out, with all that would use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hesper.trace.decoded import answered
from hesper.vk.enumerants import (
    VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC,
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC,
)

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded

ASKS = frozenset({"vkGetPhysicalDeviceProperties", "vkGetPhysicalDeviceProperties2"})
"""Commands whose answers say what is allowed."""
PLACES = frozenset(
    {
        "vkUpdateDescriptorSets",
        "vkCmdPushDescriptorSet",
        "vkCmdPushDescriptorSet2",
        "vkCmdBindDescriptorSets",
        "vkCmdBindDescriptorSets2",
        "vkCreateBufferView",
    }
)
"""Commands that name places in buffers."""

_UNIFORM = "minUniformBufferOffsetAlignment"
_STORAGE = "minStorageBufferOffsetAlignment"
_TEXEL = "minTexelBufferOffsetAlignment"
_LIMITS = {
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER: _UNIFORM,
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC: _UNIFORM,
    VK_DESCRIPTOR_TYPE_STORAGE_BUFFER: _STORAGE,
    VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC: _STORAGE,
}


class Limits:
    """What this driver allows."""

    def __init__(self) -> None:
        """As much as the recorded one."""
        self._here: dict[str, int] = {}
        """Those that are larger here."""
        self.is_other = False
        """Whether it is another driver or device."""

    @property
    def are_less(self) -> bool:
        """Whether places have to be looked at."""
        return bool(self._here)

    def learn(self, then: Decoded, reply: bytes) -> None:
        """Take note of what one of `ASKS` was answered then, and is now."""
        found = answered(then, reply)
        if found is not None:
            self.compare(then.outputs, found[1])

    def compare(self, then: dict[str, Any], now: dict[str, Any]) -> None:
        """Take note of limits that are larger now, in the outputs of such a command."""
        self.is_other |= _properties(then) != _properties(now)
        was, here = _limits(then), _limits(now)
        for name in (_UNIFORM, _STORAGE, _TEXEL):
            if here.get(name, 0) > was.get(name, 0):
                self._here[name] = here[name]

    def broken(self, then: Decoded) -> list[str]:
        """The limits, and what they are here, that a command breaks."""
        if then.name not in PLACES:
            return []
        wanted = [(limit, self._here.get(limit, 1), at) for limit, at in _places(then)]
        wanted += [
            (_STORAGE, min(self._here.get(each, 1) for each in (_UNIFORM, _STORAGE)), at)
            for at in _dynamic(then)
        ]
        return [f"{limit} {here}" for limit, here, at in wanted if at % here]


def _limits(outputs: dict[str, Any]) -> dict[str, int]:
    limits: dict[str, int] = _properties(outputs).get("limits") or {}
    return limits


def _properties(outputs: dict[str, Any]) -> dict[str, Any]:
    """The VkPhysicalDeviceProperties."""
    found: dict[str, Any] = outputs.get("pProperties") or {}
    return found.get("properties") or found


def _places(then: Decoded) -> Iterator[tuple[str, int]]:
    """Which limit there is for a place, and where it is."""
    parameters = then.parameters or {}
    parameters = parameters.get("pPushDescriptorSetInfo") or parameters
    for write in parameters.get("pDescriptorWrites") or []:
        limit = _LIMITS.get(write.get("descriptorType") or 0)
        if limit is not None:
            for each in write.get("pBufferInfo") or []:
                yield limit, each.get("offset") or 0
    if then.name == "vkCreateBufferView":
        yield _TEXEL, (parameters.get("pCreateInfo") or {}).get("offset") or 0


def _dynamic(then: Decoded) -> list[int]:
    """Offsets that are of uniform or storage buffers; which of them, only layouts say."""
    parameters = then.parameters or {}
    parameters = parameters.get("pBindDescriptorSetsInfo") or parameters
    return parameters.get("pDynamicOffsets") or []
