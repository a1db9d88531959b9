"""Perfetto traces: what workers have noted, on one time line; workers may be hostile."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as TraceFile
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

from hesper.observe.asking import Trace
from hesper.observe.trace import FENCE, MOST_LANES, QUEUE, SPAN, STREAM, TraceWriter, spans

BEGAN = 1_000_000_000
SECONDS = 2.0
END = BEGAN + 2_000_000_000
COMMANDS = {7: "vkQueueSubmit", 8: "vkWaitForFences"}
DRIVER, HANDLER = 3, 5


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[int]:
    """What a worker writes to: a file does as well."""
    fd = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    yield fd
    os.close(fd)


def note(fd: int, *noted: tuple[int, int, int, int, int]) -> None:
    os.pwrite(fd, b"".join(SPAN.pack(*each) for each in noted), 0)


def read_back(trace: Trace) -> tuple[dict[str, list[tuple[int, int, str, str]]], TraceFile]:
    """By the track's title: begin, end, name and category of what lies on it; and the file.

    Checks on the way that each track's slices lie beside each other.
    """
    written = io.BytesIO()
    TraceWriter(written, COMMANDS).add(trace, "hesper serve")
    file = TraceFile.FromString(written.getvalue())
    tracks: dict[int, str] = {}
    open_: dict[int, tuple[int, str, str]] = {}
    found: dict[str, list[tuple[int, int, str, str]]] = {}
    for packet in file.packet:
        if packet.HasField("track_descriptor"):
            about = packet.track_descriptor
            parent = tracks.get(about.parent_uuid, "")
            title = about.process.process_name or f"{parent}/{about.name}"
            assert about.uuid not in tracks
            tracks[about.uuid] = title
            continue
        event = packet.track_event
        title = tracks[event.track_uuid]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in open_, f"{title}: a slice in a slice"
            open_[event.track_uuid] = (packet.timestamp, event.name, event.categories[0])
        elif event.type == TrackEvent.TYPE_SLICE_END:
            begin, name, category = open_.pop(event.track_uuid)
            assert begin <= packet.timestamp
            found.setdefault(title, []).append((begin, packet.timestamp, name, category))
        else:
            assert event.type == TrackEvent.TYPE_INSTANT
            entry = (packet.timestamp, packet.timestamp, event.name, event.categories[0])
            found.setdefault(title, []).append(entry)
    assert open_ == {}
    return found, file


def test_rings_queues_fences_and_screens_are_on_one_time_line(memory: int) -> None:
    note(
        memory,
        (BEGAN + 10, BEGAN + 20, STREAM, 0, DRIVER << 32 | 7),
        (BEGAN + 30, BEGAN + 90, STREAM, 1, DRIVER << 32 | 8),
        (BEGAN + 20, BEGAN + 80, QUEUE, 1, 5),
        (BEGAN + 25, BEGAN + 80, FENCE, 1, 5),
        (BEGAN + 40, BEGAN + 95, FENCE, 1, 6),
        (BEGAN + 95, BEGAN + 99, STREAM, 1, HANDLER << 32 | 7),
        (BEGAN + 99, BEGAN + 99, STREAM, 1, HANDLER << 32 | 9999),
    )
    trace = Trace(BEGAN, SECONDS, {3: memory}, {3: ("vkcube", 1234)})
    trace.frames = [(1, BEGAN + 50), (2, BEGAN + 60), (1, BEGAN + 70)]
    found, _ = read_back(trace)
    program = "vkcube (3), process 1234"
    assert found == {
        f"{program}/socket": [(BEGAN + 10, BEGAN + 20, "vkQueueSubmit", "driver")],
        f"{program}/ring 1": [
            (BEGAN + 30, BEGAN + 90, "vkWaitForFences", "waiting"),
            (BEGAN + 95, BEGAN + 99, "vkQueueSubmit", "handler"),
            (BEGAN + 99, BEGAN + 99, "no command", "handler"),
        ],
        f"{program}/queue 1": [(BEGAN + 20, BEGAN + 80, "submission 5", "queue")],
        f"{program}/fences of queue 1": [
            (BEGAN + 25, BEGAN + 80, "fence behind submission 5", "fence")
        ],
        f"{program}/fences of queue 1 (2)": [
            (BEGAN + 40, BEGAN + 95, "fence behind submission 6", "fence")
        ],
        "hesper serve/screen 1": [
            (BEGAN + 50, BEGAN + 50, "frame", "screen"),
            (BEGAN + 70, BEGAN + 70, "frame", "screen"),
        ],
        "hesper serve/screen 2": [(BEGAN + 60, BEGAN + 60, "frame", "screen")],
    }


NONSENSE = {
    "ends before it begins": (BEGAN + 20, BEGAN + 10, QUEUE, 1, 1),
    "before the trace": (1, BEGAN - 1, QUEUE, 1, 1),
    "after it": (END + 1, END + 2, QUEUE, 1, 1),
    "a kind that there is not": (BEGAN, END, 4, 1, 1),
    "no kind": (BEGAN, END, 0, 1, 1),
    "a track that there is not": (BEGAN, END, QUEUE, 64, 1),
    "a stage that there is not": (BEGAN, END, STREAM, 1, 6 << 32),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_left_out(memory: int, name: str) -> None:
    fine = (BEGAN + 1, BEGAN + 2, QUEUE, 1, 7)
    note(memory, NONSENSE[name], fine)
    assert [(span.begin, span.end) for span in spans(memory, BEGAN, END)] == [fine[:2]]


def test_what_goes_beyond_the_trace_is_cut(memory: int) -> None:
    note(memory, (1, (1 << 64) - 1, QUEUE, 1, (1 << 64) - 1))
    (span,) = spans(memory, BEGAN, END)
    assert (span.begin, span.end) == (BEGAN, END)
    found, _ = read_back(Trace(BEGAN, SECONDS, {3: memory}))
    assert found["client (3), process 3/queue 1"][0][2] == f"submission {(1 << 64) - 1}"


def test_memory_that_was_cut_off_is_no_harm(memory: int) -> None:
    note(memory, (BEGAN, END, QUEUE, 1, 1), (BEGAN, END, QUEUE, 2, 1))
    os.ftruncate(memory, SPAN.size + 7)
    assert len(list(spans(memory, BEGAN, END))) == 1
    os.ftruncate(memory, 0)
    assert list(spans(memory, BEGAN, END)) == []


def test_what_overlaps_without_end_is_no_work_without_end(memory: int) -> None:
    """Each would take a track of its own, to be found beyond all the others."""
    note(memory, *[(BEGAN + at, END, FENCE, 1, at) for at in range(1, 5000)])
    found, _ = read_back(Trace(BEGAN, SECONDS, {3: memory}))
    assert len(found) == MOST_LANES
    first = min(noted for slices in found.values() for noted in slices)
    assert first[:3] == (BEGAN + 1, END, "fence behind submission 1")
    assert TraceWriter(io.BytesIO(), COMMANDS).add(Trace(BEGAN, SECONDS, {3: memory}), "") == (
        MOST_LANES
    )


@pytest.mark.parametrize("seed", range(10))
def test_whatever_a_worker_writes_there_is_a_trace(memory: int, seed: int) -> None:
    source = random.Random(seed)
    noted = [
        (
            source.choice([1, BEGAN, source.randrange(1, 2 * END), source.getrandbits(64) | 1]),
            source.choice([END, source.randrange(1, 2 * END), source.getrandbits(64)]),
            source.randrange(5),
            source.randrange(70),
            source.choice([0, 7, source.getrandbits(64)]),
        )
        for _ in range(3000)
    ]
    note(memory, *noted)
    _, file = read_back(Trace(BEGAN, SECONDS, {3: memory}, {3: ("\x1b]0;x\x07" * 20, -5)}))
    stamps = [packet.timestamp for packet in file.packet if packet.timestamp]
    assert stamps
    assert all(BEGAN <= stamp <= END for stamp in stamps)
