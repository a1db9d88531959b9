"""The object table's size: it goes by the objects there are, not by the ids that ever were."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from hesper.portable import process_usage
from hesper.protocol.codec import Codec
from kernel.conftest import BOUND, COMMAND_BUFFER, Host
from kernel.ring_guest import Guest
from native import native

PAGE = 1024
"""Objects whose entries lie together."""
WINDOW = 16384 * PAGE
"""Ids that the table can have pages for at the same time."""
SPARE = 8
"""Pages without objects that keep their memory."""
CODEC = Codec()
CREATE = {"device": 3, "pCreateInfo": {"size": 4}}
FIRST = 0x1122334455667788
"""An id whose bytes are found nowhere else in a command."""
STREAM = 20


def numbered(command: bytes, ids: np.ndarray) -> bytes:
    """`command`, which is about the object FIRST, for every id."""
    at = command.index(FIRST.to_bytes(8, "little"))
    rows = np.tile(np.frombuffer(command, dtype=np.uint8), (len(ids), 1))
    rows[:, at : at + 8] = ids.astype("<u8").view(np.uint8).reshape(-1, 8)
    return rows.tobytes()


def created(ids: np.ndarray) -> bytes:
    return numbered(CODEC.encode("vkCreateBuffer", {**CREATE, "pBuffer": FIRST}), ids)


def destroyed(ids: np.ndarray) -> bytes:
    return numbered(CODEC.encode("vkDestroyBuffer", {"device": 3, "buffer": FIRST}), ids)


def passed(ids: np.ndarray) -> bytes:
    """Create and destroy one after the other."""
    create = CODEC.encode("vkCreateBuffer", {**CREATE, "pBuffer": FIRST})
    destroy = CODEC.encode("vkDestroyBuffer", {"device": 3, "buffer": FIRST})
    rows = [np.frombuffer(numbered(one, ids), np.uint8).reshape(len(ids), -1)
            for one in (create, destroy)]  # fmt: skip
    return np.hstack(rows).tobytes()


def pages(host: Host) -> int:
    return int(host.engine.statistics()["object_pages"])


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return process_usage(os.getpid()).resident


@pytest.mark.parametrize("start", [PAGE, WINDOW - 20 * PAGE, 7 * WINDOW - 20 * PAGE, 2**63])
def test_ids_that_come_and_go_take_no_memory(fake_driver: Path, start: int) -> None:
    host = Host(fake_driver)
    for first in range(start, start + 200 * PAGE, 20 * PAGE):
        host.engine.submit(passed(np.arange(first, first + 20 * PAGE, dtype=np.uint64)))
    # The objects there were before, the newest ids, one page that is being changed for another, and
    # what the objects of the very first ids have pushed aside.
    assert pages(host) <= 4
    assert host.engine.statistics()["objects"] == 6


def test_objects_that_live_long_are_found_while_ids_go_by(fake_driver: Path) -> None:
    host = Host(fake_driver, object_limit=100_000, memory_limit=1 << 30)
    kept = np.arange(PAGE, 40 * PAGE, 37, dtype=np.uint64)
    host.engine.submit(created(kept))
    for turn in range(1, 4):
        ids = np.arange(turn * WINDOW, turn * WINDOW + 60 * PAGE, dtype=np.uint64)
        host.engine.submit(created(ids))
        assert host.engine.objects.lookup(int(ids[5]), "VkBuffer") is not None
        assert host.engine.objects.lookup(int(ids[-1]), "VkBuffer") is not None
        assert len(host.engine.objects.all(type="VkBuffer")) == 1 + len(kept) + len(ids)
        host.engine.submit(destroyed(ids))
        assert host.engine.objects.lookup(int(ids[5])) is None
        assert all(host.engine.objects.lookup(int(each)) is not None for each in kept[::11])
    host.engine.submit(destroyed(kept))
    assert host.engine.statistics()["objects"] == 6


def test_an_object_aside_of_the_table_is_found_once_its_page_is_there(host: Host) -> None:
    aside = WINDOW + 2 * PAGE
    host.engine.objects.add(2 * PAGE, "VkBuffer", 1, device=3)
    host.engine.objects.add(aside, "VkBuffer", 2, device=3)
    host.engine.objects.add(9 * PAGE, "VkBuffer", 3, device=3)
    host.engine.objects.remove(2 * PAGE)
    host.engine.objects.add(aside + 1, "VkBuffer", 4, device=3)
    found = host.engine.objects.lookup(aside)
    assert found is not None
    assert found.handle == 2
    host.engine.objects.remove(aside)
    assert host.engine.objects.lookup(aside) is None


@native  # others give memory back when somebody needs it
def test_memory_of_many_objects_is_given_back(fake_driver: Path) -> None:
    host = Host(fake_driver, object_limit=1 << 20, memory_limit=1 << 32)
    ids = np.arange(PAGE, 400 * PAGE, dtype=np.uint64)
    create, destroy = created(ids), destroyed(ids)
    before = resident()
    host.engine.submit(create)
    full = resident() - before
    assert full > 300 * PAGE * 96
    host.engine.submit(destroy)
    assert resident() - before < full / 5


def test_a_command_buffer_that_is_gone_is_not_taken_for_one_in_its_place(host: Host) -> None:
    """The table's page is another's by then, and the stream's last command buffer lay in it."""
    old, new = 5 * PAGE + 3, 9 * PAGE + 3
    draw = CODEC.encode("vkCmdDraw", {"commandBuffer": old})
    host.engine.objects.add(old, "VkCommandBuffer", 41, device=3)
    host.engine.submit(draw)
    host.engine.objects.add(8 * PAGE, "VkBuffer", 1, device=3)
    host.engine.objects.remove(old)
    host.engine.objects.add(new, "VkCommandBuffer", 42, device=3)
    assert pages(host) == 3
    with pytest.raises(Exception, match=f"no object {old}"):
        host.engine.submit(draw)


def test_two_threads_whose_ids_alternate(fake_driver: Path) -> None:
    host = Host(fake_driver, object_limit=1 << 20)
    ids = np.arange(PAGE, 300 * PAGE, dtype=np.uint64)
    mine, rings = passed(ids[::2]), passed(ids[1::2])
    memory = ctypes.create_string_buffer(rings, len(rings))
    host.engine.resources.add(STREAM, ctypes.addressof(memory), len(rings))
    one_at_a_time = threading.Lock()

    def submit(data: bytes) -> None:
        """The guest notifies its ring by the stream that the thread submits to."""
        with one_at_a_time:
            host.engine.submit(data)

    def submit_mine() -> None:
        size = len(mine) // len(ids[::2]) * PAGE
        for start in range(0, len(mine), size):
            submit(mine[start : start + size])

    guest = Guest(host, submit=submit)
    run = {"streamCount": 1, "pStreams": [{"resourceId": STREAM, "size": len(rings)}]}
    thread = threading.Thread(target=submit_mine)
    thread.start()
    guest.send(CODEC.encode("vkExecuteCommandStreamsMESA", run))
    thread.join(BOUND)
    guest.wait()
    assert host.fatal == []
    assert host.engine.statistics()["objects"] == 6
    host.engine.submit(CODEC.encode("vkCmdDraw", {"commandBuffer": COMMAND_BUFFER}))
    assert pages(host) <= SPARE
    host.engine.stop()
