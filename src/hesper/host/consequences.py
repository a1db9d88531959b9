"""What else goes when a host profile takes a feature or an extension away.

The facts stand in `consequences.toml`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from hesper.host.profile import Limit, Number, Profile  # noqa: TC001 - msgspec wants them
from hesper.vk.enumerants import VK_API_VERSION_1_2, VK_API_VERSION_1_3, VK_API_VERSION_1_4

Value = TypeVar("Value")

_STRUCTS_SINCE = {
    "VkPhysicalDeviceVulkan11Features": VK_API_VERSION_1_2,
    "VkPhysicalDeviceVulkan12Features": VK_API_VERSION_1_2,
    "VkPhysicalDeviceVulkan13Features": VK_API_VERSION_1_3,
    "VkPhysicalDeviceVulkan14Features": VK_API_VERSION_1_4,
}
"""Feature structs that older versions of Vulkan do not have: the first that does."""


class Consequence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What cannot be there without something else; see the head of `consequences.toml`."""

    unless: list[str]
    queue_flags: int = 0
    format_features: int = 0
    features_off: dict[str, frozenset[str]] = {}
    at_most: dict[str, dict[str, Limit]] = {}
    at_least: dict[str, dict[str, Limit]] = {}
    flags: dict[str, dict[str, int]] = {}

    def follows(self, profile: Profile) -> bool:
        """Whether everything that it hangs on is away."""
        return all(_is_away(profile, name) for name in self.unless)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    consequence: list[Consequence]


@functools.cache
def all_consequences() -> tuple[Consequence, ...]:
    """All that `consequences.toml` says."""
    content = Path(__file__).with_name("consequences.toml").read_bytes()
    return tuple(msgspec.toml.decode(content, type=_File).consequence)


def complete(profile: Profile) -> Profile:
    """`profile` without what cannot be there when the rest of it is away."""
    left = list(all_consequences())
    while following := [each for each in left if each.follows(profile)]:
        for each in following:
            profile = _without(profile, each)
            left.remove(each)
    return profile


def _without(profile: Profile, each: Consequence) -> Profile:
    off = {
        struct: profile.features_off.get(struct, frozenset()) | fields
        for struct, fields in each.features_off.items()
    }
    return msgspec.structs.replace(
        profile,
        queue_flags_off=profile.queue_flags_off | each.queue_flags,
        format_features_off=profile.format_features_off | each.format_features,
        features_off=profile.features_off | off,
        at_most=_merged(profile.at_most, each.at_most, _each(min)),
        at_least=_merged(profile.at_least, each.at_least, _each(max)),
        flags=_merged(profile.flags, each.flags, int.__and__),
    )


def _is_away(profile: Profile, name: str) -> bool:
    """Whether a feature, `struct.field`, or an extension is not there."""
    struct, _, field = name.partition(".")
    if not field:
        return profile.hides_extension(name)
    since = _STRUCTS_SINCE.get(struct)
    if since is not None and profile.version(since) < since:
        return True
    return profile.feature_off(struct, field)


def _merged(
    table: dict[str, dict[str, Value]],
    more: dict[str, dict[str, Value]],
    join: Callable[[Value, Value], Value],
) -> dict[str, dict[str, Value]]:
    """Both tables in one; `join` makes one value of two for the same field."""
    merged = dict(table)
    for struct, fields in more.items():
        into = dict(merged.get(struct, {}))
        for field, value in fields.items():
            into[field] = join(into[field], value) if field in into else value
        merged[struct] = into
    return merged


def _each(choose: Callable[[Number, Number], Number]) -> Callable[[Limit, Limit], Limit]:
    """`choose` for limits: where one is a list, for each of its elements."""

    def join(have: Limit, new: Limit) -> Limit:
        if isinstance(have, list):
            return [choose(element, _of(new, i)) for i, element in enumerate(have)]
        if isinstance(new, list):
            return [choose(have, element) for element in new]
        return choose(have, new)

    return join


def _of(limit: Limit, index: int) -> Number:
    return limit[index] if isinstance(limit, list) else limit
