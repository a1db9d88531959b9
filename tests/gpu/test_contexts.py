"""Contexts: their workers, commands, resources and fences."""

from __future__ import annotations

import struct

import pytest
from device import CAPSET, Vm
from driver import (
    PAGE,
    create_blob,
    create_context,
    destroy_context,
    on_resource,
    open_context,
    post_submit,
    send,
    submit_request,
)

from hesper.gpu.context_wire import MAX_SUBMIT, Up
from hesper.gpu.device import Limits
from hesper.gpu.wire import CAPSET_VENUS, Command, HeaderFlag, Response

OK = Response.OK_NODATA


def test_the_venus_capset_is_the_only_one(vm: Vm) -> None:
    info = vm.frontend.command(Command.GET_CAPSET_INFO, struct.pack("<I4x", 0))
    assert info.type == Response.OK_CAPSET_INFO
    assert struct.unpack("<3I4x", info.payload) == (CAPSET_VENUS, 0, len(CAPSET))
    capset = vm.frontend.command(Command.GET_CAPSET, struct.pack("<2I", CAPSET_VENUS, 0))
    assert (capset.type, capset.payload) == (Response.OK_CAPSET, CAPSET)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (Command.GET_CAPSET_INFO, struct.pack("<I4x", 1)),
        (Command.GET_CAPSET, struct.pack("<2I", 2, 0)),
        (Command.GET_CAPSET, struct.pack("<2I", CAPSET_VENUS, 1)),
    ],
)
def test_other_capsets_are_refused(vm: Vm, command: int, body: bytes) -> None:
    assert vm.frontend.command(command, body).type == Response.ERR_INVALID_PARAMETER


def test_a_context_is_a_worker_with_a_name(vm: Vm) -> None:
    assert create_context(vm, 5, b"vkcube").type == OK
    worker = vm.worker()
    worker.wait(lambda: worker.name == "vkcube")
    assert destroy_context(vm, 5).type == OK
    assert worker.ended.wait(30)
    assert destroy_context(vm, 5).type == Response.ERR_INVALID_CONTEXT_ID


def test_names_cannot_forge_log_lines(vm: Vm) -> None:
    create_context(vm, 1, b"a\nb\x1b[2J\xff\0hidden")
    worker = vm.worker()
    worker.wait(lambda: worker.name == "a?b?[2J\ufffd")


def test_context_ids_are_checked(vm: Vm) -> None:
    assert create_context(vm, 1).type == OK
    assert create_context(vm, 1).type == Response.ERR_INVALID_CONTEXT_ID
    assert create_context(vm, 0).type == Response.ERR_INVALID_CONTEXT_ID
    assert create_context(vm, 2, capset=1).type == Response.ERR_INVALID_PARAMETER
    answer = send(vm.frontend, submit_request(9, b"1234"))
    assert answer.type == Response.ERR_INVALID_CONTEXT_ID


def test_contexts_have_a_limit() -> None:
    vm = Vm(limits=Limits(contexts=2))
    vm.frontend.start()
    assert [create_context(vm, n).type for n in (1, 2, 3)] == [OK, OK, Response.ERR_OUT_OF_MEMORY]
    destroy_context(vm, 1)
    assert create_context(vm, 3).type == OK
    vm.close()


def test_a_context_without_a_capset_runs_nothing(vm: Vm) -> None:
    assert create_context(vm, 1, capset=0).type == OK
    assert not vm.workers
    assert send(vm.frontend, submit_request(1, b"1234")).type == Response.ERR_UNSPEC
    assert destroy_context(vm, 1).type == OK


def test_commands_reach_the_worker_in_order(vm: Vm) -> None:
    worker = open_context(vm, 1)
    sent = [bytes([n]) * (n * 997) for n in range(1, 50)]
    for commands in sent:
        assert send(vm.frontend, submit_request(1, commands)).type == OK
        vm.frontend.heap = 0x20000
    worker.wait(lambda: worker.commands == sent)


def test_commands_have_a_length(vm: Vm) -> None:
    open_context(vm, 1)
    request = submit_request(1, b"12345678")
    assert send(vm.frontend, request[:-4]).type == Response.ERR_INVALID_PARAMETER
    assert send(vm.frontend, request + b"1234").type == Response.ERR_INVALID_PARAMETER
    large = submit_request(1, bytes(MAX_SUBMIT + 4))
    assert send(vm.frontend, large).type == Response.ERR_OUT_OF_MEMORY


def test_timelines_retire_independently(vm: Vm) -> None:
    worker = open_context(vm, 1)
    first = post_submit(vm, 1, b"one.", fence_id=11, ring_idx=1)
    second = post_submit(vm, 1, b"two.", fence_id=12, ring_idx=2)
    worker.retire(2)
    answer = vm.frontend.wait(*second)
    assert (answer.type, answer.flags) == (OK, HeaderFlag.FENCE | HeaderFlag.INFO_RING_IDX)
    assert (answer.fence_id, answer.ctx_id, answer.ring_idx) == (12, 1, 2)
    worker.retire(1)
    answer = vm.frontend.wait(*first)
    assert (answer.fence_id, answer.ring_idx) == (11, 1)


def test_contexts_retire_independently(vm: Vm) -> None:
    one, two = open_context(vm, 1), open_context(vm, 2)
    first = post_submit(vm, 1, b"one.", fence_id=11, ring_idx=1)
    second = post_submit(vm, 2, b"two.", fence_id=12, ring_idx=1)
    two.retire(1)
    assert vm.frontend.wait(*second).ctx_id == 2
    one.retire(1)
    assert vm.frontend.wait(*first).ctx_id == 1


