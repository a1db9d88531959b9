"""Who is let in by VNC, and what that costs those who are not."""

from __future__ import annotations

import asyncio
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import is_closed, run, shown, until, until_equal
from tls_viewer import (
    X509_PLAIN,
    X509_VNC,
    answer_challenge,
    authenticate,
    begin_tls,
    begin_vencrypt,
    offered,
    reason,
    trust,
)
from vnc_client import Viewer

from hesper.display.access.self_signed import own_certificate
from hesper.display.access.tls import Certificate
from hesper.display.rfb.server import VncServer
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display


@pytest.fixture(autouse=True)
def no_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.handshake.PENALTY_SECONDS", 0.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return own_certificate(tmp_path_factory.mktemp("state"))


@asynccontextmanager
async def vnc(display: Display, **options: Any) -> AsyncIterator[tuple[RfbService, VncServer]]:
    """A server of VNC on a free port."""
    async with (
        RfbService(display, 1000) as service,
        VncServer(service, port=0, **options) as server,
    ):
        yield service, server


def test_makes_up_a_password() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with vnc(display) as (_, server), vnc(Display()) as (_, other):
            assert server.password is not None
            assert len(server.password) == 8
            assert server.password != other.password
            viewer, result = await authenticate(server.ports[0], server.password)
            assert result == 0
            await viewer.initialise()
            await until_equal(viewer, pattern)
            viewer, result = await authenticate(server.ports[0], "guessing")
            assert (result, await reason(viewer)) == (1, b"wrong password")
            assert await is_closed(viewer)

    run(scenario())


@pytest.mark.parametrize("version", ["003.003", "003.007", "003.008"])
def test_no_version_gets_around_the_password(version: str) -> None:
    async def scenario() -> None:
        display, _ = shown()
        async with vnc(display) as (service, server):
            viewer = await Viewer.begin(server.ports[0], version)
            if version == "003.003":
                assert await viewer.number(4) == 2
            else:
                assert await viewer.read(2) == b"\x01\x02"
                viewer.send(b"\x01")  # "none"
            viewer.send(b"\x01" * 40)
            assert await is_closed(viewer)
            assert not service.feeds[0].viewers

    run(scenario())


