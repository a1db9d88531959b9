"""What a context takes of its limits, and that it gives all of it back."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hesper.kernel.errors import InvalidParameterError, ProtocolError
from hesper.protocol.codec import Codec, Reader
from hesper.vk.enumerants import VK_ERROR_OUT_OF_HOST_MEMORY, VK_SUCCESS
from kernel.conftest import BUFFER, COMMAND_BUFFER, Host
from kernel.ring_guest import Guest

CODEC = Codec()
DEVICE, POOL, SET_POOL, SET_LAYOUT = 3, 20, 21, 22
STREAM, REPLIES = 30, 31
MIB = 1 << 20
KIB = 1 << 10

UPDATE = {"commandBuffer": COMMAND_BUFFER, "dstBuffer": BUFFER, "dstOffset": 0}


@pytest.fixture
def draws(object_driver: Path) -> Callable[[], int]:
    """How many draws have reached the driver."""
    count = ctypes.CDLL(str(object_driver)).draw_count
    count.restype = ctypes.c_ulong
    return count


@pytest.fixture
def made(object_driver: Path) -> Callable[[], int]:
    """How many objects the driver has made."""
    count = ctypes.CDLL(str(object_driver)).object_count
    count.restype = ctypes.c_ulong
    return count


def held(host: Host, account: str) -> int:
    return host.engine.ledger.figures()[account]


def reached(host: Host) -> list[str]:
    """Limits that somebody was told of."""
    return [facts["limit"] for event, facts in host.notices if event == "limit reached"]


class Asking:
    """Sends commands and reads their answers."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.memory = ctypes.create_string_buffer(65536)
        host.engine.resources.add(REPLIES, ctypes.addressof(self.memory), 65536)

    def result(self, name: str, **parameters: Any) -> int:
        """The VkResult of a command."""
        stream = {"resourceId": REPLIES, "offset": 0, "size": 65536}
        self.host.engine.submit(
            CODEC.encode("vkSetReplyCommandStreamMESA", {"pStream": stream})
            + CODEC.encode(name, parameters, reply=True)
        )
        command, result, _ = CODEC.decode_reply(Reader(memoryview(self.memory)), parameters)
        assert command.name == name
        return result

    def send(self, name: str, **parameters: Any) -> None:
        self.host.engine.submit(CODEC.encode(name, parameters))


@pytest.fixture
def make_asking(object_driver: Path) -> Iterator[Callable[..., Asking]]:
    """Make engines on a driver that makes objects; each gives everything back in the end."""
    made: list[Asking] = []

    def make(**limits: Any) -> Asking:
        made.append(Asking(Host(object_driver, **limits)))
        return made[-1]

    yield make
    for each in made:
        assert each.host.fatal or each.host.holds() == {}


def update(size: int) -> bytes:
    return CODEC.encode("vkCmdUpdateBuffer", {**UPDATE, "dataSize": size, "pData": bytes(size)})


def begin(asking: Asking) -> int:
    return asking.result("vkBeginCommandBuffer", commandBuffer=COMMAND_BUFFER, pBeginInfo={})


# Recording.


def test_what_is_recorded_is_charged_until_it_is_begun_again(
    make_asking: Callable[..., Asking],
) -> None:
    asking = make_asking()
    host = asking.host
    for again in ("vkBeginCommandBuffer", "vkResetCommandBuffer"):
        host.engine.submit(update(32 * KIB) * 10)
        assert 10 * 32 * KIB < held(host, "recorded") < 11 * 32 * KIB + 10 * KIB
        more: dict[str, Any] = {"pBeginInfo": {}} if "Begin" in again else {"flags": 0}
        assert asking.result(again, commandBuffer=COMMAND_BUFFER, **more) == VK_SUCCESS
        assert held(host, "recorded") == 0


def test_what_is_not_recorded_is_not_charged(make_asking: Callable[..., Asking]) -> None:
    asking = make_asking()
    host = asking.host
    host.engine.submit(update(64))
    before = held(host, "recorded")
    for number in range(100, 110):
        asking.send("vkCreateEvent", device=DEVICE, pCreateInfo={}, pEvent=number)
        asking.send("vkDestroyEvent", device=DEVICE, event=number)
    assert held(host, "recorded") == before


