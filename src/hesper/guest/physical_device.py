"""A physical device of the host, as the guest is to see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hesper import protocol
from hesper.guest.backing import HostPointer, choose_strategy
from hesper.guest.errors import UnfitDeviceError
from hesper.guest.image_limits import ImageLimits
from hesper.guest.memory_types import COHERENT, HostType, MemoryTypes
from hesper.host.consequences import complete
from hesper.host.profile import Profile
from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import Scratch
from hesper.protocol.depends import can_be_met
from hesper.vk.enumerants import (
    VK_API_VERSION_1_1,
    VK_API_VERSION_1_3,
    VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT,
    VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
    VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT,
    VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT,
    VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_IMAGE_TILING_LINEAR,
    VK_PHYSICAL_DEVICE_TYPE_CPU,
    VK_SUCCESS,
)
from hesper.vk.version import make_version, version_text

if TYPE_CHECKING:
    from hesper.guest.backing import Strategy
    from hesper.guest.context import Context
    from hesper.host.drivers import Device
    from hesper.host.seen import MemorySeen
    from hesper.kernel.handlers import Call
    from hesper.kernel.views import View
    from hesper.kernel.vulkan import ProcTable

EMULATED_EXTENSIONS = {
    "VK_KHR_external_memory_fd": 1,
    "VK_EXT_external_memory_dma_buf": 1,
    "VK_EXT_image_drm_format_modifier": 2,
    "VK_EXT_queue_family_foreign": 1,
    "VK_KHR_external_semaphore_fd": 1,
    "VK_KHR_external_fence_fd": 1,
}
"""Extensions every guest gets, with their versions, whether the host has them or not.

