"""Several clients at once, each with several rings and a socket, on everything that threads share.

`scripts/race` runs it for longer, under the thread sanitizer: what it finds no test here would.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hesper.kernel.views import Scratch
from hesper.protocol.codec import Codec
from kernel.conftest import BUFFER, COMMAND_BUFFER, wait_for
from kernel.ring_guest import IDLE
from kernel.served import QUEUE, RING_IDX, Served, expect

CLIENTS, RINGS = 3, 3
ROUNDS = int(os.environ.get("HESPER_STRESS_ROUNDS", "5"))
BATCH = 40
MOST_SUBMISSIONS = 4000
"""The driver has room for some more."""
SIZE, HEAD, TAIL, STATUS, STREAM = 1 << 14, 0, 64, 128, 192
EXTRA = STREAM + SIZE
CODEC = Codec()


class Lane:
    """One ring of a client, and a thread that fills it."""

    def __init__(self, served: Served, number: int) -> None:
        engine = served.host.engine
        self.served = served
        self.number = number
        self.memory = ctypes.create_string_buffer(EXTRA + 12)
        self.base = (ctypes.addressof(self.memory) + 7) & ~7
        engine.resources.add(100 + number, self.base, EXTRA + 4)
        self.tail = 0
        layout = {
            "resourceId": 100 + number, "offset": 0, "size": EXTRA + 4, "idleTimeout": 200_000,
            "headOffset": HEAD, "tailOffset": TAIL, "statusOffset": STATUS,
            "bufferOffset": STREAM, "bufferSize": SIZE, "extraOffset": EXTRA, "extraSize": 4,
        }  # fmt: skip
        info = Scratch().new("VkRingCreateInfoMESA", **layout)
        engine.rings.create(200 + number, info, alive_interval_us=3_000_000)
        self.draw = CODEC.encode(
            "vkCmdDraw", {"commandBuffer": COMMAND_BUFFER, "vertexCount": 3, "instanceCount": 1}
        )

    def word(self, offset: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(self.base + offset)

    def send(self, data: bytes) -> None:
        """Write it, in two pieces where the buffer ends, and tell."""
        at = self.tail % SIZE
        first = data[: SIZE - at]
        ctypes.memmove(self.base + STREAM + at, first, len(first))
        ctypes.memmove(self.base + STREAM, data[len(first) :], len(data) - len(first))
        self.tail += len(data)
        self.word(TAIL).value = self.tail & 0xFFFFFFFF
        if self.word(STATUS).value & IDLE:
            notify = CODEC.encode("vkNotifyRingMESA", {"ring": 200 + self.number})
            self.served.client.submit((notify, [], None))

    def wait(self) -> None:
        wait_for(lambda: self.word(HEAD).value == self.tail & 0xFFFFFFFF, "the ring to be drained")

    def work(self) -> None:
        """Rounds of draws, of objects that come and go, and of looks at those of all."""
        first = 1000 * (self.number + 1)
        for _ in range(ROUNDS):
            made = b"".join(
                CODEC.encode(
                    "vkCreateBuffer",
                    {"device": 3, "pCreateInfo": {"size": 64}, "pBuffer": first + i},
                )
                for i in range(BATCH)
            )
            gone = b"".join(
                CODEC.encode("vkDestroyBuffer", {"device": 3, "buffer": first + i})
                for i in range(BATCH)
            )
            for data in (made, self.draw * BATCH, gone):
                self.send(data)
                self.wait()


@contextmanager
def threads(*targets: Callable[[], object]) -> Iterator[None]:
    """Run them all until the end of the block and theirs; the first failure is raised."""
    failures: list[BaseException] = []

    def run(target: Callable[[], object]) -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=run, args=[target]) for target in targets]
    for one in running:
        one.start()
    try:
        yield
    finally:
        for one in running:
            one.join()
    if failures:
        raise failures[0]


def submissions(served: Served) -> None:
    """What a client does on its socket: submit, and wait for a sync."""
    for value in range(1, min(ROUNDS * 10, MOST_SUBMISSIONS)):
        sync = served.client.sync(0)
        served.submit(QUEUE, RING_IDX, sync, value)
        served.client.ask_to_wait([(sync, value)])
        answer = served.client.wait_answer()
        served.finish()
        expect(answer)


def looks(served: Served, stop: threading.Event) -> None:
    """What else looks at a context while it works."""
    engine = served.host.engine
    while not stop.is_set():
        assert engine.statistics()["objects"] >= CLIENTS
        assert engine.objects.lookup(BUFFER, "VkBuffer")
        assert engine.objects.all(type="VkBuffer")
        assert len(engine.rings) <= RINGS


def test_all_of_it_at_once(queue_driver: Path, tmp_path: Path) -> None:
    # A driver's state is its own, as in a worker's process.
    drivers = [Path(shutil.copy(queue_driver, tmp_path / f"{n}.so")) for n in range(CLIENTS)]
    clients = [Served(driver, patience=n * 200_000) for n, driver in enumerate(drivers)]
    engines = [served.host.engine for served in clients]
    stop = threading.Event()
    try:
        lanes = [Lane(served, number) for served in clients for number in range(RINGS)]
        with threads(
            *(partial(looks, served, stop) for served in clients),
            *(partial(engine.sample, 100_000) for engine in engines),
        ):
            try:
                with threads(
                    *(lane.work for lane in lanes),
                    *(partial(submissions, served) for served in clients),
                ):
                    pass
            finally:
                stop.set()
                for engine in engines:
                    engine.stop()
    finally:
        for served in clients:
            served.close()
    assert all(served.host.fatal == [] and served.failure is None for served in clients)
