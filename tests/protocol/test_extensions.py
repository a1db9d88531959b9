"""Dependencies of extensions, and which extensions are the guest's alone."""

from __future__ import annotations

import pytest

from hesper import protocol
from hesper.protocol.depends import can_be_met


@pytest.mark.parametrize(
    ("depends", "missing", "met"),
    [
        ("", {"A"}, True),
        ("A", {"A"}, False),
        ("A", {"B"}, True),
        ("A+B", {"B"}, False),
        ("A,B", {"B"}, True),
        ("A,B", {"A", "B"}, False),
        ("(A,B)+C", {"A"}, True),
        ("(A,B)+C", {"C"}, False),
        ("((A+B),C)+D", {"B"}, True),
        ("((A+B),C)+D", {"B", "C"}, False),
        ("A::feature+B", {"A"}, False),
        ("A+B,C", {"A"}, True),
        ("A,B+C", {"C"}, False),
    ],
)
def test_dependencies(depends: str, missing: set[str], met: bool) -> None:
    assert can_be_met(depends, missing) is met


def test_what_needs_a_window_system_is_the_guests() -> None:
    own = protocol.guest_extensions()
    assert {
        "VK_EXT_hdr_metadata",
        "VK_EXT_swapchain_maintenance1",
        "VK_KHR_incremental_present",
        "VK_KHR_present_id2",
        "VK_KHR_present_wait",
        "VK_KHR_swapchain",
        "VK_KHR_swapchain_mutable_format",
    } < own
    assert not own & {"VK_KHR_surface", "VK_KHR_timeline_semaphore", "VK_EXT_external_memory_host"}


def test_extensions_that_travel_need_nothing_that_is_the_guests() -> None:
    window_system = protocol.guest_extensions() - protocol.extensions().keys()
    for name, extension in protocol.summary().extensions.items():
        assert can_be_met(extension.depends, window_system), name
