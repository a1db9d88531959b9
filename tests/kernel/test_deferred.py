"""A client's own stream that runs ahead of a ring, and the fences that it leaves to the ring."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hesper.protocol.codec import Codec
from kernel.conftest import BOUND, happens, wait_for
from kernel.ring_guest import HEAD, RING, Guest
from kernel.served import PING, QUEUE, RING_IDX, Served, expect
from vtest.vtest_client import readable

CODEC = Codec()
SUBMIT = CODEC.encode(
    "vkQueueSubmit", {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": 0}
)
STOP = CODEC.encode("vkDeviceWaitIdle", {"device": 3})


class Ahead:
    """A client with a ring whose thread stays in `STOP`, a command, until the test lets it go."""

    def __init__(self, library: Path) -> None:
        self.inside = threading.Event()
        self.go_on = threading.Event()
        self.served = Served(library, 0, vkDeviceWaitIdle=self._stay)
        self.client = self.served.client
        self.guest = Guest(self.served.host, self._send)
        self.served.go_on.set()

    def _stay(self, _: object) -> None:
        self.inside.set()
        assert self.go_on.wait(BOUND)

    def _send(self, commands: bytes) -> None:
        self.client.submit((commands, [], None))

    def stop_the_ring(self, then: bytes = SUBMIT) -> None:
        """Have it run a submission, stay where it is, and then do something else."""
        self.guest.send(SUBMIT + STOP + then)
        assert self.inside.wait(BOUND)

    def wait_for_the_ring(self, sync: int, value: int, ring_idx: int | None = RING_IDX) -> None:
        """Let `sync` become `value` when what is in the ring by now is done."""
        wait = CODEC.encode("vkWaitRingSeqnoMESA", {"ring": RING, "seqno": self.guest.tail})
        self.client.submit((wait, [(sync, value)], ring_idx))

    def close(self) -> None:
        self.go_on.set()
        self.served.close()
        self.served.host.engine.stop()


@pytest.fixture
def ahead(queue_driver: Path) -> Iterator[Ahead]:
    ahead = Ahead(queue_driver)
    yield ahead
    ahead.close()


def test_a_client_is_served_while_a_ring_is_busy(ahead: Ahead) -> None:
    client = ahead.client
    sync = client.sync(0)
    ahead.stop_the_ring()
    for value in (1, 2, 3):
        ahead.wait_for_the_ring(sync, value)
    fds = [client.wait([(sync, value)]) for value in (1, 3)]
    assert client.sync_value(sync) == 0
    ahead.served.finish()
    assert client.sync_value(sync) == 0
    ahead.go_on.set()
    ahead.guest.wait()
    wait_for(lambda: ahead.served.driver.waits_begun() > 0, "the waiter to wait")
    assert client.sync_value(sync) == 0
    ahead.served.finish()
    for fd in fds:
        expect(fd)
    assert client.sync_value(sync) == 3


def test_a_ring_is_left_only_so_many_fences(ahead: Ahead) -> None:
    client = ahead.client
    sync = client.sync(0)
    ahead.stop_the_ring()
    for value in range(1, 1025):
        ahead.wait_for_the_ring(sync, value, 0)
    assert client.sync_value(sync) == 0
    ahead.wait_for_the_ring(sync, 1025, 0)
    client.send(21, struct.pack("<I", sync))
    assert not readable(client.sock.fileno(), 0.1)
    ahead.go_on.set()
    assert client.reply().data == struct.pack("<Q", 1025)


@pytest.mark.parametrize("ring_idx", [None, 0])
def test_syncs_of_no_queue_are_signalled_when_the_ring_gets_there(
    ahead: Ahead, ring_idx: int | None
) -> None:
    client = ahead.client
    sync = client.sync(0)
    ahead.stop_the_ring()
    ahead.wait_for_the_ring(sync, 1, ring_idx)
    fd = client.wait([(sync, 1)])
    assert client.sync_value(sync) == 0
    assert not readable(fd, 0)
    ahead.go_on.set()
    expect(fd)


def test_a_ring_waits_for_a_stream_that_has_run_ahead_of_it(ahead: Ahead) -> None:
    """As when Mesa exports a semaphore: the fence first, then what lets the ring go on."""
    client = ahead.client
    sync = client.sync(0)
    ahead.stop_the_ring()
    ahead.wait_for_the_ring(sync, 1)
    seqno = CODEC.encode("vkSubmitVirtqueueSeqnoMESA", {"ring": RING, "seqno": 5})
    client.submit((seqno, [], None))
    ahead.guest.send(CODEC.encode("vkWaitVirtqueueSeqnoMESA", {"seqno": 5}) + SUBMIT)
    assert client.sync_value(sync) == 0
    ahead.go_on.set()
    ahead.guest.wait()
    # The fence stands between the submissions before and after it.
    assert ahead.served.driver.submissions() == 4
    ahead.served.driver.finish(3)
    fd = client.wait([(sync, 1)])
    expect(fd)


@pytest.mark.parametrize("what", ["message", "command", "wait and command"])
def test_everything_else_waits(ahead: Ahead, what: str) -> None:
    client, driver = ahead.client, ahead.served.driver
    sync = client.sync(0)
    ahead.stop_the_ring()
    before = driver.submissions()
    if what == "wait and command":
        wait = CODEC.encode("vkWaitRingSeqnoMESA", {"ring": RING, "seqno": ahead.guest.tail})
        client.submit((wait + SUBMIT, [], None))
    else:
        ahead.wait_for_the_ring(sync, 1, None)
        assert client.sync_value(sync) == 0
        client.send(PING) if what == "message" else client.submit((SUBMIT, [], None))
    assert not happens(lambda: driver.submissions() > before or ahead.served.left_over != [])
    ahead.go_on.set()
    if what == "message":
        wait_for(lambda: ahead.served.left_over == [PING], "the message")
        assert ahead.guest.word(HEAD) == ahead.guest.tail
    else:
        client.sync_value(sync)
        assert driver.submissions() == before + 2


def test_fences_that_a_ring_never_comes_to_are_through_when_it_ends(ahead: Ahead) -> None:
    client = ahead.client
    sync = client.sync(0)
    ahead.stop_the_ring(then=b"\xff" * 64)
    ahead.wait_for_the_ring(sync, 1)
    fd = client.wait([(sync, 1)])
    ahead.go_on.set()
    wait_for(lambda: ahead.served.host.fatal != [], "the ring to fail")
    assert not readable(fd, 0)
    ahead.served.host.engine.stop()
    assert readable(fd)
    os.close(fd)


def test_a_timeline_that_is_not_there_is_refused_at_once(ahead: Ahead) -> None:
    ahead.stop_the_ring()
    ahead.wait_for_the_ring(ahead.client.sync(0), 1, 9)
    wait_for(lambda: ahead.served.failure is not None, "the server to end")
    assert "timeline 9 is bound to no queue" in str(ahead.served.failure)
