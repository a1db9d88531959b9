"""The kernel's relations against the reference codec's: each one met exactly, and broken by one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec, Reader
from kernel.decoding import MODEL, Bench
from protocol.relating import Case, Relating, cases, small

KNOWN = small(MODEL)
CODEC = Codec(MODEL, KNOWN)


def name(case: Case) -> str:
    return f"{case.owner}: {case.relation.text}"[:90]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(KNOWN)


def message(bench: Bench, case: Case, *, good: bool) -> bytes:
    """The command; what a handler sees of it is compared with what the codec makes of it."""
    if bench.engine.fatal:
        bench.start()
    drawn = Relating(
        MODEL,
        random.Random(1),
        lambda t: bench.ids[t],
        bench.values(random.Random(1)).new_handle,
        KNOWN,
    )
    data = CODEC.encode(case.command, drawn.message(case, good=good))
    bench.expected, bench.problems, bench.seen = {}, [], []
    if good or case.relation.remedy:
        bench.expected = CODEC.decode(Reader(data))[2]
    return data


@pytest.mark.parametrize("case", cases(MODEL), ids=name)
def test_what_meets_it_exactly_is_taken(bench: Bench, case: Case) -> None:
    bench.engine.submit(message(bench, case, good=True))
    assert [n for n, _ in bench.seen] == [case.command]
    assert bench.problems == []


@pytest.mark.parametrize("case", cases(MODEL), ids=name)
def test_one_more_or_less_is_refused_or_mended(bench: Bench, case: Case) -> None:
    data = message(bench, case, good=False)
    if case.relation.remedy:
        bench.engine.submit(data)
        assert [n for n, _ in bench.seen] == [case.command]
        assert bench.problems == []
        return
    with pytest.raises(ProtocolError) as caught:
        bench.engine.submit(data)
    assert case.command in str(caught.value)
    assert repr(case.relation.text) in str(caught.value)
    assert bench.seen == []


def of_several_types(count: int) -> dict[str, Any]:
    """A VkDescriptorSetLayoutCreateInfo of four bindings, the first of which are, with lists."""
    mutable, storage = 1000351000, 7
    types = [{"descriptorTypeCount": 1, "pDescriptorTypes": [storage]}] * count
    values = {"mutableDescriptorTypeListCount": count, "pMutableDescriptorTypeLists": types}
    bindings = [
        {"binding": i, "descriptorType": mutable if i < count else storage, "descriptorCount": 1}
        for i in range(4)
    ]
    chain = [("VkMutableDescriptorTypeCreateInfoEXT", values)]
    return {"pNext": chain, "bindingCount": 4, "pBindings": bindings}


@pytest.mark.parametrize(("count", "seen"), [(0, 0), (1, 4), (3, 4), (4, 4)])
def test_bindings_of_several_types_have_a_list_each(bench: Bench, count: int, seen: int) -> None:
    """Drivers look for one at the place of a binding among all, by their numbers."""
    if bench.engine.fatal:
        bench.start()
    info = of_several_types(count)
    new = bench.values(random.Random(1)).new_handle()
    values = {"device": bench.ids["VkDevice"], "pSetLayout": new}
    data = CODEC.encode("vkCreateDescriptorSetLayout", values | {"pCreateInfo": info})
    bench.expected = CODEC.decode(Reader(data))[2]
    ((_, lists),) = bench.expected["pCreateInfo"]["pNext"]
    assert lists["mutableDescriptorTypeListCount"] == seen
    bench.problems, bench.seen = [], []
    bench.engine.submit(data)
    assert [name for name, _ in bench.seen] == ["vkCreateDescriptorSetLayout"]
    assert bench.problems == []


def test_a_struct_that_relations_speak_of_stands_once_in_a_chain(bench: Bench) -> None:
    values = {"waitSemaphoreValueCount": 0, "signalSemaphoreValueCount": 0}
    chain = [("VkTimelineSemaphoreSubmitInfo", values)] * 2
    data = CODEC.encode(
        "vkQueueSubmit",
        {"queue": bench.ids["VkQueue"], "submitCount": 1, "pSubmits": [{"pNext": chain}]},
    )
    if bench.engine.fatal:
        bench.start()
    with pytest.raises(ProtocolError, match="twice in a pNext chain"):
        bench.engine.submit(data)


def test_so_does_any_other(bench: Bench) -> None:
    usage = ("VkImageViewUsageCreateInfo", {"usage": 4})
    lod = ("VkImageViewMinLodCreateInfoEXT", {"minLod": 0.0})
    part = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
    info = {"image": bench.ids["VkImage"], "viewType": 1, "format": 37, "subresourceRange": part}
    for chain in ([usage, usage], [usage, lod, usage], [lod, usage, usage], [usage, lod, lod]):
        if bench.engine.fatal:
            bench.start()
        values = {"device": bench.ids["VkDevice"], "pView": bench.next_id}
        data = CODEC.encode("vkCreateImageView", values | {"pCreateInfo": info | {"pNext": chain}})
        with pytest.raises(ProtocolError, match="twice in a pNext chain"):
            bench.engine.submit(data)


def test_slots_for_private_data_are_asked_for_as_often_as_one_likes(bench: Bench) -> None:
    """Vulkan allows it of that struct alone."""
    slots = ("VkDevicePrivateDataCreateInfo", {"privateDataSlotRequestCount": 1})
    info = {"pNext": [slots, slots], "queueCreateInfoCount": 0, "enabledExtensionCount": 0}
    if bench.engine.fatal:
        bench.start()
    values = {"physicalDevice": bench.ids["VkPhysicalDevice"], "pDevice": bench.next_id}
    bench.seen = []
    bench.engine.submit(CODEC.encode("vkCreateDevice", values | {"pCreateInfo": info}))
    assert [name for name, _ in bench.seen] == ["vkCreateDevice"]
