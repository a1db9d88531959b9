"""A new user's evening: what `docs/evening.md` tells, done and looked at.

Every step asserts what it shows, and keeps a picture of it where `HESPER_TEST_PICTURES` names a
folder.  `scripts/record-evening` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import struct
import subprocess
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from evening_machine import (
    CONTROL,
    HESPER,
    NAME,
    PATIENCE,
    EveningMachine,
    running,
)
from guest_vm import keep
from PIL import Image
from weston_cube import check_cube, cube, cube_window

from hesper.display.sound import FRAME, RATE

LETTER = """Dear Ada,

this is written on a machine inside of a machine, as fast as the wire takes it, and every letter
of it has to arrive: the quick brown fox jumps over the lazy dog; "SHIFT" & (brackets) [too]!

Yours, a new user
"""
ANSWER = "\n\nThank you! Gr\xfc\xdfe aus dem Wirt \N{SNOWMAN}"
PACKAGES = ("mousepad", "mpv", "ffmpeg", "chromium", "wmctrl")
"""Beside those of the desktop."""
SIZE = (1280, 800)
MIDDLE = (110, 40, 1000, 720)
"""Of a screen, in which the cubes are."""
LARGER = (1440, 904)
PITCH = 440
END = 0xFF57
"""The key."""
SAVE_SECONDS = 3.0
"""Between two times that the letter is saved."""
INK = 2000
"""Pixels that a letter has, at least."""
LOUD = 300
"""Of 32767; guests' mixers may be turned down."""
ASLEEP_SECONDS = 10.0
"""Without any frame of a cube that turns."""
BROWSER_SECONDS = 240
BROWSER_TRIES = 3
TEXT_FORMAT = 1
PROVIDE, NOTIFY, REQUEST_TEXT = 1 << 28, 1 << 27, 1 << 25
BARS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))
"""Colours of ffmpeg's test picture."""

Step = Callable[[EveningMachine], Awaitable[None]]


async def see_the_desktop(machine: EveningMachine) -> None:
    """Wait for the desktop, and put the second screen beside the first."""
    await machine.wait_true("pgrep -x xfce4-panel > /dev/null && pgrep -x xfdesktop > /dev/null")
    for line in ("export DISPLAY=:0", "export XAUTHORITY=$HOME/.Xauthority"):
        await machine.shell.run(line)
    await machine.wait_true("xrandr > /dev/null")
    await machine.shell.run("xrandr --output Virtual-2 --auto --right-of Virtual-1")
    assert "Virtio-GPU Venus" in await machine.shell.run("vulkaninfo --summary")
    # A panel and icons: many colours; the second screen has none of them, but what it may.
    await machine.wait_screens(
        lambda screens: (
            len(screens) == 2 and colours(screens[0]) > 100 and changed(*screens) > 10_000
        )
    )
    await machine.wait_true("pgrep -x spice-vdagent > /dev/null")
    keep_as(machine, "evening-desktop")


