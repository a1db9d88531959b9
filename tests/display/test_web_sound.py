"""The guest's sound on the web page, from a source of the tests' own."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from browser import open_page
from serving import run, until

from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display
from hesper.display.sound import RATE, SoundSource
from hesper.display.web.server import MAX_LISTENERS, WebServer

pytestmark = pytest.mark.programs

TOKEN = "test-token"
PROTOCOLS = ("hesper", f"hesper.{TOKEN}")
PIECE = RATE // 100
"""Frames."""


class Tone:
    """A source: a tone on the left, and nothing on the right."""

    def __init__(self) -> None:
        self.listeners = 0
        self.ends = asyncio.Event()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncIterator[bytes]]:
        self.listeners += 1
        try:
            yield self._pieces()
        finally:
            self.listeners -= 1

    async def _pieces(self) -> AsyncIterator[bytes]:
        tone = [round(20_000 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(RATE)]
        for start in range(0, 60 * RATE, PIECE):
            if self.ends.is_set():
                return
            left = (tone[(start + i) % RATE] for i in range(PIECE))
            yield b"".join(struct.pack("<hh", sample, 0) for sample in left)
            await asyncio.sleep(PIECE / RATE)


@asynccontextmanager
async def _broken() -> AsyncIterator[AsyncIterator[bytes]]:
    raise OSError("no sound today")
    yield  # pragma: no cover


@asynccontextmanager
async def serve_sound(source: SoundSource | None) -> AsyncIterator[str]:
    async with RfbService(Display()) as service:
        server = WebServer(service, port=0, token=TOKEN)
        server.sound = source
        async with server:
            yield server.url.partition("#")[0]


def test_a_page_hears_the_guest_and_costs_nothing_when_it_has_gone() -> None:
    async def scenario() -> None:
        tone = Tone()
        async with serve_sound(tone) as url, aiohttp.ClientSession() as http:
            async with http.ws_connect(f"{url}live", protocols=PROTOCOLS) as live:
                assert (await live.receive_json())["sound"]
                assert not tone.listeners
            async with http.ws_connect(f"{url}sound", protocols=PROTOCOLS) as socket:
                data = await socket.receive_bytes()
                assert len(data) == 4 * PIECE
                assert struct.unpack_from("<hhhh", data)[1::2] == (0, 0)
                assert tone.listeners > 0
            await until(lambda: not tone.listeners)
            async with http.ws_connect(f"{url}sound", protocols=PROTOCOLS) as socket:
                await socket.receive_bytes()
                tone.ends.set()
                while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
                assert socket.closed
            await until(lambda: not tone.listeners)

    run(scenario())


def test_sound_wants_the_token_and_has_bounds() -> None:
    async def scenario() -> None:
        tone = Tone()
        async with serve_sound(tone) as url, aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"{url}sound", protocols=("hesper", "hesper.wrong"))
            assert refused.value.status == 403
            sockets = [
                await http.ws_connect(f"{url}sound", protocols=PROTOCOLS)
                for _ in range(MAX_LISTENERS)
            ]
            with pytest.raises(aiohttp.WSServerHandshakeError) as full:
                await http.ws_connect(f"{url}sound", protocols=PROTOCOLS)
            assert full.value.status == 503
            await asyncio.gather(*(socket.close() for socket in sockets))
            await until(lambda: not tone.listeners)

    run(scenario())


def test_without_sound_there_is_none() -> None:
    async def scenario() -> None:
        async with serve_sound(None) as url, aiohttp.ClientSession() as http:
            async with http.ws_connect(f"{url}live", protocols=PROTOCOLS) as live:
                assert not (await live.receive_json())["sound"]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"{url}sound", protocols=PROTOCOLS)
            assert refused.value.status == 404
        async with serve_sound(_broken) as url, aiohttp.ClientSession() as http:
            socket = await http.ws_connect(f"{url}sound", protocols=PROTOCOLS)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            await socket.close()

    run(scenario())


def test_a_browser_plays_it(tmp_path: Path) -> None:
    """Chromium plays to nowhere; what the page's own context is given can be looked at."""
    listen = (
        "(() => { const connect = AudioNode.prototype.connect;"
        "AudioNode.prototype.connect = function (to, ...rest) {"
        "  if (to instanceof AudioDestinationNode) {"
        "    const split = new ChannelSplitterNode(this.context);"
        "    window.ears = [0, 1].map((channel) => {"
        "      const ear = new AnalyserNode(this.context);"
        "      connect.call(split, ear, channel); return ear; });"
        "    connect.call(this, split); }"
        "  return connect.call(this, to, ...rest); }; })()"
    )
    loudest = (
        "window.ears && ((ear) => { const data = new Float32Array(ear.fftSize);"
        "ear.getFloatTimeDomainData(data); return Math.max(...data); })(window.ears[{}])"
    )

    async def scenario() -> None:
        tone = Tone()
        async with (
            serve_sound(tone) as url,
            open_page(f"{url}#token={TOKEN}", tmp_path / "profile", (900, 600)) as page,
        ):
            button = "document.querySelector('#sound')"
            await page.wait_for(f"!{button}.hidden")
            assert not tone.listeners
            await page.evaluate(listen)
            await page.call("Runtime.evaluate", expression=f"{button}.click()", userGesture=True)
            await until(lambda: tone.listeners)
            await page.wait_for(f"{loudest.replace('{}', '0')} > 0.5")
            assert await page.evaluate(loudest.replace("{}", "1")) == 0
            assert await page.evaluate(f"{button}.getAttribute('aria-pressed')") == "true"
            await page.call("Runtime.evaluate", expression=f"{button}.click()", userGesture=True)
            await until(lambda: not tone.listeners)
            assert not page.console

    run(scenario())
