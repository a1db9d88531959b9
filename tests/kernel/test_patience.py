"""A client's thread that looks out for the next message, and for the fences meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.conftest import BOUND, wait_for
from kernel.served import (
    CODEC,
    OTHER_QUEUE,
    OTHER_RING_IDX,
    PING,
    QUEUE,
    RING_IDX,
    Served,
    expect,
)
from vtest.vtest_client import readable

SHORT, LONG = 200_000, 100_000_000
"""Patience in ns."""


@pytest.fixture(params=[0, SHORT, LONG], ids=["none", "short", "long"])
def served(queue_driver: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    served = Served(queue_driver, request.param)
    yield served
    served.close()


@pytest.fixture
def patient(queue_driver: Path) -> Iterator[Served]:
    served = Served(queue_driver, LONG)
    yield served
    served.close()


def test_syncs_are_signalled_when_the_queue_gets_there(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    for value in range(1, 30):
        served.submit(QUEUE, RING_IDX, sync, value)
        fd = client.wait([(sync, value)])
        assert client.sync_value(sync) == value - 1
        served.finish()
        expect(fd)
        assert client.sync_value(sync) == value


def test_fences_of_several_queues_go_their_own_ways(served: Served) -> None:
    client = served.client
    sync, other = client.sync(0), client.sync(0)
    served.submit(QUEUE, RING_IDX, sync, 1)
    served.submit(OTHER_QUEUE, OTHER_RING_IDX, other, 1)
    served.submit(QUEUE, RING_IDX, sync, 2)
    fds = [client.wait([(sync, 2)]), client.wait([(other, 1)])]
    served.finish()
    assert all(readable(fd) for fd in fds)
    assert (client.sync_value(sync), client.sync_value(other)) == (2, 1)
    for fd in fds:
        os.close(fd)


def test_a_wait_is_answered_when_it_is_over_if_that_is_soon(patient: Served) -> None:
    client = patient.client
    sync = client.sync(0)
    over = client.wait([(sync, 0)])
    value = 0

    def is_held() -> bool:
        # Not every one: a busy machine keeps the server from looking, and then some are answered at
        # once.  So many looks nobody takes who has not the time that a wait is held back for.
        nonlocal value
        value += 1
        patient.driver.signal_at_look(300)
        with client.together():
            patient.submit(QUEUE, RING_IDX, sync, value)
            client.ask_to_wait([(sync, value)])
        fd = client.wait_answer()
        held = os.fstat(fd).st_ino == os.fstat(over).st_ino
        patient.finish()
        expect(fd)
        return held

    wait_for(is_held, "a wait to be answered with what is readable")
    os.close(over)


def test_a_fence_that_takes_long_is_left_to_the_waiter(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    served.submit(QUEUE, RING_IDX, sync, 1)
    fd = client.wait([(sync, 1)])
    wait_for(lambda: served.driver.waits_begun() > 0, "somebody to wait in the driver")
    # While the waiter waits, others queue up behind it.
    served.submit(QUEUE, RING_IDX, sync, 2)
    client.sync_value(sync)
    served.finish()
    expect(fd)
    fd = client.wait([(sync, 2)])
    expect(fd)


def test_fences_are_left_to_the_waiter_while_python_is_busy(patient: Served) -> None:
    client = patient.client
    sync = client.sync(0)
    patient.submit(QUEUE, RING_IDX, sync, 1)
    fd = client.wait([(sync, 1)])
    client.send(PING)
    wait_for(lambda: patient.left_over == [PING], "the message to be left over")
    patient.finish()
    expect(fd)


def test_a_message_in_pieces_is_served(served: Served) -> None:
    client = served.client
    sync = client.sync(3)
    message = b"".join(word.to_bytes(4, "little") for word in (1, 21, sync))
    for byte in message:
        client.sock.sendall(bytes([byte]))
    assert client.reply().data == (3).to_bytes(8, "little")


def test_a_client_that_leaves_with_fences_pending_leaves_nothing_behind(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    served.submit(QUEUE, RING_IDX, sync, 1)
    client.sync_value(sync)
    served.close()
    assert served.failure is None
    assert served.driver.live_fences() == 0


def test_a_stopped_timeline_signals_what_is_looked_at(patient: Served) -> None:
    client = patient.client
    sync = client.sync(0)
    patient.submit(QUEUE, RING_IDX, sync, 1)
    fd = client.wait([(sync, 1)])
    assert not patient.timelines[0].stop(0.01)
    expect(fd)
    patient.driver.reset()


def test_a_refusal_ends_the_server(served: Served) -> None:
    sync = served.client.sync(0)
    served.client.submit((b"", [(sync, 1)], 9))
    served.client.sock.settimeout(BOUND)
    wait_for(lambda: served.failure is not None, "the server to end")
    assert "timeline 9 is bound to no queue" in str(served.failure)


def test_a_queue_is_looked_at_after_fences_that_the_socket_has_looked_at(patient: Served) -> None:
    """That wakes nobody, and a guest that then looks at memory alone has nobody else to look out.

    On a busy machine the socket's thread leaves them to others at times: so several.
    """
    client, driver = patient.client, patient.driver
    patient.host.engine.timelines.set_lookout(1_000_000)
    sync = client.sync(0)
    submission = {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": 0}
    for value in range(1, 51):

        def is_through(wanted: int = value) -> bool:
            return bool(client.sync_value(sync) == wanted)

        patient.submit(QUEUE, RING_IDX, sync, value)
        for _ in range(10):
            assert not is_through()
        patient.finish()
        wait_for(is_through, "the fence")
        looks = driver.waits_begun()
        client.submit((CODEC.encode("vkQueueSubmit", submission), [], None))
        wait_for(lambda looks=looks: driver.waits_begun() > looks, "a look at the queue")  # type: ignore[misc]
        patient.finish()
