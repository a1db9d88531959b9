"""Pictures and videos for scripts."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from pattern import Pattern
from PIL import Image

from hesper.display import avi, snapshot
from hesper.display.avi import AviFullError, AviWriter
from hesper.display.geometry import Rect, Size
from hesper.display.record import Recorder, RecordError
from hesper.display.scanout import Cursor, Display

SIZE = Size(320, 240)


def rgb_of(pattern: Pattern) -> np.ndarray:
    return np.stack([pattern.pixels >> shift & 255 for shift in (16, 8, 0)], -1).astype(np.uint8)


def shown(size: Size = SIZE) -> tuple[Display, Pattern]:
    display = Display()
    pattern = Pattern(size)
    pattern.show_on(display[0])
    return display, pattern


def test_every_screen_has_a_picture(tmp_path: Path) -> None:
    display = Display(2)
    for scanout, size in zip(display, (Size(32, 16), Size(48, 8)), strict=True):
        Pattern(size).show_on(scanout)
    snapshot.save_all(display, tmp_path / "now.png")
    assert Image.open(tmp_path / "now.png").size == (32, 16)
    assert Image.open(tmp_path / "now-2.png").size == (48, 8)


@pytest.mark.parametrize("cursor", [True, False])
def test_a_snapshot_is_what_is_shown(tmp_path: Path, cursor: bool) -> None:
    display, pattern = shown()
    display[0].set_cursor(Cursor(np.full((8, 8), 0xFFFF0000, "<u4"), 0, 0))
    display[0].move_cursor(100, 50)
    snapshot.save_png(display[0], tmp_path / "picture.png", cursor=cursor)
    expected = rgb_of(pattern)
    if cursor:
        expected[50:58, 100:108] = (255, 0, 0)
    found = np.asarray(Image.open(tmp_path / "picture.png"))
    np.testing.assert_array_equal(found, expected)
    assert display[0].watchers == 0


def test_a_snapshot_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    display, _ = shown()
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(OSError, match="picture"):
        snapshot.save_png(display[0], tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_snapshot_goes_where_no_link_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a folder where others may write as well."""
    display, _ = shown()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".now.png.part").symlink_to(precious)
    snapshot.save_png(display[0], tmp_path / "now.png")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".now.png.guessed").symlink_to(precious)
    with pytest.raises(FileExistsError):
        snapshot.save_png(display[0], tmp_path / "now.png")
    assert precious.read_text() == "mine"


def record(path: Path, display: Display, pattern: Pattern, rate: int = 60) -> int:
    """Record until twenty frames are there, with something else to see in each."""
    with Recorder(display[0], path, rate) as recorder:
        pause = threading.Event()
        number = 0
        while recorder.frames < 20:
            number += 1
            display[0].flush(pattern.step(number))
            pause.wait(0.002)
    assert display[0].watchers == 0
    return recorder.frames


def chunks(data: bytes, start: int, end: int) -> list[tuple[bytes, int, bytes]]:
    """The RIFF chunks between two offsets: name, offset, contents."""
    found = []
    while start < end:
        name, length = struct.unpack_from("<4sI", data, start)
        found.append((name, start, data[start + 8 : start + 8 + length]))
        start += 8 + length + (length & 1)
    assert start == end
    return found


