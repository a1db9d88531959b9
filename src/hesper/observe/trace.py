"""Perfetto traces: what happened in rings, queues, fences and on screens, on one time line.

Source: Perfetto's `protos/perfetto/trace/track_event/*.proto`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, BinaryIO

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from hesper.observe.rates import ORDERING, WAITING
from hesper.observe.words import plain

if TYPE_CHECKING:
    from hesper.observe.asking import Trace

SPAN = Struct("=QQIIQ")
"""begin and end (ns), kind, track, value: see `kernel.watch.Watch.trace`"""
STREAM, QUEUE, FENCE = 1, 2, 3
STAGES = ("asleep", "wait", "decode", "driver", "reply", "handler")
MOST_SPANS = 1 << 18
"""Of one client."""
MOST_TRACK = 64
MOST_LANES = 64
"""Tracks of one ring, or queue: what overlaps more than that is left out.  A guest may have
thousands of fences wait for one submission, or a worker say so."""
_CHUNK = SPAN.size * 4096
_SEQUENCE = 1


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time."""

    begin: int
    """ns of the monotonic clock."""
    end: int
    kind: int
    track: int
    value: int


def spans(fd: int, begin: int, end: int) -> Iterator[Span]:
    """What a worker has noted, as far as it makes sense; a guest may have written it.

    fd: shared memory.  begin, end: ns; what lies outside is cut off.
    """
    place = 0
    for _ in range(MOST_SPANS // 4096):
        data = os.pread(fd, _CHUNK, place)
        place += len(data)
        for fields in SPAN.iter_unpack(data[: len(data) // SPAN.size * SPAN.size]):
            span = Span(*fields)
            if not span.begin:
                return
            if _makes_sense(span, begin, end):
                yield Span(
                    max(span.begin, begin), min(span.end, end), span.kind, span.track, span.value
                )
        if len(data) < _CHUNK:
            return


def _makes_sense(span: Span, begin: int, end: int) -> bool:
    return (
        span.begin <= span.end
        and span.end >= begin
        and span.begin <= end
        and span.kind in {STREAM, QUEUE, FENCE}
        and span.track < MOST_TRACK
        and (span.kind != STREAM or span.value >> 32 < len(STAGES))
    )


class TraceWriter:
    """Writes what servers have said while they were traced."""

    def __init__(self, file: BinaryIO, commands: Mapping[int, str]) -> None:
        """Write to `file`.  commands: their names, by number."""
        self._commands = commands
        self._builder = StreamingTraceProtoBuilder(file)
        self._tracks = 0

    def add(self, trace: Trace, title: str) -> int:
        """Add a server's; how many things it holds that took time, or happened."""
        begin, end = trace.began, trace.began + int(trace.seconds * 1e9)
        count = 0
        for context, fd in sorted(trace.memory.items()):
            name, process = trace.clients.get(context, ("", 0))
            parent = self._process(f"{plain(name) or 'client'} ({context})", process or context)
            count += self._add_client(parent, list(spans(fd, begin, end)))
        if trace.frames:
            parent = self._process(title, 0)
            tracks: dict[int, int] = {}
            for screen, when in sorted(trace.frames, key=lambda frame: frame[1]):
                if screen not in tracks:
                    tracks[screen] = self._track(f"screen {screen}", parent)
                self._event(tracks[screen], TrackEvent.TYPE_INSTANT, when, "frame", "screen")
            count += len(trace.frames)
        return count

    def _add_client(self, parent: int, found: list[Span]) -> int:
        """Add what a client did: a track each for its streams, queues and fences."""
        lanes: dict[tuple[int, int, int], tuple[int, int]] = {}
        count = 0
        # A track's slices lie beside each other; what overlaps gets another lane.
        for span in sorted(found, key=lambda span: (span.begin, span.end)):
            for lane in range(MOST_LANES):
                key = (span.kind, span.track, lane)
                track, free = lanes.get(key, (0, 0))
                if free <= span.begin:
                    break
            else:
                continue
            count += 1
            track = track or self._track(_title(span.kind, span.track, lane), parent)
            lanes[key] = (track, span.end)
            name, category = self._describe(span)
            self._event(track, TrackEvent.TYPE_SLICE_BEGIN, span.begin, name, category)
            self._event(track, TrackEvent.TYPE_SLICE_END, span.end)
        return count

    def _describe(self, span: Span) -> tuple[str, str]:
        if span.kind == QUEUE:
            return f"submission {span.value}", "queue"
        if span.kind == FENCE:
            return f"fence behind submission {span.value}", "fence"
        stage = STAGES[span.value >> 32]
        name = self._commands.get(span.value & 0xFFFFFFFF, "no command")
        if name in WAITING or name in ORDERING:
            return name, "waiting"
        return name, stage

    def _process(self, name: str, pid: int) -> int:
        self._tracks += 1
        packet = self._builder.create_packet()
        packet.track_descriptor.uuid = self._tracks
        # Each is a process of its own in the picture, whatever its program is.
        packet.track_descriptor.process.pid = self._tracks
        packet.track_descriptor.process.process_name = f"{name}, process {pid}" if pid else name
        self._builder.write_packet(packet)
        return self._tracks

    def _track(self, name: str, parent: int) -> int:
        self._tracks += 1
        packet = self._builder.create_packet()
        packet.track_descriptor.uuid = self._tracks
        packet.track_descriptor.parent_uuid = parent
        packet.track_descriptor.name = name
        self._builder.write_packet(packet)
        return self._tracks

    def _event(self, track: int, kind: int, when: int, name: str = "", category: str = "") -> None:
        packet = self._builder.create_packet()
        packet.timestamp = when
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        if name:
            packet.track_event.name = name
            packet.track_event.categories.append(category)
        self._builder.write_packet(packet)


def _title(kind: int, track: int, lane: int) -> str:
    if kind == STREAM:
        name = f"ring {track}" if track else "socket"
    else:
        name = f"queue {track}" if kind == QUEUE else f"fences of queue {track}"
    return f"{name} ({lane + 1})" if lane else name
