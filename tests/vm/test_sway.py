"""sway, whose renderer is Vulkan's own, and vkcube in it, on the guest's screen.

sway draws into buffers that it gets from GBM and imports into Vulkan.  GBM's driver is zink on
Venus, a context of its own; what that has made is imported by sway's, drawn into, and scanned out.
"""

from __future__ import annotations

import numpy as np
from guest_vm import TREE_DEVICE, GpuGuest, gpu_guest
from initramfs import Tree
from PIL import Image
from weston_cube import GROUND, LIKE_A_GPU

from hesper.display.geometry import Size

SIZE = Size(800, 600)
"""Rows of other lengths than 1280 pixels' are no multiple of 256 bytes."""
CONFIG = r"xwayland disable\nexec vkcube --wsi wayland\n"
VULKAN = "LIBSEAT_BACKEND=seatd WLR_BACKENDS=drm WLR_RENDERER=vulkan WLR_LIBINPUT_NO_DEVICES=1"
BAR = 40
"""Rows at the top in which sway's title bar is, and some more."""


def shows_cube(image: Image.Image) -> bool:
    """Whether vkcube fills the screen: its ground at the sides, its cube in the middle."""
    pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    ground = (pixels == GROUND).all(axis=2)
    middle = ground[height // 2 - 40 : height // 2 + 40, width // 2 - 40 : width // 2 + 40]
    sides = ground[BAR:-BAR, [BAR, -BAR]]
    return bool(sides.all() and middle.mean() < 0.1)


def start_sway(vm: GpuGuest, environ: str) -> None:
    """Start it; it starts vkcube."""
    vm.enter_tree()
    vm.run("in_tree seatd > /tmp/seatd.log 2>&1 &")
    vm.run("until [ -S /root-in-tree/run/seatd.sock ]; do usleep 20000; done")
    vm.run(f"printf '{CONFIG}' > /tmp/sway.conf")
    sway = "sway --debug --config /tmp/sway.conf"
    vm.run(f"in_tree env LC_ALL=C.UTF-8 {environ} {VULKAN} {sway} > /tmp/sway.log 2>&1 &")


def test_its_vulkan_renderer_shows_a_vulkan_client(tree: Tree) -> None:
    with gpu_guest(tree, size=SIZE, extra=TREE_DEVICE) as vm:
        start_sway(vm, LIKE_A_GPU)
        first = vm.wait_screen(shows_cube)
        assert first.size == (SIZE.width, SIZE.height)
        vm.wait_screen(
            lambda image: (
                shows_cube(image)
                and (np.asarray(image) != np.asarray(first)).any(axis=2).sum() > 1000
            )
        )
        log = vm.run("cat /tmp/sway.log")
        assert "vulkan create_render_buffer: XR24, 800x600" in log
        assert "Virtio-GPU Venus" in log
