"""What firmware and boot loaders show: by the BIOS on a VGA card, by UEFI on the GPU's screen."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from guest_vm import BOOT_SECONDS
from initramfs import Tree
from named_machines import Machines
from PIL import Image
from serving import run, until

from hesper.display.formats import BY_NAME
from hesper.display.geometry import Rect, Size
from hesper.display.scanout import Display, MemorySurface
from hesper.vm import firmware_screen
from hesper.vm.firmware_screen import FirmwareScreen
from hesper.vm.qemu_vnc import QemuVnc, connected

LOOK_SECONDS = 0.2
RED, GREEN = (168, 0, 0), (0, 168, 0)
"""Colours 4 and 2 of a VGA card."""


def boot_loader() -> bytes:
    """A boot sector: a red screen until a key is pressed, a green one, and at the next a reset.

    It is text, as menus are; in modes with a byte for each pixel QEMU's card, emulated, loses some.
    """
    # mov ax,3; int 10h; mov ah,1; mov cx,2000h; int 10h; mov ax,b800h; mov es,ax
    code = bytes.fromhex("b80300 cd10 b401 b90020 cd10 b800b8 8ec0")
    for colour in (4, 2):
        # xor di,di; mov cx,2000; mov ax,"a space on COLOUR"; rep stosw; xor ax,ax; int 16h
        code += bytes.fromhex(f"31ff b9d007 b820{colour}0 f3ab 31c0 cd16")
    # mov al,feh; out 64h,al; hlt; jmp back
    code += bytes.fromhex("b0fe e664 f4 ebfd")
    return code.ljust(510, b"\0") + b"\x55\xaa"


def wait_picture(machines: Machines, name: str, wanted: Callable[[Image.Image], bool]) -> None:
    """Wait until the machine shows what is wanted."""
    deadline = time.monotonic() + BOOT_SECONDS
    path = machines.folder / "shot.png"
    while True:
        machines.hesper("screenshot", name, path)
        picture = Image.open(path).convert("RGB")
        if wanted(picture):
            return
        assert time.monotonic() < deadline, f"{picture.size}: {picture.getcolors()}"
        time.sleep(LOOK_SECONDS)


def test_a_boot_loader_is_seen_and_takes_keys(machines: Machines) -> None:
    """Also once the machine has started over."""

    def all_of(colour: tuple[int, int, int]) -> Callable[[Image.Image], bool]:
        return lambda picture: picture.getextrema() == tuple((each, each) for each in colour)

    disk = machines.folder / "loader.img"
    disk.write_bytes(boot_loader().ljust(1 << 20, b"\0"))
    machines.start(disk)
    for _ in range(2):
        wait_picture(machines, "loader", all_of(RED))
        machines.hesper("send-key", "loader", "a")
        wait_picture(machines, "loader", all_of(GREEN))
        machines.hesper("send-key", "loader", "a")


def test_uefi_is_seen(tree: Tree, machines: Machines) -> None:
    """It has nothing to boot, and writes what it tries on the GPU's screen."""
    descriptors = machines.folder / "share/qemu/firmware"
    descriptors.mkdir(parents=True)
    files = {
        key: {"filename": f"{tree.root}/usr/share/OVMF/OVMF_{name}_4M.fd", "format": "raw"}
        for key, name in (("executable", "CODE"), ("nvram-template", "VARS"))
    }
    firmware = {
        "interface-types": ["uefi"],
        "targets": [{"architecture": "x86_64"}],
        "mapping": {"device": "flash", **files},
    }
    (descriptors / "10-plain.json").write_text(json.dumps(firmware))
    disk = machines.folder / "empty.img"
    disk.write_bytes(bytes(1 << 20))
    machines.start(disk, "--uefi")
    # Light letters on black, of a size that the BIOS does not have.
    wait_picture(
        machines,
        "empty",
        lambda picture: picture.size == (1280, 800) and len(picture.getcolors() or ()) > 2,
    )


class FakeQemu:
    """A VNC server that shows a picture, as QEMU does."""

    def __init__(self) -> None:
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.viewers = 0
        self.asked: asyncio.Queue[tuple[int, ...]] = asyncio.Queue()
        """Requests of updates: whether incremental, and where."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.viewers += 1
        try:
            writer.write(b"RFB 003.008\n")
            await reader.readexactly(12)
            writer.write(b"\x01\x01")
            await reader.readexactly(1)
            writer.write(bytes(4))
            await reader.readexactly(1)
            writer.write(struct.pack(">HH16sI", 4, 2, bytes(16), 4) + b"QEMU")
            # Pixels of 32 bits, little-endian, and two encodings.
            assert (await reader.readexactly(20))[4:8] == bytes([32, 24, 0, 1])
            await reader.readexactly(12)
            while request := await reader.readexactly(10):
                self.asked.put_nowait(struct.unpack(">xBHHHH", request))
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.viewers -= 1
            writer.close()

    def show(self, width: int, height: int, colour: int, *, resized: bool = False) -> None:
        """Send all of a picture; before that, its size where it has changed."""
        self.writer.write(struct.pack(">BxH", 0, 1 + resized))
        if resized:
            self.writer.write(struct.pack(">HHHHi", 0, 0, width, height, -223))
        self.writer.write(struct.pack(">HHHHi", 0, 0, width, height, 0))
        self.writer.write(struct.pack("<I", colour) * (width * height))


class Spawner:
    """The part of `Outputs` that is wanted here."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, make: Callable[[], object]) -> None:
        """See `Outputs.spawn`."""
        self.tasks.add(asyncio.create_task(make()))  # type: ignore[arg-type]


