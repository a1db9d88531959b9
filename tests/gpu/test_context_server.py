"""A worker's end of its device's socket: each message, wrong ones, and what comes from threads."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import get_args

import msgspec
import pytest

from hesper.figures import Account, Figures, Held
from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import Down, Up
from hesper.gpu.server import Server
from hesper.gpu.wire import Response
from hesper.gpu.worker import ContextWorker
from hesper.guest import Context
from hesper.host.drivers import choose_driver
from hesper.isolation.service import ClientError
from hesper.kernel.errors import (
    InvalidParameterError,
    InvalidResourceError,
    OutOfMemoryError,
    ProtocolError,
    ResourceError,
)
from hesper.kernel.port import Port
from hesper.portable import FRAME, MAX_MESSAGE, SharedMemory, page_size, recv_message, send_message
from hesper.protocol.codec import Codec
from hesper.protocol.virtgpu import MAP_CACHE_CACHED
from open_files import assert_closed_since, open_files

BOUND = 120.0
CODEC = Codec()
OTHER = 99
"""A kind of message that is none."""


class FakeContext:
    """Notes what it is asked to do, all of it in Python; refuses what is above its limits."""

    def __init__(self) -> None:
        self.submitted: list[bytes] = []
        self.fences: list[tuple[int, Callable[..., None]]] = []
        self.blobs: dict[int, SharedMemory] = {}
        self.asked: list[tuple[int, int, int, int]] = []
        self.error: Exception | None = None
        self.port = Port(
            submit=self._submit,
            fence=self._fence,
            create_blob=self._create,
            destroy_blob=self._drop,
        )

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _submit(self, data: memoryview) -> None:
        self.submitted.append(bytes(data))
        self._check()

    def _fence(self, ring_idx: int, retired: Callable[..., None]) -> None:
        self._check()
        if ring_idx:
            self.fences.append((ring_idx, retired))
        else:
            retired()

    def _create(self, resource_id: int, blob_id: int, size: int, flags: int) -> int:
        self.asked.append((resource_id, blob_id, size, flags))
        self._check()
        self.blobs[resource_id] = SharedMemory.create(size, "blob")
        return self.blobs[resource_id].fd

    def _drop(self, resource_id: int) -> None:
        if resource_id not in self.blobs:
            raise InvalidResourceError(f"no resource {resource_id}")
        self.blobs.pop(resource_id).close()


class Owner:
    """What a worker does about refusals, noted."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, Exception]] = []

    def blob_refused(self, error: Exception) -> int:
        self.refused.append(("blob", error))
        return Response.ERR_OUT_OF_MEMORY

    def resource_refused(self, error: Exception) -> None:
        self.refused.append(("resource", error))

    def timeline_refused(self, error: Exception) -> None:
        self.refused.append(("timeline", error))