Mesa makes its swapchains, synchronization2 and Vulkan 1.3 depend on them.  Their commands never
leave the guest; what is left for the host stands in `memory`, `external`, `modifiers` and `sync`.
"""

ROBUSTNESS = "VkPhysicalDeviceRobustness2FeaturesKHR"
_ROBUSTNESS_NAMES = ("VK_EXT_robustness2", "VK_KHR_robustness2")
_NULL_ELSEWHERE = ("VK_KHR_acceleration_structure", "VK_EXT_descriptor_heap")
"""Extensions in which nullDescriptor means what nothing here stands in for."""

_PORTABILITY_SUBSET = "VK_KHR_portability_subset"
_SHAREABLE = (
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT
    | VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT
    | VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
)
_SPARSE_FEATURES = frozenset(
    {
        "sparseBinding",
        "sparseResidencyBuffer",
        "sparseResidencyImage2D",
        "sparseResidencyImage3D",
        "sparseResidency2Samples",
        "sparseResidency4Samples",
        "sparseResidency8Samples",
        "sparseResidency16Samples",
        "sparseResidencyAliased",
        "shaderResourceResidency",
    }
)
_CAPTURE_FEATURES = (
    "VkPhysicalDeviceBufferDeviceAddressFeatures",
    "VkPhysicalDeviceBufferDeviceAddressFeaturesEXT",
    "VkPhysicalDeviceVulkan12Features",
)
"""Structs with a field bufferDeviceAddressCaptureReplay."""


@dataclass(frozen=True)
class QueueFamily:
    """One queue family."""

    flags: int
    """VkQueueFlags."""
    count: int


class PhysicalDevice:
    """What a context knows of a physical device: read once, when the guest enumerates it.

    `extensions` and versions are the host's after its profile was applied; `shown_*` and
    `memory_types` is what the guest gets to see.
    """

    def __init__(
        self,
        table: ProcTable,
        handle: int,
        profile: Profile | None,
        described: Device | None,
        *,
        emulates: bool = True,
    ) -> None:
        """Ask the driver about `handle`, a host VkPhysicalDevice; `table` is its instance's.

        described: what was found out about it when the server started.  emulates: whether features
        that the driver lacks may be supplied.
        Raises `UnfitDeviceError` when it cannot serve a guest.
        """
        self.handle = handle
        self.table = table
        self.profile = complete(profile or Profile(name="none"))
        properties = Scratch().new("VkPhysicalDeviceProperties")
        table.call("vkGetPhysicalDeviceProperties", handle, properties)
        self.name: str = properties.deviceName
        self.cache_identity = _cache_identity(properties)
        """Which device, driver and version of it pipeline caches belong to."""
        self.image_limits = ImageLimits.of_every(properties.limits)
        self.is_software = properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU
        self.api_version = self.profile.version(known_version(properties.apiVersion))
        if self.api_version < VK_API_VERSION_1_1:
            raise UnfitDeviceError(
                f"it has Vulkan {version_text(self.api_version)}, Venus needs 1.1 or later"
            )
        self._all_extensions = self._read_extensions()
        self.extensions = self._visible_extensions()
        # The loader has functions for what any driver may have, and calls nothing where this one
        # has none.
        self.table = table.without(self.missing_commands(self.extensions))
        if described is None or described.name != self.name:
            raise UnfitDeviceError(
                f"{self.name} was not there when the server started; start it again"
            )
        if described.memory is None:
            raise UnfitDeviceError("no VkDevice of it could be made when the server started")
        self.seen = seen_under(self.profile, described.memory)
        host_types = self._read_memory_types()
        self.strategy = self._choose_strategy(host_types)
        self.memory_types = self._make_memory_types(host_types)
        self.profile = complete(self._without_what_memory_lacks(self.profile))
        self.queue_families = self._read_queue_families()
        self.supplies_nulls = emulates and self.can_supply_nulls()
        """Whether nullDescriptor is Hesper's doing: see `stand_ins`."""
        if self.supplies_nulls and not self.has_robustness:
            # The extension is offered for this alone.
            others = frozenset({"robustBufferAccess2", "robustImageAccess2"})
            self.profile = self.profile.without_features({ROBUSTNESS: others})
        self.has_sync_fd_semaphores = self._has_sync_fd_semaphores()
        self.has_sync_fd_fences = self._has_sync_fd_fences()

    def missing_commands(self, extensions: Iterable[str]) -> list[str]:
        """Commands that there are not on this device with only those extensions."""
        names = {"VK_VERSION_1_2", "VK_VERSION_1_3", "VK_VERSION_1_4"}
        there = {name for name in names if _version_named(name) <= self.api_version}
        there |= set(extensions)
        provided_by = protocol.summary().provided_by
        return [name for name, providers in provided_by.items() if there.isdisjoint(providers)]

    @property
    def obligatory_extensions(self) -> tuple[str, ...]:
        """Extensions that must be enabled on every device because the driver has them."""
        # VUID-VkDeviceCreateInfo-pProperties-04451
        return (_PORTABILITY_SUBSET,) if _PORTABILITY_SUBSET in self._all_extensions else ()

    @property
    def own_extensions(self) -> tuple[str, ...]:
        """Extensions that Hesper enables for itself on a guest's device."""
        names = [*self.strategy.extensions, *self.obligatory_extensions]
        if self.has_sync_fd_semaphores:
            names.append("VK_KHR_external_semaphore_fd")
        if self.has_sync_fd_fences:
            names.append("VK_KHR_external_fence_fd")
        return tuple(names)

    @property
    def has_wide_format_features(self) -> bool:
        """Whether it fills VkFormatProperties3."""
        return self.api_version >= VK_API_VERSION_1_3 or self._has("VK_KHR_format_feature_flags2")

    @property
    def makes_devices_without_queues(self) -> bool:
        """Whether a VkDevice may have none (VUID-VkDeviceCreateInfo-None-10778)."""
        return self._has("VK_KHR_maintenance9")

    def shown_extensions(self) -> dict[str, int]:
        """Extensions the guest gets to see, with their versions."""
        known = protocol.extensions()
        shown = {
            name: min(version, known[name][1])
            for name, version in self.extensions.items()
            if name in known
        }
        if self.supplies_nulls and not self.has_robustness:
            shown |= {name: known[name][1] for name in _ROBUSTNESS_NAMES}
        return shown | EMULATED_EXTENSIONS

    def host_extensions(self, wanted: list[str]) -> list[str]:
        """What to enable on the host for a guest that wants `wanted`.

        A guest's driver also names some of what it does by itself; the host needs none of that.
        Raises `KeyError` for any other extension that was not offered.
        """
        shown = self.shown_extensions()
        own = protocol.guest_extensions()
        for name in wanted:
            if name not in shown and name not in own:
                raise KeyError(name)
        supplied = {*EMULATED_EXTENSIONS, *(() if self.has_robustness else _ROBUSTNESS_NAMES)}
        names = [name for name in wanted if name in shown and name not in supplied]
        if "VK_EXT_queue_family_foreign" in wanted and self._has("VK_EXT_queue_family_foreign"):
            names.append("VK_EXT_queue_family_foreign")
        return list(dict.fromkeys([*names, *self.own_extensions]))

    @property
    def has_robustness(self) -> bool:
        """Whether the driver knows the features of VK_EXT_robustness2."""
        return any(map(self._has, _ROBUSTNESS_NAMES))

    @property
    def sparse_types(self) -> int:
        """The guest's memory types that sparse resources can be bound to, a mask."""
        types = self.memory_types
        binds_imports = self.seen.sparse and isinstance(self.strategy, HostPointer)
        return types.native or (types.all if binds_imports else 0)

    def shares_images(self, tiling: int) -> bool:
        """Whether images of a VkImageTiling were seen to lie in shared memory."""
        strategy, is_linear = self.strategy, tiling == VK_IMAGE_TILING_LINEAR
        return bool(strategy.linear_images if is_linear else strategy.tiled_images)

    def can_supply_nulls(self) -> bool:
        """Whether the driver lacks nullDescriptor, and stand-ins can do for all that it means."""
        if any(map(self._has, _NULL_ELSEWHERE)):
            return False
        if not self.has_robustness or self.profile.feature_off(ROBUSTNESS, "nullDescriptor"):
            return True
        scratch = Scratch()
        features = scratch.new("VkPhysicalDeviceFeatures2")
        robustness = features.push_(ROBUSTNESS)
        self.table.call("vkGetPhysicalDeviceFeatures2", self.handle, features)
        return not robustness.nullDescriptor

    def _choose_strategy(self, host: list[HostType]) -> Strategy:
        """How memory is shared.  Raises `UnfitDeviceError`."""
        coherent = sum(1 << i for i, each in enumerate(host) if each.flags & COHERENT == COHERENT)
        strategy = choose_strategy(self.seen, coherent, self.profile.external_memory(_SHAREABLE))
        if strategy is not None and all(self._has(name) for name in strategy.extensions):
            return strategy
        lost = ", ".join(self.seen.not_survived)
        raise UnfitDeviceError(
            "none of its memory can be shared with a guest: it takes no pointers to shared memory"
            " (VK_EXT_external_memory_host), and exports none that can be mapped"
            + (f"; it has not survived: {lost}" if lost else "")
        )

    def _make_memory_types(self, host: list[HostType]) -> MemoryTypes:
        shared = self.strategy.types
        holds_images = self.strategy.tiled_images or self.seen.unstated_images & shared
        # Some images can lie nowhere else: MoltenVK's for host copies, KosmicKrisp's tiled ones.
        doubled = 0 if holds_images else shared & self.seen.native_images
        return MemoryTypes(host, shared=shared, doubled=doubled)

    def _without_what_memory_lacks(self, profile: Profile) -> Profile:
        """Take away what shared memory cannot do, where there is no other."""
        off: dict[str, frozenset[str]] = {}
        if not self.sparse_types:
            off["VkPhysicalDeviceFeatures"] = _SPARSE_FEATURES
        if not self.memory_types.native:
            # Shared memory lies where it lies.
            captured = frozenset({"bufferDeviceAddressCaptureReplay"})
            off |= dict.fromkeys(_CAPTURE_FEATURES, captured)
            # Tiled images that begin as zeros lie in the driver's own memory (`placement`).
            zeros = frozenset({"zeroInitializeDeviceMemory"})
            off["VkPhysicalDeviceZeroInitializeDeviceMemoryFeaturesEXT"] = zeros
        return profile.without_features(off)

    def _has(self, extension: str) -> bool:
        return extension in self.extensions

    def _read_extensions(self) -> dict[str, int]:
        scratch = Scratch()
        command = "vkEnumerateDeviceExtensionProperties"
        count = scratch.array("uint32_t", 1)
        self.table.call(command, self.handle, None, count, None)
        found = scratch.array("VkExtensionProperties", count[0])
        result = self.table.call(command, self.handle, None, count, found)
        if result < VK_SUCCESS:
            raise UnfitDeviceError(f"{command} failed with VkResult {result}")
        return {found[index].extensionName: found[index].specVersion for index in range(count[0])}

    def _visible_extensions(self) -> dict[str, int]:
        """Those that the profile leaves: none that needs one which it hides."""
        known = protocol.summary().extensions
        later = {f"VK_VERSION_1_{minor}" for minor in range(2, 10)}
        missing = {name for name in later if _version_named(name) > self.api_version}
        missing |= {name for name in self._all_extensions if self.profile.hides_extension(name)}
        found = missing
        while found:
            missing |= found
            found = {
                name
                for name in self._all_extensions.keys() & known.keys() - missing
                if not can_be_met(known[name].depends, missing)
            }
        return {n: v for n, v in self._all_extensions.items() if n not in missing}

    def _read_memory_types(self) -> list[HostType]:
        answer = Scratch().new("VkPhysicalDeviceMemoryProperties")
        self.table.call("vkGetPhysicalDeviceMemoryProperties", self.handle, answer)
        types = [answer.memoryTypes[index] for index in range(answer.memoryTypeCount)]
        return [
            HostType(self.profile.memory_flags(each.propertyFlags), each.heapIndex)
            for each in types
        ]

    def _read_queue_families(self) -> list[QueueFamily]:
        scratch = Scratch()
        command = "vkGetPhysicalDeviceQueueFamilyProperties"
        count = scratch.array("uint32_t", 1)
        self.table.call(command, self.handle, count, None)
        found = scratch.array("VkQueueFamilyProperties", count[0])
        self.table.call(command, self.handle, count, found)
        return [
            QueueFamily(
                found[index].queueFlags & ~self.profile.queue_flags_off, found[index].queueCount
            )
            for index in range(count[0])
        ]

    def _has_sync_fd_semaphores(self) -> bool:
        """Whether the host can import and export binary semaphores as sync files."""
        handle_type = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT
        if not self._has("VK_KHR_external_semaphore_fd"):
            return False
        if not self.profile.external_semaphore(handle_type):
            return False
        scratch = Scratch()
        question = scratch.new("VkPhysicalDeviceExternalSemaphoreInfo", handleType=handle_type)
        answer = scratch.new("VkExternalSemaphoreProperties")
        command = "vkGetPhysicalDeviceExternalSemaphoreProperties"
        self.table.call(command, self.handle, question, answer)
        both = (
            VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT
            | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT
        )
        return bool(answer.externalSemaphoreFeatures & both == both)

    def _has_sync_fd_fences(self) -> bool:
        """Whether the host can export fences as sync files."""
        handle_type = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT
        if not self._has("VK_KHR_external_fence_fd"):
            return False
        if not self.profile.external_fence(handle_type):
            return False
        scratch = Scratch()
        question = scratch.new("VkPhysicalDeviceExternalFenceInfo", handleType=handle_type)
        answer = scratch.new("VkExternalFenceProperties")
        command = "vkGetPhysicalDeviceExternalFenceProperties"
        self.table.call(command, self.handle, question, answer)
        return bool(answer.externalFenceFeatures & VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT)


