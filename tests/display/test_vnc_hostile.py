"""What becomes of viewers that misbehave."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import is_closed, run, serve, shown, until, until_equal
from vnc_client import Viewer

from hesper.display.rfb.handshake import check_password
from hesper.display.rfb.server import VncServer
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display

FENCE_REQUEST = 1 << 31


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "198.51.100.7"])
def test_wants_tls_where_others_can_reach_it(host: str) -> None:
    async def scenario() -> None:
        async with RfbService(Display()) as service:
            with pytest.raises(ValueError, match="wants TLS"):
                VncServer(service, host, password="secret")
            with pytest.raises(ValueError, match="wants TLS"):
                VncServer(service, host, is_open=True)

    run(scenario())


@pytest.mark.parametrize("password", ["", "ninechars", "日本"])
def test_refuses_passwords_that_vnc_cannot_use(password: str) -> None:
    with pytest.raises(ValueError, match="VNC"):
        check_password(password)


# Hostile viewers

HOSTILE = {
    "not RFB": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "version 2": b"RFB 002.001\n",
    "security type 7": b"RFB 003.008\n\x07",
    "message 99": b"RFB 003.008\n\x01\x01\x63",
    "too many encodings": b"RFB 003.008\n\x01\x01\x02\x00\xff\xff",
    "clipboard message without flags": b"RFB 003.008\n\x01\x01\x06\0\0\0\xff\xff\xff\xff",
    "a gigabyte of text": b"RFB 003.008\n\x01\x01\x06\0\0\0\x40\0\0\0",
    "a clipboard message nobody has offered": b"RFB 003.008\n\x01\x01\x06\0\0\0\xff\xff\xff\xfc"
    + bytes(4),
    "bad pixel format": b"RFB 003.008\n\x01\x01\0\0\0\0" + bytes(16),
    "unknown QEMU message": b"RFB 003.008\n\x01\x01\xff\x01" + bytes(10),
    "long fence": b"RFB 003.008\n\x01\x01\xf8\0\0\0\0\0\0\0\xff",
    "255 screens": b"RFB 003.008\n\x01\x01\xfb\0\0\x10\0\x10\xff\0",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_drops_viewers_that_break_the_protocol(
    data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (service, server):
            good = await Viewer.connect(server.ports[0])
            bad = Viewer(*await asyncio.open_connection("127.0.0.1", server.ports[0]))
            bad.send(data)
            assert await is_closed(bad)
            await until_equal(good, pattern)
            await until(lambda: len(service.feeds[0].viewers) == 1)

    run(scenario())
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@given(data=st.data())
@settings(deadline=None, max_examples=20)  # a second each; the fuzzer's target has more
def test_survives_any_bytes(data: st.DataObject) -> None:
    """Garbage after the handshake: messages with valid numbers and random contents."""
    kinds = st.sampled_from([0, 2, 3, 4, 5, 6, 150, 248, 251, 255, 7])
    sent = b"".join(
        bytes([data.draw(kinds)]) + data.draw(st.binary(max_size=40))
        for _ in range(data.draw(st.integers(1, 12)))
    )

    async def scenario() -> None:
        display, pattern = shown(100, 80)
        async with serve(display) as (service, server):
            bad = await Viewer.connect(server.ports[0])
            bad.send(sent)
            bad.writer.write_eof()
            assert await is_closed(bad)
            await until(lambda: not service.feeds[0].viewers)
            good = await Viewer.connect(server.ports[0])
            await until_equal(good, pattern)

    run(scenario())


def test_drops_viewers_that_stall_in_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.service.HANDSHAKE_SECONDS", 0.05)

    async def scenario() -> None:
        display, _ = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.begin(server.ports[0])
            assert await is_closed(viewer)

    run(scenario())


def test_drops_viewers_that_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.viewer.STALL_SECONDS", 0.1)

    async def scenario() -> None:
        display, _ = shown(2000, 2000)
        async with serve(display) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.pause_reading()
            viewer.request(incremental=False)
            await until(lambda: service.feeds[0].viewers)
            await until(lambda: not service.feeds[0].viewers)

    run(scenario())


@pytest.mark.parametrize("what", ["sizes", "fences", "colour maps"])
def test_drops_viewers_that_ask_and_never_read(what: str) -> None:
    async def scenario() -> None:
        display, _ = shown(2000, 2000)
        async with serve(display) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.pause_reading()
            viewer.request(incremental=False)
            no_colours = struct.pack(">BBBBHHHBBBxxx", 8, 8, 0, 0, 0, 0, 0, 0, 0, 0)
            for _ in range(20_000):
                if what == "sizes":
                    viewer.set_desktop_size(1000, 1000)
                elif what == "fences":
                    viewer.fence(FENCE_REQUEST, bytes(64))
                else:
                    viewer.send(b"\0\0\0\0" + no_colours)
            await until(lambda: not service.feeds[0].viewers)

    run(scenario())


def test_has_room_for_so_many_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.service.MAX_VIEWERS", 3)

    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewers = [await Viewer.connect(server.ports[0]) for _ in range(3)]
            fourth = Viewer(*await asyncio.open_connection("127.0.0.1", server.ports[0]))
            assert await is_closed(fourth)
            await viewers[0].close()
            while True:
                try:
                    viewer = await Viewer.connect(server.ports[0])
                    break
                except (ConnectionError, EOFError):
                    continue
            await until_equal(viewer, pattern)

    run(scenario())


def test_leaves_nothing_behind() -> None:
    """Descriptors and subscriptions after many viewers that end in different ways."""

    async def scenario() -> None:
        display, pattern = shown()
        descriptors = len(os.listdir("/dev/fd"))
        async with serve(display) as (service, server):
            for number in range(30):
                viewer = await Viewer.connect(server.ports[0])
                if number % 3 == 0:
                    viewer.request()
                    viewer.writer.transport.abort()
                elif number % 3 == 1:
                    await until_equal(viewer, pattern)
                    await viewer.close()
                else:
                    viewer.send(b"\x63")
                    assert await is_closed(viewer)
                    await viewer.close()
            await until(lambda: not service.feeds[0].viewers)
        assert display[0].watchers == 0
        await until(lambda: len(os.listdir("/dev/fd")) <= descriptors)

    run(scenario())


def test_says_which_port_is_taken() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            async with RfbService(Display()) as service:
                with pytest.raises(OSError, match=str(port)):
                    async with VncServer(service, port=port):
                        pass

    run(scenario())
