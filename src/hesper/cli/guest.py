"""Make disk images for guests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from hesper.cli import fail
from hesper.cli._sizes import parse_size
from hesper.vm.firmware import FirmwareError
from hesper.vm.guest_image import ARCHITECTURES, ImageError, ImageOptions
from hesper.vm.image_builder import build_image
from hesper.vm.installer import Builder
from hesper.vm.qemu import QemuError, host_architecture

command = App(name="guest", help="Make disk images for guests.")

DETAIL_SECONDS = 10.0
"""Between two lines of what a step says, where they go to no terminal."""
_DEBIAN_ARCHITECTURES = {ours: debians for debians, ours in ARCHITECTURES.items()}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Debian:
    """Which Debian it is."""

    suite: str = "trixie"
    """Debian's release."""
    arch: Literal["amd64", "arm64"] | None = None
    """Architecture of the guest, as Debian calls it. Default: this host's. Another one's programs
    run emulated while the image is made (Debian's qemu-user), which takes some times as long."""
    pages: Literal["4k", "16k"] | None = None
    """Size of the kernel's pages. Default: 16k for arm64, as Apple Silicon has, else 4k."""
    mirror: str = ""
    """Where packages come from, as https://HOST/debian. Default: Debian's own servers, which
    mmdebstrap knows; its installer has to be told."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class User:
    """Who uses it."""

    user: str = "guest"
    """Name of the user."""
    ssh_key: Path | None = None
    """File with a public key that may log in by SSH, as with `hesper vm --port 2222:22`."""

    @property
    def key(self) -> str:
        """The key itself; empty without any.  Raises `OSError`."""
        return self.ssh_key.read_text(encoding="utf-8").strip() if self.ssh_key else ""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class By:
    """What makes the image."""

    installer: Annotated[bool, Parameter(negative=())] = False
    """Have Debian's own installer make it, in a virtual machine. Default: where there is no
    mmdebstrap, as on a Mac."""
    qemu: str | None = None
    """How to run QEMU for the installer, where it is not found by itself."""
    accel: Literal["hvf", "kvm", "tcg"] | None = None
    """QEMU's accelerator for the installer. Default: the best one that QEMU can use here."""

    @property
    def builder(self) -> Builder | None:
        """The installer's machine; None to do as the machine has it."""
        if not (self.installer or self.qemu or self.accel):
            return None
        return Builder(qemu=self.qemu, accelerator=self.accel)


@command.command
def build(
    output: Path,
    *,
    size: Annotated[str, Parameter(metavar="SIZE")] = "8G",
    desktop: Literal["none", "weston", "sway", "xorg", "xfce", "gnome", "kde"] = "none",
    use: Annotated[Literal["containers"] | None, Parameter(name="--for")] = None,
    package: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    user: User = User(),
    debian: Debian = Debian(),
    by: By = By(),
) -> None:
    """Make a bootable Debian with Mesa's Venus driver and Vulkan tools.

    Needs neither root nor loop devices, but a network, and Debian's mmdebstrap, e2fsprogs, fdisk,
    mtools and (as another user than root) fakeroot. Without mmdebstrap it needs QEMU, as `hesper
    vm` does: Debian's installer then makes the image in a virtual machine, which takes longer.

    The image boots by UEFI: `hesper vm IMAGE`. Kernel and Mesa are those of the suite's backports,
    but a kernel with pages of 16 KiB is the suite's own, which works with every Mesa.
    The user logs in by itself on the screen and the serial port, has no password, and may use sudo.

    Parameters
    ----------
    output:
        The image's name; it must not exist.
    size:
        Size of the disk; the file takes what is used.
    desktop:
        What to install for the screen; it starts when the machine has.
    use:
        What the guest is for: `containers` have the GPU by podman, which is installed.
    package:
        Another package to install. Can be repeated.
    user:
        Who uses it.
    debian:
        Which Debian it is.
    by:
        What makes the image.
    """
    console = Console(stderr=True)
    started = time.monotonic()
    try:
        options = ImageOptions(
            output=output,
            suite=debian.suite,
            architecture=debian.arch or _DEBIAN_ARCHITECTURES[host_architecture()],
            pages=debian.pages or "",
            size=parse_size(size),
            desktop=desktop,
            use=use or "",
            packages=package,
            user=user.user,
            ssh_key=user.key,
            mirror=debian.mirror,
        )
        with console.status("") as status:
            current = ""
            said = started

            def step(text: str) -> None:
                nonlocal current
                current = text
                console.print(f"{time.monotonic() - started:5.0f} s  {text}", highlight=False)
                status.update(text)

            def detail(text: str) -> None:
                nonlocal said
                if console.is_terminal:
                    status.update(f"{current}: [dim]{escape(text[-100:])}", spinner="dots")
                elif time.monotonic() - said >= DETAIL_SECONDS:
                    # A line now and then for a log, which has no line to write over.
                    said = time.monotonic()
                    console.print(f"{said - started:5.0f} s  {escape(text)}", highlight=False)

            build_image(options, step, detail, by.builder)
    except (FirmwareError, ImageError, QemuError, OSError, ValueError) as error:
        fail(str(error))
    used = output.stat().st_blocks * 512
    print(f"{output}: {used / 1e9:.1f} GB, made in {time.monotonic() - started:.0f} s")
    print(f"start it: hesper vm {output}")
    if use == "containers":
        print("in it: podman run --device /dev/dri IMAGE; vulkan-image makes an image to try")
    if desktop != "none":
        print(f"{desktop} starts when {user.user} has logged in on the screen, by itself")
