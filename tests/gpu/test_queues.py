"""Split virtqueues, with a driver that keeps to the rules and one that does not."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from device import Vm
from driver import open_context, post_submit
from frontend import GUEST_BASE, INDIRECT, NEXT, QUEUE_SIZE, WRITE, Ring

from hesper.gpu.wire import HEADER, Command, Response

DISPLAY_INFO = HEADER.pack(Command.GET_DISPLAY_INFO, 0, 0, 0, 0)


@pytest.fixture(params=[True, False], ids=["event_idx", "flags"])
def vm(request: pytest.FixtureRequest):
    """A device with a driver that uses EVENT_IDX, or not."""
    vm = Vm()
    vm.frontend.start(event_idx=request.param)
    yield vm
    vm.close()


@pytest.mark.parametrize("indirect", [True, False])
def test_requests_are_answered(vm: Vm, indirect: bool) -> None:
    answer = vm.frontend.command(Command.GET_DISPLAY_INFO, indirect=indirect)
    assert answer.type == Response.OK_DISPLAY_INFO
    assert len(answer.payload) + HEADER.size == 408


def test_indices_wrap(vm: Vm) -> None:
    ring = vm.frontend.queues[0]
    bases = vm.frontend.stop_queues()
    ring.clear()
    # As if 65533 requests had been there before.
    ring.available = ring.used = 65533
    struct.pack_into("<H", ring.memory, ring.available_ring + 2, 65533)
    struct.pack_into("<H", ring.memory, ring.used_ring + 2, 65533)
    vm.frontend.start_queues([65533, bases[1]])
    for _ in range(10):
        answer = vm.frontend.command(Command.GET_DISPLAY_INFO)
        assert answer.type == Response.OK_DISPLAY_INFO
    assert (ring.available, ring.used) == (7, 7)


def test_many_requests_at_a_time(vm: Vm) -> None:
    vm.frontend.heap = 0x20000
    for _ in range(5):
        posted = [vm.frontend.post(DISPLAY_INFO, response_size=408) for _ in range(QUEUE_SIZE)]
        for head, answer in posted:
            assert vm.frontend.wait(head, answer).type == Response.OK_DISPLAY_INFO
        vm.frontend.heap = 0x20000


def test_scattered_requests_and_answers(vm: Vm) -> None:
    """A request a byte a descriptor, its answer in pieces of 7."""
    ring = vm.frontend.queues[0]
    at = vm.frontend.allocate(4096)
    ring.memory[at : at + 24] = DISPLAY_INFO
    answer = at + 1024
    pieces = [(at + index, 1, 0) for index in range(24)]
    pieces += [(answer + index * 7, 7, WRITE) for index in range(59)]
    table = vm.frontend.allocate(16 * len(pieces))
    for index, (where, length, flags) in enumerate(pieces):
        more = NEXT if index + 1 < len(pieces) else 0
        struct.pack_into(
            "<QIHH",
            ring.memory,
            table + 16 * index,
            GUEST_BASE + where,
            length,
            flags | more,
            index + 1,
        )
    ring.write_descriptor(5, GUEST_BASE + table, 16 * len(pieces), INDIRECT)
    ring.free.remove(5)
    ring.offer(5)
    result = vm.frontend.wait(5, answer)
    assert result.type == Response.OK_DISPLAY_INFO
    assert len(result.payload) + HEADER.size == 408


def test_short_answers_are_cut(vm: Vm) -> None:
    head, _ = vm.frontend.post(DISPLAY_INFO, response_size=30)
    assert vm.frontend.queues[0].wait_used() == (head, 30)


def test_short_requests_are_refused(vm: Vm) -> None:
    answer = vm.frontend.wait(*vm.frontend.post(DISPLAY_INFO[:7]))
    assert answer.type == Response.ERR_UNSPEC
    answer = vm.frontend.wait(*vm.frontend.post(b"\1"))
    assert answer.type == Response.ERR_UNSPEC


OUTSIDE = GUEST_BASE + (4 << 20)


def _direct(*descriptors: tuple[int, int, int, int]) -> Callable[[Ring, int], None]:
    """Write a chain into the table from entry 0 on; offer it."""

    def write(ring: Ring, _table: int) -> None:
        for index, (address, length, flags, following) in enumerate(descriptors):
            ring.write_descriptor(index, address, length, flags, following)
        ring.offer(0)

    return write


def _indirect(length: int, *descriptors: tuple[int, int, int, int]) -> Callable[[Ring, int], None]:
    """Write an indirect table that claims `length` bytes; offer it."""

    def write(ring: Ring, table: int) -> None:
        for index, descriptor in enumerate(descriptors):
            struct.pack_into("<QIHH", ring.memory, table + 16 * index, *descriptor)
        ring.write_descriptor(0, GUEST_BASE + table, length, INDIRECT)
        ring.offer(0)

    return write


def _offer_beyond(ring: Ring, _table: int) -> None:
    ring.offer(QUEUE_SIZE)


def _jump(ring: Ring, _table: int) -> None:
    ring.available = (ring.available + QUEUE_SIZE) & 0xFFFF
    ring.write_descriptor(0, GUEST_BASE, 8, 0)
    ring.offer(0)


BAD_CHAINS = {
    "head outside the table": _offer_beyond,
    "too much available": _jump,
    "next outside the table": _direct((GUEST_BASE, 8, NEXT, QUEUE_SIZE)),
    "loop": _direct((GUEST_BASE, 8, NEXT, 1), (GUEST_BASE, 8, NEXT, 0)),
    "read after write": _direct((GUEST_BASE, 8, NEXT | WRITE, 1), (GUEST_BASE, 8, 0, 0)),
    "behind memory": _direct((OUTSIDE, 1, 0, 0)),
    "before memory": _direct((GUEST_BASE - 1, 2, 0, 0)),
    "across the end of memory": _direct((OUTSIDE - 8, 9, 0, 0)),
    "across the end of the world": _direct(((1 << 64) - 8, 16, 0, 0)),
    "write outside memory": _direct((GUEST_BASE, 24, NEXT, 1), (0, 408, WRITE, 0)),
    "all there is": _direct((0, 0xFFFFFFFF, 0, 0)),
    "indirect of odd length": _indirect(17, (GUEST_BASE, 8, 0, 0)),
    "indirect of no length": _indirect(0),
    "indirect and more": _direct((GUEST_BASE, 16, INDIRECT | NEXT, 1)),
    "indirect outside memory": _direct((OUTSIDE, 16, INDIRECT, 0)),
    "indirect of great length": _direct((GUEST_BASE, 0xFFFFFFF0, INDIRECT, 0)),
    "indirect in indirect": _indirect(16, (GUEST_BASE, 16, INDIRECT, 0)),
    "indirect loop": _indirect(32, (GUEST_BASE, 8, NEXT, 1), (GUEST_BASE, 8, NEXT, 0)),
    "indirect next outside": _indirect(32, (GUEST_BASE, 8, NEXT, 2)),
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_a_driver_that_breaks_the_rules_breaks_its_queue(vm: Vm, name: str) -> None:
    ring = vm.frontend.queues[0]
    BAD_CHAINS[name](ring, vm.frontend.allocate(64))
    ring.error.wait()
    # Nothing more comes out of it, and everything else goes on.
    ring.kick.signal()
    vm.settle()
    assert ring.take_used() is None
    assert vm.frontend.set_memory() == 0
    vm.frontend.stop_queues()
    vm.frontend.start()
    answer = vm.frontend.command(Command.GET_DISPLAY_INFO)
    assert answer.type == Response.OK_DISPLAY_INFO


def test_one_chain_again_and_again(vm: Vm) -> None:
    """Made available before it came back, more often than there are descriptors."""
    ring = vm.frontend.queues[0]
    open_context(vm, 1)
    head, _ = post_submit(vm, 1, b"1234", fence_id=1, ring_idx=1)
    for _ in range(QUEUE_SIZE):
        ring.offer(head)
        vm.settle()
    ring.error.wait()
    assert vm.frontend.set_memory() == 0


def test_rubbish_in_the_rings(vm: Vm) -> None:
    """Random tables, indices and requests: the device stays, and serves the next driver."""
    random_source = random.Random(20240607)
    memory = vm.frontend.memory
    somewhere = (GUEST_BASE, GUEST_BASE + 0x20000, OUTSIDE - 64)
    for _ in range(60):
        for ring in vm.frontend.queues:
            for index in range(QUEUE_SIZE):
                ring.write_descriptor(
                    index,
                    random_source.choice((*somewhere, random_source.getrandbits(64))),
                    random_source.choice((0, 8, 24, 64, 4096, random_source.getrandbits(32))),
                    random_source.choice((0, 0, NEXT, WRITE, NEXT | WRITE, INDIRECT)),
                    random_source.randrange(QUEUE_SIZE + 2),
                )
            memory[0x20000:0x21000] = random_source.randbytes(0x1000)
            struct.pack_into(
                "<I",
                memory,
                0x20000,
                random_source.choice((0x100, 0x200, 0x300)) + random_source.randrange(14),
            )
            ring.offer(random_source.randrange(QUEUE_SIZE))
        if random_source.random() < 0.5:
            vm.frontend.stop_queues()
            vm.frontend.start(event_idx=vm.frontend.queues[0].event_idx)
    vm.frontend.stop_queues()
    vm.frontend.start(event_idx=vm.frontend.queues[0].event_idx)
    answer = vm.frontend.command(Command.GET_DISPLAY_INFO)
    assert answer.type == Response.OK_DISPLAY_INFO


def test_random_requests(vm: Vm) -> None:
    """Well-formed chains with random fields: every one is answered."""
    random_source = random.Random(7)
    interesting = (0, 1, 2, 3, 64, 4096, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    commands = [int(command) for command in Command]
    for number in range(1500):
        vm.frontend.heap = 0x20000
        command = random_source.choice(commands)
        body = b"".join(
            struct.pack("<I", random_source.choice(interesting))
            for _ in range(random_source.choice((0, 1, 2, 4, 6, 8, 10, 18, 24)))
        )
        flags = random_source.choice((0, 0, 1, 3))
        header = HEADER.pack(
            command, flags, number, random_source.choice((0, 1, 2)), random_source.choice((0, 1))
        )
        for worker in vm.workers:
            # Nobody looks after the fences of this test.
            for ring_idx, _ in tuple(worker.fences):
                worker.retire(ring_idx)
        head, answer = vm.frontend.post(header + body, queue=number % 2)
        ring = vm.frontend.queues[number % 2]
        while (done := ring.take_used()) is None:
            for worker in vm.workers:
                for ring_idx, _ in tuple(worker.fences):
                    worker.retire(ring_idx)
            ring.call.wait_briefly()
        assert done[0] == head
        ring.free.append(head)
        assert 0x1100 <= vm.frontend.read_answer(answer, done[1]).type < 0x1300
