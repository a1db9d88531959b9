"""Recordings that no guest has made: each ends with a sentence, and nothing is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded_guest import Copier, read_file, record_to, replay
from recordings import command, file_of, memory

from hesper.errors import HesperError
from hesper.protocol.codec import Codec
from hesper.trace.records import BLOB_BODY, MEMORY_BODY, Kind, Record, put
from hesper.trace.replay import REPLIES
from open_files import assert_closed_since, open_files

CODEC = Codec()
MOST = (1 << 64) - 1


def blob(resource: int, memory_id: int, size: int, flags: int = 1) -> bytes:
    return put(Kind.BLOB, BLOB_BODY.pack(resource, flags, memory_id, size))


def timeline(ring_idx: int) -> bytes:
    """A queue of nothing, bound to that timeline, and work for it."""
    info = {"pNext": [("VkDeviceQueueTimelineInfoMESA", {"ringIdx": ring_idx})]}
    parameters: dict[str, Any] = {"device": 3, "pQueueInfo": info, "pQueue": 4}
    return command(CODEC.encode("vkGetDeviceQueue2", parameters))


def said_by(path: Path) -> str:
    """Why a recording cannot be replayed."""
    try:
        return replay(path).fatal
    except HesperError as error:
        return str(error)


@pytest.mark.parametrize(
    "records",
    [
        command(b"\xff\xff\x00\x00\x00\x00\x00\x00"),
        command(b"\x01\x00"),
        blob(5, 17, 4096),
        blob(5, 17, MOST),
        put(Kind.IMPORT, MEMORY_BODY.pack(5, 0, MOST)),
        put(Kind.IMPORT, MEMORY_BODY.pack(5, 0, 1 << 62)),
        put(Kind.IMPORT, MEMORY_BODY.pack(REPLIES, 0, 4096)),
        timeline(MOST & 0xFFFFFFFF),
        command(CODEC.encode("vkDestroyDevice", {"device": 3})),
    ],
)
def test_it_ends_with_a_sentence(records: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.hesper"
    path.write_bytes(file_of(records))
    said_by(path)  # what is opened once and kept is no leak
    before = open_files()
    says = said_by(path)
    assert says
    assert "\n" not in says
    assert_closed_since(before)


def again(record: Record) -> bytes:
    return put(record.kind, record.body, flags=record.flags, time=record.time, stream=record.stream)


@pytest.mark.parametrize(
    "extra",
    [
        memory(3, 1 << 40, bytes(4096)),
        memory(3, 5, bytes(4096)),
        memory(3, 61440, bytes(8192), Kind.LAST),
        blob(3, 17, 4096),
    ],
)
def test_memory_beyond_a_resource_is_refused(extra: bytes, tmp_path: Path) -> None:
    path = tmp_path / "copies.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    copier.copy(b"1234")
    copier.close()
    recorder.close()
    _, records = read_file(path)
    at = next(i for i, r in enumerate(records) if r.kind == Kind.MEMORY)
    assert records[at].body[0] == 2
    kept = b"".join(map(again, records[:at]))
    other = tmp_path / "other.hesper"
    # Resource 2 is the first that the copier has mapped, 3 the second.
    other.write_bytes(file_of(kept + extra))
    with pytest.raises(HesperError, match=r"^byte \d+(, after command \d+)?: "):
        replay(other)
