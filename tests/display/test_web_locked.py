"""What strangers, and pages that misbehave, cost the web page."""

from __future__ import annotations

import asyncio
import contextlib
import re
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from browser import open_page
from serving import is_closed, run, shown, until
from tls_viewer import trust
from vnc_client import Viewer

from hesper.display.access.listener import Bounds
from hesper.display.access.self_signed import own_certificate
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display
from hesper.display.web.server import WebServer

pytestmark = pytest.mark.programs

TOKEN = "test-token"
PROTOCOLS = ("hesper", f"hesper.{TOKEN}")
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@asynccontextmanager
async def page(**options: Any) -> AsyncIterator[tuple[RfbService, WebServer, int]]:
    """A page on a free port."""
    async with (
        RfbService(options.pop("display", None) or Display()) as service,
        WebServer(service, port=0, token=TOKEN, **options) as server,
    ):
        yield service, server, int(server.url.partition("/#")[0].rpartition(":")[2])


async def connect(port: int) -> Viewer:
    """A connection, on which nothing is said."""
    return Viewer(*await asyncio.open_connection("127.0.0.1", port))


async def ask(port: int, path: str, headers: bytes) -> tuple[int, bytes]:
    """Send a request as it is; returns the status and all else."""
    connection = await connect(port)
    connection.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode() + headers)
    connection.send(b"\r\n")
    line = await connection.reader.readline()
    rest = await connection.reader.readuntil(b"\r\n\r\n")
    await connection.close()
    return int(line.split()[1]), rest


# Connections


def test_a_browser_has_so_much_time_to_say_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.web.server.BOUNDS", Bounds(seconds=0.3))

    async def scenario() -> None:
        async with page() as (_, _, port):
            silent = await connect(port)
            slow = await connect(port)
            slow.send(b"GET / HTTP/1.1\r\n")
            body = await connect(port)
            body.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            used = await connect(port)
            used.send(b"GET /favicon.svg HTTP/1.1\r\nHost: x\r\n\r\n")
            ends = [asyncio.create_task(is_closed(each)) for each in (silent, body, used)]
            ended = asyncio.create_task(is_closed(slow))
            while not ended.done():
                slow.send(b"X: y\r\n")
                await asyncio.sleep(0.02)
            await asyncio.gather(*ends)

    run(scenario())


def test_a_browser_sends_only_so_much() -> None:
    async def scenario() -> None:
        async with page() as (_, _, port):
            browser = await connect(port)
            browser.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
            browser.send(bytes(3 << 20))
            assert await is_closed(browser)
            header = await connect(port)
            header.send(b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 20))
            assert await is_closed(header)

    run(scenario())


def test_requests_whose_answers_nobody_reads_cost_little() -> None:
    """Of requests that are sent all at once few are taken apart before they have their turn."""

    async def scenario() -> None:
        async with page() as (_, _, port):
            await ask(port, "/", b"")
            before = sys.getallocatedblocks()
            flood = await connect(port)
            flood.send(b"GET /novnc/core/rfb.js HTTP/1.1\r\n\r\n" * 20_000)
            for _ in range(50):
                assert (await ask(port, "/", b""))[0] == 200
            assert sys.getallocatedblocks() - before < 20_000
            await flood.close()

    run(scenario())


def test_silent_browsers_shut_nobody_out() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with (
            page(display=display) as (service, server, port),
            aiohttp.ClientSession() as http,
        ):
            url = server.url.partition("#")[0]
            async with http.ws_connect(f"{url}live", protocols=PROTOCOLS) as live:
                silent = [await connect(port) for _ in range(300)]
                for each in silent[:250]:
                    assert await is_closed(each)
                async with http.get(url) as response:
                    assert response.status == 200
                # Who has shown that he may look is not in their way.
                await live.receive_json()
                await live.receive_json()
            assert pattern is not None
            assert not service.feeds[0].viewers

    run(scenario())


def test_who_has_the_token_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.web.server.BOUNDS", Bounds(seconds=0.3, received=2000))
    monkeypatch.setattr("hesper.display.web.server.LIVE_SECONDS", 0.05)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with page() as (_, server, _), aiohttp.ClientSession() as http:
            url = server.url.partition("#")[0]
            live = None
            while live is None:
                # Where much else runs, it may not have shown its token in time.
                with contextlib.suppress(aiohttp.ClientError):
                    live = await http.ws_connect(f"{url}live", protocols=PROTOCOLS)
            start = loop.time()
            while loop.time() < start + 1:
                await live.send_str("x" * 100)
                await live.receive_json()
            await live.close()

    run(scenario())