def test_each_command_buffer_is_charged_for_its_own(make_asking: Callable[..., Asking]) -> None:
    asking = make_asking()
    host = asking.host
    host.engine.objects.add(40, "VkCommandBuffer", 41, device=DEVICE)
    other = CODEC.encode(
        "vkCmdUpdateBuffer", {**UPDATE, "commandBuffer": 40, "dataSize": 64, "pData": bytes(64)}
    )
    host.engine.submit(b"".join((update(60000) + other) * 1 for _ in range(4)))
    all_of_them = held(host, "recorded")
    host.engine.objects.remove(COMMAND_BUFFER)
    small = held(host, "recorded")
    assert 4 * 64 < small < 4 * KIB < 240000 < all_of_them
    host.engine.objects.remove(40)
    assert held(host, "recorded") == 0


def test_what_a_command_stream_ends_with_is_charged_once(
    make_asking: Callable[..., Asking],
) -> None:
    host = make_asking().host
    inner = update(64) + CODEC.encode(
        "vkCmdDraw", {"commandBuffer": COMMAND_BUFFER, "vertexCount": 1}
    )
    inner += CODEC.encode("vkEndCommandBuffer", {"commandBuffer": COMMAND_BUFFER})
    host.engine.submit(inner)
    once = held(host, "recorded")
    memory = ctypes.create_string_buffer(inner, len(inner))
    host.engine.resources.add(STREAM, ctypes.addressof(memory), len(inner))
    run = {"streamCount": 1, "pStreams": [{"resourceId": STREAM, "size": len(inner)}]}
    host.engine.submit(CODEC.encode("vkExecuteCommandStreamsMESA", run))
    assert held(host, "recorded") == 2 * once
    assert host.engine.objects.failure(COMMAND_BUFFER) is None
    assert host.notices == []


