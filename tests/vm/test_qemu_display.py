"""QEMU's own display, on QEMU as it is: its vhost-user-gpu-pci has one, and shares no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guest_vm import GpuGuest, Guest, exchange
from initramfs import Tree
from PIL import Image

from hesper.display.scanout import Size
from hesper.gpu.runner import GpuOptions
from hesper.vhost_user_gpu import VhostUserGpu
from hesper.vm.qemu_window import QemuWindow

SIZE = Size(1024, 768)
ATTEMPTS = 600


class WindowedGuest(Guest):
    """Its screen is on QEMU's display, which shows it to whoever asks for a picture.

    A VNC server of QEMU's would not: for a device of this kind it wants what draws with OpenGL.
    """

    def boot_options(self) -> dict[str, Any]:
        """See `Guest`."""
        window = QemuWindow(kind="none", scanouts=1, size=SIZE, hostmem=0)
        return {**super().boot_options(), "window": window}


@pytest.fixture(scope="module")
def vm(tree: Tree, program: Callable[[str], Path]) -> Iterator[GpuGuest]:
    """A guest whose screen is in both QEMU's display and Hesper's."""
    with exchange(tree) as place:
        guest = WindowedGuest(place, programs=[program("pattern")])
        options = GpuOptions(size=SIZE)
        with VhostUserGpu(guest.gpu_socket, options, lambda: None) as gpu, guest:
            yield GpuGuest(guest, gpu)


def in_window(vm: GpuGuest) -> Image.Image:
    """What QEMU shows."""
    place = vm.guest.place
    file = place.folder / "picture.ppm"
    vm.guest.monitor("screendump", filename=str(place.inside(file)))
    with Image.open(file) as image:
        return image.convert("RGB")


def wait_same(vm: GpuGuest) -> Image.Image:
    """Wait until QEMU shows what Hesper shows; returns it."""
    ours = vm.screen().convert("RGB")
    for _ in range(ATTEMPTS):
        theirs = in_window(vm)
        if theirs.size == ours.size and np.array_equal(np.asarray(theirs), np.asarray(ours)):
            return theirs
    raise AssertionError(f"QEMU shows another picture, of {theirs.size}")


def test_the_guest_has_a_screen_and_no_more(vm: GpuGuest) -> None:
    log = vm.run("dmesg | grep drm")
    for feature in ("+edid", "-resource_blob", "-host_visible", "-context_init"):
        assert feature in log
    assert "ERROR" not in log
    assert "timed out" not in log
    modes = vm.run("head -qn1 /sys/class/drm/card0-Virtual-*/modes").split()
    assert modes == ["1024x768"]


def test_qemu_shows_what_the_guest_shows(vm: GpuGuest) -> None:
    vm.guest.send("pattern 3366cc")
    vm.guest.wait_line("^shown")
    vm.wait_pixel((512, 400), (0x33, 0x66, 0xCC))
    shown = wait_same(vm)
    assert shown.size == SIZE
    # The corner, in the inverse colour: it is the right way up.
    assert [shown.getpixel(at) for at in ((0, 0), (31, 15), (32, 16))] == [
        (0xCC, 0x99, 0x33),
        (0xCC, 0x99, 0x33),
        (0x33, 0x66, 0xCC),
    ]
    vm.run("")


def test_the_display_survives_a_pause(vm: GpuGuest) -> None:
    """QEMU closes its display's socket, and makes another when it goes on."""
    vm.guest.monitor("stop")
    vm.guest.monitor("cont")
    vm.guest.send("pattern 884422")
    vm.guest.wait_line("^shown")
    vm.wait_pixel((100, 100), (0x88, 0x44, 0x22))
    wait_same(vm)
    vm.run("")


def test_the_display_survives_a_reboot(vm: GpuGuest) -> None:
    """So it does here."""
    vm.guest.send("reboot -f")
    vm.guest.wait_ready()
    vm.guest.send("pattern 556677")
    vm.guest.wait_line("^shown")
    vm.wait_pixel((100, 100), (0x55, 0x66, 0x77))
    wait_same(vm)
    vm.run("")
