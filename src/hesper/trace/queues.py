"""Queues of a recording, on a driver that has others.

A family is replaced by the one that can do most of what it could, and where there are fewer queues
than then, several share one: the first one's id is used for all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hesper.vk.enumerants import (
    VK_QUEUE_COMPUTE_BIT,
    VK_QUEUE_GRAPHICS_BIT,
    VK_QUEUE_TRANSFER_BIT,
)

_WORK = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT
_COPIES = VK_QUEUE_TRANSFER_BIT
_SPECIAL = 0xFFFFFFFD
"""From here on: VK_QUEUE_FAMILY_FOREIGN_EXT, EXTERNAL and IGNORED."""


class Family(NamedTuple):
    """A queue family."""

    flags: int
    queues: int
    """How many queues it has."""


class Queues:
    """What a recording's queues are here."""

    def __init__(self) -> None:
        """Nothing is known to differ."""
        self.families: dict[int, int] = {}
        """Families that have another number here."""
        self.renamed: dict[int, int] = {}
        """Ids of queues that are another one here, and the id of that."""
        self._now: list[Family] = []
        self._places: dict[tuple[int, int, int], tuple[int, int]] = {}
        """By device, family and number then: family and number here."""
        self._named: dict[tuple[int, int, int], int] = {}
        """By device, family and number here: the first id."""

    @property
    def differ(self) -> bool:
        """Whether commands have to be looked at."""
        return bool(self.families or self.renamed)

    def learn(self, then: list[Family], now: list[Family]) -> None:
        """Take note of what both drivers have answered."""
        self._now = now
        self.families = match(then, now)

    def family(self, value: int) -> int:
        """What a family of the recording is here."""
        return value if value >= _SPECIAL else self.families.get(value, value)

    def create(self, parameters: dict[str, Any]) -> bool:
        """Have a vkCreateDevice make queues that there are; whether it was changed."""
        info = parameters.get("pCreateInfo") or {}
        device = parameters.get("pDevice") or 0
        made: dict[tuple[int, int], dict[str, Any]] = {}
        asked = info.get("pQueueCreateInfos") or []
        for each in asked:
            then = each.get("queueFamilyIndex", 0)
            family = self.family(then)
            most = self._now[family].queues if family < len(self._now) else 1 << 32
            key = (family, each.get("flags", 0))
            into = made.setdefault(key, each | {"queueFamilyIndex": family, "pQueuePriorities": []})
            for number, priority in enumerate(each.get("pQueuePriorities") or []):
                if len(into["pQueuePriorities"]) < most:
                    into["pQueuePriorities"].append(priority)
                at = len(into["pQueuePriorities"]) - 1
                self._places[device, then, number] = (family, at)
            into["queueCount"] = len(into["pQueuePriorities"])
        found = list(made.values())
        if found == asked:
            return False
        info["pQueueCreateInfos"], info["queueCreateInfoCount"] = found, len(found)
        return True

    def name(self, parameters: dict[str, Any]) -> bool | None:
        """Have a vkGetDeviceQueue or vkGetDeviceQueue2 name a queue that there is.

        Returns whether it was changed; None: another id stands for that queue already.
        """
        info = parameters.get("pQueueInfo") or parameters
        device, queue = parameters.get("device") or 0, parameters.get("pQueue") or 0
        then = (info.get("queueFamilyIndex", 0), info.get("queueIndex", 0))
        here = self._places.get((device, *then), then)
        first = self._named.setdefault((device, *here), queue)
        if first != queue:
            self.renamed[queue] = first
            return None
        info["queueFamilyIndex"], info["queueIndex"] = here
        return here != then


def match(then: list[Family], now: list[Family]) -> dict[int, int]:
    """For each of `then` that is another here: the one of `now` that can do most of what it could.

    What it can beside that counts against it.
    """
    found: dict[int, int] = {}
    for index, (flags, _) in enumerate(then):
        if not now or (index < len(now) and now[index].flags == flags):
            continue
        best = min(range(len(now)), key=lambda i: _lacks(flags, now[i].flags, i))
        if best != index:
            found[index] = best
    return found


def _lacks(then: int, now: int, index: int) -> tuple[int, ...]:
    # What draws or computes copies as well, whether it says so or not.
    able = now | _COPIES if now & _WORK else now
    return (
        (then & _WORK & ~able).bit_count(),
        (then & ~able).bit_count(),
        (now & ~then).bit_count(),
        index,
    )
