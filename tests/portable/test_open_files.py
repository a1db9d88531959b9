"""The tests' own helper finds leaks, and only leaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import pytest

from open_files import assert_closed_since, open_files, opened_since


def test_what_stays_open_is_found() -> None:
    earlier = os.pipe()
    before = open_files()
    leaked = os.dup(earlier[0])
    assert [number for number, _, _ in opened_since(before)] == [leaked]
    for fd in earlier:  # as many are open now as before, and fewer
        os.close(fd)
    with pytest.raises(AssertionError, match=f"left open: .*{leaked}"):
        assert_closed_since(before, patience=0)
    os.close(leaked)
    assert_closed_since(before, patience=0)


def test_a_number_that_is_used_again_is_found() -> None:
    earlier = os.memfd_create("earlier")
    before = open_files()
    os.close(earlier)
    again = os.memfd_create("again")
    assert again == earlier
    assert [number for number, _, _ in opened_since(before)] == [again]
    os.close(again)


def close(descriptors: Iterable[int]) -> None:
    for one in descriptors:
        os.close(one)


def test_what_a_thread_closes_soon_is_waited_for() -> None:
    before = open_files()
    closing = os.pipe()
    thread = threading.Timer(0.05, close, [closing])
    thread.start()
    assert_closed_since(before)
    thread.join()
