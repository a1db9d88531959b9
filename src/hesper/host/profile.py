"""Host profiles: a driver seen as if it were another, lesser one.

A profile is a TOML or JSON file.  It only takes away: extensions are hidden, features turned off,
limits lowered, memory property flags and external handle types removed.  `guest/` asks it wherever
it describes the host's device, so that everything above behaves as it would on the other driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TypeAlias

import msgspec

from hesper.errors import ProfileError
from hesper.vk.enumerants import (
    VK_EXTERNAL_FENCE_HANDLE_TYPE_OPAQUE_FD_BIT,
    VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_MAPPED_FOREIGN_MEMORY_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_RDMA_ADDRESS_BIT_NV,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_ZIRCON_VMO_BIT_FUCHSIA,
    VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT,
    VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD,
    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD,
    VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT,
    VK_MEMORY_PROPERTY_PROTECTED_BIT,
    VK_MEMORY_PROPERTY_RDMA_CAPABLE_BIT_NV,
)
from hesper.vk.version import make_version

Number: TypeAlias = int | float
Limit: TypeAlias = Number | list[Number]

MEMORY_FLAGS = {
    "DEVICE_LOCAL": VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    "HOST_VISIBLE": VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    "HOST_COHERENT": VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    "HOST_CACHED": VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    "LAZILY_ALLOCATED": VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT,
    "PROTECTED": VK_MEMORY_PROPERTY_PROTECTED_BIT,
    "DEVICE_COHERENT_AMD": VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD,
    "DEVICE_UNCACHED_AMD": VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD,
    "RDMA_CAPABLE_NV": VK_MEMORY_PROPERTY_RDMA_CAPABLE_BIT_NV,
}
"""VkMemoryPropertyFlagBits by their short names."""

MEMORY_HANDLES = {
    "OPAQUE_FD": VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
    "DMA_BUF": VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    "HOST_ALLOCATION": VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    "HOST_MAPPED_FOREIGN_MEMORY": VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_MAPPED_FOREIGN_MEMORY_BIT_EXT,
    "ZIRCON_VMO": VK_EXTERNAL_MEMORY_HANDLE_TYPE_ZIRCON_VMO_BIT_FUCHSIA,
    "RDMA_ADDRESS": VK_EXTERNAL_MEMORY_HANDLE_TYPE_RDMA_ADDRESS_BIT_NV,
}
"""VkExternalMemoryHandleTypeFlagBits by their short names, those a POSIX host may have."""

FENCE_HANDLES = {
    "OPAQUE_FD": VK_EXTERNAL_FENCE_HANDLE_TYPE_OPAQUE_FD_BIT,
    "SYNC_FD": VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
}
"""VkExternalFenceHandleTypeFlagBits."""

SEMAPHORE_HANDLES = {
    "OPAQUE_FD": VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT,
    "SYNC_FD": VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
}
"""VkExternalSemaphoreHandleTypeFlagBits."""


class MemoryRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Memory types that have all flags of `having` lose those of `without`."""

    without: list[str]
    having: list[str] = []


