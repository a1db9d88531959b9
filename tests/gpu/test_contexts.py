"""Contexts: their workers, commands, resources and fences."""

from __future__ import annotations

import struct

import msgspec
import pytest
from gpu_requests import (
    PAGE,
    attach_backing,
    create_2d,
    create_blob,
    create_context,
    destroy_context,
    flush,
    move_cursor,
    on_resource,
    request,
    set_scanout,
    submit,
    transfer,
    unref,
    update_cursor,
)
from gpu_vm import CAPSET, MakeVm, Vm

from hesper.figures import Figures
from hesper.gpu.context_wire import MAX_SUBMIT, Up
from hesper.gpu.limits import Limits
from hesper.gpu.wire import CAPSET_VENUS, HEADER, Command, HeaderFlag, Response

OK = Response.OK_NODATA


def test_the_venus_capset_is_the_only_one(vm: Vm) -> None:
    info = vm.guest.command(Command.GET_CAPSET_INFO, struct.pack("<I4x", 0))
    assert info.type == Response.OK_CAPSET_INFO
    assert struct.unpack("<3I4x", info.payload) == (CAPSET_VENUS, 0, len(CAPSET))
    capset = vm.guest.command(Command.GET_CAPSET, struct.pack("<2I", CAPSET_VENUS, 0))
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
    assert vm.guest.command(command, body).type == Response.ERR_INVALID_PARAMETER


def test_a_context_is_a_worker_with_a_name(vm: Vm) -> None:
    assert vm.guest.send(create_context(5, b"vkcube")).type == OK
    worker = vm.worker()
    worker.wait(lambda: worker.name == "vkcube")
    assert vm.guest.send(destroy_context(5)).type == OK
    assert worker.ended.wait(30)
    assert vm.guest.send(destroy_context(5)).type == Response.ERR_INVALID_CONTEXT_ID


def test_names_cannot_forge_log_lines(vm: Vm) -> None:
    vm.guest.send(create_context(1, b"a\nb\x1b[2J\xff\0hidden"))
    worker = vm.worker()
    worker.wait(lambda: worker.name == "a?b?[2J\ufffd")


def test_context_ids_are_checked(vm: Vm) -> None:
    assert vm.guest.send(create_context(1)).type == OK
    assert vm.guest.send(create_context(1)).type == Response.ERR_INVALID_CONTEXT_ID
    assert vm.guest.send(create_context(0)).type == Response.ERR_INVALID_CONTEXT_ID
    assert vm.guest.send(create_context(2, capset=1)).type == Response.ERR_INVALID_PARAMETER
    answer = vm.guest.send(submit(9, b"1234"))
    assert answer.type == Response.ERR_INVALID_CONTEXT_ID


def test_contexts_have_a_limit(make_vm: MakeVm) -> None:
    vm = make_vm(limits=Limits(contexts=2))
    answers = [vm.guest.send(create_context(n)).type for n in (1, 2, 3)]
    assert answers == [OK, OK, Response.ERR_OUT_OF_MEMORY]
    vm.guest.send(destroy_context(1))
    assert vm.guest.send(create_context(3)).type == OK


def test_a_context_without_a_capset_runs_nothing(vm: Vm) -> None:
    assert vm.guest.send(create_context(1, capset=0)).type == OK
    assert not vm.workers
    assert vm.guest.send(submit(1, b"1234")).type == Response.ERR_UNSPEC
    assert vm.guest.send(destroy_context(1)).type == OK


def test_commands_reach_the_worker_in_order(vm: Vm) -> None:
    worker = vm.open_context(1)
    sent = [bytes([n]) * (n * 997) for n in range(1, 50)]
    for commands in sent:
        assert vm.guest.send(submit(1, commands)).type == OK
        vm.guest.heap = 0x20000
    worker.wait(lambda: worker.commands == sent)


def test_commands_have_a_length(vm: Vm) -> None:
    vm.open_context(1)
    request = submit(1, b"12345678")
    assert vm.guest.send(request[:-4]).type == Response.ERR_INVALID_PARAMETER
    assert vm.guest.send(request + b"1234").type == Response.ERR_INVALID_PARAMETER
    large = submit(1, bytes(MAX_SUBMIT + 4))
    assert vm.guest.send(large).type == Response.ERR_OUT_OF_MEMORY


