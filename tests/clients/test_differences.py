"""What counts as a difference of two vulkaninfo reports."""

from __future__ import annotations

from collections.abc import Mapping

import report
from differences import Difference, Rules, differences, explain
from report import Report

HEAD = "Device Properties and Extensions"
FEATURES = "VkPhysicalDeviceFeatures"


def made(
    structs: Mapping[str, Mapping[str, str]],
    extensions: tuple[str, ...] = (),
    features: Mapping[str, Mapping[str, str]] | None = None,
) -> Report:
    """A report that says this, read as vulkaninfo writes it."""
    lines = [f"{HEAD}:", "====", "VkPhysicalDeviceProperties:", "----", "\tdeviceName = GPU"]
    for struct, fields in structs.items():
        lines += [f"{struct}:", "----", *(f"\t{name} = {value}" for name, value in fields.items())]
    lines += [f"Device Extensions: count = {len(extensions)}"]
    lines += [f"\t{name} : extension revision 1" for name in extensions]
    lines += [f"{FEATURES}:", "===="]
    for struct, fields in (features or {}).items():
        lines += [f"{struct}:", "----", *(f"\t{name} = {value}" for name, value in fields.items())]
    return report.parse("\n".join(lines))


def found(bare: Report, shown: Report) -> list[tuple[str, str]]:
    """Kind and last name of each difference."""
    return [(one.kind, one.path[-1]) for one in differences(bare, shown)]


def test_the_last_struct_does_not_own_the_extensions() -> None:
    one = made({"VkPhysicalDeviceVulkan12Properties": {"a": "1"}}, ("VK_EXT_b",))
    assert (HEAD, "Device Extensions", "VK_EXT_b") in one.entries
    assert one.extensions() == {"VK_EXT_b"}
    assert one.find("VkPhysicalDeviceVulkan12Properties") == {"a": "1"}


def features(**values: str) -> Report:
    """A device with Vulkan 1.4."""
    return made({}, features={"VkPhysicalDeviceVulkan14Features": values})


def test_a_core_versions_fields_may_be_in_the_extensions_structs() -> None:
    bare = features(maintenance5="true")
    same = made({}, features={"VkPhysicalDeviceMaintenance5FeaturesKHR": {"maintenance5": "true"}})
    other = made(
        {}, features={"VkPhysicalDeviceMaintenance5FeaturesKHR": {"maintenance5": "false"}}
    )
    more = made(
        {},
        features={
            "VkPhysicalDeviceMaintenance5FeaturesKHR": {"maintenance5": "true"},
            "VkPhysicalDeviceMaintenance6FeaturesKHR": {"maintenance6": "true"},
        },
    )
    assert found(bare, same) == []
    assert found(bare, other) == [("changed", "maintenance5")]
    assert ("added", "maintenance6") in found(bare, more)
    assert found(bare, features(maintenance5="false")) == [("changed", "maintenance5")]


def test_a_feature_may_be_an_extension_alone() -> None:
    bare = features(pushDescriptor="true")
    with_it = made({}, ("VK_KHR_push_descriptor",))
    assert ("missing", "pushDescriptor") not in found(bare, with_it)
    assert ("missing", "pushDescriptor") in found(bare, made({}))


def test_an_extensions_rule_is_one_for_its_structs_and_for_what_became_core() -> None:
    rules = Rules({"VK_EXT_pipeline_robustness": "not there"}, {}, {})
    bare = features(pipelineRobustness="true", maintenance6="true")
    unexplained, used = explain(differences(bare, made({})), rules)
    assert [line.rsplit(" ", 2)[1] for line in unexplained] == ["maintenance6:"]
    assert used == {("missing", "VK_EXT_pipeline_robustness")}
    struct = "VkPhysicalDevicePipelineRobustnessFeaturesEXT"
    bare = made({}, features={struct: {"pipelineRobustness": "true"}})
    assert explain(differences(bare, made({})), rules) == ([], used)


def test_a_core_fields_rule_is_one_for_the_extensions_struct() -> None:
    names = set(
        Difference("changed", (HEAD, "VkPhysicalDeviceDriverProperties", "driverID"), "").names()
    )
    assert "VkPhysicalDeviceVulkan12Properties.driverID" in names
    assert "VkPhysicalDeviceVulkan12Properties" not in names
