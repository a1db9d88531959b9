"""What a machine's screens show is recorded, and put together again."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from pattern import Pattern
from recordings import file_of

from hesper.api.recording import record_screens
from hesper.display.geometry import Rect, Size
from hesper.display.scanout import Display
from hesper.isolation.recordings import RecordOptions
from hesper.trace import screens
from hesper.trace.chunks import RecordingError
from hesper.trace.inspect import summary
from hesper.trace.picture import Picture
from hesper.trace.records import Kind, Reader, Record, put
from hesper.trace.shown import BODY, ReplayedScreens

SIZE = Size(320, 240)
SECONDS = 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "PAUSE", 0.001)


def pixels(pattern: Pattern) -> bytes:
    return pattern.pixels.tobytes()


def records(path: Path) -> list[Record]:
    return list(Reader(io.BytesIO(path.read_bytes())))


def after(shown: ReplayedScreens, record: Record) -> Picture:
    """What is shown after a picture."""
    shown.take(record)
    assert shown.picture is not None
    return shown.picture


def test_pictures_of_all_screens_are_recorded_where_they_change(tmp_path: Path) -> None:
    display = Display(2)
    first, second = Pattern(SIZE), Pattern(Size(64, 48))
    first.show_on(display[0])
    second.show_on(display[1])
    with record_screens(display, RecordOptions(folder=str(tmp_path))):
        (path,) = tmp_path.glob("*-screens.hesper")
        deadline = time.monotonic() + SECONDS
        while len(records(path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        display[0].flush(first.step(7))
    assert display[0].watchers == 0
    assert path.stat().st_mode & 0o777 == 0o600
    found = records(path)
    assert [each.kind for each in found] == [*[Kind.PICTURE] * 3, Kind.END]
    shown = ReplayedScreens()
    pictures = [after(shown, each) for each in found[:-1]]
    assert [(each.width, each.height) for each in pictures] == [SIZE, Size(64, 48), SIZE]
    assert pictures[1].pixels == pixels(second)
    assert pictures[2].pixels == pixels(first)
    assert len(found[2].body) < len(found[0].body), "only what has changed"
    lines = list(summary(Reader(io.BytesIO(path.read_bytes()))))
    assert "pictures: 3 parts of 2 screens" in lines


def test_a_recording_of_screens_has_its_limit(tmp_path: Path) -> None:
    display = Display()
    pattern = Pattern(SIZE)
    pattern.show_on(display[0])
    noise = np.random.default_rng(1)
    with record_screens(display, RecordOptions(folder=str(tmp_path), most=100_000)):
        (path,) = tmp_path.glob("*.hesper")
        deadline = time.monotonic() + SECONDS
        while records(path)[-1:] == [] or records(path)[-1].kind != Kind.END:
            assert time.monotonic() < deadline
            pattern.pixels[:] = noise.integers(0, 1 << 24, pattern.pixels.shape)
            display[0].flush([Rect(0, 0, *SIZE)])
            time.sleep(0.01)
    assert b"has reached 100000 bytes" in records(path)[-1].body


def test_nothing_is_recorded_of_no_screens(tmp_path: Path) -> None:
    for display, last in ((Display(0), 0.0), (Display(1), 30.0)):
        with record_screens(display, RecordOptions(folder=str(tmp_path), last=last)):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "head",
    [
        (0, 0, 0, 0, 0, 0, 0),
        (0, 2, 2, 1, 0, 2, 1),
        (0, 2, 2, 0, 2, 1, 1),
        (0, 2, 2, 0, 0, 2, 2),
        (0, 1 << 20, 1 << 20, 0, 0, 1, 1),
        (0, 4, 4, 0xFFFFFFFF, 0, 1, 1),
        (16, 4, 4, 0, 0, 1, 1),
    ],
)
def test_a_picture_that_cannot_be_is_told_by_its_byte(head: tuple[int, ...]) -> None:
    data = file_of(put(Kind.PICTURE, BODY.pack(*head) + bytes(4)))
    (record,) = Reader(io.BytesIO(data))
    with pytest.raises(RecordingError, match=r"byte \d+: a picture of 4 bytes"):
        ReplayedScreens().take(record)
