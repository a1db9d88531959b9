"""A machine of `hesper vm`'s own, driven as its user drives it: by VNC, the web page, and by name.

A shell on the guest's serial port says what is true in the guest.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
from PIL import Image
from vnc_client import EXTENDED_CLIPBOARD, EXTENDED_DESKTOP_SIZE, RAW, Viewer

from hesper.vm import registry

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
NAME = "evening"
BOOT_SECONDS = 900.0
PATIENCE = 600.0
"""For anything else; an emulated guest is slow."""
RETRY_SECONDS = 5.0
LOOK_SECONDS = 0.5
SHIFT, CONTROL, RETURN = 0xFFE1, 0xFFE3, 0xFF0D
_ESCAPE = re.compile(r"\x1b(\[[0-9;?!]*[a-zA-Z]|[=>])")


class Shell:
    """The guest's serial port, on which its user has logged in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin with what QEMU listens on."""
        self._reader = reader
        self._writer = writer
        self.output: list[str] = []
        """What has come, in lines."""

    @classmethod
    async def connect(cls, path: Path) -> Shell:
        """Connect, wait for the login, and make the shell a quiet one."""
        shell = cls(*await asyncio.open_unix_connection(str(path), limit=1 << 22))
        await shell._wait("automatic login", BOOT_SECONDS)
        end = time.monotonic() + BOOT_SECONDS
        while True:
            # What is typed before the shell is there may be lost.
            shell._type("stty -echo; PS1= exec sh; echo")
            shell._type("PS1=; echo guest: is ready")
            with contextlib.suppress(TimeoutError):
                await shell._wait("^guest: is ready", RETRY_SECONDS)
                break
            assert time.monotonic() < end, shell.output[-60:]
        shell._type("echo guest: listens")
        await shell._wait("^guest: listens", PATIENCE)
        return shell

    async def run(self, command: str, *, check: bool = True, seconds: float = PATIENCE) -> str:
        """Run a command and return what it prints."""
        self._type(f"{command}; echo guest: done $?")
        lines = await self._wait(r"guest: done \d+$", seconds)
        before, _, status = "\n".join(lines).rpartition("guest: done ")
        assert not check or status == "0", f"{command}: status {status}\n{before}"
        return before

    def start(self, command: str) -> None:
        """Run a command in the background."""
        self._type(f"({command}) > /tmp/started.log 2>&1 &")

    def _type(self, line: str) -> None:
        self._writer.write(line.encode() + b"\n")

    async def _wait(self, pattern: str, seconds: float) -> list[str]:
        """Wait for a line that matches; returns those since the call, that one last."""
        lines: list[str] = []
        async with asyncio.timeout(seconds):
            while True:
                data = await self._reader.readline()
                assert data, "\n".join(self.output[-60:])
                line = _ESCAPE.sub("", data.decode(errors="replace")).strip("\r\n")
                lines.append(line)
                self.output.append(line)
                if re.search(pattern, line):
                    return lines


class EveningMachine:
    """The machine.  Use `running`."""

    def __init__(self, folder: Path) -> None:
        """`folder` has its sockets."""
        self.folder = folder
        self.shell: Shell
        self.viewer: Viewer
        os.environ["XDG_RUNTIME_DIR"] = str(folder)

    def hesper(self, *words: str | Path) -> str:
        """Run `hesper vm`, and return what it prints."""
        done = subprocess.run(
            [*HESPER, "vm", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def log(self) -> str:
        """What `hesper vm` has said."""
        return (self.folder / f"hesper/vm/{NAME}.log").read_text()

    @property
    def names(self) -> list[str]:
        """Those of the machines that run."""
        return registry.names()

    def screens(self) -> list[Image.Image]:
        """What the screens show."""
        # As `hesper vm screenshot` does, without a process for each picture.
        pictures = registry.ask(NAME, "screenshot")["pictures"]
        opened = [Image.open(io.BytesIO(base64.b64decode(each))) for each in pictures]
        return [image.convert("RGB") for image in opened]

    async def wait_screens(self, condition: Callable[[list[Image.Image]], object]) -> None:
        """Wait until what is shown meets a condition."""
        end = time.monotonic() + PATIENCE
        while not condition(self.screens()):
            assert time.monotonic() < end, "the screens do not show it"
            await asyncio.sleep(LOOK_SECONDS)

    async def wait_true(self, command: str) -> None:
        """Wait until a command of the guest's succeeds."""
        await self.shell.run(f"until {command}; do sleep 1; done")

    async def open_window(self, command: str) -> str:
        """Start a program on the desktop; returns the window that it opens, as wmctrl calls it."""
        await self.shell.run("before=$(wmctrl -l | cut -d' ' -f1)")
        self.shell.start(command)
        new = 'wmctrl -l | cut -d" " -f1 | grep -vxF "${before:-none}"'
        await self.wait_true(f"{new} > /dev/null")
        window = (await self.shell.run(new)).split()[0]
        await self.shell.run(f"wmctrl -i -a {window}")
        return window

    async def close_window(self, window: str) -> None:
        """Close it, and wait until it has gone."""
        await self.shell.run(f"wmctrl -i -c {window}")
        await self.wait_true(f"! wmctrl -l | grep -q {window}")

    def type_text(self, text: str) -> None:
        """Type as fast as can be."""
        for letter in text:
            self.press(RETURN if letter == "\n" else ord(letter))

    def press(self, *keysyms: int) -> None:
        """Press keys together."""
        for keysym in keysyms:
            self.viewer.key(True, keysym)
        for keysym in reversed(keysyms):
            self.viewer.key(False, keysym)

    async def sound(self) -> AsyncIterator[bytes]:
        """What the web page hears, once somebody has pressed *Sound*."""
        places = json.loads(self.hesper("show", NAME, "--json"))["places"]
        page = next(text for text in places if "http" in text).partition(": ")[2]
        address, _, token = page.partition("#token=")
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{address}sound", protocols=("hesper", f"hesper.{token}")) as socket,
        ):
            async for message in socket:
                yield message.data


@contextlib.asynccontextmanager
async def running(image: Path, *options: str) -> AsyncIterator[EveningMachine]:
    """Boot an image with two screens, look at the first by VNC, and have a shell in it.

    `options`: more of `hesper vm`.
    """
    with tempfile.TemporaryDirectory(prefix="evening-") as name:
        folder = Path(name)
        machine = EveningMachine(folder)
        serial = f"unix:{folder}/serial,server=on,wait=off"
        screens = ("--scanouts", "2", "--vnc", f"unix:{folder}/vnc", "--web", "127.0.0.1:0")
        words = ("--name", NAME, "--daemon", "--serial", serial)
        print(machine.hesper(image, *words, *screens, *options))
        try:
            machine.shell = await Shell.connect(folder / "serial")
            viewer = await Viewer.connect(folder / "vnc")
            viewer.set_encodings(RAW, EXTENDED_DESKTOP_SIZE, EXTENDED_CLIPBOARD)
            machine.viewer = viewer
            yield machine
        except BaseException:
            with contextlib.suppress(OSError):
                print(machine.log)
            raise
        finally:
            if NAME in machine.names:
                machine.hesper("stop", NAME, "--now")