def test_timelines_retire_independently(vm: Vm) -> None:
    worker = vm.open_context(1)
    first = vm.guest.post(submit(1, b"one.", fence_id=11, ring_idx=1))
    second = vm.guest.post(submit(1, b"two.", fence_id=12, ring_idx=2))
    worker.retire(2)
    answer = vm.guest.wait(*second)
    assert (answer.type, answer.flags) == (OK, HeaderFlag.FENCE | HeaderFlag.INFO_RING_IDX)
    assert (answer.fence_id, answer.ctx_id, answer.ring_idx) == (12, 1, 2)
    worker.retire(1)
    answer = vm.guest.wait(*first)
    assert (answer.fence_id, answer.ring_idx) == (11, 1)


def test_contexts_retire_independently(vm: Vm) -> None:
    one, two = vm.open_context(1), vm.open_context(2)
    first = vm.guest.post(submit(1, b"one.", fence_id=11, ring_idx=1))
    second = vm.guest.post(submit(2, b"two.", fence_id=12, ring_idx=1))
    two.retire(1)
    assert vm.guest.wait(*second).ctx_id == 2
    one.retire(1)
    assert vm.guest.wait(*first).ctx_id == 1


def fenced(data: bytes, fence_id: int) -> bytes:
    """Return a request with a fence on the device's own timeline."""
    kind, _, _, ctx_id, _ = HEADER.unpack_from(data)
    return request(kind, data[HEADER.size :], ctx_id=ctx_id, flags=1, fence_id=fence_id)


def test_a_fence_of_commands_waits_for_their_context_alone(vm: Vm) -> None:
    """Although it is on the device's own timeline: screens wait for no program."""
    whole = (0, 0, 16, 16)
    assert vm.guest.send(create_2d(9, 16, 16)).type == OK
    assert vm.guest.send(attach_backing(9, [(vm.guest.allocate(1024), 1024)])).type == OK
    stuck, other = vm.open_context(1), vm.open_context(2)
    first = vm.guest.post(submit(1, b"slow", fence_id=1))
    second = vm.guest.post(submit(1, b"too.", fence_id=2))
    stuck.wait(lambda: len(stuck.fences) == 2)
    for fence_id, data in enumerate(
        [
            transfer(9, whole),
            set_scanout(0, 9, whole),
            flush(9, whole),
            update_cursor(0, (1, 2), 9),
            move_cursor(0, (3, 4)),
            request(Command.GET_DISPLAY_INFO),
        ],
        start=3,
    ):
        answer = vm.guest.send(fenced(data, fence_id))
        assert 0x1100 <= answer.type < 0x1200
        assert (answer.flags, answer.fence_id) == (HeaderFlag.FENCE, fence_id)
    third = vm.guest.post(submit(2, b"fine", fence_id=9))
    other.retire(0)
    assert vm.guest.wait(*third).fence_id == 9
    stuck.retire(0)
    assert vm.guest.wait(*first).fence_id == 1
    stuck.retire(0)
    assert vm.guest.wait(*second).fence_id == 2


def test_fences_on_impossible_timelines(vm: Vm) -> None:
    vm.open_context(1)
    answer = vm.guest.wait(*vm.guest.post(submit(1, b"1234", fence_id=3, ring_idx=64)))
    assert (answer.type, answer.fence_id) == (Response.ERR_INVALID_PARAMETER, 3)
    answer = vm.guest.wait(*vm.guest.post(submit(7, b"1234", fence_id=4, ring_idx=0)))
    assert (answer.type, answer.fence_id) == (Response.ERR_INVALID_CONTEXT_ID, 4)