@pytest.mark.parametrize("way", ["own stream", "command stream", "ring"])
def test_a_command_buffer_without_end_is_dead_and_its_end_says_so(
    make_asking: Callable[..., Asking], way: str, draws: Callable[[], int]
) -> None:
    asking = make_asking(memory_limit=2 * MIB)
    host = asking.host
    many = CODEC.encode("vkCmdDraw", {"commandBuffer": COMMAND_BUFFER}) * 16000
    before = draws()
    if way == "own stream":
        host.engine.submit(many)
    elif way == "command stream":
        memory = ctypes.create_string_buffer(many, len(many))
        host.engine.resources.add(STREAM, ctypes.addressof(memory), len(many))
        run = {"streamCount": 1, "pStreams": [{"resourceId": STREAM, "size": len(many)}]}
        host.engine.submit(CODEC.encode("vkExecuteCommandStreamsMESA", run))
    else:
        guest = Guest(host)
        for at in range(0, len(many), 2048):
            guest.send(many[at : at + 2048])
            guest.wait()
    # 256 bytes each, and their own: no more of them than fit.
    assert 1000 < draws() - before < 12000
    assert asking.result("vkEndCommandBuffer", commandBuffer=COMMAND_BUFFER) == (
        VK_ERROR_OUT_OF_HOST_MEMORY
    )
    assert reached(host) == ["memory"]
    assert begin(asking) == VK_SUCCESS
    assert held(host, "recorded") == 0
    host.engine.submit(many[: len(many) // 100])
    assert asking.result("vkEndCommandBuffer", commandBuffer=COMMAND_BUFFER) == VK_SUCCESS
    assert reached(host) == ["memory"]


def test_a_pool_that_is_reset_gives_back_what_its_command_buffers_had(
    make_asking: Callable[..., Asking],
) -> None:
    asking = make_asking()
    host = asking.host
    asking.result("vkCreateCommandPool", device=DEVICE, pCreateInfo={}, pCommandPool=POOL)
    asking.result(
        "vkAllocateCommandBuffers",
        device=DEVICE,
        pAllocateInfo={"commandPool": POOL, "commandBufferCount": 2},
        pCommandBuffers=[50, 51],
    )
    for number in (50, 51):
        host.engine.submit(
            CODEC.encode("vkCmdDraw", {"commandBuffer": number, "vertexCount": 1}) * 100
        )
    host.engine.submit(update(64))
    whole = held(host, "recorded")
    asking.result("vkResetCommandPool", device=DEVICE, commandPool=POOL, flags=0)
    assert 0 < held(host, "recorded") < whole // 100
    host.engine.submit(CODEC.encode("vkCmdDraw", {"commandBuffer": 50}) * 100)
    asking.send("vkDestroyCommandPool", device=DEVICE, commandPool=POOL)
    assert 0 < held(host, "recorded") < whole // 100


# Objects.

FLOODS: dict[str, dict[str, Any]] = {
    "vkCreateEvent": {"pCreateInfo": {}, "pEvent": 100},
    "vkCreateFence": {"pCreateInfo": {}, "pFence": 100},
    "vkCreateSemaphore": {"pCreateInfo": {}, "pSemaphore": 100},
    "vkCreatePrivateDataSlot": {"pCreateInfo": {}, "pPrivateDataSlot": 100},
    "vkCreateShaderModule": {
        "pCreateInfo": {
            "codeSize": 40000,
            "pCode": [0x07230203, 0x10000, 0, 1, 0] + [1 << 16] * 9995,
        },
        "pShaderModule": 100,
    },
}


@pytest.mark.parametrize("command", FLOODS)
def test_a_flood_of_objects_is_answered_at_the_limit(
    make_asking: Callable[..., Asking], command: str
) -> None:
    asking = make_asking(memory_limit=MIB, object_limit=100_000)
    values = dict(FLOODS[command])
    output = list(values)[-1]
    results = []
    for number in range(100, 2000):
        values[output] = number
        results.append(asking.result(command, device=DEVICE, **values))
        if results[-1]:
            break
    assert results[-1] == VK_ERROR_OUT_OF_HOST_MEMORY
    assert len(results) > 5
    assert reached(asking.host) == ["memory"]
    assert asking.result(command, device=DEVICE, **values) == VK_ERROR_OUT_OF_HOST_MEMORY
    assert reached(asking.host) == ["memory"]
    assert not asking.host.fatal


HUGE: dict[str, dict[str, Any]] = {
    "vkCreateDescriptorPool": {
        "pCreateInfo": {"maxSets": 4_000_000_000},
        "pDescriptorPool": 100,
    },
    "vkCreateQueryPool": {
        "pCreateInfo": {"queryType": 0, "queryCount": 1 << 31},
        "pQueryPool": 100,
    },
    "vkCreateDescriptorSetLayout": {
        "pCreateInfo": {
            "bindingCount": 1,
            "pBindings": [{"binding": 1_000_000, "descriptorType": 1, "descriptorCount": 1}],
        },
        "pSetLayout": 100,
    },
}


@pytest.mark.parametrize("command", HUGE)
def test_one_object_that_is_too_large_never_reaches_the_driver(
    make_asking: Callable[..., Asking], command: str, made: Callable[[], int]
) -> None:
    asking = make_asking()
    before = made()
    assert asking.result(command, device=DEVICE, **HUGE[command]) == VK_ERROR_OUT_OF_HOST_MEMORY
    assert made() == before
    assert held(asking.host, "objects") < MIB


@pytest.mark.parametrize(
    ("command", "output", "info"),
    [
        ("vkCreateDescriptorPool", "pDescriptorPool", {"maxSets": (1 << 24) + 1}),
        (
            "vkCreateDescriptorPool",
            "pDescriptorPool",
            {"maxSets": 1, "pPoolSizes": [{"type": 6, "descriptorCount": 0xFFFFFFFF}]},
        ),
        ("vkCreateQueryPool", "pQueryPool", {"queryType": 0, "queryCount": 1 << 22}),
    ],
)
def test_what_drivers_would_reckon_wrong_is_too_large_whatever_the_limit(
    make_asking: Callable[..., Asking],
    made: Callable[[], int],
    command: str,
    output: str,
    info: dict[str, Any],
) -> None:
    asking = make_asking(memory_limit=1 << 50)
    before = made()
    if sizes := info.get("pPoolSizes"):
        info["poolSizeCount"] = len(sizes)
    values = {"pCreateInfo": info, output: 100}
    assert asking.result(command, device=DEVICE, **values) == VK_ERROR_OUT_OF_HOST_MEMORY
    assert made() == before


def test_room_for_many_descriptors_counts_whatever_the_sizes(
    make_asking: Callable[..., Asking],
) -> None:
    """A sum that would pass 64 bits is too large, and not small."""
    asking = make_asking()
    sizes = [{"type": 1, "descriptorCount": 0xFFFFFFFF}] * 5000
    info = {"maxSets": 1, "poolSizeCount": len(sizes), "pPoolSizes": sizes}
    result = asking.result(
        "vkCreateDescriptorPool", device=DEVICE, pCreateInfo=info, pDescriptorPool=100
    )
    assert result == VK_ERROR_OUT_OF_HOST_MEMORY


def test_sets_are_charged_by_their_layout(make_asking: Callable[..., Asking]) -> None:
    asking = make_asking()
    bindings = [{"binding": 0, "descriptorType": 1, "descriptorCount": 10_000}]
    asking.result(
        "vkCreateDescriptorSetLayout",
        device=DEVICE,
        pCreateInfo={"bindingCount": 1, "pBindings": bindings},
        pSetLayout=SET_LAYOUT,
    )
    asking.result(
        "vkCreateDescriptorPool",
        device=DEVICE,
        pCreateInfo={"maxSets": 1},
        pDescriptorPool=SET_POOL,
    )
    results = []
    before = held(asking.host, "objects")
    for number in range(100, 200):
        info = {
            "descriptorPool": SET_POOL,
            "descriptorSetCount": 1,
            "pSetLayouts": [SET_LAYOUT],
        }
        results.append(
            asking.result(
                "vkAllocateDescriptorSets",
                device=DEVICE,
                pAllocateInfo=info,
                pDescriptorSets=[number],
            )
        )
    assert set(results) == {VK_SUCCESS, VK_ERROR_OUT_OF_HOST_MEMORY}
    assert 40 < results.count(VK_SUCCESS) < 64
    asking.result("vkResetDescriptorPool", device=DEVICE, descriptorPool=SET_POOL, flags=0)
    assert held(asking.host, "objects") <= before


def test_too_many_objects_are_an_answer(make_asking: Callable[..., Asking]) -> None:
    asking = make_asking(object_limit=7)
    arguments: dict[str, Any] = {"device": DEVICE, "pCreateInfo": {}}
    assert asking.result("vkCreateEvent", pEvent=100, **arguments) == VK_SUCCESS
    assert asking.result("vkCreateEvent", pEvent=101, **arguments) == VK_ERROR_OUT_OF_HOST_MEMORY
    assert reached(asking.host) == ["objects"]


def test_ids_far_apart_cost_their_pages(make_asking: Callable[..., Asking]) -> None:
    asking = make_asking(object_limit=10_000)
    for number in range(1, 101):
        asking.send("vkCreateEvent", device=DEVICE, pCreateInfo={}, pEvent=number << 10)
    assert held(asking.host, "objects") > 99 * 16 * KIB


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["event", "sampler", "record", "begin", "layout", "draw"]),
        st.booleans(),
        st.integers(100, 110),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS)
