"""Pipeline caches: only what was handed out comes back to the driver."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
from guest_client import DEVICE, Guest, MakeGuest

from hesper.guest.pipeline_cache import create_pipeline_cache, get_pipeline_cache_data
from hesper.kernel.handlers import CACHE_TAG as TAG
from hesper.vk.enumerants import VK_INCOMPLETE, VK_SUCCESS

KEY = bytes(range(32))
CONTENT = b"\x20\0\0\0\x01\0\0\0" + bytes(range(120))
"""As a driver has it."""


class FakeContext:
    """What the handlers ask of a context."""

    name = "test"

    def __init__(self, key: bytes = KEY, identity: bytes = b"driver") -> None:
        self.cache_key = key
        self.said: list[str] = []
        self._device = SimpleNamespace(physical=SimpleNamespace(cache_identity=identity))

    def device(self, _id: int) -> Any:
        return self._device

    def first_of(self, kind: str) -> bool:
        self.said.append(kind)
        return len(self.said) == 1


class Info:
    """A VkPipelineCacheCreateInfo."""

    def __init__(self, data: bytes) -> None:
        self._memory = ctypes.create_string_buffer(data, len(data)) if data else None
        self.initialDataSize = len(data)
        self.pInitialData: Any = self._memory

    def pointer_(self, _name: str) -> int:
        return ctypes.addressof(self._memory) if self._memory else 0

    @property
    def seen(self) -> bytes:
        """What a driver would read."""
        if self.pInitialData is None:
            return b"" if not self.initialDataSize else b"a size without data"
        return ctypes.string_at(self.pointer_(""), self.initialDataSize)


def create(context: FakeContext, data: bytes) -> bytes:
    """Make a cache of `data`; what the driver is given."""
    seen: list[bytes] = []
    info = Info(data)
    call = SimpleNamespace(
        id=lambda _: DEVICE,
        args=SimpleNamespace(pCreateInfo=info),
        run=lambda: seen.append(info.seen),
    )
    create_pipeline_cache(context, call)  # type: ignore[arg-type]
    (one,) = seen
    return one


def get(context: FakeContext, room: int, content: bytes = CONTENT) -> tuple[int, int, bytes]:
    """Ask for a cache's data in `room` bytes: the result, the size, and what was written."""
    size = [room]
    memory = ctypes.create_string_buffer(room)
    call = SimpleNamespace(result=VK_SUCCESS, id=lambda _: DEVICE)

    def invoke() -> int:
        written = content[: size[0]]
        ctypes.memmove(memory, written, len(written))
        call.result = VK_SUCCESS if size[0] >= len(content) else VK_INCOMPLETE
        size[0] = len(written)
        return int(call.result)

    call.args = SimpleNamespace(pDataSize=size, pointer_=lambda _: ctypes.addressof(memory))
    call.invoke = invoke
    get_pipeline_cache_data(context, call)  # type: ignore[arg-type]
    return call.result, size[0], memory.raw[: size[0]]


def test_what_was_handed_out_comes_back() -> None:
    result, size, data = get(FakeContext(), len(CONTENT) + TAG)
    assert (result, size) == (VK_SUCCESS, len(CONTENT) + TAG)
    assert data[: len(CONTENT)] == CONTENT
    context = FakeContext()
    assert create(context, data) == CONTENT
    assert context.said == []


def test_what_was_handed_out_in_part_comes_back_in_part() -> None:
    for room in range(len(CONTENT) + TAG):
        result, size, data = get(FakeContext(), room)
        assert result == VK_INCOMPLETE
        assert size == len(data) <= room
        if data:
            assert create(FakeContext(), data) == CONTENT[: size - TAG]


def test_an_empty_cache_has_no_tag() -> None:
    assert get(FakeContext(), 100, b"") == (VK_SUCCESS, 0, b"")


@pytest.mark.parametrize("at", [0, 40, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + TAG - 1])
def test_one_bit_is_enough_to_begin_empty(at: int) -> None:
    data = bytearray(get(FakeContext(), len(CONTENT) + TAG)[2])
    data[at] ^= 1
    assert create(FakeContext(), bytes(data)) == b""


def test_what_others_have_made_begins_empty() -> None:
    data = get(FakeContext(), len(CONTENT) + TAG)[2]
    for given in (
        CONTENT,
        data[:-1],
        data + b"\0",
        data[1:],
        b"x",
        bytes(TAG),
        CONTENT + bytes(TAG),
    ):
        assert create(FakeContext(), given) == b""
    assert create(FakeContext(key=bytes(32)), data) == b""
    assert create(FakeContext(identity=b"another"), data) == b""
    assert create(FakeContext(), b"") == b""


def contents(guest: Guest, cache: int) -> bytes:
    _, outputs = guest.call(
        "vkGetPipelineCacheData", device=DEVICE, pipelineCache=cache, pDataSize=0, pData=None
    )
    size = outputs["pDataSize"]
    assert size > TAG
    _, outputs = guest.call(
        "vkGetPipelineCacheData", device=DEVICE, pipelineCache=cache, pDataSize=size, pData=size
    )
    assert TAG < outputs["pDataSize"] <= size  # lavapipe 26.2 says 32, and then 20
    return bytes(outputs["pData"])


def test_a_guest_keeps_its_cache_from_one_context_to_the_next(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, stranger = make_guest(), make_guest(), make_guest()
    first.context.cache_key = second.context.cache_key = KEY
    data = contents(first.start(), first.create("PipelineCache", {}))
    # Vulkan's header, in which a guest looks for what it knows: its size and version.  It need not
    # be whole: lavapipe 26.2 writes 32 bytes and says 20.
    assert len(data) > TAG
    assert data[:8] == b"\x20\0\0\0\x01\0\0\0"
    info = {"initialDataSize": len(data), "pInitialData": data}
    with caplog.at_level("INFO"):
        assert contents(second.start(), second.create("PipelineCache", info)) == data
        assert "begins empty" not in caplog.text
        stranger.start()
        for _ in range(3):
            stranger.create("PipelineCache", info)
        assert caplog.text.count("pipeline cache begins empty") == 1
