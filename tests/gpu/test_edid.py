"""The EDID that monitors give, read by a small decoder of the test's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hesper.gpu.edid import BLOCK, MAX_EDGE, make_edid, reduced_blanking

SIZES = [
    (1280, 800),
    (1920, 1080),
    (640, 480),
    (1366, 768),
    (3840, 2160),
    (5120, 2880),
    (8192, 4320),
]


def preferred(edid: bytes) -> tuple[int, int]:
    """The preferred mode: of the extension if there is one, else of the first descriptor."""
    if edid[126]:
        block = edid[BLOCK:]
        at = 5
        while block[at] != 3:
            at += 3 + block[at + 2]
        timing = block[at + 3 : at + 23]
        assert timing[3] & 0x80
        return (
            int.from_bytes(timing[4:6], "little") + 1,
            int.from_bytes(timing[12:14], "little") + 1,
        )
    return edid[56] | edid[58] >> 4 << 8, edid[59] | edid[61] >> 4 << 8


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (MAX_EDGE, MAX_EDGE), (1, MAX_EDGE)])
def test_the_preferred_mode_is_the_one_asked_for(size: tuple[int, int]) -> None:
    edid = make_edid(*size, serial=3)
    assert len(edid) == BLOCK * (1 + edid[126])
    assert edid[:8] == b"\0\xff\xff\xff\xff\xff\xff\0"
    for at in range(0, len(edid), BLOCK):
        assert sum(edid[at : at + BLOCK]) % 256 == 0
    assert preferred(edid) == size


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (MAX_EDGE + 1, 1), (1, -1)])
def test_monitors_that_cannot_be(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="an edge must be"):
        make_edid(*size, serial=1)


def test_the_timing_of_the_standard() -> None:
    """1920x1080 at 60 Hz as VESA's own CVT-RB table has it: 138.5 MHz, 2080 x 1111 in all."""
    timing = reduced_blanking(1920, 1080)
    assert timing.clock == 13850
    assert (timing.width + timing.h_blank, timing.height + timing.v_blank) == (2080, 1111)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.skipif(shutil.which("edid-decode") is None, reason="edid-decode is not installed")
def test_it_conforms(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "edid"
    path.write_bytes(make_edid(*size, serial=1))
    done = subprocess.run(
        ["edid-decode", "--check", path], capture_output=True, text=True, check=False
    )
    assert "EDID conformity: PASS" in done.stdout, done.stdout
