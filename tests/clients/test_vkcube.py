"""vkcube under X: the last of its frames is the bare driver's, pixel by pixel."""

from __future__ import annotations

import numpy as np
from screen import Screen
from servers import Client, Place, Setup, bare, serving

FRAMES = 120
SECONDS = 120.0


def last_frame(client: Client, screen: Screen) -> np.ndarray:
    """What vkcube shows after `FRAMES` frames (it turns by the same angle in each)."""
    # Presenting by the processor: X gets a copy of the picture and needs no GPU of its own.
    environ = {"DISPLAY": screen.display, "MESA_VK_WSI_DEBUG": "sw"}
    picture, status = screen.last_picture(
        lambda: client.start(["vkcube", "--c", str(FRAMES), "--suppress_popups"], environ), SECONDS
    )
    assert status == 0
    return picture


def test_last_frame_is_the_bare_drivers(machine: Place, setup: Setup, screen: Screen) -> None:
    expected = last_frame(bare(machine), screen)
    assert np.unique(expected.reshape(-1, 3), axis=0).shape[0] > 100, "the cube has a texture"
    with serving(machine, setup) as server:
        shown = last_frame(server.client(machine), screen)
        assert "error" not in server.printed().lower()
    assert np.array_equal(shown, expected)
