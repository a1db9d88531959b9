"""What all clients of a server may have together: shared out, told truly, and never passed."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_guest import CODEC, DEVICE, MIB, PHYSICAL, Hostile
from supervised import Supervised, until

from hesper.isolation import total
from hesper.isolation.lease import STEP, Lease
from hesper.isolation.total import FIRST, SLACK, UNCOUNTED, Total
from hesper.limits import KEPT_PART, Limits
from hesper.protocol.codec import Reader
from hesper.vk.enumerants import VK_ERROR_OUT_OF_DEVICE_MEMORY, VK_SUCCESS

Serve = Callable[..., Supervised]
SIZE = 1024 * MIB
KEPT = SIZE // KEPT_PART


@pytest.fixture
def shared() -> Iterator[Total[str]]:
    one: Total[str] = Total(SIZE)
    yield one
    one.close()


def published(one: Total[str]) -> tuple[int, int]:
    """What workers read."""
    with mmap.mmap(one.fd, 16, prot=mmap.PROT_READ) as page:
        numbers = memoryview(page).cast("Q")
        found = numbers[0], numbers[1]
        numbers.release()
    return found


def test_a_lease_grows_and_is_taken_back(shared: Total[str]) -> None:
    assert shared.begin("a") == FIRST
    assert shared.left == SIZE - FIRST - SLACK
    assert shared.grow("a", 100 * MIB) == 100 * MIB
    assert shared.grow("a", 50 * MIB) == 100 * MIB
    shared.shrink("a", 200 * MIB)
    assert shared.granted("a") == 100 * MIB
    shared.shrink("a", 30 * MIB)
    assert published(shared) == (SIZE, SIZE - 30 * MIB - SLACK)
    shared.end("a")
    shared.end("a")
    assert published(shared) == (SIZE, SIZE)


def test_the_last_eighth_is_for_those_who_have_less(shared: Total[str]) -> None:
    shared.begin("greedy")
    most = SIZE - KEPT - SLACK
    assert shared.grow("greedy", SIZE * 2) == most
    assert shared.begin("modest") == FIRST
    assert shared.grow("modest", KEPT * 2) == KEPT - SLACK
    assert shared.left == 0
    assert shared.begin("late") == 0
    assert shared.grow("late", 1) == 0
    assert shared.grow("greedy", SIZE) == most


def test_whatever_is_asked_no_more_is_granted_than_there_is(shared: Total[str]) -> None:
    generator = random.Random(7)
    there: set[str] = set()
    for _ in range(2000):
        who = f"{generator.randrange(8)}"
        size = generator.choice([-1, 0, 1, 1 << 70, generator.randrange(SIZE)])
        if who not in there:
            shared.begin(who)
            there.add(who)
        elif generator.random() < 0.1:
            shared.end(who)
            there.discard(who)
        elif generator.random() < 0.5:
            shared.grow(who, size)
        else:
            shared.shrink(who, size)
        granted = sum(max(0, shared.granted(one)) for one in there)
        assert granted <= SIZE
        assert published(shared) == (SIZE, shared.left)


def test_workers_can_read_what_is_left_and_not_write_it(shared: Total[str]) -> None:
    with pytest.raises(OSError, match=r"denied|permitted"):
        mmap.mmap(shared.fd, 16)
    with pytest.raises(OSError, match=r"denied|permitted|Bad file"):
        os.pwrite(shared.fd, bytes(16), 0)
    assert published(shared) == (SIZE, SIZE)


def test_who_has_more_than_was_granted_is_found_where_memory_is_short(
    shared: Total[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.begin("honest")
    shared.grow("honest", 800 * MIB)
    shared.begin("liar")
    honest = 800 * MIB + UNCOUNTED
    monkeypatch.setattr(total, "available_memory", lambda: 1 << 60)
    assert shared.liar({"honest": honest - 1, "liar": FIRST}) is None
    lies = {"honest": honest, "liar": UNCOUNTED + FIRST + SLACK + 1}
    assert shared.liar(lies) == "liar"
    assert shared.liar({"liar": lies["liar"]}) is None
    monkeypatch.setattr(total, "available_memory", lambda: 0)
    assert shared.liar({"liar": lies["liar"]}) == "liar"
    assert shared.liar({}) is None


class FakeLedger:
    """What a lease bounds."""

    def __init__(self) -> None:
        self.asks = self.used = self.missing = 0
        self.granted: list[tuple[int, int]] = []

    def borrow(self, *_: int) -> None:
        """Be bounded."""

    def wanted(self) -> tuple[int, int, int]:
        return self.asks, self.used, self.missing

    def grant(self, lease: int, asks: int) -> None:
        self.granted.append((lease, asks))

    def give_back(self, lease: int) -> bool:
        return self.used <= lease


def test_a_lease_is_asked_for_once_and_given_back_when_it_is_not_wanted(
    shared: Total[str],
) -> None:
    lease = Lease(FIRST, SLACK, os.dup(shared.fd))
    ledger: Any = FakeLedger()
    lease.lend(ledger)
    assert lease.question() is None
    assert lease.patience is None
    ledger.asks, ledger.missing = 2, 100 * MIB
    assert lease.question() == {"lease": 100 * MIB + STEP}
    ledger.asks = 3
    assert lease.question() is None  # it has not been answered
    lease.answer(116 * MIB)
    assert ledger.granted == [(116 * MIB, 2)]
    ledger.used, ledger.missing = 100 * MIB, 20 * MIB
    assert lease.question() == {"lease": 136 * MIB}
    lease.answer(120 * MIB)
    lease.answer(999 * MIB)  # nobody has asked
    ledger.used, ledger.missing = 120 * MIB, 0
    assert lease.patience
    assert (lease.size, lease.question(), lease.rest(), lease.rest()) == (
        120 * MIB, None, None, None,
    )  # fmt: skip
    ledger.used = 0
    assert (lease.rest(), lease.rest(), lease.rest()) == (None, FIRST, None)
    assert lease.patience is None


def test_where_there_is_no_more_it_is_not_asked_for_again_and_again(shared: Total[str]) -> None:
    """What commands decode to may pass a lease, and nobody waits for anything then."""
    lease = Lease(FIRST, SLACK, os.dup(shared.fd))
    ledger: Any = FakeLedger()
    lease.lend(ledger)
    ledger.used = FIRST + 1
    assert lease.question() == {"lease": FIRST + 1 + STEP}
    lease.answer(FIRST)
    assert lease.question() is None
    # Who waits for something is heard.
    ledger.asks, ledger.missing = 1, MIB
    assert lease.question() == {"lease": FIRST + 1 + MIB + STEP}
    lease.answer(FIRST + MIB)
    ledger.used, ledger.missing = FIRST + MIB + 1, 0
    assert lease.question() == {"lease": FIRST + MIB + 1 + STEP}


def allocate(guest: Hostile, memory: int, size: int) -> int:
    return guest.call(
        "vkAllocateMemory",
        device=DEVICE,
        pAllocateInfo={"allocationSize": size},
        pMemory=memory,
    )


def told(guest: Hostile) -> tuple[int, int, int]:
    """The size of the first heap, its budget and its usage."""
    asked = {
        "physicalDevice": PHYSICAL,
        "pMemoryProperties": {"pNext": [("VkPhysicalDeviceMemoryBudgetPropertiesEXT", {})]},
    }
    name = "vkGetPhysicalDeviceMemoryProperties2"
    seek = CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 0})
    guest.client.submit((seek + CODEC.encode(name, asked, reply=True), [], None))
    guest.client.flush()
    _, _, answer = CODEC.decode_reply(Reader(memoryview(guest.replies)), asked)
    properties = answer["pMemoryProperties"]
    ((_, budget),) = properties["pNext"]
    heap = properties["memoryProperties"]["memoryHeaps"][0]["size"]
    return heap, budget["heapBudget"][0], budget["heapUsage"][0]


def test_all_clients_together_stay_within_the_total(serve: Serve) -> None:
    server = serve("--limit", "total-memory=512M")
    server.ready()
    first, second = Hostile(server), Hostile(server)
    most = 512 * MIB // KEPT_PART * (KEPT_PART - 1)
    heap, budget, _ = told(first)
    assert heap == most
    assert budget <= most
    # Both take turns until neither has room.
    held = [0, 0]
    for number in range(100, 164):
        for index, guest in enumerate((first, second)):
            if allocate(guest, number, 16 * MIB) == VK_SUCCESS:
                held[index] += 16 * MIB
    assert 300 * MIB < sum(held) <= 512 * MIB
    assert min(held) > 100 * MIB
    entry = server.logged("limit reached")
    assert (entry["limit"], entry["most"]) == ("total_memory", 512 * MIB)
    assert entry["option"] == "--limit total_memory"
    assert allocate(first, 500, 64 * MIB) == VK_ERROR_OUT_OF_DEVICE_MEMORY
    # What they are told is what they get.
    _, budget, usage = told(first)
    assert usage == held[0]
    assert budget - usage < 16 * MIB
    # One who goes leaves its part to the other.
    second.client.sock.close()
    until(lambda: sum(told(first)[1:]) >= 2 * held[0] + held[1] // 2, "what the other had")
    assert allocate(first, 600, 64 * MIB) == VK_SUCCESS
    first.client.sock.close()


def test_who_comes_late_is_served_beside_one_who_takes_all(serve: Serve) -> None:
    server = serve("--limit", "total-memory=1G")
    server.ready()
    greedy = Hostile(server)
    number = 100
    while allocate(greedy, number, 32 * MIB) == VK_SUCCESS:
        number += 1
    modest = Hostile(server)
    assert allocate(modest, 100, 48 * MIB) == VK_SUCCESS
    greedy.client.sock.close()
    modest.client.sock.close()


def test_what_is_freed_goes_back(serve: Serve) -> None:
    server = serve("--limit", "total-memory=1G")
    server.ready()
    first, second = Hostile(server), Hostile(server)
    assert allocate(first, 100, 700 * MIB) == VK_SUCCESS
    assert allocate(second, 100, 300 * MIB) == VK_ERROR_OUT_OF_DEVICE_MEMORY
    first.send("vkFreeMemory", device=DEVICE, memory=100)
    until(lambda: allocate(second, 100, 300 * MIB) == VK_SUCCESS, "what the first has freed")
    first.client.sock.close()
    second.client.sock.close()


def test_one_client_may_have_no_more_than_the_total_leaves_it() -> None:
    assert Limits(memory=8 * MIB, total_memory=80 * MIB).most_memory == 8 * MIB
    assert Limits(memory=800 * MIB, total_memory=80 * MIB).most_memory == 70 * MIB
    assert Limits(total_memory=1).most_memory == 1
    plain = Limits()
    assert plain.most_memory == plain.memory < plain.total_memory