class Served:
    """A server on a thread, and the device that it serves."""

    def __init__(self) -> None:
        self.device, self.theirs = socket.socketpair()
        self.device.settimeout(BOUND)
        self.context = FakeContext()
        self.owner = Owner()
        self.left: list[tuple[int, bytes, list[int]]] = []
        self.failure: Exception | None = None
        self.server = Server(self.theirs.fileno(), self.owner)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.server.attach(self.context.port)
        try:
            while (message := self.server.next()) is not None:
                kind, body, fds = message
                self.left.append((kind, bytes(body), fds))
                # So that a test knows when everything before that is done.
                self.server.send(OTHER, bytes(body)[:8])
        except (OSError, ResourceError, ProtocolError) as error:
            self.failure = error
            self.theirs.shutdown(socket.SHUT_RDWR)

    def say(self, kind: int, body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        send_message(self.device, wire.KIND.pack(kind) + body, fds)

    def hear(self) -> tuple[int, bytes, list[int]]:
        message = recv_message(self.device)
        assert message is not None
        (kind,) = wire.KIND.unpack_from(message[0])
        return kind, message[0][wire.KIND.size :], message[1]

    def flush(self) -> None:
        """Return when everything sent so far is done."""
        self.say(OTHER, b"flush")
        assert self.hear() == (OTHER, b"flush", [])

    def end(self) -> Exception | None:
        """Hang up and return how the server has ended."""
        with contextlib.suppress(OSError):
            self.device.shutdown(socket.SHUT_WR)
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        return self.failure

    def close(self) -> None:
        self.end()
        self.server.close()
        self.device.close()
        self.theirs.close()
        for blob in self.context.blobs.values():
            blob.close()
        for _, _, fds in self.left:
            for fd in fds:
                os.close(fd)


@pytest.fixture
def served() -> Iterator[Served]:
    before = open_files()
    one = Served()
    yield one
    one.close()
    assert_closed_since(before)


def test_commands_of_any_size_are_run_in_order(served: Served) -> None:
    sizes = [1, 3, 4, 0, 70_000, 5, wire.MAX_SUBMIT, 8]
    commands = [os.urandom(size) for size in sizes]
    for each in commands:
        served.say(Down.SUBMIT, each)
    served.flush()
    assert served.context.submitted == [each for each in commands if each]
    assert served.end() is None


def test_a_fence_is_answered_when_its_timeline_gets_there(served: Served) -> None:
    served.say(Down.FENCE, wire.FENCE.pack(0, 1 << 40))
    assert served.hear() == (Up.RETIRED, wire.RETIRED.pack(1 << 40), [])
    served.say(Down.FENCE, wire.FENCE.pack(3, 2))
    served.say(Down.FENCE, wire.FENCE.pack(5, 3))
    served.flush()
    (three, retire_2), (five, retire_3) = served.context.fences
    assert (three, five) == (3, 5)
    retire_3()
    assert served.hear() == (Up.RETIRED, wire.RETIRED.pack(3), [])
    retire_2(lost=True)
    assert served.hear() == (Up.RETIRED, wire.RETIRED.pack(2), [])


def test_a_timeline_that_is_not_there_ends_the_context_and_its_fence(served: Served) -> None:
    served.context.error = InvalidParameterError("timeline 9")
    served.say(Down.FENCE, wire.FENCE.pack(9, 4))
    assert served.hear() == (Up.RETIRED, wire.RETIRED.pack(4), [])
    assert served.owner.refused == [("timeline", served.context.error)]


def test_a_blob_comes_with_its_descriptor(served: Served) -> None:
    asked = wire.CreateBlob(serial=7, resource_id=8, flags=1, blob_id=1 << 40, size=page_size())
    served.say(Down.CREATE_BLOB, wire.CREATE_BLOB.pack(*asked))
    kind, body, (fd,) = served.hear()
    assert (kind, wire.BLOB.unpack(body)) == (
        Up.BLOB,
        (7, Response.OK_NODATA, MAP_CACHE_CACHED),
    )
    assert os.fstat(fd).st_ino == os.fstat(served.context.blobs[8].fd).st_ino
    os.close(fd)
    assert served.context.asked == [(8, 1 << 40, page_size(), 1)]
    served.say(Down.DESTROY, wire.DESTROY.pack(8))
    served.say(Down.DESTROY, wire.DESTROY.pack(8))
    served.flush()
    assert not served.context.blobs
    assert [what for what, _ in served.owner.refused] == ["resource"]
    assert not served.server.destroying


def test_a_blob_that_is_refused_is_answered(served: Served) -> None:
    served.context.error = OutOfMemoryError("no room")
    served.say(Down.CREATE_BLOB, wire.CREATE_BLOB.pack(7, 8, 1, 0, 4096))
    kind, body, fds = served.hear()
    assert (kind, fds) == (Up.BLOB, [])
    assert wire.BLOB.unpack(body) == (7, Response.ERR_OUT_OF_MEMORY, 0)
    assert served.owner.refused == [("blob", served.context.error)]


def test_other_messages_are_left_to_python_with_their_descriptors(served: Served) -> None:
    with SharedMemory.create(page_size(), "one") as one, SharedMemory.create(1, "two") as two:
        served.say(Down.SUBMIT, b"abcd")
        served.say(Down.IMPORT, wire.IMPORT.pack(1, 100), (one.fd,))
        served.say(Down.FIGURES)
        served.say(Down.IMPORT, wire.IMPORT.pack(2, 100), (two.fd,))
        for _ in range(3):
            assert served.hear()[0] == OTHER
        kinds = [kind for kind, _, _ in served.left]
        assert kinds == [Down.IMPORT, Down.FIGURES, Down.IMPORT]
        for (_, _, fds), memory in zip(served.left[::2], (one, two), strict=True):
            assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(memory.fd).st_ino]
            assert not any(os.get_inheritable(fd) for fd in fds)
    assert served.left[0][1] == wire.IMPORT.pack(1, 100)


