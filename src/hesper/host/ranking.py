"""Which of several drivers serves guests best, and why: judged by what they can do.

A criterion counts only between drivers that all criteria before it find equal.  No driver is known
by its name here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.host.drivers import Device, Driver

_RANK = {"cpu": 0, "other": 1, "virtual": 2, "integrated": 3, "discrete": 4}


@dataclass(frozen=True)
class Criterion:
    """One thing to judge devices by."""

    value: Callable[[Device], int | tuple[int, ...]]
    """More is better."""
    describe: Callable[[Device], str]
    """The value in words that go with a device's name."""


def version(text: str) -> tuple[int, ...]:
    """Major and minor of `1.4.309`."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def obstacle(device: Device) -> str:
    """Why a device cannot serve guests; empty when it can."""
    if version(device.api_version) < (1, 1):
        return f"has Vulkan {device.api_version}, 1.1 is needed"
    if device.memory is None:
        return "lets no VkDevice be made"
    if not device.memory.can_be_shared:
        if not device.imports_host_memory:
            return "lacks VK_EXT_external_memory_host: guests could map no memory"
        return "takes no pointers to shared memory: guests could map none"
    return ""


def _draws_with(device: Device) -> str:
    return "draws on the processor" if device.is_software else f"is a GPU ({device.type})"


def _completeness(device: Device) -> str:
    if device.is_portability:
        return "leaves out parts of Vulkan (VK_KHR_portability_subset)"
    return "has all of Vulkan"


def _features(device: Device) -> str:
    return f"has of what programs want: {', '.join(device.features) or 'nothing'}"


def _shares_pictures(device: Device) -> bool:
    """Whether what is drawn into can be shared as it is, see `guest.staging`."""
    seen = device.memory
    if seen is None:
        return False
    tiled = seen.tiled_images or any(each.tiled_images for each in seen.exports)
    return bool(tiled or seen.linear_attachments)


def _sharing(device: Device) -> str:
    return f"shares pictures {'without a copy' if _shares_pictures(device) else 'by a copy only'}"


CRITERIA: tuple[Criterion, ...] = (
    Criterion(lambda d: not obstacle(d), lambda d: obstacle(d) or "can serve guests"),
    Criterion(lambda d: _RANK[d.type], _draws_with),
    # Mesa's zink, wined3d and engines count on what the subset leaves out.
    Criterion(lambda d: not d.is_portability, _completeness),
    Criterion(lambda d: len(d.features), _features),
    Criterion(_shares_pictures, _sharing),
    Criterion(lambda d: version(d.api_version), lambda d: f"has Vulkan {d.api_version}"),
    Criterion(
        lambda d: bool(d.conformance),
        lambda d: "passed the conformance tests" if d.conformance else "is not conformant",
    ),
)
"""Most important first."""


def rank(device: Device) -> tuple[int | tuple[int, ...], ...]:
    """What devices are sorted by; more is better."""
    return tuple(criterion.value(device) for criterion in CRITERIA)


def best_driver(probed: Sequence[Driver]) -> Driver | None:
    """Of drivers that were probed, the one with the best device; None when none can be used.

    Of equals, the first.
    """
    usable = [driver for driver in probed if driver.devices and not driver.is_guest]
    return max(usable, key=lambda driver: rank(driver.devices[0]), default=None)


def why_lost(driver: Driver, chosen: Driver) -> str:
    """Why `chosen` is preferred to `driver`: the first thing that tells them apart.

    Empty for the chosen one itself, and for one that cannot be used at all.
    """
    if driver is chosen or not driver.devices or driver.is_guest:
        return ""
    lost, won = driver.devices[0], chosen.devices[0]
    for criterion in CRITERIA:
        if criterion.value(lost) != criterion.value(won):
            return f"{criterion.describe(lost)}; {chosen.name} {criterion.describe(won)}"
    return f"is no better than {chosen.name}, which comes first"
