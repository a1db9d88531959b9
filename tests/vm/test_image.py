"""`hesper guest build`: the image is made, boots by UEFI, and finds its GPU."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from guest_vm import GpuGuest, Guest, exchange
from initramfs import Tree

from hesper.gpu.runner import GpuOptions
from hesper.vhost_user_gpu import VhostUserGpu
from hesper.vm import mmdebstrap
from hesper.vm.disks import DiskBoot, FileKind, disk_boot, file_kind
from hesper.vm.firmware import Firmware
from hesper.vm.guest_image import ImageError, ImageOptions, preferences
from hesper.vm.image_builder import build_image
from hesper.vm.machine import Disk

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
BUILD_SECONDS = 900.0
RETRY_SECONDS = 5.0
CONTAINER_SECONDS = 300.0
PROMPT = "automatic login"


@dataclass
class ImageGuest(Guest):
    """A guest from a disk image, whose user has logged in at the serial port."""

    disk: Path = Path()

    def boot_options(self) -> dict[str, Any]:
        """See `Guest.boot_options`; the firmware is the tree's."""
        folder = Path("/usr/share/OVMF")
        code, template = folder / "OVMF_CODE_4M.fd", folder / "OVMF_VARS_4M.fd"
        root = self.place.tree.root
        variables = self.place.folder / "uefi"
        Firmware(code, root / template.relative_to("/")).copy_variables(variables)
        return {
            "disks": [Disk(self.place.inside(self.disk), FileKind.RAW)],
            "firmware": Firmware(code, template),
            "firmware_variables": self.place.inside(variables),
        }

    def wait_ready(self) -> None:
        """Log in, and make the shell talk as that of the tests does."""
        self.wait_line(PROMPT, BUILD_SECONDS)
        deadline = time.monotonic() + BUILD_SECONDS
        while True:
            # What is typed before the shell is there may be lost.
            self.send("stty -echo; PS1=; echo guest: is ready")
            with contextlib.suppress(AssertionError):
                self.wait_line("^guest: is ready", RETRY_SECONDS)
                break
            assert time.monotonic() < deadline, "\n".join(self.output[-60:])
        # The answers to earlier tries come before that of this.
        self.send("echo guest: listens")
        self.wait_line("^guest: listens")

    def run(self, command: str, **options: Any) -> str:
        """See `Guest.run`."""
        return super().run(f"{command}; echo guest: done $?", **options)


def options(architecture: str, pages: str = "") -> ImageOptions:
    return ImageOptions(output=Path("x"), architecture=architecture, pages=pages)


def test_a_guest_for_apple_silicon_has_its_pages() -> None:
    assert options("arm64").kernel == "linux-image-arm64-16k"
    assert options("arm64", "4k").kernel == "linux-image-arm64"
    assert options("amd64").kernel == "linux-image-amd64"
    with pytest.raises(ImageError, match="amd64 has 4k"):
        options("amd64", "16k")


def test_a_kernel_with_large_pages_is_not_too_new_for_mesa() -> None:
    """From 7.2 on it refuses what a Mesa before 26.2.4 shares with a host of 16 KiB."""
    assert "src:mesa*" in preferences(options("arm64"))
    assert "linux*" not in preferences(options("arm64"))
    for other in (options("arm64", "4k"), options("amd64")):
        assert "src:linux* src:mesa*" in preferences(other)
    assert preferences(replace(options("arm64"), suite="sid")) == ""


def test_another_architecture_needs_an_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it lacks is said before an image is begun."""
    monkeypatch.setattr(mmdebstrap, "_BINFMT", tmp_path)
    monkeypatch.setattr(mmdebstrap, "is_there", lambda: True)
    monkeypatch.setattr(mmdebstrap, "_check_tools", lambda *, foreign: asked.append(str(foreign)))
    asked: list[str] = []
    for state in (None, "disabled\n"):
        if state is not None:
            (tmp_path / "qemu-aarch64").write_text(state)
        with pytest.raises(ImageError, match="qemu-user"):
            build_image(options("arm64"), asked.append, asked.append)
    assert asked == ["True", "True"]
    (tmp_path / "qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu-aarch64\n")
    monkeypatch.setattr(mmdebstrap, "_make_root", stop)
    with pytest.raises(InterruptedError):
        build_image(options("arm64"), asked.append, asked.append)


def stop(*_: object) -> None:
    raise InterruptedError


@pytest.mark.timeout(2 * BUILD_SECONDS)
def test_an_image_is_built_and_booted(tree: Tree) -> None:
    with exchange(tree) as place:
        disk = place.folder / "guest.img"
        # What is for containers is what any other is, and more.
        command: list[str | Path] = [*HESPER, "guest", "build", disk, "--size", "4G"]
        command += ["--for", "containers"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
        assert done.returncode == 0, done.stderr
        # Every step is told, and how to go on.
        assert "installing Debian" in done.stderr
        assert f"hesper vm {disk}" in done.stdout
        assert file_kind(disk) is FileKind.RAW
        assert disk_boot(disk, FileKind.RAW) == DiskBoot(True, "x86_64")
        assert disk.stat().st_blocks * 512 < 2 << 30
        guest = ImageGuest(place, disk=disk)
        with VhostUserGpu(guest.gpu_socket, GpuOptions(), _unexpected) as gpu, guest:
            vm = GpuGuest(guest, gpu)
            assert "Virtio-GPU Venus" in vm.run("vulkaninfo --summary")
            assert "resource_blob" in vm.run("sudo dmesg | grep drm")
            assert vm.run("systemctl is-system-running", check=False).strip() == "running"
            check_containers(vm)
            vm.wait_screen(lambda image: image.getextrema() != ((0, 0), (0, 0), (0, 0)))
            guest.monitor("system_powerdown")
            assert guest.wait_ended() == 0


def check_containers(vm: GpuGuest) -> None:
    """Containers have the GPU by its device alone, and whoever may start them: root, and the user.

    Their image is made in the guest, of what is installed there: it reaches no registry.
    """
    for become in ("", "sudo "):
        assert "vulkaninfo" in vm.run(f"{become}vulkan-image", seconds=CONTAINER_SECONDS)
        told = "vulkan vulkaninfo --summary 2>&1"
        run = f"{become}podman run --rm --network none"
        found = vm.run(f"{run} --device /dev/dri {told}", seconds=CONTAINER_SECONDS)
        assert "Virtio-GPU Venus" in found
        # No device, no GPU: the container is one.
        found = vm.run(f"{run} {told}", seconds=CONTAINER_SECONDS, check=False)
        assert "Virtio-GPU Venus" not in found


def _unexpected() -> None:
    raise AssertionError("the device has ended")