class ExternalHandles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Handle types that stay, by short name; an absent list leaves all of them."""

    memory: list[str] | None = None
    fence: list[str] | None = None
    semaphore: list[str] | None = None


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left of a driver.  An empty profile changes nothing."""

    name: str
    description: str = ""
    api_version: str | None = None
    """Highest Vulkan version offered: `1.4` or `1.4.309`."""
    extensions: frozenset[str] | None = None
    """The only extensions left, of instance and device; None leaves all."""
    hidden_extensions: frozenset[str] = frozenset()
    features_off: dict[str, frozenset[str]] = {}
    """Feature structs (`VkPhysicalDeviceFeatures` for the plain one): fields that become false."""
    at_most: dict[str, dict[str, Limit]] = {}
    """Property structs (`VkPhysicalDeviceLimits` for the limits): fields that are lowered."""
    at_least: dict[str, dict[str, Limit]] = {}
    """Fields that are raised: alignments, granularities, lower ends of ranges."""
    flags: dict[str, dict[str, int]] = {}
    """Flag fields (sample counts, shader stages, booleans as 0): bits that may stay."""
    queue_flags_off: int = 0
    """VkQueueFlags that queue families lose."""
    format_features_off: int = 0
    """VkFormatFeatureFlags2 that formats lose."""
    memory_types: list[MemoryRule] = []
    external_handles: ExternalHandles = ExternalHandles()

    def without_features(self, off: Mapping[str, frozenset[str]]) -> Profile:
        """The same with more features turned off: fields by their structs."""
        if not off:
            return self
        features = {
            struct: self.features_off.get(struct, frozenset()) | off.get(struct, frozenset())
            for struct in {*self.features_off, *off}
        }
        return msgspec.structs.replace(self, features_off=features)

    def hides_extension(self, name: str) -> bool:
        """Whether the extension `name` is not to be seen."""
        if name in self.hidden_extensions:
            return True
        return self.extensions is not None and name not in self.extensions

    def feature_off(self, struct: str, field: str) -> bool:
        """Whether the field of a feature struct is to read false."""
        return field in self.features_off.get(struct, ())

    def masks_struct(self, struct: str) -> bool:
        """Whether anything is said about fields of `struct`; if not, leave it as it is."""
        return any(
            struct in table
            for table in (self.features_off, self.at_most, self.at_least, self.flags)
        )

    def limit(self, struct: str, field: str, value: Number, index: int = 0) -> Number:
        """The value to show for a field of a property struct.

        index: which element, where the field is an array.
        """
        most = _element(self.at_most.get(struct, {}).get(field), index)
        if most is not None:
            value = min(value, most)
        least = _element(self.at_least.get(struct, {}).get(field), index)
        if least is not None:
            value = max(value, least)
        kept = self.flags.get(struct, {}).get(field)
        return value if kept is None else int(value) & kept

    def memory_flags(self, flags: int) -> int:
        """The VkMemoryPropertyFlags to show for a memory type that has `flags`."""
        for rule in self.memory_types:
            having = _bits(rule.having, MEMORY_FLAGS)
            if flags & having == having:
                flags &= ~_bits(rule.without, MEMORY_FLAGS)
        return flags

    def external_memory(self, types: int) -> int:
        """VkExternalMemoryHandleTypeFlags that stay of `types`."""
        kept = self.external_handles.memory
        return types if kept is None else types & _bits(kept, MEMORY_HANDLES)

    def external_fence(self, types: int) -> int:
        """VkExternalFenceHandleTypeFlags that stay of `types`."""
        kept = self.external_handles.fence
        return types if kept is None else types & _bits(kept, FENCE_HANDLES)

    def external_semaphore(self, types: int) -> int:
        """VkExternalSemaphoreHandleTypeFlags that stay of `types`."""
        kept = self.external_handles.semaphore
        return types if kept is None else types & _bits(kept, SEMAPHORE_HANDLES)

    def version(self, version: int) -> int:
        """The apiVersion to show for a device that has `version` (both packed)."""
        return version if self.api_version is None else min(version, _pack(self.api_version))


def load_profile(name: str) -> Profile:
    """Load the profile in the file `name`, or the one of that name that Hesper brings along.

    Raises `ProfileError`.
    """
    if "/" in name or name.endswith((".toml", ".json")):
        try:
            return _parse(Path(name).read_bytes(), name)
        except OSError as error:
            raise ProfileError(f"host profile {name}: {error.strerror}") from None
    folder = Path(__file__).with_name("profiles")
    file = folder / f"{name}.toml"
    if not file.is_file():
        known = sorted(
            entry.name.removesuffix(".toml")
            for entry in folder.iterdir()
            if entry.name.endswith(".toml")
        )
        raise ProfileError(
            f"no host profile {name!r}: give a file (.toml or .json) or one of: {', '.join(known)}"
        )
    return _parse(file.read_bytes(), f"{name}.toml")


def _parse(content: bytes, name: str) -> Profile:
    """The profile that `content` describes; raises `ProfileError`."""
    decode = msgspec.json.decode if name.endswith(".json") else msgspec.toml.decode
    try:
        profile = decode(content, type=Profile)
        _check(profile)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProfileError(f"host profile {name}: {error}") from None
    return profile


def _check(profile: Profile) -> None:
    """Raise `ValueError` for words that mean nothing."""
    for rule in profile.memory_types:
        _bits([*rule.having, *rule.without], MEMORY_FLAGS)
    _bits(profile.external_handles.memory or (), MEMORY_HANDLES)
    _bits(profile.external_handles.fence or (), FENCE_HANDLES)
    _bits(profile.external_handles.semaphore or (), SEMAPHORE_HANDLES)
    if profile.api_version is not None:
        _pack(profile.api_version)


def _bits(names: Sequence[str], values: dict[str, int]) -> int:
    """The union of the flags of those names; raises `ValueError` for an unknown one."""
    for name in names:
        if name not in values:
            raise ValueError(f"{name!r} is none of {', '.join(values)}")
    return reduce(or_, (values[name] for name in names), 0)


def _element(limit: Limit | None, index: int) -> Number | None:
    """The limit for one element: a list has one each, a number holds for all."""
    if isinstance(limit, list):
        return limit[index] if index < len(limit) else None
    return limit


def _pack(version: str) -> int:
    """A version in Vulkan's packed form; without a patch number, any patch of it.

    Raises `ValueError`.
    """
    parts = version.split(".")
    if len(parts) not in {2, 3} or not all(part.isdecimal() for part in parts):
        raise ValueError(f"api_version {version!r} is not of the form 1.4 or 1.4.309")
    patch = int(parts[2]) if len(parts) == 3 else 0xFFF
    return make_version(int(parts[0]), int(parts[1]), patch)
