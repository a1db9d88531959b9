"""Chromium draws a page with WebGL by Vulkan: through Hesper the same as by the bare driver."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from servers import SETUPS, Client, Place, Setup, bare, serving

PAGE = Path(__file__).with_name("webgl.html")
SIDE = 256
"""Width and height of the page's canvas, in pixels."""
SECONDS = 180
"""For a browser that takes three."""
CHROMIUM = ("chromium", "chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=vulkan",
    "--enable-features=Vulkan",
    "--disable-vulkan-surface",
    "--ignore-gpu-blocklist",
    "--window-size=400,400",
    "--virtual-time-budget=4000",
    "--enable-logging=stderr",
)


def draw(client: Client, folder: Path) -> tuple[str, np.ndarray]:
    """The GPU that the page has drawn with, and the pixels of its canvas."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert program is not None, "no chromium; scripts/test installs it"
    folder.mkdir()
    picture = folder / "page.png"
    files = [f"--user-data-dir={folder}/profile", f"--screenshot={picture}"]
    done = client.run([program, *FLAGS, *files, PAGE.as_uri()], timeout=SECONDS)
    found = re.findall(r'"renderer: ANGLE \(.*?, Vulkan [\d.]+ \((.*) \(0x', done.stderr)
    assert found, done.stderr
    return found[-1], np.asarray(Image.open(picture).convert("RGB"))[:SIDE, :SIDE]


# Chromium wants OpenGL ES 3, which its ANGLE does not make of what MoltenVK offers.
@pytest.mark.parametrize("setup", [s for s in SETUPS if s.name != "moltenvk"], ids=lambda s: s.name)
def test_draws_the_same(machine: Place, setup: Setup, tmp_path: Path) -> None:
    name, expected = draw(bare(machine), tmp_path / "bare")
    assert expected.std() > 20, "the picture shows something"
    with serving(machine, setup) as server:
        device, picture = draw(server.client(machine), tmp_path / "hesper")
    assert device == f"Virtio-GPU Venus ({setup.device(name)})"
    assert np.array_equal(picture, expected)