def test_the_devices_own_timeline_retires_in_order(vm: Vm) -> None:
    worker = open_context(vm, 1)
    slow = post_submit(vm, 1, b"slow", fence_id=1, ring_idx=None)
    header = struct.pack("<IIQIB3x", Command.GET_DISPLAY_INFO, HeaderFlag.FENCE, 2, 0, 0)
    quick = vm.frontend.post(header)
    worker.wait(lambda: worker.fences)
    vm.settle()
    assert vm.frontend.queues[0].take_used() is None
    worker.retire(0)
    assert vm.frontend.wait(*slow).fence_id == 1
    answer = vm.frontend.wait(*quick)
    assert (answer.type, answer.fence_id) == (Response.OK_DISPLAY_INFO, 2)


def test_fences_on_impossible_timelines(vm: Vm) -> None:
    open_context(vm, 1)
    answer = vm.frontend.wait(*post_submit(vm, 1, b"1234", fence_id=3, ring_idx=64))
    assert (answer.type, answer.fence_id) == (Response.ERR_INVALID_PARAMETER, 3)
    answer = vm.frontend.wait(*post_submit(vm, 7, b"1234", fence_id=4, ring_idx=0))
    assert (answer.type, answer.fence_id) == (Response.ERR_INVALID_CONTEXT_ID, 4)


@pytest.mark.parametrize("how", ["dies", "is fatal", "talks nonsense"])
def test_a_lost_context_answers_what_waits_for_it(vm: Vm, how: str) -> None:
    other = open_context(vm, 2)
    worker = open_context(vm, 1)
    waiting = post_submit(vm, 1, b"1234", fence_id=3, ring_idx=1)
    worker.wait(lambda: worker.fences)
    if how == "dies":
        worker.die()
    elif how == "is fatal":
        worker.say(Up.FATAL, b"vkNonsense at byte 0")
    else:
        worker.say(Up.RETIRED, b"")
    assert vm.frontend.wait(*waiting).fence_id == 3
    answer = vm.frontend.wait(*post_submit(vm, 1, b"1234", fence_id=4, ring_idx=1))
    assert (answer.type, answer.fence_id) == (Response.ERR_UNSPEC, 4)
    assert send(vm.frontend, submit_request(2, b"fine")).type == OK
    other.wait(lambda: other.commands == [b"fine"])
    assert destroy_context(vm, 1).type == OK
    assert create_context(vm, 1).type == OK


def test_a_stuck_context_holds_up_no_other(vm: Vm) -> None:
    stuck, other = open_context(vm, 1), open_context(vm, 2)
    stuck.paused.clear()
    # More than its socket holds.
    waiting = [
        vm.frontend.post(submit_request(1, bytes(200_000)), response_size=24) for _ in range(12)
    ]
    assert send_beside(vm, submit_request(2, b"fine"), waiting) == OK
    other.wait(lambda: other.commands == [b"fine"])
    stuck.paused.set()
    for head, _ in waiting:
        if head not in vm.frontend.queues[0].free:
            vm.frontend.queues[0].free.append(vm.frontend.queues[0].wait_used()[0])
    stuck.wait(lambda: len(stuck.commands) == 12)


def send_beside(vm: Vm, request: bytes, others: list[tuple[int, int]]) -> int:
    """Send a request and wait for its answer; some of `others` may be answered before."""
    head, answer = vm.frontend.post(request)
    ring = vm.frontend.queues[0]
    while True:
        done, length = ring.wait_used()
        ring.free.append(done)
        if done == head:
            return vm.frontend.read_answer(answer, length).type
        assert done in [other for other, _ in others]


def test_resources_are_shared_between_contexts(vm: Vm) -> None:
    maker, user = open_context(vm, 1), open_context(vm, 2)
    assert create_blob(vm, 7, ctx_id=1).type == OK
    attach, detach = Command.CTX_ATTACH_RESOURCE, Command.CTX_DETACH_RESOURCE
    # Its maker knows it; the driver attaches it all the same.
    assert on_resource(vm, attach, 7, ctx_id=1).type == OK
    assert on_resource(vm, attach, 7, ctx_id=2).type == OK
    user.wait(lambda: user.imported == {7: PAGE})
    assert not maker.imported
    assert on_resource(vm, detach, 7, ctx_id=1).type == OK
    maker.wait(lambda: maker.destroyed == [7])
    assert on_resource(vm, detach, 7, ctx_id=1).type == Response.ERR_INVALID_RESOURCE_ID
    assert on_resource(vm, Command.RESOURCE_UNREF, 7).type == OK
    user.wait(lambda: user.destroyed == [7])
    assert on_resource(vm, attach, 7, ctx_id=1).type == Response.ERR_INVALID_RESOURCE_ID
    assert on_resource(vm, attach, 7, ctx_id=3).type == Response.ERR_INVALID_CONTEXT_ID


def test_figures_come_from_the_workers(vm: Vm) -> None:
    worker = open_context(vm, 1)
    vm.device.figures()
    vm.settle()
    worker.say(Up.FIGURES, struct.pack("=QQQ", 1000, 8000, 1 << 20))
    # A fence behind it, so that the figures have arrived.
    waiting = post_submit(vm, 1, b"1234", fence_id=1, ring_idx=1)
    worker.retire(1)
    vm.frontend.wait(*waiting)
    vm.device.figures()
    vm.settle()
    assert vm.device.figures() == [(1, "test", (1000, 8000, 1 << 20))]