def test_whatever_comes_and_goes_leaves_nothing(
    object_driver: Path, operations: list[tuple[str, bool, int]]
) -> None:
    asking = Asking(Host(object_driver, memory_limit=400 * KIB))
    alive: dict[int, tuple[str, dict[str, Any]]] = {}
    for what, comes, number in operations:
        if what == "record":
            asking.host.engine.submit(update(4 * KIB * (number - 99)))
        elif what == "draw":
            asking.send("vkCmdDraw", commandBuffer=COMMAND_BUFFER)
        elif what == "begin":
            begin(asking)
        elif comes and number not in alive:
            name, field, info = {
                "event": ("Event", "event", {}),
                "sampler": ("Sampler", "sampler", {}),
                "layout": (
                    "DescriptorSetLayout",
                    "descriptorSetLayout",
                    {
                        "bindingCount": 1,
                        "pBindings": [{"binding": number, "descriptorCount": number}],
                    },
                ),
            }[what]
            output = "pSetLayout" if what == "layout" else f"p{name}"
            asking.send(f"vkCreate{name}", device=DEVICE, pCreateInfo=info, **{output: number})
            alive[number] = (f"vkDestroy{name}", {field: number})
        elif not comes and number in alive:
            command, victim = alive.pop(number)
            asking.send(command, device=DEVICE, **victim)
    assert held(asking.host, "used") <= 400 * KIB
    assert asking.host.holds() == {}


