"""A ring's thread leaves the processor that it shares with its guest."""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kernel.conftest import compile_library
from native import native

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="a thread cannot choose its processor"
)


@pytest.fixture
def library(tmp_path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(compile_library("move_on", tmp_path)))


@native
def test_it_goes_to_another_and_may_come_back(library: ctypes.CDLL) -> None:
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is no other processor")
    # The system may move it once more by itself, but not every time.
    moved = [library.moves_on() for _ in range(20)]
    assert 1 in moved
    assert -1 not in moved


def test_one_that_has_a_single_processor_stays(library: ctypes.CDLL) -> None:
    def alone() -> int:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        result: int = library.moves_on()
        return result

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(alone).result() == 0
