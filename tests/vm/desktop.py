"""A built image's desktop: it comes up by itself, drawn by zink on Venus, and takes another size.

`scripts/record-desktop` runs it.  Keeps a picture where `HESPER_TEST_PICTURES` names a folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import time
from pathlib import Path

from evening_machine import HESPER, EveningMachine, running
from guest_vm import keep
from PIL import Image

COMPOSITORS = {
    "gnome": "gnome-shell",
    "kde": "kwin_wayland",
    "sway": "sway",
    "weston": "weston",
}
"""The program that draws a desktop on Wayland."""
PICTURED = 1000
"""Colours that a screen with a wallpaper has, at least."""
DRAWN = 8 << 20
"""Bytes: two pictures of a screen.  Who has asked for the GPU's name alone has less."""
LARGER = (1440, 904)
PATIENCE = 3600.0
"""Emulated, GNOME's first start takes long."""


async def see(machine: EveningMachine, desktop: str) -> None:
    """Wait for the desktop, and see who draws it."""
    end = time.monotonic() + PATIENCE
    program = COMPOSITORS[desktop]
    is_there = f"pgrep -u guest -x {program}"
    while not await machine.shell.run(is_there, check=False):
        assert time.monotonic() < end, f"no {program}"
        await asyncio.sleep(1)
    while not is_pictured(machine.screens()[0]):
        assert time.monotonic() < end, "no desktop"
        await asyncio.sleep(1)
    memory = memory_of(program)
    print(f"    {program} has {memory >> 20} MiB on the host's GPU", flush=True)
    assert memory > DRAWN
    keep(machine.screens()[0], f"desktop-{desktop}")


def memory_of(program: str) -> int:
    """Bytes that a program of the guest's has on the host's GPU; 0 where it is not served."""
    done = subprocess.run([*HESPER, "ps", "--json"], capture_output=True, text=True, check=True)
    clients = [client for report in json.loads(done.stdout) for client in report["clients"]]
    return max((each["memory"] for each in clients if each["name"] == program), default=0)


def is_pictured(screen: Image.Image) -> bool:
    """Whether it shows more than a console does."""
    return len(screen.getcolors(1 << 24) or ()) > PICTURED


async def resize(machine: EveningMachine) -> None:
    """Make the viewer's window larger; the desktop follows."""
    machine.viewer.set_desktop_size(*LARGER)
    await machine.wait_screens(
        lambda screens: screens[0].size == LARGER and is_pictured(screens[0])
    )


async def look(image: Path, desktop: str, options: list[str]) -> None:
    """Boot it, and look at all of it."""
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {what}", flush=True)

    say("booting")
    async with running(image, *options) as machine:
        say("logged in on the serial port")
        await see(machine, desktop)
        say("the desktop is there")
        await resize(machine)
        say("it has another size")


def main() -> None:
    """Build where there is no image, and look."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("desktop", choices=sorted(COMPOSITORS))
    parser.add_argument("image", type=Path, help="made if it is not there")
    options, more = parser.parse_known_args()
    if not options.image.exists():
        command = [*HESPER, "guest", "build", str(options.image), "--desktop", options.desktop]
        subprocess.run(command, check=True)
    asyncio.run(look(options.image, options.desktop, [word for word in more if word != "--"]))


if __name__ == "__main__":
    main()
