"""Which part of a screen is sent as a video, and at which quality."""

from __future__ import annotations

from hesper.display.geometry import Damage, Rect, Size
from hesper.display.rfb.pace import Latencies, Pace
from hesper.display.video.encoder import QUALITIES
from hesper.display.video.motion import Motion

SIZE = Size(1280, 801)
WINDOW = Rect(100, 100, 500, 500)
ITS_TILES = Rect(64, 64, 576, 576)


def move(motion: Motion, rect: Rect, start: float, count: int, rate: float = 30.0) -> float:
    """Have `rect` change `count` times; returns when the last change was."""
    damage = Damage(motion.size)
    damage.add(rect)
    now = start
    for number in range(count):
        now = start + number / rate
        motion.note(damage, 1, now)
    return now


def test_a_window_that_moves_is_a_box_until_it_is_still() -> None:
    motion = Motion(SIZE)
    now = move(motion, WINDOW, 0.0, 2)
    assert motion.box(now) is None, "twice is not yet a film"
    now = move(motion, WINDOW, now, 10)
    assert motion.box(now) == ITS_TILES
    assert motion.box(now + 0.5, ITS_TILES) == ITS_TILES, "a stutter"
    assert motion.box(now + 3, ITS_TILES) is None


def test_what_is_small_or_seldom_is_none() -> None:
    motion = Motion(SIZE)
    now = move(motion, Rect(0, 0, 130, 130), 0.0, 60)
    assert motion.box(now) is None, "a clock"
    motion = Motion(SIZE)
    now = move(motion, Rect(0, 0, *SIZE), 0.0, 12, rate=2.0)
    assert motion.box(now) is None, "pages that somebody turns"


def test_frames_that_nobody_could_look_at_count() -> None:
    motion = Motion(SIZE)
    damage = Damage(SIZE)
    damage.add(WINDOW)
    for number in range(6):
        motion.note(damage, 20, number / 3)
    assert motion.box(5 / 3) == ITS_TILES, "three pictures a second, of a guest that draws sixty"


def test_a_box_grows_at_once_and_shrinks_when_it_is_worth_it() -> None:
    motion = Motion(SIZE)
    now = move(motion, WINDOW, 0.0, 20)
    box = motion.box(now)
    now = move(motion, Rect(700, 64, 400, 400), now, 20)
    assert motion.box(now, box) == Rect(64, 64, 1088, 576)
    now = move(motion, WINDOW, now, 90)
    whole = Rect(0, 0, 1280, 800)
    assert motion.box(now, whole) == ITS_TILES
    assert motion.box(now, Rect(0, 0, 640, 640)) == Rect(0, 0, 640, 640), "not worth it"


def test_edges_are_even() -> None:
    motion = Motion(Size(1281, 801))
    now = move(motion, Rect(1000, 500, 281, 301), 0.0, 20)
    assert motion.box(now) == Rect(960, 448, 320, 352)


def test_tells_what_is_still() -> None:
    motion = Motion(SIZE)
    now = move(motion, WINDOW, 0.0, 3)
    assert motion.still(0.4, now + 0.3).sum() == motion.still(0.4, now).sum()
    assert motion.still(0.4, now + 0.5).all()


def stream(pace: Pace, start: float, seconds: float, delay: float, rate: float = 20.0) -> float:
    """Send updates that take `delay` each; returns when the last is confirmed."""
    now = start
    for number in range(int(seconds * rate)):
        now = start + number / rate
        pace.note_sent(now - 0.01, now)
        assert pace.confirm(now + delay) is not None
    return now + delay


def test_quality_follows_what_the_viewer_takes() -> None:
    pace = Pace()
    first = pace.quality
    now = stream(pace, 0.0, 3, 0.02)
    assert pace.quality == first
    now = stream(pace, now, 20, 0.5)
    assert pace.quality > first, "updates that wait half a second"
    low = pace.quality
    now = stream(pace, now, 60, 0.02)
    assert pace.quality < low
    assert 0 <= pace.quality < len(QUALITIES)
    stream(pace, now, 600, 0.02)
    assert pace.quality == 0


def test_a_slow_but_steady_line_keeps_its_quality() -> None:
    pace = Pace()
    first = pace.quality
    stream(pace, 0.0, 5, 0.3)
    assert pace.quality == first, "far away is not the same as full"


def test_latency_counts_from_the_flush() -> None:
    pace = Pace()
    pace.note_sent(1.0, 1.5)
    pace.note_sent(None, 1.6)
    assert pace.confirm(2.0) == 1.0
    assert pace.confirm(2.1) is None
    assert pace.confirm(2.2) is None, "nothing is left to confirm"
    latencies = Latencies()
    assert latencies.percentiles(0.0) is None
    for number in range(100):
        latencies.add(number / 1000, 10.0)
    median, late = latencies.percentiles(11.0) or (0.0, 0.0)
    assert (round(median, 4), round(late, 4)) == (0.0495, 0.098)
    assert latencies.percentiles(20.0) is None
