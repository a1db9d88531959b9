"""Descriptors against the layouts of their sets: `facts/sets.toml`, on a driver that notes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from kernel.conftest import Host
from kernel.set_messages import (
    BLOCK,
    MUTABLE,
    OTHER_LAYOUT,
    OTHER_SET,
    PIPELINE_LAYOUT,
    POOL,
    PUSH,
    PUSH_LAYOUT,
    PUSH_PIPELINE,
    SAMPLED,
    SET,
    SET_LAYOUT,
    STORAGE,
    STORAGE_DYNAMIC,
    STRUCTURE,
    TEXELS,
    UNIFORM,
    UNIFORM_DYNAMIC,
    VARIABLE,
    Rows,
    bind,
    bind_2,
    binding,
    copy,
    layout_info,
    make_layout,
    make_pipeline,
    make_sets,
    push,
    push_2,
    send,
    sets_host,
    template,
    update,
    write,
)


@pytest.fixture
def host(sets_driver: Path) -> Iterator[Host]:
    yield from sets_host(sets_driver)


@pytest.fixture
def ready(host: Host) -> Host:
    """A set of three bindings with a hole between them, and one of another layout."""
    bindings = [
        binding(7, STORAGE, 3),
        binding(0, STORAGE, 2),
        binding(3, STORAGE, 0),
        binding(2, STORAGE, 1),
        binding(8, SAMPLED, 4),
    ]
    make_layout(host, SET_LAYOUT, *bindings)
    make_layout(host, OTHER_LAYOUT, binding(0, SAMPLED, 1), binding(1, STORAGE, 5, stages=1))
    make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, OTHER_LAYOUT])
    make_pipeline(host, PIPELINE_LAYOUT, SET_LAYOUT, OTHER_LAYOUT)
    return host


def test_what_a_layout_has_is_written(ready: Host, noted: Rows) -> None:
    update(ready, [write(0, 1, 1), write(7, 0, 3), write(8, 3, 1, SAMPLED)])
    assert noted() == [(0, 1, 1, STORAGE, 0), (7, 0, 3, STORAGE, 0), (8, 3, 1, SAMPLED, 0)]


def test_what_runs_over_bindings_comes_as_a_write_for_each(ready: Host, noted: Rows) -> None:
    update(ready, [write(2, 0, 1), write(0, 1, 5), write(7, 2, 1)])
    assert noted() == [
        (2, 0, 1, STORAGE, 0),
        (0, 1, 1, STORAGE, 0),
        (2, 0, 1, STORAGE, 1),
        (7, 0, 3, STORAGE, 2),
        (7, 2, 1, STORAGE, 0),
    ]


def test_a_write_of_nothing_reaches_no_driver(ready: Host, noted: Rows) -> None:
    update(ready, [write(500, 7, 0), write(0, 0, 1), write(3, 0, 0)])
    assert noted() == [(0, 0, 1, STORAGE, 0)]


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (write(1, 0, 1), "the layout has no binding 1"),
        (write(9, 0, 1), "the layout has no binding 9"),
        (write(0xFFFFFFFF, 0, 1), "the layout has no binding 4294967295"),
        (write(7, 3, 1), "binding of another type for 1 descriptors from element 3 of binding 7"),
        (write(0, 0, 7), "binding of another type for 7 descriptors from element 0 of binding 0"),
        (write(0, 0xFFFFFFFF, 2), "2 descriptors from element 4294967295 of binding 0"),
        (write(0, 0, 1, UNIFORM), "binding of another type"),
        (write(8, 4, 1, SAMPLED), "1 descriptors from element 4 of binding 8 on, which"),
        (write(8, 0, 5, SAMPLED), "5 descriptors from element 0 of binding 8 on, which"),
        (write(8, 0, 4, STORAGE), "binding of another type"),
    ],
    ids=str,
)
def test_a_write_to_what_a_layout_has_not(ready: Host, one: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProtocolError, match=rf"vkUpdateDescriptorSets at byte .*{sentence}"):
        update(ready, [write(0, 0, 1), one])
    assert ready.engine.fatal


def test_a_set_that_is_null(ready: Host) -> None:
    with pytest.raises(ProtocolError, match="VkWriteDescriptorSet: null is not allowed"):
        update(ready, [write(0, 0, 1, set_=0)])


def test_bindings_of_other_stages_are_not_run_over(host: Host) -> None:
    make_layout(host, SET_LAYOUT, binding(0, STORAGE, 1, stages=1), binding(1, STORAGE, 1))
    make_sets(host, [SET], [SET_LAYOUT])
    update(host, [write(0, 0, 1), write(1, 0, 1)])
    with pytest.raises(ProtocolError, match="which lie in bindings of other stages"):
        update(host, [write(0, 0, 2)])


def test_bytes_of_inline_blocks(host: Host, noted: Rows) -> None:
    make_layout(host, SET_LAYOUT, binding(0, BLOCK, 8), binding(4, BLOCK, 12))
    make_sets(host, [SET], [SET_LAYOUT])
    update(host, [write(0, 4, 16, BLOCK)])
    assert noted() == [(0, 4, 4, BLOCK, 0), (4, 0, 12, BLOCK, 4)]
    with pytest.raises(ProtocolError, match="20 descriptors from element 4 of binding 0"):
        update(host, [write(0, 4, 20, BLOCK)])


def test_what_lies_in_chains_and_views_is_cut_too(host: Host, noted: Rows) -> None:
    make_layout(host, SET_LAYOUT, binding(0, STRUCTURE, 1), binding(1, STRUCTURE, 1))
    make_layout(host, OTHER_LAYOUT, binding(0, TEXELS, 1), binding(1, TEXELS, 1))
    make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, OTHER_LAYOUT])
    update(host, [write(0, 0, 2, STRUCTURE)])
    assert [row[:4] for row in noted()] == [(0, 0, 1, STRUCTURE), (1, 0, 1, STRUCTURE)]
    update(host, [write(0, 0, 2, TEXELS, OTHER_SET)])
    assert [row[:4] for row in noted()] == [(0, 0, 1, TEXELS), (1, 0, 1, TEXELS)]


def test_a_layout_of_many_bindings(host: Host, noted: Rows) -> None:
    make_layout(host, SET_LAYOUT, *[binding(3 * i, STORAGE, 1) for i in range(100)])
    make_sets(host, [SET], [SET_LAYOUT])
    update(host, [write(297, 0, 1), write(3, 0, 3)])
    assert [row[:3] for row in noted()] == [(297, 0, 1), (3, 0, 1), (6, 0, 1), (9, 0, 1)]
    with pytest.raises(ProtocolError, match="no binding 298"):
        update(host, [write(298, 0, 1)])


def test_a_layout_may_be_gone_before_its_sets(ready: Host, noted: Rows) -> None:
    send(ready, "vkDestroyDescriptorSetLayout", device=3, descriptorSetLayout=SET_LAYOUT)
    make_layout(ready, SET_LAYOUT, binding(0, SAMPLED, 1))
    update(ready, [write(7, 0, 3)])
    assert noted() == [(7, 0, 3, STORAGE, 0)]
    bind(ready, [SET])
    with pytest.raises(ProtocolError, match="another type"):
        update(ready, [write(0, 0, 1, SAMPLED)])


def test_the_next_set_of_that_id_has_its_own_layout(ready: Host) -> None:
    update(ready, [write(7, 0, 3)])
    free = {"device": 3, "descriptorPool": POOL, "descriptorSetCount": 1}
    send(ready, "vkFreeDescriptorSets", **free, pDescriptorSets=[SET])
    make_sets(ready, [SET], [OTHER_LAYOUT])
    update(ready, [write(1, 0, 5)])
    with pytest.raises(ProtocolError, match="no binding 7"):
        update(ready, [write(7, 0, 3)])


def test_a_set_that_no_guest_has_made_bounds_nothing(host: Host) -> None:
    host.engine.objects.add(SET, "VkDescriptorSet", 7, device=3)
    update(host, [write(900, 0, 1)])


def test_as_many_as_a_set_was_given(host: Host) -> None:
    bindings = [binding(0, UNIFORM, 1), binding(1, STORAGE, 100)]
    make_layout(host, SET_LAYOUT, *bindings, flags=[0, VARIABLE])
    make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, SET_LAYOUT], [3, 100])
    update(host, [write(1, 0, 3), write(1, 99, 1, set_=OTHER_SET)])
    with pytest.raises(ProtocolError, match="4 descriptors from element 0 of binding 1"):
        update(host, [write(1, 0, 4)])


def test_without_a_number_a_variable_binding_has_none(host: Host) -> None:
    make_layout(host, SET_LAYOUT, binding(0, STORAGE, 100), flags=[VARIABLE])
    make_sets(host, [SET], [SET_LAYOUT])
    with pytest.raises(ProtocolError, match="1 descriptors from element 0 of binding 0"):
        update(host, [write(0, 0, 1)])


def test_more_than_the_layout_has(host: Host) -> None:
    make_layout(host, SET_LAYOUT, binding(0, STORAGE, 100), flags=[VARIABLE])
    make_layout(host, OTHER_LAYOUT, binding(0, STORAGE, 2))
    # Where the layout has none of a variable number, the number does not count.
    make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, OTHER_LAYOUT], [100, 5000])
    with pytest.raises(ProtocolError, match=r"101 descriptors of a variable number, .* has 100"):
        make_sets(host, [180, 181], [OTHER_LAYOUT, SET_LAYOUT], [0, 101])


def test_mutable_descriptors(host: Host) -> None:
    make_layout(
        host,
        SET_LAYOUT,
        binding(0, MUTABLE, 2),
        binding(1, STORAGE, 2),
        binding(2, MUTABLE, 2),
        types=[[STORAGE, SAMPLED], [], [STORAGE]],
    )
    make_sets(host, [SET], [SET_LAYOUT])
    update(host, [write(0, 0, 1), write(0, 1, 1, SAMPLED)])
    update(host, [], [copy((SET, 0, 0), (SET, 1, 0), 2), copy((SET, 1, 0), (SET, 2, 0), 1)])
    with pytest.raises(ProtocolError, match="binding of another type"):
        update(host, [write(0, 0, 1, UNIFORM)])


def test_lists_of_types_that_are_left_out_are_empty_ones(host: Host, noted: Rows) -> None:
    """Also where the driver is asked, which is before it is told to make the layout."""
    bindings = [binding(0, MUTABLE, 1), binding(1, STORAGE, 1), binding(2, STORAGE, 1)]
    make_layout(host, SET_LAYOUT, *bindings, types=[[STORAGE, SAMPLED]])
    assert noted() == [(3, 2, 0, 0, 0)] * 2


def test_types_that_the_driver_does_not_support(host: Host, noted: Rows) -> None:
    info = layout_info([binding(0, MUTABLE, 1)], types=[[STRUCTURE]])
    send(host, "vkGetDescriptorSetLayoutSupport", device=3, pCreateInfo=info, pSupport={})
    assert noted() == [(1, 1, 1, 0, 0)]
    with pytest.raises(ProtocolError, match="the driver does not support a binding of these"):
        send(host, "vkCreateDescriptorSetLayout", device=3, pCreateInfo=info, pSetLayout=SET_LAYOUT)


def test_mutable_descriptors_of_other_lists(host: Host) -> None:
    bindings = [binding(0, MUTABLE, 2), binding(1, MUTABLE, 2)]
    make_layout(host, SET_LAYOUT, *bindings, types=[[STORAGE, SAMPLED], [STORAGE]])
    make_sets(host, [SET], [SET_LAYOUT])
    with pytest.raises(ProtocolError, match="binding 0 is copied to binding 1, which is of anoth"):
        update(host, [], [copy((SET, 0, 0), (SET, 1, 0), 1)])


def test_copies_come_as_one_for_each_binding(ready: Host, noted: Rows) -> None:
    update(ready, [write(0, 0, 3)], [copy((SET, 0, 1), (OTHER_SET, 1, 0), 5)])
    assert noted() == [
        (0, 0, 2, STORAGE, 0),
        (2, 0, 1, STORAGE, 2),
        (0, 1, 1, 0, 1),
        (2, 0, 1, 1, 1),
        (7, 0, 1, 2, 3),
    ]


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (copy((SET, 1, 0), (SET, 0, 0), 1), "no binding 1"),
        (copy((SET, 0, 0), (OTHER_SET, 2, 0), 1), "no binding 2"),
        (copy((SET, 7, 0), (OTHER_SET, 1, 3), 3), "3 descriptors from element 3 of binding 1"),
        (copy((OTHER_SET, 1, 3), (SET, 7, 0), 3), "3 descriptors from element 3 of binding 1"),
        (copy((SET, 0, 0), (OTHER_SET, 0, 0), 1), "binding 0 is copied to binding 0"),
        (copy((SET, 7, 2), (SET, 0, 0), 2), "binding 7 is copied to binding 0"),
    ],
    ids=str,
)
def test_a_copy_of_what_a_layout_has_not(ready: Host, one: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProtocolError, match=rf"vkUpdateDescriptorSets at byte .*{sentence}"):
        update(ready, [], [one])


@pytest.mark.parametrize("command", [bind, bind_2])
def test_sets_that_fit_are_bound(ready: Host, command: Callable[..., None]) -> None:
    command(ready, [SET, OTHER_SET])
    command(ready, [OTHER_SET], 1)
    make_layout(ready, 150, binding(0, SAMPLED, 1), binding(1, STORAGE, 5, stages=1))
    make_sets(ready, [151], [150])
    command(ready, [151], 1)
    assert ready.fatal == []


@pytest.mark.parametrize("command", [bind, bind_2])
def test_sets_that_do_not_fit(ready: Host, command: Callable[..., None]) -> None:
    with pytest.raises(ProtocolError, match="set 0 has another layout than that of the pipeline"):
        command(ready, [OTHER_SET])


@pytest.mark.parametrize(("first", "message"), [(1, "set 2"), (2, "set 2"), (0xFFFFFFFF, "")])
def test_more_sets_than_a_pipeline_layout_has(ready: Host, first: int, message: str) -> None:
    with pytest.raises(ProtocolError, match=f"the pipeline layout has no {message}"):
        bind(ready, [OTHER_SET, OTHER_SET], first)


@pytest.mark.parametrize("command", [bind, bind_2])
def test_dynamic_offsets(host: Host, command: Callable[..., None]) -> None:
    dynamic = [binding(0, UNIFORM_DYNAMIC, 3), binding(1, STORAGE_DYNAMIC, 1)]
    make_layout(host, SET_LAYOUT, *dynamic, binding(2, STORAGE, 4))
    make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, SET_LAYOUT])
    make_pipeline(host, PIPELINE_LAYOUT, SET_LAYOUT, SET_LAYOUT)
    command(host, [SET], 0, 4)
    command(host, [SET, OTHER_SET], 0, 8)
    with pytest.raises(ProtocolError, match="7 dynamic offsets, where there are 8 dynamic"):
        command(host, [SET, OTHER_SET], 0, 7)


def test_a_pipeline_layout_without_one_of_its_sets(host: Host) -> None:
    make_layout(host, SET_LAYOUT, binding(0, UNIFORM_DYNAMIC, 1))
    make_layout(host, OTHER_LAYOUT, binding(0, UNIFORM, 1))
    make_sets(host, [SET, OTHER_SET], [SET_LAYOUT, OTHER_LAYOUT])
    make_pipeline(host, PIPELINE_LAYOUT, 0)
    bind(host, [OTHER_SET])
    with pytest.raises(ProtocolError, match="set 0 has another layout"):
        bind(host, [SET], 0, 1)


@pytest.fixture
def pushing(ready: Host) -> Host:
    """A pipeline layout whose second set is pushed."""
    bindings = [binding(0, STORAGE, 1), binding(1, STORAGE, 2)]
    make_layout(ready, PUSH_LAYOUT, *bindings, layout_flags=PUSH)
    make_pipeline(ready, PUSH_PIPELINE, SET_LAYOUT, PUSH_LAYOUT)
    return ready


def test_what_is_pushed_comes_as_a_write_for_each_binding(pushing: Host, noted: Rows) -> None:
    push(pushing, [write(1, 1, 1), write(0, 0, 3)], 1)
    assert noted() == [(1, 1, 1, STORAGE, 0), (0, 0, 1, STORAGE, 0), (1, 0, 2, STORAGE, 1)]
    push(pushing, [write(0, 0, 1)], 1)
    assert noted() == [(0, 0, 1, STORAGE, 0)]


@pytest.mark.parametrize("command", [push, push_2])
@pytest.mark.parametrize(
    ("one", "set_", "sentence"),
    [
        (write(2, 0, 1), 1, "no binding 2"),
        (write(1, 1, 2), 1, "2 descriptors from element 1 of binding 1"),
        (write(0, 0, 1, UNIFORM), 1, "binding of another type"),
        (write(0, 0, 1), 0, "set 0 of the pipeline layout is none to be pushed"),
    ],
    ids=str,
)
def test_a_push_of_what_a_layout_has_not(
    pushing: Host, command: Callable[..., None], one: dict[str, Any], set_: int, sentence: str
) -> None:
    command(pushing, [write(0, 0, 1)], 1)
    with pytest.raises(ProtocolError, match=sentence):
        command(pushing, [write(0, 0, 1), one], set_)


def test_a_push_to_a_set_that_there_is_not(pushing: Host) -> None:
    with pytest.raises(ProtocolError):
        push(pushing, [write(0, 0, 1)], 2)


def test_templates(pushing: Host) -> None:
    template(pushing, 0, 1, 5)
    send(
        pushing,
        "vkDestroyDescriptorUpdateTemplate",
        device=3,
        descriptorUpdateTemplate=190,
    )
    pushed = {"templateType": 1, "descriptorSetLayout": 0, "pipelineLayout": PUSH_PIPELINE}
    template(pushing, 0, 0, 3, **pushed, set=1)
    with pytest.raises(ProtocolError, match="no binding 9"):
        template(pushing, 9, 0, 1)


@pytest.mark.parametrize(
    ("entry", "more", "sentence"),
    [
        ((0, 0, 7), {}, "another type"),
        ((0, 0, 1, UNIFORM), {}, "another type"),
        ((0, 0, 4), {"templateType": 1, "set": 1}, "4 descriptors from element 0 of binding 0"),
        ((0, 0, 1), {"templateType": 1, "set": 0}, "none to be pushed"),
        ((0, 0, 1), {"templateType": 1, "set": 2}, "no set 2"),
    ],
    ids=str,
)
def test_templates_of_what_a_layout_has_not(
    pushing: Host, entry: tuple[int, ...], more: dict[str, int], sentence: str
) -> None:
    if more:
        more |= {"descriptorSetLayout": 0, "pipelineLayout": PUSH_PIPELINE}
    with pytest.raises(ProtocolError, match=sentence):
        template(pushing, *entry, **more)


LAYOUTS = {
    "binding 4 stands there twice": layout_info(
        [binding(4, STORAGE, 1), binding(2, STORAGE, 1), binding(4, UNIFORM, 2)]
    ),
    "binding 1 has a variable number of descriptors, but 2 is the last": layout_info(
        [binding(2, STORAGE, 1), binding(1, STORAGE, 1)], flags=[0, VARIABLE]
    ),
    "binding 1 can have no dynamic descriptors": layout_info(
        [binding(1, STORAGE_DYNAMIC, 1)], flags=[VARIABLE]
    ),
    "binding 2 can have no dynamic descriptors": layout_info(
        [binding(2, UNIFORM_DYNAMIC, 1)], layout_flags=PUSH
    ),
    "binding 7 is of several types, and none is named": layout_info(
        [binding(0, STORAGE, 1), binding(7, MUTABLE, 1)], types=[[STORAGE]]
    ),
    "binding 8 is of several types, and none is named": layout_info([binding(8, MUTABLE, 1)]),
    "binding 5 is of several types, and none is named": layout_info(
        [binding(5, MUTABLE, 1), binding(6, MUTABLE, 1)], types=[[], [STORAGE]]
    ),
}


@pytest.mark.parametrize("sentence", LAYOUTS)
@pytest.mark.parametrize(
    "command", ["vkCreateDescriptorSetLayout", "vkGetDescriptorSetLayoutSupport"]
)
def test_layouts_that_cannot_be(host: Host, sentence: str, command: str) -> None:
    result: dict[str, Any] = {"pSetLayout": SET_LAYOUT}
    if command == "vkGetDescriptorSetLayoutSupport":
        result = {"pSupport": {}}
    with pytest.raises(ProtocolError, match=sentence):
        send(host, command, device=3, pCreateInfo=LAYOUTS[sentence], **result)


def test_layouts_are_charged_for_as_long_as_their_sets_live(host: Host) -> None:
    """The memory limit is `Host`'s; the id is always the same."""
    bindings = [binding(i, STORAGE, 0) for i in range(1000)]
    make_layout(host, SET_LAYOUT, *bindings)
    make_sets(host, [SET], [SET_LAYOUT])
    with_layout = host.engine.ledger.figures()["objects"]
    send(host, "vkDestroyDescriptorSetLayout", device=3, descriptorSetLayout=SET_LAYOUT)
    kept = host.engine.ledger.figures()["objects"]
    send(host, "vkResetDescriptorPool", device=3, descriptorPool=POOL, flags=0)
    freed = host.engine.ledger.figures()["objects"]
    assert with_layout > kept >= freed + 1000 * 20
