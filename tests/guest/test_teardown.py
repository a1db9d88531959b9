"""The order in which things are destroyed, and queues that do not come to rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_client import CODEC, DEVICE, QUEUE, Guest

from hesper.guest import sync, teardown
from hesper.guest.teardown import destroy_command, destruction_rank
from hesper.host.profile import Profile
from hesper.kernel.errors import ProtocolError
from hesper.kernel.objects import Object
from hesper.kernel.views import Scratch

USERS = [
    ("VkCommandPool", "VkPipeline"),
    ("VkDescriptorPool", "VkDescriptorSetLayout"),
    ("VkFramebuffer", "VkRenderPass"),
    ("VkFramebuffer", "VkImageView"),
    ("VkPipeline", "VkPipelineLayout"),
    ("VkPipeline", "VkShaderModule"),
    ("VkPipelineLayout", "VkDescriptorSetLayout"),
    ("VkDescriptorUpdateTemplate", "VkDescriptorSetLayout"),
    ("VkDescriptorSetLayout", "VkSampler"),
    ("VkImageView", "VkImage"),
    ("VkImageView", "VkSamplerYcbcrConversion"),
    ("VkSampler", "VkSamplerYcbcrConversion"),
    ("VkBufferView", "VkBuffer"),
    ("VkAccelerationStructureKHR", "VkBuffer"),
    ("VkBuffer", "VkDeviceMemory"),
    ("VkImage", "VkDeviceMemory"),
]


class Named:
    """Stands for an object of a type."""

    def __init__(self, type_: str) -> None:
        self.type = type_


def rank(type_: str) -> int:
    """When objects of a type are destroyed."""
    each: Object = Named(type_)  # type: ignore[assignment]
    return destruction_rank(each)


@pytest.mark.parametrize(("user", "used"), USERS)
def test_users_go_before_what_they_use(user: str, used: str) -> None:
    assert rank(user) < rank(used)


def test_whatever_a_guest_can_make_can_be_destroyed() -> None:
    model = CODEC.model
    made = {command.creates for command in model.commands.values() if command.number >= 0} - {""}
    left_alone = {"VkInstance", "VkPhysicalDevice", "VkDevice", "VkQueue"}
    with_their_pool = {"VkCommandBuffer", "VkDescriptorSet"}
    for type_ in made - left_alone - with_their_pool:
        assert destroy_command(type_) in model.commands, type_


@pytest.fixture
def stuck(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> tuple[Guest, int]:
    """A guest whose queue waits for a semaphore that it has not signalled."""
    monkeypatch.setattr(teardown, "DRAIN_SECONDS", 0.1)
    timeline = ("VkSemaphoreTypeCreateInfo", {"semaphoreType": 1})
    semaphore = guest.create("Semaphore", {"pNext": [timeline]})
    values = {"waitSemaphoreValueCount": 1, "pWaitSemaphoreValues": [1]}
    batch = {
        "pNext": [("VkTimelineSemaphoreSubmitInfo", values)],
        "waitSemaphoreCount": 1,
        "pWaitSemaphores": [semaphore],
        "pWaitDstStageMask": [0x10000],
    }
    guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[batch], fence=0)
    return guest, semaphore


def let_go(guest: Guest, semaphore: int) -> None:
    """Signal the semaphore behind the guest's back."""
    device = guest.context.devices[DEVICE]
    found = guest.context.engine.objects.lookup(semaphore)
    assert found
    info = Scratch().new("VkSemaphoreSignalInfo", semaphore=found.handle, value=1)
    assert device.table.call("vkSignalSemaphore", device.handle, info) == 0


def test_a_device_is_not_destroyed_under_a_busy_queue(stuck: tuple[Guest, int]) -> None:
    guest, semaphore = stuck
    with pytest.raises(ProtocolError, match="is busy"):
        guest.send("vkDestroyDevice", device=DEVICE)
    assert DEVICE in guest.context.devices
    let_go(guest, semaphore)


def test_close_gives_a_stuck_driver_up(stuck: tuple[Guest, int]) -> None:
    guest, semaphore = stuck
    guest.context.close()
    assert guest.context.is_abandoned
    let_go(guest, semaphore)
    guest.context.close()
    assert not guest.context.is_abandoned


def test_exported_fences_that_nobody_signals_are_limited(
    make_guest: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "MOST_RETIRED", 100)
    without = frozenset({"VK_KHR_external_fence_fd"})
    guest = make_guest(profile=Profile(name="test", hidden_extensions=without)).start()
    fence = guest.create("Fence", {})
    many = 1000 * CODEC.encode("vkResetFenceResourceMESA", {"device": DEVICE, "fence": fence})
    with pytest.raises(ProtocolError, match="nobody signals"):
        guest.context.submit(many)
