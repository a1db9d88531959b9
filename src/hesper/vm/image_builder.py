"""Makes a guest's disk image: by mmdebstrap where that is, else by Debian's installer."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hesper.portable import name_beside
from hesper.vm import installer, mmdebstrap
from hesper.vm.guest_image import ImageError, ImageOptions, Step


def build_image(
    options: ImageOptions, step: Step, detail: Step, machine: installer.Builder | None = None
) -> None:
    """Make the image; `step` hears of every step, `detail` of what a step says.

    machine: have the installer make it, in a machine like this; by default where there is no
    mmdebstrap.  The file appears whole or not at all.  Raises `ImageError`, `QemuError`,
    `FirmwareError` and `OSError`.
    """
    if options.output.exists():
        raise ImageError(f"{options.output} is there already: remove it, or choose another name")
    if machine is None and not mmdebstrap.is_there():
        step("no mmdebstrap here: Debian's installer makes the image, in a virtual machine")
        machine = installer.Builder()
    if machine is None:
        mmdebstrap.check(options)
    elif not options.mirror:
        raise ImageError(
            "say --mirror, the address of one of Debian's archives, as https://HOST/debian:"
            " Debian's list of mirrors has one near you, and without mmdebstrap none is known here"
        )
    part = name_beside(options.output)
    with tempfile.TemporaryDirectory(prefix="hesper-image-") as folder:
        work = Path(folder)
        # Packages are unpacked by another user, who has to get through.
        work.chmod(0o755)
        try:
            if machine is not None:
                installer.install(options, machine, work, part, step, detail)
            else:
                mmdebstrap.make(options, work, part, step, detail)
            part.replace(options.output)
        finally:
            part.unlink(missing_ok=True)
