"""Commands that a device does not have: refused, whatever the loader or the driver has for them."""

from __future__ import annotations

import random

import pytest
from guest_client import DEVICE, PHYSICAL_DEVICE, Guest, MakeGuest

from hesper.host.profile import Profile
from hesper.kernel.errors import ProtocolError
from hesper.protocol.model import load
from protocol.values import Values

MODEL = load()
ASKED = sorted(
    name
    for name, command in MODEL.commands.items()
    if not command.refused and command.fields and command.fields[0].type == "VkPhysicalDevice"
)
OF_EXTENSIONS = [name for name in ASKED if MODEL.commands[name].provided_by]


def test_what_every_device_has_is_provided_by_nothing() -> None:
    assert MODEL.commands["vkCmdDraw"].provided_by == ()
    assert MODEL.commands["vkGetPhysicalDeviceFeatures2"].provided_by == ()
    begin = MODEL.commands["vkCmdBeginRendering"].provided_by
    assert begin == ("VK_KHR_dynamic_rendering", "VK_VERSION_1_3")
    assert "VK_EXT_shader_object" in MODEL.commands["vkCmdSetPolygonModeEXT"].provided_by


@pytest.mark.parametrize("name", OF_EXTENSIONS)
def test_a_physical_device_is_not_asked_what_it_cannot_be_asked(guest: Guest, name: str) -> None:
    instance = guest.context.instance
    assert instance is not None
    physical = instance.physical_devices[PHYSICAL_DEVICE]
    if set(MODEL.commands[name].provided_by) & physical.extensions.keys():
        assert name in physical.table
        return
    assert name not in physical.table
    values = Values(MODEL, random.Random(1), handle=lambda _: PHYSICAL_DEVICE)
    parameters = values.parameters(MODEL.commands[name]) | {"physicalDevice": PHYSICAL_DEVICE}
    with pytest.raises(ProtocolError, match=f"{name} at byte .* does not have this command"):
        guest.send(name, **parameters)


def test_a_device_has_what_it_was_made_with(make_guest: MakeGuest) -> None:
    plain = make_guest().start()
    assert "vkCmdBeginConditionalRenderingEXT" not in plain.context.devices[DEVICE].table
    assert "vkCmdBeginRendering" in plain.context.devices[DEVICE].table
    asked = make_guest().start(extensions=[b"VK_EXT_conditional_rendering"])
    assert "vkCmdBeginConditionalRenderingEXT" in asked.context.devices[DEVICE].table


def test_a_command_of_an_extension_that_is_not_enabled_is_refused(guest: Guest) -> None:
    pool = guest.create("CommandPool", {"queueFamilyIndex": 0})
    commands = guest.new_id()
    info = {"commandPool": pool, "level": 0, "commandBufferCount": 1}
    guest.ask(
        "vkAllocateCommandBuffers", device=DEVICE, pAllocateInfo=info, pCommandBuffers=[commands]
    )
    guest.ask("vkBeginCommandBuffer", commandBuffer=commands, pBeginInfo={})
    with pytest.raises(ProtocolError, match="does not have this command"):
        guest.send("vkCmdEndConditionalRenderingEXT", commandBuffer=commands)


def test_a_profile_hides_the_commands_of_later_versions(make_guest: MakeGuest) -> None:
    guest = make_guest(profile=Profile(name="old", api_version="1.2"))
    table = guest.start().context.devices[DEVICE].table
    assert "vkCmdBeginRendering" not in table
    assert "vkWaitSemaphores" in table