def test_opens_only_so_many_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.web.server.MAX_SOCKETS", 2)

    async def scenario() -> None:
        async with page() as (_, server, _), aiohttp.ClientSession() as http:
            url = server.url.partition("#")[0]
            one = await http.ws_connect(f"{url}live", protocols=PROTOCOLS)
            two = await http.ws_connect(f"{url}vnc/0", protocols=PROTOCOLS)
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await http.ws_connect(f"{url}live", protocols=PROTOCOLS)
            await one.close()
            await two.close()
            while True:
                try:
                    await http.ws_connect(f"{url}live", protocols=PROTOCOLS)
                    break
                except aiohttp.WSServerHandshakeError:
                    await asyncio.sleep(0.005)

    run(scenario())


def test_closes_websockets_on_which_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.handshake.SPEAK_SECONDS", 0.1)
    monkeypatch.setattr("hesper.display.rfb.channel.CLOSE_SECONDS", 0.1)
    monkeypatch.setattr("hesper.display.web.socket.CLOSE_SECONDS", 0.1)

    async def scenario() -> None:
        async with page() as (_, _, port):
            browser = await connect(port)
            head = f"GET /vnc/0 HTTP/1.1\r\nHost: x\r\n{UPGRADE}"
            head += f"Sec-WebSocket-Protocol: {', '.join(PROTOCOLS)}\r\n\r\n"
            browser.send(head.encode())
            assert b" 101 " in await browser.reader.readline()
            # It does not take part in closing either.
            assert await is_closed(browser)

    run(scenario())


def test_gives_up_pages_that_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.web.server.STALL_SECONDS", 0.2)
    monkeypatch.setattr("hesper.display.web.server.LIVE_SECONDS", 0.0)

    async def scenario() -> None:
        async with page() as (_, server, port):
            browser = await connect(port)
            head = f"GET /live HTTP/1.1\r\nHost: x\r\n{UPGRADE}"
            head += f"Sec-WebSocket-Protocol: {', '.join(PROTOCOLS)}\r\n\r\n"
            browser.send(head.encode())
            assert b" 101 " in await browser.reader.readline()
            browser.pause_reading()
            await until(lambda: server._sockets)  # noqa: SLF001
            await until(lambda: not server._sockets)  # noqa: SLF001
            browser.resume_reading()
            assert await is_closed(browser)

    run(scenario())