# What commands decode to, rings, fences.


def test_what_a_command_decodes_to_is_charged_while_it_runs(
    make_asking: Callable[..., Asking],
) -> None:
    asking = make_asking(memory_limit=300 * KIB)
    count = 20_000
    regions = CODEC.encode(
        "vkCmdCopyBuffer",
        {
            "commandBuffer": COMMAND_BUFFER,
            "srcBuffer": BUFFER,
            "dstBuffer": BUFFER,
            "regionCount": count,
            "pRegions": [{}] * count,
        },
    )
    with pytest.raises(ProtocolError, match=r"memory limit, 307200 bytes, .*--limit memory"):
        asking.host.engine.submit(regions)


def test_a_large_command_is_given_back_when_it_is_done(
    make_asking: Callable[..., Asking],
) -> None:
    asking = make_asking()
    count = 30_000
    values = {"commandBuffer": COMMAND_BUFFER, "srcBuffer": BUFFER, "dstBuffer": BUFFER}
    asking.send("vkCmdCopyBuffer", regionCount=count, pRegions=[{}] * count, **values)
    assert held(asking.host, "decoded") == 0


def test_rings_are_charged_and_counted(object_driver: Path) -> None:
    host = Host(object_driver)
    Guest(host)
    assert held(host, "rings") > 100 * KIB
    assert held(host, "threads") == 1
    assert host.holds() == {}


@pytest.mark.parametrize(
    "limits", [{"memory_limit": 150 * KIB}, {"most": {"threads": 0}}], ids=["memory", "threads"]
)
def test_a_ring_past_a_limit_ends_the_context_and_says_why(
    object_driver: Path, limits: dict[str, Any]
) -> None:
    host = Host(object_driver, **limits)
    with pytest.raises(ProtocolError, match="limit"):
        Guest(host)
    assert host.holds() == {}


def test_fences_that_are_pending_are_bounded(queue_driver: Path) -> None:
    driver = ctypes.CDLL(str(queue_driver))
    driver.reset()
    host = Host(queue_driver, most={"fences": 3})
    host.engine.objects.add(7, "VkQueue", 70, device=3, parent=3)
    timeline = host.engine.timelines.bind(5, 7, lambda _: None)
    submit = CODEC.encode(
        "vkQueueSubmit", {"queue": 7, "submitCount": 0, "pSubmits": None, "fence": 0}
    )
    for _ in range(3):
        host.engine.submit(submit)
        host.engine.fence(5, lambda: None)
    assert held(host, "fences") == 3
    with pytest.raises(InvalidParameterError, match="more than 3 fences"):
        host.engine.fence(5, lambda: None)
    driver.finish(driver.submissions())
    timeline.stop(20)
    assert host.holds() == {}


def test_things_are_counted_to_their_limit(object_driver: Path) -> None:
    host = Host(object_driver, most={"devices": 2})
    ledger = host.engine.ledger
    assert [ledger.begin("devices") for _ in range(3)] == [True, True, False]
    assert ledger.untold() == [("devices", 2)]
    assert ledger.untold() == []
    ledger.end("devices")
    assert ledger.begin("devices")
    assert ledger.figures()["devices"] == 2
    with pytest.raises(KeyError):
        ledger.begin("colours")


def test_what_there_is_room_for_is_had_while_another_wants_more_than_there_is(
    object_driver: Path,
) -> None:
    """An attempt that fails takes nothing meanwhile, for which others would be refused."""
    asking = Asking(Host(object_driver, memory_limit=64 * MIB))
    engine = asking.host.engine
    half = {"device": DEVICE, "pCreateInfo": {"maxSets": 1 << 16}, "pDescriptorPool": 100}
    assert asking.result("vkCreateDescriptorPool", **half) == VK_SUCCESS
    assert engine.ledger.keep(MIB)
    again = CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 0})
    create = CODEC.encode("vkCreateDescriptorPool", half | {"pDescriptorPool": 101}, reply=True)
    many = (again + create) * 50_000

    def want_more() -> None:
        for _ in range(30):
            engine.submit(many)

    greedy = threading.Thread(target=want_more)
    greedy.start()
    answers = {True}
    while greedy.is_alive():
        answers.add(engine.ledger.keep(1))
    assert answers == {True}
    assert reached(asking.host) == ["memory"]