def test_descriptors_that_a_served_message_brings_are_closed(served: Served) -> None:
    with SharedMemory.create(1, "unwanted") as memory:
        served.say(Down.SUBMIT, b"abcd", (memory.fd, memory.fd))
        served.flush()
    assert served.context.submitted == [b"abcd"]


@pytest.mark.parametrize("piece", [1, 7, 13, 4096])
def test_messages_in_pieces_are_served(served: Served, piece: int) -> None:
    commands = [os.urandom(size) for size in (5, 300, 18)]
    stream = b"".join(frame(Down.SUBMIT, each) for each in commands)
    for at in range(0, len(stream), piece):
        served.device.sendall(stream[at : at + piece])
    served.flush()
    assert served.context.submitted == commands


def frame(kind: int, body: bytes = b"", *, fds: int = 0) -> bytes:
    return FRAME.pack(wire.KIND.size + len(body), fds) + wire.KIND.pack(kind) + body


WRONG = {
    "1048577 are too many": FRAME.pack(MAX_MESSAGE + 1, 0) + bytes(4),
    "4294967295 are too many": FRAME.pack(0xFFFFFFFF, 0) + bytes(4),
    "65 are too many": FRAME.pack(4, 65) + bytes(4),
    "a message of 3 bytes has no kind": FRAME.pack(3, 0) + bytes(4),
    "a message of 0 bytes has no kind": FRAME.pack(0, 0) + bytes(4),
    "1 descriptors are announced, 0 came": frame(Down.IMPORT, wire.IMPORT.pack(1, 1), fds=1),
    "message 6 has 4 bytes": frame(Down.FENCE),
    "message 6 has 17 bytes": frame(Down.FENCE, bytes(13)),
    "message 3 has 31 bytes": frame(Down.CREATE_BLOB, bytes(27)),
    "message 5 has 12 bytes": frame(Down.DESTROY, bytes(8)),
    "the stream ended after 3 of 12 bytes": b"abc",
    "the stream ended after 15 of 112 bytes": frame(Down.SUBMIT, bytes(100))[:15],
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_message_ends_it_with_one_reason(served: Served, reason: str) -> None:
    served.say(Down.SUBMIT, b"abcd")
    served.device.sendall(WRONG[reason])
    failure = served.end()
    assert isinstance(failure, ConnectionError)
    assert str(failure).startswith(reason)
    assert served.context.submitted == [b"abcd"]


def test_descriptors_of_no_message_end_it(served: Served) -> None:
    with SharedMemory.create(1, "unwanted") as memory:
        socket.send_fds(served.device, [frame(OTHER)], [memory.fd])
    assert "1 descriptors belong to no message" in str(served.end())


def test_too_many_descriptors_end_it(served: Served) -> None:
    with SharedMemory.create(1, "many") as memory:
        socket.send_fds(served.device, [frame(OTHER, fds=64)], [memory.fd] * 65)
    assert "a descriptor was lost" in str(served.end())


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_end_it_with_one_reason(served: Served, seed: int) -> None:
    generator = random.Random(seed)
    stream = bytearray()
    for _ in range(200):
        kind, size = generator.randrange(9), generator.choice([0, 4, 8, 12, 28, 61])
        stream += frame(kind, generator.randbytes(size), fds=generator.randrange(50) == 0)
    sender = threading.Thread(target=send_all, args=[served.device, bytes(stream)])
    sender.start()
    with contextlib.suppress(OSError):
        while True:
            data, fds, _, _ = socket.recv_fds(served.device, 65536, 16)
            for fd in fds:
                os.close(fd)
            if not data:
                break
    sender.join(BOUND)
    failure = served.end()
    assert "\n" not in str(failure)


def send_all(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def test_fences_retire_in_another_thread_while_the_socket_is_full(served: Served) -> None:
    """The device hears all of it, each message in one piece, as soon as it listens again."""
    count = 30_000
    for serial in range(count):
        served.say(Down.FENCE, wire.FENCE.pack(1, serial))
    served.flush()

    def retire() -> None:
        for _, retired in served.context.fences:
            retired()

    thread = threading.Thread(target=retire)
    thread.start()
    wait_until(lambda: not has_room(served.theirs))
    served.say(Down.FENCE, wire.FENCE.pack(0, count))
    served.say(Down.CREATE_BLOB, wire.CREATE_BLOB.pack(7, 8, 1, 0, 4096))
    assert thread.is_alive()
    heard = [served.hear() for _ in range(count + 2)]
    thread.join(BOUND)
    serials = [wire.RETIRED.unpack(body)[0] for kind, body, _ in heard if kind == Up.RETIRED]
    assert sorted(serials) == list(range(count + 1))
    assert [serial for serial in serials if serial != count] == list(range(count))
    for _, _, fds in heard:
        for fd in fds:
            os.close(fd)


def wait_until(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(BOUND * 100)):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it does not become so")


def has_room(sock: socket.socket) -> bool:
    """Whether something can be sent."""
    return bool(select.select([], [sock], [], 0)[1])


def test_a_fence_may_outlive_the_socket(served: Served) -> None:
    served.say(Down.FENCE, wire.FENCE.pack(1, 1))
    served.flush()
    ((_, retired),) = served.context.fences
    assert served.end() is None
    served.server.close()
    retired()
    assert not select.select([served.device], [], [], 0)[0]


# A worker, with a context.


class Worked:
    """A worker on a thread with a context of its own on a real driver."""

    def __init__(self, *, by_kernel: bool) -> None:
        self.device, theirs = socket.socketpair()
        self.device.settimeout(BOUND)
        self.error: Exception | None = None
        self.ended: list[str] = []
        self.worker = ContextWorker(theirs, self.ended.append)
        self.context = Context(choose_driver("lavapipe"), name="test", on_fatal=self.worker.fatal)
        if not by_kernel:
            self.context.port = in_python(self.context)
        self._theirs = theirs
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run(self.context)
        except (ClientError, ConnectionError) as error:
            self.error = error
        self.context.close()
        self.worker.close()
        self._theirs.close()

    def ask(self, kind: int, body: bytes = b"") -> tuple[int, bytes, int]:
        """Send a message; return what is answered, and how many descriptors come along."""
        send_message(self.device, wire.KIND.pack(kind) + body)
        return self.hear()

    def hear(self) -> tuple[int, bytes, int]:
        message = recv_message(self.device)
        assert message is not None
        for fd in message[1]:
            os.close(fd)
        (kind,) = wire.KIND.unpack_from(message[0])
        return kind, message[0][wire.KIND.size :], len(message[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.device.shutdown(socket.SHUT_RDWR)
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        self.device.close()


def in_python(context: Context) -> Port:
    """What a context does without the kernel's ways to make blobs and to forget them."""
    engine = context.engine
    return Port(
        submit=engine.submit,
        fence=lambda ring_idx, retired: engine_fence(context, ring_idx, retired),
        create_blob=context._create_blob,  # noqa: SLF001
        destroy_blob=context.resources.destroy,
    )


def engine_fence(context: Context, ring_idx: int, retired: Callable[[], None]) -> None:
    try:
        context.engine.fence(ring_idx, retired)
    except KeyError:
        raise InvalidParameterError(f"timeline {ring_idx} is bound to no queue") from None


INSTANCE, PHYSICAL_DEVICE, DEVICE, QUEUE, MEMORY, RING_IDX = 1, 2, 3, 4, 5, 1
REPLIES, REPLY_SIZE, SIZE = 7, 1 << 20, 64 << 10


def start(worked: Worked) -> None:
    """Make a device, a queue with a timeline, and memory."""

    def run(name: str, **parameters: object) -> None:
        reply = name.startswith(("vkCreate", "vkAllocate"))
        commands = CODEC.encode(name, parameters, reply=reply)
        send_message(worked.device, wire.KIND.pack(Down.SUBMIT) + commands)

    blob = wire.CREATE_BLOB.pack(0, REPLIES, 1, 0, REPLY_SIZE)
    assert worked.ask(Down.CREATE_BLOB, blob)[2] == 1
    run("vkSetReplyCommandStreamMESA", pStream={"resourceId": REPLIES, "size": REPLY_SIZE})
    application = {"pApplicationInfo": {"apiVersion": 1 << 22 | 3 << 12}}
    run("vkCreateInstance", pCreateInfo=application, pInstance=INSTANCE)
    run(
        "vkEnumeratePhysicalDevices",
        instance=INSTANCE,
        pPhysicalDeviceCount=1,
        pPhysicalDevices=[PHYSICAL_DEVICE],
    )
    queues = [{"queueFamilyIndex": 0, "queueCount": 1, "pQueuePriorities": [1.0]}]
    info = {"queueCreateInfoCount": 1, "pQueueCreateInfos": queues}
    run("vkCreateDevice", physicalDevice=PHYSICAL_DEVICE, pCreateInfo=info, pDevice=DEVICE)
    timeline = ("VkDeviceQueueTimelineInfoMESA", {"ringIdx": RING_IDX})
    run("vkGetDeviceQueue2", device=DEVICE, pQueueInfo={"pNext": [timeline]}, pQueue=QUEUE)
    allocation = {"allocationSize": SIZE, "memoryTypeIndex": 0}
    run("vkAllocateMemory", device=DEVICE, pAllocateInfo=allocation, pMemory=MEMORY)


def conversation(worked: Worked) -> list[tuple[int, bytes, int]]:
    """Ask for everything, right and wrong, and return the answers."""
    start(worked)
    heard = []
    for serial, (resource, flags, blob_id, size) in enumerate(
        [
            (10, 1, MEMORY, SIZE),
            (10, 1, MEMORY, SIZE),
            (0, 1, MEMORY, SIZE),
            (11, 8, MEMORY, SIZE),
            (11, 1, MEMORY, 0),
            (11, 1, MEMORY, SIZE * 64),
            (11, 1, MEMORY + 1, SIZE),
            (11, 1, 0, 1 << 60),
            (11, 7, MEMORY, SIZE),
            (12, 1, 0, SIZE),
        ]
    ):
        asked = wire.CREATE_BLOB.pack(serial, resource, flags, blob_id, size)
        heard.append(worked.ask(Down.CREATE_BLOB, asked))
    for resource in (10, 10, 11, 12, 99):
        send_message(worked.device, wire.KIND.pack(Down.DESTROY) + wire.DESTROY.pack(resource))
    heard.append(worked.ask(Down.CREATE_BLOB, wire.CREATE_BLOB.pack(20, 10, 1, MEMORY, SIZE)))
    commands = CODEC.encode(
        "vkQueueSubmit", {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": 0}
    )
    send_message(worked.device, wire.KIND.pack(Down.SUBMIT) + commands)
    heard += [worked.ask(Down.FENCE, wire.FENCE.pack(RING_IDX, 30))]
    heard += [worked.ask(Down.FENCE, wire.FENCE.pack(0, 31))]
    # A timeline that is bound to nothing ends the context.
    heard += [worked.ask(Down.FENCE, wire.FENCE.pack(9, 32)), worked.hear()]
    return heard


@pytest.mark.parametrize("by_kernel", [True, False], ids=["kernel", "python"])
def test_both_ways_give_the_same_answers(by_kernel: bool) -> None:
    worked = Worked(by_kernel=by_kernel)
    heard = conversation(worked)
    worked.close()
    blobs = [(*struct.unpack("=III", body), fds) for kind, body, fds in heard if kind == Up.BLOB]
    ok, invalid = Response.OK_NODATA, Response.ERR_INVALID_PARAMETER
    wrong_id = Response.ERR_INVALID_RESOURCE_ID
    expected = [ok, wrong_id, wrong_id, *[invalid] * 4, Response.ERR_OUT_OF_MEMORY, ok, ok, ok]
    assert [response for _, response, _, _ in blobs] == expected
    assert [serial for serial, _, _, _ in blobs] == [*range(10), 20]
    for _, response, map_info, fds in blobs:
        assert (map_info, fds) == ((MAP_CACHE_CACHED, 1) if response == ok else (0, 0))
    assert heard[-4:] == [
        (Up.RETIRED, wire.RETIRED.pack(30), 0),
        (Up.RETIRED, wire.RETIRED.pack(31), 0),
        (Up.FATAL, b"timeline 9 is bound to no queue", 0),
        (Up.RETIRED, wire.RETIRED.pack(32), 0),
    ]
    assert str(worked.error) == "timeline 9 is bound to no queue"


def test_commands_that_break_the_protocol_end_the_context() -> None:
    worked = Worked(by_kernel=True)
    kind, reason, _ = worked.ask(Down.SUBMIT, struct.pack("<II", 0xFFFF, 0))
    assert kind == Up.FATAL
    # What follows is not run, and a fence is retired all the same.
    send_message(worked.device, wire.KIND.pack(Down.SUBMIT) + bytes(8))
    assert worked.ask(Down.FENCE, wire.FENCE.pack(0, 5)) == (Up.RETIRED, wire.RETIRED.pack(5), 0)
    worked.close()
    assert str(worked.error) == reason.decode()


def test_a_trace_has_what_the_queue_did() -> None:
    worked = Worked(by_kernel=True)
    work = {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": 0}
    try:
        start(worked)
        with SharedMemory.create(1 << 16, "trace") as memory:
            trace = wire.KIND.pack(Down.TRACE) + wire.TRACE.pack(BOUND)
            send_message(worked.device, trace, [memory.fd])
            spans: list[tuple[int, ...]] = []
            for serial in range(1, 1000):
                commands = CODEC.encode("vkQueueSubmit", work)
                send_message(worked.device, wire.KIND.pack(Down.SUBMIT) + commands)
                fence = wire.FENCE.pack(RING_IDX, serial)
                assert worked.ask(Down.FENCE, fence)[0] == Up.RETIRED
                spans = list(struct.iter_unpack("=QQIIQ", memory.view[: 1 << 15]))
                if any(kind == 2 for _, _, kind, _, _ in spans):
                    break
            tracks = {track for _, _, kind, track, _ in spans if kind == 2}
            assert tracks == {RING_IDX}
            seen = msgspec.json.decode(worked.ask(Down.FIGURES, wire.FIGURES.pack(1.0))[1])
            assert seen["submissions"] >= 1
    finally:
        worked.close()


def test_a_trace_wants_memory() -> None:
    worked = Worked(by_kernel=True)
    try:
        start(worked)
        send_message(worked.device, wire.KIND.pack(Down.TRACE) + wire.TRACE.pack(1.0))
        worked._thread.join(BOUND)  # noqa: SLF001
        assert isinstance(worked.error, ConnectionError)
    finally:
        worked.close()


def test_figures_are_what_the_ledger_says() -> None:
    worked = Worked(by_kernel=True)
    try:
        start(worked)
        kind, body, _ = worked.ask(Down.FIGURES, wire.FIGURES.pack(0.0))
        assert kind == Up.FIGURES
        figures = msgspec.json.decode(body, type=Figures)
        limits, ledger = worked.context.limits, worked.context.engine.ledger.figures()
        assert figures.limit == limits.most_memory
        assert set(figures.accounts) == set(get_args(Account))
        assert figures.accounts == {name: ledger[name] for name in figures.accounts}
        assert set(figures.held) == set(get_args(Held))
        assert figures.held["devices"] == (1, limits.devices)
        for name, (_, most) in figures.held.items():
            assert most == getattr(limits, name)
        assert figures.doing[0][0] == "asleep"
    finally:
        worked.close()
