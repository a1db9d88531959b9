"""What a client can ask for without end has a bound, and an answer."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
from vtest_client import Client, Served

MOST_IDS = 1 << 18
MOST_BATCHES = 1 << 16
MOST_SIGNALS = 1 << 20


def submit(client: Client, batches: int, syncs: int, sync: int) -> None:
    """Submit so many batches without commands, whose fence signals so many syncs each."""
    at = 1 + 8 * batches
    head = struct.pack("<8I", 1, at, 0, at, syncs, 1, 0, 0)
    point = struct.pack("<IQ", sync, 1)
    client.send(24, struct.pack("<I", batches) + head * batches + point * syncs)


@pytest.mark.parametrize(
    ("times", "batches", "syncs"),
    [(MOST_SIGNALS // (1 << 18), 1, 1 << 18), (MOST_BATCHES // (1 << 14), 1 << 14, 1)],
)
def test_pending_batches_have_a_bound(times: int, batches: int, syncs: int) -> None:
    served = Served()
    client = served.client
    client.handshake()
    sync = client.sync(0)
    for _ in range(times):
        submit(client, batches, syncs, sync)
    client.flush()
    # What is over does not count.
    for _, retired in served.host.context.fences:
        retired()
    assert client.sync_value(sync) == 1
    for _ in range(times):
        submit(client, batches, syncs, sync)
    client.flush()
    with contextlib.suppress(OSError):
        submit(client, 1, 1, sync)
    assert client.gone()
    assert served.result().startswith(
        f"SUBMIT_CMD2: more than {MOST_BATCHES} batches whose fence is pending, or"
        f" {MOST_SIGNALS} syncs in them"
    )


@pytest.mark.slow
def test_resources_for_which_there_is_no_room_have_a_bound() -> None:
    served = Served()
    client = served.client
    client.handshake()
    together = 256
    ask = struct.pack("<IIIIQQ", 6, 18, 2, 1, 1 << 40, 0) * together
    for _ in range(MOST_IDS // together):
        client.sock.sendall(ask)
        size = (12 + 1) * together
        while size > 0:
            data, fds, _, _ = socket.recv_fds(client.sock, size, 16)
            size -= len(data)
            for fd in fds:
                socket.close(fd)
    client.sock.sendall(ask[:32])
    assert client.gone()
    assert served.result() == (
        f"RESOURCE_CREATE_BLOB: more than {MOST_IDS} resources, or no memory for another"
    )
