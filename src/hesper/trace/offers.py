"""Leaves out what this driver does not offer: of a device, and of questions about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hesper.trace.decoded import codec
from hesper.vk.enumerants import (
    VK_ERROR_EXTENSION_NOT_PRESENT,
    VK_ERROR_FEATURE_NOT_PRESENT,
    VK_MAX_EXTENSION_NAME_SIZE,
)

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded

REFUSALS = frozenset({VK_ERROR_EXTENSION_NOT_PRESENT, VK_ERROR_FEATURE_NOT_PRESENT})
"""Results of a vkCreateDevice that wants too much."""

MOST_EXTENSIONS = 1024

_FEATURES = "VkPhysicalDeviceFeatures2"

Ask = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]
"""Tells a command, and returns its result and outputs."""


def limit(parameters: dict[str, Any], ask: Ask) -> list[str]:
    """Leave out of a vkCreateDevice what there is not; returns the names of that."""
    info = parameters.get("pCreateInfo") or {}
    device = parameters.get("physicalDevice") or 0
    return _extensions(info, device, ask) + _features(info, device, ask)


class Offers:
    """Knows which questions there are."""

    def __init__(self, ask: Ask) -> None:
        """Nothing was asked yet."""
        self._ask = ask
        self._extensions: dict[int, set[bytes]] = {}
        """By physical devices."""

    def has(self, then: Decoded) -> bool:
        """Whether the driver has a command that asks a physical device."""
        needs = codec().model.commands[then.name].provided_by
        device = (then.parameters or {}).get("physicalDevice") or 0
        if not needs or not device:
            return True
        if device not in self._extensions:
            self._extensions[device] = _offered(device, self._ask)
        return any(each.encode() in self._extensions[device] for each in needs)


def _offered(device: int, ask: Ask) -> set[bytes]:
    """Names of the extensions that there are."""
    asked = {
        "physicalDevice": device,
        "pPropertyCount": MOST_EXTENSIONS,
        "pProperties": [{}] * MOST_EXTENSIONS,
    }
    _, outputs = ask("vkEnumerateDeviceExtensionProperties", asked)
    names: set[bytes] = {_name(each["extensionName"]) for each in outputs.get("pProperties") or []}
    return names


def _extensions(info: dict[str, Any], device: int, ask: Ask) -> list[str]:
    there = _offered(device, ask)
    wanted = info.get("ppEnabledExtensionNames") or []
    kept = [each for each in wanted if _name(each) in there]
    info["ppEnabledExtensionNames"], info["enabledExtensionCount"] = kept, len(kept)
    return [_name(each).decode(errors="replace") for each in wanted if _name(each) not in there]


def _name(value: bytes) -> bytes:
    return value.partition(b"\0")[0][:VK_MAX_EXTENSION_NAME_SIZE]


def _features(info: dict[str, Any], device: int, ask: Ask) -> list[str]:
    structs = codec().model.structs
    wanted = {
        name: chained
        for name, chained in info.get("pNext") or []
        if _FEATURES in structs[name].extends
    }
    chain: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in wanted]
    _, outputs = ask(
        "vkGetPhysicalDeviceFeatures2", {"physicalDevice": device, "pFeatures": {"pNext": chain}}
    )
    found = outputs.get("pFeatures") or {}
    there: dict[str, dict[str, Any]] = dict(found.get("pNext") or [])
    left_out = []
    for name, chained in wanted.items():
        left_out += _switch_off(chained, there.get(name, {}))
    core = dict(info.get("pNext") or []).get(_FEATURES) or {}
    for each in (core.get("features"), info.get("pEnabledFeatures")):
        left_out += _switch_off(each or {}, found.get("features") or {})
    return left_out


def _switch_off(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Set to VK_FALSE what is VK_FALSE here; returns the names."""
    names = [
        name
        for name, value in wanted.items()
        if isinstance(value, int) and value and there.get(name) == 0
    ]
    for name in names:
        wanted[name] = 0
    return names
