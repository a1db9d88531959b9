"""OpenGL programs of X on a desktop, all drawn by zink on Venus, as a built guest has it set up.

On lavapipe, which is a processor and says so, and on the driver with MoltenVK's rules, which says
that it is a GPU: Mesa, zink and X do not go the same ways for the two.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from fake_drivers import METAL, make_driver
from guest_vm import TREE_DEVICE, GpuGuest, gpu_guest, keep
from initramfs import Tree
from PIL import Image
from weston_cube import start_compositor

from hesper.portable import page_size
from hesper.vm import guest_opengl

WHEEL = 1500
"""Pixels that a wheel has of its colour, at least; the smaller ones have some 3000, lit and not."""
CORNER = (0, 0, 640, 400)
"""Where the window is."""
TURNED = 2000
"""Pixels that differ once they have turned."""


@dataclass(frozen=True)
class Desktop:
    """A guest with gears on its screen, and what stands for the GPU."""

    vm: GpuGuest
    driver: str
    device: str


def gears(image: Image.Image) -> bool:
    """Whether the three wheels are there: red, green and blue."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    for channel in range(3):
        others = np.delete(pixels, channel, axis=2).max(axis=2)
        if (pixels[..., channel] > others + 60).sum() < WHEEL:
            return False
    return True


@pytest.fixture(scope="module", params=["lavapipe", "moltenvk"])
def desktop(
    request: pytest.FixtureRequest, tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desktop]:
    """Weston, which draws by zink, an X server in it, which does, too, and glxgears."""
    mode = request.param
    folder = tmp_path_factory.mktemp("gears")
    program = folder / "hesper-opengl"
    program.write_text(guest_opengl.FILES[guest_opengl.PROGRAM])
    driver = profile = ""
    with pytest.MonkeyPatch.context() as patch:
        if mode in METAL:
            # The driver has the rules, the profile hides what else MoltenVK lacks.
            driver, profile = str(make_driver(folder / "driver", mode).manifest), mode
            # Workers take that driver's pages, the device in this process does not: Debian's kernel
            # and Mesa do not know the device's blob alignment.
            assert page_size() == mmap.PAGESIZE, "known, and kept, in this process"
            patch.setenv("HESPER_PAGE_SIZE", "16384")
        with gpu_guest(
            tree, programs=[program], extra=TREE_DEVICE, driver=driver, profile=profile
        ) as vm:
            vm.enter_tree()
            vm.run("cp $(command -v hesper-opengl) /tmp")
            opengl = vm.run("in_tree sh /tmp/hesper-opengl 2> /dev/null").split()
            assert opengl[0] == "MESA_LOADER_DRIVER_OVERRIDE=zink"
            assert ("LIBGL_ALWAYS_SOFTWARE=1" in opengl) == (mode == "lavapipe")
            # Not with every kernel can files be made in the folders of an overlay over 9p.
            vm.run("mount -t tmpfs keymaps /root-in-tree/var/lib/xkb")
            vm.run("mkdir -m 1777 /tmp/.X11-unix")
            start_compositor(vm, " ".join(opengl), "--xwayland")
            vm.run("until [ -S /tmp/.X11-unix/X0 ]; do usleep 20000; done")
            glxgears = "env DISPLAY=:0 " + " ".join(opengl) + " glxgears -info"
            vm.run(f"in_tree {glxgears} > /tmp/gears.log 2>&1 &")
            vm.wait_screen(gears)
            yield Desktop(vm, mode, f"fake {mode}" if profile else "llvmpipe")


def test_all_of_it_is_drawn_through_venus(desktop: Desktop) -> None:
    for told in ("grep 'GL renderer' /tmp/weston.log", "grep GL_RENDERER /tmp/gears.log"):
        assert re.search(
            rf"zink Vulkan [\d.]+\(Virtio-GPU Venus \({desktop.device}", desktop.vm.run(told)
        )


def test_the_gears_turn(desktop: Desktop) -> None:
    first = np.asarray(desktop.vm.screen().convert("RGB")).astype(int)

    def turned(image: Image.Image) -> bool:
        now = np.asarray(image.convert("RGB")).astype(int)
        return gears(image) and int((abs(now - first).sum(axis=2) > 60).sum()) > TURNED

    shown = desktop.vm.wait_screen(turned)
    keep(shown.crop(CORNER), f"gears-{desktop.driver}", colours=256)
