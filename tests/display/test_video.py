"""What moves is sent as H.264, by the ffmpeg that is installed, and decoded by it here."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pattern import Pattern
from serving import run, serve, shown, until
from vnc_client import (
    CONTINUOUS,
    DESKTOP_SIZE,
    FENCE,
    H264,
    LAST_RECT,
    TIGHT,
    Update,
    Video,
    Viewer,
)

from hesper.display.geometry import Rect, Size
from hesper.display.rfb import video
from hesper.display.scanout import Display
from hesper.display.video import encoder as encoders
from hesper.display.video.encoder import Encoder, EncoderError, find_ffmpeg
from hesper.display.video.flv import StreamError, Unpacker

pytestmark = pytest.mark.programs

BOX = (64, 64, 384, 320)
"""The tiles of the pattern's window."""
DECENT = 25.0
"""Decibels: what a picture that moves has to have at least; colours of half the size alone take it
to 30, where neighbours are as different as here."""


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def children() -> set[int]:
    """The processes of this one."""
    answer = subprocess.run(["ps", "-o", "pid=,ppid=,comm="], capture_output=True, check=True)
    rows = [line.split(maxsplit=2) for line in answer.stdout.decode().splitlines()]
    return {int(row[0]) for row in rows if int(row[1]) == os.getpid() and row[2] != "ps"}


def decode(data: bytes, width: int, height: int) -> np.ndarray:
    """Return the pictures of a stream: shape (pictures, height, width, 3)."""
    answer = subprocess.run(
        [
            *("ffmpeg", "-loglevel", "error", "-f", "h264", "-i", "pipe:0"),
            *("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"),
        ],
        input=data,
        capture_output=True,
        check=True,
    )
    assert not answer.stderr
    return np.frombuffer(answer.stdout, np.uint8).reshape(-1, height, width, 3)


