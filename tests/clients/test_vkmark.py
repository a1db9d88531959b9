"""vkmark without a window: all its scenes run through Hesper, and draw at all."""

from __future__ import annotations

import re

from servers import SCENES, Client, Place, Setup, bare, serving

SECONDS_EACH = 0.5


def scores(client: Client) -> tuple[str, dict[str, int]]:
    """The device's name, and frames per second by scene."""
    scenes = [word for scene in SCENES for word in ("-b", f"{scene}:duration={SECONDS_EACH}")]
    done = client.run(["vkmark", "--winsys", "headless", "-s", "400x300", *scenes])
    device = re.search(r"Device Name:\s+(.+)", done.stdout)
    assert device, done.stdout
    found = re.findall(r"^\[(\w+)\].*FPS: (\d+)", done.stdout, re.MULTILINE)
    return device[1], {scene: int(rate) for scene, rate in found}


def test_all_scenes(trixie: Place, setup: Setup) -> None:
    name, expected = scores(bare(trixie, setup=setup))
    assert set(expected) == set(SCENES)
    with serving(trixie, setup) as server:
        device, found = scores(server.client(trixie))
    assert device == f"Virtio-GPU Venus ({name})"
    assert set(found) == set(SCENES)
    assert all(rate > 0 for rate in found.values()), found
