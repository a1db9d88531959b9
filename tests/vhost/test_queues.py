"""Split virtqueues, with a driver that keeps to the rules and one that does not."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import pytest
from frontend import GUEST_BASE
from toy_device import NO, ToyVm
from vring import INDIRECT, NEXT, QUEUE_SIZE, WRITE, Ring

from hesper.vhost.virtqueue import MAX_DESCRIPTORS

LETTER = b"E" + bytes(range(200)) * 2
"""400 bytes to echo."""
ECHO = LETTER[1:].upper()


@pytest.fixture(params=[True, False], ids=["event_idx", "flags"])
def vm(request: pytest.FixtureRequest) -> Iterator[ToyVm]:
    """A device with a driver that uses EVENT_IDX, or not."""
    vm = ToyVm()
    vm.frontend.start(event_idx=request.param)
    yield vm
    vm.close()


@pytest.mark.parametrize("indirect", [True, False])
def test_requests_are_answered(vm: ToyVm, indirect: bool) -> None:
    assert vm.frontend.call(LETTER, indirect=indirect) == ECHO


def test_indices_wrap(vm: ToyVm) -> None:
    ring = vm.frontend.queues[0]
    bases = vm.frontend.stop_queues()
    ring.clear()
    # As if 65533 requests had been there before.
    ring.available = ring.used = 65533
    struct.pack_into("<H", ring.memory, ring.available_ring + 2, 65533)
    struct.pack_into("<H", ring.memory, ring.used_ring + 2, 65533)
    assert bases == [0]
    vm.frontend.start_queues([65533])
    for _ in range(10):
        assert vm.frontend.call(LETTER) == ECHO
    assert (ring.available, ring.used) == (7, 7)


def test_many_requests_at_a_time(vm: ToyVm) -> None:
    vm.frontend.heap = 0x20000
    for _ in range(5):
        posted = [vm.frontend.post(LETTER, response_size=408) for _ in range(QUEUE_SIZE)]
        for head, answer in posted:
            assert vm.frontend.wait_bytes(head, answer) == ECHO
        vm.frontend.heap = 0x20000


def test_scattered_requests_and_answers(vm: ToyVm) -> None:
    """A request a byte a descriptor, its answer in pieces of 7."""
    ring = vm.frontend.queues[0]
    at = vm.frontend.allocate(4096)
    ring.memory[at : at + 25] = LETTER[:25]
    answer = at + 1024
    pieces = [(at + index, 1, 0) for index in range(25)]
    pieces += [(answer + index * 7, 7, WRITE) for index in range(4)]
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
    assert vm.frontend.wait_bytes(5, answer) == ECHO[:24]


def test_short_answers_are_cut(vm: ToyVm) -> None:
    head, answer = vm.frontend.post(LETTER, response_size=30)
    assert vm.frontend.queues[0].wait_used() == (head, 30)
    assert vm.frontend.read_bytes(answer, 40) == ECHO[:30] + bytes(10)


def test_a_driver_may_want_no_answer(vm: ToyVm) -> None:
    head, _ = vm.frontend.post(LETTER, response_size=0)
    assert vm.frontend.queues[0].wait_used() == (head, 0)


def test_empty_requests_reach_the_device(vm: ToyVm) -> None:
    ring = vm.frontend.queues[0]
    answer = vm.frontend.allocate(64)
    ring.write_descriptor(3, GUEST_BASE, 0, NEXT, 4)
    ring.write_descriptor(4, GUEST_BASE + answer, 64, WRITE)
    ring.free.remove(3)
    ring.offer(3)
    assert vm.frontend.wait_bytes(3, answer) == NO


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
def test_a_driver_that_breaks_the_rules_breaks_its_queue(vm: ToyVm, name: str) -> None:
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
    assert vm.frontend.call(LETTER) == ECHO


def test_one_chain_again_and_again(vm: ToyVm) -> None:
    """Made available before it came back, more often than there are descriptors."""
    ring = vm.frontend.queues[0]
    head, _ = vm.frontend.post(b"K")
    for _ in range(QUEUE_SIZE):
        ring.offer(head)
        vm.settle()
    ring.error.wait()
    assert vm.frontend.set_memory() == 0


def test_rubbish_in_the_rings(vm: ToyVm) -> None:
    """Random tables, indices and requests: the device stays, and serves the next driver."""
    random_source = random.Random(20240607)
    memory = vm.frontend.memory
    lengths = (0, 8, 24, 64, 4096, 16 * MAX_DESCRIPTORS, 16 * MAX_DESCRIPTORS + 16, 1 << 20)
    somewhere = (GUEST_BASE, GUEST_BASE + 0x20000, OUTSIDE - 64)
    for _ in range(60):
        for ring in vm.frontend.queues:
            for index in range(QUEUE_SIZE):
                ring.write_descriptor(
                    index,
                    random_source.choice((*somewhere, random_source.getrandbits(64))),
                    random_source.choice((*lengths, random_source.getrandbits(32))),
                    random_source.choice((0, 0, NEXT, WRITE, NEXT | WRITE, INDIRECT)),
                    random_source.randrange(QUEUE_SIZE + 2),
                )
            memory[0x20000:0x21000] = random_source.randbytes(0x1000)
            memory[0x20000] = random_source.choice(b"EKMU?")
            ring.offer(random_source.randrange(QUEUE_SIZE))
        if random_source.random() < 0.5:
            vm.frontend.stop_queues()
            vm.frontend.start(event_idx=vm.frontend.queues[0].event_idx)
    vm.frontend.stop_queues()
    vm.frontend.start(event_idx=vm.frontend.queues[0].event_idx)
    assert vm.frontend.call(LETTER) == ECHO