def rgb(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels >> shift & 255 for shift in (16, 8, 0)], -1).astype(np.uint8)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The peak signal-to-noise ratio, in decibels."""
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


async def watch(viewer: Viewer, pattern: Pattern, display: Display, count: int) -> list[Seen]:
    """Have the pattern move until `count` pictures of it have come as H.264, one at a time."""
    seen: list[Seen] = []
    number = 0
    while len(seen) < count:
        number += 1
        display[0].flush(pattern.step(number))
        viewer.request()
        update = await viewer.update()
        seen += [(each, pattern.pixels.copy()) for each in update.videos]
    return seen


Seen = tuple[Video, np.ndarray]
"""A rectangle of H.264, and what the guest showed."""


async def connect(port: int) -> Viewer:
    viewer = await Viewer.connect(port)
    viewer.set_encodings(H264, TIGHT, DESKTOP_SIZE, LAST_RECT)
    return viewer


def test_gives_a_picture_for_each_that_it_gets() -> None:
    encoder = Encoder(Size(320, 240), 0)
    try:
        random = np.random.default_rng(1)
        given = []
        stream = encoder.head
        assert stream.count(b"\0\0\0\1") == 3
        for number in range(5):
            luma = np.full((240, 320), 40 * number + 20, np.uint8)
            luma[:100, :100] = random.integers(0, 255, (100, 100))
            planes = np.concatenate([luma.ravel(), np.full(320 * 240 // 2, 128, np.uint8)])
            picture = encoder.encode(planes.data)
            assert picture.count(b"\0\0\0\1") == 1
            stream += picture
            given.append(luma)
        found = decode(stream, 320, 240)
        assert len(found) == 6
        for luma, picture in zip(given, found[1:], strict=True):
            grey = np.clip((luma.astype(float) - 16) * 255 / 219, 0, 255)
            assert likeness(picture[150:, :, 1], grey[150:]) > 40
    finally:
        encoder.close()
        encoder.close()
    with pytest.raises(EncoderError):
        encoder.encode(memoryview(bytes(320 * 240 * 3 // 2)))


def test_what_moves_comes_as_h264_and_is_put_right_when_it_stands() -> None:
    async def scenario() -> None:
        display, pattern = shown(640, 481)
        async with serve(display) as (service, server):
            viewer = await connect(server.ports[0])
            viewer.request(incremental=False)
            await viewer.update()
            assert np.array_equal(viewer.pixels, pattern.pixels), "what is still is exact"
            seen = await watch(viewer, pattern, display, 13)
            assert {each.rect for each, _ in seen} == {BOX}
            assert [each.flags for each, _ in seen] == [2] + [0] * 12
            x, y, width, height = BOX
            found = decode(b"".join(each.data for each, _ in seen), width, height)
            assert len(found) == 13
            assert found[0].max() == 0, "a black one to begin with"
            for picture, (_, pixels) in zip(found[1:], seen[1:], strict=True):
                shown_there = rgb(pixels)[y : y + height, x : x + width]
                assert likeness(picture, shown_there) > DECENT
                # Colours are right where they are all there: in the bars below the window.
                assert np.abs(picture[-16].astype(int) - shown_there[-16])[::46].max() <= 4
            outside = viewer.pixels != pattern.pixels
            outside[y : y + height, x : x + width] = False
            assert not outside.any(), "the rest is exact all the time"
            # It stands still: what has come as H.264 comes again, exactly.
            while not np.array_equal(viewer.pixels, pattern.pixels):
                viewer.request()
                await viewer.update()
            # And then nothing comes, however often the guest flushes the same, and nobody encodes.
            viewer.request()
            sent = service.feeds[0].updates
            for _ in range(20):
                display[0].flush([Rect(0, 0, *pattern.size)])
                await until(lambda: not service.feeds[0].has_news)
            await until(lambda: not children())
            assert service.feeds[0].updates == sent
            await viewer.close()

    run(scenario())


def test_odd_edges_are_sent_beside_the_video() -> None:
    async def scenario() -> None:
        display, pattern = shown(333, 271)
        async with serve(display) as (_, server):
            viewer = await connect(server.ports[0])
            viewer.request(incremental=False)
            await viewer.update()
            number = 0
            columns = None
            while columns is None:
                number += 1
                pattern.pixels[:] = number * 0x030201 & 0xFFFFFF
                pattern.pixels[::2, 332] = number
                pattern.pixels[270, ::3] = number
                display[0].flush([Rect(0, 0, *pattern.size)])
                viewer.request()
                update = await viewer.update()
                if update.videos:
                    columns = update
            assert columns.videos[0].rect == (0, 0, 332, 270)
            assert np.array_equal(viewer.pixels[:, 332], pattern.pixels[:, 332])
            assert np.array_equal(viewer.pixels[270], pattern.pixels[270])
            await viewer.close()

    run(scenario())


def test_an_encoder_that_dies_is_replaced_by_tight(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        display, pattern = shown(640, 480)
        async with serve(display) as (_, server):
            viewer = await connect(server.ports[0])
            await watch(viewer, pattern, display, 3)
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            for number in range(60):
                display[0].flush(pattern.step(1000 + number))
                viewer.request()
                assert not (await viewer.update()).videos
                assert np.array_equal(viewer.pixels[BOX[1] :], pattern.pixels[BOX[1] :])
            await viewer.close()

    with caplog.at_level("INFO"):
        run(scenario())
    (record,) = [each for each in caplog.records if "H.264" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert "has ended" in record.getMessage()


def test_without_ffmpeg_there_is_tight_and_a_line_that_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def scenario() -> None:
        display, pattern = shown(640, 480)
        async with serve(display) as (service, server):
            first, second = [await connect(server.ports[0]) for _ in range(2)]
            for number in range(80):
                display[0].flush(pattern.step(number))
                for viewer in (first, second):
                    viewer.request()
                    assert not (await viewer.update()).videos
            await until(lambda: any("H.264" in each.getMessage() for each in caplog.records))
            assert service.feeds[0].viewers
            await first.close()
            await second.close()

    monkeypatch.setenv("PATH", str(tmp_path))
    find_ffmpeg.cache_clear()
    with caplog.at_level("INFO"):
        run(scenario())
    monkeypatch.undo()
    (record,) = [each for each in caplog.records if "H.264" in each.getMessage()]
    assert "ffmpeg is not installed" in record.getMessage()


@pytest.mark.parametrize(
    ("encoders_part", "reason"),
    [
        ("while os.read(0, 9999): pass", "no picture within"),
        ("sys.exit('oh')", "oh"),
        ("os.write(1, bytes(13) + b'\\x09\\0\\0\\5' + bytes(999))", "no H.264"),
        (None, "has no libx264"),
    ],
)
def test_an_encoder_that_is_none_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoders_part: str | None, reason: str
) -> None:
    program = tmp_path / "ffmpeg"
    script = f"import os, sys\nif len(sys.argv) < 6: sys.exit(print(' {encoders.CODEC} '))\n"
    program.write_text(
        f"#!{os.path.realpath(sys.executable)}\n"
        + (script + encoders_part if encoders_part else "")
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(encoders, "START_SECONDS", 3.0)
    find_ffmpeg.cache_clear()
    try:
        with pytest.raises(EncoderError, match=reason):
            Encoder(Size(64, 64), 0)
    finally:
        find_ffmpeg.cache_clear()


def test_many_sizes_and_viewers_leave_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "RESTART_SECONDS", 0.0)
    started = []

    def start(size: Size, quality: int) -> Encoder:
        started.append(size)
        return Encoder(size, quality)

    monkeypatch.setattr(video, "Encoder", start)

    async def scenario() -> None:
        display = Display()
        pattern = Pattern(Size(640, 480))
        pattern.show_on(display[0])
        async with serve(display) as (_, server):
            viewers = [await connect(server.ports[0]) for _ in range(3)]
            for round_ in range(8):
                pattern = Pattern(Size(512 + round_ * 9, 400 + round_ * 7))
                pattern.show_on(display[0])
                for number in range(8):
                    display[0].flush(pattern.step(number))
                    await asyncio.gather(*(ask(viewer) for viewer in viewers))
            number = 8
            while not started:  # too few pictures a second are no film
                number += 1
                display[0].flush(pattern.step(number))
                await asyncio.gather(*(ask(viewer) for viewer in viewers))
            await viewers[0].close()
            display[0].flush(pattern.step(99))
            await asyncio.gather(*(ask(viewer) for viewer in viewers[1:]))

    async def ask(viewer: Viewer) -> Update:
        viewer.request()
        return await viewer.update()

    run(scenario())


def test_updates_end_with_nothing_so_that_answers_mean_seen() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(TIGHT, LAST_RECT, FENCE, CONTINUOUS)
            while not viewer.ends:
                assert await viewer.message() is None
            viewer.continuous(True)
            pattern.pixels[:] = 5
            display[0].flush([Rect(0, 0, 300, 200)])
            while not np.array_equal(viewer.pixels, pattern.pixels):
                await viewer.message()
            nothing = await viewer.update()
            assert (nothing.rects, nothing.pseudo) == ([], [LAST_RECT])
            while len(viewer.fences) < viewer.updates // 2 + 1:  # and the one to begin with
                await viewer.message()
            assert service.feeds[0].latencies.percentiles(0.0) is None
            for flags, payload in viewer.fences:
                viewer.fence(flags & 3, payload)
            await until(lambda: service.feeds[0].latencies.percentiles(0.0))
            await viewer.close()

    run(scenario())


def test_a_service_that_ends_ends_its_encoders() -> None:
    async def scenario() -> None:
        display, pattern = shown(640, 480)
        async with serve(display) as (_, server):
            viewer = await connect(server.ports[0])
            await watch(viewer, pattern, display, 1)
            assert len(children()) == 1
        assert not children()

    run(scenario())


def test_an_encoder_has_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret")
    encoder = Encoder(Size(64, 64), 0)
    try:
        encoder.encode(memoryview(bytes(64 * 64 * 3 // 2)))
        process = Path("/proc", str(encoder.pid))
        assert b"MY_TOKEN" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        for name in ("Max file size", "Max core file size"):
            assert f"{name:26}0 " in limits, limits
        status = (process / "status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status
        files = {fd.readlink().name.partition(":")[0] for fd in (process / "fd").iterdir()}
        assert files == {"pipe"}
    finally:
        encoder.close()


def test_a_program_that_is_confined_reads_and_writes_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    script = f"cat {secret}; echo x > {tmp_path}/made; echo done"
    start = encoders.command("/bin/sh", Size(2, 2), 0)[:4]
    answer = subprocess.run([*start, "-c", script], capture_output=True, check=False)
    assert answer.stdout == b"done\n", answer
    assert not (tmp_path / "made").exists()


def test_refuses_streams_that_are_none() -> None:
    def tag(body: bytes, kind: int = 9) -> bytes:
        return bytes([kind]) + len(body).to_bytes(3) + bytes(7) + body + bytes(4)

    start = bytes(13)
    configuration = b"\x17\0\0\0\0" + bytes.fromhex("0142c01fffe10002676401000168")
    picture = b"\x17\1\0\0\0" + b"\0\0\0\2\x65\xaa"
    unpacker = Unpacker()
    found: list[bytes] = []
    for byte in start + tag(b"x", 18) + tag(configuration) + tag(picture):
        found += unpacker.feed(bytes([byte]))
    assert found == [b"\0\0\0\1\x67\x64\0\0\0\1\x68\0\0\0\1\x65\xaa"]
    for body, reason in (
        (b"\x12\1\0\0\0", "no H.264"),
        (b"", "no H.264"),
        (b"\x17\0\0\0\0\1\2", "cut off"),
        (b"\x27\1\0\0\0\0\0\0\5\x41", "longer"),
        (b"\x27\1\0\0\0" + 2 * b"\0\0\0\1\x41", "2 slices"),
        (b"\x27\1\0\0\0" + b"\0\0\0\1\x06", "0 slices"),
    ):
        with pytest.raises(StreamError, match=reason):
            list(Unpacker().feed(start + tag(body)))