@asynccontextmanager
async def seen(folder: Path) -> AsyncIterator[tuple[FakeQemu, FirmwareScreen, Display]]:
    """A screen that shows what a fake QEMU does."""
    fake, display, outputs = FakeQemu(), Display(), Spawner()
    async with await asyncio.start_unix_server(fake.serve, folder / "vga"):
        screen = FirmwareScreen(folder / "vga", display[0], outputs)  # type: ignore[arg-type]
        screen.start()
        yield fake, screen, display
        for task in outputs.tasks:
            task.cancel()
        await asyncio.gather(*outputs.tasks, return_exceptions=True)


def colour_of(display: Display) -> tuple[Size, int] | None:
    """Size and colour of what the first screen shows, if that is of one."""
    surface = display[0].surface
    if surface is None:
        return None
    pixels = np.zeros((surface.size.height, surface.size.width), "<u4")
    surface.read(Rect(0, 0, *surface.size), pixels)
    (colour,) = np.unique(pixels)
    return surface.size, int(colour)


def guests_own() -> MemorySurface:
    """What a guest's driver shows."""
    return MemorySurface(bytes(4 * 8 * 8), Size(8, 8), 32, BY_NAME["XRGB8888"])


def test_the_picture_follows_the_card(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with seen(tmp_path) as (fake, _, display):
            assert await fake.asked.get() == (0, 0, 0, 4, 2), "all of it, at first"
            fake.show(4, 2, 0xFF112233)
            await until(lambda: colour_of(display) == (Size(4, 2), 0x112233))
            assert await fake.asked.get() == (1, 0, 0, 4, 2)
            fake.writer.write(b"\x02")
            fake.show(6, 3, 0x445566, resized=True)
            await until(lambda: colour_of(display) == (Size(6, 3), 0x445566))
            assert display[0].flushes == 2

    run(scenario())


def test_the_guests_own_screen_is_left_to_it_until_it_starts_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with seen(tmp_path) as (fake, screen, display):
            await fake.asked.get()
            fake.show(4, 2, 1)
            await until(lambda: colour_of(display) == (Size(4, 2), 1))
            own = guests_own()
            display[0].show(own)
            # QEMU would draw on for a viewer that only waits.
            await until(lambda: fake.viewers == 0)
            assert display[0].surface is own
            display[0].show(None)
            screen.start()
            await fake.asked.get()
            await until(lambda: colour_of(display) == (Size(4, 2), 0))

    run(scenario())


def test_a_machine_that_starts_over_while_the_connection_ends_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with seen(tmp_path) as (fake, screen, display):

            @asynccontextmanager
            async def ending(path: Path) -> AsyncIterator[QemuVnc]:
                async with connected(path) as vnc:
                    yield vnc
                if display[0].surface is own:
                    display[0].show(None)
                    screen.start()

            monkeypatch.setattr(firmware_screen, "connected", ending)
            own = guests_own()
            await fake.asked.get()
            fake.show(4, 2, 1)
            await fake.asked.get()
            display[0].show(own)
            await fake.asked.get()
            await until(lambda: colour_of(display) == (Size(4, 2), 0))

    run(scenario())


def test_what_starts_over_is_shown_again_on_the_same_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with seen(tmp_path) as (fake, screen, display):
            await fake.asked.get()
            fake.show(4, 2, 1)
            await fake.asked.get()
            display[0].show(None)
            screen.start()
            await until(lambda: colour_of(display) == (Size(4, 2), 1))
            assert fake.viewers == 1

    run(scenario())


@pytest.mark.parametrize(
    "message",
    [
        b"\x01",
        struct.pack(">BxHHHHHi", 0, 1, 1, 0, 4, 2, 0),
        struct.pack(">BxHHHHHi", 0, 1, 0, 0, 4, 2, 7),
        struct.pack(">BxHHHHHi", 0, 1, 0, 0, 60000, 60000, -223),
    ],
)
def test_what_was_not_expected_ends_it(tmp_path: Path, message: bytes) -> None:
    async def scenario() -> None:
        async with seen(tmp_path) as (fake, _, display):
            await fake.asked.get()
            fake.writer.write(message)
            await until(lambda: fake.viewers == 0 and display[0].surface is None)

    run(scenario())


def test_a_qemu_that_ends_leaves_nothing_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with seen(tmp_path) as (fake, _, display):
            await fake.asked.get()
            fake.writer.close()
            await until(lambda: display[0].surface is None)

    run(scenario())
