"""Memory that replies go to has its pages before they are written."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hesper.protocol.codec import Codec
from kernel.conftest import Host
from native import native

CODEC = Codec()
RESOURCE = 7
PIECE = 64 << 10
SIZE = 4 * PIECE + mmap.PAGESIZE
MADV_POPULATE_WRITE = 23


class Replies:
    """A resource that replies go to, none of whose pages is there at first."""

    def __init__(self, library: Path) -> None:
        self.host = Host(library)
        self._memory = mmap.mmap(-1, SIZE)
        self._anchor = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(self._anchor)
        self.host.engine.resources.add(RESOURCE, self.address, SIZE)

    def set(self, offset: int, size: int) -> None:
        stream = {"pStream": {"resourceId": RESOURCE, "offset": offset, "size": size}}
        self.host.engine.submit(CODEC.encode("vkSetReplyCommandStreamMESA", stream))

    def pieces(self) -> list[bool]:
        """For each piece, the last one short, whether its pages are there: all, or none."""
        pages = -(-SIZE // mmap.PAGESIZE)
        there = (ctypes.c_ubyte * pages)()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(ctypes.c_void_p(self.address), ctypes.c_size_t(SIZE), there) == 0
        step = PIECE // mmap.PAGESIZE
        found = [{bool(page & 1) for page in there[i : i + step]} for i in range(0, pages, step)]
        assert all(len(piece) == 1 for piece in found)
        return [piece.pop() for piece in found]


@pytest.fixture
def replies(fake_driver: Path) -> Iterator[Replies]:
    with mmap.mmap(-1, mmap.PAGESIZE) as probe:
        try:
            probe.madvise(MADV_POPULATE_WRITE)
        except OSError:
            pytest.skip("this system gives pages only when they are written")
    replies = Replies(fake_driver)
    yield replies
    replies.host.engine.stop()


@native
def test_a_piece_at_a_time_as_replies_come_to_it(replies: Replies) -> None:
    assert replies.pieces() == [False] * 5
    replies.set(0, 24)
    assert replies.pieces() == [True, False, False, False, False]
    replies.set(PIECE - 24, 24)
    assert replies.pieces() == [True, False, False, False, False]
    replies.set(PIECE - 8, 24)
    assert replies.pieces() == [True, True, False, False, False]


@native
def test_the_end_of_the_resource_is_the_end(replies: Replies) -> None:
    replies.set(4 * PIECE, mmap.PAGESIZE)
    assert replies.pieces() == [False] * 4 + [True]


@native
def test_only_the_first_piece_of_a_long_range(replies: Replies) -> None:
    for _ in range(3):
        replies.set(0, SIZE)
    assert replies.pieces() == [True, False, False, False, False]
