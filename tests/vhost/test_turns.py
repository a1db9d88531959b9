"""What a driver, or a VMM, can have done before others have a turn."""

from __future__ import annotations

import os
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from frontend import GUEST_BASE
from toy_device import NO, YES, ToyDevice, ToyVm
from vring import INDIRECT, NEXT, PATIENCE, QUEUE_SIZE, WRITE, Ring

from hesper.event_loop import EventLoop
from hesper.vhost import queue_set, virtqueue
from hesper.vhost.backend import MESSAGES_A_TURN
from hesper.vhost.guest_memory import GuestMemory
from hesper.vhost.server import DeviceServer
from hesper.vhost.stream import Message, MessageStream
from hesper.vhost.virtqueue import MAX_DESCRIPTORS, MAX_READABLE
from hesper.vhost.wire import HEADER, VRING_STATE, Request


class Turns:
    """A device, and what happens on its loop: `request`, `message`, and `round` in every round."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.vm = ToyVm()
        self.vm.frontend.start()
        self.vm.loop.after_each(lambda: self.events.append("round"))

    def most(self, what: str) -> int:
        """How many of `what` came between two rounds at most."""
        rounds = " ".join(self.events).split("round")
        return max(each.split().count(what) for each in rounds)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    """A device with a front-end whose driver is loaded; queues have one request a turn."""
    monkeypatch.setattr(queue_set, "TURN", 0.0)
    turns: list[Turns] = []
    handle, receive = ToyDevice.handle, MessageStream.receive

    def handle_noted(self: ToyDevice, queue: int, chain: virtqueue.Chain) -> None:
        turns[0].events.append("request")
        handle(self, queue, chain)

    def receive_noted(self: MessageStream) -> Message | None:
        message = receive(self)
        if message is not None and turns:
            turns[0].events.append("message")
        return message

    monkeypatch.setattr(ToyDevice, "handle", handle_noted)
    monkeypatch.setattr(MessageStream, "receive", receive_noted)
    turns.append(Turns())
    yield turns[0]
    turns[0].vm.close()


class Held:
    """Holds the loop up, so that much is there when it goes on."""

    def __init__(self, loop: EventLoop) -> None:
        self._go = threading.Event()
        held = threading.Event()

        def hold() -> None:
            held.set()
            self._go.wait(PATIENCE)

        loop.call(hold)
        assert held.wait(PATIENCE)

    def release(self) -> None:
        self._go.set()


def test_a_full_queue_gives_others_a_turn(turns: Turns) -> None:
    vm = turns.vm
    held = Held(vm.loop)
    vm.frontend.heap = 0x20000
    posted = [vm.frontend.post(b"Ehello", response_size=64) for _ in range(40)]
    held.release()
    for head, answer in posted:
        assert vm.frontend.wait_bytes(head, answer) == b"HELLO"
    assert turns.events.count("request") == 40
    # One for the kick, and one that was due.
    assert turns.most("request") <= 2


def test_kicks_give_a_queue_no_more_turns(turns: Turns) -> None:
    vm = turns.vm
    ring = vm.frontend.queues[0]
    vm.frontend.heap = 0x20000
    waiting: list[tuple[int, int]] = []
    # Every round finds a kick, and more to do than one turn does.
    for _ in range(20):
        held = Held(vm.loop)
        waiting += [vm.frontend.post(b"Ehello", response_size=64) for _ in range(3)]
        ring.kick.signal()
        held.release()
        vm.settle()
    for head, answer in waiting:
        assert vm.frontend.wait_bytes(head, answer) == b"HELLO"
    assert turns.most("request") <= 2


def test_a_vmm_that_says_much_gives_others_a_turn(turns: Turns) -> None:
    vm = turns.vm
    held = Held(vm.loop)
    vm.frontend.socket.sendall(HEADER.pack(Request.SET_OWNER, 1, 0) * 5 * MESSAGES_A_TURN)
    held.release()
    vm.frontend.read_config()
    assert turns.most("message") == MESSAGES_A_TURN


# Chains that are longer than any request has to be.


def offer_indirect(vm: ToyVm, entries: list[tuple[int, int, int]]) -> int:
    """Offer a chain: offset in memory, length, flags of each descriptor; return its head."""
    ring = vm.frontend.queues[0]
    table = vm.frontend.allocate(16 * len(entries))
    data = bytearray()
    for index, (at, length, flags) in enumerate(entries):
        more = 0 if index == len(entries) - 1 else NEXT
        data += struct.pack("<QIHH", GUEST_BASE + at, length, flags | more, (index + 1) & 0xFFFF)
    ring.memory[table : table + len(data)] = bytes(data)
    head = ring.free.pop()
    ring.write_descriptor(head, GUEST_BASE + table, len(data), INDIRECT)
    ring.offer(head)
    return head


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Addresses that were looked for in guest memory."""
    looked: list[int] = []
    slices = GuestMemory.slices

    def noting(self: GuestMemory, address: int, length: int) -> list[memoryview]:
        looked.append(address)
        return slices(self, address, length)

    monkeypatch.setattr(GuestMemory, "slices", noting)
    return looked