@pytest.mark.parametrize("how", ["dies", "is fatal", "talks nonsense"])
def test_a_lost_context_answers_what_waits_for_it(vm: Vm, how: str) -> None:
    other = vm.open_context(2)
    worker = vm.open_context(1)
    waiting = vm.guest.post(submit(1, b"1234", fence_id=3, ring_idx=1))
    worker.wait(lambda: worker.fences)
    if how == "dies":
        worker.die()
    elif how == "is fatal":
        worker.say(Up.FATAL, b"vkNonsense at byte 0")
    else:
        worker.say(Up.RETIRED, b"")
    assert vm.guest.wait(*waiting).fence_id == 3
    answer = vm.guest.wait(*vm.guest.post(submit(1, b"1234", fence_id=4, ring_idx=1)))
    assert (answer.type, answer.fence_id) == (Response.ERR_UNSPEC, 4)
    assert vm.guest.send(submit(2, b"fine")).type == OK
    other.wait(lambda: other.commands == [b"fine"])
    assert vm.guest.send(destroy_context(1)).type == OK
    assert vm.guest.send(create_context(1)).type == OK


def test_a_stuck_context_holds_up_no_other(vm: Vm) -> None:
    stuck, other = vm.open_context(1), vm.open_context(2)
    stuck.paused.clear()
    # More than its socket holds.
    waiting = [vm.guest.post(submit(1, bytes(200_000)), response_size=24) for _ in range(12)]
    assert send_beside(vm, submit(2, b"fine"), waiting) == OK
    other.wait(lambda: other.commands == [b"fine"])
    stuck.paused.set()
    stuck.wait(lambda: len(stuck.commands) == 12)


def send_beside(vm: Vm, request: bytes, others: list[tuple[int, int]]) -> int:
    """Send a request and wait for its answer; some of `others` may be answered before."""
    number, answer = vm.guest.post(request)
    while True:
        done, length = vm.guest.wait_any()
        if done == number:
            return vm.guest.read_answer(answer, length).type
        assert done in [other for other, _ in others]


def test_resources_are_shared_between_contexts(vm: Vm) -> None:
    maker, user = vm.open_context(1), vm.open_context(2)
    assert vm.guest.send(create_blob(7, ctx_id=1)).type == OK
    attach, detach = Command.CTX_ATTACH_RESOURCE, Command.CTX_DETACH_RESOURCE
    # Its maker knows it; the driver attaches it all the same.
    assert vm.guest.send(on_resource(attach, 7, ctx_id=1)).type == OK
    assert vm.guest.send(on_resource(attach, 7, ctx_id=2)).type == OK
    user.wait(lambda: user.imported == {7: PAGE})
    assert not maker.imported
    assert vm.guest.send(on_resource(detach, 7, ctx_id=1)).type == OK
    maker.wait(lambda: maker.destroyed == [7])
    assert vm.guest.send(on_resource(detach, 7, ctx_id=1)).type == Response.ERR_INVALID_RESOURCE_ID
    assert vm.guest.send(unref(7)).type == OK
    user.wait(lambda: user.destroyed == [7])
    assert vm.guest.send(on_resource(attach, 7, ctx_id=1)).type == Response.ERR_INVALID_RESOURCE_ID
    assert vm.guest.send(on_resource(attach, 7, ctx_id=3)).type == Response.ERR_INVALID_CONTEXT_ID


def test_figures_come_from_the_workers(vm: Vm) -> None:
    worker = vm.open_context(1)
    vm.device.survey.figures()
    vm.settle()
    said = Figures(
        commands=1000,
        stream_bytes=8000,
        memory=1 << 20,
        limit=1 << 30,
        accounts={"memory": 1, "recorded": 5},
        held={"devices": (7, 12)},
        submissions=9,
        busy_ns=10,
        frames=11,
        doing=[("driver", "vkQueueSubmit")],
    )
    worker.say(Up.FIGURES, msgspec.json.encode(said))
    # A fence behind it, so that the figures have arrived.
    waiting = vm.guest.post(submit(1, b"1234", fence_id=1, ring_idx=1))
    worker.retire(1)
    vm.guest.wait(*waiting)
    vm.device.survey.figures()
    vm.settle()
    (figures,) = vm.device.survey.figures()
    assert figures[:6] == (1, "test", 1000, 8000, 1 << 20, 1 << 30)
    assert figures.accounts == {"memory": 1, "recorded": 5}
    assert figures.held == {"devices": (7, 12)}
    assert (figures.submissions, figures.busy_ns, figures.frames) == (9, 10, 11)
    assert figures.doing == (("driver", "vkQueueSubmit"),)
    assert (figures.process, figures.user) == (0, -1)
