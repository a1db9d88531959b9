"""vkcube under X: what it shows last is what the bare driver draws, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from screen import Screen
from servers import Client, Place, Setup, bare, serving

FRAMES = 120
SLACK = 5
"""vkcube turns by the same angle for each frame it draws.  How many frames it skips, because its
window was not there yet, and whether the last one is shown before it ends, is a matter of time."""
PASSES = 5
"""On a busy machine the bare driver's runs skip frames too, and may all miss the one wanted."""
SECONDS = 120.0


def last_picture(client: Client, screen: Screen, frames: int) -> bytes:
    """What vkcube shows when it has counted that many frames."""
    # Presenting by the processor: X gets a copy of the picture and needs no GPU of its own.
    environ = {"DISPLAY": screen.display, "MESA_VK_WSI_DEBUG": "sw"}
    command = ["vkcube", "--c", str(frames), "--suppress_popups"]
    picture, status = screen.last_picture(lambda: client.start(command, environ), SECONDS)
    assert status == 0
    assert picture.shape == (500, 500, 3)
    return picture.tobytes()


def bare_pictures(machine: Place, screen: Screen, setup: Setup | None = None) -> set[bytes]:
    """What the bare driver shows of the frames around the last."""
    counts = range(FRAMES - SLACK, FRAMES + SLACK + 1)
    client = bare(machine, setup=setup)
    return {last_picture(client, screen, count) for count in counts}


@pytest.fixture(scope="module")
def expected(machine: Place, screen: Screen) -> set[bytes]:
    """The bare driver's pictures; tests may add more of them."""
    pictures = bare_pictures(machine, screen)
    assert len(pictures) > SLACK, "the cube turns"
    for picture in pictures:
        pixels = np.frombuffer(picture, np.uint8).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 100, "the cube has a texture"
    return pictures


def test_pictures_are_the_bare_drivers(
    machine: Place, setup: Setup, screen: Screen, expected: set[bytes]
) -> None:
    if setup.mode:
        expected.add(last_picture(bare(machine, setup=setup), screen, FRAMES))
    with serving(machine, setup) as server:
        shown = last_picture(server.client(machine), screen, FRAMES)
        assert "error" not in server.printed().lower()
    for _ in range(PASSES):
        if shown in expected:
            break
        expected |= bare_pictures(machine, screen, setup)
    assert shown in expected
