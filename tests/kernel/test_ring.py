"""Rings: what the guest writes is run, what it may not do poisons its context and nobody else's."""

from __future__ import annotations

import ctypes
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.kernel.handlers import Call
from hesper.kernel.views import Scratch
from hesper.protocol.codec import Codec
from kernel.conftest import BOUND, COMMAND_BUFFER, Host, wait_for
from kernel.ring_guest import (
    ALIVE,
    BUFFER,
    EXTRA,
    FATAL,
    HEAD,
    IDLE,
    RESOURCE,
    RING,
    SIZE,
    STATUS,
    TAIL,
    Guest,
)

STREAM_RESOURCE, REPLY_RESOURCE = 8, 9
IMAGE, POOL = 70, 80
ARENA = 1 << 20
"""The limit that `Host` gives its engine."""

CODEC = Codec()
DRAW = CODEC.encode("vkCmdDraw", {"commandBuffer": COMMAND_BUFFER, "vertexCount": 3})


@pytest.fixture(params=[0, 300_000], ids=["few processors", "many"])
def guest(host: Host, request: pytest.FixtureRequest) -> Iterator[Guest]:
    host.engine.set_patience(request.param)
    guest = Guest(host)
    yield guest
    host.engine.stop()


def test_commands_are_run_and_the_head_follows(guest: Guest, draw_count: Callable[[], int]) -> None:
    before = draw_count()
    guest.send(DRAW * 10)
    guest.wait()
    assert draw_count() - before == 10
    assert guest.word(STATUS) & ALIVE


def test_a_ring_without_a_thread_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", start)
        with pytest.raises(ProtocolError, match="no thread for the ring: can't start new thread"):
            Guest(host)
    assert not host.engine.rings
    host.engine.stop()


