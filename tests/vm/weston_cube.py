"""A desktop in the guest: weston, which draws by zink on Venus, and the spinning cube in it."""

from __future__ import annotations

import numpy as np
from guest_vm import GpuGuest
from PIL import Image

GROUND = (0x33, 0x33, 0x33)
"""What vkcube paints behind the cube."""
EDGE = 500
"""Of its window, in pixels."""
PANEL = 32
"""Rows at the top that the compositor's panel has; some shade in its clock may be the ground's."""
ONLY_VENUS = "VK_DRIVER_FILES=/usr/share/vulkan/icd.d/virtio_icd.json"
LIKE_A_GPU = f"LIBGL_ALWAYS_SOFTWARE=1 {ONLY_VENUS} MESA_LOADER_DRIVER_OVERRIDE=zink"
"""zink takes a processor's Vulkan, which a GPU's would be here, only when it is made to."""


def start_compositor(vm: GpuGuest, opengl: str, *options: str) -> None:
    """Start weston in a guest that has entered the tree.

    opengl: the environment by which it draws.  options: more of weston's.
    """
    vm.run("in_tree seatd > /tmp/seatd.log 2>&1 &")
    vm.run("until [ -S /root-in-tree/run/seatd.sock ]; do usleep 20000; done")
    weston = "weston --backend=drm --renderer=gl --continue-without-input --socket=wl"
    weston = " ".join((weston, "--idle-time=0", *options))
    vm.run(f"in_tree env {opengl} {weston} > /tmp/weston.log 2>&1 &")
    vm.run("until [ -S /root-in-tree/run/user/wl ]; do usleep 20000; done")


def start_weston(vm: GpuGuest) -> None:
    """Start weston and vkcube in a guest that has `TREE_DEVICE`; wait for the cube's window."""
    vm.enter_tree()
    start_compositor(vm, LIKE_A_GPU)
    vm.run("in_tree env WAYLAND_DISPLAY=wl vkcube --wsi wayland > /tmp/vkcube.log 2>&1 &")
    vm.wait_screen(cube_window)


def check_compositor(vm: GpuGuest) -> None:
    """Check that weston draws with OpenGL on Venus, and vkcube on Venus."""
    log = vm.run("cat /tmp/weston.log")
    assert "GL renderer: zink Vulkan" in log
    assert "Virtio-GPU Venus" in log
    assert "Virtio-GPU Venus" in vm.run("cat /tmp/vkcube.log")


def check_turning(vm: GpuGuest) -> None:
    """Check that the screen shows the cube, and shows it turn."""
    first = vm.screen()
    second = vm.wait_screen(
        lambda image: cube_window(image) and (cube(image) != cube(first)).sum() > 3000
    )
    check_cube(first, second)


def cube_window(image: Image.Image) -> tuple[int, int] | None:
    """Where vkcube's window is, if it is there."""
    ground = (np.asarray(image.convert("RGB")) == GROUND).all(axis=2)
    ground[:PANEL] = False
    if ground.sum() < EDGE * EDGE // 4:
        return None
    rows, columns = np.nonzero(ground)
    top, left = int(rows.min()), int(columns.min())
    size = (int(columns.max()) - left + 1, int(rows.max()) - top + 1)
    return (left, top) if size == (EDGE, EDGE) else None


def cube(image: Image.Image) -> np.ndarray:
    """The pixels of vkcube's window."""
    where = cube_window(image)
    assert where is not None
    left, top = where
    return np.asarray(image.convert("RGB"))[top : top + EDGE, left : left + EDGE]


def check_cube(one: Image.Image, other: Image.Image) -> None:
    """Check that both show a cube, turned differently."""
    for image in (one, other):
        pixels = cube(image).astype(int)
        drawn = (pixels != GROUND).any(axis=2)
        # It fills the middle, where a shade may be the ground's, and leaves the corners free.
        assert drawn[200:300, 200:300].mean() > 0.9
        assert not drawn[:40, :40].any()
        # Its faces have LunarG's emblem: teal, on light and dark grey.
        teal = (pixels[..., 2] > pixels[..., 0] + 40) & (pixels[..., 1] > pixels[..., 0] + 40)
        assert teal.sum() > 1000
    assert (cube(one) != cube(other)).any(axis=2).sum() > 1000
