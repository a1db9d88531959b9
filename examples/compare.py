"""Render the same picture on the bare driver and through Hesper, and compare the two.

    python examples/compare.py --folder build/demo [--width 320 --height 240 --samples 1]

Writes bare.png, hesper.png and side-by-side.png.  Exits with 1 when the pictures differ visibly or
the second one was not drawn through Hesper.  Needs Hesper, wgpu, numpy, pillow and Mesa's Venus.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hesper.errors import NoDriverError
from hesper.host.drivers import choose_driver

PROGRAM = Path(__file__).with_name("picture.py")
HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
"""The command `hesper`, of this interpreter."""
GAP = 12
CAPTION = 28
VISIBLE = 8
"""Difference in one channel (of 255) that counts as visible."""


def run(
    command: list[str], picture: Path, environ: dict[str, str], more: list[str]
) -> dict[str, Any]:
    """Run the example; returns what it says of itself."""
    arguments = [sys.executable, str(PROGRAM), "--out", str(picture), "--json", *more]
    done = subprocess.run(
        [*command, *arguments], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"{' '.join(command) or 'the bare driver'}: exit {done.returncode}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def side_by_side(left: Path, right: Path, captions: tuple[str, str], out: Path) -> None:
    """Put two pictures of one size next to each other, with a caption each."""
    pictures = [Image.open(left), Image.open(right)]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (2 * width + 3 * GAP, height + 2 * GAP + CAPTION), (18, 18, 26))
    draw = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x = GAP + index * (width + GAP)
        draw.text((x, GAP), caption, fill=(235, 225, 205))
        sheet.paste(picture, (x, GAP + CAPTION))
    sheet.save(out)


def main() -> int:
    """Render twice, compare, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/demo"))
    parser.add_argument("--driver", help="host driver to use on both sides (default: the best)")
    # The rest is the example's: the picture's size, and how finely it is drawn.
    options, more = parser.parse_known_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    bare, through = options.folder / "bare.png", options.folder / "hesper.png"
    sheet = options.folder / "side-by-side.png"
    try:
        driver = choose_driver(options.driver)
    except NoDriverError as error:
        raise SystemExit(str(error)) from None

    print(f"[1/3] on the bare driver ({driver.name}) ...", flush=True)
    first = run([], bare, {**os.environ, **driver.environment}, more)
    print("[2/3] through Hesper ...", flush=True)
    second = run(
        [*HESPER, "run", "--driver", driver.manifest, "--"], through, dict(os.environ), more
    )
    print("[3/3] compare ...", flush=True)
    left = np.asarray(Image.open(bare), dtype=np.int16)
    right = np.asarray(Image.open(through), dtype=np.int16)
    difference = np.abs(left - right)
    captions = (f"bare driver: {first['device']}", f"through Hesper: {second['device']}")
    side_by_side(bare, through, captions, sheet)

    print()
    for title, facts in (("bare driver", first), ("through Hesper", second)):
        print(f"  {title:15} {facts['device']}")
        print(
            f"  {'':15} set up {facts['setup_seconds']:.3f} s, "
            f"rendered {facts['render_seconds']:.3f} s, {facts['picture']}"
        )
    print(
        f"  {'difference':15} at most {difference.max()} of 255, mean {difference.mean():.4f},"
        f" {np.count_nonzero(difference.max(axis=2))} of {left.shape[0] * left.shape[1]} pixels"
    )
    print(f"  {'side by side':15} {sheet}")
    if "Venus" not in second["device"]:
        print("FAILED: the second picture was not drawn through Venus; see `hesper doctor`")
        return 1
    if difference.max() > VISIBLE:
        print("FAILED: the pictures differ")
        return 1
    print("The pictures are the same." if not difference.any() else "No visible difference.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
