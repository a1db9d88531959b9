"""Questions about images: the kernel answers the plain ones, the handler those about sharing."""

from __future__ import annotations

from typing import Any

import pytest
from guest_client import PHYSICAL_DEVICE, Guest

COMMAND = "vkGetPhysicalDeviceImageFormatProperties2"
MODIFIER_TILING = 1000158000
EXTERNAL = "VkPhysicalDeviceExternalImageFormatInfo"
MODIFIER = "VkPhysicalDeviceImageDrmFormatModifierInfoEXT"


def ask(guest: Guest, chain: Any = (), **info: int) -> tuple[int, dict[str, Any], int]:
    """VkResult, answer, and how many handlers ran."""
    before = guest.context.engine.statistics()["handler_calls"]
    result, answer = guest.call(
        COMMAND,
        physicalDevice=PHYSICAL_DEVICE,
        pImageFormatInfo={"type": 1, "usage": 4, "pNext": list(chain), **info},
        pImageFormatProperties={},
    )
    after = guest.context.engine.statistics()["handler_calls"]
    return result, answer["pImageFormatProperties"]["imageFormatProperties"], after - before


@pytest.mark.parametrize("tiling", [0, 1])
@pytest.mark.parametrize("format_", [9, 37, 126, 131, 1000156002])
def test_the_kernel_answers_as_the_handler_does(guest: Guest, format_: int, tiling: int) -> None:
    plain = ask(guest, format=format_, tiling=tiling)
    # A handle type of 0 asks for nothing, and goes to the handler all the same.
    handled = ask(guest, [(EXTERNAL, {"handleType": 0})], format=format_, tiling=tiling)
    assert (plain[2], handled[2]) == (0, 1)
    assert plain[:2] == handled[:2]


def test_a_chain_without_policy_is_plain(guest: Guest) -> None:
    formats = ("VkImageFormatListCreateInfo", {"viewFormatCount": 1, "pViewFormats": [37]})
    assert ask(guest, [formats], format=37)[2] == 0
    assert ask(guest, [formats, (EXTERNAL, {"handleType": 0x200})], format=37, tiling=1)[2] == 1
    assert ask(guest, [(MODIFIER, {}), formats], format=37, tiling=MODIFIER_TILING)[2] == 1
    assert ask(guest, format=37, tiling=MODIFIER_TILING)[2] == 1


@pytest.mark.parametrize("flags", [1, 3, 5])
def test_sparse_images_are_the_handlers(guest: Guest, flags: int) -> None:
    assert ask(guest, format=37, flags=flags)[2] == 1