def seen_under(profile: Profile, seen: MemorySeen) -> MemorySeen:
    """What a trial has seen of a device, as far as `profile` says something else of it."""
    host = "VkPhysicalDeviceExternalMemoryHostPropertiesEXT"
    alignment = profile.limit(host, "minImportedHostPointerAlignment", seen.alignment)
    sparse = seen.sparse and not profile.feature_off("VkPhysicalDeviceFeatures", "sparseBinding")
    return replace(seen, alignment=int(alignment), sparse=sparse)


def _cache_identity(properties: View) -> bytes:
    numbers = (properties.vendorID, properties.deviceID, properties.driverVersion)
    packed = b"".join(number.to_bytes(4, "little") for number in numbers)
    return packed + bytes(properties.pipelineCacheUUID)


def _version_named(name: str) -> int:
    """The packed version of a name such as `VK_VERSION_1_2`."""
    return make_version(*map(int, name.split("_")[-2:]))


def known_version(version: int) -> int:
    """`version`, or the newest that the wire tables know where that is older."""
    newest = make_version(1, 4, protocol.summary().header_version)
    return version if version < make_version(1, 5) else newest


def physical_device(context: Context, call: Call) -> PhysicalDevice:
    """The physical device a command is for.  Raises `ProtocolError`."""
    guest_id = call.id("physicalDevice")
    instance = context.instance
    physical = instance.physical_devices.get(guest_id) if instance else None
    if physical is None:
        raise ProtocolError(f"no physical device {guest_id}")
    return physical
