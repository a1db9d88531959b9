"""The window, on a virtual X screen whose pixels lie in a file."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import glfw
import numpy as np
import pytest
from pattern import Pattern

from hesper.display.geometry import Rect, Size
from hesper.display.keys import QCODE_OF
from hesper.display.window.keys import CODE_OF_GLFW
from hesper.display.window.presenter import fit

pytestmark = pytest.mark.programs

PATIENCE = 180


@dataclass
class XScreen:
    """A running Xvfb."""

    display: str
    memory: Path

    def pixels(self) -> np.ndarray:
        """What is on the screen: height x width, 0x00RRGGBB."""
        data = self.memory.read_bytes()
        header = struct.unpack_from(">25I", data)
        size, width, height, stride, colours = (header[i] for i in (0, 4, 5, 12, 19))
        pixels = np.frombuffer(data, "<u4", stride // 4 * height, size + colours * 12)
        return pixels.reshape(height, stride // 4)[:, :width] & 0xFFFFFF


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[XScreen]:
    """An X screen of 800x600."""
    reader, writer = os.pipe()
    server = subprocess.Popen(
        [
            *("Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24"),
            *("-fbdir", str(tmp_path), "-nolisten", "tcp"),
        ],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], PATIENCE)
        assert ready, "Xvfb did not start"
        number = os.read(reader, 16).decode().strip()
        yield XScreen(f":{number}", tmp_path / "Xvfb_screen0")
    finally:
        os.close(reader)
        server.terminate()
        server.wait()


def wait_for_pixels(screen: XScreen, expected: np.ndarray) -> None:
    """Wait until the screen's top left corner shows the picture."""
    height, width = expected.shape
    pause = threading.Event()
    for _ in range(PATIENCE * 50):
        if np.array_equal(screen.pixels()[:height, :width], expected):
            return
        pause.wait(0.02)
    np.testing.assert_array_equal(screen.pixels()[:height, :width], expected)


def test_a_window_shows_the_screen_and_sends_input(screen: XScreen) -> None:
    environment = {**os.environ, "DISPLAY": screen.display, "XDG_SESSION_TYPE": "x11"}
    program = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("window_program.py")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def xdotool(*arguments: str) -> str:
        command = ["xdotool", *arguments]
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert program.stdout is not None
    try:
        wait_for_pixels(screen, Pattern(Size(400, 300)).pixels)
        window = xdotool("search", "--name", "Hesper, screen 1").splitlines()[-1]
        xdotool("windowfocus", "--sync", window)
        xdotool("mousemove", "399", "0", "mousemove", "0", "299", "click", "3", "key", "shift+z")
        xdotool("click", "5")
        xdotool("windowsize", window, "500", "200")
        lines = []
        for line in program.stdout:
            lines.append(line.strip())
            if line.startswith("size"):
                break
        wait_for_pixels(screen, Pattern(Size(500, 200)).pixels)
        program.communicate("\n", timeout=PATIENCE)
    finally:
        program.kill()
        program.wait()
    text = "\n".join(lines)
    for expected in (
        "PointerMove(x=32767, y=0)",
        "PointerMove(x=0, y=32767)",
        "PointerButton(button=<Button.RIGHT: 'right'>, down=True)",
        "PointerButton(button=<Button.RIGHT: 'right'>, down=False)",
        "Key(code=42, down=True)",
        "Key(code=44, down=True)",
        "Key(code=44, down=False)",
        "PointerButton(button=<Button.WHEEL_DOWN: 'wheel-down'>, down=True)",
    ):
        assert expected in text
    assert lines[-1] == "size 500x200"
    assert program.returncode == 0


def test_says_that_there_is_no_screen() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("window_program.py")],
        env=environment,
        input="\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "WindowError" in result.stderr
    assert "is there a screen" in result.stderr


@pytest.mark.parametrize(
    ("picture", "window", "expected"),
    [
        (Size(800, 600), Size(800, 600), Rect(0, 0, 800, 600)),
        (Size(800, 600), Size(1600, 600), Rect(400, 0, 800, 600)),
        (Size(800, 600), Size(400, 600), Rect(0, 150, 400, 300)),
        (Size(8000, 1), Size(10, 10), Rect(0, 4, 10, 1)),
    ],
)
def test_fits_a_picture_into_a_window(picture: Size, window: Size, expected: Rect) -> None:
    assert fit(picture, window) == expected


def test_names_keys_by_where_they_lie() -> None:
    assert QCODE_OF[CODE_OF_GLFW[glfw.KEY_Z]] == "z"
    assert QCODE_OF[CODE_OF_GLFW[glfw.KEY_GRAVE_ACCENT]] == "grave_accent"
    assert QCODE_OF[CODE_OF_GLFW[glfw.KEY_F13]] == "f13"
    assert QCODE_OF[CODE_OF_GLFW[glfw.KEY_KP_0]] == "kp_0"
    letters = {CODE_OF_GLFW[key] for key in range(glfw.KEY_A, glfw.KEY_Z + 1)}
    assert len(letters) == 26
