"""vulkaninfo: limits, features, formats and extensions are the bare driver's, but for a list."""

from __future__ import annotations

import pytest
import report
from differences import differences, explain, load_rules
from report import Report
from servers import SETUPS, Client, Place, Setup, bare, serving

from hesper.guest.physical_device import EMULATED_EXTENSIONS
from hesper.host.profile import load_profile

PLAIN, MOLTENVK, PAGES = SETUPS


def vulkaninfo(client: Client) -> Report:
    """What vulkaninfo says there."""
    return report.parse(client.run(["vulkaninfo"]).stdout)


def through_hesper(place: Place, setup: Setup) -> Report:
    """What vulkaninfo says through a server."""
    with serving(place, setup) as server:
        return vulkaninfo(server.client(place))


@pytest.mark.parametrize("setup", [PLAIN, PAGES], ids=lambda setup: setup.name)
def test_same_as_the_bare_driver(place: Place, setup: Setup) -> None:
    expected, shown = vulkaninfo(bare(place)), through_hesper(place, setup)
    assert shown.device == f"Virtio-GPU Venus ({expected.device})"
    assert len(expected.entries) > 1000, "the report was understood"
    unexplained, _ = explain(differences(expected, shown), load_rules())
    assert not unexplained, "\n".join(unexplained)


def test_every_listed_difference_is_real(machine: Place, trixie: Place) -> None:
    rules = load_rules()
    listed = {
        (kind, name) for kind in ("missing", "added", "changed") for name in getattr(rules, kind)
    }
    for place in (machine, trixie):
        expected, shown = vulkaninfo(bare(place)), through_hesper(place, PLAIN)
        listed -= explain(differences(expected, shown), rules)[1]
    assert not listed


def test_no_more_than_moltenvk(place: Place) -> None:
    profile = load_profile("moltenvk")
    expected, shown = vulkaninfo(bare(place)), through_hesper(place, MOLTENVK)
    before, after = (
        expected.find("VkPhysicalDeviceFeatures"),
        shown.find("VkPhysicalDeviceFeatures"),
    )
    for struct, fields in profile.features_off.items():
        found = shown.find(struct)
        on = [field for field in fields if found.get(field) == "true"]
        assert not on, f"{struct}: {on}"
    off = profile.features_off["VkPhysicalDeviceFeatures"]
    assert before["geometryShader"] == "true", "the bare driver has it"
    assert {name: value for name, value in before.items() if name not in off} == {
        name: value for name, value in after.items() if name not in off
    }
    limits = shown.find("VkPhysicalDeviceLimits")
    assert limits["maxImageDimensionCube"] == "16384"
    assert limits["maxGeometryOutputVertices"] == "0"
    # What the guest's Mesa does by itself, and what Hesper emulates, is not the host's.
    ours = set(EMULATED_EXTENSIONS) | set(load_rules().added)
    hidden = {name for name in shown.extensions() if profile.hides_extension(name)}
    assert hidden <= ours
