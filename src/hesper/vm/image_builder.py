"""Makes a guest's disk image."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hesper.vm import mmdebstrap
from hesper.vm.guest_image import ImageError, ImageOptions, Step


def build_image(options: ImageOptions, step: Step, detail: Step) -> None:
    """Make the image; `step` hears of every step, `detail` of what a step says.

    The file appears whole or not at all.  Raises `ImageError`.
    """
    mmdebstrap.check(options)
    if options.output.exists():
        raise ImageError(f"{options.output} is there already: remove it, or choose another name")
    part = options.output.with_name(f".{options.output.name}.part")
    with tempfile.TemporaryDirectory(prefix="hesper-image-") as folder:
        work = Path(folder)
        # Packages are unpacked by another user, who has to get through.
        work.chmod(0o755)
        try:
            mmdebstrap.make(options, work, part, step, detail)
            part.replace(options.output)
        finally:
            part.unlink(missing_ok=True)
