"""A desktop in the guest, and the spinning cube in it, as viewers see them.

The compositor draws with OpenGL by zink on Venus; vkcube shares its pictures with it as dma-bufs;
what the compositor makes is scanned out where it lies.  An X server does without OpenGL here: it
refuses to draw by a processor's.  vkcube's pictures go to it through memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import open_page
from guest_vm import TREE_DEVICE, GpuGuest, gpu_guest, keep
from initramfs import Tree
from PIL import Image
from serving import run
from vnc_client import TIGHT, Viewer
from weston_cube import (
    ONLY_VENUS,
    check_compositor,
    check_cube,
    check_turning,
    cube,
    cube_window,
    start_weston,
)

from hesper.vm.outputs import Address, OutputOptions, Outputs


@pytest.fixture(scope="module")
def desktop(tree: Tree) -> Iterator[GpuGuest]:
    """A guest with weston and vkcube on the screen."""
    with gpu_guest(tree, extra=TREE_DEVICE) as vm:
        start_weston(vm)
        yield vm


def test_the_compositor_draws_through_venus(desktop: GpuGuest) -> None:
    check_compositor(desktop)
    names = [figures.name for figures in desktop.gpu.runner.figures()]
    desktop.run("usleep 100000")
    names = [figures.name for figures in desktop.gpu.runner.figures()] or names
    assert {"weston", "vkcube"} <= set(names)


def test_the_cube_turns(desktop: GpuGuest) -> None:
    check_turning(desktop)
    keep(desktop.screen(), "weston")


@pytest.fixture(scope="module")
def x_desktop(tree: Tree) -> Iterator[GpuGuest]:
    """A guest with an X server and vkcube on the screen."""
    with gpu_guest(tree, extra=TREE_DEVICE) as vm:
        vm.enter_tree()
        # Not with every kernel can files be made in the folders of an overlay over 9p.
        vm.run("mount -t tmpfs keymaps /root-in-tree/var/lib/xkb")
        xorg = "Xorg :0 -ac -noreset -keeptty -logfile /tmp/xorg.txt vt1"
        vm.run(f"in_tree {xorg} > /tmp/xorg.log 2>&1 & x=$!")
        there = "[ -S /tmp/.X11-unix/X0 ]"
        vm.run(f"until {there} || ! kill -0 $x; do usleep 20000; done")
        vm.run(f"{there} || {{ cat /tmp/xorg.log; false; }}")
        vkcube = "DISPLAY=:0 MESA_VK_WSI_DEBUG=sw vkcube --wsi xcb"
        vm.run(f"in_tree env {ONLY_VENUS} {vkcube} > /tmp/vkcube.log 2>&1 &")
        vm.wait_screen(cube_window)
        yield vm


@contextlib.asynccontextmanager
async def vnc(outputs: Outputs) -> AsyncIterator[Viewer]:
    """A VNC client."""
    place = next(text for text in outputs.places if "VNC" in text)
    viewer = await Viewer.connect(int(place.rpartition(":")[2]))
    viewer.set_encodings(TIGHT)
    try:
        yield viewer
    finally:
        await viewer.close()


@contextlib.contextmanager
def serving(vm: GpuGuest) -> Iterator[Outputs]:
    """Servers for the guest's screen."""
    anywhere = Address("127.0.0.1", 0)
    options = OutputOptions(vnc=anywhere, vnc_open=True, web=anywhere)
    with Outputs(vm.display, options, vm.gpu.runner.figures) as started:
        yield started


@pytest.fixture
def outputs(desktop: GpuGuest) -> Iterator[Outputs]:
    """Servers for the desktop's screen."""
    with serving(desktop) as started:
        yield started


def watch(outputs: Outputs, *, frames: int) -> tuple[list[Image.Image], float]:
    """Look at the screen by VNC; returns the first and the last picture, and updates a second."""
    pictures: list[Image.Image] = []
    rate = 0.0

    async def scenario() -> None:
        nonlocal rate
        async with vnc(outputs) as viewer:
            assert viewer.size == (1280, 800)
            viewer.request(incremental=False)
            await viewer.update()
            pictures.append(Image.fromarray(viewer.rgb().astype(np.uint8)))
            start = time.monotonic()
            for _ in range(frames):
                viewer.request()
                await viewer.update()
            rate = frames / (time.monotonic() - start)
            pictures.append(Image.fromarray(viewer.rgb().astype(np.uint8)))

    run(scenario())
    return pictures, rate


def test_a_vnc_client_sees_it(outputs: Outputs) -> None:
    pictures, rate = watch(outputs, frames=60)
    print(f"VNC updates a second, 1280x800 with a turning cube: {rate:.1f}")
    check_cube(*pictures)


def test_a_vnc_client_sees_it_on_x(x_desktop: GpuGuest) -> None:
    assert "Virtio-GPU Venus" in x_desktop.run("cat /tmp/vkcube.log")
    with serving(x_desktop) as outputs:
        pictures, _ = watch(outputs, frames=60)
    check_cube(*pictures)


def test_a_browser_sees_it(outputs: Outputs, tmp_path: Path) -> None:
    url = next(text for text in outputs.places if "http" in text).partition(": ")[2]
    pictures: list[Image.Image] = []

    async def scenario() -> None:
        async with open_page(url, tmp_path / "profile", (1400, 1000)) as page:
            await page.wait_for("document.querySelector('#screen canvas') !== null")
            await page.wait_for("document.querySelector('#notice').hidden")
            async with asyncio.timeout(60):
                while len(pictures) < 2:
                    data = await page.evaluate(
                        "document.querySelector('#screen canvas').toDataURL('image/png')"
                    )
                    image = _decode(data)
                    if cube_window(image) and not (
                        pictures and (cube(image) != cube(pictures[0])).sum() < 3000
                    ):
                        pictures.append(image)
                    await asyncio.sleep(0.05)
            shot = Image.open(io.BytesIO(await page.screenshot())).convert("RGB")
            keep(shot, "web-page")

    run(scenario())
    check_cube(*pictures)


def test_the_cube_turns_after_a_pause_and_after_sleep(
    desktop: GpuGuest, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        desktop.guest.monitor("stop")
        desktop.guest.monitor("cont")
        check_turning(desktop)
    # It would be a pause like any other were less mapped.
    assert "cannot start the GPU again after a pause" in caplog.text
    desktop.guest.sleep_and_wake()
    check_turning(desktop)


def _decode(url: str) -> Image.Image:
    """An image out of a `data:` address."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