async def write_a_letter(machine: EveningMachine) -> None:
    """Type a letter without a pause between keys, and save it: no letter is lost."""
    await machine.shell.run("rm -f letter.txt; touch letter.txt")
    # A window opens on the screen that the pointer is on.
    machine.viewer.pointer(0, SIZE[0] // 2, SIZE[1] // 2)
    await machine.open_window("mousepad letter.txt")
    before = machine.screens()[0]
    machine.type_text(LETTER)
    await wait_saved(machine, LETTER)
    await machine.wait_screens(lambda screens: changed(before, screens[0]) > INK)
    keep_as(machine, "evening-letter")


async def copy_and_paste(machine: EveningMachine) -> None:
    """Copy the letter out, and paste an answer in."""
    viewer = machine.viewer
    viewer.clipboard.clear()
    machine.press(CONTROL, ord("a"))
    machine.press(CONTROL, ord("c"))
    async with asyncio.timeout(PATIENCE):
        await until_clipboard(machine, NOTIFY | TEXT_FORMAT)
        viewer.clipboard_message(REQUEST_TEXT | TEXT_FORMAT)
        data = await until_clipboard(machine, PROVIDE | TEXT_FORMAT)
    copied = zlib.decompress(data)[4:-1].decode().replace("\r\n", "\n")
    assert copied == LETTER, copied
    text = ANSWER.replace("\n", "\r\n").encode() + b"\0"
    packed = zlib.compress(struct.pack(">I", len(text)) + text)
    viewer.clipboard_message(PROVIDE | TEXT_FORMAT, packed)
    # The server has read that before it answers what comes after.
    viewer.request(incremental=False)
    await viewer.update()
    machine.press(CONTROL, END)
    machine.press(CONTROL, ord("v"))
    await wait_saved(machine, LETTER + ANSWER)
    keep_as(machine, "evening-clipboard")
    await machine.shell.run("pkill mousepad")


async def play_a_sound(machine: EveningMachine) -> None:
    """Play a tone, and hear it where the web page does."""
    tone = f"sine=frequency={PITCH}:sample_rate={RATE}:duration=60"
    await machine.shell.run(f"ffmpeg -v error -y -f lavfi -i {tone} -ac 2 tone.wav")
    machine.shell.start("pw-play --volume 1.0 tone.wav")
    heard = b""
    async with asyncio.timeout(PATIENCE):
        async for piece in machine.sound():
            heard += piece
            if len(heard) >= RATE * FRAME:
                break
    await machine.shell.run("pkill pw-play")
    samples = np.frombuffer(heard, "<i2").reshape(-1, 2).astype(float).mean(axis=1)
    assert np.abs(samples).max() > LOUD
    spectrum = np.abs(np.fft.rfft(samples))
    pitch = (spectrum[1:].argmax() + 1) * RATE / len(samples)
    print(f"    heard: {pitch:.0f} Hz, as loud as {np.abs(samples).max():.0f} of 32767")
    assert abs(pitch - PITCH) < 20


async def watch_a_video(machine: EveningMachine) -> None:
    """Make a clip and watch it; its player draws by Vulkan."""
    clip = "testsrc=size=480x270:rate=10:duration=10"
    await machine.shell.run(f"ffmpeg -v error -y -f lavfi -i {clip} -c:v mpeg4 -q:v 4 clip.mp4")
    player = "mpv --no-config --loop --no-audio --gpu-sw=yes --vo=gpu-next --gpu-api=vulkan"
    window = await machine.open_window(f"{player} --msg-level=vo=v,vo/gpu-next=v clip.mp4")
    first: list[Image.Image] = []

    def plays(screens: list[Image.Image]) -> bool:
        if not all(bar_pixels(screens[0], bar) > 1000 for bar in BARS):
            return False
        first.append(screens[0])
        return changed(first[0], screens[0]) > 1000

    await machine.wait_screens(plays)
    assert "Virtio-GPU Venus" in await machine.shell.run("cat /tmp/started.log")
    keep_as(machine, "evening-video")
    await machine.close_window(window)


async def see_cubes_on_both_screens(machine: EveningMachine) -> None:
    """A cube on each screen; both turn."""
    for index in range(2):
        window = await machine.open_window("vkcube --gpu_number 0")
        assert "Virtio-GPU Venus" in await machine.shell.run("cat /tmp/started.log")
        await machine.shell.run(f"wmctrl -i -r {window} -e 0,{300 + index * SIZE[0]},100,-1,-1")
    await see_cubes_turn(machine)
    keep_as(machine, "evening-cubes", screens=2)


async def see_cubes_turn(machine: EveningMachine) -> None:
    """See that each screen shows a cube, and shows it turn."""
    seen: list[list[Image.Image]] = []

    def turn(screens: list[Image.Image]) -> bool:
        # Icons may have a shade that is the ground's.
        seen.append([screen.crop(MIDDLE) for screen in screens])
        if not all(map(cube_window, seen[-1])):
            seen.clear()
            return False
        pairs = zip(seen[0], seen[-1], strict=True)
        return all((cube(one) != cube(other)).sum() > 3000 for one, other in pairs)

    await machine.wait_screens(turn)
    for one, other in zip(seen[0], seen[-1], strict=True):
        check_cube(one, other)


async def resize(machine: EveningMachine) -> None:
    """Make the viewer's window larger; the desktop follows."""
    machine.viewer.set_desktop_size(*LARGER)
    await machine.wait_screens(lambda screens: screens[0].size == LARGER)
    # The panel at the top goes to the new corner.
    await machine.wait_screens(lambda screens: np.asarray(screens[0])[3, LARGER[0] - 3].min() > 200)
    await see_cubes_turn(machine)
    keep_as(machine, "evening-larger", screens=2)


async def sleep_and_wake(machine: EveningMachine) -> None:
    """Suspend the guest, see it stand still, and wake it by its power button."""
    machine.shell.start("sudo systemctl suspend")
    await stands_still(machine)
    machine.hesper("wake", NAME)
    await see_cubes_turn(machine)
    assert "PM: suspend exit" in await machine.shell.run("dmesg | tail -n 60")
    await machine.shell.run("pkill vkcube")


async def browse(machine: EveningMachine) -> None:
    """Look at a page with WebGL, which the browser draws by Vulkan; its triangle turns."""
    page = (Path(__file__).parent / "guest/webgl.html").read_text()
    await machine.shell.run(f"cat > webgl.html <<'END'\n{page}\nEND\ntrue")
    flags = "--no-first-run --password-store=basic --ignore-gpu-blocklist --use-angle=vulkan"
    # Its own buttons and menus it draws itself: emulated, it would do nothing else.
    # Its processes wait a quarter of a minute for one another: emulated, they would end, and again.
    slow = (
        "--disable-gpu-compositing --disable-gpu-watchdog --window-size=700,560"
        f" --ipc-connection-timeout={BROWSER_SECONDS}"
    )
    begin = f"end=$(($(date +%s) + {BROWSER_SECONDS}))"
    said = ""
    for _ in range(BROWSER_TRIES):
        machine.shell.start(
            f"chromium {flags} --enable-unsafe-webgpu {slow} --app=file://$HOME/webgl.html"
        )
        shown = "wmctrl -l | grep WebGL:"
        late = "[ $(date +%s) -gt $end ]"
        said = await machine.shell.run(f"{begin}; until {shown} || {late}; do sleep 1; done")
        if "WebGL:" in said:
            break
        # Emulated, a page stays empty more often than not, and is no longer drawn then.
        print("    the browser shows nothing: started again")
        await machine.shell.run("pkill -9 chromium; while pgrep chromium; do sleep 1; done")
    print(f"    {said.strip()}")
    assert re.search(r"WebGL: ANGLE .*Virtio-GPU Venus", said)
    first = machine.screens()[0]
    await machine.wait_screens(lambda screens: changed(first, screens[0]) > 10_000)
    keep_as(machine, "evening-browser")
    await machine.shell.run("pkill chromium", check=False)


async def shut_down(machine: EveningMachine) -> None:
    """Press the power button; the guest shuts down, and the machine is gone."""
    machine.hesper("stop", NAME)
    assert NAME not in machine.names
    assert "Traceback" not in machine.log


STEPS: tuple[Step, ...] = (
    see_the_desktop,
    write_a_letter,
    copy_and_paste,
    play_a_sound,
    watch_a_video,
    see_cubes_on_both_screens,
    resize,
    sleep_and_wake,
    browse,
    shut_down,
)


def keep_as(machine: EveningMachine, name: str, *, screens: int = 1) -> None:
    """Keep a picture of some screens, side by side, for the documentation."""
    taken = machine.screens()[:screens]
    both = Image.new("RGB", (sum(each.width for each in taken), taken[0].height))
    for index, screen in enumerate(taken):
        both.paste(screen, (index * taken[0].width, 0))
    keep(both, name)


def colours(screen: Image.Image) -> int:
    """How many colours it has."""
    return len(screen.getcolors(1 << 24) or ())


def changed(one: Image.Image, other: Image.Image) -> int:
    """How many pixels differ."""
    return int((np.asarray(one) != np.asarray(other)).any(axis=2).sum())


def bar_pixels(screen: Image.Image, bar: tuple[int, int, int]) -> int:
    """How many pixels have a colour of the test picture's, as video has it."""
    difference = np.abs(np.asarray(screen).astype(int) - np.array(bar) * 255)
    return int((difference < 40).all(axis=2).sum())


async def wait_saved(machine: EveningMachine, text: str) -> None:
    """Save the letter until it is as long as it is to be; check that it is the same."""
    size = len(text.encode())
    end = time.monotonic() + PATIENCE
    is_long = f"[ $(wc -c < letter.txt) -ge {size} ] && echo it is"
    while "it is" not in await machine.shell.run(is_long, check=False):
        assert time.monotonic() < end, await machine.shell.run("cat letter.txt")
        # What is pasted is fetched from the host first: it may not be there yet.
        machine.press(CONTROL, ord("s"))
        await asyncio.sleep(SAVE_SECONDS)
    saved = (await machine.shell.run("base64 -w0 letter.txt; echo")).strip()
    assert base64.b64decode(saved).decode() == text


async def until_clipboard(machine: EveningMachine, flags: int) -> bytes:
    """Read until a message of the clipboard's has those flags; returns what it has beside."""
    while True:
        while machine.viewer.clipboard:
            found, data = machine.viewer.clipboard.pop(0)
            if found == flags:
                return data
        await machine.viewer.message()


async def stands_still(machine: EveningMachine) -> None:
    """Wait until no frame comes any more."""
    end = time.monotonic() + PATIENCE
    last, since = machine.screens(), time.monotonic()
    while time.monotonic() - since < ASLEEP_SECONDS:
        assert time.monotonic() < end, "it does not sleep"
        await asyncio.sleep(1)
        now = machine.screens()
        if any(changed(*pair) for pair in zip(last, now, strict=True)):
            last, since = now, time.monotonic()


def build(image: Path) -> None:
    """Make the image, as a new user does."""
    packages = [word for package in PACKAGES for word in ("--package", package)]
    command = [*HESPER, "guest", "build", str(image), "--desktop", "xfce", *packages]
    subprocess.run(command, check=True)


async def spend(image: Path, options: list[str], only: str) -> None:
    """Do all of it."""
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {what}", flush=True)

    say("booting")
    async with running(image, *options) as machine:
        for step in STEPS:
            if not only or step.__name__ in only.split(","):
                say((step.__doc__ or "").splitlines()[0])
                await step(machine)
    say("that was it")


def main() -> None:
    """Build where there is no image, and spend the evening."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", type=Path, help="made if it is not there")
    parser.add_argument("--only", default="", help="steps, with commas in between")
    options, more = parser.parse_known_args()
    if not options.image.exists():
        build(options.image)
    asyncio.run(spend(options.image, [word for word in more if word != "--"], options.only))


if __name__ == "__main__":
    main()
