"""Host profiles: what they hide, and what is wrong with bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hesper.errors import ProfileError
from hesper.host.profile import Profile, load_profile

LIMITS = "VkPhysicalDeviceLimits"
DEVICE_LOCAL, HOST_VISIBLE, HOST_COHERENT, PROTECTED = 1, 2, 4, 0x20


def test_an_empty_profile_changes_nothing() -> None:
    profile = Profile("none")
    assert not profile.hides_extension("VK_KHR_swapchain")
    assert not profile.feature_off("VkPhysicalDeviceFeatures", "geometryShader")
    assert profile.limit(LIMITS, "maxImageDimension2D", 32768) == 32768
    assert profile.memory_flags(0xFF) == 0xFF
    assert profile.external_memory(0xFFFF) == 0xFFFF
    assert profile.external_fence(0xF) == 0xF
    assert profile.external_semaphore(0x1F) == 0x1F
    assert profile.version(4211024) == 4211024


def test_moltenvk() -> None:
    profile = load_profile("moltenvk")
    assert profile.hides_extension("VK_EXT_external_memory_dma_buf")
    assert profile.hides_extension("VK_KHR_external_memory_fd")
    assert profile.hides_extension("VK_EXT_image_drm_format_modifier")
    assert not profile.hides_extension("VK_EXT_external_memory_host")
    assert not profile.hides_extension("VK_KHR_portability_subset")
    assert profile.feature_off("VkPhysicalDeviceFeatures", "geometryShader")
    assert not profile.feature_off("VkPhysicalDeviceFeatures", "tessellationShader")
    assert profile.limit(LIMITS, "maxGeometryOutputVertices", 1024) == 0
    assert profile.limit(LIMITS, "minTexelOffset", -32) == -8
    assert profile.limit(LIMITS, "viewportBoundsRange", -40000.0, 0) == -40000.0
    assert profile.limit(LIMITS, "viewportBoundsRange", 40000.0, 1) == 32767.0
    assert profile.limit(LIMITS, "framebufferColorSampleCounts", 0x7F) == 7
    page = ("VkPhysicalDeviceExternalMemoryHostPropertiesEXT", "minImportedHostPointerAlignment")
    assert profile.limit(*page, 4096) == 16384
    assert profile.external_memory(0x1 | 0x200 | 0x80) == 0x80
    assert profile.external_semaphore(0x11) == 0
    assert profile.external_fence(0x9) == 0
    assert profile.version(1 << 22 | 3 << 12 | 5) == 1 << 22 | 3 << 12 | 5


@pytest.mark.parametrize("name", ["moltenvk", "kosmickrisp"])
def test_names_of_ours_are_the_registrys(name: str) -> None:
    """A misspelt struct or field would hide nothing."""
    import vulkan_object

    registry = vulkan_object.get_vulkan_object()
    profile = load_profile(name)
    assert profile.extensions is not None
    assert profile.extensions <= set(registry.extensions)
    tables = (profile.features_off, profile.at_most, profile.at_least, profile.flags)
    for table in tables:
        for struct, fields in table.items():
            known = {member.name for member in registry.structs[struct].members}
            assert set(fields) <= known, struct


def test_what_a_stage_and_a_set_may_have() -> None:
    profile = load_profile("moltenvk")
    wanted = {"Samplers": 16, "UniformBuffers": 31, "StorageBuffers": 31, "SampledImages": 256}
    for kind, stage in wanted.items():
        assert profile.limit(LIMITS, f"maxPerStageDescriptor{kind}", 1 << 20) == stage
        assert profile.limit(LIMITS, f"maxDescriptorSet{kind}", 1 << 20) == 5 * stage


def test_kosmickrisp() -> None:
    profile = load_profile("kosmickrisp")
    assert not profile.hides_extension("VK_EXT_external_memory_host")
    assert profile.hides_extension("VK_EXT_image_drm_format_modifier")
    assert profile.hides_extension("VK_KHR_portability_subset")
    robustness = "VkPhysicalDeviceRobustness2FeaturesKHR"
    assert not profile.feature_off(robustness, "nullDescriptor")
    assert profile.feature_off("VkPhysicalDeviceFeatures", "geometryShader")
    assert profile.limit(LIMITS, "minMemoryMapAlignment", 64) == 16384
    assert profile.external_memory(0x1 | 0x80 | 0x200) == 0x80


def test_files_of_both_kinds(tmp_path: Path) -> None:
    toml = tmp_path / "a.toml"
    toml.write_text(
        'name = "a"\napi_version = "1.2"\n'
        'memory_types = [{ having = ["PROTECTED"], without = ["HOST_VISIBLE", "HOST_COHERENT"] }]\n'
        '[external_handles]\nsemaphore = ["SYNC_FD"]\nfence = ["SYNC_FD"]\n'
    )
    profile = load_profile(str(toml))
    assert profile.memory_flags(DEVICE_LOCAL | HOST_VISIBLE) == DEVICE_LOCAL | HOST_VISIBLE
    everything = DEVICE_LOCAL | HOST_VISIBLE | HOST_COHERENT | PROTECTED
    assert profile.memory_flags(everything) == DEVICE_LOCAL | PROTECTED
    assert profile.external_semaphore(0x1F) == 0x10
    assert profile.external_fence(0xF) == 0x8
    assert profile.external_memory(0x201) == 0x201
    assert profile.version(1 << 22 | 3 << 12) == 1 << 22 | 2 << 12 | 0xFFF
    as_json = tmp_path / "b.json"
    as_json.write_text(json.dumps({"name": "b", "hidden_extensions": ["VK_KHR_swapchain"]}))
    assert load_profile(str(as_json)).hides_extension("VK_KHR_swapchain")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "nvalid"),
        ('nam = "x"', "missing required field `name`|unknown field `nam`"),
        ('name = "x"\nextension = []', "unknown field `extension`"),
        ('name = "x"\napi_version = "newest"', "api_version 'newest'"),
        ('name = "x"\nmemory_types = [{ without = ["FAST"] }]', "'FAST' is none of DEVICE_LOCAL"),
        ('name = "x"\n[external_handles]\nmemory = ["FD"]', "'FD' is none of OPAQUE_FD"),
        ('name = "x"\n[at_most]\nVkPhysicalDeviceLimits = 3', "Expected `object`"),
    ],
)
def test_bad_files_say_why(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ProfileError, match=reason) as caught:
        load_profile(str(file))
    assert str(file) in str(caught.value)


def test_unknown_names_list_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        ProfileError, match=r"no host profile 'metal': .* one of: kosmickrisp, moltenvk"
    ):
        load_profile("metal")
    with pytest.raises(ProfileError, match="No such file"):
        load_profile(str(tmp_path / "gone.toml"))