def test_an_avi_can_be_read_back(tmp_path: Path) -> None:
    display, pattern = shown()
    path = tmp_path / "video.avi"
    count = record(path, display, pattern)
    data = path.read_bytes()
    (riff,) = chunks(data, 0, len(data))
    assert (riff[0], riff[2][:4]) == (b"RIFF", b"AVI ")
    header, movie, index = chunks(data, 12, len(data))
    assert (header[2][:4], movie[2][:4], index[0]) == (b"hdrl", b"movi", b"idx1")
    main = chunks(header[2], 4, len(header[2]))[0][2]
    fields = struct.unpack("<14I", main)
    assert (fields[0], fields[4], fields[8:10]) == (1_000_000 // 60, count, SIZE)
    frames = chunks(data, movie[1] + 12, movie[1] + 8 + len(movie[2]))
    assert len(frames) == count
    entries = [struct.unpack_from("<4sIII", index[2], at) for at in range(0, 16 * count, 16)]
    for (name, flags, offset, length), (chunk, at, jpeg) in zip(entries, frames, strict=True):
        assert (name, chunk) == (b"00dc", b"00dc")
        assert (offset, length) == (at - movie[1] - 8, len(jpeg))
        assert bool(flags & 0x10) == bool(jpeg)
    pictures = [Image.open(io.BytesIO(jpeg)) for _, _, jpeg in frames if jpeg]
    assert all(picture.size == SIZE for picture in pictures)
    still = np.s_[200:, :80]
    error = np.abs(np.asarray(pictures[-1]).astype(int)[still] - rgb_of(pattern)[still])
    assert error.mean() < 3
    assert len({picture.tobytes() for picture in pictures}) > 3, "it moves"


@pytest.mark.programs
@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv", ".webm", ".gif"])
def test_ffmpeg_reads_every_kind_of_video(tmp_path: Path, suffix: str) -> None:
    display, pattern = shown()
    path = tmp_path / f"video{suffix}"
    count = record(path, display, pattern, 25)
    probe = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-count_frames", "-select_streams", "v"),
            *("-show_entries", "stream=width,height,nb_read_frames", "-of", "csv=p=0", str(path)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert probe.stderr == ""
    width, height, frames = map(int, probe.stdout.strip().split(","))
    assert (width, height) == SIZE
    # Players may join equal frames of a GIF, and AVI's empty ones.
    assert 3 < frames <= count


def test_a_new_size_is_fitted_into_the_video(tmp_path: Path) -> None:
    display, _ = shown(Size(321, 241))
    path = tmp_path / "video.avi"
    with Recorder(display[0], path, 100):
        wide = Pattern(Size(640, 240))
        wide.pixels[:] = 0xFFFFFF
        wide.show_on(display[0])
    data = path.read_bytes()
    last = data[data.rindex(b"\xff\xd8\xff") :]
    picture = np.asarray(Image.open(io.BytesIO(last)).convert("L"))
    assert picture.shape == (240, 320)
    assert picture[120, 160] > 250
    assert picture[20, 160] < 5
    assert picture[220, 160] < 5


def test_says_what_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    display, _ = shown()
    with pytest.raises(RecordError, match=r"\.avi, \.mp4"):
        Recorder(display[0], tmp_path / "video.mov")
    with pytest.raises(ValueError, match="1 to 120"):
        Recorder(display[0], tmp_path / "video.avi", 0)
    with pytest.raises(FileNotFoundError), Recorder(display[0], tmp_path / "no" / "video.avi"):
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecordError, match="install it"), Recorder(display[0], tmp_path / "v.mp4"):
        pass
    assert display[0].watchers == 0


def test_reports_a_program_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    display, pattern = shown()
    recorder = Recorder(display[0], tmp_path / "video.mp4", 100)
    with pytest.raises(RecordError, match="ended with 3"), recorder:
        pattern.show_on(display[0])


def test_an_avi_ends_before_its_sizes_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avi, "MAX_BYTES", 1000)
    writer = AviWriter(io.BytesIO(), SIZE, 30)
    for _ in range(2):
        writer.add(bytes(300))
    with pytest.raises(AviFullError):
        writer.add(bytes(300))


def test_a_still_screen_costs_a_video_next_to_nothing(tmp_path: Path) -> None:
    display, _ = shown()
    with Recorder(display[0], tmp_path / "video.avi", 120) as recorder:
        pause = threading.Event()
        while recorder.frames < 30:
            display[0].flush([Rect(0, 0, *SIZE)])
            pause.wait(0.002)
    data = (tmp_path / "video.avi").read_bytes()
    assert data.count(b"\xff\xd8\xff") == 1
