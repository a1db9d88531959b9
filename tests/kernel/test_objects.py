"""The object table: ids of any size, pools and their children, devices, limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hesper.kernel.errors import ProtocolError
from hesper.kernel.handlers import Call
from hesper.protocol.codec import Codec
from kernel.conftest import COMMAND_BUFFER, Host

CODEC = Codec()
LARGE = st.integers(1, 2**64 - 1)


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.one_of(st.integers(100, 5000), LARGE), unique=True, max_size=40))
def test_ids_of_any_size_are_found_and_forgotten(fake_driver: Path, ids: list[int]) -> None:
    host = Host(fake_driver)
    taken = {1, 2, 3, 4, 5, 6}
    ids = [i for i in ids if i not in taken]
    for guest_id in ids:
        host.engine.objects.add(guest_id, "VkBuffer", guest_id ^ 1, device=3)
    for guest_id in ids:
        found = host.engine.objects.lookup(guest_id, "VkBuffer")
        assert found is not None
        assert (found.id, found.handle, found.device) == (guest_id, guest_id ^ 1, 3)
        with pytest.raises(ProtocolError, match="taken"):
            host.engine.objects.add(guest_id, "VkImage", 1, device=3)
    for guest_id in ids[::2]:
        host.engine.objects.remove(guest_id)
    for i, guest_id in enumerate(ids):
        assert (host.engine.objects.lookup(guest_id) is None) == (i % 2 == 0)
    alive = {o.id for o in host.engine.objects.all(type="VkBuffer")}
    assert alive == {5, *ids[1::2]}


def made_by(handles: list[int]) -> Callable[[Call], None]:
    """A handler that makes objects with the given host handles."""

    def handler(call: Call) -> None:
        call.set_new_handles(handles)
        call.finish()

    return handler


def test_pools_take_their_children_along(fake_driver: Path) -> None:
    host = Host(
        fake_driver,
        vkCreateDescriptorPool=made_by([7000]),
        vkAllocateDescriptorSets=made_by([7001, 7002, 7003]),
    )
    engine = host.engine
    engine.objects.add(199, "VkDescriptorSetLayout", 6000, device=3)
    pool = {"device": 3, "pCreateInfo": {}, "pDescriptorPool": 200}
    sets = {
        "device": 3,
        "pAllocateInfo": {
            "descriptorPool": 200,
            "descriptorSetCount": 3,
            "pSetLayouts": [199, 199, 199],
        },
        "pDescriptorSets": [201, 202, 203],
    }
    engine.submit(CODEC.encode("vkCreateDescriptorPool", pool))
    engine.submit(CODEC.encode("vkAllocateDescriptorSets", sets))
    assert [o.parent for o in engine.objects.all(type="VkDescriptorSet")] == [200] * 3
    free = {"device": 3, "descriptorPool": 200, "descriptorSetCount": 1, "pDescriptorSets": [202]}
    engine.submit(CODEC.encode("vkFreeDescriptorSets", free))
    assert {o.id for o in engine.objects.all(type="VkDescriptorSet")} == {201, 203}
    reset = {"device": 3, "descriptorPool": 200}
    engine.submit(CODEC.encode("vkResetDescriptorPool", reset))
    assert engine.objects.all(type="VkDescriptorSet") == []
    engine.submit(CODEC.encode("vkAllocateDescriptorSets", sets))
    engine.submit(CODEC.encode("vkDestroyDescriptorPool", reset))
    assert (
        engine.objects.all(type="VkDescriptorSet")
        == engine.objects.all(type="VkDescriptorPool")
        == []
    )


def test_objects_of_another_device_are_refused(host: Host) -> None:
    host.engine.objects.add(30, "VkDevice", 30, table=host.device_table)
    host.engine.objects.add(31, "VkBuffer", 31, device=30)
    copy = {
        "commandBuffer": COMMAND_BUFFER, "srcBuffer": 31, "dstBuffer": 5,
        "regionCount": 1, "pRegions": [{"size": 4}],
    }  # fmt: skip
    with pytest.raises(ProtocolError, match="object 31 belongs to another device"):
        host.engine.submit(CODEC.encode("vkCmdCopyBuffer", copy))


def test_the_object_limit_holds(fake_driver: Path) -> None:
    host = Host(fake_driver, object_limit=10)
    for guest_id in range(100, 104):
        host.engine.objects.add(guest_id, "VkBuffer", guest_id, device=3)
    with pytest.raises(ProtocolError, match="more than 10 objects"):
        host.engine.objects.add(200, "VkBuffer", 1, device=3)
    host.engine.objects.remove(100)
    host.engine.objects.add(200, "VkBuffer", 1, device=3)


@pytest.mark.parametrize("guest_id", [0, 5])
def test_new_objects_need_a_free_id(host: Host, guest_id: int) -> None:
    create = {"device": 3, "pCreateInfo": {"size": 4}, "pBuffer": guest_id}
    with pytest.raises(ProtocolError, match="vkCreateBuffer"):
        host.engine.submit(CODEC.encode("vkCreateBuffer", create))
    assert host.engine.fatal
