"""The web page: who may connect, what it shows, and how it looks in a browser."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from browser import open_page
from pattern import Pattern
from PIL import Image
from serving import run, until
from vnc_client import Viewer

from hesper.display.geometry import Size
from hesper.display.input import InputEvent, Key, PointerMove
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display
from hesper.display.web.live import GpuFigures
from hesper.display.web.server import WebServer
from hesper.figures import ContextFigures
from hesper.observe.contexts import ContextLedger
from hesper.observe.metrics import Metrics

pytestmark = pytest.mark.programs

TOKEN = "test-token"
PROTOCOLS = ("hesper", f"hesper.{TOKEN}")


@asynccontextmanager
async def serve_page(display: Display, **options: Any) -> AsyncIterator[tuple[RfbService, str]]:
    """Serve `display` on a web page; gives the service and the page's address without `#`."""
    async with (
        RfbService(display) as service,
        WebServer(service, port=0, token=TOKEN, **options) as server,
    ):
        yield service, server.url.partition("#")[0]


class WebSocketStream:
    """Lets the tests' viewer talk through a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.reader = asyncio.StreamReader()
        self.socket = socket
        self.outgoing: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.outgoing.append(data)

    async def pump(self) -> None:
        """Send what is waiting, a byte at a time now and then, and take what has come."""
        for data in self.outgoing:
            for piece in (data[:1], data[1:]):
                if piece:
                    await self.socket.send_bytes(piece)
        self.outgoing.clear()
        message = await self.socket.receive(timeout=0.05)
        if message.type is aiohttp.WSMsgType.BINARY:
            self.reader.feed_data(message.data)


def test_bridges_viewers_to_the_screen() -> None:
    async def scenario() -> None:
        display = Display(2)
        pattern = Pattern(Size(300, 200))
        pattern.show_on(display[1])
        async with (
            serve_page(display) as (_, url),
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{url}vnc/1", protocols=PROTOCOLS) as socket,
        ):
            assert socket.protocol == "hesper"
            stream = WebSocketStream(socket)
            viewer = Viewer(stream.reader, stream)  # type: ignore[arg-type]

            async def look() -> None:
                assert await viewer.read(12) == b"RFB 003.008\n"
                viewer.send(b"RFB 003.008\n\x01")
                assert await viewer.read(6) == b"\x01\x01\0\0\0\0"
                await viewer.initialise()
                while not np.array_equal(viewer.pixels, pattern.pixels):
                    viewer.request()
                    await viewer.update()

            looking = asyncio.create_task(look())
            while not looking.done():
                try:
                    await stream.pump()
                except TimeoutError:
                    continue
            await looking

    run(scenario())


@pytest.mark.parametrize("path", ["vnc/0", "live"])
@pytest.mark.parametrize(
    ("headers", "protocols", "status"),
    [
        ({}, PROTOCOLS, None),
        ({"Origin": "SELF"}, PROTOCOLS, None),
        ({}, (), 403),
        ({}, ("hesper",), 403),
        ({}, (TOKEN,), 403),
        ({}, ("hesper.wrong",), 403),
        ({"Origin": "http://evil.example"}, PROTOCOLS, 403),
        ({"Origin": "null"}, PROTOCOLS, 403),
        ({"Origin": "http://127.0.0.1:1"}, PROTOCOLS, 403),
    ],
)
def test_lets_in_only_who_has_the_token(
    path: str, headers: dict[str, str], protocols: tuple[str, ...], status: int | None
) -> None:
    async def scenario() -> None:
        async with serve_page(Display()) as (_, url), aiohttp.ClientSession() as http:
            sent = {name: value.replace("SELF", url[:-1]) for name, value in headers.items()}
            try:
                async with http.ws_connect(url + path, protocols=protocols, headers=sent) as socket:
                    await socket.receive(timeout=30)
                    found = None
            except aiohttp.WSServerHandshakeError as error:
                found = error.status
            assert found == status

    run(scenario())


def test_serves_the_page_with_strict_headers() -> None:
    async def scenario() -> None:
        async with serve_page(Display()) as (_, url), aiohttp.ClientSession() as http:
            for path, kind in (
                ("", "text/html"),
                ("page/app.js", "text/javascript"),
                ("page/style.css", "text/css"),
                ("novnc/core/rfb.js", "text/javascript"),
                ("favicon.svg", "image/svg+xml"),
                ("nothing", "text/plain"),
                ("page/../server.py", "text/plain"),
                ("page/%2e%2e/server.py", "text/plain"),
                ("vnc/7", "text/plain"),
            ):
                async with http.get(url + path) as response:
                    assert response.status == (404 if kind == "text/plain" else 200), path
                    # Older Pythons call JavaScript by its older name.
                    assert response.content_type.replace("application/java", "text/java") == kind
                    policy = response.headers["Content-Security-Policy"]
                    assert "default-src 'none'" in policy
                    assert "unsafe" not in policy
                    assert "frame-ancestors 'none'" in policy
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                    body = await response.text()
                    assert TOKEN not in body
                    if not path:
                        assert "<script>" not in body
                        assert "style=" not in body

    run(scenario())


def test_reports_live_figures_and_metrics() -> None:
    async def scenario() -> None:
        display = Display(2)
        pattern = Pattern(Size(300, 200))
        pattern.show_on(display[0])
        open_contexts = [ContextFigures(1, "vkcube", 1000, 64000, 1 << 20)]
        ledger = ContextLedger(lambda: list(open_contexts))
        metrics = Metrics()
        options = {"gpu": ledger.gpu_figures, "metrics": metrics.text}
        async with (
            serve_page(display, **options) as (service, url),
            aiohttp.ClientSession() as http,
        ):
            metrics.add_display(service)
            metrics.add_contexts(ledger)
            async with http.ws_connect(f"{url}live", protocols=PROTOCOLS) as socket:
                await socket.receive_json()
                open_contexts[0] = ContextFigures(1, "vkcube", 5000, 65000, 1 << 20)
                display[0].flush(pattern.step(1))
                live = await socket.receive_json()
            assert [screen["width"] for screen in live["screens"]] == [300, 0]
            assert live["screens"][0]["guestFramesPerSecond"] > 0
            assert live["contexts"] == 1
            assert live["memory"] == 1 << 20
            assert live["commandsPerSecond"] > 0
            # A context that ends leaves its commands in the total.
            ledgers = {"rings": 5}, {"devices": (1, 16)}
            open_contexts[:] = [ContextFigures(2, "weston", 7, 70, 9, 100, *ledgers)]
            for token, status in ((TOKEN, 200), ("wrong", 401)):
                headers = {"Authorization": f"Bearer {token}"}
                async with http.get(f"{url}metrics", headers=headers) as response:
                    assert response.status == status
                    if status == 200:
                        lines = (await response.text()).splitlines()
            values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            assert float(values["hesper_commands_total"]) == 5007
            assert float(values["hesper_stream_bytes_total"]) == 65070
            assert float(values["hesper_contexts"]) == 1
            assert float(values['hesper_context_memory_bytes{context="2",name="weston"}']) == 9
            weston = 'context="2",name="weston"'
            assert float(values[f"hesper_context_memory_limit_bytes{{{weston}}}"]) == 100
            account = f'{{account="rings",{weston}}}'
            assert float(values[f"hesper_context_account_bytes{account}"]) == 5
            kind = '{context="2",kind="devices",name="weston"}'
            assert float(values[f"hesper_context_held{kind}"]) == 1
            assert float(values[f"hesper_context_held_limit{kind}"]) == 16
            assert float(values['hesper_guest_frames_total{screen="1"}']) == 2
            assert float(values['hesper_display_pixels{screen="1"}']) == 60000
            assert float(values['hesper_display_viewers{screen="2"}']) == 0

    run(scenario())


def test_leaves_out_figures_that_nobody_has() -> None:
    async def scenario() -> None:
        async with serve_page(Display()) as (_, url), aiohttp.ClientSession() as http:
            async with http.ws_connect(f"{url}live", protocols=PROTOCOLS) as socket:
                live = json.loads(await socket.receive_str())
                assert (live["contexts"], live["commandsPerSecond"], live["memory"]) == (None,) * 3
            async with http.get(f"{url}metrics") as response:
                assert response.status == 404

    run(scenario())


def test_a_broken_viewer_is_closed() -> None:
    async def scenario() -> None:
        async with serve_page(Display()) as (service, url), aiohttp.ClientSession() as http:
            async with http.ws_connect(f"{url}vnc/0", protocols=PROTOCOLS) as socket:
                await socket.receive()
                await socket.send_str("RFB 003.008\n")
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            async with http.ws_connect(f"{url}vnc/0", protocols=PROTOCOLS) as socket:
                await socket.receive()
                await socket.send_bytes(bytes(1 << 20))
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert not service.feeds[0].viewers

    run(scenario())


def test_stops_while_pages_are_open() -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as http:
            async with serve_page(Display()) as (_, url):
                viewer = await http.ws_connect(f"{url}vnc/0", protocols=PROTOCOLS)
                live = await http.ws_connect(f"{url}live", protocols=PROTOCOLS)
                await viewer.receive()
            for socket in (viewer, live):
                message = await socket.receive()
                while message.type is aiohttp.WSMsgType.TEXT:
                    message = await socket.receive()
                assert message.type is aiohttp.WSMsgType.CLOSE

    run(scenario())


@pytest.mark.parametrize("token", ["", "two words", "slash/", "ünicode"])
def test_refuses_tokens_that_no_address_carries(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        WebServer(RfbService(Display()), token=token)


def rgb_at(image: Image.Image, x: int, y: int) -> tuple[int, int, int]:
    red, green, blue = image.convert("RGB").getpixel((x, y))  # type: ignore[misc]
    return red, green, blue


def test_a_browser_shows_what_moves_and_sends_keys(tmp_path: Path) -> None:  # noqa: PLR0915  a browser starts once
    """Chromium: two screens, a picture that moves, keys and pointer, and no complaint."""

    async def scenario() -> None:  # noqa: PLR0915  a browser starts once
        wanted: list[Size] = []
        display = Display(2, resized=lambda scanout: wanted.append(scanout.wanted))
        patterns = [Pattern(Size(800, 600), f"Screen {number}") for number in (1, 2)]
        patterns[1].pixels[:] = 0x208020
        for index, pattern in enumerate(patterns):
            pattern.show_on(display[index])
        events: list[tuple[int, InputEvent]] = []
        display.connect_input(lambda index, sent: events.extend((index, each) for each in sent))
        figures = GpuFigures(contexts=3, commands=0, memory=5 << 20)
        drawing = True

        async def draw() -> None:
            number = 0
            while drawing:
                number += 1
                display[0].flush(patterns[0].step(number))
                await asyncio.sleep(1 / 60)

        drawer = asyncio.create_task(draw())
        profile = tmp_path / "profile"
        async with (
            serve_page(display, gpu=lambda: figures) as (service, url),
            open_page(f"{url}#token={TOKEN}", profile, (1200, 800)) as page,
        ):
            await page.wait_for("document.querySelector('#screen canvas') !== null")
            await page.wait_for("document.querySelector('#notice').hidden")
            await page.wait_for("document.querySelectorAll('#screens button').length === 2")
            await page.wait_for("/^[1-9]/.test(document.querySelector('#f-shown').textContent)")
            assert await page.evaluate("document.querySelector('#f-contexts').innerText") == "3"
            first = await page.screenshot()
            (tmp_path / "first.png").write_bytes(first)
            updates = service.feeds[0].updates
            await until(lambda: service.feeds[0].updates > updates + 20)
            second = await page.screenshot()
            one, other = (Image.open(io.BytesIO(each)) for each in (first, second))
            canvas = await page.evaluate(
                "(r => [r.left, r.top, r.width, r.height])"
                "(document.querySelector('#screen canvas').getBoundingClientRect())"
            )
            left, top, width, height = canvas
            scale = width / 800

            def place(x: int, y: int) -> tuple[int, int]:
                return round(left + x * scale), round(top + y * scale)

            assert rgb_at(one, *place(60, 590)) == (0xC0, 0xC0, 0xC0)
            assert rgb_at(one, *place(790, 590)) == (0, 0, 0xC0)
            assert rgb_at(one, *place(700, 50)) == (0x20, 0x30, 0x40)
            box = (*place(100, 100), *place(400, 320))
            assert one.crop(box).tobytes() != other.crop(box).tobytes(), "it moves"

            x, y = place(400, 300)
            for kind in ("mousePressed", "mouseReleased"):
                await page.call(
                    "Input.dispatchMouseEvent",
                    type=kind,
                    x=x,
                    y=y,
                    button="left",
                    clickCount=1,
                )
            for kind in ("rawKeyDown", "keyUp"):
                await page.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    code="KeyY",
                    key="z",
                    windowsVirtualKeyCode=90,
                )
            await until(lambda: (0, Key(21, False)) in events)
            move = next(each for _, each in events if isinstance(each, PointerMove))
            assert abs(move.x - 0x7FFF / 2) < 100
            assert abs(move.y - 0x7FFF / 2) < 100

            await page.evaluate(
                "(s => { s.value = 'guest'; s.dispatchEvent(new Event('change')) })"
                "(document.querySelector('#scaling'))"
            )
            await until(lambda: wanted)
            stage = await page.evaluate(
                "(s => [s.clientWidth, s.clientHeight])(document.querySelector('#screen'))"
            )
            assert list(wanted[0]) == stage

            await page.evaluate("document.querySelectorAll('#screens button')[1].click()")
            await until(lambda: service.feeds[1].viewers)
            await page.wait_for("document.querySelector('#notice').hidden")
            updates = service.feeds[1].updates
            await until(lambda: service.feeds[1].updates or updates)

            async def shows_the_second() -> bool:
                image = Image.open(io.BytesIO(await page.screenshot()))
                middle = (int(left + width / 2), int(top + height / 2))
                return rgb_at(image, *middle) == (0x20, 0x80, 0x20)

            while not await shows_the_second():
                await asyncio.sleep(0.05)
            assert [entry for entry in page.console if "willReadFrequently" not in entry] == []
        drawing = False
        await drawer

    run(scenario())


def test_a_page_without_token_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve_page(Display()) as (service, url):
            async with open_page(url, tmp_path / "profile", (800, 600)) as page:
                await page.wait_for("document.querySelector('#notice-title').textContent !== ''")
                title = await page.evaluate("document.querySelector('#notice-title').textContent")
                assert title == "No token"
            assert not service.feeds[0].viewers

    run(scenario())


def test_a_browser_shares_its_clipboard(tmp_path: Path) -> None:
    """Chromium: by the page's panel, and by itself once it has been allowed."""
    taken: list[str] = []

    class Guest:
        def take_text(self, text: str) -> None:
            taken.append(text)

    async def scenario() -> None:
        display = Display()
        async with (
            serve_page(display) as (service, url),
            open_page(f"{url}#token={TOKEN}", tmp_path / "profile", (900, 700)) as page,
        ):
            service.clipboard.connect_guest(Guest())
            await page.wait_for("document.querySelector('#notice').hidden")
            await page.evaluate("document.querySelector('#clipboard-toggle').click()")
            box = "document.querySelector('#clipboard-text')"
            await page.evaluate("document.querySelector('#save').focus()")
            service.clipboard.copy_in_guest("from the guest \N{SNOWMAN}")
            await page.wait_for(f"{box}.value === 'from the guest \\u2603'")
            await page.evaluate(
                f"{box}.value = 'zwei\\nZeilen \\u2603';"
                "document.querySelector('#clipboard-send').click()"
            )
            await until(lambda: taken == ["zwei\nZeilen \N{SNOWMAN}"])
            (tmp_path / "clipboard.png").write_bytes(await page.screenshot())
            # Nobody has allowed more.
            await page.evaluate("window.dispatchEvent(new Event('focus'))")

            await page.call(
                "Browser.grantPermissions",
                origin=url.rstrip("/"),
                permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
            )
            await page.call("Page.bringToFront")
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            await page.evaluate("document.querySelector('#clipboard-share').click()")
            service.clipboard.copy_in_guest("by itself")
            await page.wait_for("navigator.clipboard.readText().then((t) => t === 'by itself')")
            await page.evaluate("navigator.clipboard.writeText('copied elsewhere')")
            await page.evaluate("window.dispatchEvent(new Event('focus'))")
            await until(lambda: taken[-1] == "copied elsewhere")
            assert len(taken) == 2
            assert not page.console

    run(scenario())
