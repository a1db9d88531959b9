"""vulkaninfo: limits, features, formats and extensions are the bare driver's, but for a list."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import report
from differences import Difference, differences, explain, load_rules
from report import Report
from servers import FAKES, SETUPS, Client, Place, Setup, bare, serving

from hesper.guest.physical_device import EMULATED_EXTENSIONS
from hesper.host.profile import load_profile
from hesper.portable import physical_memory

PLAIN, MOLTENVK, PAGES, *_ = SETUPS
MEMORY = "VkPhysicalDeviceMemoryProperties"
"""Guest memory types are Hesper's own; test_memory.py uses each of them."""


def vulkaninfo(client: Client) -> Report:
    """What vulkaninfo says there."""
    return report.parse(client.run(["vulkaninfo"]).stdout)


@functools.cache
def reports(place: Place, setup: Setup) -> tuple[Report, Report]:
    """What vulkaninfo says of the bare driver and through a server."""
    # By default a client has a share of the memory, and its heaps say so.
    # Of what all have together, a part is kept for whoever comes next.
    most = physical_memory()
    everything = ("--limit", f"memory={most}", "--limit", f"total_memory={2 * most}")
    with serving(place, replace(setup, arguments=setup.arguments + everything)) as server:
        return vulkaninfo(bare(place, setup=setup)), vulkaninfo(server.client(place))


def unlike(place: Place, setup: Setup) -> Iterator[Difference]:
    """In what the two reports differ, but for memory where its types are meant to."""
    for difference in differences(*reports(place, setup)):
        if not (setup.mode and difference.path[0] == MEMORY):
            yield difference


@pytest.mark.parametrize("setup", [PLAIN, PAGES], ids=lambda setup: setup.name)
def test_same_as_the_bare_driver(place: Place, setup: Setup) -> None:
    check_same(place, setup)


@pytest.mark.parametrize("setup", FAKES, ids=lambda setup: setup.name)
def test_same_as_a_driver_with_rules_of_its_own(trixie: Place, setup: Setup) -> None:
    check_same(trixie, setup)


def check_same(place: Place, setup: Setup) -> None:
    """Check that nothing differs that is not listed."""
    expected, shown = reports(place, setup)
    assert shown.device == f"Virtio-GPU Venus ({expected.device})"
    assert len(expected.entries) > 1000, "the report was understood"
    unexplained, _ = explain(unlike(place, setup), load_rules())
    assert not unexplained, "\n".join(unexplained)


def test_every_listed_difference_is_real(machine: Place, trixie: Place) -> None:
    rules = load_rules()
    listed = {
        (kind, name) for kind in ("missing", "added", "changed") for name in getattr(rules, kind)
    }
    sides = [(machine, PLAIN), (trixie, PLAIN), *((trixie, setup) for setup in FAKES)]
    for place, setup in sides:
        listed -= explain(unlike(place, setup), rules)[1]
    assert not listed


def test_no_more_than_moltenvk(place: Place) -> None:
    profile = load_profile("moltenvk")
    expected, shown = reports(place, MOLTENVK)
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
