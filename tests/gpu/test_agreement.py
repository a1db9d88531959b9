"""Features that the driver has not chosen, or a VMM has kept from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_requests import create_2d, request
from gpu_vm import Vm
from vhost_user_guest import VhostUserGuest

from hesper.gpu.wire import Command, Feature, Response


@pytest.fixture
def vm() -> Iterator[Vm]:
    """A device with a guest whose driver is not loaded."""
    vm = Vm("vhost-user")
    yield vm
    vm.close()


def start_without(vm: Vm, features: Feature) -> None:
    """Load a driver that is not offered these."""
    assert isinstance(vm.guest, VhostUserGuest)
    vm.guest.frontend.features &= ~int(features)
    vm.guest.start()


def test_a_guest_without_blobs_has_its_screens_and_a_line_says_so(
    vm: Vm, caplog: pytest.LogCaptureFixture
) -> None:
    """QEMU 11.1's vhost-user-gpu-pci keeps all but two of the device's features from the driver."""
    start_without(vm, ~(Feature.VIRGL | Feature.EDID))
    assert vm.guest.send(create_2d(1, 64, 64)).type == Response.OK_NODATA
    assert sum("no Vulkan" in line for line in caplog.messages) == 1


def test_firmware_that_chooses_nothing_is_no_news(vm: Vm, caplog: pytest.LogCaptureFixture) -> None:
    start_without(vm, ~Feature(0))
    assert vm.guest.send(create_2d(1, 64, 64)).type == Response.OK_NODATA
    assert "no Vulkan" not in caplog.text


@pytest.mark.parametrize(
    ("feature", "command"),
    [
        (Feature.VIRGL, Command.CTX_CREATE),
        (Feature.VIRGL, Command.GET_CAPSET_INFO),
        (Feature.RESOURCE_BLOB, Command.RESOURCE_CREATE_BLOB),
        (Feature.RESOURCE_BLOB, Command.RESOURCE_MAP_BLOB),
        (Feature.RESOURCE_UUID, Command.RESOURCE_ASSIGN_UUID),
        (Feature.EDID, Command.GET_EDID),
    ],
)
def test_a_command_of_a_feature_that_was_not_chosen_is_refused(
    vm: Vm, caplog: pytest.LogCaptureFixture, feature: Feature, command: Command
) -> None:
    """A VMM that keeps a feature from the driver has no part for it, as a region to map into."""
    start_without(vm, feature)
    assert vm.guest.send(request(command, bytes(256))).type == Response.ERR_UNSPEC
    assert "the driver has not chosen it" in caplog.text
