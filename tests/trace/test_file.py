"""The file of a recording: what is written is read, cut off or hostile as it may be."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import ABOUT_NOTHING, command, file_of, memory, read

from hesper.trace.chunks import (
    HEAD,
    MAGIC,
    MOST_STORED,
    MOST_UNPACKED,
    PLAIN,
    RECORDS,
    ZSTANDARD,
    RecordingError,
    pack,
)
from hesper.trace.memory import MOST_TAKEN_BACK, PAGE, ReplayedMemory
from hesper.trace.records import MORE, Kind, command_of, memory_of, put

CHUNKS = [
    command(b"12345678", time=5, stream=7) + command(b"abcdefgh", b"reply", time=6),
    memory(3, 4096, bytes(4096)),
    put(Kind.END, b""),
]


def test_what_is_written_is_read() -> None:
    reader, records = read(file_of(*CHUNKS))
    assert reader.about == ABOUT_NOTHING
    assert [record.kind for record in records] == [
        Kind.COMMAND,
        Kind.COMMAND,
        Kind.MEMORY,
        Kind.END,
    ]
    assert records[0].time == 5
    assert records[0].stream == 7
    assert command_of(records[1]).data == b"abcdefgh"
    assert command_of(records[1]).reply == b"reply"
    assert memory_of(records[2]) == (3, 4096, bytes(4096))
    assert (reader.cut, reader.missing, reader.unfinished) == (-1, 0, 0)


def test_pieces_are_one_record_though_others_lie_between() -> None:
    first = put(Kind.MEMORY, memory(3, 0, b"ab")[24:], flags=MORE, stream=1)
    other = memory(4, 0, b"xy")
    last = put(Kind.MEMORY, b"cd", stream=1)
    _, records = read(file_of(first, other + last))
    assert [memory_of(record) for record in records] == [(4, 0, b"xy"), (3, 0, b"abcd")]


def test_a_record_whose_last_piece_is_missing_is_counted() -> None:
    reader, records = read(file_of(put(Kind.END, b"no", flags=MORE)))
    assert records == []
    assert reader.unfinished == 1


def test_ten_files_cut_off_at_random_places_are_read_up_to_there() -> None:
    whole = file_of(*[command(i.to_bytes(8, "little")) for i in range(50)])
    after_about = len(file_of())
    random.seed(18)
    for _ in range(10):
        cut = random.randrange(after_about, len(whole))
        reader, records = read(whole[:cut])
        assert [command_of(record).data for record in records] == [
            i.to_bytes(8, "little") for i in range(len(records))
        ]
        assert len(records) < 50
        # The next chunk would not have been whole.
        assert (
            len(file_of(*[command(i.to_bytes(8, "little")) for i in range(len(records) + 1)])) > cut
        )
        if reader.cut < 0:
            assert cut == len(
                file_of(*[command(i.to_bytes(8, "little")) for i in range(len(records))])
            )
        else:
            assert after_about <= reader.cut < cut


def test_a_plain_chunk_of_a_dying_process_is_read() -> None:
    record = put(Kind.END, b"")
    head = HEAD.pack(b"HCNK", PLAIN, RECORDS, 0, 1, len(record), len(record), 0)
    _, records = read(file_of() + head + record)
    assert [found.kind for found in records] == [Kind.END]


def test_what_a_dying_process_has_spoilt_is_cut_off() -> None:
    records = command(b"12345678") + command(b"abcdefgh")[:-3]
    last = HEAD.pack(b"HCNK", PLAIN, RECORDS, 0, 2, len(records), len(records), 0) + records
    before = file_of(command(b"whatever"))
    reader, found = read(before + last)
    assert [command_of(record).data for record in found] == [b"whatever", b"12345678"]
    assert reader.cut == len(before)


def head(**other: int) -> bytes:
    """The head of an empty chunk, but for what is said."""
    values = {
        "codec": ZSTANDARD,
        "kind": RECORDS,
        "zero": 0,
        "number": 1,
        "stored": 0,
        "size": 0,
        "checksum": 0,
    } | other
    return HEAD.pack(b"HCNK", *values.values())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "byte 0: this is no recording"),
        (b"PK\x03\x04 something", "byte 0: this is no recording"),
        (MAGIC[:-1] + b"\x09", "byte 7: version 9 of the format"),
        (MAGIC, "byte 8: the recording does not say"),
        (file_of() + b"X" * 24, "no chunk begins here"),
        (file_of() + head(codec=7), "codec 7"),
        (file_of() + head(stored=MOST_STORED + 1), "the most are"),
        (file_of() + head(size=MOST_UNPACKED + 1), "the most are"),
        (file_of() + head(codec=PLAIN, size=9), "9 bytes unpacked of 0"),
        (file_of() + head(checksum=1), "checksum"),
        (file_of() + head(codec=PLAIN, number=0), "stands behind chunk 0"),
        (file_of(put(Kind.END, b"")[:-1]), "no record"),
        (file_of(put(Kind.BEGUN, b"12")), "BEGUN of 2 bytes"),
        (file_of(b"\x63" + put(Kind.END, b"")[1:]), "no record of kind 99"),
        (file_of(put(Kind.END, b"", flags=128)), "flags 0x80"),
        (file_of(put(Kind.END, b"12345678")[:-4]), "a record of 8 bytes, 4 are left"),
        (MAGIC + pack(0, 0, b"\xc1"), "what it is of"),
        (MAGIC + pack(0, 0, b"\x91" * 100_000), "what it is of"),
    ],
)
def test_what_is_wrong_is_said_with_the_offset(data: bytes, says: str) -> None:
    with pytest.raises(RecordingError, match=r"^byte \d+") as error:
        read(data)
    assert says in str(error.value)


def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused() -> None:
    bomb = bytearray(pack(RECORDS, 1, bytes(1 << 20)))
    bomb[16:20] = (100).to_bytes(4, "little")
    with pytest.raises(RecordingError, match=r"^byte \d+"):
        read(file_of() + bytes(bomb))


def test_a_reply_longer_than_its_record_is_refused() -> None:
    broken = bytearray(command(b"12345678", b"reply"))
    broken[32:36] = (99).to_bytes(4, "little")
    _, records = read(file_of(bytes(broken)))
    with pytest.raises(RecordingError, match="a reply of 99 bytes"):
        command_of(records[0])


def assert_read_or_refused(data: bytes) -> None:
    """Nothing else may come of it."""
    says = ""
    try:
        _, records = read(data)
        for record in records:
            if record.kind == Kind.COMMAND:
                command_of(record)
    except RecordingError as error:
        says = str(error)
    assert not says or says.startswith("byte ")


@given(
    at=st.integers(0, len(file_of(*CHUNKS)) - 1),
    value=st.integers(0, 255),
    length=st.integers(1, 9),
)
def test_a_byte_changed_anywhere_is_read_or_refused(at: int, value: int, length: int) -> None:
    data = bytearray(file_of(*CHUNKS))
    data[at : at + length] = bytes([value]) * length
    assert_read_or_refused(bytes(data))


@given(st.binary(max_size=300))
def test_any_records_are_read_or_refused(data: bytes) -> None:
    assert_read_or_refused(file_of(data))


def test_words_that_the_guest_takes_back_are_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file:
        memory = ReplayedMemory(file.fileno(), PAGE)
        page = b"\1" * PAGE
        memory.write(0, page)
        # The device says that a fence is through, and the guest makes it ready again: it is as it
        # was when it was noted, then and in the end.
        os.pwrite(file.fileno(), b"\2" * 4, 8)
        memory.expect(0, page)
        assert memory.differing() == (1, [], 0)
        # What it computes is another thing.
        os.pwrite(file.fileno(), b"\2" * 4 * (MOST_TAKEN_BACK + 1), 8)
        assert memory.differing() == (0, [0], 0)
        memory.close()


def test_less_of_a_page_may_have_been_noted_before(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file:
        memory = ReplayedMemory(file.fileno(), PAGE)
        memory.write(0, b"\1" * 8)
        os.pwrite(file.fileno(), b"\2" * 4, 12)
        memory.write(0, b"\1" * PAGE)
        memory.close()
    assert path.read_bytes()[:16] == b"\1" * 12 + b"\2" * 4


def test_what_was_noted_in_the_middle_of_work_may_be_the_devices(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file:
        memory = ReplayedMemory(file.fileno(), PAGE)
        memory.write(0, b"\1" * PAGE, is_done=True)
        # The device was using it for something else, and wrote the same again; here it is through.
        memory.write(0, b"\2" * 2048 + b"\1" * 2048)
        memory.expect(0, b"\1" * PAGE)
        assert memory.differing() == (0, [], 1)
        # It did not write this.
        memory.expect(0, b"\1" * 4092 + b"\3" * 4)
        assert memory.differing() == (0, [0], 0)
        # When it was through, it is known who wrote.
        memory.expect(0, b"\1" * PAGE)
        memory.write(0, b"\2" * PAGE, is_done=True)
        assert memory.differing() == (0, [0], 0)
        memory.close()
