"""What browsers send to the web page's server: HTTP, tokens, WebSockets, RFB in their frames."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import re
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from pattern import Pattern

from fuzz import quick_loop
from fuzz.browser_program import TOKEN, said
from fuzz.checks import nothing_left
from fuzz.source import Source
from hesper.display.geometry import Size
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display
from hesper.display.web.live import GpuFigures
from hesper.display.web.server import WebServer

INSTRUMENTED = ("hesper.display", "aiohttp.web_protocol", "aiohttp.web_ws")
PAGE = Path(__file__).parents[2] / "src" / "hesper" / "display" / "web" / "page"
MAX_BROWSERS = 3
MOMENT = 0.02
"""Seconds between two pieces of what a browser sends; they pass at once."""
PATIENCE = 150.0
"""Seconds in which the server must have closed a connection on which nothing comes any more."""
FAILED = re.compile(rb"^HTTP/1\.[01] 500", re.MULTILINE)
LET_IN = re.compile(rb"^HTTP/1\.[01] (101|200.*\r\n(?s:.*)^figures 1)", re.MULTILINE)


class Service(RfbService):
    """Keeps what only the log would tell of."""

    def __init__(self, display: Display) -> None:
        """Show `display`."""
        super().__init__(display, 1e6)
        self.failures: list[Exception] = []

    async def serve(self, *arguments: Any, **more: Any) -> None:
        """See `RfbService.serve`."""
        try:
            await super().serve(*arguments, **more)
        except Exception as error:
            self.failures.append(error)
            raise


@functools.cache
def folder() -> Path:
    """The page, a noVNC of which nothing is run, and a place for a socket."""
    made = Path(tempfile.mkdtemp(prefix="hesper-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    shutil.copytree(PAGE, made / "page")
    (made / "novnc" / "core").mkdir(parents=True)
    (made / "novnc" / "core" / "rfb.js").write_text("export default 0;\n")
    return made


@functools.cache
def pattern() -> Pattern:
    """What the guest shows."""
    return Pattern(Size(80, 60))


def prepare() -> None:
    """Make the page's folder."""
    folder()
    pattern()


def run_one(data: bytes) -> None:
    """Be some browsers.  Raises what they should not have been able to cause."""
    with nothing_left():
        quick_loop.run(lambda: _serve(Source(data)))


async def _serve(source: Source) -> None:
    display = Display()
    pattern().show_on(display[0])
    path = folder() / "socket"
    async with Service(display) as service:
        with mock.patch("hesper.display.web.server.resources.files", return_value=folder()):
            server = WebServer(
                service,
                path=path,
                token=TOKEN,
                gpu=lambda: GpuFigures(1, 2, 3),
                metrics=lambda: b"figures 1\n",
            )
        async with server:
            for _ in range(1 + source.number(1) % MAX_BROWSERS):
                await _browse(source, path)
    if service.failures:
        raise service.failures[0]


async def _browse(source: Source, path: Path) -> None:
    """Be a browser that goes, or waits until the server has had enough."""
    loop = asyncio.get_running_loop()
    goes = source.number(1) % 2
    sent, answers = bytearray(), bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(path))
        sock.setblocking(False)
        is_open = True
        for piece in said(source):
            sent += piece
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sock.send(piece)
            await asyncio.sleep(MOMENT)
            is_open = _take(sock, answers)
            if not is_open:
                break
        deadline = loop.time() + PATIENCE
        while is_open and not goes:
            if loop.time() > deadline:
                raise TimeoutError("the server keeps a connection on which nothing comes")
            await asyncio.sleep(1.0)
            is_open = _take(sock, answers)
    if FAILED.search(answers):
        raise RuntimeError(f"the server has failed at {bytes(sent[-600:])!r}")
    if LET_IN.search(answers) and TOKEN.encode() not in sent:
        raise RuntimeError("the server lets in who does not know the token")


def _take(sock: socket.socket, answers: bytearray) -> bool:
    """Take what there is; whether there may be more."""
    try:
        while data := sock.recv(1 << 16):
            answers += data
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False
