"""What a guest's programs do, and what the bare driver does: for one host driver or another."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from guest_vm import GpuGuest

from hesper.host.drivers import choose_driver


def bare(manifest: str, program: Path, *arguments: str) -> str:
    """What a program prints on that driver of the host's, or on the best; no guest is involved."""
    environment = os.environ | {"VK_DRIVER_FILES": manifest or str(choose_driver(None).manifest)}
    command: list[str | Path] = [program, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def value(text: str, name: str) -> str:
    """What stands after `name:` in a program's output."""
    match = re.search(rf"^{name}: (.*)$", text, re.MULTILINE)
    assert match is not None, text
    return match[1]


def check_compute(vm: GpuGuest, program: Path, manifest: str = "") -> None:
    """Check that it computes what the bare driver does, and that both sides see each write."""
    guest = vm.run("compute")
    assert value(guest, "device").startswith("Virtio-GPU Venus")
    assert value(guest, "compute") == value(bare(manifest, program), "compute")
    assert value(guest, "memory") == "ok"


def check_rendering(vm: GpuGuest, program: Path, manifest: str = "") -> None:
    """Check that it draws what the bare driver does."""
    guest = vm.run("render 50")
    assert value(guest, "render") == value(bare(manifest, program, "1"), "render")
    assert value(guest, "frames") == "50"


def check_blob_on_screen(vm: GpuGuest) -> None:
    """Check that memory which Vulkan renders into is seen on the screen."""
    vm.guest.send("scanout")
    vm.guest.wait_line("^shown")
    vm.wait_pixel((640, 400), (0, 0, 255))
    # The line goes to the program, which changes the picture.
    vm.guest.send("")
    vm.guest.wait_line("^shown")
    vm.wait_pixel((640, 400), (0, 255, 0))
    assert vm.screen().getextrema() == ((0, 0), (255, 255), (0, 0))
    vm.run("")
