"""What a client must have said before it is given a worker."""

from __future__ import annotations

import struct

import pytest

from hesper.isolation.service import ClientError
from hesper.vtest.introduction import introduced
from hesper.vtest.wire import MAX_NAME


@pytest.mark.parametrize("name", [b"\0", b"test\0", b"x" * MAX_NAME])
def test_a_whole_name_is_enough(name: bytes) -> None:
    data = struct.pack("<II", len(name), 8) + name
    assert introduced(data)
    assert introduced(data + b"more")
    assert not any(introduced(data[:size]) for size in range(len(data)))


@pytest.mark.parametrize(
    ("length", "number", "reason"),
    [
        (0, 8, "CREATE_RENDERER: 0 bytes of data, must be 1 to 4096"),
        (MAX_NAME + 1, 8, "CREATE_RENDERER: 4097 bytes of data"),
        (0, 10, "command 10 before CREATE_RENDERER"),
        (1 << 31, 1 << 31, "before CREATE_RENDERER"),
    ],
)
def test_what_no_client_says_first_is_refused(length: int, number: int, reason: str) -> None:
    data = struct.pack("<II", length, number)
    assert not introduced(data[:7])
    with pytest.raises(ClientError, match=reason):
        introduced(data)