@pytest.mark.parametrize("count", [MAX_DESCRIPTORS + 1, 65536])
def test_a_chain_that_is_too_long_is_not_walked(
    vm: ToyVm, looked_at: list[int], count: int
) -> None:
    at = vm.frontend.allocate(4096)
    vm.frontend.memory[at] = ord("E")
    answer = at + 2048
    entries = [(at, 1, 0)] * (count - 1) + [(answer, 64, WRITE)]
    head = offer_indirect(vm, entries)
    assert vm.frontend.wait_bytes(head, answer) == NO
    assert len(looked_at) < 10
    # The queue is as good as before.
    assert vm.echo(b"hello") == b"HELLO"


def test_the_longest_chain_is_a_request(vm: ToyVm) -> None:
    at = vm.frontend.allocate(4096)
    vm.frontend.memory[at : at + 2] = b"Ex"
    answer = at + 2048
    entries = [(at, 1, 0)] + [(at + 1, 1, 0)] * (MAX_DESCRIPTORS - 2) + [(answer, 2000, WRITE)]
    head = offer_indirect(vm, entries)
    assert vm.frontend.wait_bytes(head, answer) == b"X" * (MAX_DESCRIPTORS - 2)


def test_a_request_of_too_many_bytes_is_refused(vm: ToyVm) -> None:
    at, answer = vm.frontend.allocate(4096), vm.frontend.allocate(4096)
    vm.frontend.memory[at] = ord("E")
    large = 1 << 20
    whole = [(at, 1, 0)] + [(0, large, 0)] * (MAX_READABLE // large)
    head = offer_indirect(vm, [*whole, (answer, 8, WRITE)])
    assert vm.frontend.wait_bytes(head, answer) != NO
    head = offer_indirect(vm, [*whole, (0, large, 0), (answer, 8, WRITE)])
    assert vm.frontend.wait_bytes(head, answer) == NO


def test_an_answer_in_many_pieces_keeps_few(vm: ToyVm) -> None:
    """A chain that waits for its answer holds its room for it."""
    at = vm.frontend.allocate(4096)
    vm.frontend.memory[at] = ord("K")
    offer_indirect(vm, [(at, 1, 0), *[(at + 8, 1, WRITE)] * (MAX_DESCRIPTORS - 1)])
    vm.settle()
    (kept,) = vm.device.kept
    assert len(kept.writable) <= virtqueue.MAX_WRITABLE
    assert not kept.readable
    vm.on_loop(lambda: kept.respond(b"x" * 4096))
    assert vm.frontend.queues[0].wait_used()[1] == len(kept.writable)


def test_long_chains_by_the_queue_fill_it_and_no_more(vm: ToyVm) -> None:
    """A queue whose front-end breaks it by stopping in between is whole again."""
    ring: Ring = vm.frontend.queues[0]
    for index in range(QUEUE_SIZE):
        ring.write_descriptor(index, GUEST_BASE, 1, NEXT, (index + 1) % QUEUE_SIZE)
    ring.offer(0)
    ring.error.wait()
    vm.frontend.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 0))
    vm.frontend.stop_queues()
    vm.frontend.start()
    assert vm.echo(b"hello") == b"HELLO"


# A queue that is full.


def test_a_queue_that_stays_full_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets a request in; the device gives answers that it has kept."""
    monkeypatch.setattr(queue_set, "STARVED_AFTER", 0.01)
    vm = ToyVm()
    vm.frontend.start()
    vm.frontend.heap = 0x20000
    posted = [vm.frontend.post(b"K", response_size=64) for _ in range(QUEUE_SIZE - 1)]
    vm.settle()
    assert vm.device.starvings == 0
    posted.append(vm.frontend.post(b"K", response_size=64))
    head, answer = posted[0]
    assert vm.frontend.wait_bytes(head, answer) == YES
    assert vm.echo(b"hello") == b"HELLO"
    vm.close()


# Descriptors.


def test_without_descriptors_a_front_end_is_turned_away(tmp_path: os.PathLike[str]) -> None:
    """It does not stay in the queue, where it would be news for ever."""
    loop = EventLoop()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(tmp_path, "socket"))
    listener.listen()
    server = DeviceServer(listener, ToyDevice(1), loop)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in clients:
        client.settimeout(PATIENCE)
        client.connect(listener.getsockname())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        for _ in clients[1:]:
            loop.run_once(PATIENCE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [client.recv(1) for client in clients[:2]] == [b"", b""]
    loop.run_once(PATIENCE)
    assert server.backend is not None
    server.close()
    loop.close()
    for each in (listener, *clients):
        each.close()