# Requests


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/metrics", b"Authorization: Bearer \xff\xfe\r\n", 401),
        ("/metrics", b"Authorization: \xff\xfe\r\n", 401),
        ("/metrics", "Authorization: Bearer test-tok\u00e9n\r\n".encode(), 401),
        ("/vnc/0", UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.\xff\r\n", 403),
        ("/live", UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.\xed\xa0\x80\r\n", 403),
        (
            "/live",
            UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.test-token\r\nOrigin: http://[\r\n",
            403,
        ),
        (
            "/live",
            UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.test-token\r\nOrigin: \xff\r\n",
            403,
        ),
        (
            "/live",
            UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.test-token\r\nOrigin: \r\n",
            403,
        ),
        ("/live", b"Sec-WebSocket-Protocol: hesper.test-token\r\n", 400),
        (
            "/live",
            re.sub(rb"(?<=Key: )..", b"\xb4\xff", UPGRADE.encode())
            + b"Sec-WebSocket-Protocol: hesper.test-token\r\n",
            400,
        ),
        ("/vnc/%D9%A1", UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.test-token\r\n", 404),
        ("/vnc/%D9%A0", UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.test-token\r\n", 404),
        ("/vnc/%C2%B2", UPGRADE.encode() + b"Sec-WebSocket-Protocol: hesper.test-token\r\n", 404),
        ("/vnc/-1", UPGRADE.encode(), 404),
        ("/vnc/000", UPGRADE.encode(), 404),
        ("/page/%00", b"", 404),
        ("/page/%ff", b"", 404),
        ("/page/" + "x" * 5000, b"", 404),
        ("/favicon.svg", b"Range: bytes=9-1\r\n", 416),
        ("/favicon.svg", b"If-Modified-Since: \xff\r\n", 200),
        ("/favicon.svg", b"Expect: \xff\r\n", 417),
        ("/page/app.js", b"Expect: \xed\xa0\x80\r\n", 417),
        ("/nothing", b"Expect: 100-c\xdentinue\r\n", 417),
        ("/vnc/0", UPGRADE.encode() + b"Expect: 100-continue\r\n", 417),
    ],
)
def test_odd_requests_are_no_errors_of_ours(
    path: str, headers: bytes, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with page(metrics=lambda: b"") as (_, _, port):
            found, rest = await ask(port, path, headers)
            assert found == status
            assert b"X-Content-Type-Options: nosniff" in rest
            assert b"aiohttp" not in rest

    run(scenario())
    assert "Traceback" not in capfd.readouterr().err


def test_bad_http_is_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with page() as (_, _, port):
            for data in (
                b"\x16\x03\x01\0\0",
                b"GET\r\n\r\n",
                b"GET / HTTP/9\r\n\r\n",
                b"A B: C\n\n",
            ):
                for _ in range(20):
                    browser = await connect(port)
                    browser.send(data + b"\r\n\r\n")
                    assert await browser.reader.readline()
                    await browser.close()

    caplog.set_level("INFO")
    run(scenario())
    assert caplog.records == []


def test_mistakes_of_ours_are_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> bytes:
        raise RuntimeError("secret detail")

    async def scenario() -> None:
        async with page(metrics=broken) as (_, server, _), aiohttp.ClientSession() as http:
            url = server.url.partition("#")[0]
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with http.get(f"{url}metrics", headers=headers) as response:
                assert response.status == 500
                assert "secret" not in await response.text()
                assert response.headers["X-Frame-Options"] == "DENY"

    run(scenario())
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "secret detail" in record.getMessage()
    assert "\n" not in record.getMessage()


# Where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "198.51.100.7"])
def test_wants_tls_where_others_can_reach_it(host: str) -> None:
    async def scenario() -> None:
        async with RfbService(Display()) as service:
            with pytest.raises(ValueError, match="wants TLS"):
                WebServer(service, host=host)

    run(scenario())


def test_serves_a_unix_socket_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "web"

    async def scenario() -> None:
        async with RfbService(Display()) as service:
            async with (
                WebServer(service, path=path, token=TOKEN) as server,
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
            ):
                assert server.url == f"http://localhost/#token={TOKEN}"
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                async with http.ws_connect("ws://localhost/live", protocols=PROTOCOLS) as live:
                    await live.receive_json()
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await http.ws_connect("ws://localhost/live")
            assert not path.exists()

    run(scenario())


def test_speaks_https_and_nothing_else(tmp_path: Path) -> None:
    certificate = own_certificate(tmp_path)
    context = trust(str(certificate.path))

    async def scenario() -> None:
        options = {"host": "0.0.0.0", "certificate": certificate}
        async with page(**options) as (_, server, port), aiohttp.ClientSession() as http:
            assert server.url.startswith("https://")
            assert "0.0.0.0" not in server.url
            url = f"https://localhost:{port}/"
            async with http.get(url, ssl=context) as response:
                assert response.status == 200
            async with http.ws_connect(f"{url}live", protocols=PROTOCOLS, ssl=context) as live:
                await live.receive_json()
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"http://localhost:{port}/")
            # Who begins no handshake is dropped as well.
            silent = [await connect(port) for _ in range(100)]
            for each in silent[:60]:
                assert await is_closed(each)
            async with http.get(url, ssl=context) as response:
                assert response.status == 200

    run(scenario())


def test_a_browser_sees_the_screen_by_https(tmp_path: Path) -> None:
    certificate = own_certificate(tmp_path)

    async def scenario() -> None:
        display, _ = shown()
        options = {"display": display, "certificate": certificate}
        async with (
            page(**options) as (service, server, _),
            open_page(server.url, tmp_path / "profile", (800, 600)) as browser,
        ):
            await browser.wait_for("document.querySelector('#screen canvas') !== null")
            await browser.wait_for("document.querySelector('#notice').hidden")
            await until(lambda: service.feeds[0].updates)

    run(scenario())
