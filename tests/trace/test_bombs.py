"""Recordings that are small, and would take much memory or time: each ends soon, by a sentence."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_guest import replay
from recordings import command, file_of, read

from hesper.errors import HesperError
from hesper.protocol.codec import Codec
from hesper.trace import anonymize, decoded, diff, inspect, records
from hesper.trace.chunks import RecordingError
from hesper.trace.known import MOST_RINGS, Known
from hesper.trace.outcome import Outcome
from hesper.trace.records import HEAD, MORE, Kind, Reader, put

CODEC = Codec()
MANY = 1 << 16
MUCH = 64 << 20
"""Bytes of memory: far more than anything here takes, far less than what it would take."""


def opened(*chunks: bytes) -> Reader:
    return Reader(io.BytesIO(file_of(*chunks)))


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def peak(of: Callable[[], object]) -> int:
    """Bytes that something takes meanwhile."""
    tracemalloc.start()
    try:
        of()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def families(count: int) -> bytes:
    """A question for so many structs, of which nothing travels."""
    number = CODEC.model.commands["vkGetPhysicalDeviceQueueFamilyProperties"].number
    there = (1).to_bytes(8, "little")
    return u32(number) + u32(0) + there * 2 + u32(count) + count.to_bytes(8, "little")


def test_structs_of_which_nothing_travels_are_counted() -> None:
    (line,) = map(inspect.line_of, inspect.commands(opened(command(families(3))), inspect.Filter()))
    assert "pQueueFamilyPropertyCount=3" in line
    reader = opened(command(families(0xFFFFFFFF)))
    (line,) = map(inspect.line_of, inspect.commands(reader, inspect.Filter()))
    assert line.endswith("pQueueFamilyProperties: 4294967295 structs in 0 bytes")


def test_a_command_that_is_very_long_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "MOST_DECODED", MANY)
    for data, reply in ((families(0) + bytes(MANY), b""), (families(0), bytes(MANY + 1))):
        (found,) = inspect.commands(opened(command(data, reply)), inspect.Filter())
        assert found.problem == f"more than {MANY} bytes are not looked into"


def test_there_are_no_more_records_than_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "FREE_RECORDS", 1000)
    few = put(Kind.BEGUN, u32(5)) * 1000
    read(file_of(few))
    with pytest.raises(RecordingError, match=r"^byte \d+: more records than bytes$"):
        read(file_of(few * 10))


def test_pieces_without_anything_in_them_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BODY", 1000 * records.PIECE_COST)
    for streams in (range(1001), [1] * 1001):
        empty = [HEAD.pack(Kind.COMMAND, MORE, 0, 0, 0, stream) for stream in streams]
        reader, found = read(file_of(b"".join(empty[:1000])))
        assert (found, reader.unfinished) == ([], len(set(streams[:1000])))
        with pytest.raises(RecordingError, match=r"^byte \d+: records of more than \d+ bytes$"):
            read(file_of(b"".join(empty)))


def test_pieces_that_are_whole_count_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BODY", 5000)
    body = bytes(1000)
    pieces = HEAD.pack(Kind.LAST, MORE, 0, len(body), 0, 1) + body
    whole = pieces + put(Kind.LAST, body, stream=1)
    _, found = read(file_of(whole * 100))
    assert [len(each.body) for each in found] == [2000] * 100


def test_the_longest_commands_are_not_kept_as_they_are() -> None:
    large = command(bytes(4 << 20))
    reader = opened(*[large] * 40)
    assert peak(lambda: list(inspect.slow(reader))) < MUCH


def test_a_summary_tells_so_many_of_each() -> None:
    device = command(CODEC.encode("vkCreateDevice", {"physicalDevice": 2, "pCreateInfo": {},
                                                    "pDevice": 3}))  # fmt: skip
    streams = b"".join(command(u32(0xFFFF0000 + i), stream=i) for i in range(2000))
    ends = put(Kind.END, b"first") + put(Kind.END, b"second") * 1000
    dying = put(Kind.UNFINISHED, u32(1)) * 1000
    lines = list(inspect.summary(opened(device * 1000, streams, ends, dying)))
    assert len(lines) < 400
    assert max(map(len, lines)) < 40_000
    assert [line for line in lines if line.startswith("end:")] == ["end: first"]
    (counted,) = [line for line in lines if line.startswith("commands:")]
    assert counted.endswith(", others 976)")
    assert next(line for line in lines if line.startswith("most:")).startswith("most: unknown 2000")


def test_what_is_given_away_can_be_read_however_long_a_record_is() -> None:
    """Longer than a chunk may be."""
    pieces = list(records.cut(records.record_of(Kind.BLOB, bytes(40 << 20), time=0)))
    given = anonymize.anonymize(opened(b"".join(pieces[:20]), b"".join(pieces[20:])))
    _, found = read(b"".join(given))
    assert [len(each.body) for each in found] == [40 << 20]


def test_only_so_much_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "MOST_BYTES", 1 << 20)
    found = inspect.commands(opened(command(bytes(1 << 18)) * 5), inspect.Filter())
    with pytest.raises(HesperError, match="command 4: more than 1 MiB of commands"):
        diff.gather(found)


def test_more_rings_than_there_can_be_are_not_counted() -> None:
    known = Known()
    chain = [("VkDeviceQueueTimelineInfoMESA", {"ringIdx": 1})]
    queue: dict[str, Any] = {"device": 3, "pQueueInfo": {"pNext": chain}, "pQueue": 4}
    _, found = read(file_of(command(CODEC.encode("vkGetDeviceQueue2", queue))))
    known.note(decoded.decode(0, found[0]))

    def wait_for_rings() -> None:
        for ring in range(2 * MOST_RINGS):
            data = CODEC.encode("vkWaitRingSeqnoMESA", {"ring": ring, "seqno": 1 << 31})
            known.passed(read(file_of(command(data)))[1][0])
        for number in range(1000):
            known.fence(1, number)

    assert peak(wait_for_rings) < MUCH


def test_a_pause_of_years_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pause.hesper"
    path.write_bytes(file_of(put(Kind.WHOLE, b"") + put(Kind.WHOLE, b"", time=1 << 62)))
    assert replay(path).fatal == ""
    with pytest.raises(HesperError, match=r"^byte \d+: 46116860\d\d s went by before that: replay"):
        replay(path, real=True)


def test_what_a_driver_lacks_is_told_up_to_a_number() -> None:
    outcome = Outcome()
    for _ in range(5):
        outcome.lack(["VK_EXT_nobody_has"] * 1000)
    assert len(outcome.lacks) == 1024
