"""What goes with what a host profile takes away."""

from __future__ import annotations

import pytest

from hesper.host.consequences import all_consequences, complete
from hesper.host.profile import Profile, load_profile

FEATURES, LIMITS = "VkPhysicalDeviceFeatures", "VkPhysicalDeviceLimits"
SPARSE, PROTECTED = 0x8, 0x10
MINMAX, YCBCR_MIDPOINT, HOST_TRANSFER = 1 << 16, 1 << 17, 1 << 46


def without(*fields: str, struct: str = FEATURES) -> Profile:
    return complete(Profile("x", features_off={struct: frozenset(fields)}))


def test_nothing_follows_from_nothing() -> None:
    profile = Profile("x", api_version="1.4")
    assert complete(profile) == profile


def test_moltenvks_profile_says_it_all_itself() -> None:
    given = load_profile("moltenvk")
    profile = complete(given)
    assert profile.queue_flags_off == SPARSE | PROTECTED
    assert profile.format_features_off & MINMAX
    assert not profile.format_features_off & (YCBCR_MIDPOINT | HOST_TRANSFER)
    for struct, fields in given.at_most.items():
        assert fields.items() <= profile.at_most[struct].items()


def test_sparse_features_go_together() -> None:
    profile = without("sparseBinding")
    for field in ("sparseResidencyBuffer", "sparseResidency8Samples", "shaderResourceResidency"):
        assert profile.feature_off(FEATURES, field)
    # And what hangs on those.
    assert profile.limit("VkPhysicalDeviceSparseProperties", "residencyAlignedMipSize", 1) == 0
    images = "VkPhysicalDeviceShaderImageAtomicInt64FeaturesEXT"
    assert profile.feature_off(images, "sparseImageInt64Atomics")
    assert profile.limit(LIMITS, "sparseAddressSpaceSize", 1 << 40) == 0
    assert profile.queue_flags_off == SPARSE


def test_one_kind_of_sparse_image_leaves_the_others() -> None:
    profile = without("sparseResidencyImage3D")
    sparse = "VkPhysicalDeviceSparseProperties"
    assert profile.limit(sparse, "residencyStandard3DBlockShape", 1) == 0
    assert profile.limit(sparse, "residencyStandard2DBlockShape", 1) == 1
    assert profile.queue_flags_off == 0


def test_limits_are_joined_with_the_profiles_own() -> None:
    given = Profile(
        "x",
        features_off={FEATURES: frozenset({"wideLines", "shaderStorageImageMultisample"})},
        at_most={LIMITS: {"lineWidthRange": [0.5, 8.0], "maxViewports": 4}},
        flags={LIMITS: {"storageImageSampleCounts": 6}},
    )
    profile = complete(given)
    assert profile.at_most[LIMITS]["lineWidthRange"] == [0.5, 1.0]
    assert profile.limit(LIMITS, "lineWidthRange", 7.0, 1) == 1.0
    assert profile.limit(LIMITS, "maxViewports", 16) == 4
    assert profile.limit(LIMITS, "storageImageSampleCounts", 7) == 0
    assert given.at_most[LIMITS]["lineWidthRange"] == [0.5, 8.0]


def test_a_feature_in_two_structs_is_away_when_both_say_so() -> None:
    own = {"VkPhysicalDeviceProtectedMemoryFeatures": frozenset({"protectedMemory"})}
    later = {"VkPhysicalDeviceVulkan11Features": frozenset({"protectedMemory"})}
    assert complete(Profile("x", features_off=own)).queue_flags_off == 0
    assert complete(Profile("x", features_off=own | later)).queue_flags_off == PROTECTED
    # Vulkan 1.1 has the one only.
    old = Profile("x", api_version="1.1", features_off=own)
    assert complete(old).queue_flags_off == PROTECTED


@pytest.mark.parametrize("hidden", ["VK_EXT_filter_cubic", "VK_IMG_filter_cubic"])
def test_what_two_extensions_bring_stays_with_either(hidden: str) -> None:
    both = frozenset({"VK_EXT_filter_cubic", "VK_IMG_filter_cubic"})
    one = complete(Profile("x", hidden_extensions=frozenset({hidden})))
    assert one.format_features_off == 0
    assert complete(Profile("x", hidden_extensions=both)).format_features_off == 0x2000


def test_the_names_are_the_registrys() -> None:
    """A misspelt struct, field or extension would take nothing away."""
    import vulkan_object

    registry = vulkan_object.get_vulkan_object()
    for each in all_consequences():
        for name in each.unless:
            struct, _, field = name.partition(".")
            if field:
                assert field in {m.name for m in registry.structs[struct].members}, name
            else:
                assert name in registry.extensions
        for table in (each.features_off, each.at_most, each.at_least, each.flags):
            for struct, fields in table.items():
                known = {member.name for member in registry.structs[struct].members}
                assert set(fields) <= known, struct
