"""Programs of others look at the screen: vncdotool and asyncvnc."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncvnc
import numpy as np
import pytest
from pattern import Pattern
from PIL import Image
from serving import run, serve, until

from hesper.display.geometry import Size
from hesper.display.input import Button, InputEvent, Key, PointerButton, PointerMove
from hesper.display.scanout import Display


def rgb_of(pattern: Pattern) -> np.ndarray:
    return np.stack([pattern.pixels >> shift & 255 for shift in (16, 8, 0)], -1).astype(np.uint8)


async def vncdo(port: int, *arguments: str) -> None:
    """Run vncdotool; it wants ZRLE first, then Hextile and Raw."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from vncdotool.command import vncdo; vncdo()"),
        *("-s", f"127.0.0.1::{port}", *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("password", [None, "pa55word"])
def test_vncdotool_takes_a_picture_and_types(tmp_path: Path, password: str | None) -> None:
    async def scenario() -> None:
        display = Display()
        pattern = Pattern(Size(500, 400))
        pattern.step(3)
        pattern.show_on(display[0])
        events: list[InputEvent] = []
        display.connect_input(lambda _, sent: events.extend(sent))
        async with serve(display, password) as (_, server):
            secret = ("-p", password) if password else ()
            file = tmp_path / "picture.png"
            actions = ("key", "shift-a", "move", "499", "0", "click", "3")
            await vncdo(server.ports[0], *secret, "capture", str(file), *actions)
            np.testing.assert_array_equal(
                np.asarray(Image.open(file).convert("RGB")), rgb_of(pattern)
            )
            await until(lambda: len(events) >= 7)
        assert events == [
            *(Key(42, True), Key(30, True), Key(30, False), Key(42, False)),
            PointerMove(0x7FFF, 0),
            PointerButton(Button.RIGHT, True),
            PointerButton(Button.RIGHT, False),
        ]

    run(scenario())


def test_asyncvnc_sees_what_moves() -> None:
    async def scenario() -> None:
        display = Display()
        pattern = Pattern(Size(500, 400))
        pattern.show_on(display[0])
        async with (
            serve(display) as (_, server),
            asyncvnc.connect("127.0.0.1", server.ports[0]) as client,
        ):
            for number in range(5):
                display[0].flush(pattern.step(number))
                picture = await client.screenshot()
                np.testing.assert_array_equal(picture[..., :3], rgb_of(pattern))

    run(scenario())