def test_who_is_refused_hears_why_whatever_he_goes_on_to_send() -> None:
    """A connection that is cut answers what comes with a reset, which may overtake the reason."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with vnc(shown()[0]) as (_, server):
            with socket.create_connection(("127.0.0.1", server.ports[0])) as viewer:
                viewer.setblocking(False)
                await loop.sock_sendall(viewer, b"RFB 003.008\n\x02" + bytes(16))
                heard = b""
                while piece := await loop.sock_recv(viewer, 1000):
                    heard += piece
                assert heard.endswith(b"\0\0\0\1\0\0\0\x0ewrong password")
                for _ in range(3):
                    await loop.sock_sendall(viewer, bytes(1000))

    run(scenario())


def test_has_to_be_told_to_be_open() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with vnc(display, is_open=True) as (_, server):
            assert server.password is None
            await until_equal(await Viewer.connect(server.ports[0]), pattern)
        async with RfbService(Display()) as service:
            with pytest.raises(ValueError, match="without a password"):
                VncServer(service, password="password", is_open=True)

    run(scenario())


@pytest.mark.parametrize("password", [None, "pa55word"])
def test_serves_a_unix_socket_for_its_owner(tmp_path: Path, password: str | None) -> None:
    async def scenario() -> None:
        display = Display(2)
        path = tmp_path / "vnc"
        async with vnc(display, path=path, password=password) as (_, server):
            assert (server.password, server.ports) == (password, [])
            for file in (path, tmp_path / "vnc.2"):
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
                viewer = await Viewer.begin(file)
                assert await viewer.read(2) == (b"\x01\x02" if password else b"\x01\x01")
                await viewer.close()
        assert not list(tmp_path.iterdir())

    run(scenario())


# Guessing


def test_guesses_are_few() -> None:
    async def scenario() -> None:
        async with vnc(shown()[0], password="password") as (_, server):
            port = server.ports[0]

            async def guess() -> bytes:
                viewer = await Viewer.begin(port)
                count = await viewer.number(1)
                if not count:
                    return await reason(viewer)
                viewer.send(await viewer.read(count))
                assert await answer_challenge(viewer, "guessing") == 1
                return await reason(viewer)

            # All at once, so that each asks before another has failed.
            answers = await asyncio.gather(*(guess() for _ in range(20)))
            assert answers.count(b"wrong password") == 5
            assert (await guess()).startswith(b"too many wrong passwords: try again in ")
            # Those who know it wait as well: they cannot be told from the others.
            viewer = await Viewer.begin(port, "003.003")
            assert await viewer.number(4) == 0
            assert (await reason(viewer)).startswith(b"too many")

    run(scenario())


# TLS


@pytest.mark.parametrize("kind", [X509_VNC, X509_PLAIN])
def test_speaks_tls(certificate: Certificate, kind: int) -> None:
    async def scenario() -> None:
        display, pattern = shown(700, 500)
        context = trust(str(certificate.path))
        options = {"host": "0.0.0.0", "certificate": certificate}
        async with vnc(display, **options) as (_, server):
            for password in (server.password or "", "guessing"):
                viewer = await begin_tls(server.ports[0], kind, context)
                if kind == X509_VNC:
                    result = await answer_challenge(viewer, password)
                else:
                    viewer.send(struct.pack(">II", 4, len(password)) + b"user" + password.encode())
                    result = await viewer.number(4)
                assert result == (0 if password == server.password else 1)
                if result:
                    assert await reason(viewer) == b"wrong password"
                    assert await viewer.reader.read() == b""
                else:
                    await viewer.initialise()
                    await until_equal(viewer, pattern)
                    await viewer.close()

    run(scenario())


def test_nothing_gets_around_tls(certificate: Certificate) -> None:
    async def scenario() -> None:
        async with vnc(shown()[0], certificate=certificate) as (service, server):
            port = server.ports[0]
            for chosen in (b"\x01", b"\x02"):
                viewer, _ = await offered(port)
                viewer.send(chosen + b"\x01" * 40)
                assert await viewer.reader.read() == b""
            viewer = await Viewer.begin(port, "003.003")
            assert await viewer.number(4) == 0
            assert b"VeNCrypt" in await reason(viewer)
            viewer, types = await offered(port)
            viewer.send(types + b"\0\x01")
            assert await viewer.read(3) == b"\0\x02\xff"
            assert await is_closed(viewer)
            for kind in (256, 258, 260, 0xFFFFFFFF):
                viewer = await begin_vencrypt(port, kind)
                assert await viewer.reader.read() == b"\0"
            for early in (b"\x01" * 100, b"\x16\x03\x01\x50\0" + bytes(0x5000)):
                viewer = await begin_vencrypt(port, X509_VNC)
                viewer.send(early)
                assert await viewer.number(1) == 1
                assert await is_closed(viewer)
            assert not service.feeds[0].viewers

    run(scenario())


def test_reads_no_long_names(certificate: Certificate) -> None:
    async def scenario() -> None:
        async with vnc(shown()[0], certificate=certificate) as (_, server):
            context = trust(str(certificate.path))
            viewer = await begin_tls(server.ports[0], X509_PLAIN, context)
            viewer.send(struct.pack(">II", 0xFFFFFFFF, 8) + bytes(100))
            assert await viewer.reader.read() == b""

    run(scenario())


# Silence


@pytest.mark.parametrize("words", [b"", b"RFB", b"RFB 003.008\n", b"RFB 003.008\n\x13\0\x02"])
def test_drops_viewers_that_fall_silent(
    certificate: Certificate, words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hesper.display.rfb.handshake.SPEAK_SECONDS", 0.1)

    async def scenario() -> None:
        async with vnc(shown()[0], certificate=certificate) as (_, server):
            viewer = Viewer(*await asyncio.open_connection("127.0.0.1", server.ports[0]))
            viewer.send(words)
            assert await is_closed(viewer)

    run(scenario())


def test_drops_viewers_that_fall_silent_in_tls(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hesper.display.rfb.handshake.TLS_SECONDS", 0.1)

    async def scenario() -> None:
        async with vnc(shown()[0], certificate=certificate) as (_, server):
            viewer = await begin_vencrypt(server.ports[0], X509_VNC)
            assert await is_closed(viewer)

    run(scenario())


def test_drops_viewers_that_never_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.viewer.FIRST_SECONDS", 0.1)

    async def scenario() -> None:
        display, pattern = shown()
        async with vnc(display, is_open=True) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            assert await is_closed(viewer)
            # Who has asked once may look on for as long as nothing happens.
            while True:
                try:
                    viewer = await Viewer.connect(server.ports[0])
                    await until_equal(viewer, pattern)
                    break
                except (ConnectionError, EOFError):
                    continue  # where much else runs, it may not have asked in time
            viewer.request()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await viewer.reader.read()
            assert service.feeds[0].viewers

    run(scenario())


@pytest.mark.slow
def test_silent_viewers_shut_nobody_out() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with vnc(display, is_open=True) as (service, server):
            port = server.ports[0]
            guest = await Viewer.connect(port)
            silent = [Viewer(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(200)]
            viewer = await Viewer.connect(port)
            await until_equal(viewer, pattern)
            # The oldest were dropped, but nobody who was let in.
            for each in silent[:150]:
                assert await is_closed(each)
            await until_equal(guest, pattern)
            assert len(service.feeds[0].viewers) == 2

    run(scenario())


def test_a_mistake_of_ours_costs_one_viewer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    async def scenario() -> None:
        display, pattern = shown()
        async with vnc(display, is_open=True) as (service, server):
            good = await Viewer.connect(server.ports[0])
            await until_equal(good, pattern)
            with monkeypatch.context() as patch:
                patch.setattr("hesper.display.rfb.keyboard.key_code", fail)
                bad = await Viewer.connect(server.ports[0])
                bad.key(True, ord("a"))
                assert await is_closed(bad)
                await until(lambda: len(service.feeds[0].viewers) == 1)
            display[0].flush(pattern.step(1))
            await until_equal(good, pattern)

    run(scenario())
    assert [each.levelname for each in caplog.records].count("ERROR") == 1