def test_signs_of_life_are_given_while_the_ring_works_and_while_it_rests(
    fake_driver: Path,
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def stay(_: object) -> None:
        inside.set()
        assert go_on.wait(BOUND)

    host = Host(fake_driver, vkDeviceWaitIdle=stay)
    guest = Guest(host, alive_interval_us=2_000)
    guest.send(CODEC.encode("vkDeviceWaitIdle", {"device": 3}))
    assert inside.wait(BOUND)
    for _ in range(3):
        guest.clear(ALIVE)
        wait_for(lambda: bool(guest.word(STATUS) & ALIVE), "a sign of life")
    go_on.set()
    wait_for(lambda: bool(guest.word(STATUS) & IDLE), "IDLE")
    # A guest that waits for a fence now sends nothing, and wants to see that the host lives.
    for _ in range(3):
        guest.clear(ALIVE)
        wait_for(lambda: bool(guest.word(STATUS) & ALIVE), "a sign of life")
    assert guest.word(STATUS) & IDLE
    host.engine.stop()


def test_the_buffer_wraps_around(guest: Guest, draw_count: Callable[[], int]) -> None:
    before = draw_count()
    push = CODEC.encode("vkCmdDraw", {"commandBuffer": COMMAND_BUFFER}) * 9
    for _ in range(3 * SIZE // len(push)):
        guest.send(push)
        guest.wait()
    assert draw_count() - before == 9 * (3 * SIZE // len(push))
    assert guest.tail > 2 * SIZE


def test_an_idle_ring_says_so_and_wakes_up(guest: Guest, draw_count: Callable[[], int]) -> None:
    for _ in range(20):
        wait_for(lambda: bool(guest.word(STATUS) & IDLE), "IDLE")
        before = draw_count()
        guest.send(DRAW)
        guest.wait()
        assert draw_count() - before == 1


def test_streams_in_other_resources_are_run(
    host: Host, guest: Guest, draw_count: Callable[[], int]
) -> None:
    data = ctypes.create_string_buffer(DRAW * 100, len(DRAW) * 100)
    host.engine.resources.add(STREAM_RESOURCE, ctypes.addressof(data), len(DRAW) * 100)
    before = draw_count()
    streams = [
        {"resourceId": STREAM_RESOURCE, "offset": 0, "size": len(DRAW) * 60},
        {"resourceId": STREAM_RESOURCE, "offset": len(DRAW) * 60, "size": len(DRAW) * 40},
    ]
    command = CODEC.encode(
        "vkExecuteCommandStreamsMESA", {"streamCount": 2, "pStreams": streams, "dependencyCount": 0}
    )
    guest.send(command)
    guest.wait()
    assert draw_count() - before == 100
    host.engine.resources.remove(STREAM_RESOURCE)


def image_copy(data: bytes, count: int) -> bytes:
    """A command that brings `count` times `data` along."""
    regions = [{"dataSize": len(data), "pData": data, "imageExtent": {}, "imageOffset": {}}] * count
    info = {"dstImage": IMAGE, "regionCount": count, "pRegions": regions}
    return CODEC.encode("vkCopyMemoryToImageMESA", {"device": 3, "pCopyMemoryToImageInfo": info})


def test_a_command_may_bring_more_than_the_arena_holds(fake_driver: Path) -> None:
    found: list[int] = []

    def take(call: Call) -> None:
        regions = call.args.pCopyMemoryToImageInfo.pRegions
        found.append(sum(region.dataSize for region in regions))

    host = Host(fake_driver, vkCopyMemoryToImageMESA=take)
    host.engine.objects.add(IMAGE, "VkImage", 70, device=3)
    guest = Guest(host)
    stream = image_copy(bytes(ARENA), 3) * 2
    data = ctypes.create_string_buffer(stream, len(stream))
    host.engine.resources.add(STREAM_RESOURCE, ctypes.addressof(data), len(stream))
    streams = [{"resourceId": STREAM_RESOURCE, "offset": 0, "size": len(stream)}]
    run = CODEC.encode(
        "vkExecuteCommandStreamsMESA", {"streamCount": 1, "pStreams": streams, "dependencyCount": 0}
    )
    guest.send(run)
    guest.wait()
    assert found == [3 * ARENA] * 2
    # What does not lie in the stream stays bounded, there and behind it.
    host.engine.objects.add(POOL, "VkQueryPool", 80, device=3)
    results = {"device": 3, "queryPool": POOL, "dataSize": 2 * ARENA, "stride": 8}
    data_too = results | {"pData": bytes(2 * ARENA)}
    guest.send(CODEC.encode("vkGetQueryPoolResults", data_too))
    wait_for(lambda: bool(host.fatal), "the context to be poisoned")
    assert "more memory than a command may take" in host.fatal[0]
    host.engine.stop()


def test_replies_come_before_the_head_moves(host: Host, guest: Guest) -> None:
    reply = ctypes.create_string_buffer(64)
    host.engine.resources.add(REPLY_RESOURCE, ctypes.addressof(reply), 64)
    stream = {"pStream": {"resourceId": REPLY_RESOURCE, "offset": 0, "size": 64}}
    guest.send(CODEC.encode("vkSetReplyCommandStreamMESA", stream))
    guest.send(CODEC.encode("vkDeviceWaitIdle", {"device": 3}, reply=True))
    guest.wait()
    assert reply.raw[:8] == (20).to_bytes(4, "little") + bytes(4)


def test_the_context_waits_for_the_ring_and_the_ring_for_the_context(
    host: Host, guest: Guest, draw_count: Callable[[], int]
) -> None:
    before = draw_count()
    guest.send(CODEC.encode("vkWaitVirtqueueSeqnoMESA", {"seqno": 5}) + DRAW)
    wait_for(lambda: guest.word(HEAD) != guest.tail, "the ring to take up its work")
    host.engine.submit(CODEC.encode("vkSubmitVirtqueueSeqnoMESA", {"ring": RING, "seqno": 5}))
    wait = {"ring": RING, "seqno": guest.tail}
    host.engine.submit(CODEC.encode("vkWaitRingSeqnoMESA", wait))
    assert draw_count() - before == 1
    assert guest.word(HEAD) == guest.tail


def test_the_extra_word_is_written(host: Host, guest: Guest) -> None:
    write = {"ring": RING, "offset": 0, "value": 0xABCD}
    host.engine.submit(CODEC.encode("vkWriteRingExtraMESA", write))
    assert guest.word(EXTRA) == 0xABCD


@pytest.mark.parametrize("write", [{"offset": 4}, {"offset": 2}, {"offset": 1 << 40}, {"ring": 99}])
def test_a_bad_extra_write_poisons(host: Host, guest: Guest, write: dict[str, int]) -> None:
    message = CODEC.encode("vkWriteRingExtraMESA", {"ring": RING, "offset": 0, "value": 1, **write})
    with pytest.raises(ProtocolError, match="vkWriteRingExtraMESA"):
        host.engine.submit(message)
    assert guest.word(STATUS) & FATAL


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (b"\xff" * 64, "there is no command"),
        (DRAW[:8] + bytes(24), "null is not allowed"),
        (DRAW[:8] + (3).to_bytes(8, "little") + DRAW[16:], "object 3 is of another type"),
        (DRAW[:8] + (77).to_bytes(8, "little") + DRAW[16:], "there is no object 77"),
        (DRAW[:8] + (1 << 60).to_bytes(8, "little") + DRAW[16:], "there is no object"),
        (DRAW[:16], "ends inside the command"),
        (CODEC.encode("vkNotifyRingMESA", {"ring": RING}), "wrong stream"),
        ((23).to_bytes(4, "little") + bytes(60), "refused"),
    ],
)
def test_what_is_wrong_is_named_and_poisons(
    host: Host, guest: Guest, what: bytes, said: str
) -> None:
    guest.send(what)
    wait_for(lambda: bool(guest.word(STATUS) & FATAL), "FATAL")
    wait_for(lambda: bool(host.fatal), "the message")
    assert len(host.fatal) == 1
    assert any(part in host.fatal[0] for part in said.split("|")), host.fatal
    with pytest.raises(ProtocolError, match="poisoned"):
        guest.notify()


def test_a_tail_beyond_the_buffer_poisons(host: Host, guest: Guest) -> None:
    guest.tail = SIZE + 4
    guest.publish()
    wait_for(lambda: bool(guest.word(STATUS) & FATAL), "FATAL")
    wait_for(lambda: bool(host.fatal), "the message")


@pytest.mark.parametrize(
    "change",
    [
        {"resourceId": 1234},
        {"headOffset": 2},
        {"headOffset": TAIL},
        {"tailOffset": BUFFER + 8},
        {"statusOffset": EXTRA + 4},
        {"bufferSize": 3000},
        {"bufferSize": 1 << 30},
        {"bufferSize": 0},
        {"bufferOffset": 1 << 63},
        {"offset": (1 << 64) - 64},
        {"size": 1 << 40},
        {"extraSize": 1 << 33},
    ],
)
def test_a_bad_layout_is_refused(host: Host, change: dict[str, int]) -> None:
    with pytest.raises(ProtocolError, match=f"ring {RING}"):
        Guest(host, None, 3_000_000, **change)
    host.engine.stop()


def test_a_ring_is_refused_twice_and_destroyed_once(host: Host, guest: Guest) -> None:
    info = Scratch().new("VkRingCreateInfoMESA", resourceId=RESOURCE)
    with pytest.raises(ProtocolError, match="exists"):
        host.engine.rings.create(RING, info)
    host.engine.rings.destroy(RING)
    with pytest.raises(ProtocolError, match="no ring"):
        host.engine.rings.destroy(RING)
    assert guest.ring.head == 0


def test_removing_the_rings_memory_poisons(host: Host, guest: Guest) -> None:
    guest.send(DRAW)
    guest.wait()
    host.engine.resources.remove(RESOURCE)
    assert host.engine.fatal
    assert "ring" in host.fatal[0]


@pytest.mark.slow
def test_memory_that_changes_while_it_is_decoded_harms_nobody(fake_driver: object) -> None:
    """The guest's other thread rewrites what the ring is reading."""
    rng = random.Random(1)
    barrier = CODEC.encode(
        "vkCmdPipelineBarrier",
        {
            "commandBuffer": COMMAND_BUFFER,
            "memoryBarrierCount": 2,
            "pMemoryBarriers": [{"pNext": []}, {"pNext": []}],
        },
    )
    for _ in range(30):
        host = Host(fake_driver)  # type: ignore[arg-type]
        guest = Guest(host)
        stop = threading.Event()

        def scribble(guest: Guest = guest, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                at = guest.base + BUFFER + rng.randrange(SIZE // 4) * 4
                ctypes.c_uint32.from_address(at).value = rng.choice((0, 1, 2, 40, 1 << 31))

        writer = threading.Thread(target=scribble)
        writer.start()
        try:
            for _ in range(50):
                guest.put(barrier * 4 + DRAW * 4)
                guest.publish()
                target = guest.tail
                wait_for(
                    lambda guest=guest, target=target: (
                        guest.word(HEAD) == target  # type: ignore[misc]
                        or bool(guest.word(STATUS) & FATAL)
                    ),
                    "the ring to finish or fail",
                )
                if guest.word(STATUS) & FATAL:
                    break
        except ProtocolError:
            assert host.engine.fatal
        finally:
            stop.set()
            writer.join()
            host.engine.stop()
        assert len(host.fatal) == int(host.engine.fatal)


def test_a_ring_that_never_rests_is_seldom_looked_at(host: Host) -> None:
    """The guest names the time after which IDLE may be said; half of a day keeps no processor."""
    Guest(host, idleTimeout=1 << 45)
    (thread,) = (each for each in threading.enumerate() if each.name == "ring-1")
    status = Path(f"/proc/self/task/{thread.native_id}/status")

    def switches() -> int:
        return int(status.read_text().split("voluntary_ctxt_switches:")[1].split()[0])

    since = time.monotonic()
    wait_for(lambda: time.monotonic() - since > 0.7, "time to pass")
    assert switches() < 1000
    host.engine.stop()
